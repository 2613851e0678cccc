//! Negotiated parameters of a session, for logs.

use super::session::Session;
use rustls::ProtocolVersion;

/// The version of TLS and the cipher suite of a session, once its handshake is over.
pub(super) fn agreed(session: &Session) -> Option<(&'static str, &'static str)> {
    let state = session.common()?;
    let version = match state.protocol_version()? {
        ProtocolVersion::TLSv1_2 => "TLSv1.2",
        ProtocolVersion::TLSv1_3 => "TLSv1.3",
        _ => return None,
    };
    Some((version, state.negotiated_cipher_suite()?.suite().as_str()?))
}
