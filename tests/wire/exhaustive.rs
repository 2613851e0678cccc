//! Every input of a small alphabet up to a length: the decision how long a body is, and the decoder of chunked bodies,
//! beside the plainest readers there could be. No input panics, no split changes what is understood, and the bytes that
//! are taken are those that the plain reader understands.

use crate::{feed, text};
use sluice::base::reason::FailureReason;
use sluice::wire::body::{BodyLength, BodyReader};
use sluice::wire::chunked::{ChunkFault, put_end};
use sluice::wire::limits::Limits;
use sluice::wire::request::{RequestHead, fields};
use sluice::wire::response::ResponseHead;

/// A reader and what it has made of the input so far.
#[derive(Clone, Debug, PartialEq)]
struct Progress {
    reader: BodyReader,
    consumed: usize,
    data: Vec<u8>,
    trailers: Vec<u8>,
    fault: Option<ChunkFault>,
}

impl Progress {
    fn begin() -> Self {
        let reader = BodyReader::new(BodyLength::Chunked, &Limits::default());
        Self { reader, consumed: 0, data: Vec::new(), trailers: Vec::new(), fault: None }
    }

    fn is_over(&self) -> bool {
        self.fault.is_some() || self.reader.is_done()
    }

    /// Is offered `input`, of which it has consumed some already, as the owner of a connection would.
    fn go_on(mut self, input: &[u8]) -> Self {
        while !self.is_over() {
            let offered = &input[self.consumed..];
            match self.reader.read(offered) {
                Ok(piece) => {
                    assert!(piece.consumed <= offered.len(), "more is taken than there is of {:?}", text(input));
                    self.data.extend_from_slice(&offered[piece.data]);
                    self.trailers.extend_from_slice(&offered[piece.trailers]);
                    self.consumed += piece.consumed;
                    if piece.consumed == 0 {
                        break;
                    }
                }
                // How much was taken before a fault depends on the split, and means nothing.
                Err(fault) => (self.fault, self.consumed) = (Some(fault), 0),
            }
        }
        self
    }
}

/// A whole body at the start of `input`, as RFC 9112 section 7.1 has it: its bytes, data and trailers. `None` where there
/// is none yet, or none at all.
fn whole_body(input: &[u8]) -> Option<(usize, Vec<u8>, Vec<u8>)> {
    let line = |at: usize| {
        let end = at + input[at..].iter().position(|byte| *byte == b'\n')?;
        (end > at && input[end - 1] == b'\r').then(|| (&input[at..end - 1], end + 1))
    };
    let (mut at, mut data) = (0, Vec::new());
    loop {
        let (size_line, next) = line(at)?;
        let text = std::str::from_utf8(size_line).ok().filter(|text| !text.contains('\r'))?;
        let digits = text.find(|char: char| !char.is_ascii_hexdigit()).unwrap_or(text.len());
        let (digits, rest) = text.split_at(digits);
        let size = usize::from_str_radix(digits, 16).ok()?;
        let rest = rest.trim_start_matches([' ', '\t']);
        if !(rest.is_empty() || rest.starts_with(';')) {
            return None;
        }
        at = next;
        if size == 0 {
            break;
        }
        data.extend_from_slice(input.get(at..at + size)?);
        at += size;
        if input.get(at..at + 2)? != b"\r\n" {
            return None;
        }
        at += 2;
    }
    let start = at;
    loop {
        let (trailer, next) = line(at)?;
        if trailer.is_empty() {
            return Some((next, data, input[start..at].to_vec()));
        }
        at = next;
    }
}

/// Plays all inputs that begin with `input`, whose every beginning has come to what stands in `stages`.
fn play(input: &mut Vec<u8>, stages: &mut Vec<Progress>, tokens: &[&[u8]], left: usize, over: usize, count: &mut u64) {
    for token in tokens {
        let (length, depth) = (input.len(), stages.len());
        for byte in *token {
            input.push(*byte);
            let whole = Progress::begin().go_on(input);
            // By induction over the pieces: however the input is split, it comes to the same.
            for (cut, stage) in stages.iter().enumerate() {
                let split = stage.clone().go_on(input);
                assert_eq!(split, whole, "{:?}, cut behind {cut}", text(input));
            }
            stages.push(whole);
            *count += 1;
        }
        let whole = &stages[input.len()];
        check_meaning(input, whole);
        let over = if whole.is_over() { over + 1 } else { 0 };
        // What follows the end or a fault is looked at for a little.
        if left > 1 && over < 2 {
            play(input, stages, tokens, left - 1, over, count);
        }
        input.truncate(length);
        stages.truncate(depth);
    }
}

fn check_meaning(input: &[u8], found: &Progress) {
    match whole_body(input) {
        Some((taken, data, trailers)) => {
            let expected = (true, None, taken, &data, &trailers);
            let found = (found.reader.is_done(), found.fault, found.consumed, &found.data, &found.trailers);
            assert_eq!(found, expected, "{:?}", text(input));
            let mut end = Vec::new();
            if put_end(&mut end, &trailers).is_ok() {
                assert_eq!(whole_body(&end).map(|(taken, ..)| taken), Some(end.len()), "{:?}", text(&end));
            }
        }
        None => assert!(!found.reader.is_done(), "{:?} is no whole body", text(input)),
    }
}

fn play_all(tokens: &[&[u8]], length: usize) -> u64 {
    let mut count = 0;
    play(&mut Vec::new(), &mut vec![Progress::begin()], tokens, length, 0, &mut count);
    count
}

#[test]
fn chunked_bodies_of_a_few_bytes_have_one_meaning_however_they_are_split() {
    let bytes: Vec<&[u8]> = b"01\r\n;:x".chunks(1).collect();
    assert!(play_all(&bytes, 7) > 100_000);
}

#[test]
fn chunked_bodies_of_a_few_words_have_one_meaning_however_they_are_split() {
    // Whole bodies are longer than what bytes alone come to.
    assert!(play_all(&[b"0", b"2", b"\r\n", b"\r", b"\n", b"aa", b";a", b"X:"], 7) > 100_000);
}

/// All sequences of these words, up to so many.
fn sequences(words: &[&str], most: usize) -> Vec<String> {
    let mut all = vec![String::new()];
    let mut last = all.clone();
    for _ in 0..most {
        last = last.iter().flat_map(|start| words.iter().map(move |word| format!("{start}{word}"))).collect();
        all.extend(last.iter().cloned());
    }
    all
}

/// What the fields say: the length, or that there are none; `Err` where some reader would find another one.
fn plain_decision(lines: &[(bool, &str)], is_http11: bool) -> Result<Option<BodyLength>, ()> {
    let trimmed = lines.iter().map(|(is_coding, value)| (*is_coding, value.trim_matches([' ', '\t'])));
    let lengths: Vec<_> = trimmed.clone().filter(|(is_coding, _)| !is_coding).map(|(_, value)| value).collect();
    let codings: Vec<_> = trimmed.filter(|(is_coding, _)| *is_coding).map(|(_, value)| value).collect();
    let members = |value: &str| -> Vec<String> {
        let members = value.split(',').map(|member| member.trim_matches([' ', '\t']).to_lowercase());
        members.filter(|member| !member.is_empty()).collect()
    };
    match (lengths.as_slice(), codings.as_slice()) {
        ([], []) => Ok(None),
        ([length], []) if !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit()) => {
            match length.parse().expect("a few digits") {
                0 => Ok(Some(BodyLength::None)),
                length => Ok(Some(BodyLength::Sized(length))),
            }
        }
        ([], [coding]) if is_http11 && members(coding) == ["chunked"] => Ok(Some(BodyLength::Chunked)),
        _ => Err(()),
    }
}

/// A request with these lines, and responses of several kinds.
fn check_lines(lines: &[(bool, &str)]) {
    let name = |is_coding| if is_coding { "Transfer-Encoding" } else { "Content-Length" };
    let written: String = lines.iter().map(|(is_coding, value)| format!("{}:{value}\r\n", name(*is_coding))).collect();
    for (version, is_http11) in [("1.1", true), ("1.0", false)] {
        let plain = plain_decision(lines, is_http11);
        let request = format!("POST / HTTP/{version}\r\nHost: a\r\n{written}\r\n");
        let found = feed(request.as_bytes(), |bytes| match RequestHead::parse(bytes, &mut fields()) {
            Ok(head) => head.map(|head| (Ok(head.body), head.len)),
            Err(reason) => Some((Err(reason), 0)),
        });
        let expected = plain.map(|length| length.unwrap_or(BodyLength::None));
        let is_refused = matches!(found, Err(FailureReason::AmbiguousLength | FailureReason::UnknownCoding));
        assert!(found.is_ok() || is_refused, "{request:?}: {found:?}");
        assert_eq!(found.map_err(drop), expected, "{request:?}");
        for (status, to_head) in [(200, false), (200, true), (103, false), (204, false), (304, false)] {
            let response = format!("HTTP/{version} {status} x\r\n{written}\r\n");
            let found = feed(response.as_bytes(), |bytes| match ResponseHead::parse(bytes, &mut fields(), to_head) {
                Ok(head) => head.map(|head| (Ok(head.body), head.len)),
                Err(fault) => Some((Err(fault), 0)),
            });
            let has_body = status == 200 && !to_head;
            let length = |stated: Option<BodyLength>| match stated {
                _ if !has_body => BodyLength::None,
                stated => stated.unwrap_or(BodyLength::UntilClose),
            };
            assert_eq!(found.map_err(drop), plain.map(length), "{response:?} to HEAD: {to_head}");
        }
    }
}

#[test]
fn the_length_of_a_body_is_what_a_plain_reader_of_its_fields_finds() {
    let lengths = sequences(&["0", "5", ",", "+", "-", " ", "\t", "x"], 3);
    let codings = sequences(&["chunked", "Chunked", "gzip", ",", " ", "\t", "x"], 3);
    lengths.iter().for_each(|value| check_lines(&[(false, value)]));
    codings.iter().for_each(|value| check_lines(&[(true, value)]));
    let few_lengths = sequences(&["0", "5", ",", " "], 2);
    let few_codings = sequences(&["chunked", "gzip", ","], 2);
    let few: Vec<_> = few_lengths.iter().map(|value| (false, &**value)).collect();
    let few: Vec<_> = few.into_iter().chain(few_codings.iter().map(|value| (true, &**value))).collect();
    for one in &few {
        for other in &few {
            check_lines(&[*one, *other]);
        }
    }
}
