//! Yielding to workers. A view of 100,000 hosts takes a core for tenths of a second, and a worker may need that core:
//! views must not delay it.

use std::cell::Cell;
use std::cmp::Ordering;
use std::thread;
use std::time::Duration;

/// The nice value of the service's threads: they get about a tenth of a worker's time if both need the same core.
const NICE: i32 = 10;

/// Number of steps between two yields: a row takes one or two microseconds, a comparison less than half of that.
const ROWS: u32 = 128;
const COMPARISONS: u32 = 1024;

/// Lowers the priority of the calling thread. If the system refuses, the priority stays.
pub(super) fn step_back() {
    if let Err(error) = rustix::process::nice(NICE) {
        log::debug!("a thread of the admin service keeps its priority: {error}");
    }
}

/// Yields now and then.
/// The CPU time of the calling thread. Unlike the time that passes, it does not grow while workers have the core.
pub(super) fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

#[derive(Debug, Default)]
pub(super) struct Patience(Cell<u32>);

impl Patience {
    /// Counts a row.
    pub(super) fn row(&self) {
        self.step(ROWS);
    }

    /// A comparison that yields in the middle of a long sort.
    pub(super) fn order<T: ?Sized>(&self, order: impl Fn(&T, &T) -> Ordering) -> impl Fn(&T, &T) -> Ordering {
        move |one, other| {
            self.step(COMPARISONS);
            order(one, other)
        }
    }

    fn step(&self, limit: u32) {
        let done = self.0.get() + 1;
        self.0.set(if done < limit { done } else { 0 });
        if done >= limit {
            thread::yield_now();
        }
    }
}
