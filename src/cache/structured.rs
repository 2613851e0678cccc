//! Dictionaries of structured fields (RFC 9651), as far as targeted cache control needs them.

use super::fields::split_at_byte;
use crate::base::slice_ext::SliceExt;

/// The greatest number of members of a dictionary.
const MOST_MEMBERS: usize = 64;

/// The value of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Integer(i64),
    Boolean(bool),
    /// The content of a string, with its escapes.
    String(&'a [u8]),
    /// A token, decimal, byte sequence or inner list, which no directive uses.
    Other,
}

/// Parses a dictionary. `None` if it is malformed: RFC 9213 section 2.2 then ignores the whole field.
pub(super) fn dictionary(mut rest: &[u8]) -> Option<Vec<(&[u8], Value<'_>)>> {
    let mut members: Vec<(&[u8], Value<'_>)> = Vec::new();
    rest = rest.trim_ascii();
    while !rest.is_empty() {
        let name = take(&mut rest, is_key_byte);
        if !name.first().is_some_and(|byte| byte.is_ascii_lowercase() || *byte == b'*') {
            return None;
        }
        let value = match rest {
            [b'=', value @ ..] => {
                rest = value;
                item(&mut rest)?
            }
            _ => Value::Boolean(true),
        };
        parameters(&mut rest)?;
        // Each member is compared with all others.
        if members.len() == MOST_MEMBERS {
            return None;
        }
        // If two members have the same name, the last one counts.
        members.retain(|(known, _)| *known != name);
        members.push((name, value));
        rest = rest.trim_ascii_start();
        match rest {
            [] => {}
            [b',', next @ ..] if !next.trim_ascii_start().is_empty() => rest = next.trim_ascii_start(),
            _ => return None,
        }
    }
    Some(members)
}

fn take<'a>(rest: &mut &'a [u8], belongs: fn(u8) -> bool) -> &'a [u8] {
    let len = rest.iter().take_while(|byte| belongs(**byte)).count();
    let taken = rest.prefix(len);
    *rest = rest.suffix(len);
    taken
}

fn is_key_byte(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.*".contains(&byte)
}

fn parameters(rest: &mut &[u8]) -> Option<()> {
    while let [b';', behind @ ..] = *rest {
        *rest = behind;
        while let [b' ', behind @ ..] = *rest {
            *rest = behind;
        }
        if take(rest, is_key_byte).is_empty() {
            return None;
        }
        if let [b'=', behind @ ..] = *rest {
            *rest = behind;
            item(rest)?;
        }
    }
    Some(())
}

fn item<'a>(rest: &mut &'a [u8]) -> Option<Value<'a>> {
    let start: &'a [u8] = rest;
    match start {
        [b'-' | b'0'..=b'9', ..] => number(rest),
        [b'?', digit @ (b'0' | b'1'), behind @ ..] => {
            *rest = behind;
            Some(Value::Boolean(*digit == b'1'))
        }
        [b'"', inside @ ..] => {
            let len = string_len(inside)?;
            *rest = inside.suffix(len + 1);
            Some(Value::String(inside.prefix(len)))
        }
        [b':', inside @ ..] => {
            let (_, behind) = split_at_byte(inside, b':');
            *rest = behind?;
            Some(Value::Other)
        }
        [first, ..] if first.is_ascii_alphabetic() || *first == b'*' => {
            take(rest, |byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte));
            Some(Value::Other)
        }
        _ => None,
    }
}

fn number<'a>(rest: &mut &'a [u8]) -> Option<Value<'a>> {
    let is_negative = rest.first() == Some(&b'-');
    *rest = rest.suffix(usize::from(is_negative));
    let digits = take(rest, |byte| byte.is_ascii_digit());
    if digits.is_empty() || digits.len() > 15 {
        return None;
    }
    if let [b'.', behind @ ..] = *rest {
        *rest = behind;
        let fraction = take(rest, |byte| byte.is_ascii_digit());
        return ((1..=3).contains(&fraction.len()) && digits.len() <= 12).then_some(Value::Other);
    }
    let number = digits.iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'));
    Some(Value::Integer(if is_negative { -number } else { number }))
}

/// The length of a string's content, up to the closing quote.
fn string_len(inside: &[u8]) -> Option<usize> {
    let mut is_escaped = false;
    for (at, byte) in inside.iter().enumerate() {
        match byte {
            b'"' | b'\\' if is_escaped => is_escaped = false,
            _ if is_escaped || !(b' '..=b'~').contains(byte) => return None,
            b'\\' => is_escaped = true,
            b'"' => return Some(at),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dictionaries_are_read_strictly() {
        let read = |text: &'static str| dictionary(text.as_bytes());
        assert_eq!(read(""), Some(vec![]));
        let expected = vec![
            (&b"max-age"[..], Value::Integer(60)),
            (&b"no-cache"[..], Value::Boolean(true)),
            (&b"a"[..], Value::String(b"x, \\\"y")),
            (&b"b"[..], Value::Boolean(false)),
            (&b"c"[..], Value::Other),
        ];
        assert_eq!(read("max-age=60;x=1; y, no-cache,\ta=\"x, \\\"y\", b=?0, c=tok/en"), Some(expected));
        assert_eq!(read("a=1, a=-2"), Some(vec![(&b"a"[..], Value::Integer(-2))]));
        assert_eq!(read("a=1.5"), Some(vec![(&b"a"[..], Value::Other)]));
        let bad = ["A=1", "a=", "a,", "a b", "a=1 2", "=1", "a=\"x", "a=1.", "a=1234567890123456", "a=;", "a=?2", ",a"];
        for text in bad {
            assert_eq!(read(text), None, "{text:?}");
        }
        let members = |count: usize| (0..count).map(|number| format!("a{number}")).collect::<Vec<_>>().join(",");
        assert_eq!(dictionary(members(64).as_bytes()).map(|members| members.len()), Some(64));
        assert_eq!(dictionary(members(65).as_bytes()), None);
    }
}
