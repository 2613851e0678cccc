//! What of a request outlives the bytes it came in.

use super::Cx;
use crate::base::buffer::{BufferPool, FRESH_CAPACITY};
use crate::base::cut::Cut;
use crate::base::reason::Reason;
use crate::wire::Version;
use crate::wire::body::BodyLength;
use crate::wire::glimpse::Glimpse;
use crate::wire::request::{Hop, RequestHead, Span, Spans};

/// The most that is kept of a request, head and body, to send it again.
const REPLAY_LIMIT: usize = 64 * 1024;

/// How many boxes are kept for requests to come.
const MOST_SPARES: usize = 1024;

/// A request whose head is complete. It goes from state to state, so it is boxed, and as boxes are used again
/// ([`Spares`]), that costs no allocation.
#[derive(Debug)]
pub struct Request(Box<Facts>);

/// What is known of a request. The buffer holds the host's name, the head as it goes to a backend, and behind it what
/// of the body was sent, for as long as the request may have to be sent again.
#[derive(Debug)]
struct Facts {
    buffer: Vec<u8>,
    spans: Spans,
    version: Version,
    traits: Traits,
    body: BodyLength,
    keeps: Keeps,
}

/// What the buffer of a request holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keeps {
    /// Everything that was sent so far.
    All,
    /// The head, for the log.
    Head,
    /// What the log wants, in a buffer that is none of the pool's.
    LogAlone,
}

#[derive(Clone, Copy, Debug)]
struct Traits {
    keep_alive: bool,
    /// The client wants to go on, but this request is its connection's last.
    is_cut_off: bool,
    idempotent: bool,
    expects_continue: bool,
    wants_debug: bool,
    is_secure: bool,
}

/// The boxes of requests that are over: a core has one stock and uses it again and again.
#[derive(Debug, Default)]
#[expect(clippy::vec_box, reason = "it is the boxes that are used again")]
pub struct Spares(Vec<Box<Facts>>);

impl Spares {
    fn house(&mut self, facts: Facts) -> Request {
        match self.0.pop() {
            Some(mut place) => {
                *place = facts;
                Request(place)
            }
            None => Request(Box::new(facts)),
        }
    }
}

impl Request {
    /// Keeps what matters of `head`.
    pub(super) fn new(head: &RequestHead<'_, '_>, cx: &mut Cx<'_>) -> Result<Self, Reason> {
        let settings = cx.settings;
        let hop = Hop { peer: cx.peer, policy: &settings.forwarded, via: settings.via.as_deref() };
        let mut buffer = cx.buffers.take();
        let (capacity, written) = (buffer.capacity(), head.write(&hop, &mut buffer));
        cx.buffers.note_growth(&buffer, capacity);
        let spans = match written {
            Ok(spans) => spans,
            Err(reason) => {
                cx.buffers.give(buffer);
                return Err(reason);
            }
        };
        let traits = Traits {
            keep_alive: head.keep_alive && !cx.is_last,
            is_cut_off: head.keep_alive && cx.is_last,
            idempotent: head.is_idempotent(),
            expects_continue: head.expects_continue,
            wants_debug: head.wants_debug,
            is_secure: head.came_encrypted(&hop),
        };
        let facts = Facts { buffer, spans, version: head.version, traits, body: head.body, keeps: Keeps::All };
        Ok(cx.spares.house(facts))
    }

    /// What can be made out of a request whose head is refused.
    pub(super) fn glimpsed(bytes: &[u8], cx: &mut Cx<'_>) -> Option<Self> {
        let seen = Glimpse::of(bytes)?;
        let mut buffer = cx.buffers.take();
        cx.buffers.extend(&mut buffer, seen.method);
        cx.buffers.extend(&mut buffer, seen.target);
        let method = Span::new(0, seen.method.len());
        let target = Span::new(method.end(), buffer.len());
        let traits = Traits {
            keep_alive: false,
            is_cut_off: false,
            idempotent: false,
            expects_continue: false,
            wants_debug: seen.wants_debug,
            is_secure: false,
        };
        Some(cx.spares.house(Facts {
            buffer,
            spans: Spans { method, target, ..Spans::default() },
            version: seen.version,
            traits,
            body: BodyLength::None,
            keeps: Keeps::Head,
        }))
    }

    /// Whether this is the name of the host.
    pub(super) fn is_for(&self, host: &str) -> bool {
        self.0.spans.host.of(&self.0.buffer) == host.as_bytes()
    }

    /// The name of the host: lower case, no port, no trailing dot.
    pub fn host(&self) -> &str {
        // The name was written by `wire` from ASCII alone.
        std::str::from_utf8(self.0.spans.host.of(&self.0.buffer)).unwrap_or_default()
    }

    /// The method.
    pub fn method(&self) -> &[u8] {
        self.0.spans.method.of(&self.0.buffer)
    }

    /// The target in origin form.
    pub fn target(&self) -> &[u8] {
        self.0.spans.target.of(&self.0.buffer)
    }

    /// The value of `Referer`.
    pub fn referer(&self) -> Option<&[u8]> {
        self.0.spans.referer.map(|span| span.of(&self.0.buffer))
    }

    /// The value of `User-Agent`.
    pub fn user_agent(&self) -> Option<&[u8]> {
        self.0.spans.user_agent.map(|span| span.of(&self.0.buffer))
    }

    /// Whether the client speaks HTTP/1.1.
    pub fn is_http11(&self) -> bool {
        self.0.version == Version::Http11
    }

    /// The value of `Upgrade`, where another protocol is asked for.
    pub(super) fn offered_protocols(&self) -> Option<&[u8]> {
        self.0.spans.upgrade.map(|span| span.of(&self.0.buffer))
    }

    pub(super) fn is_head(&self) -> bool {
        self.method() == b"HEAD"
    }

    pub(super) fn body(&self) -> BodyLength {
        self.0.body
    }

    pub(super) fn keep_alive(&self) -> bool {
        self.0.traits.keep_alive
    }

    /// Whether more may follow that will not be answered: behind the answer it has to be heard out, or the reset that it
    /// meets would take the answer away (RFC 9112 section 9.6).
    pub(super) fn is_cut_off(&self) -> bool {
        self.0.traits.is_cut_off
    }

    pub(super) fn is_idempotent(&self) -> bool {
        self.0.traits.idempotent
    }

    pub(super) fn expects_continue(&self) -> bool {
        self.0.traits.expects_continue
    }

    /// Whether the client's connection is encrypted, be it to this node or to a proxy in front that is believed.
    pub(super) fn is_secure(&self) -> bool {
        self.0.traits.is_secure
    }

    pub(super) fn wants_debug(&self) -> bool {
        self.0.traits.wants_debug
    }

    /// Everything that was sent so far; `None` once that was more than is kept.
    pub(super) fn replay(&self) -> Option<&[u8]> {
        (self.0.keeps == Keeps::All).then(|| self.0.buffer.from(self.0.spans.head.start()))
    }

    /// The buffer to which coded body of up to `len` bytes of input may be added, while that is within the limit.
    pub(super) fn extend_replay(&mut self, len: usize, buffers: &mut BufferPool) -> Option<&mut Vec<u8>> {
        if self.0.keeps == Keeps::All && self.0.buffer.len() + len > REPLAY_LIMIT {
            self.drop_replay(buffers);
        }
        (self.0.keeps == Keeps::All).then_some(&mut self.0.buffer)
    }

    /// The request will not be sent again: only its head is kept, for the log.
    pub(super) fn drop_replay(&mut self, buffers: &mut BufferPool) {
        self.0.keeps = Keeps::Head;
        self.0.buffer.truncate(self.0.spans.head.end());
        buffers.shrink(&mut self.0.buffer);
    }

    /// How many bytes are kept beyond what every request may have.
    pub(super) fn burden(&self) -> usize {
        self.0.buffer.len().saturating_sub(FRESH_CAPACITY)
    }

    /// Keeps what the log wants and nothing else, in a buffer of just that size: for what may last long and be idle, a
    /// tunnel.
    pub(super) fn shrink(&mut self, buffers: &mut BufferPool) {
        let spans = &mut self.0.spans;
        let always = [&mut spans.host, &mut spans.method, &mut spans.target];
        let kept = always.into_iter().chain(&mut spans.referer).chain(&mut spans.user_agent);
        let mut exact = Vec::new();
        for span in kept {
            *span = span.copy(&self.0.buffer, &mut exact);
        }
        exact.shrink_to_fit();
        (spans.head, spans.upgrade) = (Span::default(), None);
        buffers.give(std::mem::replace(&mut self.0.buffer, exact));
        self.0.keeps = Keeps::LogAlone;
    }

    /// Gives the buffer and the box back.
    pub(super) fn recycle(mut self, buffers: &mut BufferPool, spares: &mut Spares) {
        let buffer = std::mem::take(&mut self.0.buffer);
        if self.0.keeps != Keeps::LogAlone {
            buffers.give(buffer);
        }
        if spares.0.len() < MOST_SPARES {
            spares.0.push(self.0);
        }
    }
}
