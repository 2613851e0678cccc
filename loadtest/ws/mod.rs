//! As much of RFC 6455 as a test under load needs.
//!
//! The client always sends the key of the example in section 1.3, and the backend refuses any other: so both know the
//! accept value, and no SHA-1 is needed. Proxies pass it on or check it like any other.

pub(crate) mod echo;
pub(crate) mod events;
pub(crate) mod frame;
pub(crate) mod load;
mod pauses;
mod socket;

/// `Sec-WebSocket-Key` of the example in RFC 6455, section 1.3.
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// The `Sec-WebSocket-Accept` that belongs to [`KEY`].
pub(crate) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The greatest head of a handshake.
pub(crate) const MAX_HEAD_BYTES: usize = 16 * 1024;
