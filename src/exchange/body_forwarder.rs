//! A body on its way through: read in the coding in which it comes, written in the one in which it goes.

use super::output_queue::ByteSink;
use crate::base::slice_ext::SliceExt;
use crate::wire::body::{BodyLength, BodyReader};
use crate::wire::chunked::{self, ChunkFault};
use crate::wire::limits::Limits;

/// One body; none, as long as nobody has said otherwise.
#[derive(Debug, Default)]
pub(super) struct BodyForwarder {
    reader: BodyReader,
    /// Whether it goes out chunked.
    chunked: bool,
    /// The data so far, without any coding.
    received: u64,
}

impl BodyForwarder {
    /// A body that comes with this length and goes out chunked or as it is.
    pub(super) fn new(length: BodyLength, chunked: bool, limits: &Limits) -> Self {
        Self { reader: BodyReader::new(length, limits), chunked, received: 0 }
    }

    /// Whether the body has come to its end.
    pub(super) fn is_done(&self) -> bool {
        self.reader.is_done()
    }

    /// Looks through what has come of a chunked body together with its head, before a backend is asked for: one that is
    /// visibly broken reaches none.
    #[inline]
    pub(super) fn check_start(&self, input: &[u8]) -> Result<(), ChunkFault> {
        if matches!(self.reader, BodyReader::Chunked(_)) && !input.is_empty() {
            self.check_chunks(input)
        } else {
            Ok(())
        }
    }

    #[inline(never)]
    fn check_chunks(&self, input: &[u8]) -> Result<(), ChunkFault> {
        let (mut reader, mut at) = (self.reader, 0);
        while !reader.is_done() {
            let piece = reader.read(input.suffix(at))?;
            if piece.consumed == 0 {
                break;
            }
            if !piece.trailers.is_empty() {
                let trailers = at + piece.trailers.start..at + piece.trailers.end;
                chunked::put_end(&mut Vec::new(), input.slice(trailers))?;
            }
            at += piece.consumed;
        }
        Ok(())
    }

    /// How many of `len` bytes may belong to the body: what stands behind it is another request's.
    pub(super) fn share_of(&self, len: usize) -> usize {
        match self.reader {
            BodyReader::Sized(left) => len.min(usize::try_from(left).unwrap_or(len)),
            BodyReader::Done => 0,
            BodyReader::Chunked(_) | BodyReader::UntilClose => len,
        }
    }

    /// By how much `size` bytes of data grow if they go out at once.
    pub(super) fn framing(&self, size: usize) -> usize {
        if self.chunked { chunked::framing(size) } else { 0 }
    }

    /// The bytes of data so far.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Sends on as much of `input` as belongs to the body and has a meaning yet; how much that was.
    pub(super) fn feed(&mut self, input: &[u8], sink: &mut impl ByteSink) -> Result<usize, ChunkFault> {
        let mut at = 0;
        while !self.is_done() {
            let before = self.reader;
            let piece = self.reader.read(input.suffix(at))?;
            if piece.consumed == 0 {
                break;
            }
            let data = at + piece.data.start..at + piece.data.end;
            self.received += data.len() as u64;
            if self.chunked && !data.is_empty() {
                sink.make(|out| chunked::put_size(out, data.len()));
                sink.pass(input, data);
                sink.make(|out| out.extend_from_slice(b"\r\n"));
            } else if !data.is_empty() {
                sink.pass(input, data);
            }
            if self.is_done() {
                let trailers = input.slice(at + piece.trailers.start..at + piece.trailers.end);
                self.put_end(trailers, sink).inspect_err(|_| {
                    // A body with a faulty end has none: nobody may take what follows for the next message.
                    self.reader = before;
                })?;
            }
            at += piece.consumed;
        }
        Ok(at)
    }

    /// Says that the connection ended. Whether the body is complete with that.
    pub(super) fn end_of_input(&mut self, sink: &mut impl ByteSink) -> bool {
        let was_done = self.is_done();
        let is_done = self.reader.end_of_input();
        if is_done && !was_done {
            // Without trailers there is nothing that could be wrong with them.
            let _ = self.put_end(&[], sink);
        }
        is_done
    }

    fn put_end(&self, trailers: &[u8], sink: &mut impl ByteSink) -> Result<(), ChunkFault> {
        let mut result = Ok(());
        if self.chunked {
            sink.make(|out| result = chunked::put_end(out, trailers));
        } else if !trailers.is_empty() {
            // Nobody gets to see them, but they tell whether the sender can be trusted with another message.
            result = chunked::put_end(&mut Vec::new(), trailers);
        }
        result
    }
}
