//! The lines of a head: their positions in the input, and how they are written.

use super::field::{Field, list, put};
use super::{MAX_FIELDS, MOST_FIELDS, is_blank_lines};
use crate::base::slice_ext::SliceExt;
use arrayvec::ArrayVec;
use httparse::Header;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Space for the lines of a head while it is read, and for the marks of some.
#[derive(Debug)]
pub struct Fields<'b, const N: usize = MAX_FIELDS> {
    pub(super) headers: [MaybeUninit<Header<'b>>; N],
    pub(super) marks: Marks,
}

/// Space for as many lines as nearly all heads have.
pub const fn fields<'b>() -> Fields<'b> {
    Fields { headers: [const { MaybeUninit::uninit() }; MAX_FIELDS], marks: Marks::new_const() }
}

/// Space for the greatest allowed number of lines. It takes about 36 KiB, so heads are read into [`fields`] first.
pub const fn most_fields<'b>() -> Fields<'b, MOST_FIELDS> {
    Fields { headers: [const { MaybeUninit::uninit() }; MOST_FIELDS], marks: Marks::new_const() }
}

/// A mark of a line that is not simply copied: the field has a meaning, or the line is not in canonical form.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    /// Index of the line.
    number: u16,
    field: Field,
    /// Whether the line is exactly `name: value` and CRLF.
    is_canonical: bool,
}

impl Mark {
    const fn new(number: usize, field: Field, is_canonical: bool) -> Self {
        const { assert!(MOST_FIELDS <= 1 << u16::BITS, "each line has a number") };
        let [low, high, ..] = number.to_le_bytes();
        Self { number: u16::from_le_bytes([low, high]), field, is_canonical }
    }

    fn number(self) -> usize {
        usize::from(self.number)
    }
}

/// The marks of one head, the last line first, since that is the order of the scan.
pub(super) type Marks = ArrayVec<Mark, MOST_FIELDS>;

/// A part of a buffer that holds a head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// The bytes from `start` to before `end`.
    pub fn new(start: usize, end: usize) -> Self {
        // Limits of heads are far below 4 GiB.
        let narrow = |place: usize| u32::try_from(place).unwrap_or(u32::MAX);
        Self { start: narrow(start), end: narrow(end) }
    }

    /// The first position.
    pub fn start(self) -> usize {
        self.start as usize
    }

    /// The position behind the last byte.
    pub fn end(self) -> usize {
        self.end as usize
    }

    /// This part of a buffer.
    pub fn of(self, buffer: &[u8]) -> &[u8] {
        buffer.slice(self.start()..self.end())
    }
}

/// The lines of a complete head.
#[derive(Debug)]
pub(super) struct FieldLines<'h, 'b> {
    /// All bytes of the head.
    source: &'b [u8],
    headers: &'h [Header<'b>],
    marks: &'h mut Marks,
}

impl<'h, 'b> FieldLines<'h, 'b> {
    /// The lines of this head as found by httparse. A call of [`FieldLines::read`] has to follow.
    pub(super) fn new(source: &'b [u8], headers: &'h [Header<'b>], marks: &'h mut Marks) -> Self {
        Self { source, headers, marks }
    }

    /// Scans the lines of a head that begins at `start`. Returns whether each line ends in CRLF: httparse accepts a
    /// bare LF as the end of a line, and recipients behind this node may not. RFC 9112 section 2.2 allows to refuse it.
    #[must_use]
    pub(super) fn read(&mut self, start: usize) -> bool {
        let source = self.source;
        let ends_line = |end: usize| source.get(..end).is_some_and(|lines| lines.ends_with(b"\r\n"));
        if !ends_line(source.len()) || !is_blank_lines(source.prefix(start)) {
            return false;
        }
        self.marks.clear();
        let mut end = end_of_fields(source);
        for (number, header) in self.headers.iter().enumerate().rev() {
            if !ends_line(end) {
                return false;
            }
            let name = place_in(source, header.name.as_bytes());
            // httparse accepts nothing between a name and its colon, so the bytes besides name, value, colon and CRLF
            // are white space around the value: one space before it.
            let is_canonical = header.name.len() + header.value.len() + 4 == end - name
                && source.get(name + header.name.len() + 1) == Some(&b' ');
            let field = Field::of(header.name);
            if field != Field::Other || !is_canonical {
                // There is room for a mark of each line.
                self.marks.push(Mark::new(number, field, is_canonical));
            }
            end = name;
        }
        ends_line(end)
    }

    /// Position of the first line, or of the blank line.
    pub(super) fn start(&self) -> usize {
        self.headers.first().map_or(end_of_fields(self.source), |header| place_in(self.source, header.name.as_bytes()))
    }

    /// All lines.
    pub(super) fn all(&self) -> &'h [Header<'b>] {
        self.headers
    }

    /// Number of lines.
    pub(super) fn len(&self) -> usize {
        self.headers.len()
    }

    /// The value of the first line with this name, regardless of case.
    pub(super) fn value_of(&self, name: &str) -> Option<&'b [u8]> {
        self.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
    }

    /// The marks in the order of the lines.
    fn marks(&self) -> impl Iterator<Item = &Mark> {
        self.marks.iter().rev()
    }

    /// The lines of known fields.
    pub(super) fn known(&self) -> impl Iterator<Item = (Field, &'h Header<'b>)> {
        self.marks().filter_map(|mark| Some((mark.field, self.headers.get(mark.number())?)))
    }

    /// The lines of one known field.
    pub(super) fn of(&self, field: Field) -> impl Iterator<Item = &'h Header<'b>> {
        self.known().filter(move |(known, _)| *known == field).map(|(_, header)| header)
    }

    /// Marks the lines named by the `Connection` fields of this head as [`Field::ConnectionOption`], where `Connection`
    /// may name them.
    pub(super) fn mark_named(&mut self) {
        let mut marks: ArrayVec<Option<Mark>, MOST_FIELDS> = self.headers.iter().map(|_| None).collect();
        for mark in &*self.marks {
            if let Some(place) = marks.get_mut(mark.number()) {
                *place = Some(*mark);
            }
        }
        for name in self.of(Field::Connection).flat_map(|header| list(header.value)) {
            for ((number, header), place) in self.headers.iter().enumerate().zip(&mut marks) {
                let mark = place.unwrap_or(Mark::new(number, Field::Other, true));
                if mark.field.may_be_named() && header.name.as_bytes().eq_ignore_ascii_case(name) {
                    *place = Some(Mark { field: Field::ConnectionOption, ..mark });
                }
            }
        }
        self.marks.clear();
        self.marks.extend(marks.into_iter().rev().flatten());
    }

    /// The range from a line to the next one or the blank line.
    fn places(&self, line: usize) -> Range<usize> {
        let start_of = |header: &Header<'_>| place_in(self.source, header.name.as_bytes());
        let start = self.headers.get(line).map_or(0, start_of);
        start..self.headers.get(line + 1).map_or(end_of_fields(self.source), start_of)
    }
}

/// Position of the blank line that ends a head.
fn end_of_fields(source: &[u8]) -> usize {
    source.len().saturating_sub(2)
}

/// Writes the lines of a head. Most lines are unchanged, so whole runs of them take one copy.
pub(super) struct Rewrite<'o, 'h, 'b> {
    out: &'o mut Vec<u8>,
    lines: &'o FieldLines<'h, 'b>,
    /// Bytes of the head before this position are written or left out.
    done: usize,
}

/// A line to be written.
#[derive(Clone, Copy)]
pub(super) struct FieldLine<'h, 'b> {
    header: &'h Header<'b>,
    mark: Mark,
}

impl<'b> FieldLine<'_, 'b> {
    /// The value, without white space around it.
    pub(super) fn value(self) -> &'b [u8] {
        self.header.value
    }

    /// Which field it is.
    pub(super) fn field(self) -> Field {
        self.mark.field
    }
}

impl<'o, 'h, 'b> Rewrite<'o, 'h, 'b> {
    /// Continues at this position of the head.
    pub(super) fn new(out: &'o mut Vec<u8>, lines: &'o FieldLines<'h, 'b>, done: usize) -> Self {
        Self { out, lines, done }
    }

    /// Writes the fields: known ones are passed to `write`, the others are copied unchanged.
    pub(super) fn fields(mut self, mut write: impl FnMut(&mut Self, FieldLine<'h, 'b>)) {
        let lines = self.lines;
        for mark in lines.marks() {
            if let Some(header) = lines.headers.get(mark.number()) {
                write(&mut self, FieldLine { header, mark: *mark });
            }
        }
        self.copy_to(end_of_fields(lines.source));
    }

    /// Writes a line in canonical form. Returns the position of its value in the output.
    pub(super) fn keep(&mut self, line: FieldLine<'h, 'b>) -> Span {
        let len = line.header.value.len();
        let start = if line.mark.is_canonical {
            self.out.len() + place_in(self.lines.source, line.header.value) - self.done
        } else {
            self.replace(line, line.header.value);
            self.out.len() - 2 - len
        };
        Span::new(start, start + len)
    }

    /// Writes a line with this number as its value, without leading zeros.
    pub(super) fn keep_number(&mut self, line: FieldLine<'h, 'b>, number: Option<u64>) {
        match number {
            Some(number) if line.header.value.starts_with(b"0") => self.replace_number(line, number),
            _ => drop(self.keep(line)),
        }
    }

    /// Writes a line with another value.
    pub(super) fn replace(&mut self, line: FieldLine<'h, 'b>, value: &[u8]) {
        self.leave_out(line);
        put(self.out, line.header.name, value);
    }

    /// Writes a line with a number as its value.
    pub(super) fn replace_number(&mut self, line: FieldLine<'h, 'b>, number: u64) {
        self.replace(line, itoa::Buffer::new().format(number).as_bytes());
    }

    /// Leaves a line out.
    pub(super) fn leave_out(&mut self, line: FieldLine<'h, 'b>) {
        let places = self.lines.places(line.mark.number());
        self.copy_to(places.start);
        self.done = places.end;
    }

    fn copy_to(&mut self, end: usize) {
        if end > self.done {
            self.out.extend_from_slice(self.lines.source.slice(self.done..end));
        }
        self.done = end;
    }
}

/// The position of `part`, which is a subslice of `whole`.
pub(super) fn place_in(whole: &[u8], part: &[u8]) -> usize {
    (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a head, and passes its lines to `check` if all of them end in CRLF.
    fn with_lines(head: &str, check: impl FnOnce(&FieldLines<'_, '_>)) -> bool {
        let mut room = fields();
        let mut request = httparse::Request::new(&mut []);
        let parsed = request.parse_with_uninit_headers(head.as_bytes(), &mut room.headers);
        assert_eq!(parsed, Ok(httparse::Status::Complete(head.len())), "httparse takes {head:?} for good");
        let start = place_in(head.as_bytes(), request.method.expect("a method").as_bytes());
        let mut lines = FieldLines::new(head.as_bytes(), request.headers, &mut room.marks);
        let ends_well = lines.read(start);
        if ends_well {
            check(&lines);
        }
        ends_well
    }

    /// Reads `lines` and writes another line for each `TE`.
    fn rewritten(lines: &str) -> String {
        let mut out = b"first line\r\n".to_vec();
        let ends_well = with_lines(&format!("GET / HTTP/1.1\r\n{lines}\r\n"), |lines| {
            let mut places = Vec::new();
            Rewrite::new(&mut out, lines, lines.start()).fields(|rewrite, line| match line.field() {
                Field::Te => {
                    rewrite.leave_out(line);
                    put(rewrite.out, "Made", b"x");
                }
                _ => places.push((rewrite.keep(line), line.header.value)),
            });
            for (place, value) in places {
                assert_eq!(place.of(&out), value, "the place of a value");
            }
        });
        assert!(ends_well, "{lines:?}");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn lines_leave_in_order_and_in_one_form() {
        let table = [
            ("", ""),
            ("A: 1\r\nB: 2\r\n", "A: 1\r\nB: 2\r\n"),
            ("A: 1\r\nTE: x\r\nB: 2\r\nC: 3\r\n", "A: 1\r\nMade: x\r\nB: 2\r\nC: 3\r\n"),
            ("TE: x\r\nA: 1\r\nTE: x\r\n", "Made: x\r\nA: 1\r\nMade: x\r\n"),
            ("TE: x\r\nTE: y\r\nHost: 1\r\nA: 2\r\n", "Made: x\r\nMade: x\r\nHost: 1\r\nA: 2\r\n"),
            ("Host: 1\r\nTE: x\r\nA: 2\r\nReferer: 3\r\n", "Host: 1\r\nMade: x\r\nA: 2\r\nReferer: 3\r\n"),
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
        let ends_well = |head| with_lines(head, |_| {});
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
