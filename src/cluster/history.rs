//! Requests and failures in each of the last 60 seconds. No lock: any core counts, any thread reads.

use crate::base::clock::Moment;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The seconds that are kept.
pub const SECONDS: usize = 60;

/// A few more cells than seconds, so that a reader and a late writer do not meet in one.
const SLOTS: usize = SECONDS + 4;

/// A cell is the lower 16 bits of its second, then 24 bits of failures, then 24 bits of requests: a count never lands in
/// another second.
const FAILURE: u64 = 1 << 24;
const STAMP_SHIFT: u32 = 48;
const COUNT_MASK: u64 = FAILURE - 1;

/// Counts of the last [`SECONDS`], and those of all time. It takes memory (512 bytes) with the first count.
#[derive(Debug, Default)]
pub struct History {
    seconds: OnceLock<Box<[AtomicU64; SLOTS]>>,
    requests: AtomicU64,
    failures: AtomicU64,
}

/// One second of a history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Second {
    /// Requests that ended.
    pub requests: u32,
    /// Those of them that failed.
    pub failures: u32,
}

impl History {
    /// Counts a request that ended at `now`.
    pub fn count(&self, has_failed: bool, now: Moment) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if has_failed {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        let cells = self.seconds.get_or_init(|| Box::new([const { AtomicU64::new(0) }; SLOTS]));
        let second = second_of(now);
        let Some(cell) = cell(cells, second) else { return };
        let count = 1 + if has_failed { FAILURE } else { 0 };
        let before = cell.load(Ordering::Relaxed);
        // The first count of a second starts the cell. A core that loses that race counts into what the other started.
        let is_started = before >> STAMP_SHIFT == stamp(second)
            || cell
                .compare_exchange(before, stamp(second) << STAMP_SHIFT, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
            || cell.load(Ordering::Relaxed) >> STAMP_SHIFT == stamp(second);
        if is_started {
            cell.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Requests that ended so far, and those of them that failed.
    pub fn totals(&self) -> (u64, u64) {
        (self.requests.load(Ordering::Relaxed), self.failures.load(Ordering::Relaxed))
    }

    /// The last [`SECONDS`] whole seconds, oldest first.
    pub fn read(&self, now: Moment) -> [Second; SECONDS] {
        let Some(cells) = self.seconds.get() else { return [Second::default(); SECONDS] };
        let end = second_of(now);
        std::array::from_fn(|place| match (end + place as u64).checked_sub(SECONDS as u64) {
            Some(second) => read(cells, second),
            None => Second::default(),
        })
    }
}

fn second_of(now: Moment) -> u64 {
    // Cells that were never written belong to second 0, so the first second is 1.
    now.as_micros() / 1_000_000 + 1
}

fn stamp(second: u64) -> u64 {
    second & 0xffff
}

fn cell(cells: &[AtomicU64; SLOTS], second: u64) -> Option<&AtomicU64> {
    cells.get(usize::try_from(second % SLOTS as u64).ok()?)
}

fn read(cells: &[AtomicU64; SLOTS], second: u64) -> Second {
    let value = cell(cells, second).map_or(0, |cell| cell.load(Ordering::Relaxed));
    if value >> STAMP_SHIFT != stamp(second) {
        return Second::default();
    }
    let count = |bits: u64| u32::try_from(bits & COUNT_MASK).unwrap_or(u32::MAX);
    Second { requests: count(value), failures: count(value / FAILURE) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn each_second_has_its_counts_and_old_ones_are_gone() {
        let history = History::default();
        assert_eq!(history.read(Moment::ZERO), [Second::default(); SECONDS]);
        let at = |seconds: u64| Moment::ZERO + Duration::from_secs(seconds);
        for (second, requests) in [(0, 3), (1, 0), (2, 5), (61, 1)] {
            (0..requests).for_each(|number| history.count(number % 2 == 1, at(second)));
        }
        let seen = |now: u64, second: u64| {
            let place = (SECONDS as u64 + second).checked_sub(now).expect("in the window") as usize;
            let Second { requests, failures } = history.read(at(now))[place];
            (requests, failures)
        };
        assert_eq!([seen(3, 0), seen(3, 1), seen(3, 2)], [(3, 1), (0, 0), (5, 2)]);
        assert_eq!([seen(62, 2), seen(62, 61)], [(5, 2), (1, 0)]);
        history.count(false, at(66));
        assert_eq!(history.read(at(126)).iter().map(|second| second.requests).sum::<u32>(), 1, "only second 66");
        assert_eq!(history.read(at(127)).iter().map(|second| second.requests).sum::<u32>(), 0);
    }

    #[test]
    fn threads_lose_no_count() {
        let history = History::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    (0..10_000u64).for_each(|number| history.count(false, Moment::from_micros(number * 500)))
                });
            }
        });
        let total: u32 = history.read(Moment::from_micros(5_000_000)).iter().map(|second| second.requests).sum();
        assert_eq!(total, 40_000);
    }
}
