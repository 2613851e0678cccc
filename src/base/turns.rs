//! Turns at a rate that all cores keep together: so many a second, first come, first served, in one atomic.
//!
//! A caller that takes a turn knows at once when it comes, or that it would come too late. So there is no queue, and nothing
//! has to be given back. The turn of a caller that leaves before is lost.

use super::clock::Moment;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

const NANOS: u64 = 1_000_000_000;

/// The time whose turns may come at once: a tenth of a second. One turn may always.
const BURST_NANOS: u64 = NANOS / 10;

/// The turns. It is `Default` for any number.
#[derive(Debug, Default)]
pub struct Turns {
    /// Turns a second; 0 for any number.
    rate: AtomicU32,
    /// When all turns that were taken are over, in nanoseconds.
    over_at: AtomicU64,
}

/// When a turn comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Now.
    Now,
    /// At this moment.
    At(Moment),
    /// Later than it may, or behind more waits than there may be: none was taken.
    Refused,
}

impl Turns {
    /// Sets the turns a second; 0 for any number.
    pub fn set_rate(&self, rate: u32) {
        self.rate.store(rate, Ordering::Relaxed);
    }

    /// Takes a turn that comes within `longest`, and behind fewer than `most` others that have yet to come.
    pub fn take(&self, most: u32, longest: Duration, now: Moment) -> Turn {
        let Some(step) = NANOS.checked_div(self.rate.load(Ordering::Relaxed).into()) else { return Turn::Now };
        let now_nanos = now.as_micros().saturating_mul(1000);
        let burst = step.max(BURST_NANOS);
        let after = |over_at: u64| over_at.max(now_nanos).saturating_add(step);
        let wait = |over_at: u64| after(over_at).saturating_sub(burst).saturating_sub(now_nanos);
        let is_soon = |over_at: u64| {
            let wait = wait(over_at);
            Duration::from_nanos(wait) <= longest && wait.div_ceil(step) <= most.into()
        };
        let take = |over_at: u64| is_soon(over_at).then(|| after(over_at));
        match self.over_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(before) => match wait(before) {
                0 => Turn::Now,
                nanos => Turn::At(Moment::from_micros((now_nanos + nanos).div_ceil(1000))),
            },
            Err(_) => Turn::Refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(millis: u64) -> Moment {
        Moment::from_micros(millis * 1000)
    }

    #[test]
    fn turns_come_in_order_and_at_the_rate() {
        let turns = Turns::default();
        assert_eq!(turns.take(0, Duration::ZERO, at(0)), Turn::Now, "any number");
        turns.set_rate(2);
        let taken: Vec<_> = (0..4).map(|_| turns.take(10, 10 * SECOND, at(1000))).collect();
        assert_eq!(taken, [Turn::Now, Turn::At(at(1500)), Turn::At(at(2000)), Turn::At(at(2500))]);
        assert_eq!(turns.take(10, 10 * SECOND, at(1600)), Turn::At(at(3000)));
        assert_eq!(turns.take(10, 10 * SECOND, at(9000)), Turn::Now, "turns that were not taken are not kept");
        assert_eq!(turns.take(10, 10 * SECOND, at(9000)), Turn::At(at(9500)));
    }

    #[test]
    fn a_turn_that_comes_too_late_is_not_taken() {
        let turns = Turns::default();
        turns.set_rate(1);
        assert_eq!(turns.take(2, 10 * SECOND, at(0)), Turn::Now);
        assert_eq!(turns.take(2, SECOND / 2, at(0)), Turn::Refused, "it would wait for a second");
        assert_eq!(turns.take(2, 10 * SECOND, at(0)), Turn::At(at(1000)));
        assert_eq!(turns.take(2, 10 * SECOND, at(0)), Turn::At(at(2000)));
        assert_eq!(turns.take(2, 10 * SECOND, at(0)), Turn::Refused, "two wait");
        assert_eq!(turns.take(0, 10 * SECOND, at(0)), Turn::Refused, "none may wait");
        assert_eq!(turns.take(2, 10 * SECOND, at(1000)), Turn::At(at(3000)), "one of the two has had its turn");
    }

    #[test]
    fn a_burst_is_a_tenth_of_a_second() {
        let turns = Turns::default();
        turns.set_rate(1000);
        let at_once = (0..200).filter(|_| turns.take(1000, SECOND, at(5)) == Turn::Now).count();
        assert_eq!(at_once, 100);
    }

    #[test]
    fn threads_get_no_more_turns_than_there_are() {
        let turns = Turns::default();
        turns.set_rate(100_000);
        let count = || (0..50_000).filter(|_| turns.take(0, SECOND, at(7)) == Turn::Now).count();
        let all: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(count)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        assert_eq!(all, 10_000);
    }
}
