//! Lines of a head: the lines that rules may write, and the position of a cookie.

use crate::wire::{is_method, is_target, is_token};
use memchr::memchr;
use std::ops::Range;

/// Fields about framing or the connection, which rules cannot change.
const MANAGED: [&str; 8] =
    ["connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"];

/// Whether a field is managed by this node.
pub(in super::super) fn is_managed(name: &str) -> bool {
    MANAGED.iter().any(|managed| name.eq_ignore_ascii_case(managed))
}

/// The position of the value in a `Set-Cookie` of this name.
pub(super) fn set_cookie_value(text: &[u8], name: &str) -> Option<Range<usize>> {
    let lead = text.len() - text.trim_ascii_start().len();
    let end = memchr(b';', text).unwrap_or(text.len());
    let pair = text.get(lead..end)?;
    let equal = memchr(b'=', pair)?;
    let is_it = pair.get(..equal)?.trim_ascii() == name.as_bytes();
    is_it.then_some(lead + equal + 1..lead + pair.trim_ascii_end().len().max(equal + 1))
}

pub(super) fn is_request_line(line: &[u8]) -> bool {
    let mut words = line.split(|byte| *byte == b' ');
    let (method, target, version, end) = (words.next(), words.next(), words.next(), words.next());
    let (method, target) = (method.unwrap_or_default(), target.unwrap_or_default());
    is_method(method) && is_target(method, target) && version == Some(b"HTTP/1.1") && end.is_none()
}

/// Whether rules may write a line: a field that is not managed by this node.
pub(super) fn is_field_line(line: &[u8]) -> bool {
    let name = memchr(b':', line).and_then(|colon| line.get(..colon)).unwrap_or_default();
    is_token(name) && !std::str::from_utf8(name).is_ok_and(is_managed)
}
