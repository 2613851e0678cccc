//! Reasons for which a probe fails.

use std::fmt;

/// Why a probe failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeFault {
    /// The name of the backend was not found.
    NameNotResolved,
    /// The connection was refused, or failed otherwise.
    ConnectFailed,
    /// The connection, or its TLS handshake, was not complete in time.
    ConnectTimeout,
    /// The TLS handshake failed.
    TlsFailed,
    /// The response was not complete in time.
    ResponseTimeout,
    /// The connection ended before the response did.
    Closed,
    /// The response does not follow RFC 9112, or is too large.
    Malformed,
    /// The status is not in `health.expect`.
    Status(u16),
    /// The body does not contain `health.body`.
    BodyMismatch,
}

/// Faults without a status, indexed by code.
const PLAIN: [ProbeFault; 8] = [
    ProbeFault::NameNotResolved,
    ProbeFault::ConnectFailed,
    ProbeFault::ConnectTimeout,
    ProbeFault::TlsFailed,
    ProbeFault::ResponseTimeout,
    ProbeFault::Closed,
    ProbeFault::Malformed,
    ProbeFault::BodyMismatch,
];

impl ProbeFault {
    /// The code of the fault, not 0.
    pub fn code(self) -> u32 {
        match self {
            Self::Status(status) => 1000 + u32::from(status),
            plain => (1..).zip(PLAIN).find(|(_, known)| *known == plain).map_or(0, |(code, _)| code),
        }
    }

    /// The fault with this code.
    pub fn from_code(code: u32) -> Option<Self> {
        match code.checked_sub(1000) {
            Some(status) => u16::try_from(status).ok().map(Self::Status),
            None => PLAIN.get(usize::try_from(code.checked_sub(1)?).ok()?).copied(),
        }
    }
}

impl fmt::Display for ProbeFault {
    /// A description for logs and views.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NameNotResolved => "its name was not found",
            Self::ConnectFailed => "it did not accept the connection",
            Self::ConnectTimeout => "it did not accept the connection within health.timeout",
            Self::TlsFailed => "the TLS handshake failed",
            Self::ResponseTimeout => "it did not respond within health.timeout",
            Self::Closed => "it closed the connection before its response was complete",
            Self::Malformed => "its response could not be read",
            Self::Status(status) => return write!(f, "it responded with {status}, which is not in health.expect"),
            Self::BodyMismatch => "its response does not contain health.body",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_stands_for_one_fault() {
        for fault in PLAIN.into_iter().chain([ProbeFault::Status(503)]) {
            assert_ne!(fault.code(), 0);
            assert_eq!(ProbeFault::from_code(fault.code()), Some(fault));
        }
        assert_eq!([0, 9, 999].map(ProbeFault::from_code), [None; 3]);
    }
}
