//! Compression of a body in transit (`compression` of HAProxy's files): each part is sent at once, as a chunk.

use super::body_forwarder::BodyForwarder;
use super::output_queue::{ByteSink, OutputQueue};
use crate::base::slice_ext::SliceExt;
use crate::haproxy::serve::Coding;
use crate::wire::chunked::{self, ChunkFault};
use flate2::{Compress, Compression, FlushCompress, Status};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The greatest number of bodies that a worker compresses at the same time. Each takes about 330 KiB; further ones are
/// sent uncompressed.
const MOST_AT_ONCE: usize = 128;

/// Number of compressor states kept for reuse.
const MOST_SPARES: usize = 16;

/// The header of gzip (RFC 1952 section 2.3): deflate, no name, no time, a fast compressor, any system.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 255];

/// Bytes by which the output grows at once.
const STEP: usize = 4096;

/// The compressors of a worker.
#[derive(Debug, Default)]
pub(super) struct Compressors {
    under_way: Arc<AtomicUsize>,
    raw: Vec<State>,
    framed: Vec<State>,
}

impl Compressors {
    /// Whether one more body may be compressed.
    pub(super) fn has_room(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) < MOST_AT_ONCE
    }

    /// A compressor for a body.
    pub(super) fn take(&mut self, coding: Coding) -> Box<Compressor> {
        let is_framed = coding == Coding::Deflate;
        let spares = if is_framed { &mut self.framed } else { &mut self.raw };
        let new = || State { deflate: Compress::new(Compression::fast(), is_framed), is_framed };
        self.under_way.fetch_add(1, Ordering::Relaxed);
        let gzip = (coding == Coding::Gzip).then(Checksum::default);
        let pending = if gzip.is_some() { GZIP_HEADER.to_vec() } else { Vec::new() };
        Box::new(Compressor {
            state: Some(spares.pop().unwrap_or_else(new)),
            gzip,
            pending,
            under_way: Arc::clone(&self.under_way),
        })
    }

    /// Takes back the compressor of a complete body.
    pub(super) fn give(&mut self, compressor: &mut Compressor) {
        if let Some(mut state) = compressor.state.take() {
            let spares = if state.is_framed { &mut self.framed } else { &mut self.raw };
            if spares.len() < MOST_SPARES {
                state.deflate.reset();
                spares.push(state);
            }
        }
    }
}

#[derive(Debug)]
struct State {
    deflate: Compress,
    /// The output is wrapped in the zlib format (RFC 1950).
    is_framed: bool,
}

/// The trailer of the gzip format: a checksum and the length.
#[derive(Debug, Default)]
struct Checksum {
    crc: crc32fast::Hasher,
    len: u32,
}

/// The compressor of one body.
#[derive(Debug)]
pub(super) struct Compressor {
    /// Set until the state is given back.
    state: Option<State>,
    gzip: Option<Checksum>,
    /// Compressed bytes that were not sent yet.
    pending: Vec<u8>,
    under_way: Arc<AtomicUsize>,
}

impl Drop for Compressor {
    fn drop(&mut self) {
        self.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The framing of the received body is dropped; the compressed body has its own.
impl ByteSink for Compressor {
    fn make(&mut self, _: impl FnOnce(&mut Vec<u8>)) {}

    fn pass(&mut self, input: &[u8], part: Range<usize>) {
        self.compress(input.slice(part), FlushCompress::None);
    }
}

impl Compressor {
    /// Compresses the bytes of `input` that belong to the body. Returns their number.
    #[cold]
    pub(super) fn feed(
        &mut self,
        body: &mut BodyForwarder,
        input: &[u8],
        out: &mut OutputQueue,
    ) -> Result<usize, ChunkFault> {
        let consumed = body.feed(input, self)?;
        let is_done = body.is_done();
        self.compress(b"", if is_done { FlushCompress::Finish } else { FlushCompress::Sync });
        if let Some(Checksum { crc, len }) = self.gzip.take_if(|_| is_done) {
            self.pending.extend_from_slice(&crc.finalize().to_le_bytes());
            self.pending.extend_from_slice(&len.to_le_bytes());
        }
        out.make(|out| {
            if !self.pending.is_empty() {
                chunked::put_size(out, self.pending.len());
                out.extend_from_slice(&self.pending);
                out.extend_from_slice(b"\r\n");
            }
            out.extend_from_slice(if is_done { b"0\r\n\r\n" } else { b"" });
        });
        self.pending.clear();
        Ok(consumed)
    }

    fn compress(&mut self, mut input: &[u8], flush: FlushCompress) {
        let Self { state, gzip, pending, .. } = self;
        let Some(state) = state else { return };
        if let Some(checksum) = gzip {
            checksum.crc.update(input);
            // The length is counted modulo 2^32 (RFC 1952 section 2.3.1).
            #[expect(clippy::cast_possible_truncation, reason = "that is what is asked for")]
            let len = input.len() as u32;
            checksum.len = checksum.len.wrapping_add(len);
        }
        loop {
            pending.reserve(STEP);
            let before = state.deflate.total_in();
            let status = state.deflate.compress_vec(input, pending, flush);
            let used = usize::try_from(state.deflate.total_in() - before).unwrap_or(usize::MAX);
            input = input.suffix(used);
            let has_room_left = pending.len() < pending.capacity();
            match status {
                Ok(Status::Ok) if !input.is_empty() || !has_room_left => {}
                Ok(Status::Ok) if matches!(flush, FlushCompress::Finish) => {}
                // An error would mean invalid arguments, and these are valid.
                _ => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::body::BodyLength;
    use crate::wire::limits::Limits;
    use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
    use std::io::Read;

    /// The data of the chunks.
    fn unchunked(mut text: &[u8]) -> (Vec<u8>, bool) {
        let mut data = Vec::new();
        while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
            let size = std::str::from_utf8(&text[..end]).expect("a size").trim();
            let size = usize::from_str_radix(size, 16).expect("a size");
            data.extend_from_slice(&text[end + 1..end + 1 + size]);
            text = &text[end + 1 + size + 2..];
            if size == 0 {
                return (data, text.is_empty());
            }
        }
        (data, false)
    }

    fn run(compressor: &mut Compressor, body: &[u8], piece: usize) -> Vec<u8> {
        let mut forwarder = BodyForwarder::new(BodyLength::Sized(body.len() as u64), false, &Limits::default());
        let mut all = Vec::new();
        for input in body.chunks(piece) {
            let mut out = OutputQueue::default();
            assert_eq!(compressor.feed(&mut forwarder, input, &mut out), Ok(input.len()));
            let before = all.len();
            out.slices(input).for_each(|slice| all.extend_from_slice(slice));
            assert!(all.len() > before, "what has come leaves at once");
        }
        all
    }

    #[test]
    fn bodies_are_what_they_were() {
        let mut random = fastrand::Rng::with_seed(1);
        let text = "the same and the same again, ".repeat(4000).into_bytes();
        let noise: Vec<u8> = (0..100_000).map(|_| random.u8(..)).collect();
        let mut compressors = Compressors::default();
        for body in [b"x".to_vec(), text, noise] {
            for piece in [1000, 70_000] {
                for coding in [Coding::Gzip, Coding::Deflate, Coding::RawDeflate] {
                    let mut compressor = compressors.take(coding);
                    let (data, is_whole) = unchunked(&run(&mut compressor, &body, piece));
                    compressors.give(&mut compressor);
                    let mut found = Vec::new();
                    let read = match coding {
                        Coding::Gzip => MultiGzDecoder::new(&*data).read_to_end(&mut found),
                        Coding::Deflate => ZlibDecoder::new(&*data).read_to_end(&mut found),
                        Coding::RawDeflate => DeflateDecoder::new(&*data).read_to_end(&mut found),
                    };
                    assert!(read.is_ok() && found == body && is_whole, "{coding:?}, {} by {piece}", body.len());
                }
            }
        }
    }

    #[test]
    fn so_many_are_compressed_at_once() {
        let mut compressors = Compressors::default();
        let mut taken: Vec<_> = (0..MOST_AT_ONCE).map(|_| compressors.take(Coding::Gzip)).collect();
        assert!(!compressors.has_room());
        taken.pop();
        assert!(compressors.has_room());
        taken.iter_mut().for_each(|compressor| compressors.give(compressor));
        drop(taken);
        assert_eq!((compressors.raw.len(), compressors.under_way.load(Ordering::Relaxed)), (MOST_SPARES, 0));
    }
}
