//! The length of a body: decided once, in `Framing`, and tracked byte by byte in [`BodyReader`].

use super::chunked::{ChunkFault, Chunked, Part};
use super::field::{list, number};
use super::limits::Limits;
use super::{HeadFault, Version};
use crate::base::slice_ext::SliceExt;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// How the end of a body is known (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyLength {
    /// There is no body.
    #[default]
    None,
    /// It has this many bytes.
    Sized(u64),
    /// It is chunked.
    Chunked,
    /// It ends with the connection; only a response may have it.
    UntilClose,
}

/// The statements of one head about the length of its body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Framing {
    content_length: Option<u64>,
    chunked: bool,
}

impl Framing {
    /// Adds a `Content-Length`. It may stand once and holds digits only: recipients read a second one, a list, a sign
    /// or an overflow in different ways.
    pub(super) fn content_length(&mut self, value: &[u8]) -> Result<(), HeadFault> {
        let length = number(value).filter(|_| self.content_length.is_none());
        self.content_length = Some(length.ok_or(HeadFault::Length)?);
        Ok(())
    }

    /// Adds a `Transfer-Encoding`. The only supported coding is `chunked`, once and last.
    pub(super) fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), HeadFault> {
        if list(value).next().is_none() {
            return Err(HeadFault::Length);
        }
        for coding in list(value) {
            if self.chunked {
                return Err(HeadFault::Length);
            }
            if !coding.eq_ignore_ascii_case(b"chunked") {
                return Err(HeadFault::Coding);
            }
            self.chunked = true;
        }
        Ok(())
    }

    /// The value of `Content-Length`.
    pub(super) fn stated_length(self) -> Option<u64> {
        self.content_length
    }

    /// The decision for a request.
    pub(super) fn of_request(self, version: Version) -> Result<BodyLength, HeadFault> {
        Ok(self.stated(version)?.unwrap_or(BodyLength::None))
    }

    /// The decision for a response with this status; `to_head`: the request was HEAD.
    pub(super) fn of_response(self, version: Version, status: u16, to_head: bool) -> Result<BodyLength, HeadFault> {
        let stated = self.stated(version)?;
        if to_head || status < 200 || status == 204 || status == 304 {
            return Ok(BodyLength::None);
        }
        Ok(stated.unwrap_or(BodyLength::UntilClose))
    }

    /// A head with both fields is a vector of request smuggling (RFC 9112 section 11.2); chunked in HTTP/1.0 is faulty
    /// framing (section 6.1).
    fn stated(self, version: Version) -> Result<Option<BodyLength>, HeadFault> {
        match (self.content_length, self.chunked) {
            (None, false) => Ok(None),
            (Some(0), false) => Ok(Some(BodyLength::None)),
            (Some(length), false) => Ok(Some(BodyLength::Sized(length))),
            (None, true) if version == Version::Http11 => Ok(Some(BodyLength::Chunked)),
            (Some(_) | None, true) => Err(HeadFault::Length),
        }
    }
}

/// Follows a body through the bytes of its connection. It is serialised when its exchange moves to another process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum BodyReader {
    /// The body is complete.
    #[default]
    Done,
    /// This many bytes are left, at least one.
    Sized(u64),
    /// A body in the chunked coding.
    Chunked(Chunked),
    /// Every byte belongs to the body until the connection ends.
    UntilClose,
}

/// The result of one read: what the start of the input holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Number of input bytes that were consumed.
    pub consumed: usize,
    /// The range of data among the consumed bytes.
    pub data: Range<usize>,
    /// The trailer section, if a chunked body ends with this piece.
    pub trailers: Range<usize>,
}

impl BodyReader {
    /// A reader at the first byte of a body.
    pub fn new(length: BodyLength, limits: &Limits) -> Self {
        match length {
            BodyLength::None | BodyLength::Sized(0) => Self::Done,
            BodyLength::Sized(length) => Self::Sized(length),
            BodyLength::Chunked => Self::Chunked(Chunked::new(limits)),
            BodyLength::UntilClose => Self::UntilClose,
        }
    }

    /// Whether the body is complete.
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// Reads one piece off the start of `input`. If nothing is consumed, the body is complete or more input is needed.
    pub fn read(&mut self, input: &[u8]) -> Result<Piece, ChunkFault> {
        let data = |len| Piece { consumed: len, data: 0..len, trailers: 0..0 };
        match self {
            Self::Done => Ok(data(0)),
            Self::UntilClose => Ok(data(input.len())),
            Self::Sized(left) => {
                let len = input.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *self = match *left - len as u64 {
                    0 => Self::Done,
                    left => Self::Sized(left),
                };
                Ok(data(len))
            }
            Self::Chunked(chunked) => {
                let mut consumed = 0;
                loop {
                    match chunked.decode(input.suffix(consumed))? {
                        Part::Incomplete => return Ok(Piece { consumed, ..data(0) }),
                        Part::Framing(len) => consumed += len,
                        Part::Data(len) => {
                            return Ok(Piece { consumed: consumed + len, data: consumed..consumed + len, ..data(0) });
                        }
                        Part::End { len, trailers } => {
                            *self = Self::Done;
                            let trailers = consumed + trailers.start..consumed + trailers.end;
                            return Ok(Piece { consumed: consumed + len, trailers, ..data(0) });
                        }
                    }
                }
            }
        }
    }

    /// Reports the end of the connection. Returns whether the body is complete.
    pub fn end_of_input(&mut self) -> bool {
        if matches!(self, Self::UntilClose) {
            *self = Self::Done;
        }
        self.is_done()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framing(lengths: &[&str], codings: &[&str]) -> Result<Framing, HeadFault> {
        let mut framing = Framing::default();
        lengths.iter().try_for_each(|value| framing.content_length(value.as_bytes()))?;
        codings.iter().try_for_each(|value| framing.transfer_encoding(value.as_bytes()))?;
        Ok(framing)
    }

    #[test]
    fn lengths_of_requests() {
        use BodyLength as Is;
        use HeadFault::{Coding, Length};
        type Row<'a> = (&'a [&'a str], &'a [&'a str], Result<BodyLength, HeadFault>);
        let table: &[Row<'_>] = &[
            (&[], &[], Ok(Is::None)),
            (&["0"], &[], Ok(Is::None)),
            (&["5"], &[], Ok(Is::Sized(5))),
            (&["0005"], &[], Ok(Is::Sized(5))),
            (&[], &["chunked"], Ok(Is::Chunked)),
            (&[], &["CHUNKED"], Ok(Is::Chunked)),
            (&["5", "5"], &[], Err(Length)),
            (&["5, 5"], &[], Err(Length)),
            (&["+5"], &[], Err(Length)),
            (&["-5"], &[], Err(Length)),
            (&["5 5"], &[], Err(Length)),
            (&["0x5"], &[], Err(Length)),
            (&[""], &[], Err(Length)),
            (&["99999999999999999999"], &[], Err(Length)),
            (&["5"], &["chunked"], Err(Length)),
            (&["0"], &["chunked"], Err(Length)),
            (&[], &["chunked, chunked"], Err(Length)),
            (&[], &["chunked", "chunked"], Err(Length)),
            (&[], &["chunked, gzip"], Err(Length)),
            (&[], &["gzip, chunked"], Err(Coding)),
            (&[], &["identity"], Err(Coding)),
            (&[], &["\x0bchunked"], Err(Coding)),
            (&[], &[""], Err(Length)),
            (&[], &[","], Err(Length)),
        ];
        for (lengths, codings, expected) in table {
            let found = framing(lengths, codings).and_then(|framing| framing.of_request(Version::Http11));
            assert_eq!(found, *expected, "Content-Length {lengths:?}, Transfer-Encoding {codings:?}");
        }
        let chunked = framing(&[], &["chunked"]).expect("good framing");
        assert_eq!(chunked.of_request(Version::Http10), Err(Length));
    }

    #[test]
    fn lengths_of_responses() {
        let decide = |lengths: &[&str], codings: &[&str], status, to_head| {
            framing(lengths, codings).and_then(|framing| framing.of_response(Version::Http11, status, to_head))
        };
        assert_eq!(decide(&[], &[], 200, false), Ok(BodyLength::UntilClose));
        assert_eq!(decide(&["7"], &[], 200, false), Ok(BodyLength::Sized(7)));
        assert_eq!(decide(&["7"], &[], 200, true), Ok(BodyLength::None));
        assert_eq!(decide(&["7"], &[], 304, false), Ok(BodyLength::None));
        assert_eq!(decide(&[], &["chunked"], 204, false), Ok(BodyLength::None));
        assert_eq!(decide(&["7"], &["chunked"], 200, true), Err(HeadFault::Length));
    }

    #[test]
    fn the_end_of_the_input_completes_only_what_it_delimits() {
        for (length, complete) in [
            (BodyLength::None, true),
            (BodyLength::UntilClose, true),
            (BodyLength::Sized(1), false),
            (BodyLength::Chunked, false),
        ] {
            assert_eq!(BodyReader::new(length, &Limits::default()).end_of_input(), complete, "{length:?}");
        }
    }
}
