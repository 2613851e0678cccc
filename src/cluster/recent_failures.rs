//! The last failed requests of a cluster, for diagnosis. No lock: a core writes one word for a failure, any thread
//! reads.

use crate::base::clock::Moment;
use crate::base::reason::FailureReason;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Number of failures that are kept.
const KEPT: usize = 16;

/// A failure is one word: the reason (8 bits, 0 for a response of the backend), the status (10), a part of the member's
/// identity (18, 0 for none), and the second (28, about eight years).
const REASON_BITS: u32 = 8;
const STATUS_BITS: u32 = 10;
const MEMBER_BITS: u32 = 18;

/// The last failed requests; see the module. It allocates memory at the first failure.
#[derive(Debug, Default)]
pub struct RecentFailures {
    next: AtomicUsize,
    kept: OnceLock<Box<[AtomicU64; KEPT]>>,
}

/// A request that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecentFailure {
    /// The time of its end, to a second.
    pub at: Moment,
    /// The status that the client got; 0 if none.
    pub status: u16,
    /// Why this node has ended it; `None` for a response of the backend.
    pub reason: Option<FailureReason>,
    /// A part of the identity of its last member; 0 for none.
    member: u64,
}

impl RecentFailure {
    /// Whether a member with this [identity](super::Member::identity) may have served it.
    pub fn is_of(&self, identity: u64) -> bool {
        self.member != 0 && self.member == part_of(identity)
    }
}

/// A part of an identity, never 0.
fn part_of(identity: u64) -> u64 {
    (identity & ((1 << MEMBER_BITS) - 1)).max(1)
}

impl RecentFailures {
    /// Records a request that failed at `now`.
    #[cold]
    pub fn note(&self, reason: Option<FailureReason>, status: u16, member: Option<u64>, now: Moment) {
        let kept = self.kept.get_or_init(|| Box::new([const { AtomicU64::new(0) }; KEPT]));
        let place = self.next.fetch_add(1, Ordering::Relaxed) % KEPT;
        let code = reason.and_then(|reason| FailureReason::ALL.iter().position(|known| *known == reason));
        let code = code.map_or(0, |place| place as u64 + 1);
        let second = now.as_micros() / 1_000_000 + 1;
        let member = member.map_or(0, part_of);
        let word = (((second << MEMBER_BITS) | member) << STATUS_BITS) | u64::from(status & 0x3ff);
        if let Some(cell) = kept.get(place) {
            cell.store((word << REASON_BITS) | code, Ordering::Relaxed);
        }
    }

    /// The recorded failures, the last one first.
    pub fn list(&self) -> Vec<RecentFailure> {
        let words = self.kept.get().into_iter().flat_map(|kept| kept.iter()).map(|cell| cell.load(Ordering::Relaxed));
        let mut found: Vec<_> = words.filter(|word| *word != 0).map(read).collect();
        // Failures of one second stay in the order of their slots, which is chronological except at the wrap.
        found.sort_by_key(|failure| std::cmp::Reverse(failure.at));
        found
    }
}

fn read(word: u64) -> RecentFailure {
    let part = |shift: u32, bits: u32| (word >> shift) & ((1 << bits) - 1);
    let code = usize::try_from(part(0, REASON_BITS)).unwrap_or(0);
    let second = word >> (REASON_BITS + STATUS_BITS + MEMBER_BITS);
    RecentFailure {
        at: Moment::ZERO + Duration::from_secs(second.saturating_sub(1)),
        status: u16::try_from(part(REASON_BITS, STATUS_BITS)).unwrap_or(0),
        reason: code.checked_sub(1).and_then(|place| FailureReason::ALL.get(place).copied()),
        member: part(REASON_BITS + STATUS_BITS, MEMBER_BITS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_read_and_the_oldest_goes_first() {
        let failures = RecentFailures::default();
        assert_eq!(failures.list(), []);
        let at = |second: u64| Moment::ZERO + Duration::from_secs(second);
        let last = *FailureReason::ALL.last().expect("a reason");
        failures.note(None, 500, Some(u64::MAX), at(1));
        failures.note(Some(last), 502, None, at(2));
        let found = failures.list();
        assert_eq!((found[0].status, found[0].reason, found[0].at), (502, Some(last), at(2)));
        assert_eq!((found[1].status, found[1].reason, found[1].at), (500, None, at(1)));
        assert!(found[1].is_of(u64::MAX) && !found[1].is_of(7) && !found[0].is_of(u64::MAX));
        for second in 3..40 {
            failures.note(Some(FailureReason::ConnectFailed), 502, Some(1 << 40), at(second));
        }
        let found = failures.list();
        let seconds: Vec<_> = found.iter().map(|failure| failure.at).collect();
        assert_eq!(seconds, (24..40).rev().map(at).collect::<Vec<_>>());
        assert!(found[0].is_of(1 << 40), "a part that is 0 is none all the same");
    }
}
