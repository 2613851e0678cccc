//! Requests and failures in each of the last 60 seconds. No lock: each thread counts in its own cell, any thread reads.

use crate::base::clock::Moment;
use crate::base::thread_cells::ThreadCells;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Number of seconds that are kept.
pub const SECONDS: usize = 60;

/// A few more slots than seconds, so that a reader and a late writer do not use the same one.
const SLOTS: usize = SECONDS + 4;

/// A slot packs the lower 16 bits of its second, 24 bits of failures and 24 bits of requests: a count never lands in
/// another second.
const FAILURE: u64 = 1 << 24;
const STAMP_SHIFT: u32 = 48;
const COUNT_MASK: u64 = FAILURE - 1;

/// Counts of the last [`SECONDS`], and totals. It allocates memory at the first count.
///
/// A thread adds to its own cell, and once a second to those of all threads: so a request costs no contended write.
#[derive(Debug, Default)]
pub struct History {
    own: ThreadCells<Counts>,
    seconds: OnceLock<Box<[AtomicU64; SLOTS]>>,
}

/// The counts of one thread.
#[derive(Debug, Default)]
struct Counts {
    /// Requests in flight, counted by each thread for itself. It wraps: another thread may end a request that this one
    /// has started.
    in_flight: AtomicU64,
    /// Its greatest value.
    peak: AtomicU64,
    requests: AtomicU64,
    failures: AtomicU64,
    /// Its last second, which is not in the common slots yet.
    last: AtomicU64,
}

/// One second of a history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Second {
    /// Requests that ended.
    pub requests: u32,
    /// Requests that failed.
    pub failures: u32,
}

impl History {
    /// Counts a request that ended at `now`.
    pub fn count(&self, has_failed: bool, now: Moment) {
        let own = self.own.own();
        own.add(|cell| &cell.requests, 1);
        if has_failed {
            own.add(|cell| &cell.failures, 1);
        }
        let second = second_of(now);
        let counts = 1 + if has_failed { FAILURE } else { 0 };
        let Some(cell) = own.exclusive() else { return self.add(stamp(second), counts) };
        let last = cell.last.load(Ordering::Relaxed);
        if last >> STAMP_SHIFT == stamp(second) {
            cell.last.store(last + counts, Ordering::Relaxed);
        } else {
            self.end_second(last, second);
            cell.last.store((stamp(second) << STAMP_SHIFT) | counts, Ordering::Relaxed);
        }
    }

    /// Adds a thread's last second to the common slots, if it is not too old.
    #[cold]
    fn end_second(&self, last: u64, now: u64) {
        let counts = last & (u64::MAX >> (64 - STAMP_SHIFT));
        // The earlier owner of the cell may have been ahead of this thread.
        let ages = [now.wrapping_sub(last >> STAMP_SHIFT), (last >> STAMP_SHIFT).wrapping_sub(now)];
        if counts > 0 && ages.iter().any(|age| stamp(*age) <= SECONDS as u64) {
            self.add(last >> STAMP_SHIFT, counts);
        }
    }

    /// Adds to a common slot.
    fn add(&self, stamp: u64, counts: u64) {
        let cells = self.seconds.get_or_init(|| Box::new([const { AtomicU64::new(0) }; SLOTS]));
        let Some(cell) = cell(cells, stamp) else { return };
        let before = cell.load(Ordering::Relaxed);
        // The first count of a second resets the slot. A core that loses that race adds to the slot that the other one
        // has reset.
        let is_started = before >> STAMP_SHIFT == stamp
            || cell.compare_exchange(before, stamp << STAMP_SHIFT, Ordering::Relaxed, Ordering::Relaxed).is_ok()
            || cell.load(Ordering::Relaxed) >> STAMP_SHIFT == stamp;
        if is_started {
            cell.fetch_add(counts, Ordering::Relaxed);
        }
    }

    /// Total number of ended requests, and of failed ones.
    pub fn totals(&self) -> (u64, u64) {
        let sum =
            |count: fn(&Counts) -> &AtomicU64| self.own.iter().map(|cell| count(cell).load(Ordering::Relaxed)).sum();
        (sum(|cell| &cell.requests), sum(|cell| &cell.failures))
    }

    /// Counts a request in flight, for this thread alone.
    #[inline]
    pub(super) fn enter(&self) {
        let own = self.own.own();
        own.add(|cell| &cell.in_flight, 1);
        own.raise(|cell| &cell.peak, |cell| &cell.in_flight);
    }

    /// Records the end of such a request, whichever thread has started it.
    #[inline]
    pub(super) fn leave(&self) {
        self.own.own().add(|cell| &cell.in_flight, u64::MAX);
    }

    /// The sum of the greatest number that each thread has had in flight.
    pub(super) fn peak(&self) -> u32 {
        let peaks = self.own.iter().map(|cell| cell.peak.load(Ordering::Relaxed));
        u32::try_from(peaks.sum::<u64>()).unwrap_or(u32::MAX)
    }

    /// Requests in flight of all threads.
    pub(super) fn apart(&self) -> u32 {
        let counts = self.own.iter().map(|cell| cell.in_flight.load(Ordering::Relaxed));
        // A request that starts and ends on different threads while the cells are read may be seen only at its end.
        u32::try_from(counts.fold(0, u64::wrapping_add).cast_signed().max(0)).unwrap_or(u32::MAX)
    }

    /// Requests and failures of the last [`SECONDS`] whole seconds: the sum of [`History::read`], in one pass over the
    /// slots.
    pub fn recent(&self, now: Moment) -> (u64, u64) {
        let of_all = self.seconds.get().into_iter().flat_map(|cells| cells.iter());
        let cells = of_all.chain(self.own.iter().map(|cell| &cell.last));
        recent_of(cells.map(|cell| cell.load(Ordering::Relaxed)), second_of(now))
    }

    /// Requests and failures of the last whole second.
    pub fn last_second(&self, now: Moment) -> Second {
        self.second(second_of(now).checked_sub(1))
    }

    /// Requests and failures of a whole second; none of one before the clock began.
    fn second(&self, second: Option<u64>) -> Second {
        let mut found = Second::default();
        let Some(stamp) = second.map(stamp) else { return found };
        if let Some(cells) = self.seconds.get() {
            found.add(cell(cells, stamp), stamp);
        }
        self.own.iter().for_each(|cell| found.add(Some(&cell.last), stamp));
        found
    }

    /// The last [`SECONDS`] whole seconds, oldest first.
    pub fn read(&self, now: Moment) -> [Second; SECONDS] {
        let end = second_of(now);
        std::array::from_fn(|place| self.second((end + place as u64).checked_sub(SECONDS as u64)))
    }
}

/// See [`History::recent`].
fn recent_of(cells: impl Iterator<Item = u64>, end: u64) -> (u64, u64) {
    let add = |(requests, failures): (u64, u64), value: u64| {
        // The present second is not complete yet. A second ahead of this reader appears far away.
        let age = stamp(end.wrapping_sub(value >> STAMP_SHIFT));
        if (1..=SECONDS as u64).contains(&age) {
            (requests + (value & COUNT_MASK), failures + ((value / FAILURE) & COUNT_MASK))
        } else {
            (requests, failures)
        }
    };
    cells.fold((0, 0), add)
}

fn second_of(now: Moment) -> u64 {
    // Slots that were never written belong to second 0, so the first second is 1.
    now.as_micros() / 1_000_000 + 1
}

fn stamp(second: u64) -> u64 {
    second & 0xffff
}

fn cell(cells: &[AtomicU64; SLOTS], stamp: u64) -> Option<&AtomicU64> {
    cells.get(usize::try_from(stamp % SLOTS as u64).ok()?)
}

impl Second {
    /// Adds the counts of a slot, if it belongs to this second.
    fn add(&mut self, cell: Option<&AtomicU64>, stamp: u64) {
        let value = cell.map_or(0, |cell| cell.load(Ordering::Relaxed));
        if value >> STAMP_SHIFT == stamp {
            let count = |bits: u64| u32::try_from(bits & COUNT_MASK).unwrap_or(u32::MAX);
            self.requests = self.requests.saturating_add(count(value));
            self.failures = self.failures.saturating_add(count(value / FAILURE));
        }
    }
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
    fn the_sum_of_a_minute_is_that_of_its_seconds() {
        let mut random = fastrand::Rng::with_seed(11);
        let history = History::default();
        let mut now = Moment::ZERO;
        for step in 0..2000 {
            now = now + Duration::from_millis(random.u64(..if step % 500 == 0 { 200_000 } else { 900 }));
            history.count(random.bool(), now);
            let later = now + Duration::from_millis(random.u64(..70_000));
            for at in [now, later] {
                let seconds = history.read(at);
                let sum = |count: fn(&Second) -> u32| seconds.iter().map(|second| u64::from(count(second))).sum();
                assert_eq!(
                    history.recent(at),
                    (sum(|second| second.requests), sum(|second| second.failures)),
                    "{at:?}"
                );
            }
        }
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
        assert_eq!((total, history.totals()), (40_000, (40_000, 0)));
    }

    #[test]
    fn a_count_of_long_ago_does_not_come_back() {
        let history = History::default();
        let at = |seconds: u64| Moment::ZERO + Duration::from_secs(seconds);
        history.count(true, at(0));
        history.count(false, at(64));
        let seen: Vec<_> = history.read(at(65)).iter().filter(|second| second.requests > 0).copied().collect();
        assert_eq!(seen, [Second { requests: 1, failures: 0 }]);
        assert_eq!(history.totals(), (2, 1));
    }
}
