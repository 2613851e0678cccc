//! Lines of a head that rules may write.

use crate::wire::{is_method, is_target, is_token};
use memchr::memchr;

/// Fields about framing or the connection, which rules cannot change.
const MANAGED: [&str; 8] =
    ["connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"];

/// Whether a field is managed by this node.
pub(in super::super) fn is_managed(name: &str) -> bool {
    MANAGED.iter().any(|managed| name.eq_ignore_ascii_case(managed))
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
