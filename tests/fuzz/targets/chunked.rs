//! Chunked bodies: however they are split they mean the same, and what is made of them is canonical.

use super::pieces;
use crate::scene::decoder::{Decoder, Kind};
use sluice::wire::body::{BodyLength, BodyReader};
use sluice::wire::chunked::{ChunkFault, put_end, put_size};
use sluice::wire::limits::Limits;

/// The longest line of a size or section of trailers that may be kept while its end is not there.
const LONGEST_KEPT: usize = 16 * 1024 + 2;

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
    let whole = read(bytes, || usize::MAX);
    for found in [read(bytes, || 1), read(bytes, pieces(bytes))] {
        assert_eq!(found, whole, "split otherwise");
    }
    if !whole.is_done {
        return;
    }
    let behind = read(&[&bytes[..whole.consumed], b"GET / HTTP/1.1\r\n"].concat(), || usize::MAX);
    assert_eq!(behind, whole, "what follows a body changes it");
    let Ok(once) = written(&whole) else { return };
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
pub(crate) fn read(bytes: &[u8], mut size: impl FnMut() -> usize) -> Found {
    let mut reader = BodyReader::new(BodyLength::Chunked, &Limits::default());
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
                assert!(input.len() <= LONGEST_KEPT, "{} bytes are kept", input.len());
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
