//! A body in transit: decoded as it arrives, encoded for the other side.

use super::output_queue::ByteSink;
use crate::base::slice_ext::SliceExt;
use crate::wire::body::{BodyLength, BodyReader};
use crate::wire::chunked::{self, ChunkFault};
use crate::wire::limits::Limits;
use serde::{Deserialize, Serialize};

/// One body; empty until a head says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BodyForwarder {
    reader: BodyReader,
    /// Whether it is sent chunked.
    chunked: bool,
    /// Bytes of decoded data so far.
    received: u64,
}

impl BodyForwarder {
    /// A body that arrives with this length and is sent chunked or unchanged.
    pub(super) fn new(length: BodyLength, chunked: bool, limits: &Limits) -> Self {
        Self { reader: BodyReader::new(length, limits), chunked, received: 0 }
    }

    /// Whether the body is complete.
    pub(super) fn is_done(&self) -> bool {
        self.reader.is_done()
    }

    /// Checks the part of a chunked body that has arrived with its head, before a backend is chosen: a body that is
    /// already malformed reaches no backend.
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

    /// The number of bytes, out of `len`, that may belong to the body. Bytes behind it belong to the next request.
    pub(super) fn share_of(&self, len: usize) -> usize {
        match self.reader {
            BodyReader::Sized(left) => len.min(usize::try_from(left).unwrap_or(len)),
            BodyReader::Done => 0,
            BodyReader::Chunked(_) | BodyReader::UntilClose => len,
        }
    }

    /// Bytes of framing added to `size` bytes of data that are sent at once.
    pub(super) fn framing(&self, size: usize) -> usize {
        if self.chunked { chunked::framing(size) } else { 0 }
    }

    /// Bytes of data so far.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Forwards the bytes of `input` that belong to the body and can be decoded yet. Returns their number.
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
                    // A body with a malformed end has no end: the bytes that follow must not be read as the next
                    // message.
                    self.reader = before;
                })?;
            }
            at += piece.consumed;
        }
        Ok(at)
    }

    /// Reports the end of the connection. Returns whether the body is complete.
    pub(super) fn end_of_input(&mut self, sink: &mut impl ByteSink) -> bool {
        let was_done = self.is_done();
        let is_done = self.reader.end_of_input();
        if is_done && !was_done {
            // Without trailers it cannot fail.
            let _ = self.put_end(&[], sink);
        }
        is_done
    }

    fn put_end(&self, trailers: &[u8], sink: &mut impl ByteSink) -> Result<(), ChunkFault> {
        let mut result = Ok(());
        if self.chunked {
            sink.make(|out| result = chunked::put_end(out, trailers));
        } else if !trailers.is_empty() {
            // The trailers are dropped, but a fault in them shows that the sender cannot be trusted with another
            // message.
            result = chunked::put_end(&mut Vec::new(), trailers);
        }
        result
    }
}
