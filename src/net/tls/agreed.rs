//! Negotiated parameters of a session, for logs.

use super::session::Session;
use rustls::ProtocolVersion;
use serde::{Deserialize, Serialize};

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Version {
    /// RFC 5246.
    #[serde(rename = "1.2")]
    Tls12,
    /// RFC 8446.
    #[serde(rename = "1.3")]
    Tls13,
}

impl Version {
    pub(super) fn of(version: ProtocolVersion) -> Option<Self> {
        match version {
            ProtocolVersion::TLSv1_2 => Some(Self::Tls12),
            ProtocolVersion::TLSv1_3 => Some(Self::Tls13),
            _ => None,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Tls12 => "TLSv1.2",
            Self::Tls13 => "TLSv1.3",
        }
    }
}

/// The version of TLS and the cipher suite of a session, once its handshake is over.
pub(super) fn agreed(session: &Session) -> Option<(&'static str, &'static str)> {
    let state = session.common()?;
    let version = Version::of(state.protocol_version()?)?;
    Some((version.name(), state.negotiated_cipher_suite()?.suite().as_str()?))
}
