//! One probe as bytes: the request, and the judgement of the response. It knows no socket and no clock.

use crate::cluster::Options;
use crate::health::{MonitorSettings, ProbeFault, ProbeMethod};
use crate::wire::body::BodyLength;
use crate::wire::chunked::{Chunked, Part};
use crate::wire::limits::Limits;
use crate::wire::request::most_fields;
use crate::wire::response::ResponseHead;
use crate::wire::version::as_http11;
use crate::wire::{self, HeadFault, lenient_response};
use std::sync::Arc;

/// The greatest total size of a response's heads in bytes, informational ones included.
const MAX_HEAD: usize = 64 * 1024;

/// The greatest number of body bytes searched for `health.body`.
const MAX_BODY: usize = 64 * 1024;

/// The outcome of a probe.
pub(super) type Outcome = Result<(), ProbeFault>;

/// A probe from its request to its outcome.
#[derive(Debug)]
pub(super) struct Check {
    options: Arc<Options>,
    request: Box<[u8]>,
    /// Bytes that were not judged yet.
    received: Vec<u8>,
    heads: usize,
    body: Option<Body>,
}

/// The body of a response, searched for a text.
#[derive(Debug)]
struct Body {
    rest: Rest,
    content: Vec<u8>,
}

/// The rest of a body.
#[derive(Debug)]
enum Rest {
    Sized(u64),
    Chunked(Chunked),
    UntilClose,
}

impl Check {
    /// A probe according to the options `health.*`. `own_host` is the `Host` of the backend's requests, if it has one of
    /// its own.
    pub(super) fn new(options: Arc<Options>, own_host: Option<&str>) -> Self {
        let MonitorSettings { method, path, host, .. } = &options.health;
        let is_set = options.pairs().any(|(name, _)| name == "health.host");
        let host = own_host.filter(|_| !is_set).unwrap_or(host);
        let (method, version) = (method.name(), env!("CARGO_PKG_VERSION"));
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: sluice-health/{version}\r\nAccept: */*\r\n\
             Connection: close\r\n\r\n"
        );
        Self { request: request.into_bytes().into(), options, received: Vec::new(), heads: 0, body: None }
    }

    /// The request.
    pub(super) fn request(&self) -> &[u8] {
        &self.request
    }

    /// Reads more of the response. Returns the outcome once it is known.
    pub(super) fn receive(&mut self, bytes: &[u8]) -> Option<Outcome> {
        self.received.extend_from_slice(bytes);
        if self.body.is_none() {
            match self.read_heads() {
                Ok(true) => {}
                Ok(false) if self.heads + self.received.len() > MAX_HEAD => return Some(Err(ProbeFault::Malformed)),
                Ok(false) => return None,
                Err(outcome) => return Some(outcome),
            }
        }
        self.read_body()
    }

    /// Handles the end of the connection. Returns the outcome.
    pub(super) fn end(&self) -> Outcome {
        match &self.body {
            None => Err(ProbeFault::Closed),
            Some(Body { rest: Rest::UntilClose, .. }) => Err(ProbeFault::BodyMismatch),
            Some(_) => Err(ProbeFault::Closed),
        }
    }

    /// Parses the head of the final response. Returns whether it is complete and its body has to be searched, or the
    /// outcome.
    fn read_heads(&mut self) -> Result<bool, Outcome> {
        loop {
            let settings = &self.options.health;
            let to_head = settings.method == ProbeMethod::Head;
            let mut room = most_fields();
            let mut parsed = ResponseHead::parse(&self.received, &mut room, to_head);
            let later;
            let mut later_room = most_fields();
            if let (Err(HeadFault::Version), Some(known)) = (&parsed, as_http11(&self.received)) {
                later = known;
                parsed = ResponseHead::parse(&later, &mut later_room, to_head);
            }
            let repaired;
            let mut repaired_room = most_fields();
            if let (Err(HeadFault::Malformed | HeadFault::Length), true) = (&parsed, self.options.is_lenient) {
                if !wire::has_blank_line(&self.received, 0) {
                    return Ok(false);
                }
                if let Some(found) = lenient_response::repair(&self.received) {
                    repaired = found;
                    parsed = repaired.parse(&mut repaired_room, to_head);
                }
            }
            let head = match parsed {
                Ok(Some(head)) => head,
                Ok(None) => return Ok(false),
                Err(_) => return Err(Err(ProbeFault::Malformed)),
            };
            let (len, status, length) = (head.len, head.status, head.body);
            let is_informational = head.is_informational();
            self.heads += len;
            self.received.drain(..len);
            if is_informational {
                if self.heads > MAX_HEAD {
                    return Err(Err(ProbeFault::Malformed));
                }
                continue;
            }
            if !settings.expect.contains(status) {
                return Err(Err(ProbeFault::Status(status)));
            }
            if settings.body.is_empty() {
                return Err(Ok(()));
            }
            let rest = match length {
                BodyLength::None => return Err(Err(ProbeFault::BodyMismatch)),
                BodyLength::Sized(length) => Rest::Sized(length),
                BodyLength::Chunked => Rest::Chunked(Chunked::new(&Limits::default())),
                BodyLength::UntilClose => Rest::UntilClose,
            };
            self.body = Some(Body { rest, content: Vec::new() });
            return Ok(true);
        }
    }

    /// Searches the received part of the body.
    fn read_body(&mut self) -> Option<Outcome> {
        let text = self.options.health.body.as_bytes();
        let body = self.body.as_mut()?;
        let is_complete = match body.decode(&mut self.received) {
            Ok(is_complete) => is_complete,
            Err(fault) => return Some(Err(fault)),
        };
        let searched = body.content.get(..MAX_BODY).unwrap_or(&body.content);
        if memchr::memmem::find(searched, text).is_some() {
            return Some(Ok(()));
        }
        (is_complete || body.content.len() >= MAX_BODY).then_some(Err(ProbeFault::BodyMismatch))
    }
}

impl Body {
    /// Decodes received bytes. Returns whether the body is complete.
    fn decode(&mut self, received: &mut Vec<u8>) -> Result<bool, ProbeFault> {
        let Self { rest, content } = self;
        match rest {
            Rest::UntilClose => {
                content.append(received);
                Ok(false)
            }
            Rest::Sized(left) => {
                let here = received.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                content.extend(received.drain(..here));
                *left -= here as u64;
                Ok(*left == 0)
            }
            Rest::Chunked(chunked) => loop {
                match chunked.decode(received).map_err(|_| ProbeFault::Malformed)? {
                    Part::Incomplete => return Ok(false),
                    Part::Framing(len) => drop(received.drain(..len)),
                    Part::Data(len) => content.extend(received.drain(..len)),
                    Part::End { .. } => return Ok(true),
                }
                if content.len() >= MAX_BODY {
                    return Ok(false);
                }
            },
        }
    }
}
