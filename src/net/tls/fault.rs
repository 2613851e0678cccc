//! Why a session failed.

use std::fmt;

/// The greatest length of a hello. It has one or two kilobytes: a peer that sends more is not a TLS client.
pub(super) const HELLO_BYTES: usize = 32 * 1024;

/// Why a session failed.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// The peer or its certificate violates the protocol or the settings.
    Protocol(rustls::Error),
    /// The hello exceeds [`HELLO_BYTES`].
    LongHello,
    /// The stream ended without a `close_notify`, so it may have been cut.
    Truncated,
    /// The peer has changed its key, or sent another message that the kernel's sessions cannot follow.
    KeyChange,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protocol(error) => error.fmt(f),
            Self::LongHello => write!(f, "the hello is longer than {HELLO_BYTES} bytes"),
            Self::Truncated => f.write_str("the stream ended without a close_notify"),
            Self::KeyChange => f.write_str("the peer has changed its key after an upgrade of this node"),
        }
    }
}
