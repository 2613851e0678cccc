//! The chunked coding (RFC 9112 section 7.1), decoded strictly.
//!
//! Lines are judged whole: a line without its end is not consumed, and the caller offers it again with the bytes that
//! follow. So the decoder has no state in the middle of a line.

use super::field::{Field, without_zeros};
use super::limits::Limits;
use crate::base::slice_ext::SliceExt;
use httparse::Header;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// The greatest number of digits of a size: more exceed 64 bits.
const MAX_DIGITS: usize = 16;

/// A coding error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkFault {
    /// The input is not in the chunked coding, or is ambiguous.
    Malformed,
    /// More extensions than [`Limits::extension_bytes`] allows.
    Extensions,
    /// More trailers than [`Limits::trailer_bytes`], or [`MAX_FIELDS`](super::MAX_FIELDS), allows.
    Trailers,
}

/// A body in the chunked coding, up to the next byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunked {
    at: ChunkPosition,
    /// Bytes that chunk extensions may still use.
    spare: usize,
    extension_bytes: usize,
    trailer_bytes: usize,
}

/// The position of the next byte in the coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum ChunkPosition {
    /// At the line of a chunk's size.
    Size,
    /// Inside a chunk with this many bytes left.
    Data(u64),
    /// At the CRLF behind the data of a chunk.
    DataEnd,
    /// Behind the last chunk.
    Trailers,
}

/// The content of the start of the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// A line is not complete; nothing was consumed.
    Incomplete,
    /// Framing of this many bytes, without data.
    Framing(usize),
    /// Data, of this many bytes.
    Data(usize),
    /// The end of the body.
    End {
        /// Length of the whole end, in bytes.
        len: usize,
        /// Range of the trailer section, without its blank line.
        trailers: Range<usize>,
    },
}

impl Chunked {
    /// The state at the first byte of a body.
    pub fn new(limits: &Limits) -> Self {
        let (extension_bytes, trailer_bytes) = (limits.extension_bytes, limits.trailer_bytes);
        Self { at: ChunkPosition::Size, spare: extension_bytes, extension_bytes, trailer_bytes }
    }

    /// Reads one part off the start of `input`. Call again with what follows it, until [`Part::Incomplete`] or
    /// [`Part::End`].
    pub fn decode(&mut self, input: &[u8]) -> Result<Part, ChunkFault> {
        match self.at {
            ChunkPosition::Size => {
                let Some(line) = line(input, MAX_DIGITS + self.spare + 2, ChunkFault::Extensions)? else {
                    return Ok(Part::Incomplete);
                };
                let (size, idle) = size(line)?;
                self.spare = self.spare.checked_sub(idle).ok_or(ChunkFault::Extensions)?;
                self.at = if size == 0 { ChunkPosition::Trailers } else { ChunkPosition::Data(size) };
                Ok(Part::Framing(line.len() + 2))
            }
            ChunkPosition::Data(left) => {
                let len = input.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                if len == 0 {
                    return Ok(Part::Incomplete);
                }
                self.spare = self.spare.saturating_add(len).min(self.extension_bytes);
                self.at = match left - len as u64 {
                    0 => ChunkPosition::DataEnd,
                    left => ChunkPosition::Data(left),
                };
                Ok(Part::Data(len))
            }
            ChunkPosition::DataEnd => match input {
                [b'\r', b'\n', ..] => {
                    self.at = ChunkPosition::Size;
                    Ok(Part::Framing(2))
                }
                [] | [b'\r'] => Ok(Part::Incomplete),
                _ => Err(ChunkFault::Malformed),
            },
            ChunkPosition::Trailers => trailers(input, self.trailer_bytes),
        }
    }
}

/// The first line of the input without its CRLF; `None` while it is not complete. A line of more than `longest` bytes,
/// CRLF included, is refused.
fn line(input: &[u8], longest: usize, too_long: ChunkFault) -> Result<Option<&[u8]>, ChunkFault> {
    match memchr::memchr(b'\n', input.get(..longest).unwrap_or(input)) {
        Some(end) => input.prefix(end).strip_suffix(b"\r").map(Some).ok_or(ChunkFault::Malformed),
        None if input.len() < longest => Ok(None),
        None => Err(too_long),
    }
}

/// The size in the first line of a chunk, and the number of bytes of the line without meaning: extensions, which are
/// skipped and dropped, and the leading zeros of a size that has more digits with them than 64 bits (RFC 9112 section
/// 7.1 is `1*HEXDIG`). nginx and HAProxy accept such zeros, and blanks behind a size, as well.
fn size(line: &[u8]) -> Result<(u64, usize), ChunkFault> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    if digits == 0 {
        return Err(ChunkFault::Malformed);
    }
    let (digits, rest) = line.split_at(digits);
    let digits = if digits.len() > MAX_DIGITS { without_zeros(digits) } else { digits };
    if digits.len() > MAX_DIGITS {
        return Err(ChunkFault::Malformed);
    }
    let extension = rest.trim_ascii_start();
    let is_text = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
    let extension_is_good = extension.is_empty() || extension.starts_with(b";");
    if !extension_is_good || !rest.iter().all(is_text) {
        return Err(ChunkFault::Malformed);
    }
    let size = digits.iter().fold(0, |size, digit| (size << 4) | u64::from(hex(*digit)));
    Ok((size, line.len().saturating_sub(MAX_DIGITS.min(digits.len()))))
}

/// The value of a hexadecimal digit.
fn hex(digit: u8) -> u8 {
    (digit & 0xf) + if digit.is_ascii_digit() { 0 } else { 9 }
}

fn trailers(input: &[u8], most: usize) -> Result<Part, ChunkFault> {
    let mut at = 0;
    // The blank line does not count towards the section.
    while let Some(line) = line(input.suffix(at), most + 2 - at, ChunkFault::Trailers)? {
        if line.is_empty() {
            return Ok(Part::End { len: at + 2, trailers: 0..at });
        }
        at += line.len() + 2;
        if at > most {
            return Err(ChunkFault::Trailers);
        }
    }
    Ok(Part::Incomplete)
}

/// Number of hexadecimal digits of a size.
fn digits(size: usize) -> u32 {
    (usize::BITS - size.leading_zeros()).div_ceil(4).max(1)
}

/// Number of bytes around the data of a chunk of `size` bytes.
pub fn framing(size: usize) -> usize {
    digits(size) as usize + 2 * b"\r\n".len()
}

/// Writes the first line of a chunk.
pub fn put_size(out: &mut Vec<u8>, size: usize) {
    let digit = |place: u32| match (size >> (place * 4)).to_le_bytes()[0] & 0xf {
        small @ 0..=9 => b'0' + small,
        large => b'a' - 10 + large,
    };
    out.extend((0..digits(size)).rev().map(digit));
    out.extend_from_slice(b"\r\n");
}

/// Writes the last chunk and the trailers that may be forwarded: none that frames or routes a message (RFC 9110 section
/// 6.5.1).
pub fn put_end(out: &mut Vec<u8>, trailers: &[u8]) -> Result<(), ChunkFault> {
    if trailers.is_empty() {
        out.extend_from_slice(b"0\r\n\r\n");
        return Ok(());
    }
    let mut fields = [httparse::EMPTY_HEADER; super::MAX_FIELDS];
    // The lines of the section are complete, and only its blank line is missing: a copy gets one.
    let section = [trailers, b"\r\n"].concat();
    match httparse::parse_headers(&section, &mut fields) {
        Ok(httparse::Status::Complete((len, fields))) if len == section.len() => {
            // This is written last, since a lenient reader takes the start of an end for the end.
            out.extend_from_slice(b"0\r\n");
            fields.iter().filter(|field| may_trail(field)).for_each(|field| {
                super::field::put(out, field.name, field.value);
            });
            out.extend_from_slice(b"\r\n");
            Ok(())
        }
        Err(httparse::Error::TooManyHeaders) => Err(ChunkFault::Trailers),
        _ => Err(ChunkFault::Malformed),
    }
}

/// Fields that are dropped from trailers, besides those that a proxy acts on: a recipient that merges trailers into the
/// head would act on them.
const NO_TRAILERS: [&str; 29] = [
    "age",
    "authorization",
    "cache-control",
    "content-encoding",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "expires",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "location",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "set-cookie",
    "trailer",
    "vary",
    "warning",
    "www-authenticate",
    "x-forwarded-host",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "via",
];

fn may_trail(header: &Header<'_>) -> bool {
    let is_header = NO_TRAILERS.iter().any(|name| header.name.eq_ignore_ascii_case(name));
    !is_header && Field::of(header.name) == Field::Other
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Data, trailers, and the number of bytes consumed.
    type Decoded = (Vec<u8>, Vec<u8>, usize);

    /// Decodes `input`, offered in pieces that grow by `step` bytes, to data and trailers.
    fn decode(input: &[u8], step: usize) -> Result<Option<Decoded>, ChunkFault> {
        decode_within(&Limits::default(), input, step)
    }

    fn decode_within(limits: &Limits, input: &[u8], step: usize) -> Result<Option<Decoded>, ChunkFault> {
        let (mut chunked, mut data, mut at, mut offered) = (Chunked::new(limits), Vec::new(), 0, 0);
        loop {
            match chunked.decode(&input[at..offered])? {
                Part::Incomplete if offered == input.len() => return Ok(None),
                Part::Incomplete => offered = input.len().min(offered + step),
                Part::Framing(len) => at += len,
                Part::Data(len) => {
                    data.extend_from_slice(&input[at..at + len]);
                    at += len;
                }
                Part::End { len, trailers } => {
                    let trailers = input[at + trailers.start..at + trailers.end].to_vec();
                    return Ok(Some((data, trailers, at + len)));
                }
            }
        }
    }

    #[test]
    fn bodies_whole_and_byte_by_byte() {
        let good: &[(&str, &str, &str)] = &[
            ("0\r\n\r\n", "", ""),
            ("5\r\nhello\r\n0\r\n\r\n", "hello", ""),
            ("5\r\nhello\r\n6\r\n world\r\n000\r\n\r\n", "hello world", ""),
            ("A;name=value;x=\"y;z\"\r\n0123456789\r\n0;last\r\n\r\n", "0123456789", ""),
            ("3 ;x\r\nabc\r\n0\r\n\r\n", "abc", ""),
            ("3 \t\r\nabc\r\n0 \r\n\r\n", "abc", ""),
            ("0000000000000000000003\r\nabc\r\n00000000000000000000000\r\n\r\n", "abc", ""),
            ("1\r\n\n\r\n0\r\nX: y\r\nZ: \r\n\r\n", "\n", "X: y\r\nZ: \r\n"),
        ];
        for (input, data, trailers) in good {
            for step in [1, 2, 3, input.len() + 4] {
                let with_rest = format!("{input}GET ");
                let found = decode(with_rest.as_bytes(), step).expect(input).expect("complete");
                assert_eq!(found, (data.as_bytes().to_vec(), trailers.as_bytes().to_vec(), input.len()), "{input:?}");
            }
        }
        let bad = [
            "\r\n",
            "x\r\n",
            " 5\r\n",
            "+5\r\n",
            "-5\r\n",
            "0x5\r\n",
            "5\nhello",
            "5 5\r\nhello",
            "00000000000000000x\r\n",
            "5;a\rb\r\nhello",
            "5;a\x01b\r\nhello",
            "5\r\nhello0\r\n",
            "5\r\nhello\n0",
            "10000000000000000\r\n",
            "5,\r\n",
            "5\r\nhello\r\n\r\n",
            "0\r\nX: y\n\r\n",
            "0\r\nX\r\r\n\n",
        ];
        for input in bad {
            for step in [1, 3, input.len()] {
                assert_eq!(decode(input.as_bytes(), step), Err(ChunkFault::Malformed), "{input:?} by {step}");
            }
        }
        for input in ["", "5", "5\r", "5\r\nhel", "5\r\nhello\r", "0\r\n", "0\r\nX: y\r\n"] {
            assert_eq!(decode(input.as_bytes(), 1), Ok(None), "{input:?}");
        }
    }

    #[test]
    fn extensions_may_be_as_long_as_the_data_before_them_and_somewhat_more() {
        let limits = Limits { extension_bytes: 10, ..Limits::default() };
        let chunk =
            |extension: usize, data: usize| format!("{data:x}{}\r\n{}\r\n", ";".repeat(extension), "x".repeat(data));
        let endless = format!("5;{}", "a".repeat(26));
        let table = [
            (chunk(10, 1) + &chunk(0, 0), true),
            (chunk(11, 1) + &chunk(0, 0), false),
            (chunk(10, 1) + &chunk(1, 1) + &chunk(1, 1) + "0\r\n\r\n", true),
            (chunk(10, 1) + &chunk(2, 1), false),
            (chunk(10, 99).repeat(9) + "0\r\n\r\n", true),
            (chunk(0, 99).repeat(9) + &chunk(11, 1), false),
            (endless, false),
        ];
        for (input, is_good) in table {
            for step in [1, 7, input.len()] {
                let found = decode_within(&limits, input.as_bytes(), step);
                assert_eq!(found.err(), (!is_good).then_some(ChunkFault::Extensions), "{input:?} by {step}");
            }
        }
    }

    #[test]
    fn trailers_have_a_limit() {
        let limits = Limits { trailer_bytes: 12, ..Limits::default() };
        let good = "0\r\nX: y\r\nX: z\r\n\r\n";
        let table = [(good, true), ("0\r\nX: y\r\nX: zz\r\n\r\n", false), ("0\r\nX: yyyyyyyyyyyyyy", false)];
        for (input, is_good) in table {
            for step in [1, 7, input.len()] {
                let found = decode_within(&limits, input.as_bytes(), step);
                assert_eq!(found.err(), (!is_good).then_some(ChunkFault::Trailers), "{input:?} by {step}");
            }
        }
        let many = "X: y\r\n".repeat(super::super::MAX_FIELDS + 1);
        assert_eq!(put_end(&mut Vec::new(), many.as_bytes()), Err(ChunkFault::Trailers));
    }

    #[test]
    fn encoding() {
        for (size, line) in [(0, "0\r\n"), (9, "9\r\n"), (0x10, "10\r\n"), (0xfff, "fff\r\n"), (0x1_0000, "10000\r\n")]
        {
            let mut out = Vec::new();
            put_size(&mut out, size);
            assert_eq!(out, line.as_bytes());
        }
        let mut out = Vec::new();
        put_end(&mut out, b"X-Sum:  1\r\ncontent-length: 5\r\nTrailer: x\r\n").expect("good trailers");
        assert_eq!(out, b"0\r\nX-Sum: 1\r\n\r\n");
        for bad in [&b"X sum: 1\r\n"[..], b" folded\r\n", b"none\r\n", b"X: \x01\r\n"] {
            let mut out = Vec::new();
            assert_eq!(put_end(&mut out, bad), Err(ChunkFault::Malformed));
            assert!(out.is_empty(), "a faulty end was begun");
        }
    }
}
