//! The position of the fault in a malformed response head, for the log. Nothing else may depend on it: the strict
//! parser decides.

use super::field::{is_token_byte, list, number};
use std::fmt;

/// The longest field name that is reported.
const MAX_NAME: usize = 64;

/// The first violation of the strict grammar in a head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseFault {
    /// Offset in the head, from 0.
    pub offset: usize,
    /// The fault.
    pub problem: &'static str,
    /// The name of the field.
    pub field: Option<Box<str>>,
}

impl fmt::Display for ResponseFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {} of the response: {}", self.offset, self.problem)?;
        self.field.as_ref().map_or(Ok(()), |field| write!(f, " in {field}"))
    }
}

/// Finds the fault in the head at the start of `bytes`.
#[cold]
pub fn locate(bytes: &[u8]) -> ResponseFault {
    let mut lengths = Lengths::default();
    let mut at = 0;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let end = memchr::memchr(b'\n', rest);
        let line = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        let text = line.strip_suffix(b"\r").unwrap_or(line);
        let fault = if at == 0 { status_line(text) } else { field_line(text, &mut lengths) };
        if let Some((offset, problem, field)) = fault {
            return ResponseFault { offset: at + offset, problem, field };
        }
        if end.is_some() && text.len() == line.len() {
            return ResponseFault { offset: at + line.len(), problem: "a line ends in LF without CR", field: None };
        }
        if text.is_empty() {
            break;
        }
        at += line.len() + 1;
    }
    ResponseFault { offset: at.min(bytes.len()), problem: "the head is not HTTP/1", field: None }
}

/// Offset in a line, the fault, and the name of the field.
type InLine = (usize, &'static str, Option<Box<str>>);

/// The statements of the lines so far about the length of the body.
#[derive(Default)]
struct Lengths {
    has_length: bool,
    is_chunked: bool,
}

fn status_line(line: &[u8]) -> Option<InLine> {
    const FORM: &[u8; 12] = b"HTTP/1.0 000";
    let fits = |(byte, form): (&u8, &u8)| if *form == b'0' { byte.is_ascii_digit() } else { byte == form };
    let wrong = line.iter().zip(FORM).position(|pair| !fits(pair));
    let short = (line.len() < FORM.len()).then_some(line.len());
    let control = || line.iter().position(|byte| is_control(*byte));
    let end = || line.get(FORM.len()).filter(|byte| **byte != b' ').map(|_| FORM.len());
    if let Some(at) = wrong.or(short).or_else(end) {
        return Some((at, "the status line does not begin as HTTP/1.1 200 does", None));
    }
    if line.get(FORM.len() - 3) == Some(&b'0') {
        return Some((FORM.len() - 3, "the status is below 100", None));
    }
    control().map(|at| (at, "a control byte in the status line", None))
}

fn field_line(line: &[u8], lengths: &mut Lengths) -> Option<InLine> {
    match line {
        [] => return None,
        [b' ' | b'\t', ..] => return Some((0, "a folded line", None)),
        _ => {}
    }
    let Some(colon) = memchr::memchr(b':', line) else { return Some((line.len(), "a line without a colon", None)) };
    let (name, value) = line.split_at_checked(colon)?;
    if let Some(at) = name.iter().position(|byte| !is_token_byte(*byte)) {
        return Some((at, "a byte that no name of a field may have", None));
    }
    if name.is_empty() {
        return Some((0, "a field without a name", None));
    }
    let shown = || {
        let name = name.get(..MAX_NAME).unwrap_or(name);
        Some(String::from_utf8_lossy(name).into_owned().into_boxed_str())
    };
    if let Some(at) = value.iter().position(|byte| is_control(*byte)) {
        return Some((colon + at, "a control byte", shown()));
    }
    let value = value.get(1..).unwrap_or_default().trim_ascii();
    let problem = lengths.add(name, value)?;
    Some((0, problem, shown()))
}

impl Lengths {
    fn add(&mut self, name: &[u8], value: &[u8]) -> Option<&'static str> {
        if name.eq_ignore_ascii_case(b"Content-Length") {
            if number(value).is_none() {
                return Some("a length that is no number");
            }
            if std::mem::replace(&mut self.has_length, true) {
                return Some("a second length");
            }
        } else if name.eq_ignore_ascii_case(b"Transfer-Encoding") {
            let mut codings = list(value);
            let is_chunked = codings.next().is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked"));
            if !is_chunked || codings.next().is_some() || std::mem::replace(&mut self.is_chunked, true) {
                return Some("a transfer coding other than chunked, once");
            }
        }
        (self.has_length && self.is_chunked).then_some("a length beside chunked")
    }
}

fn is_control(byte: u8) -> bool {
    (byte < b' ' && byte != b'\t') || byte == 0x7f
}
