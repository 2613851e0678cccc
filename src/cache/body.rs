//! The content of stored responses: chunks that are shared, not copied, and their memory budget.

use crate::base::slice_ext::SliceExt;
use std::collections::VecDeque;
use std::ops::{Deref, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The size of a chunk of a body, in bytes.
const CHUNK: usize = 64 * 1024;

/// The most parts of a body that has holes: bytes that follow each other are one part.
pub const MOST_PARTS: usize = 16;

/// A body in chunks that are shared, not copied. It may have holes.
#[derive(Clone, Debug, Default)]
pub struct Body {
    /// In their order, without an overlap.
    chunks: Chunks,
    len: u64,
    /// The bytes that are there.
    stored: u64,
}

/// Most bodies have one chunk.
#[derive(Clone, Debug)]
enum Chunks {
    One(PlacedChunk),
    Many(Arc<[PlacedChunk]>),
}

impl Default for Chunks {
    fn default() -> Self {
        Self::Many(Arc::default())
    }
}

impl Deref for Chunks {
    type Target = [PlacedChunk];

    fn deref(&self) -> &[PlacedChunk] {
        match self {
            Self::One(chunk) => std::slice::from_ref(chunk),
            Self::Many(chunks) => chunks,
        }
    }
}

/// A chunk and where it begins.
#[derive(Clone, Debug)]
struct PlacedChunk {
    at: u64,
    chunk: Arc<Chunk>,
}

impl PlacedChunk {
    fn end(&self) -> u64 {
        self.at + self.chunk.bytes.len() as u64
    }
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
    fn new(chunks: Vec<PlacedChunk>, len: u64) -> Self {
        let stored = chunks.iter().map(|placed| placed.chunk.bytes.len() as u64).sum();
        Self { chunks: Chunks::Many(chunks.into()), len, stored }
    }

    /// The length in bytes, holes included.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes that are there.
    pub fn stored(&self) -> u64 {
        self.stored
    }

    /// Whether all bytes are there.
    pub fn is_whole(&self) -> bool {
        self.stored == self.len
    }

    /// The bytes at these places, as slices for one `writev`. Holes are left out.
    pub fn slices(&self, range: Range<u64>) -> impl Iterator<Item = &[u8]> {
        self.chunks.iter().filter_map(move |placed| {
            let (at, end) = (placed.at, placed.end());
            let (from, to) = (range.start.clamp(at, end) - at, range.end.clamp(at, end) - at);
            (from < to).then(|| placed.chunk.bytes.slice(place(from)..place(to)))
        })
    }

    /// The places from the first hole within a range to the end of the last one; `None` where there is none.
    pub fn missing(&self, range: Range<u64>) -> Option<Range<u64>> {
        if self.is_whole() {
            return None;
        }
        let holes = || self.holes().map(|hole| hole.start.max(range.start)..hole.end.min(range.end));
        let start = holes().find(|hole| !hole.is_empty())?.start;
        let end = holes().filter(|hole| !hole.is_empty()).last()?.end;
        Some(start..end)
    }

    /// The holes, empty ones among them.
    fn holes(&self) -> impl Iterator<Item = Range<u64>> {
        let starts = self.chunks.iter().map(|placed| placed.at).chain([self.len]);
        let ends = [0].into_iter().chain(self.chunks.iter().map(PlacedChunk::end));
        ends.zip(starts).map(|(end, start)| end..start)
    }

    /// This body with the bytes of another one of the same content in its holes. Small chunks become larger ones, which takes
    /// memory of the budget. A body with more than [`MOST_PARTS`] parts is too large.
    pub fn join(&self, other: &Self, budget: &Arc<BodyBudget>) -> Result<Self, BodyFault> {
        let mut chunks: Vec<PlacedChunk> = self.chunks.to_vec();
        for hole in self.holes().filter(|hole| !hole.is_empty()) {
            for placed in other.chunks.iter() {
                let (from, to) = (placed.at.max(hole.start), placed.end().min(hole.end));
                if from < to {
                    let inside = place(from - placed.at)..place(to - placed.at);
                    let is_whole = inside.len() == placed.chunk.bytes.len();
                    let cut = || Chunk::new(placed.chunk.bytes.slice(inside), budget);
                    let chunk = if is_whole { Arc::clone(&placed.chunk) } else { cut()? };
                    chunks.push(PlacedChunk { at: from, chunk });
                }
            }
        }
        chunks.sort_by_key(|placed| placed.at);
        let joined = Self::new(compact(&chunks, budget)?, self.len);
        let parts = joined.holes().filter(|hole| !hole.is_empty()).count() + 1;
        if parts > MOST_PARTS { Err(BodyFault::TooLarge) } else { Ok(joined) }
    }
}

/// Chunks that follow each other become one where that is no larger than a chunk may be: so bytes that come one by one do not
/// take a chunk each.
fn compact(chunks: &[PlacedChunk], budget: &Arc<BodyBudget>) -> Result<Vec<PlacedChunk>, BodyFault> {
    let mut compacted = Vec::with_capacity(chunks.len());
    let mut rest = chunks;
    while let Some(first) = rest.first() {
        let mut end = first.at;
        let fits = |placed: &&PlacedChunk| {
            let follows = placed.at == end && placed.end() - first.at <= CHUNK as u64;
            end = placed.end();
            follows
        };
        let (group, behind) = rest.split_at(rest.iter().take_while(fits).count().max(1));
        rest = behind;
        compacted.push(match group {
            [single] => single.clone(),
            _ => {
                let bytes: Vec<&[u8]> = group.iter().map(|placed| &*placed.chunk.bytes).collect();
                PlacedChunk { at: first.at, chunk: Chunk::new(&bytes.concat(), budget)? }
            }
        });
    }
    Ok(compacted)
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

/// Collects a body, or a part of one, while it is forwarded.
#[derive(Debug)]
pub struct BodyBuilder {
    /// Where the part begins, and the length of the whole.
    part: Option<(u64, u64)>,
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
        Ok(Self { part: None, chunks, tail, tail_lease, dropped: 0, len: 0, limit, stated, budget: None })
    }

    /// Collects a body of this length, at most `limit` bytes of a budget.
    pub fn within(len: u64, limit: u64, budget: &Arc<BodyBudget>) -> Result<Self, BodyFault> {
        let mut builder = Self::new(0, Some(len))?;
        builder.limit_to(limit, budget)?;
        Ok(builder)
    }

    /// Collects nothing.
    pub(super) fn empty() -> Self {
        let (chunks, tail, tail_lease) = (VecDeque::new(), Vec::new(), BodyLease::default());
        Self { part: None, chunks, tail, tail_lease, dropped: 0, len: 0, limit: 0, stated: Some(0), budget: None }
    }

    /// What is collected is the part of a body of this length that begins at `at`.
    pub fn set_part(&mut self, at: u64, whole: u64) {
        self.part = Some((at, whole));
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
        let (mut start, mut chunks) = (self.dropped, Vec::new());
        let mut add = |chunk: Arc<Chunk>| {
            let at = chunks.last().map_or(0, PlacedChunk::end);
            chunks.push(PlacedChunk { at, chunk });
        };
        for chunk in &self.chunks {
            let chunk_end = start + chunk.bytes.len() as u64;
            if at < chunk_end && start < end {
                let is_whole = at <= start && chunk_end <= end;
                let inside = place(at.max(start) - start)..place(end.min(chunk_end) - start);
                add(if is_whole { Arc::clone(chunk) } else { Chunk::copy(chunk.bytes.slice(inside)) });
            }
            start = chunk_end;
        }
        if start < end {
            let inside = place(at.max(start) - start)..place(end - start);
            add(Chunk::copy(self.tail.slice(inside)));
        }
        let len = chunks.last().map_or(0, PlacedChunk::end);
        Body::new(chunks, len)
    }

    /// The body, if its end has arrived properly.
    pub fn finish(&mut self) -> Result<Body, BodyFault> {
        if self.stated.is_some_and(|stated| stated != self.len) || self.dropped > 0 {
            return Err(BodyFault::Incomplete);
        }
        if !self.tail.is_empty() {
            self.close_tail();
        }
        let (mut at, len) = self.part.unwrap_or((0, self.len));
        // Those who read may not be through with them.
        if let (Some(chunk), 1) = (self.chunks.front(), self.chunks.len()) {
            let (chunk, stored) = (Arc::clone(chunk), chunk.bytes.len() as u64);
            return Ok(Body { chunks: Chunks::One(PlacedChunk { at, chunk }), len, stored });
        }
        let place = |chunk: &Arc<Chunk>| {
            let placed = PlacedChunk { at, chunk: Arc::clone(chunk) };
            at = placed.end();
            placed
        };
        let chunks: Vec<_> = self.chunks.iter().map(place).collect();
        Ok(Body::new(chunks, len))
    }
}

impl Chunk {
    /// Bytes that take their share of a budget.
    fn new(bytes: &[u8], budget: &Arc<BodyBudget>) -> Result<Arc<Self>, BodyFault> {
        let lease = BodyLease::take(Some(budget), bytes.len() as u64)?;
        Ok(Arc::new(Self { bytes: bytes.into(), _lease: lease }))
    }

    /// Bytes that are not shared yet. They are sent at once, and take nothing from the budget.
    fn copy(bytes: &[u8]) -> Arc<Self> {
        Arc::new(Self { bytes: bytes.into(), _lease: BodyLease::default() })
    }
}
