//! Reusable buffers. Each core has one pool.

/// Capacity of a fresh buffer, in bytes: enough for most heads.
pub const FRESH_CAPACITY: usize = 4 * 1024;

/// A buffer that grew beyond this many bytes is freed, not kept: one large head must not hold memory for ever.
const LARGEST_KEPT: usize = 16 * 1024;

/// The greatest number of free buffers that a pool keeps.
const MOST_KEPT: usize = 1024;

/// A pool of free buffers.
#[derive(Debug, Default)]
pub struct BufferPool {
    free: Vec<Vec<u8>>,
    lent: BufferUsage,
    /// The lowest number of free buffers since the last [`BufferPool::trim`]: that many were never needed.
    least_free: usize,
}

/// Buffers in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BufferUsage {
    /// Number of buffers.
    pub count: usize,
    /// Bytes by which they have grown beyond the capacity of a fresh buffer.
    pub grown: usize,
}

impl BufferUsage {
    /// Usage of one buffer; zero if it was never allocated.
    pub fn of(buffer: &Vec<u8>) -> Self {
        Self { count: usize::from(buffer.capacity() > 0), grown: growth(buffer.capacity()) }
    }

    /// The sum of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { count: self.count + other.count, grown: self.grown + other.grown }
    }

    fn without(self, other: Self) -> Self {
        debug_assert!(self.count >= other.count && self.grown >= other.grown, "{other:?} of {self:?}");
        Self { count: self.count.saturating_sub(other.count), grown: self.grown.saturating_sub(other.grown) }
    }
}

fn growth(capacity: usize) -> usize {
    capacity.saturating_sub(FRESH_CAPACITY)
}

impl BufferPool {
    /// An empty buffer.
    pub fn take(&mut self) -> Vec<u8> {
        let buffer = self.free.pop().unwrap_or_else(|| Vec::with_capacity(FRESH_CAPACITY));
        self.lent = self.lent.and(BufferUsage::of(&buffer));
        self.least_free = self.least_free.min(self.free.len());
        buffer
    }

    /// Takes a buffer back. A buffer of capacity 0 never came from a pool and is ignored.
    pub fn give(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() == 0 {
            return;
        }
        self.lent = self.lent.without(BufferUsage::of(&buffer));
        debug_assert!(self.lent.count > 0 || self.lent.grown == 0, "growth that was not told: {}", self.lent.grown);
        let worth_keeping = (FRESH_CAPACITY..=LARGEST_KEPT).contains(&buffer.capacity());
        if worth_keeping && self.free.len() < MOST_KEPT {
            buffer.clear();
            self.free.push(buffer);
        }
    }

    /// Appends bytes to a buffer in use.
    pub fn extend(&mut self, buffer: &mut Vec<u8>, bytes: &[u8]) {
        let capacity = buffer.capacity();
        buffer.extend_from_slice(bytes);
        self.note_growth(buffer, capacity);
    }

    /// Records growth of a buffer in use, given its capacity before bytes were added. Every writer calls this.
    pub fn note_growth(&mut self, buffer: &Vec<u8>, before: usize) {
        self.lent.grown += growth(buffer.capacity()) - growth(before);
    }

    /// Frees the unused capacity of a buffer in use, where it is large enough to matter.
    pub fn shrink(&mut self, buffer: &mut Vec<u8>) {
        if buffer.capacity() > LARGEST_KEPT {
            let before = growth(buffer.capacity());
            buffer.shrink_to(FRESH_CAPACITY);
            self.lent.grown -= before - growth(buffer.capacity());
        }
    }

    /// Stops counting these buffers as in use. They were handed to another core, which takes them back, or no pool
    /// owned them.
    pub fn export_usage(&mut self, buffers: BufferUsage) {
        self.lent = self.lent.without(buffers);
    }

    /// Counts these buffers as in use here. Another worker handed them over, or no pool owned them.
    pub fn import_usage(&mut self, buffers: BufferUsage) {
        self.lent = self.lent.and(buffers);
    }

    /// Frees half of the buffers that were not needed since the last call.
    pub fn trim(&mut self) {
        let kept = self.free.len() - self.least_free.div_ceil(2);
        self.free.truncate(kept);
        self.free.shrink_to(2 * kept);
        self.least_free = kept;
    }

    /// Number of buffers, free or in use.
    pub fn count(&self) -> usize {
        self.lent.count + self.free.len()
    }

    /// Number of buffers in use.
    pub fn lent(&self) -> usize {
        self.lent.count
    }

    /// Bytes by which the buffers in use exceed fresh ones: the share that slow peers cause.
    pub fn grown(&self) -> usize {
        self.lent.grown
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
        pool.extend(&mut large, &[0; LARGEST_KEPT + 1]);
        pool.give(large);
        pool.give(Vec::new());
        assert!(pool.free.is_empty());
        assert_eq!(pool.lent(), 0);
    }

    #[test]
    fn trim_frees_unused_buffers_only() {
        let mut pool = BufferPool::default();
        let buffers: Vec<_> = (0..100).map(|_| pool.take()).collect();
        buffers.into_iter().for_each(|buffer| pool.give(buffer));
        assert_eq!(pool.count(), 100);
        pool.trim();
        assert_eq!(pool.count(), 100, "all of them were in use");
        for _ in 0..8 {
            let used = [(); 4].map(|()| pool.take());
            used.into_iter().for_each(|buffer| pool.give(buffer));
            pool.trim();
        }
        assert_eq!(pool.count(), 4);
    }

    #[test]
    fn growth_is_counted_while_a_buffer_is_in_use() {
        let mut pool = BufferPool::default();
        let (mut small, mut large) = (pool.take(), pool.take());
        pool.extend(&mut small, &[0; FRESH_CAPACITY]);
        assert_eq!(pool.grown(), 0);
        pool.extend(&mut large, &[0; 100_000]);
        let capacity = large.capacity();
        large.extend_from_slice(&[0; 200_000]);
        pool.note_growth(&large, capacity);
        assert_eq!(pool.grown(), large.capacity() - FRESH_CAPACITY);
        let mut other = BufferPool::default();
        pool.export_usage(BufferUsage::of(&large));
        other.import_usage(BufferUsage::of(&large));
        assert_eq!((pool.grown(), other.grown()), (0, large.capacity() - FRESH_CAPACITY));
        large.truncate(20_000);
        other.shrink(&mut large);
        assert_eq!((large.len(), other.grown()), (20_000, large.capacity() - FRESH_CAPACITY));
        assert!(other.grown() < 100_000);
        other.give(large);
        pool.give(small);
        assert_eq!((pool.grown(), other.grown(), pool.lent(), other.lent()), (0, 0, 0, 0));
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
