//! HTTP/1.1 as bytes (RFC 9110, RFC 9112). This room knows no socket and no time.
//!
//! Ambiguous input is refused, not repaired. Output has one canonical form: one space after the colon, CRLF, one
//! statement of the body's length.

// Input of untrusted peers passes here, and none of it may stop a core.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable,
    clippy::todo,
    clippy::unimplemented
)]
#![deny(clippy::indexing_slicing, clippy::string_slice)]

pub mod body;
pub mod chunked;
mod field;
mod field_lines;
pub mod forwarded;
pub mod host;
pub mod lenient_head;
pub mod lenient_response;
pub mod limits;
pub mod proxy_protocol;
pub mod request;
mod request_line;
pub mod response;
pub mod response_fault;
pub mod upgrade;
pub mod version;
pub mod websocket;

pub use field::{cookies, is_read_as, is_token, put, put_number};
pub use request_line::{is_idempotent, is_method, is_target};

use crate::base::slice_ext::SliceExt;

/// The number of lines that a head may have by default.
pub const MAX_FIELDS: usize = 128;

/// The greatest number of lines that a head may be allowed to have.
pub const MOST_FIELDS: usize = 1024;

/// The supported versions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    #[default]
    Http11,
}

impl Version {
    /// The version for httparse's minor number, which is 0 or 1.
    fn from_minor(minor: Option<u8>) -> Self {
        if minor == Some(0) { Self::Http10 } else { Self::Http11 }
    }
}

/// A violation of the grammar in a head, of a request or of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadFault {
    /// Bytes that are not allowed at their position.
    Malformed,
    /// More lines than the room provides.
    TooManyHeaders,
    /// A version other than HTTP/1.
    Version,
    /// The body's length is stated twice, wrongly, or in two ways.
    Length,
    /// A transfer coding other than chunked.
    Coding,
}

impl From<httparse::Error> for HeadFault {
    fn from(error: httparse::Error) -> Self {
        match error {
            httparse::Error::TooManyHeaders => Self::TooManyHeaders,
            httparse::Error::Version => Self::Version,
            _ => Self::Malformed,
        }
    }
}

/// Whether `bytes` are blank lines and nothing else. Some clients send one behind a body, and it is no request (RFC
/// 9112 section 2.2).
pub fn is_blank(bytes: &[u8]) -> bool {
    bytes.first() == Some(&b'\r') && is_blank_lines(bytes)
}

/// Whether `bytes` are any number of blank lines.
fn is_blank_lines(bytes: &[u8]) -> bool {
    bytes.chunks(2).all(|line| line == b"\r\n")
}

/// Whether `bytes` hold a blank line, given that the first `seen` bytes were searched before. So a head that arrives in
/// small pieces is searched once, not once for each piece.
pub fn has_blank_line(bytes: &[u8], seen: usize) -> bool {
    let start = seen.saturating_sub(3);
    memchr::memchr_iter(b'\n', bytes.suffix(start)).map(|at| start + at).any(|at| {
        let rest = bytes.suffix(at + 1);
        rest.starts_with(b"\n") || rest.starts_with(b"\r\n")
    })
}
