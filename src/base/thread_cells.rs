//! One cell for each thread. A thread writes its own cell without a read-modify-write and without taking a cache line
//! from another core; a reader sums all cells.

use super::cache_line::CacheLine;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Cells for threads that start after the cells were made. Workers start before anything is counted.
const SPARE_CELLS: usize = 2;

/// One `T` for each thread that counts, made at the first count.
#[derive(Debug, Default)]
pub struct ThreadCells<T> {
    own: OnceLock<Box<[CacheLine<T>]>>,
    /// The cell shared by threads beyond the number of cells.
    shared: T,
}

/// The cell of the current thread.
#[derive(Debug)]
pub struct OwnCell<'a, T> {
    cell: &'a T,
    is_exclusive: bool,
}

impl<T: Default> ThreadCells<T> {
    /// The cell of the current thread.
    #[inline]
    pub fn own(&self) -> OwnCell<'_, T> {
        let number = NUMBER.try_with(|number| number.0).unwrap_or(usize::MAX);
        match self.own.get_or_init(new_cells).get(number) {
            Some(cell) => OwnCell { cell, is_exclusive: true },
            None => OwnCell { cell: &self.shared, is_exclusive: false },
        }
    }

    /// All cells that were ever written.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        let own = self.own.get().into_iter().flatten().map(|line| &line.0);
        own.chain(std::iter::once(&self.shared))
    }
}

impl<'a, T> OwnCell<'a, T> {
    /// The cell, if no other thread writes it.
    #[inline]
    pub fn exclusive(&self) -> Option<&'a T> {
        self.is_exclusive.then_some(self.cell)
    }

    /// Adds to a counter of the cell; it wraps.
    #[inline]
    pub fn add(&self, counter: impl Fn(&T) -> &AtomicU64, count: u64) {
        let counter = counter(self.cell);
        if self.is_exclusive {
            counter.store(counter.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
        } else {
            counter.fetch_add(count, Ordering::Relaxed);
        }
    }
}

impl<T> OwnCell<'_, T> {
    /// Raises a peak of the cell to the value of a counter, which may have wrapped below 0. A write is rare.
    #[inline]
    pub fn raise(&self, peak: impl Fn(&T) -> &AtomicU64, counter: impl Fn(&T) -> &AtomicU64) {
        let (peak, now) = (peak(self.cell), counter(self.cell).load(Ordering::Relaxed));
        if now.cast_signed() > peak.load(Ordering::Relaxed).cast_signed() {
            peak.fetch_max(now, Ordering::Relaxed);
        }
    }
}

fn new_cells<T: Default>() -> Box<[CacheLine<T>]> {
    let count = lock().next + SPARE_CELLS;
    (0..count).map(|_| CacheLine::default()).collect()
}

/// Numbers of threads. A thread that ends returns its number, and so its cells, to the next thread that asks. The lock
/// orders the writes of the former owner before those of the next one.
#[derive(Debug)]
struct Numbers {
    free: BTreeSet<usize>,
    next: usize,
}

static NUMBERS: Mutex<Numbers> = Mutex::new(Numbers { free: BTreeSet::new(), next: 0 });

thread_local! {
    static NUMBER: Number = Number::take();
}

struct Number(usize);

impl Number {
    fn take() -> Self {
        let mut numbers = lock();
        let number = numbers.free.pop_first().unwrap_or(numbers.next);
        numbers.next = numbers.next.max(number + 1);
        Self(number)
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        lock().free.insert(self.0);
    }
}

fn lock() -> std::sync::MutexGuard<'static, Numbers> {
    NUMBERS.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(cells: &ThreadCells<AtomicU64>) {
        (0..10_000).for_each(|_| cells.own().add(|cell| cell, 1));
    }

    #[test]
    fn threads_lose_no_count_whether_they_have_a_cell_or_not() {
        let cells = ThreadCells::<AtomicU64>::default();
        count(&cells);
        std::thread::scope(|scope| {
            // The first thread has kept its number; the others have higher numbers than there are cells.
            (0..4 * SPARE_CELLS).for_each(|_| _ = scope.spawn(|| count(&cells)));
        });
        // Their numbers, and so their cells, are free again.
        std::thread::scope(|scope| _ = scope.spawn(|| count(&cells)));
        let total: u64 = cells.iter().map(|cell| cell.load(Ordering::Relaxed)).sum();
        assert_eq!(total, 10_000 * (2 + 4 * SPARE_CELLS as u64));
    }

    #[test]
    fn cells_of_threads_share_no_line() {
        let cells = ThreadCells::<AtomicU64>::default();
        count(&cells);
        let places: Vec<_> =
            cells.own.get().into_iter().flatten().map(|cell| std::ptr::from_ref(cell).addr()).collect();
        assert!(places.windows(2).all(|pair| pair[0] / 64 != pair[1] / 64), "{places:?}");
    }
}
