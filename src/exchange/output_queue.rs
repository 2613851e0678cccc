//! What leaves an exchange: bytes on their way to one side, and the rest that the side's socket would not take.

use crate::base::buffer::{BufferPool, BufferUsage};
use crate::base::clock::Moment;
use crate::base::slice_ext::SliceExt;
use crate::cache::body::Body;
use arrayvec::ArrayVec;
use std::io::{self, IoSlice};
use std::ops::Range;

/// Data up to this length is copied next to what was made: one plain write beats a gathering one.
const COPY_LIMIT: usize = 1024;

/// The most slices that are handed to one gathering write. The largest read has no more of them, if its chunks are of 8 KiB
/// or larger.
const MAX_SLICES: usize = 64;

/// Room beyond this is freed once nothing is in it: one answer in very small chunks must not hold memory for ever.
const LARGEST_KEPT: usize = 64 * 1024;

/// How a flush ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flushed {
    /// There was nothing to send.
    Nothing,
    /// All bytes have left.
    All,
    /// The socket takes no more for now; what is left is kept.
    Blocked,
    /// The connection is broken; nothing is kept.
    Broken,
}

/// Where coded bytes go.
pub(super) trait ByteSink {
    /// Adds bytes that somebody makes.
    fn make(&mut self, maker: impl FnOnce(&mut Vec<u8>));

    /// Adds a part of the input.
    fn pass(&mut self, input: &[u8], part: Range<usize>);
}

impl ByteSink for Vec<u8> {
    fn make(&mut self, maker: impl FnOnce(&mut Vec<u8>)) {
        maker(self);
    }

    fn pass(&mut self, input: &[u8], part: Range<usize>) {
        self.extend_from_slice(input.slice(part));
    }
}

/// The bytes that the steps of one turn have for one side, in order. Large parts of the input are not copied: they
/// are ranges of the buffer that the input stands in.
#[derive(Debug, Default)]
pub struct OutputQueue {
    made: Vec<u8>,
    pieces: Vec<QueuePiece>,
    /// Where in its buffer the input of the present step begins.
    offset: usize,
}

#[derive(Clone, Debug)]
enum QueuePiece {
    Made(Range<usize>),
    Given(Range<usize>),
    /// A part of a stored body.
    Shared(Body, Range<u64>),
}

impl ByteSink for OutputQueue {
    fn make(&mut self, maker: impl FnOnce(&mut Vec<u8>)) {
        let start = self.made.len();
        maker(&mut self.made);
        let end = self.made.len();
        match self.pieces.last_mut() {
            Some(QueuePiece::Made(last)) => last.end = end,
            _ if end > start => self.pieces.push(QueuePiece::Made(start..end)),
            _ => {}
        }
    }

    fn pass(&mut self, input: &[u8], part: Range<usize>) {
        if part.len() <= COPY_LIMIT {
            self.make(|made| made.extend_from_slice(input.slice(part)));
        } else {
            self.pieces.push(QueuePiece::Given(self.offset + part.start..self.offset + part.end));
        }
    }
}

impl OutputQueue {
    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    pub(super) fn set_offset(&mut self, offset: usize) {
        self.offset = offset;
    }

    /// What is passed on from now on stands so many bytes further on in the buffer.
    pub(super) fn advance(&mut self, count: usize) {
        self.offset += count;
    }

    /// Adds a part of a stored body, without a copy.
    pub(super) fn share(&mut self, body: &Body, part: Range<u64>) {
        self.pieces.push(QueuePiece::Shared(body.clone(), part));
    }

    /// The bytes in order. `input` is the buffer that the turn's input stands in.
    pub(super) fn slices<'a>(&'a self, input: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        self.pieces.iter().flat_map(move |piece| {
            let (own, shared) = match piece {
                QueuePiece::Made(range) => (Some(self.made.slice(range.clone())), None),
                QueuePiece::Given(range) => (Some(input.slice(range.clone())), None),
                QueuePiece::Shared(body, range) => (None, Some(body.slices(range.clone()))),
            };
            own.into_iter().chain(shared.into_iter().flatten())
        })
    }

    /// Writes the bytes, as many as are taken; how many that were. A write that takes less than it is given means that the
    /// socket is full. `input` is the buffer that the turn's input stands in.
    pub fn write(&self, input: &[u8], write: &mut impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>) -> (usize, Flushed) {
        match &*self.pieces {
            // Most heads, and all of a small message.
            [QueuePiece::Made(_)] => write_once(&[IoSlice::new(&self.made)], self.made.len(), write),
            _ => write_all(&mut self.slices(input), write),
        }
    }

    /// Drops the bytes.
    pub fn clear(&mut self) {
        self.made.clear();
        self.pieces.clear();
    }

    /// The memory that it has taken, in bytes.
    pub(super) fn room(&self) -> usize {
        self.made.capacity() + self.pieces.capacity() * size_of::<QueuePiece>()
    }

    /// Gives room back that a large turn has taken.
    pub(super) fn trim(&mut self) {
        if self.is_empty() && self.room() > LARGEST_KEPT {
            *self = Self::default();
        }
    }
}

/// What a socket would not take. Owns memory only while there is something in it.
#[derive(Debug, Default)]
pub struct PendingWrite(Option<Box<PendingBytes>>);

#[derive(Debug)]
struct PendingBytes {
    bytes: Vec<u8>,
    sent: usize,
    since: Moment,
}

impl PendingWrite {
    /// Whether everything has been sent.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The buffer that it owns, if it does.
    pub(super) fn lent(&self) -> BufferUsage {
        self.0.as_ref().map_or_else(BufferUsage::default, |kept| BufferUsage::of(&kept.bytes))
    }

    /// Since when the socket has not taken all that it was given; [`Moment::NEVER`] while it has.
    pub(super) fn since(&self) -> Moment {
        self.0.as_ref().map_or(Moment::NEVER, |kept| kept.since)
    }

    /// The bytes that are left.
    pub fn len(&self) -> usize {
        self.pending().len()
    }

    pub(super) fn pending(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |kept| kept.bytes.suffix(kept.sent))
    }

    /// Says that the first `count` of the pending bytes were sent.
    pub(super) fn advance(&mut self, count: usize, buffers: &mut BufferPool) {
        debug_assert!(count <= self.len(), "more was sent than there was");
        if count == self.len() {
            self.discard(buffers);
        } else if let Some(kept) = &mut self.0 {
            kept.sent += count;
        }
    }

    /// Drops what is left.
    pub(super) fn discard(&mut self, buffers: &mut BufferPool) {
        if let Some(kept) = self.0.take() {
            buffers.give(kept.bytes);
        }
    }

    /// Keeps the bytes of `outlet` but for the first `skip`.
    #[cold]
    pub(super) fn keep(
        &mut self,
        queue: &OutputQueue,
        input: &[u8],
        mut skip: usize,
        now: Moment,
        buffers: &mut BufferPool,
    ) {
        for slice in queue.slices(input) {
            let rest = slice.suffix(skip.min(slice.len()));
            skip -= slice.len() - rest.len();
            if !rest.is_empty() {
                let fresh = || Box::new(PendingBytes { bytes: buffers.take(), sent: 0, since: now });
                let kept = self.0.get_or_insert_with(fresh);
                buffers.extend(&mut kept.bytes, rest);
            }
        }
    }
}

/// Writes until all slices are sent or the socket takes less than it is given.
pub(super) fn write_all<'a>(
    slices: &mut impl Iterator<Item = &'a [u8]>,
    write: &mut impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
) -> (usize, Flushed) {
    let mut sent = 0;
    loop {
        let gathered: ArrayVec<_, MAX_SLICES> = slices.by_ref().take(MAX_SLICES).map(IoSlice::new).collect();
        if gathered.is_empty() {
            return (sent, Flushed::All);
        }
        let total = gathered.iter().map(|slice| slice.len()).sum();
        let (written, flushed) = write_once(&gathered, total, write);
        sent += written;
        if flushed != Flushed::All || !gathered.is_full() {
            return (sent, flushed);
        }
    }
}

fn write_once(
    slices: &[IoSlice<'_>],
    total: usize,
    write: &mut impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
) -> (usize, Flushed) {
    match write(slices) {
        Ok(written) if written == total => (written, Flushed::All),
        Ok(written) => (written, Flushed::Blocked),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => (0, Flushed::Blocked),
        Err(_) => (0, Flushed::Broken),
    }
}
