//! Header fields as the cache reads them.

use crate::base::slice_ext::SliceExt;
use httparse::Header;
use std::time::SystemTime;

/// The fields of one head, in their order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fields<'a>(pub &'a [Header<'a>]);

impl<'a> Fields<'a> {
    /// The values of every line of this name.
    pub fn values(self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.0.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
    }

    /// The value of the first line of this name.
    pub fn first(self, name: &str) -> Option<&'a [u8]> {
        self.values(name).next()
    }

    /// The value of the only line of this name; `None` where there are none or several.
    pub fn only(self, name: &str) -> Option<&'a [u8]> {
        let mut values = self.values(name);
        values.next().filter(|_| values.next().is_none())
    }

    /// Whether there is a line of this name.
    pub fn has(self, name: &str) -> bool {
        self.first(name).is_some()
    }

    /// The members of the lists in all lines of this name, without the empty ones.
    pub fn members(self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.values(name).flat_map(list)
    }

    /// The date in the first line of this name, where it is one.
    pub fn date(self, name: &str) -> Option<SystemTime> {
        self.first(name).and_then(date)
    }
}

/// The members of a comma-separated list (RFC 9110 section 5.6.1), without the empty ones. A comma in a quoted string
/// separates nothing.
pub fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut is_quoted = false;
    let mut is_escaped = false;
    let members = value.split(move |byte| {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            b',' => return !is_quoted,
            _ => {}
        }
        false
    });
    members.map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

/// The content of a quoted string that has no escapes; another value as it is.
pub fn unquote(value: &[u8]) -> &[u8] {
    match value {
        [b'"', inside @ .., b'"'] => inside,
        _ => value,
    }
}

/// Reads a date in one of the three forms of RFC 9110 section 5.6.7.
pub fn date(value: &[u8]) -> Option<SystemTime> {
    httpdate::parse_http_date(std::str::from_utf8(value).ok()?).ok()
}

/// The greatest number of seconds that is told apart (RFC 9111 section 1.2.2).
const MOST_SECONDS: u64 = 1 << 31;

/// A number of seconds: digits alone. A greater one than 2^31 is 2^31.
pub fn seconds(digits: &[u8]) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let add = |sum: u64, digit: &u8| (sum * 10 + u64::from(digit - b'0')).min(MOST_SECONDS);
    is_number.then(|| digits.iter().fold(0, add))
}

/// The part of `value` before the first `byte`, and the part behind it.
pub(super) fn split_at_byte(value: &[u8], byte: u8) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(byte, value) {
        Some(at) => (value.prefix(at), Some(value.suffix(at + 1))),
        None => (value, None),
    }
}
