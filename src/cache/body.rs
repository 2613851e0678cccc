//! The content of stored responses: chunks that are shared, not copied, and their memory budget.

use crate::base::slice_ext::SliceExt;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The size of a chunk of a body, in bytes.
const CHUNK: usize = 64 * 1024;

/// A body in chunks that are shared, not copied.
#[derive(Clone, Debug, Default)]
pub struct Body {
    chunks: Arc<[Arc<Chunk>]>,
    len: u64,
}

/// A part of a body. Its memory returns to the budget with the last response that sends it.
#[derive(Debug)]
struct Chunk {
    bytes: Box<[u8]>,
    _lease: BodyLease,
}

/// The memory of all bodies: those being filled, those stored, and those that have left the store and are still being
/// sent.
#[derive(Debug)]
pub struct BodyBudget {
    used: AtomicU64,
    limit: u64,
}

impl BodyBudget {
    /// A budget of this many bytes.
    pub fn new(limit: u64) -> Self {
        Self { used: AtomicU64::new(0), limit }
    }

    /// The number of bytes that may be in use.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// The bytes in use.
    pub fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    fn take(&self, bytes: u64) -> Result<(), BodyFault> {
        if self.used.fetch_add(bytes, Relaxed).saturating_add(bytes) <= self.limit {
            return Ok(());
        }
        self.used.fetch_sub(bytes, Relaxed);
        Err(BodyFault::NoRoom)
    }
}

/// Bytes of a budget that one chunk takes.
#[derive(Debug, Default)]
struct BodyLease {
    budget: Option<Arc<BodyBudget>>,
    bytes: u64,
}

impl BodyLease {
    fn take(budget: Option<&Arc<BodyBudget>>, bytes: u64) -> Result<Self, BodyFault> {
        budget.map_or(Ok(()), |budget| budget.take(bytes))?;
        Ok(Self { budget: budget.cloned(), bytes })
    }

    fn shrink_to(&mut self, bytes: u64) {
        let surplus = self.bytes.saturating_sub(bytes);
        if let Some(budget) = &self.budget {
            budget.used.fetch_sub(surplus, Relaxed);
        }
        self.bytes -= surplus;
    }
}

impl Drop for BodyLease {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

impl Body {
    /// The length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes of this range, as slices for one `writev`.
    pub fn slices(&self, range: Range<u64>) -> impl Iterator<Item = &[u8]> {
        let mut start = 0_u64;
        self.chunks.iter().filter_map(move |chunk| {
            let bytes = &chunk.bytes;
            let len = bytes.len() as u64;
            let from = range.start.clamp(start, start + len) - start;
            let to = range.end.clamp(start, start + len) - start;
            start += len;
            (from < to).then(|| bytes.slice(place(from)..place(to)))
        })
    }
}

/// A position within a chunk, which is less than its length.
fn place(place: u64) -> usize {
    usize::try_from(place).unwrap_or(usize::MAX)
}

/// Why a body is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFault {
    /// It has more bytes than may be stored.
    TooLarge,
    /// It was cut short, or its length differs from the stated one.
    Incomplete,
    /// The budget of all bodies is used up ([`BodyBudget`]).
    NoRoom,
}

/// Collects a body while it is forwarded.
#[derive(Debug)]
pub struct BodyBuilder {
    chunks: VecDeque<Arc<Chunk>>,
    tail: Vec<u8>,
    tail_lease: BodyLease,
    /// Number of bytes dropped from the beginning.
    dropped: u64,
    len: u64,
    limit: u64,
    stated: Option<u64>,
    budget: Option<Arc<BodyBudget>>,
}

impl BodyBuilder {
    /// Collects at most `limit` bytes, 0 for no limit. `stated` is the length that the head states.
    pub fn new(limit: u64, stated: Option<u64>) -> Result<Self, BodyFault> {
        let limit = if limit == 0 { u64::MAX } else { limit };
        if stated.is_some_and(|stated| stated > limit) {
            return Err(BodyFault::TooLarge);
        }
        let (chunks, tail, tail_lease) = (VecDeque::new(), Vec::new(), BodyLease::default());
        Ok(Self { chunks, tail, tail_lease, dropped: 0, len: 0, limit, stated, budget: None })
    }

    /// Number of bytes so far, including dropped ones.
    pub fn received(&self) -> u64 {
        self.len
    }

    /// The length that the head states.
    pub fn stated(&self) -> Option<u64> {
        self.stated
    }

    /// Appends bytes. Before a fault some of them may have been appended: see [`BodyBuilder::received`].
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), BodyFault> {
        let sum = self.len.saturating_add(bytes.len() as u64);
        if sum > self.limit {
            return Err(BodyFault::TooLarge);
        }
        if self.stated.is_some_and(|stated| sum > stated) {
            return Err(BodyFault::Incomplete);
        }
        while !bytes.is_empty() {
            if self.tail.capacity() == 0 {
                let rest = self.stated.map_or(CHUNK as u64, |stated| stated - self.len);
                let capacity = usize::try_from(rest).unwrap_or(CHUNK).clamp(1, CHUNK);
                self.tail_lease = BodyLease::take(self.budget.as_ref(), capacity as u64)?;
                self.tail.reserve_exact(capacity);
            }
            let len = bytes.len().min(self.tail.capacity() - self.tail.len());
            self.tail.extend_from_slice(bytes.prefix(len));
            self.len += len as u64;
            bytes = bytes.suffix(len);
            if self.tail.len() == self.tail.capacity() {
                self.close_tail();
            }
        }
        Ok(())
    }

    fn close_tail(&mut self) {
        let bytes = std::mem::take(&mut self.tail).into_boxed_slice();
        self.tail_lease.shrink_to(bytes.len() as u64);
        self.chunks.push_back(Arc::new(Chunk { bytes, _lease: std::mem::take(&mut self.tail_lease) }));
    }

    /// Lowers the limit to `limit` and takes the bytes from a budget. To be called before any byte is collected.
    pub fn limit_to(&mut self, limit: u64, budget: &Arc<BodyBudget>) -> Result<(), BodyFault> {
        self.limit = self.limit.min(limit);
        self.budget = Some(Arc::clone(budget));
        if self.stated.is_some_and(|stated| stated > limit) { Err(BodyFault::TooLarge) } else { Ok(()) }
    }

    /// Removes all limits and takes no bytes from a budget from now on: chunks are dropped as soon as they were read
    /// ([`BodyBuilder::drop_before`]).
    pub fn lift_limits(&mut self) {
        (self.limit, self.budget) = (u64::MAX, None);
    }

    /// Drops the chunks before a position.
    pub fn drop_before(&mut self, at: u64) {
        while let Some(chunk) = self.chunks.front()
            && self.dropped + chunk.bytes.len() as u64 <= at
        {
            self.dropped += chunk.bytes.len() as u64;
            self.chunks.pop_front();
        }
    }

    /// At most `most` bytes from a position on, which must not be dropped. Whole chunks are shared; the last one, which
    /// still grows, is copied.
    pub fn part(&self, at: u64, most: u64) -> Body {
        let end = self.len.min(at.saturating_add(most));
        let (mut start, mut chunks, mut len) = (self.dropped, Vec::new(), 0);
        for chunk in &self.chunks {
            let chunk_end = start + chunk.bytes.len() as u64;
            if at < chunk_end && start < end {
                let is_whole = at <= start && chunk_end <= end;
                let inside = place(at.max(start) - start)..place(end.min(chunk_end) - start);
                len += inside.len() as u64;
                chunks.push(if is_whole { Arc::clone(chunk) } else { Chunk::copy(chunk.bytes.slice(inside)) });
            }
            start = chunk_end;
        }
        if start < end {
            let inside = place(at.max(start) - start)..place(end - start);
            len += inside.len() as u64;
            chunks.push(Chunk::copy(self.tail.slice(inside)));
        }
        Body { chunks: chunks.into(), len }
    }

    /// The body, if its end has arrived properly.
    pub fn finish(&mut self) -> Result<Body, BodyFault> {
        if self.stated.is_some_and(|stated| stated != self.len) || self.dropped > 0 {
            return Err(BodyFault::Incomplete);
        }
        if !self.tail.is_empty() {
            self.close_tail();
        }
        Ok(Body { chunks: self.chunks.iter().cloned().collect(), len: self.len })
    }
}

impl Chunk {
    /// Bytes that are not shared yet. They are sent at once, and take nothing from the budget.
    fn copy(bytes: &[u8]) -> Arc<Self> {
        Arc::new(Self { bytes: bytes.into(), _lease: BodyLease::default() })
    }
}
