//! The failures of a backend after which a request is retried on another one.

use super::Kind;

/// A kind of failure of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryCause {
    /// No connection was established: nothing of the request was sent.
    Connect,
    /// The connection ended before the response had begun.
    Close,
    /// The response did not begin in time.
    Timeout,
    /// A response of 502.
    BadGateway,
    /// A response of 503 without `Retry-After`.
    Unavailable,
    /// A response of 504.
    GatewayTimeout,
    /// A response of 503 with `Retry-After`, or of 529: the backend is overloaded, and has not processed the request.
    Busy,
}

impl RetryCause {
    const ALL: [Self; 7] = [
        Self::Connect,
        Self::Close,
        Self::Timeout,
        Self::BadGateway,
        Self::Unavailable,
        Self::GatewayTimeout,
        Self::Busy,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Close => "close",
            Self::Timeout => "timeout",
            Self::BadGateway => "502",
            Self::Unavailable => "503",
            Self::GatewayTimeout => "504",
            Self::Busy => "busy",
        }
    }

    /// The cause in a response. `None` for a response that is no cause.
    pub const fn of_response(status: u16, has_retry_after: bool) -> Option<Self> {
        match status {
            502 => Some(Self::BadGateway),
            503 if has_retry_after => Some(Self::Busy),
            503 => Some(Self::Unavailable),
            504 => Some(Self::GatewayTimeout),
            529 => Some(Self::Busy),
            _ => None,
        }
    }
}

/// The causes named by the option `retryOn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryCauses(u8);

impl RetryCauses {
    const NONE: Self = Self(0);

    const fn with(self, cause: RetryCause) -> Self {
        Self(self.0 | 1 << cause as u8)
    }

    /// Whether the set contains the cause.
    pub const fn contains(self, cause: RetryCause) -> bool {
        self.0 & 1 << cause as u8 != 0
    }

    fn parse(text: &str) -> Option<Self> {
        if text == "none" {
            return Some(Self::NONE);
        }
        text.split(',').try_fold(Self::NONE, |causes, name| {
            let cause = RetryCause::ALL.into_iter().find(|cause| cause.name() == name.trim())?;
            Some(causes.with(cause))
        })
    }
}

impl Default for RetryCauses {
    fn default() -> Self {
        Self::NONE.with(RetryCause::Connect).with(RetryCause::Close).with(RetryCause::Timeout)
    }
}

pub(super) const RETRY_CAUSES: Kind<RetryCauses> = Kind {
    expected: "none, or some of connect, close, timeout, 502, 503, 504 and busy, joined by commas",
    read: RetryCauses::parse,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_named_one_by_one() {
        let named = |text: &str| {
            let causes = RetryCauses::parse(text)?;
            Some(RetryCause::ALL.map(|cause| u8::from(causes.contains(cause))))
        };
        assert_eq!(named("connect,close,timeout"), Some([1, 1, 1, 0, 0, 0, 0]));
        assert_eq!(named("502, 503,504,busy"), Some([0, 0, 0, 1, 1, 1, 1]));
        assert_eq!(named("none"), Some([0; 7]));
        for text in ["", "busy,", "none,busy", "500", "Connect"] {
            assert_eq!(named(text), None, "{text:?}");
        }
    }
}
