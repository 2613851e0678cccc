//! Rate limits shared by all cores, without a queue or a timer: a token bucket in one number, by the generic cell rate
//! algorithm (GCRA, ITU-T I.371, annex A).
//!
//! The number is the moment at which all units taken so far are paid for at the rate. A caller that takes units gets
//! the moment from which they are its own, or a refusal if that would be too late. So there is no queue, and callers
//! are served in the order in which they took. Over any time `t`, at most `rate * t` units plus a burst are paid for.

use super::clock::Moment;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const NANOS: u64 = 1_000_000_000;

/// The burst, as a time: the units of a tenth of a second are available at once.
const BURST_NANOS: u64 = NANOS / 10;

/// The longest time for which a caller that waits for its turn should not ask whether that comes earlier
/// ([`RateLimiter::turn_of`]).
pub const LOOK: Duration = Duration::from_secs(1);

/// The changes of a rate that are known. A wait that began before the oldest of more is shortened by the others only.
const MAX_CHANGES: usize = 8;

/// A number of units a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    per_second: NonZeroU64,
    min_burst: u64,
}

/// The moment from which units are the caller's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Now.
    Now,
    /// At this moment.
    At(Moment),
    /// Later than the caller would wait: no unit was taken.
    Refused,
}

impl Rate {
    /// A rate of units a second; `None` for 0. The burst is the units of a tenth of a second, and at least `min_burst`.
    pub fn new(per_second: u64, min_burst: u64) -> Option<Self> {
        NonZeroU64::new(per_second).map(|per_second| Self { per_second, min_burst })
    }

    /// The time of this number of units at the rate.
    pub fn time_of(self, units: u64) -> Duration {
        Duration::from_nanos(self.nanos_of(units))
    }

    /// Takes units, if they are available within `longest`. `paid_at` is the state, in nanoseconds of the clock: 0 at
    /// first. It may be dropped once that moment has passed.
    pub fn take(self, paid_at: &mut u64, units: u64, longest: Duration, now: Moment) -> Turn {
        let (after, wait) = self.charge(*paid_at, units, nanos(now));
        if Duration::from_nanos(wait) > longest {
            return Turn::Refused;
        }
        *paid_at = after;
        turn(wait, now)
    }

    /// The state after these units, and the caller's wait for them in nanoseconds.
    fn charge(self, paid_at: u64, units: u64, now_nanos: u64) -> (u64, u64) {
        let after = paid_at.max(now_nanos).saturating_add(self.nanos_of(units));
        let burst = self.nanos_of(self.min_burst).max(BURST_NANOS);
        (after, after.saturating_sub(burst).saturating_sub(now_nanos))
    }

    fn nanos_of(self, units: u64) -> u64 {
        units.saturating_mul(NANOS).div_ceil(self.per_second.get())
    }
}

/// A rate, or none, and the units that all cores have taken.
#[derive(Debug)]
pub struct RateLimiter {
    /// Units a second; 0 for no limit.
    per_second: AtomicU64,
    min_burst: u64,
    paid_at: AtomicU64,
    /// The last changes of the rate, the newest at the end. Only changes and waits of more than [`LOOK`] take the lock.
    changes: Mutex<Vec<Change>>,
}

/// A change of a rate. What is unpaid at its time is paid at the new rate.
#[derive(Clone, Copy, Debug)]
struct Change {
    /// In nanoseconds of the clock.
    at: u64,
    before: u64,
    after: u64,
}

impl Change {
    /// The moment, in nanoseconds, at which something is paid for that was to be paid for at `moment`.
    fn moved(self, moment: u64) -> u64 {
        let left = u128::from(moment.saturating_sub(self.at)) * u128::from(self.before);
        // Nothing was owed without a limit: `moment` is of the new rate, taken by a core whose clock is late.
        match (moment <= self.at || self.before == 0, self.after) {
            (true, _) => moment,
            (_, 0) => self.at,
            (_, after) => self.at.saturating_add((left / u128::from(after)).try_into().unwrap_or(u64::MAX)),
        }
    }
}

impl RateLimiter {
    /// A limiter without a rate. `min_burst` is for [`Rate::new`].
    pub const fn new(min_burst: u64) -> Self {
        let [per_second, paid_at] = [const { AtomicU64::new(0) }; 2];
        Self { per_second, min_burst, paid_at, changes: Mutex::new(Vec::new()) }
    }

    /// Sets the units a second from `now` on; 0 for no limit. Units that were taken and are not paid for yet stay so, and
    /// are paid for at the new rate; without a limit nothing is owed.
    pub fn set_per_second(&self, per_second: u64, now: Moment) {
        let mut changes = self.changes();
        let before = self.per_second.swap(per_second, Ordering::Relaxed);
        if before == per_second {
            return;
        }
        let change = Change { at: nanos(now), before, after: per_second };
        if changes.len() >= MAX_CHANGES {
            changes.remove(0);
        }
        changes.push(change);
        let moved = |paid_at| Some(change.moved(paid_at));
        let _ = self.paid_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, moved);
    }

    /// The turn of units that were taken at `since` and were to come at `turn`: it is earlier if the rate was raised
    /// since then, and never later.
    pub fn turn_of(&self, turn: Moment, since: Moment) -> Moment {
        let changes = self.changes();
        let later = changes.iter().filter(|change| change.at >= nanos(since));
        let moved = later.fold(nanos(turn), |turn, change| turn.min(change.moved(turn)));
        turn.min(Moment::from_micros(moved.div_ceil(1000)))
    }

    fn changes(&self) -> MutexGuard<'_, Vec<Change>> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The units a second; 0 for no limit.
    pub fn per_second(&self) -> u64 {
        self.per_second.load(Ordering::Relaxed)
    }

    /// The rate; `None` for no limit.
    pub fn rate(&self) -> Option<Rate> {
        Rate::new(self.per_second(), self.min_burst)
    }

    /// Takes units, if they are available within `longest`.
    pub fn take(&self, units: u64, longest: Duration, now: Moment) -> Turn {
        let Some(rate) = self.rate() else { return Turn::Now };
        let take = |paid_at: u64| {
            let (after, wait) = rate.charge(paid_at, units, nanos(now));
            (Duration::from_nanos(wait) <= longest).then_some(after)
        };
        match self.paid_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(before) => turn(rate.charge(before, units, nanos(now)).1, now),
            Err(_) => Turn::Refused,
        }
    }

    /// Returns units that were taken and not used.
    pub fn give_back(&self, units: u64) {
        let Some(rate) = self.rate() else { return };
        let less = |paid_at: u64| Some(paid_at.saturating_sub(rate.nanos_of(units)));
        let _ = self.paid_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }
}

fn nanos(now: Moment) -> u64 {
    now.as_micros().saturating_mul(1000)
}

fn turn(wait: u64, now: Moment) -> Turn {
    match wait {
        0 => Turn::Now,
        wait => Turn::At(Moment::from_micros(nanos(now).saturating_add(wait).div_ceil(1000))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(millis: u64) -> Moment {
        Moment::from_micros(millis * 1000)
    }

    fn limiter(per_second: u64) -> RateLimiter {
        let limiter = RateLimiter::new(1);
        limiter.set_per_second(per_second, at(0));
        limiter
    }

    #[test]
    fn a_debt_is_paid_at_the_rate_of_the_moment() {
        // 100 units at one a second: all are paid for at 99 s.
        let indebted = || {
            let limiter = limiter(1);
            let last = (0..100).map(|_| limiter.take(1, 200 * SECOND, at(1000))).last();
            assert_eq!(last, Some(Turn::At(at(100_000))));
            limiter
        };
        let rows = [
            (1, at(101_000), at(100_000)),
            (2, at(55_500), at(55_000)),
            (10, at(19_100), at(19_000)),
            // The burst is ten units now.
            (100, at(10_820), at(10_900)),
        ];
        for (per_second, next, last) in rows {
            let limiter = indebted();
            limiter.set_per_second(per_second, at(10_000));
            assert_eq!(limiter.take(1, 200 * SECOND, at(10_000)), Turn::At(next), "{per_second}");
            assert_eq!(limiter.turn_of(at(100_000), at(1000)), last, "{per_second}");
            assert_eq!(limiter.turn_of(at(100_000), at(10_001)), at(100_000), "taken after the change");
            assert_eq!(limiter.turn_of(at(9_000), at(1000)), at(9_000), "paid for before the change");
        }
        let slower = indebted();
        slower.set_per_second(2, at(10_000));
        slower.set_per_second(1, at(20_000));
        assert_eq!(slower.turn_of(at(100_000), at(1000)), at(55_000), "a promise is kept");
        assert_eq!(slower.take(1, 89 * SECOND, at(20_000)), Turn::At(at(91_000)), "71 units are unpaid");
    }

    #[test]
    fn without_a_limit_nothing_is_owed() {
        let limiter = limiter(1);
        (0..100).for_each(|_| _ = limiter.take(1, 200 * SECOND, at(1000)));
        limiter.set_per_second(0, at(5000));
        assert_eq!(limiter.turn_of(at(100_000), at(1000)), at(5000));
        limiter.set_per_second(1, at(6000));
        assert_eq!(limiter.take(1, Duration::ZERO, at(6000)), Turn::Now);
        // Changes without end take no room.
        (1..100).for_each(|rate| limiter.set_per_second(rate, at(7000)));
        assert_eq!(limiter.changes().len(), MAX_CHANGES);
    }

    #[test]
    fn units_come_in_order_and_at_the_rate() {
        let limiter = RateLimiter::new(1);
        assert_eq!(limiter.take(1, Duration::ZERO, at(0)), Turn::Now, "any number");
        limiter.set_per_second(2, at(1000));
        let taken: Vec<_> = (0..4).map(|_| limiter.take(1, 10 * SECOND, at(1000))).collect();
        assert_eq!(taken, [Turn::Now, Turn::At(at(1500)), Turn::At(at(2000)), Turn::At(at(2500))]);
        assert_eq!(limiter.take(1, 10 * SECOND, at(1600)), Turn::At(at(3000)));
        assert_eq!(limiter.take(1, 10 * SECOND, at(9000)), Turn::Now, "units that were not taken are not kept");
        assert_eq!(limiter.take(2, 10 * SECOND, at(9000)), Turn::At(at(10_000)));
        limiter.give_back(2);
        assert_eq!(limiter.take(1, 10 * SECOND, at(9000)), Turn::At(at(9500)));
    }

    #[test]
    fn units_that_come_too_late_are_not_taken() {
        let limiter = limiter(1);
        assert_eq!(limiter.take(1, Duration::ZERO, at(0)), Turn::Now);
        assert_eq!(limiter.take(1, SECOND / 2, at(0)), Turn::Refused, "it would wait for a second");
        assert_eq!(limiter.take(1, SECOND, at(0)), Turn::At(at(1000)));
        assert_eq!(limiter.take(1, 2 * SECOND, at(0)), Turn::At(at(2000)));
        assert_eq!(limiter.take(1, 2 * SECOND, at(0)), Turn::Refused);
        assert_eq!(limiter.take(1, Duration::ZERO, at(0)), Turn::Refused);
        assert_eq!(limiter.take(1, 2 * SECOND, at(1000)), Turn::At(at(3000)));
    }

    #[test]
    fn a_burst_is_a_tenth_of_a_second_or_the_least_one() {
        let at_once = |limiter: &RateLimiter| (0..2000).filter(|_| limiter.take(1, SECOND, at(5)) == Turn::Now).count();
        assert_eq!(at_once(&limiter(1000)), 100);
        let limiter = RateLimiter::new(700);
        limiter.set_per_second(1000, at(0));
        assert_eq!(at_once(&limiter), 700);
    }

    #[test]
    fn a_state_of_ones_own_is_kept_to_as_well() {
        let rate = Rate::new(10, 1).expect("a rate");
        assert_eq!((Rate::new(0, 1), rate.time_of(5)), (None, SECOND / 2));
        let mut paid_at = 0;
        let taken: Vec<_> = (0..3).map(|_| rate.take(&mut paid_at, 1, SECOND / 10, at(50))).collect();
        assert_eq!(taken, [Turn::Now, Turn::At(at(150)), Turn::Refused]);
        assert_eq!(paid_at, 250_000_000, "what was refused is not counted");
    }

    #[test]
    fn threads_get_no_more_than_there_is() {
        let limiter = limiter(100_000);
        let count = || (0..50_000).filter(|_| limiter.take(1, SECOND, at(7)) == Turn::Now).count();
        let all: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(count)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        assert_eq!(all, 10_000);
    }
}
