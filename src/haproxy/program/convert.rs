//! Converters applied to the values of a fetch.

use super::fetch;
use super::view::{RequestView, Scratch, Value, text_fits};
use crate::haproxy::rules::{Converter, MapTable, Operation, Sample, TextMatch};
use std::net::IpAddr;

/// Calls `see` with each value of a sample and a buffer for look-ups until it returns true; returns whether it did.
pub(super) fn each_value(
    sample: &Sample,
    view: &dyn RequestView,
    scratch: &mut Scratch,
    see: &mut dyn FnMut(Value<'_>, &mut Vec<u8>) -> bool,
) -> bool {
    // The buffers are disjoint from the data that the values borrow.
    let mut joined = std::mem::take(&mut scratch.joined);
    let found = fetch::each(&sample.fetch, view, &mut joined, &mut |value| {
        if sample.converters.is_empty() {
            return see(value, &mut scratch.folded);
        }
        let Scratch { current, other, folded, .. } = &mut *scratch;
        convert(value, &sample.converters, view, current, other).is_some_and(|held| see(held.value(current), folded))
    });
    scratch.joined = joined;
    found
}

/// A value whose text is in the buffer.
#[derive(Clone, Copy)]
enum Held {
    Bool(bool),
    Int(i64),
    Ip(IpAddr),
    Text,
}

impl Held {
    fn value(self, current: &[u8]) -> Value<'_> {
        match self {
            Self::Bool(value) => Value::Bool(value),
            Self::Int(value) => Value::Int(value),
            Self::Ip(value) => Value::Ip(value),
            Self::Text => Value::Text(current),
        }
    }
}

/// Applies converters in order; `None` if one has no result.
fn convert(
    value: Value<'_>,
    converters: &[Converter],
    view: &dyn RequestView,
    current: &mut Vec<u8>,
    other: &mut Vec<u8>,
) -> Option<Held> {
    let mut held = match value {
        Value::Bool(value) => Held::Bool(value),
        Value::Int(value) => Held::Int(value),
        Value::Ip(value) => Held::Ip(value),
        Value::Text(text) => {
            current.clear();
            current.extend_from_slice(text);
            Held::Text
        }
    };
    for converter in converters {
        held = match converter {
            Converter::Arithmetic(operation, operand) => {
                Held::Int(arithmetic(*operation, held.value(current).number()?, *operand))
            }
            Converter::Bool => Held::Bool(held.value(current).number()? != 0),
            Converter::Not => Held::Bool(held.value(current).number()? == 0),
            Converter::IpMask(four, six) => Held::Ip(masked(held.value(current).ip()?, *four, *six)),
            _ => {
                if !matches!(held, Held::Text) {
                    let text = held.value(&[]);
                    current.clear();
                    text.with_text(|text| current.extend_from_slice(text));
                }
                text(converter, view, current, other)?
            }
        };
    }
    Some(held)
}

fn arithmetic(operation: Operation, value: i64, operand: i64) -> i64 {
    match operation {
        Operation::Add => value.saturating_add(operand),
        Operation::Sub => value.saturating_sub(operand),
        Operation::Mul => value.saturating_mul(operand),
        Operation::Div => value.checked_div(operand).unwrap_or(i64::MAX),
        Operation::Mod => value.checked_rem(operand).unwrap_or(0),
    }
}

fn masked(ip: IpAddr, four: u8, six: u8) -> IpAddr {
    let bits = if ip.is_ipv4() { four.min(32) } else { six };
    ipnet::IpNet::new(ip, bits).map_or(ip, |net| net.network())
}

/// Applies a converter of a text, in the buffer.
fn text(converter: &Converter, view: &dyn RequestView, current: &mut Vec<u8>, other: &mut Vec<u8>) -> Option<Held> {
    match converter {
        Converter::Lower => current.make_ascii_lowercase(),
        Converter::Upper => current.make_ascii_uppercase(),
        Converter::HostOnly => {
            let len = host_len(current);
            current.truncate(len);
        }
        Converter::PortOnly => {
            let port = current.get(host_len(current) + 1..).unwrap_or_default();
            return Some(Held::Int(Value::Text(port).number().unwrap_or(0)));
        }
        Converter::Field(number, delimiters) => {
            let range = part(current, *number, delimiters, true)?;
            keep(current, range);
        }
        Converter::Word(number, delimiters) => {
            let range = part(current, *number, delimiters, false)?;
            keep(current, range);
        }
        Converter::Bytes(offset, len) => {
            let end = len.map_or(current.len(), |len| offset.saturating_add(len)).min(current.len());
            if *offset >= current.len() {
                return None;
            }
            keep(current, (*offset, end));
        }
        Converter::Length => return Some(Held::Int(i64::try_from(current.len()).unwrap_or(i64::MAX))),
        Converter::TrimStart(bytes) => {
            let start = current.iter().position(|byte| !bytes.contains(byte)).unwrap_or(current.len());
            keep(current, (start, current.len()));
        }
        Converter::TrimEnd(bytes) => {
            let end = current.iter().rposition(|byte| !bytes.contains(byte)).map_or(0, |last| last + 1);
            current.truncate(end);
        }
        Converter::UrlDecode(in_form) => decode(current, *in_form),
        Converter::Map(map) => {
            let found = look_up(map, current).map(str::as_bytes)?;
            current.clear();
            current.extend_from_slice(found);
        }
        Converter::RegexReplace(regex, replacement, all) => {
            other.clear();
            replace(&regex.compiled, replacement.as_bytes(), *all, current, other);
            std::mem::swap(current, other);
        }
        Converter::IfElse(yes, no) => {
            let is_true = Value::Text(current).number().is_some_and(|number| number != 0);
            current.clear();
            current.extend_from_slice(if is_true { yes } else { no }.as_bytes());
        }
        Converter::ServersUp => {
            let up = view.servers_up(std::str::from_utf8(current).ok())?;
            return Some(Held::Int(i64::try_from(up).unwrap_or(i64::MAX)));
        }
        Converter::Concat(before, variable, after) => {
            current.extend_from_slice(before.as_bytes());
            let value = variable.as_deref().and_then(|name| view.variable(name));
            current.extend_from_slice(value.unwrap_or_default());
            current.extend_from_slice(after.as_bytes());
        }
        Converter::Arithmetic(..) | Converter::Bool | Converter::Not | Converter::IpMask(..) => return None,
    }
    Some(Held::Text)
}

fn keep(text: &mut Vec<u8>, (start, end): (usize, usize)) {
    text.truncate(end);
    text.drain(..start.min(end));
}

/// The length of a host before its port; an IPv6 address has brackets.
fn host_len(text: &[u8]) -> usize {
    let bracket = if text.first() == Some(&b'[') { memchr::memchr(b']', text).unwrap_or(0) } else { 0 };
    let rest = text.get(bracket..).unwrap_or_default();
    memchr::memchr(b':', rest).map_or(text.len(), |colon| bracket + colon)
}

/// Start and end of a part, counted from 1, or from the end with -1. Empty parts count in fields only.
fn part(text: &[u8], number: i32, delimiters: &[u8], with_empty: bool) -> Option<(usize, usize)> {
    let wanted = usize::try_from(number.unsigned_abs()).ok()?;
    let mut start = 0;
    let mut ranges = text.split(|byte| delimiters.contains(byte)).map(move |part| {
        let range = (start, start + part.len());
        start = range.1 + 1;
        range
    });
    let mut counted = ranges.by_ref().filter(|(start, end)| with_empty || end > start);
    if number > 0 {
        return counted.nth(wanted - 1);
    }
    let count = text.split(|byte| delimiters.contains(byte)).filter(|part| with_empty || !part.is_empty()).count();
    counted.nth(count.checked_sub(wanted)?)
}

/// Percent-decoding in place; `+` is a space after the question mark or in a form.
fn decode(text: &mut Vec<u8>, in_form: bool) {
    let (mut from, mut to, mut in_query) = (0, 0, in_form);
    while let Some(byte) = text.get(from).copied() {
        let digits = text.get(from + 1..from + 3).and_then(|digits| std::str::from_utf8(digits).ok());
        let decoded = digits.filter(|_| byte == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok());
        in_query |= byte == b'?';
        let (out, len) = match decoded {
            Some(decoded) => (decoded, 3),
            None if byte == b'+' && in_query => (b' ', 1),
            None => (byte, 1),
        };
        if let Some(place) = text.get_mut(to) {
            *place = out;
        }
        (from, to) = (from + len, to + 1);
    }
    text.truncate(to);
}

/// The value of the first matching key, otherwise the default.
fn look_up<'m>(map: &'m MapTable, text: &[u8]) -> Option<&'m str> {
    let index = match map.matching {
        _ if map.networks.is_some() => {
            let ip = Value::Text(text).ip().map(|ip| ip.to_canonical());
            map.networks.as_ref().zip(ip).and_then(|(networks, ip)| networks.find(ip))
        }
        TextMatch::Equal => map.index.get(text).copied(),
        TextMatch::Regex => map.expressions.iter().position(|regex| regex.compiled.is_match(text)),
        // The longest matching prefix wins, as in HAProxy's tree.
        TextMatch::Begin => {
            let fits = |(_, (key, _)): &(usize, &(String, String))| text.starts_with(key.as_bytes());
            map.entries.iter().enumerate().filter(fits).max_by_key(|(_, (key, _))| key.len()).map(|(index, _)| index)
        }
        method => map.entries.iter().position(|(key, _)| text_fits(method, key.as_bytes(), false, text)),
    };
    index.and_then(|index| map.entries.get(index)).map(|(_, value)| value.as_str()).or(map.default.as_deref())
}

/// Replaces matches; `\1` to `\9` in the replacement are groups, `\0` is the whole match.
pub(super) fn replace(regex: &regex::bytes::Regex, replacement: &[u8], all: bool, text: &[u8], out: &mut Vec<u8>) {
    let has_groups = replacement.windows(2).any(|pair| pair[0] == b'\\' && matches!(pair[1], b'1'..=b'9'));
    // Only a replacement with groups allocates, and only if there is a match.
    let mut locations = None;
    let mut at = 0;
    while let Some(found) = regex.find_at(text, at) {
        out.extend_from_slice(text.get(at..found.start()).unwrap_or_default());
        if has_groups {
            let locations = locations.get_or_insert_with(|| regex.capture_locations());
            regex.captures_read_at(locations, text, at);
            expand(replacement, &|group| locations.get(group).and_then(|(start, end)| text.get(start..end)), out);
        } else {
            expand(replacement, &|group| (group == 0).then(|| found.as_bytes()), out);
        }
        at = found.end();
        if found.start() == found.end() {
            // After an empty match, the search continues behind the next byte.
            out.extend(text.get(at));
            at += 1;
        }
        if !all || at > text.len() {
            break;
        }
    }
    out.extend_from_slice(text.get(at..).unwrap_or_default());
}

fn expand<'t>(replacement: &[u8], group: &dyn Fn(usize) -> Option<&'t [u8]>, out: &mut Vec<u8>) {
    let mut bytes = replacement.iter();
    while let Some(byte) = bytes.next() {
        match (byte, bytes.as_slice().first()) {
            (b'\\', Some(digit @ b'0'..=b'9')) => {
                out.extend_from_slice(group(usize::from(digit - b'0')).unwrap_or_default());
                bytes.next();
            }
            (b'\\', Some(next)) => {
                out.push(*next);
                bytes.next();
            }
            (byte, _) => out.push(*byte),
        }
    }
}
