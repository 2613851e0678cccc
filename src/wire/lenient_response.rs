//! Repair of response heads that are not strict although their meaning is clear (the option `lenient`).
//!
//! Only heads of backends are repaired, never those of clients: a request that two recipients read differently can
//! smuggle another one. The strict parser judges the repaired head, so nothing unknown to it passes.

use super::HeadFault;
use super::field::{list, number};
use super::request::Fields;
use super::response::ResponseHead;

/// The repairs of a head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repairs {
    /// A line ended in LF without CR (RFC 9112 section 2.2 allows a recipient to accept it).
    pub bare_lf: bool,
    /// A field was folded over several lines; spaces join them (RFC 9112 section 5.2).
    pub folded_line: bool,
    /// The same `Content-Length` occurred more than once; one is left (RFC 9110 section 8.6).
    pub repeated_length: bool,
    /// A `Content-Length` stood beside `Transfer-Encoding`, which overrides it (RFC 9112 section 6.3). The connection
    /// must not carry another response.
    pub length_beside_chunked: bool,
}

/// A head in strict form.
#[derive(Debug)]
pub struct RepairedHead {
    head: Vec<u8>,
    /// Length of the head as received, in bytes.
    len: usize,
    /// The repairs.
    pub repairs: Repairs,
}

impl RepairedHead {
    /// Parses the repaired head. [`ResponseHead::len`] is the length of the head as received.
    pub fn parse<'h, 'b, const N: usize>(
        &'b self,
        room: &'h mut Fields<'b, N>,
        to_head: bool,
    ) -> Result<Option<ResponseHead<'h, 'b>>, HeadFault> {
        let mut parsed = ResponseHead::parse(&self.head, room, to_head)?;
        if let Some(head) = &mut parsed {
            head.len = self.len;
            head.keep_alive &= !self.repairs.length_beside_chunked;
        }
        Ok(parsed)
    }
}

/// Repairs the complete head at the start of `bytes`; `None` if it has no fault that can be repaired.
#[cold]
pub fn repair(bytes: &[u8]) -> Option<RepairedHead> {
    let mut repairs = Repairs::default();
    let mut lines: Vec<Vec<u8>> = Vec::new();
    let mut len = 0;
    loop {
        let line = bytes.get(len..)?;
        let line = line.get(..memchr::memchr(b'\n', line)?)?;
        len += line.len() + 1;
        let text = line.strip_suffix(b"\r").unwrap_or(line);
        repairs.bare_lf |= text.len() == line.len();
        match text {
            [] if lines.is_empty() => return None,
            [] => break,
            [b' ' | b'\t', ..] => {
                // The status line is not a field and cannot be folded.
                let field = lines.get_mut(1..)?.last_mut()?;
                repairs.folded_line = true;
                field.push(b' ');
                field.extend_from_slice(text.trim_ascii());
            }
            text => lines.push(text.to_vec()),
        }
    }
    repair_lengths(&mut lines, &mut repairs)?;
    if repairs == Repairs::default() {
        return None;
    }
    lines.push(Vec::new());
    let mut head = Vec::with_capacity(len + lines.len());
    for line in lines {
        head.extend_from_slice(&line);
        head.extend_from_slice(b"\r\n");
    }
    Some(RepairedHead { head, len, repairs })
}

/// Leaves one length, and none beside a transfer coding. `None` if the lengths differ or are invalid.
fn repair_lengths(lines: &mut Vec<Vec<u8>>, repairs: &mut Repairs) -> Option<()> {
    let mut stated = None;
    let mut count = 0;
    for value in lines.iter().filter_map(|line| value_of(line, "Content-Length")) {
        for length in list(value) {
            let length = number(length)?;
            if *stated.get_or_insert(length) != length {
                return None;
            }
            count += 1;
        }
    }
    let is_chunked = lines.iter().any(|line| value_of(line, "Transfer-Encoding").is_some());
    let Some(length) = stated else { return Some(()) };
    repairs.length_beside_chunked = is_chunked;
    repairs.repeated_length = !is_chunked && count > 1;
    if is_chunked || count > 1 {
        lines.retain(|line| value_of(line, "Content-Length").is_none());
    }
    if repairs.repeated_length {
        lines.push(format!("Content-Length: {length}").into_bytes());
    }
    Some(())
}

/// The value of a line, if its field has this name.
fn value_of<'l>(line: &'l [u8], name: &str) -> Option<&'l [u8]> {
    let (found, value) = line.split_at_checked(name.len())?;
    found.eq_ignore_ascii_case(name.as_bytes()).then(|| value.strip_prefix(b":"))?
}
