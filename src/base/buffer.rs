//! Buffers that are used again. One pool a core.

/// The capacity of a fresh buffer: enough for most heads.
const FRESH_CAPACITY: usize = 4 * 1024;

/// A buffer that grew beyond this is freed, not kept: one large head must not hold memory for ever.
const LARGEST_KEPT: usize = 16 * 1024;

/// How many free buffers are kept.
const MOST_KEPT: usize = 1024;

/// A stock of free buffers.
#[derive(Debug, Default)]
pub struct BufferPool {
    free: Vec<Vec<u8>>,
}

impl BufferPool {
    /// An empty buffer.
    pub fn take(&mut self) -> Vec<u8> {
        self.free.pop().unwrap_or_else(|| Vec::with_capacity(FRESH_CAPACITY))
    }

    /// Takes a buffer back. One that was never taken from here (capacity 0) is welcome too, and ignored.
    pub fn give(&mut self, mut buffer: Vec<u8>) {
        let worth_keeping = (FRESH_CAPACITY..=LARGEST_KEPT).contains(&buffer.capacity());
        if worth_keeping && self.free.len() < MOST_KEPT {
            buffer.clear();
            self.free.push(buffer);
        }
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
        pool.give(Vec::with_capacity(LARGEST_KEPT + 1));
        pool.give(Vec::new());
        assert!(pool.free.is_empty());
    }
}
