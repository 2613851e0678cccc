//! The values of a fetch.

use super::view::{RequestView, Value, field_ip, field_number};
use crate::haproxy::rules::{Fetch, ReadAs, Side};

/// Which values of a fetch count, where there are several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Values {
    /// All: an ACL compares each.
    All,
    /// One: of a header and a named cookie the last, of others the first.
    One,
}

/// Calls `see` with the values of a fetch in order until it returns true; tells whether it did. `joined` is a buffer.
pub(super) fn each(
    fetch: &Fetch,
    values: Values,
    view: &dyn RequestView,
    joined: &mut Vec<u8>,
    see: &mut dyn FnMut(Value<'_>) -> bool,
) -> bool {
    let mut int =
        |number: Option<u64>| number.is_some_and(|number| see(Value::Int(i64::try_from(number).unwrap_or(i64::MAX))));
    match fetch {
        Fetch::HeaderCount { side, name, is_line } => int(Some(header_count(view, *side, name, *is_line))),
        Fetch::CookieCount(name) => int(Some(cookie_count(view, Side::Request, name.as_deref()))),
        Fetch::Status => int(view.status().map(u64::from)),
        Fetch::SourcePort => int(Some(view.source().port().into())),
        Fetch::DestinationPort => int(Some(view.destination().port().into())),
        Fetch::ServersUp(backend) => int(view.servers_up(backend.as_deref())),
        Fetch::ConnectionSlots(backend) => {
            view.connection_slots(backend.as_deref()).is_some_and(|slots| see(Value::Int(slots)))
        }
        Fetch::Load(kind, proxy) => int(view.load(*kind, proxy.as_deref())),
        Fetch::StickCounter { counter, operation, slot, table } => {
            int(view.counter((*counter, *operation), *slot, table.as_deref()))
        }
        Fetch::Random(range) => int(Some(u64::from(view.random() % (*range).max(1)))),
        Fetch::Int(number) => see(Value::Int(*number)),
        Fetch::Date(offset) => see(Value::Int(view.unix_seconds().saturating_add(*offset))),
        Fetch::Source => see(Value::Ip(view.source().ip().to_canonical())),
        Fetch::Destination => see(Value::Ip(view.destination().ip().to_canonical())),
        Fetch::Bool(value) => see(Value::Bool(*value)),
        Fetch::Ssl => see(Value::Bool(view.is_tls())),
        Fetch::HasSni => see(Value::Bool(view.server_name().is_some())),
        Fetch::HttpAuth(list) => see(Value::Bool(view.user(list).is_some())),
        Fetch::ServerIsUp(backend, server) => {
            view.server_is_up(backend.as_deref(), server).is_some_and(|is_up| see(Value::Bool(is_up)))
        }
        _ => each_text(fetch, values, view, joined, see),
    }
}

/// Yields the values of fetches that are texts, or are parsed from texts.
fn each_text(
    fetch: &Fetch,
    values: Values,
    view: &dyn RequestView,
    joined: &mut Vec<u8>,
    see: &mut dyn FnMut(Value<'_>) -> bool,
) -> bool {
    let mut text = |text: Option<&[u8]>| text.is_some_and(|text| see(Value::Text(text)));
    let [frontend, backend, server] = view.names();
    match fetch {
        Fetch::Method => text(Some(view.method())),
        Fetch::Url => text(Some(view.target()).filter(|target| !target.is_empty())),
        Fetch::CapturedUri => text(view.captured_uri()),
        Fetch::Captured(side, slot) => text(view.captured(*side, *slot)),
        Fetch::Path => text(path_and_query(view.target()).map(|target| split_query(target).0)),
        Fetch::PathQuery => text(path_and_query(view.target())),
        Fetch::Query => text(split_query(view.target()).1),
        Fetch::Version => {
            let (major, minor) = view.version();
            let version = [b'0'.saturating_add(major), b'.', b'0'.saturating_add(minor)];
            text(Some(&version))
        }
        // Rules of responses have no target.
        Fetch::Base if view.target().is_empty() => false,
        Fetch::Base => {
            join_base(view, joined);
            text(Some(joined))
        }
        Fetch::UrlParam { name, ignore_case } => {
            let query = split_query(view.target()).1.unwrap_or_default();
            // HAProxy ends a parameter at each of these, and one without `=` is none.
            let pairs = query.split(|byte| matches!(byte, b'&' | b';' | b'?')).map(|pair| split_at(pair, b'='));
            let mut named = pairs.filter(|(key, _)| match name {
                None => true,
                Some(name) if *ignore_case => key.eq_ignore_ascii_case(name.as_bytes()),
                Some(name) => *key == name.as_bytes(),
            });
            match values {
                Values::All => named.any(|(_, value)| value.is_some() && text(value)),
                Values::One => text(named.find_map(|(_, value)| value)),
            }
        }
        Fetch::Header { side, name, occurrence, is_line, read_as } => {
            let occurrence = occurrence.or((values == Values::One).then_some(-1));
            let wanted = wanted(view, *side, name, *is_line, occurrence);
            let mut index = 0;
            each_header(view, *side, name, *is_line, &mut |value| {
                index += 1;
                if wanted.is_some_and(|wanted| wanted != index) {
                    return false;
                }
                read(value, *read_as).is_some_and(&mut *see)
            })
        }
        Fetch::Cookie { side, name, read_as } => {
            let name = name.as_deref();
            let mut left = match (values, name) {
                (Values::All, _) => None,
                (Values::One, None) => Some(1),
                (Values::One, Some(_)) => Some(cookie_count(view, *side, name)),
            };
            each_cookie(view, *side, name, &mut |value| {
                left = left.map(|left: u64| left.saturating_sub(1));
                left.unwrap_or(0) == 0 && (read(value, *read_as).is_some_and(&mut *see) || left.is_some())
            })
        }
        Fetch::Sni => text(view.server_name()),
        Fetch::Text(constant) => text(Some(constant.as_bytes())),
        Fetch::Variable(name) => text(view.variable(name)),
        Fetch::HttpAuthGroup(list) => view.groups(list, &mut |group| text(Some(group.as_bytes()))),
        Fetch::HttpAuthUser => text(view.sent_user().map(str::as_bytes)),
        Fetch::FrontendName => text(frontend.map(str::as_bytes)),
        Fetch::BackendName => text(backend.map(str::as_bytes)),
        Fetch::ServerName => text(server.map(str::as_bytes)),
        Fetch::UniqueId => text(view.unique_id()),
        _ => false,
    }
}

/// The host and the path, in the buffer.
fn join_base(view: &dyn RequestView, joined: &mut Vec<u8>) {
    joined.clear();
    view.each_field(Side::Request, &mut |name, value| {
        let is_host = name.eq_ignore_ascii_case(b"host");
        if is_host {
            joined.extend_from_slice(value);
        }
        is_host
    });
    joined.extend_from_slice(path_and_query(view.target()).map_or(&[][..], |target| split_query(target).0));
}

/// A text in the type that a fetch reads it as.
fn read(text: &[u8], read_as: ReadAs) -> Option<Value<'_>> {
    match read_as {
        ReadAs::Text => Some(Value::Text(text)),
        ReadAs::Int => Some(Value::Int(field_number(text))),
        ReadAs::Ip => field_ip(text).map(Value::Ip),
    }
}

/// The target from its path on, without scheme and authority. `*` has none.
pub(super) fn path_and_query(target: &[u8]) -> Option<&[u8]> {
    if target.first() == Some(&b'/') {
        return Some(target);
    }
    let authority = memchr::memmem::find(target, b"://")? + 3;
    let rest = target.get(authority..)?;
    let start = rest.iter().position(|byte| *byte == b'/')?;
    rest.get(start..)
}

/// The parts before and after the first question mark.
pub(super) fn split_query(target: &[u8]) -> (&[u8], Option<&[u8]>) {
    split_at(target, b'?')
}

fn split_at(text: &[u8], delimiter: u8) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(delimiter, text) {
        Some(at) => (text.get(..at).unwrap_or_default(), text.get(at + 1..)),
        None => (text, None),
    }
}

/// The number, from 1, of the requested value; `None` for all values.
fn wanted(view: &dyn RequestView, side: Side, name: &str, is_line: bool, occurrence: Option<i32>) -> Option<u64> {
    match occurrence? {
        positive @ 1.. => u64::try_from(positive).ok(),
        negative => {
            let back = u64::from(negative.unsigned_abs());
            // A number too far back selects no value.
            Some((header_count(view, side, name, is_line) + 1).saturating_sub(back))
        }
    }
}

fn header_count(view: &dyn RequestView, side: Side, name: &str, is_line: bool) -> u64 {
    let mut count = 0;
    each_header(view, side, name, is_line, &mut |_| {
        count += 1;
        false
    });
    count
}

/// Yields the values of a field: its lines, or the parts between commas outside of quotes.
fn each_header(
    view: &dyn RequestView,
    side: Side,
    name: &str,
    is_line: bool,
    see: &mut dyn FnMut(&[u8]) -> bool,
) -> bool {
    view.each_field(side, &mut |field, mut value| {
        if !field.eq_ignore_ascii_case(name.as_bytes()) {
            return false;
        }
        if is_line {
            return see(value);
        }
        loop {
            let end = comma(value);
            if see(value.get(..end).unwrap_or_default().trim_ascii()) {
                return true;
            }
            match value.get(end + 1..) {
                Some(rest) => value = rest,
                None => return false,
            }
        }
    })
}

/// The position of the first comma outside of quotes; the end if there is none.
fn comma(value: &[u8]) -> usize {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let end = value.iter().position(|byte| {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            b',' if !is_quoted => return true,
            _ => {}
        }
        false
    });
    end.unwrap_or(value.len())
}

fn cookie_count(view: &dyn RequestView, side: Side, name: Option<&str>) -> u64 {
    let mut count = 0;
    each_cookie(view, side, name, &mut |_| {
        count += 1;
        false
    });
    count
}

/// Yields the values of a cookie, of the request's `Cookie` or the response's `Set-Cookie`.
fn each_cookie(view: &dyn RequestView, side: Side, name: Option<&str>, see: &mut dyn FnMut(&[u8]) -> bool) -> bool {
    let header: &[u8] = if side == Side::Request { b"cookie" } else { b"set-cookie" };
    view.each_field(side, &mut |field, mut rest| {
        if !field.eq_ignore_ascii_case(header) {
            return false;
        }
        loop {
            let end = cookie_end(rest);
            let (key, value) = split_at(rest.get(..end).unwrap_or_default(), b'=');
            let key = key.trim_ascii();
            let is_it = name.is_none_or(|name| key == name.as_bytes()) && !key.starts_with(b"$");
            if is_it && value.is_some_and(|value| see(value.trim_ascii())) {
                return true;
            }
            // After the first semicolon a `Set-Cookie` has attributes.
            match rest.get(end + 1..) {
                Some(next) if side == Side::Request => rest = next,
                _ => return false,
            }
        }
    })
}

/// Where a cookie ends: at a semicolon or a comma outside of the quotes that its value may have.
fn cookie_end(text: &[u8]) -> usize {
    let equal = text.iter().position(|byte| matches!(byte, b'=' | b';' | b',')).unwrap_or(text.len());
    if text.get(equal) != Some(&b'=') {
        return equal;
    }
    let (mut is_quoted, mut is_escaped) = (false, false);
    let end = text.iter().skip(equal).position(|byte| {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            b',' | b';' if !is_quoted => return true,
            _ => {}
        }
        false
    });
    end.map_or(text.len(), |end| equal + end)
}
