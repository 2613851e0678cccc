//! Converters applied to the values of a fetch.

use super::fetch::{self, Values};
use super::view::{RequestView, Scratch, Value, field_number, text_fits};
use crate::base::base64;
use crate::haproxy::rules::{Coding, Converter, MapKeys, MapTable, Operation, Sample};
use std::net::IpAddr;

/// The greatest length in bytes of a text that a rule makes. Longer texts are cut, as HAProxy cuts at the size of a buffer.
pub(super) const LONGEST_TEXT: usize = 64 << 10;

/// Calls `see` with values of a sample and a buffer for look-ups until it returns true; tells whether it did.
pub(super) fn each_value(
    sample: &Sample,
    values: Values,
    view: &dyn RequestView,
    scratch: &mut Scratch,
    see: &mut dyn FnMut(Value<'_>, &mut Vec<u8>) -> bool,
) -> bool {
    // The buffers are disjoint from the data that the values borrow.
    let mut joined = std::mem::take(&mut scratch.joined);
    let found = fetch::each(&sample.fetch, values, view, &mut joined, &mut |value| {
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
            Converter::Odd(is_odd) => Held::Bool((held.value(current).number()? % 2 != 0) == *is_odd),
            // Bytes are encoded: those of a number and of an address as HAProxy has them in memory.
            Converter::Encode(coding) if *coding != Coding::Url && !matches!(held, Held::Text) => {
                other.clear();
                match held {
                    Held::Ip(IpAddr::V4(ip)) => other.extend_from_slice(&ip.octets()),
                    Held::Ip(IpAddr::V6(ip)) => other.extend_from_slice(&ip.octets()),
                    _ => other.extend_from_slice(&held.value(current).number()?.to_be_bytes()),
                }
                current.clear();
                encode(*coding, other, current);
                Held::Text
            }
            Converter::IpMask(four, six) => Held::Ip(masked(held.value(current).ip()?, *four, *six)?),
            Converter::IfElse(yes, no) => {
                let chosen = if held.value(current).number()? != 0 { yes } else { no };
                current.clear();
                current.extend_from_slice(chosen.as_bytes());
                Held::Text
            }
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
        Operation::And => value & operand,
        Operation::Or => value | operand,
        Operation::Xor => value ^ operand,
        Operation::Neg => value.wrapping_neg(),
        Operation::Cpl => !value,
    }
}

fn masked(ip: IpAddr, four: u8, six: Option<u8>) -> Option<IpAddr> {
    let ip = match ip {
        IpAddr::V6(ip) => ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4),
        ip => ip,
    };
    let bits = if ip.is_ipv4() { four.min(32) } else { six? };
    Some(ipnet::IpNet::new(ip, bits).map_or(ip, |net| net.network()))
}

/// Applies a converter of a text, in the buffer.
fn text(converter: &Converter, view: &dyn RequestView, current: &mut Vec<u8>, other: &mut Vec<u8>) -> Option<Held> {
    match converter {
        Converter::Lower => current.make_ascii_lowercase(),
        Converter::Upper => current.make_ascii_uppercase(),
        Converter::HostOnly => {
            current.truncate(port_at(current).unwrap_or(current.len()));
            current.make_ascii_lowercase();
        }
        Converter::PortOnly => {
            let port = port_at(current).and_then(|colon| current.get(colon + 1..));
            return Some(Held::Int(port.map_or(0, |port| i64::from(field_number(port) as u32))));
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
        Converter::UrlDecode(in_form) => decode(current, *in_form)?,
        Converter::Map(map) => {
            let found = look_up(map, current).map(str::as_bytes)?;
            current.clear();
            current.extend_from_slice(found);
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
            current.truncate(LONGEST_TEXT);
        }
        Converter::RegexReplace(..) | Converter::Encode(_) | Converter::Decode(_) => {
            other.clear();
            rewrite(converter, current, other)?;
            std::mem::swap(current, other);
            current.truncate(LONGEST_TEXT);
        }
        Converter::Arithmetic(..)
        | Converter::Odd(_)
        | Converter::Bool
        | Converter::Not
        | Converter::IfElse(..)
        | Converter::IpMask(..) => return None,
    }
    Some(Held::Text)
}

/// Appends the result of a converter that writes a text anew.
fn rewrite(converter: &Converter, text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    match converter {
        Converter::RegexReplace(regex, replacement, all) => {
            replace(&regex.compiled, replacement.as_bytes(), *all, text, out);
            Some(())
        }
        Converter::Decode(coding) => base64::decode_strictly(text, *coding == Coding::UrlBase64, out),
        Converter::Encode(coding) => {
            encode(*coding, text, out);
            Some(())
        }
        _ => None,
    }
}

/// Appends the coded form of bytes.
fn encode(coding: Coding, bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let digits = |byte: u8| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
    match coding {
        Coding::Base64 => base64::encode(bytes, false, out),
        Coding::UrlBase64 => base64::encode(bytes, true, out),
        Coding::Hex => out.extend(bytes.iter().copied().flat_map(digits)),
        Coding::Url => {
            for byte in bytes {
                match byte {
                    b'-' | b'.' | b'_' | b'~' => out.push(*byte),
                    byte if byte.is_ascii_alphanumeric() => out.push(*byte),
                    byte => {
                        out.push(b'%');
                        out.extend(digits(*byte));
                    }
                }
            }
        }
    }
}

fn keep(text: &mut Vec<u8>, (start, end): (usize, usize)) {
    text.truncate(end);
    text.drain(..start.min(end));
}

/// Where the colon before a port stands: the last one, unless a bracket follows it.
fn port_at(text: &[u8]) -> Option<usize> {
    text.iter().rposition(|byte| matches!(byte, b':' | b']')).filter(|at| text.get(*at) == Some(&b':'))
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

/// Percent-decoding in place; `+` is a space after the question mark or in a form. `None` where an escape is wrong.
fn decode(text: &mut Vec<u8>, in_form: bool) -> Option<()> {
    let (mut from, mut to, mut in_query) = (0, 0, in_form);
    while let Some(byte) = text.get(from).copied() {
        in_query |= byte == b'?';
        let (out, len) = match byte {
            b'%' => {
                let digits = text.get(from + 1..from + 3).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
                (u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?, 3)
            }
            b'+' if in_query => (b' ', 1),
            byte => (byte, 1),
        };
        *text.get_mut(to)? = out;
        (from, to) = (from + len, to + 1);
    }
    text.truncate(to);
    Some(())
}

/// The value of the first key that matches, otherwise the default. In a map of addresses, a text that is no address has
/// no value.
fn look_up<'m>(map: &'m MapTable, text: &[u8]) -> Option<&'m str> {
    let place = match &map.keys {
        MapKeys::Equal(index) => index.get(text).copied(),
        MapKeys::Begin(prefixes) => prefixes.find(text),
        MapKeys::Address(networks) => networks.find(Value::Text(text).ip()?),
        MapKeys::Regex(expressions) => expressions.first_match(text),
        MapKeys::Other(method, keys) => keys.iter().position(|key| text_fits(*method, key, false, text)),
    };
    place.and_then(|place| map.values.get(place)).map(String::as_str).or(map.default.as_deref())
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
