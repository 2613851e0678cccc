//! The response made from a stored object: status line, fields, and the part of the body.

use super::conditional::{self, Outcome, Representation};
use super::object::{self, Object};
use super::request::CacheRequest;
use super::status::Served;
use crate::wire::put_number;
use std::ops::Range;
use std::time::SystemTime;

/// A response from the cache.
#[derive(Clone, Debug)]
pub struct Reply<'a> {
    object: &'a Object,
    outcome: Outcome,
    is_head: bool,
    served: Served,
    /// The length of the body; `None` if it is not known yet.
    len: Option<u64>,
}

impl<'a> Reply<'a> {
    /// Evaluates the request's conditions against an object.
    pub fn new(request: &CacheRequest<'_>, object: &'a Object, served: Served) -> Self {
        let is_head = request.is_head();
        let outcome = conditional::evaluate(request.fields, is_head, &Representation::from(object));
        Self { object, outcome, is_head, served, len: Some(object.body.len()) }
    }

    /// The same for a response whose body is still arriving, with this length if known. Without a length its head has
    /// no framing.
    pub fn live(request: &CacheRequest<'_>, head: &'a Object, len: Option<u64>, served: Served) -> Self {
        Self { len, ..Self::new(request, head, served) }
    }

    /// Whether the whole body follows the head.
    pub fn is_full(&self) -> bool {
        self.outcome == Outcome::Full && !self.is_head
    }

    /// The status.
    pub fn status(&self) -> u16 {
        match self.outcome {
            Outcome::Full => self.object.status,
            Outcome::Partial(_) => 206,
            Outcome::NotModified => 304,
            Outcome::PreconditionFailed => 412,
            Outcome::RangeNotSatisfiable => 416,
        }
    }

    /// The range of the object's body that follows the head.
    pub fn body(&self) -> Range<u64> {
        match &self.outcome {
            _ if self.is_head => 0..0,
            Outcome::Full => 0..self.object.body.len(),
            Outcome::Partial(range) => range.clone(),
            _ => 0..0,
        }
    }

    /// Writes the head without its blank line, so the caller can add lines such as `Connection`.
    pub fn write_head(&self, now: SystemTime, out: &mut Vec<u8>) {
        out.extend_from_slice(b"HTTP/1.1 ");
        put_number(out, u64::from(self.status()));
        let phrase = match self.outcome {
            Outcome::Full => &self.object.phrase,
            Outcome::Partial(_) => "Partial Content",
            Outcome::NotModified => "Not Modified",
            Outcome::PreconditionFailed => "Precondition Failed",
            Outcome::RangeNotSatisfiable => "Range Not Satisfiable",
        };
        out.push(b' ');
        out.extend_from_slice(phrase.as_bytes());
        out.extend_from_slice(b"\r\n");
        let len = self.object.body.len();
        match &self.outcome {
            Outcome::Full => {
                out.extend_from_slice(&self.object.fields);
                // A 204 has no length (RFC 9110 section 8.6).
                if let Some(len) = self.len.filter(|_| self.object.status != 204) {
                    put_length(out, len);
                }
            }
            Outcome::Partial(range) => {
                out.extend_from_slice(&self.object.fields);
                out.extend_from_slice(b"Content-Range: bytes ");
                put_number(out, range.start);
                out.push(b'-');
                put_number(out, range.end.saturating_sub(1));
                out.push(b'/');
                put_number(out, len);
                out.extend_from_slice(b"\r\n");
                put_length(out, range.end.saturating_sub(range.start));
            }
            Outcome::NotModified => {
                object::not_modified_lines(&self.object.fields).for_each(|line| out.extend_from_slice(line));
            }
            Outcome::PreconditionFailed => put_length(out, 0),
            Outcome::RangeNotSatisfiable => {
                out.extend_from_slice(b"Content-Range: bytes */");
                put_number(out, len);
                out.extend_from_slice(b"\r\n");
                put_length(out, 0);
            }
        }
        self.served.put(self.object, now, out);
    }
}

fn put_length(out: &mut Vec<u8>, len: u64) {
    out.extend_from_slice(b"Content-Length: ");
    put_number(out, len);
    out.extend_from_slice(b"\r\n");
}
