//! Contents of an event's token.

use mio::Token;

/// Kind of a poll token; it is in the token's high bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Waker,
    Listener,
    Client,
    Upstream,
    WakeupTimer,
}

impl Kind {
    const SHIFT: u32 = 60;

    pub(super) fn token(self, low: u64) -> Token {
        const { assert!(usize::BITS == 64, "a token is a word of 64 bits") };
        #[expect(clippy::cast_possible_truncation, reason = "there are 64 bits")]
        Token((((self as u64) << Self::SHIFT) | low) as usize)
    }

    pub(super) fn of(token: Token) -> (Self, u64) {
        let word = token.0 as u64;
        let kind = match word >> Self::SHIFT {
            0 => Self::Waker,
            1 => Self::Listener,
            2 => Self::Client,
            3 => Self::Upstream,
            _ => Self::WakeupTimer,
        };
        (kind, word & ((1 << Self::SHIFT) - 1))
    }
}
