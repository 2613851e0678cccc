//! The values of a fetch.

use super::view::{RequestView, Value};
use crate::haproxy::rules::{Fetch, ReadAs, Side};

/// Calls `see` with each value of a fetch until it returns true; returns whether it did. `joined` is a buffer.
///
/// HAProxy compares all values in an ACL and uses the last one elsewhere; this yields all of them in order.
pub(super) fn each(
    fetch: &Fetch,
    view: &dyn RequestView,
    joined: &mut Vec<u8>,
    see: &mut dyn FnMut(Value<'_>) -> bool,
) -> bool {
    let mut int =
        |number: Option<u64>| number.is_some_and(|number| see(Value::Int(i64::try_from(number).unwrap_or(i64::MAX))));
    match fetch {
        Fetch::HeaderCount { side, name, is_line } => int(Some(header_count(view, *side, name, *is_line))),
        Fetch::CookieCount(name) => {
            let mut count = 0;
            each_cookie(view, Side::Request, name.as_deref(), &mut |_| {
                count += 1;
                false
            });
            int(Some(count))
        }
        Fetch::Status => int(view.status().map(u64::from)),
        Fetch::SourcePort => int(Some(view.source().port().into())),
        Fetch::DestinationPort => int(Some(view.destination().port().into())),
        Fetch::ServersUp(backend) => int(view.servers_up(backend.as_deref())),
        Fetch::ConnectionSlots(backend) => int(view.connection_slots(backend.as_deref())),
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
        _ => each_text(fetch, view, joined, see),
    }
}

/// Yields the values of fetches that are texts, or are parsed from texts.
fn each_text(
    fetch: &Fetch,
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
            joined.clear();
            view.each_field(Side::Request, &mut |name, value| {
                let is_host = name.eq_ignore_ascii_case(b"host");
                if is_host {
                    joined.extend_from_slice(value);
                }
                is_host
            });
            let path = path_and_query(view.target()).map_or(&[][..], |target| split_query(target).0);
            joined.extend_from_slice(path);
            text(Some(joined))
        }
        Fetch::UrlParam { name, ignore_case } => {
            let query = split_query(view.target()).1.unwrap_or_default();
            // In HAProxy both delimiters end a parameter, and a parameter without `=` does not count.
            let pairs = query.split(|byte| matches!(byte, b'&' | b';')).map(|pair| split_at(pair, b'='));
            let mut named = pairs.filter(|(key, _)| match name {
                None => true,
                Some(name) if *ignore_case => key.eq_ignore_ascii_case(name.as_bytes()),
                Some(name) => *key == name.as_bytes(),
            });
            named.any(|(_, value)| value.is_some() && text(value))
        }
        Fetch::Header { side, name, occurrence, is_line, read_as } => {
            let wanted = wanted(view, *side, name, *is_line, *occurrence);
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
            each_cookie(view, *side, name.as_deref(), &mut |value| read(value, *read_as).is_some_and(&mut *see))
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

/// A text in the type that a fetch reads it as.
fn read(text: &[u8], read_as: ReadAs) -> Option<Value<'_>> {
    match read_as {
        ReadAs::Text => Some(Value::Text(text)),
        ReadAs::Int => Value::Text(text).number().map(Value::Int),
        ReadAs::Ip => Value::Text(text).ip().map(Value::Ip),
    }
}

/// The target from its path on, without scheme and authority. `*` has none.
fn path_and_query(target: &[u8]) -> Option<&[u8]> {
    if target.first() == Some(&b'/') {
        return Some(target);
    }
    let authority = memchr::memmem::find(target, b"://")? + 3;
    let rest = target.get(authority..)?;
    let start = rest.iter().position(|byte| *byte == b'/')?;
    rest.get(start..)
}

/// The parts before and after the first question mark.
fn split_query(target: &[u8]) -> (&[u8], Option<&[u8]>) {
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

/// Yields the values of a cookie, of the request's `Cookie` or the response's `Set-Cookie`.
fn each_cookie(view: &dyn RequestView, side: Side, name: Option<&str>, see: &mut dyn FnMut(&[u8]) -> bool) -> bool {
    let header: &[u8] = if side == Side::Request { b"cookie" } else { b"set-cookie" };
    view.each_field(side, &mut |field, value| {
        if !field.eq_ignore_ascii_case(header) {
            return false;
        }
        let mut pairs = value.split(|byte| *byte == b';');
        // A `Set-Cookie` has attributes behind the first semicolon.
        let count = if side == Side::Request { usize::MAX } else { 1 };
        pairs.by_ref().take(count).any(|pair| {
            let (key, value) = split_at(pair, b'=');
            let is_it = name.is_none_or(|name| key.trim_ascii() == name.as_bytes());
            is_it && value.is_some_and(|value| see(value.trim_ascii()))
        })
    })
}
