//! What of a request outlives the bytes it came in.

use super::Cx;
use crate::base::buffer::BufferPool;
use crate::base::cut::Cut;
use crate::base::reason::Reason;
use crate::wire::Version;
use crate::wire::body::BodyLength;
use crate::wire::glimpse::Glimpse;
use crate::wire::request::{Hop, RequestHead, Span, Spans};

/// The most that is kept of a request, head and body, to send it again.
const REPLAY_LIMIT: usize = 64 * 1024;

/// A request whose head is complete. Its buffer holds the host's name, the head as it goes to a backend, and behind
/// it what of the body was sent, for as long as the request may have to be sent again.
#[derive(Debug)]
pub struct Request {
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
    idempotent: bool,
    expects_continue: bool,
    wants_debug: bool,
    is_secure: bool,
}

impl Request {
    /// Keeps what matters of `head`.
    pub(super) fn new(head: &RequestHead<'_, '_>, cx: &mut Cx<'_>) -> Result<Self, Reason> {
        let settings = cx.settings;
        let hop = Hop { peer: cx.peer, policy: &settings.forwarded, via: settings.via.as_deref() };
        let mut buffer = cx.buffers.take();
        let spans = match head.write(&hop, &mut buffer) {
            Ok(spans) => spans,
            Err(reason) => {
                cx.buffers.give(buffer);
                return Err(reason);
            }
        };
        let traits = Traits {
            keep_alive: head.keep_alive,
            idempotent: head.is_idempotent(),
            expects_continue: head.expects_continue,
            wants_debug: head.wants_debug,
            is_secure: head.came_encrypted(&hop),
        };
        Ok(Self { buffer, spans, version: head.version, traits, body: head.body, keeps: Keeps::All })
    }

    /// What can be made out of a request whose head is refused.
    pub(super) fn glimpsed(bytes: &[u8], cx: &mut Cx<'_>) -> Option<Self> {
        let seen = Glimpse::of(bytes)?;
        let mut buffer = cx.buffers.take();
        buffer.extend_from_slice(seen.method);
        buffer.extend_from_slice(seen.target);
        let method = Span::new(0, seen.method.len());
        let target = Span::new(method.end(), buffer.len());
        let traits = Traits {
            keep_alive: false,
            idempotent: false,
            expects_continue: false,
            wants_debug: seen.wants_debug,
            is_secure: false,
        };
        Some(Self {
            buffer,
            spans: Spans { method, target, ..Spans::default() },
            version: seen.version,
            traits,
            body: BodyLength::None,
            keeps: Keeps::Head,
        })
    }

    /// Whether this is the name of the host.
    pub(super) fn is_for(&self, host: &str) -> bool {
        self.spans.host.of(&self.buffer) == host.as_bytes()
    }

    /// The name of the host: lower case, no port, no trailing dot.
    pub fn host(&self) -> &str {
        // The name was written by `wire` from ASCII alone.
        std::str::from_utf8(self.spans.host.of(&self.buffer)).unwrap_or_default()
    }

    /// The method.
    pub fn method(&self) -> &[u8] {
        self.spans.method.of(&self.buffer)
    }

    /// The target in origin form.
    pub fn target(&self) -> &[u8] {
        self.spans.target.of(&self.buffer)
    }

    /// The value of `Referer`.
    pub fn referer(&self) -> Option<&[u8]> {
        self.spans.referer.map(|span| span.of(&self.buffer))
    }

    /// The value of `User-Agent`.
    pub fn user_agent(&self) -> Option<&[u8]> {
        self.spans.user_agent.map(|span| span.of(&self.buffer))
    }

    /// Whether the client speaks HTTP/1.1.
    pub fn is_http11(&self) -> bool {
        self.version == Version::Http11
    }

    /// The value of `Upgrade`, where another protocol is asked for.
    pub(super) fn offered_protocols(&self) -> Option<&[u8]> {
        self.spans.upgrade.map(|span| span.of(&self.buffer))
    }

    pub(super) fn is_head(&self) -> bool {
        self.method() == b"HEAD"
    }

    pub(super) fn body(&self) -> BodyLength {
        self.body
    }

    pub(super) fn keep_alive(&self) -> bool {
        self.traits.keep_alive
    }

    pub(super) fn is_idempotent(&self) -> bool {
        self.traits.idempotent
    }

    pub(super) fn expects_continue(&self) -> bool {
        self.traits.expects_continue
    }

    /// Whether the client's connection is encrypted, be it to this node or to a proxy in front that is believed.
    pub(super) fn is_secure(&self) -> bool {
        self.traits.is_secure
    }

    pub(super) fn wants_debug(&self) -> bool {
        self.traits.wants_debug
    }

    /// Everything that was sent so far; `None` once that was more than is kept.
    pub(super) fn replay(&self) -> Option<&[u8]> {
        (self.keeps == Keeps::All).then(|| self.buffer.from(self.spans.head.start()))
    }

    /// The buffer to which coded body of up to `len` bytes of input may be added, while that is within the limit.
    pub(super) fn extend_replay(&mut self, len: usize) -> Option<&mut Vec<u8>> {
        if self.keeps == Keeps::All && self.buffer.len() + len > REPLAY_LIMIT {
            self.drop_replay();
        }
        (self.keeps == Keeps::All).then_some(&mut self.buffer)
    }

    /// The request will not be sent again: only its head is kept, for the log.
    pub(super) fn drop_replay(&mut self) {
        self.keeps = Keeps::Head;
        self.buffer.truncate(self.spans.head.end());
    }

    /// Keeps what the log wants and nothing else, in a buffer of just that size: for what may last long and be idle, a
    /// tunnel.
    pub(super) fn shrink(&mut self, buffers: &mut BufferPool) {
        let spans = &mut self.spans;
        let always = [&mut spans.host, &mut spans.method, &mut spans.target];
        let kept = always.into_iter().chain(&mut spans.referer).chain(&mut spans.user_agent);
        let mut exact = Vec::new();
        for span in kept {
            *span = span.copy(&self.buffer, &mut exact);
        }
        exact.shrink_to_fit();
        (spans.head, spans.upgrade) = (Span::default(), None);
        buffers.give(std::mem::replace(&mut self.buffer, exact));
        self.keeps = Keeps::LogAlone;
    }

    /// Gives the buffer back.
    pub(super) fn recycle(self, buffers: &mut BufferPool) {
        if self.keeps != Keeps::LogAlone {
            buffers.give(self.buffer);
        }
    }
}
