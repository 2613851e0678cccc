//! First lines with a version other than HTTP/1.0 and HTTP/1.1, which are rare.

use crate::base::slice_ext::SliceExt;

/// The verdict on a request line whose version is neither HTTP/1.0 nor HTTP/1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Odd {
    /// The line is not complete and may become valid.
    Incomplete,
    /// It is no request line.
    Malformed,
    /// It is a request line of a version that is not supported, or not in this form (see [`as_http11`]).
    Unknown,
}

/// Judges the request line at the start of `bytes`.
#[cold]
pub(super) fn judge(bytes: &[u8]) -> Odd {
    let line = from_line(bytes);
    let end = memchr::memchr(b'\n', line);
    let text = line.prefix(end.unwrap_or(line.len()));
    let is_whole = end.is_some();
    let text = match text.strip_suffix(b"\r") {
        Some(text) => text,
        None if is_whole => return Odd::Malformed,
        None => text,
    };
    let mut words = text.split(|byte| *byte == b' ');
    let (Some(_), Some(_), Some(version), None) = (words.next(), words.next(), words.next(), words.next()) else {
        return Odd::Malformed;
    };
    match is_version(version) {
        None => Odd::Malformed,
        Some(true) if is_whole || minor_of_1(version).is_some() => Odd::Unknown,
        Some(false) if is_whole => Odd::Malformed,
        Some(_) => Odd::Incomplete,
    }
}

/// The same head with the version HTTP/1.1, if its version is a later minor one of HTTP/1: a recipient reads such a
/// message as one of the highest version that it supports (RFC 9110 section 2.5). The length does not change.
#[cold]
pub fn as_http11(bytes: &[u8]) -> Option<Vec<u8>> {
    let at = if bytes.starts_with(b"HTTP/") {
        0
    } else {
        let line = from_line(bytes);
        let start = bytes.len() - line.len();
        let first_line = line.prefix(memchr::memchr(b'\n', line).unwrap_or(line.len()));
        let mut spaces = memchr::memchr_iter(b' ', first_line);
        start + spaces.nth(1)? + 1
    };
    minor_of_1(bytes.get(at..at + VERSION.len())?).filter(|minor| *minor > b'1')?;
    let mut head = bytes.to_vec();
    *head.get_mut(at + VERSION.len() - 1)? = b'1';
    Some(head)
}

/// The format of a version; a zero stands for any digit (RFC 9112 section 2.3).
const VERSION: [u8; 8] = *b"HTTP/0.0";

/// Whether this is a version; `Some(false)` if it is the start of one.
fn is_version(text: &[u8]) -> Option<bool> {
    let has_form = text.len() <= VERSION.len()
        && text.iter().zip(VERSION).all(|(byte, form)| match form {
            b'0' => byte.is_ascii_digit(),
            sign => *byte == sign,
        });
    has_form.then_some(text.len() == VERSION.len())
}

/// The minor version, if the major one is 1.
fn minor_of_1(version: &[u8]) -> Option<u8> {
    match version {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor] if minor.is_ascii_digit() => Some(*minor),
        _ => None,
    }
}

/// The bytes from the first line on, behind any blank lines.
fn from_line(mut bytes: &[u8]) -> &[u8] {
    while let Some(rest) = bytes.strip_prefix(b"\r\n") {
        bytes = rest;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_lines_with_another_version() {
        use Odd::{Incomplete, Malformed, Unknown};
        let table = [
            ("GET / HTTP/2.0\r\n", Unknown),
            ("\r\nGET / HTTP/0.9\r\n", Unknown),
            ("GET / HTTP/1.2", Unknown),
            ("GET / HTTP/1.2\r\n", Unknown),
            ("GET / HTTP/2.0", Incomplete),
            ("GET / HTTP/2.0\r", Incomplete),
            ("GET / HTTP/2", Incomplete),
            ("GET / HTTP/1.20\r\n", Malformed),
            ("GET / HTTP/2\r\n", Malformed),
            ("GET / http/1.1", Malformed),
            ("GET /  HTTP/1.1\r\n", Malformed),
            ("GET /a b HTTP/1.1\r\n", Malformed),
            ("GET / HTTP/2.0\n", Malformed),
            ("GET / ICAP/1.0\r\n", Malformed),
        ];
        for (line, expected) in table {
            assert_eq!(judge(line.as_bytes()), expected, "{line:?}");
        }
    }

    #[test]
    fn later_minor_versions_are_read_as_the_one_that_is_known() {
        let table = [
            ("GET / HTTP/1.2\r\nX: HTTP/1.3\r\n\r\n", Some("GET / HTTP/1.1\r\nX: HTTP/1.3\r\n\r\n")),
            ("\r\nGET / HTTP/1.9", Some("\r\nGET / HTTP/1.1")),
            ("HTTP/1.2 200 OK\r\n\r\n", Some("HTTP/1.1 200 OK\r\n\r\n")),
            ("HTTP/1.1 200 OK\r\n\r\n", None),
            ("HTTP/2.2 200 OK\r\n\r\n", None),
            ("GET / HTTP/1.0\r\n", None),
            ("GET /\r\nX: y HTTP/1.2\r\n", None),
            ("GET", None),
        ];
        for (head, expected) in table {
            let found = as_http11(head.as_bytes()).map(|head| String::from_utf8(head).expect("text"));
            assert_eq!(found.as_deref(), expected, "{head:?}");
        }
    }
}
