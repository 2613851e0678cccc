//! Chunked bodies: however they are split they mean the same, and what is made of them is canonical.

use super::pieces;
use crate::scene::decoder::{Decoder, Kind};
use sluice::wire::body::{BodyLength, BodyReader};
use sluice::wire::chunked::{ChunkFault, put_end, put_size};
use sluice::wire::limits::Limits;

/// The most digits of a size.
const DIGITS: usize = 16;

/// What extensions and trailers may have: the usual, which short inputs do not meet, and so little that they do.
const LIMITS: [(usize, usize); 4] = [(4 * 1024, 16 * 1024), (0, 0), (3, 12), (40, 100)];

fn limits((extension_bytes, trailer_bytes): (usize, usize)) -> Limits {
    Limits { extension_bytes, trailer_bytes, ..Limits::default() }
}

/// The longest line of a size or section of trailers that may be kept while its end is not there: the last byte that
/// would fit in has not come.
fn longest_kept(limits: &Limits) -> usize {
    (DIGITS + limits.extension_bytes + 1).max(limits.trailer_bytes + 1)
}

/// What is found in a body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) data: Vec<u8>,
    pub(crate) trailers: Vec<u8>,
    pub(crate) consumed: usize,
    pub(crate) is_done: bool,
    pub(crate) fault: Option<ChunkFault>,
}

pub(crate) fn run(bytes: &[u8]) {
    let usual = read(bytes, || usize::MAX);
    for limits in LIMITS.map(limits) {
        let whole = read_within(bytes, &limits, || usize::MAX);
        for found in [read_within(bytes, &limits, || 1), read_within(bytes, &limits, pieces(bytes))] {
            assert_eq!(found, whole, "split otherwise, with {limits:?}");
        }
        let is_beyond = matches!(whole.fault, Some(ChunkFault::Extensions | ChunkFault::Trailers));
        assert!(whole == usual || is_beyond, "a smaller limit makes another body of it: {limits:?}");
    }
    check_end(bytes, &usual);
}

fn check_end(bytes: &[u8], whole: &Found) {
    if !whole.is_done {
        return;
    }
    let behind = read(&[&bytes[..whole.consumed], b"GET / HTTP/1.1\r\n"].concat(), || usize::MAX);
    assert_eq!(&behind, whole, "what follows a body changes it");
    let Ok(once) = written(whole) else { return };
    let again = read(&once, || usize::MAX);
    assert!(again.is_done && again.consumed == once.len(), "what was sent on is whole");
    assert_eq!(again.data, whole.data);
    assert_eq!(written(&again).expect("good trailers"), once, "the canonical form is none");
    // The decoder reads lines of text.
    if whole.trailers.is_ascii() {
        check_by_decoder(&once, &whole.data);
    }
}

/// Reads a body that is offered in pieces of these sizes, as an owner does: what is not consumed is offered again.
pub(crate) fn read(bytes: &[u8], size: impl FnMut() -> usize) -> Found {
    read_within(bytes, &limits(LIMITS[0]), size)
}

fn read_within(bytes: &[u8], limits: &Limits, mut size: impl FnMut() -> usize) -> Found {
    let mut reader = BodyReader::new(BodyLength::Chunked, limits);
    let (mut found, mut offered) = (Found::default(), 0);
    while offered < bytes.len() {
        offered = bytes.len().min(offered.saturating_add(size()));
        loop {
            let input = &bytes[found.consumed..offered];
            let piece = match reader.read(input) {
                Ok(piece) => piece,
                Err(fault) => {
                    // How much was consumed of a body before its fault is nobody's concern.
                    return Found { consumed: 0, fault: Some(fault), ..found };
                }
            };
            assert!(piece.consumed <= input.len(), "more was consumed than offered");
            found.data.extend_from_slice(&input[piece.data]);
            found.trailers.extend_from_slice(&input[piece.trailers]);
            found.consumed += piece.consumed;
            if reader.is_done() {
                return Found { is_done: true, ..found };
            }
            if piece.consumed == 0 {
                assert!(input.len() <= longest_kept(limits), "{} bytes are kept", input.len());
                break;
            }
        }
    }
    found
}

/// The body as it is sent on.
pub(crate) fn written(found: &Found) -> Result<Vec<u8>, ChunkFault> {
    let mut out = Vec::new();
    if !found.data.is_empty() {
        put_size(&mut out, found.data.len());
        out.extend_from_slice(&found.data);
        out.extend_from_slice(b"\r\n");
    }
    put_end(&mut out, &found.trailers)?;
    Ok(out)
}

fn check_by_decoder(body: &[u8], data: &[u8]) {
    let mut decoder = Decoder::new(Kind::Request);
    decoder.push(b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n").expect("a good head");
    decoder.push(body).unwrap_or_else(|fault| panic!("{fault} in {:?}", body.escape_ascii().to_string()));
    assert!(decoder.last.is_complete && decoder.behind.is_empty(), "another end");
    assert_eq!(decoder.last.data, data);
    for name in ["content-length", "transfer-encoding", "host", "connection", "x-forwarded-for", "cookie"] {
        assert!(decoder.last.trailers.iter().all(|field| !field.0.eq_ignore_ascii_case(name)), "{name} trails");
    }
}
