//! The part of a request that outlives its received bytes.

use super::log_fields::LogFields;
use super::{Settings, head_field};
use crate::base::buffer::{BufferPool, BufferUsage, FRESH_CAPACITY};
use crate::base::reason::FailureReason;
use crate::base::slice_ext::SliceExt;
use crate::cache::conditional::OwnConditions;
use crate::wire::body::BodyLength;
use crate::wire::forwarded::{Mode, Peer, Policy, TlsPeer, client_of};
use crate::wire::lenient_head::LenientHead;
use crate::wire::request::{ForwardContext, RequestHead, Span, Spans};
use crate::wire::{Version, is_idempotent};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// The greatest number of bytes of a request, head and body, kept for a retry.
const REPLAY_LIMIT: usize = 64 * 1024;

/// The policy for heads to which rules have added their own fields.
static UNTOUCHED: Policy = Policy { trusted: Vec::new(), mode: Mode::Untouched };

/// A request with a complete head. The buffer holds the host name, the head for backends, and the part of the body that
/// was sent, for as long as a retry is possible. Fields that differ between backends are written when the request is
/// sent ([`Request::write`]).
#[derive(Debug, Default)]
pub struct Request {
    buffer: Vec<u8>,
    spans: Spans,
    version: Version,
    flags: RequestFlags,
    body: BodyLength,
    retention: Retention,
    /// The address of the client, if the head does not hold it.
    client: Option<IpAddr>,
    /// Facts of the client's TLS handshake.
    tls: Option<Arc<TlsPeer>>,
    /// The position of the proxy chain after the head was dropped.
    recalled_chain: Option<Span>,
}

/// The part of a request that the buffer holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Retention {
    /// Everything that was sent so far.
    #[default]
    All,
    /// The head, for the log.
    Head,
}

#[derive(Clone, Copy, Debug, Default)]
struct RequestFlags {
    is_head: bool,
    keep_alive: bool,
    idempotent: bool,
    expects_continue: bool,
    /// The client asks for `X-Debug` headers and is allowed to.
    may_debug: bool,
    is_secure: bool,
    /// The client's connection comes from a trusted network.
    is_trusted: bool,
    /// The request is PURGE, and its client itself is in a trusted network.
    may_purge: bool,
}

/// Parameters for accepting a request.
pub(super) struct Intake<'a> {
    pub(super) settings: &'a Settings,
    pub(super) buffers: &'a mut BufferPool,
    pub(super) rng: &'a mut fastrand::Rng,
    /// Rules of a HAProxy file decide which fields backends get.
    pub(super) is_ruled: bool,
    /// It may come without `Host`, as it has no route.
    pub(super) may_lack_host: bool,
    /// The arrival of the request in milliseconds since 1970, if backends get it (`server.requestStart`).
    pub(super) request_start: Option<u64>,
}

impl Request {
    /// Becomes the request with this head, and keeps the parts that matter.
    pub(super) fn take(
        &mut self,
        head: &RequestHead<'_, '_>,
        peer: &Peer,
        intake: Intake<'_>,
    ) -> Result<(), FailureReason> {
        let Intake { settings, buffers, rng, is_ruled, may_lack_host, request_start } = intake;
        let is_kept = || settings.forwarded.trusts(peer.address) && head.value_of("x-request-id").is_some();
        let request_id = (settings.request_id && !is_kept()).then(|| rng.u128(..));
        let is_said = || settings.forwarded.trusts(peer.address) && head.value_of("x-request-start").is_some();
        let request_start = request_start.filter(|_| !is_said());
        let (policy, via) = (&settings.forwarded, settings.node_via.as_deref());
        let forward = match is_ruled {
            false => ForwardContext { peer, policy, via, request_id, request_start, may_lack_host },
            true => {
                let (via, request_id, request_start) = (None, None, None);
                ForwardContext { peer, policy: &UNTOUCHED, via, request_id, request_start, may_lack_host }
            }
        };
        let mut buffer = buffers.take();
        let (capacity, written) = (buffer.capacity(), head.write(&forward, &mut buffer));
        buffers.note_growth(&buffer, capacity);
        let spans = match written {
            Ok(spans) => spans,
            Err(reason) => {
                buffers.give(buffer);
                return Err(reason);
            }
        };
        let flags = RequestFlags {
            is_head: head.method == "HEAD",
            keep_alive: head.keep_alive,
            idempotent: head.is_idempotent(),
            expects_continue: head.expects_continue,
            may_debug: head.wants_debug && settings.may_debug(peer),
            is_secure: head.came_encrypted(&forward),
            is_trusted: settings.forwarded.trusts(peer.address),
            may_purge: head.method == "PURGE" && head.is_of_trusted_client(&forward),
        };
        // Every field is set: nothing of an earlier request of this box remains.
        *self = Self {
            buffer,
            spans,
            version: head.version,
            flags,
            body: head.body,
            retention: Retention::All,
            client: is_ruled.then_some(peer.address),
            tls: peer.tls.clone(),
            recalled_chain: None,
        };
        Ok(())
    }

    /// A copy of a request without a body.
    pub(super) fn copy(&self, buffers: &mut BufferPool) -> Self {
        let mut buffer = buffers.take();
        buffers.extend(&mut buffer, self.buffer.prefix(self.spans.head.end()));
        Self { buffer, retention: Retention::All, tls: self.tls.clone(), ..*self }
    }

    /// A best-effort view of a request whose head is refused.
    pub(super) fn glimpsed(bytes: &[u8], peer: &Peer, intake: Intake<'_>) -> Option<Self> {
        let seen = LenientHead::of(bytes)?;
        let Intake { settings, buffers, .. } = intake;
        let may_debug = seen.wants_debug && settings.may_debug(peer);
        let mut buffer = buffers.take();
        buffers.extend(&mut buffer, seen.method);
        buffers.extend(&mut buffer, seen.target);
        let method = Span::new(0, seen.method.len());
        let target = Span::new(method.end(), buffer.len());
        Some(Self {
            buffer,
            spans: Spans { method, target, ..Spans::default() },
            version: seen.version,
            flags: RequestFlags { is_head: seen.method == b"HEAD", may_debug, ..RequestFlags::default() },
            body: BodyLength::None,
            tls: None,
            retention: Retention::Head,
            client: None,
            recalled_chain: None,
        })
    }

    /// Replaces the head by one of the same form and framing, before it is sent and while no body stands behind it.
    #[cold]
    pub(super) fn replace_head(&mut self, head: &[u8], buffers: &mut BufferPool) {
        let capacity = self.buffer.capacity();
        let start = self.spans.head.start();
        self.buffer.truncate(start);
        self.buffer.extend_from_slice(head);
        buffers.note_growth(&self.buffer, capacity);
        self.spans.head = Span::new(start, self.buffer.len());
        let line = head.prefix(memchr::memchr(b'\r', head).unwrap_or(head.len()));
        let method = memchr::memchr(b' ', line).unwrap_or(line.len());
        let target = (method + 1).min(line.len())..memchr::memrchr(b' ', line).unwrap_or(line.len());
        self.spans.method = Span::new(start, start + method);
        self.spans.target = Span::new(start + target.start, start + target.end.max(target.start));
        self.flags.idempotent = is_idempotent(line.prefix(method));
        let place = |name: &str| {
            let value = head_field::field(head, name)?;
            let at = start + (value.as_ptr() as usize).checked_sub(head.as_ptr() as usize)?;
            Some(Span::new(at, at + value.len()))
        };
        let Spans { referer, user_agent, upgrade, request_id, .. } = &mut self.spans;
        (*referer, *user_agent) = (place("Referer"), place("User-Agent"));
        (*upgrade, *request_id) = (place("Upgrade"), place("X-Request-Id"));
    }

    /// A request that another process has sent to a backend: the facts about it, and about its client's connection.
    pub(super) fn past(fields: &LogFields, is_http11: bool, keep_alive: bool, buffers: &mut BufferPool) -> Self {
        let version = if is_http11 { Version::Http11 } else { Version::Http10 };
        let flags = RequestFlags { keep_alive, ..RequestFlags::default() };
        Self { version, flags, ..Self::recalled(fields, buffers) }
    }

    /// Whether this is the host name.
    pub(super) fn is_for(&self, host: &str) -> bool {
        self.spans.host.of(&self.buffer) == host.as_bytes()
    }

    /// The host name: lower case, no port, no trailing dot.
    pub fn host(&self) -> &str {
        // `wire` writes the name in ASCII.
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

    /// The value of `X-Request-Id`, as the backend gets it.
    pub fn request_id(&self) -> Option<&[u8]> {
        self.spans.request_id.map(|span| span.of(&self.buffer))
    }

    /// Whether the client's version is HTTP/1.1.
    pub fn is_http11(&self) -> bool {
        self.version == Version::Http11
    }

    /// The value of `Upgrade`, if another protocol is requested.
    pub(super) fn offered_protocols(&self) -> Option<&[u8]> {
        self.spans.upgrade.map(|span| span.of(&self.buffer))
    }

    pub(super) fn is_head(&self) -> bool {
        self.flags.is_head
    }

    pub(super) fn body(&self) -> BodyLength {
        self.body
    }

    /// Whether the client wants to keep its connection.
    pub(super) fn keep_alive(&self) -> bool {
        self.flags.keep_alive
    }

    /// The `X-Forwarded-For` for backends, with the peer's address at its end; empty if there is none.
    pub fn forwarded_for(&self) -> &[u8] {
        if let Some(span) = self.recalled_chain {
            return span.of(&self.buffer);
        }
        const NAME: &[u8] = b"\r\nX-Forwarded-For: ";
        // It occurs once in the head: values received under this name are merged into it.
        let head = self.spans.head.of(&self.buffer);
        let Some(start) = memchr::memmem::find(head, NAME).map(|start| start + NAME.len()) else { return &[] };
        let value = head.suffix(start);
        value.prefix(memchr::memchr(b'\r', value).unwrap_or(value.len()))
    }

    pub(super) fn is_idempotent(&self) -> bool {
        self.flags.idempotent
    }

    pub(super) fn expects_continue(&self) -> bool {
        self.flags.expects_continue
    }

    /// Whether the client's connection is encrypted, to this node or to a trusted proxy in front.
    pub(super) fn is_secure(&self) -> bool {
        self.flags.is_secure
    }

    /// The server name of the client's TLS handshake, in lower case.
    pub(super) fn tls_name(&self) -> Option<&str> {
        self.tls.as_ref()?.server_name.as_deref()
    }

    /// Whether the connection was opened for another host, with a certificate that does not cover this one. A trusted
    /// proxy opens connections for all hosts.
    pub fn is_for_another_name(&self) -> bool {
        !self.flags.is_trusted && self.tls.as_ref().is_some_and(|tls| tls.is_for_another(self.host()))
    }

    /// Whether the client's connection comes from a trusted network.
    pub(super) fn is_trusted(&self) -> bool {
        self.flags.is_trusted
    }

    /// Whether the request is PURGE, from a client that is allowed to.
    pub(super) fn may_purge(&self) -> bool {
        self.flags.may_purge
    }

    /// The client, as reported by the trusted proxies in front of this node.
    pub(super) fn forwarded_client(&self, policy: &Policy) -> IpAddr {
        let unknown = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        self.client.unwrap_or_else(|| client_of(self.forwarded_for(), policy, unknown))
    }

    /// The head for backends.
    pub(super) fn head(&self) -> &[u8] {
        self.buffer.prefix(self.spans.head.end()).suffix(self.spans.head.start())
    }

    /// The value of the first field of this name.
    pub(super) fn header(&self, name: &str) -> Option<&[u8]> {
        head_field::field(self.head(), name)
    }

    /// The value of the first cookie of this name.
    pub(super) fn cookie(&self, name: &str) -> Option<&[u8]> {
        head_field::cookie(self.head(), name)
    }

    /// Whether the client asks for `X-Debug` headers and is allowed to.
    pub(super) fn may_debug(&self) -> bool {
        self.flags.may_debug
    }

    /// Whether everything that was sent so far is still kept.
    pub(super) fn is_whole(&self) -> bool {
        self.retention == Retention::All
    }

    /// Bytes of the head and of the body sent so far.
    pub(super) fn kept_len(&self) -> usize {
        self.buffer.len() - self.spans.head.start()
    }

    /// Writes the head for a backend, and the part of the body that was sent so far. `conditions`
    /// replace the client's, `host` replaces its `Host`.
    pub(super) fn write(&self, conditions: Option<&OwnConditions>, host: Option<&str>, out: &mut Vec<u8>) {
        match (conditions, host) {
            (None, None) => out.extend_from_slice(self.buffer.suffix(self.spans.head.start())),
            _ => {
                self.write_head_with(conditions, host, out);
                out.extend_from_slice(self.buffer.suffix(self.spans.head.end()));
            }
        }
    }

    #[cold]
    fn write_head_with(&self, conditions: Option<&OwnConditions>, host: Option<&str>, out: &mut Vec<u8>) {
        for line in self.head().split_inclusive(|byte| *byte == b'\n') {
            let name = line.prefix(memchr::memchr(b':', line).unwrap_or(0));
            let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
            match (conditions, host) {
                (_, Some(host)) if is("host") => {
                    out.extend_from_slice(b"Host: ");
                    out.extend_from_slice(host.as_bytes());
                    out.extend_from_slice(b"\r\n");
                }
                (Some(conditions), _) if line == b"\r\n" => {
                    out.extend_from_slice(&conditions.lines);
                    out.extend_from_slice(line);
                }
                (Some(conditions), _) if conditions.replaced.iter().any(|replaced| is(replaced)) => {}
                _ => out.extend_from_slice(line),
            }
        }
    }

    /// The buffer to which encoded body from up to `len` bytes of input may be added; `None` beyond the limit.
    pub(super) fn extend_replay(&mut self, len: usize, buffers: &mut BufferPool) -> Option<&mut Vec<u8>> {
        if self.is_whole() && self.buffer.len() + len > REPLAY_LIMIT {
            self.drop_replay(buffers);
        }
        self.is_whole().then_some(&mut self.buffer)
    }

    /// Drops the body: the request will not be retried, and only its head is kept, for the log.
    pub(super) fn drop_replay(&mut self, buffers: &mut BufferPool) {
        self.retention = Retention::Head;
        self.buffer.truncate(self.spans.head.end());
        buffers.shrink(&mut self.buffer);
    }

    /// Bytes kept beyond the allowance of every request.
    pub(super) fn buffered_bytes(&self) -> usize {
        self.buffer.len().saturating_sub(FRESH_CAPACITY)
    }

    /// The fields that the log needs.
    pub(super) fn log_fields(&self) -> LogFields {
        let Spans { host, method, target, referer, user_agent, request_id, .. } = self.spans;
        let [referer, user_agent, request_id] = [referer, user_agent, request_id].map(Option::unwrap_or_default);
        let texts = [host, method, target, referer, user_agent, request_id];
        let [host, method, target, referer, agent, id] = texts.map(|span| span.of(&self.buffer));
        LogFields::new([host, method, target, referer, agent, self.forwarded_for(), id])
    }

    /// A request of which only the fields for the log are known.
    pub(super) fn recalled(fields: &LogFields, buffers: &mut BufferPool) -> Self {
        let mut buffer = buffers.take();
        buffers.extend(&mut buffer, fields.bytes());
        let [host, method, target, referer, user_agent, chain, request_id] = fields.spans();
        let (referer, user_agent, request_id) = (Some(referer), Some(user_agent), Some(request_id));
        let spans = Spans { host, method, target, referer, user_agent, request_id, ..Spans::default() };
        // HTTP/1.0 has no tunnels (RFC 9110 section 7.8).
        let (version, retention, recalled_chain) = (Version::Http11, Retention::Head, Some(chain));
        Self { buffer, spans, version, retention, recalled_chain, ..Self::default() }
    }

    /// The buffer of its core that it holds.
    pub(super) fn lent(&self) -> BufferUsage {
        BufferUsage::of(&self.buffer)
    }

    /// Returns the buffer.
    pub(super) fn recycle(&mut self, buffers: &mut BufferPool) {
        buffers.give(std::mem::take(&mut self.buffer));
        self.tls = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access_log::TEXT_LIMIT_BYTES;

    #[test]
    fn log_fields_are_what_the_request_had() {
        let text = b"www.test GET /path from agent";
        let (referer, agent) = (Span::new(19, 23), Span::new(24, 29));
        for (referer, user_agent) in
            [(Some(referer), Some(agent)), (None, Some(agent)), (Some(referer), None), (None, None)]
        {
            let (host, method, target) = (Span::new(0, 8), Span::new(9, 12), Span::new(13, 18));
            let spans = Spans { host, method, target, referer, user_agent, ..Spans::default() };
            let request = Request { buffer: text.to_vec(), spans, version: Version::Http11, ..Request::default() };
            let mut buffers = BufferPool::default();
            let mut recalled = Request::recalled(&request.log_fields(), &mut buffers);
            assert_eq!(
                (recalled.host(), recalled.method(), recalled.target()),
                ("www.test", &b"GET"[..], &b"/path"[..])
            );
            let fields = |request: &Request| {
                [request.referer(), request.user_agent()].map(|text| text.unwrap_or_default().to_vec())
            };
            assert_eq!(fields(&recalled), fields(&request));
            assert!(recalled.is_http11());
            recalled.recycle(&mut buffers);
            assert_eq!(buffers.lent(), 0);
        }
    }

    #[test]
    fn log_fields_are_no_longer_than_the_log_has_them() {
        let text = vec![b'a'; 5 * 60_000];
        let [host, method, target, referer, agent] = std::array::from_fn(|n| Span::new(n * 60_000, (n + 1) * 60_000));
        let spans = Spans { host, method, target, referer: Some(referer), user_agent: Some(agent), ..Spans::default() };
        let log_fields = Request { buffer: text, spans, ..Request::default() }.log_fields();
        assert_eq!(log_fields.bytes().len(), 5 * (TEXT_LIMIT_BYTES + 1) + 6);
        let mut buffers = BufferPool::default();
        let recalled = Request::recalled(&log_fields, &mut buffers);
        assert!(recalled.target().len() > TEXT_LIMIT_BYTES, "the log has to see that it is cut");
    }
}
