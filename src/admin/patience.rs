//! A view of 100,000 hosts takes a core for tenths of a second, and a worker may need that core: its turn is not to last
//! longer for a view's sake.

use std::cell::Cell;
use std::cmp::Ordering;
use std::thread;

/// By how much the threads of the service are nicer than workers: they have about a tenth of a worker's time where both
/// want the same core.
const NICE: i32 = 10;

/// Steps between two offers to let others go first: rows take a microsecond or two, comparisons less than half of that.
const ROWS: u32 = 128;
const COMPARISONS: u32 = 1024;

/// Gives the calling thread a lower priority. Where the system refuses, it stays as it is.
pub(super) fn step_back() {
    if let Err(error) = rustix::process::nice(NICE) {
        log::debug!("a thread of the admin service keeps its priority: {error}");
    }
}

/// Lets others go first, once in a while.
#[derive(Debug, Default)]
pub(super) struct Patience(Cell<u32>);

impl Patience {
    /// A row is done.
    pub(super) fn row(&self) {
        self.step(ROWS);
    }

    /// An order that lets others go first in the middle of a long sort.
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
