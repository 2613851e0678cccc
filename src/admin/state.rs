//! What the service remembers from one request to the next.

use super::series::Series;
use super::stats_csv::Statistics;
use crate::base::clock::Moment;
use crate::exchange::ServiceBody;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes of responses that may be held at once, for clients that take their time.
const MAX_HELD_BYTES: usize = 64 << 20;

/// For how long a count of open files is told.
const FRESH: Duration = Duration::from_secs(10);

/// See the top of this page.
#[derive(Debug, Default)]
pub(super) struct State {
    statistics: Mutex<Option<Statistics>>,
    series: Mutex<Series>,
    open_files: Mutex<Option<(Moment, Option<u64>)>>,
    refusals: AtomicU64,
    held_bytes: Arc<AtomicUsize>,
}

impl State {
    /// HAProxy's statistics as they were made last.
    pub(super) fn statistics(&self) -> MutexGuard<'_, Option<Statistics>> {
        lock(&self.statistics)
    }

    /// The clusters that have series of their own.
    pub(super) fn series(&self) -> MutexGuard<'_, Series> {
        lock(&self.series)
    }

    /// How many files are open, as `count` has found lately: to count them takes time.
    pub(super) fn open_files(&self, now: Moment, count: impl FnOnce() -> Option<u64>) -> Option<u64> {
        let mut known = lock(&self.open_files);
        match *known {
            Some((at, open)) if now.since(at) < FRESH => open,
            _ => known.insert((now, count())).1,
        }
    }

    /// Counts a request that was refused for who asked.
    pub(super) fn count_refusal(&self) {
        self.refusals.fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were.
    pub(super) fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::Relaxed)
    }

    /// Whether so many more bytes may be held.
    pub(super) fn has_room_for(&self, bytes: usize) -> bool {
        self.held_bytes.load(Ordering::Relaxed).saturating_add(bytes) <= MAX_HELD_BYTES
    }

    /// A body that counts for as long as it is held.
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
