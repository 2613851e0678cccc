//! Buffers that are used again. One pool a core.

/// The capacity of a fresh buffer: enough for most heads.
pub const FRESH_CAPACITY: usize = 4 * 1024;

/// A buffer that grew beyond this is freed, not kept: one large head must not hold memory for ever.
const LARGEST_KEPT: usize = 16 * 1024;

/// How many free buffers are kept.
const MOST_KEPT: usize = 1024;

/// A stock of free buffers.
#[derive(Debug, Default)]
pub struct BufferPool {
    free: Vec<Vec<u8>>,
    lent: usize,
    /// The fewest free ones since the last [`BufferPool::tidy`]: so many were of no use.
    least_free: usize,
}

impl BufferPool {
    /// An empty buffer.
    pub fn take(&mut self) -> Vec<u8> {
        self.lent += 1;
        let buffer = self.free.pop().unwrap_or_else(|| Vec::with_capacity(FRESH_CAPACITY));
        self.least_free = self.least_free.min(self.free.len());
        buffer
    }

    /// Takes a buffer back. One that was never taken from here (capacity 0) is welcome too, and ignored.
    pub fn give(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() == 0 {
            return;
        }
        debug_assert!(self.lent > 0, "a buffer that was not taken from here");
        self.lent = self.lent.saturating_sub(1);
        let worth_keeping = (FRESH_CAPACITY..=LARGEST_KEPT).contains(&buffer.capacity());
        if worth_keeping && self.free.len() < MOST_KEPT {
            buffer.clear();
            self.free.push(buffer);
        }
    }

    /// Says that so many of the buffers in use have gone to another core, which gets them back.
    pub fn part_with(&mut self, count: usize) {
        debug_assert!(self.lent >= count, "buffers that were not taken from here");
        self.lent = self.lent.saturating_sub(count);
    }

    /// Says that so many buffers of another core are in use here now.
    pub fn welcome(&mut self, count: usize) {
        self.lent += count;
    }

    /// Frees half of those that nobody has needed since the last call.
    pub fn tidy(&mut self) {
        let kept = self.free.len() - self.least_free.div_ceil(2);
        self.free.truncate(kept);
        self.free.shrink_to(2 * kept);
        self.least_free = kept;
    }

    /// How many buffers there are, free or in use.
    pub fn count(&self) -> usize {
        self.lent + self.free.len()
    }

    /// How many buffers are in use.
    pub fn lent(&self) -> usize {
        self.lent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_empty_and_the_large_ones_do_not() {
        let mut pool = BufferPool::default();
        let mut buffer = pool.take();
        buffer.extend_from_slice(b"something");
        let address = buffer.as_ptr();
        pool.give(buffer);
        let again = pool.take();
        assert!(again.is_empty());
        assert_eq!(again.as_ptr(), address);
        assert_eq!(pool.lent(), 1);
        let mut large = again;
        large.reserve(LARGEST_KEPT + 1);
        pool.give(large);
        pool.give(Vec::new());
        assert!(pool.free.is_empty());
        assert_eq!(pool.lent(), 0);
    }

    #[test]
    fn what_nobody_needs_is_freed_and_what_is_needed_stays() {
        let mut pool = BufferPool::default();
        let buffers: Vec<_> = (0..100).map(|_| pool.take()).collect();
        buffers.into_iter().for_each(|buffer| pool.give(buffer));
        assert_eq!(pool.count(), 100);
        pool.tidy();
        assert_eq!(pool.count(), 100, "all of them were in use");
        for _ in 0..8 {
            let used = [(); 4].map(|()| pool.take());
            used.into_iter().for_each(|buffer| pool.give(buffer));
            pool.tidy();
        }
        assert_eq!(pool.count(), 4);
    }

    #[test]
    fn what_a_rush_took_is_freed_but_for_a_stock() {
        let mut pool = BufferPool::default();
        let rush: Vec<_> = (0..3 * MOST_KEPT).map(|_| pool.take()).collect();
        rush.into_iter().for_each(|buffer| pool.give(buffer));
        assert_eq!((pool.count(), pool.lent()), (MOST_KEPT, 0));
        assert!(pool.free.iter().all(|buffer| buffer.capacity() <= LARGEST_KEPT));
    }
}
