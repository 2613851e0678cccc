//! The state of the service between requests.

use super::series::Series;
use super::stats_csv::Statistics;
use crate::base::clock::Moment;
use crate::exchange::ServiceBody;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The greatest number of response bytes held at once for slow clients.
const MAX_HELD_BYTES: usize = 64 << 20;

/// Time for which a count of open files is reused.
const FRESH: Duration = Duration::from_secs(10);

/// The state; see the module.
#[derive(Debug, Default)]
pub(super) struct State {
    statistics: Mutex<Option<Statistics>>,
    keeps_statistics: AtomicBool,
    series: Mutex<Series>,
    open_files: Mutex<Option<(Moment, Option<u64>)>>,
    refusals: AtomicU64,
    gatherings: AtomicU64,
    streams: AtomicUsize,
    held_bytes: Arc<AtomicUsize>,
}

impl State {
    /// The last HAProxy statistics. The thread of views holds the lock while it makes new ones, which may take long.
    pub(super) fn statistics(&self) -> MutexGuard<'_, Option<Statistics>> {
        self.keeps_statistics.store(true, Ordering::Relaxed);
        lock(&self.statistics)
    }

    /// Whether there may be statistics to drop.
    pub(super) fn keeps_statistics(&self) -> bool {
        self.keeps_statistics.load(Ordering::Relaxed)
    }

    /// Drops the last statistics if they are too old. It never waits for the lock.
    pub(super) fn drop_statistics(&self, is_old: impl FnOnce(&Statistics) -> bool) {
        let Ok(mut known) = self.statistics.try_lock() else { return };
        if known.as_ref().is_none_or(is_old) {
            *known = None;
            self.keeps_statistics.store(false, Ordering::Relaxed);
        }
    }

    /// The clusters with their own series.
    pub(super) fn series(&self) -> MutexGuard<'_, Series> {
        lock(&self.series)
    }

    /// Number of open files, from a recent result of `count`, which takes time.
    pub(super) fn open_files(&self, now: Moment, count: impl FnOnce() -> Option<u64>) -> Option<u64> {
        let mut known = lock(&self.open_files);
        match *known {
            Some((at, open)) if now.since(at) < FRESH => open,
            _ => known.insert((now, count())).1,
        }
    }

    /// Counts a refused request.
    pub(super) fn count_refusal(&self) {
        self.refusals.fetch_add(1, Ordering::Relaxed);
    }

    /// Number of refused requests.
    pub(super) fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::Relaxed)
    }

    /// Counts a gathering for event streams.
    pub(super) fn count_gathering(&self) {
        self.gatherings.fetch_add(1, Ordering::Relaxed);
    }

    /// Sets the number of open event streams.
    pub(super) fn set_streams(&self, count: usize) {
        self.streams.store(count, Ordering::Relaxed);
    }

    /// The number of open event streams, and of gatherings for them.
    pub(super) fn events(&self) -> (usize, u64) {
        (self.streams.load(Ordering::Relaxed), self.gatherings.load(Ordering::Relaxed))
    }

    /// Whether this many more bytes may be held.
    pub(super) fn has_room_for(&self, bytes: usize) -> bool {
        self.held_bytes.load(Ordering::Relaxed).saturating_add(bytes) <= MAX_HELD_BYTES
    }

    /// A body that is counted while it is held.
    pub(super) fn body(&self, bytes: Vec<u8>) -> ServiceBody {
        ServiceBody::counted(bytes, &self.held_bytes)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_count_for_as_long_as_a_response_holds_them() {
        let state = State::default();
        assert!(state.has_room_for(MAX_HELD_BYTES) && !state.has_room_for(MAX_HELD_BYTES + 1));
        let body = state.body(vec![0; MAX_HELD_BYTES - 10]);
        let shared = body.clone();
        assert!(state.has_room_for(10) && !state.has_room_for(11));
        drop(body);
        assert!(!state.has_room_for(11), "another response has it");
        drop(shared);
        assert!(state.has_room_for(MAX_HELD_BYTES));
    }

    #[test]
    fn open_files_are_counted_once_in_a_while() {
        let state = State::default();
        let at = |seconds| Moment::ZERO + Duration::from_secs(seconds);
        assert_eq!(state.open_files(at(1), || Some(7)), Some(7));
        assert_eq!(state.open_files(at(10), || panic!("it is known")), Some(7));
        assert_eq!(state.open_files(at(11), || Some(8)), Some(8));
    }
}
