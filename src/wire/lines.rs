//! The lines of a head: where they stand in what came, and how they leave.

use super::MAX_FIELDS;
use super::field::{Field, put, put_number};
use crate::base::cut::Cut;
use httparse::Header;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Room for the lines of a head while it is read, and for what each of them is.
#[derive(Debug)]
pub struct Fields<'b> {
    pub(super) headers: [MaybeUninit<Header<'b>>; MAX_FIELDS],
    pub(super) kinds: [Field; MAX_FIELDS],
}

/// Room for the lines of a head.
pub const fn fields<'b>() -> Fields<'b> {
    Fields { headers: [const { MaybeUninit::uninit() }; MAX_FIELDS], kinds: [Field::Other; MAX_FIELDS] }
}

/// Says of each line what it is.
pub(super) fn classify<'h>(headers: &[Header<'_>], kinds: &'h mut [Field; MAX_FIELDS]) -> &'h mut [Field] {
    for (header, kind) in headers.iter().zip(&mut *kinds) {
        *kind = Field::of(header.name);
    }
    // There is room for all.
    kinds.get_mut(..headers.len()).unwrap_or_default()
}

/// A part of a buffer that holds a head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// From `start` to before `end`.
    pub fn new(start: usize, end: usize) -> Self {
        // The limits of heads are far below 4 GiB.
        let narrow = |place: usize| u32::try_from(place).unwrap_or(u32::MAX);
        Self { start: narrow(start), end: narrow(end) }
    }

    /// Where it begins.
    pub fn start(self) -> usize {
        self.start as usize
    }

    /// Where what follows it begins.
    pub fn end(self) -> usize {
        self.end as usize
    }

    /// Copies the part of `buffer` to the end of `out`, and says where it stands there.
    pub fn copy(self, buffer: &[u8], out: &mut Vec<u8>) -> Self {
        let start = out.len();
        out.extend_from_slice(self.of(buffer));
        Self::new(start, out.len())
    }

    /// The part of this buffer.
    pub fn of(self, buffer: &[u8]) -> &[u8] {
        buffer.part(self.start()..self.end())
    }
}

/// httparse takes a bare LF for the end of a line; others behind us may not. RFC 9112 section 2.2 lets us refuse it.
/// `start` is the first token of the head, behind any blank lines.
pub(super) fn end_in_crlf(head: &[u8], start: &str, headers: &[Header<'_>]) -> bool {
    let begins_line = |text: &str| {
        let before = place_of(text.as_bytes(), head).and_then(|place| head.get(..place));
        before.is_some_and(|before| before.is_empty() || before.ends_with(b"\r\n"))
    };
    let blank_lines = place_of(start.as_bytes(), head).unwrap_or(0);
    head.ends_with(b"\r\n\r\n")
        && head.before(blank_lines).chunks(2).all(|line| line == b"\r\n")
        && headers.iter().all(|header| begins_line(header.name))
}

/// Writes the lines of a head that came in `source`. Most leave as they came, and whole runs of them with one copy.
pub(super) struct Lines<'o, 'b> {
    out: &'o mut Vec<u8>,
    source: &'b [u8],
    /// The lines to be copied next.
    run: Range<usize>,
}

impl<'o, 'b> Lines<'o, 'b> {
    pub(super) fn new(out: &'o mut Vec<u8>, source: &'b [u8]) -> Self {
        Self { out, source, run: 0..0 }
    }

    /// Writes a line as it came, in the canonical form. Returns where its value will stand in the output.
    pub(super) fn keep(&mut self, header: &Header<'b>) -> Span {
        let end = match canonical_line(header, self.source) {
            Some(line) => {
                if line.start != self.run.end {
                    self.flush();
                    self.run.start = line.start;
                }
                self.run.end = line.end;
                self.out.len() + self.run.len() - 2
            }
            None => {
                self.put(header.name, header.value);
                self.out.len() - 2
            }
        };
        Span::new(end - header.value.len(), end)
    }

    /// Writes a line whose value is this number, without leading zeros.
    pub(super) fn keep_number(&mut self, header: &Header<'b>, number: Option<u64>) {
        match number {
            Some(number) if header.value.starts_with(b"0") => self.put_number(header.name, number),
            _ => drop(self.keep(header)),
        }
    }

    /// How many bytes the output has, with what is still to be copied.
    pub(super) fn len(&self) -> usize {
        self.out.len() + self.run.len()
    }

    /// Writes a part of what came, up to where a line follows that is kept.
    pub(super) fn keep_bytes(&mut self, part: Range<usize>) {
        self.flush();
        self.run = part;
    }

    /// Writes other bytes.
    pub(super) fn put_bytes(&mut self, bytes: &[u8]) {
        self.flush();
        self.out.extend_from_slice(bytes);
    }

    /// Writes another line.
    pub(super) fn put(&mut self, name: &str, value: &[u8]) {
        self.flush();
        put(self.out, name, value);
    }

    /// Writes another line whose value is a number.
    pub(super) fn put_number(&mut self, name: &str, number: u64) {
        self.flush();
        put_number(self.out, name, number);
    }

    /// Copies what is still to be copied. To be called at the end.
    pub(super) fn flush(&mut self) {
        self.out.extend_from_slice(self.source.part(self.run.clone()));
        self.run = self.run.end..self.run.end;
    }
}

/// Where a line stands that is `name: value` and CRLF to the byte.
fn canonical_line(header: &Header<'_>, source: &[u8]) -> Option<Range<usize>> {
    let start = place_of(header.name.as_bytes(), source)?;
    let value = place_of(header.value, source)?;
    let end = value + header.value.len();
    let is_canonical = source.get(start + header.name.len()..value)? == b": " && source.get(end..end + 2)? == b"\r\n";
    is_canonical.then_some(start..end + 2)
}

/// Where `part` stands in `whole`, if it does.
pub(super) fn place_of(part: &[u8], whole: &[u8]) -> Option<usize> {
    let place = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
    (place + part.len() <= whole.len()).then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses `lines` and writes those whose names do not begin with `-`.
    fn rewritten(lines: &str) -> String {
        let source = format!("GET / HTTP/1.1\r\n{lines}\r\n");
        let mut headers = [httparse::EMPTY_HEADER; 8];
        let mut request = httparse::Request::new(&mut headers);
        request.parse(source.as_bytes()).expect("a good head");
        let mut out = b"first line\r\n".to_vec();
        let mut lines = Lines::new(&mut out, source.as_bytes());
        let mut places = Vec::new();
        for header in request.headers.iter() {
            match header.name.starts_with('-') {
                true => lines.put("Made", b"x"),
                false => places.push((lines.keep(header), header.value)),
            }
        }
        lines.flush();
        for (place, value) in places {
            assert_eq!(place.of(&out), value, "the place of a value");
        }
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn lines_leave_in_order_and_in_one_form() {
        let table = [
            ("", ""),
            ("A: 1\r\nB: 2\r\n", "A: 1\r\nB: 2\r\n"),
            ("A: 1\r\n-: x\r\nB: 2\r\nC: 3\r\n", "A: 1\r\nMade: x\r\nB: 2\r\nC: 3\r\n"),
            ("-: x\r\nA: 1\r\n-: x\r\n", "Made: x\r\nA: 1\r\nMade: x\r\n"),
            (
                "A:1\r\nB:  2\r\nC: 3 \r\nD:\t4\r\nE:\r\nF: \r\nG: 7\r\n",
                "A: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\nE: \r\nF: \r\nG: 7\r\n",
            ),
        ];
        for (lines, expected) in table {
            assert_eq!(rewritten(lines), format!("first line\r\n{expected}"), "{lines:?}");
        }
    }

    #[test]
    fn a_bare_lf_ends_no_line() {
        let ends_well = |head: &str| {
            let mut headers = [httparse::EMPTY_HEADER; 8];
            let mut request = httparse::Request::new(&mut headers);
            let parsed = request.parse(head.as_bytes()).expect("what httparse takes for good");
            assert_eq!(parsed, httparse::Status::Complete(head.len()), "{head:?}");
            end_in_crlf(head.as_bytes(), request.method.expect("a method"), request.headers)
        };
        for head in ["GET / HTTP/1.1\r\n\r\n", "\r\n\r\nGET / HTTP/1.1\r\nA: 1\r\nB:\r\n\r\n"] {
            assert!(ends_well(head), "{head:?}");
        }
        let bad = [
            "GET / HTTP/1.1\n\r\n",
            "GET / HTTP/1.1\r\n\n",
            "GET / HTTP/1.1\nA: 1\r\n\r\n",
            "\nGET / HTTP/1.1\r\n\r\n",
            "\r\n\nGET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nA: 1\nB: 2\r\n\r\n",
            "GET / HTTP/1.1\r\nA: 1\n\r\n",
            "GET / HTTP/1.1\r\nA: 1\r\n\n",
            "GET / HTTP/1.1\r\nA:\nB: 2\r\n\r\n",
        ];
        for head in bad {
            assert!(!ends_well(head), "{head:?}");
        }
    }
}
