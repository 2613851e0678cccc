//! The head of a request: parsed once, written once.

use super::body::{BodyLength, Framing};
use super::chunked::ChunkFault;
use super::field::{Connection, Field, list, number, put};
use super::field_lines::{FieldLine, FieldLines, Marks, Rewrite, place_in};
use super::forwarded::{self, Peer, Policy};
use super::request_line::{check_method, is_idempotent, split_target};
use super::version::{self, Odd};
use super::{HeadFault, Version, host, upgrade};
use crate::base::reason::FailureReason;
use crate::base::slice_ext::SliceExt;
use httparse::Header;
use std::mem::MaybeUninit;

pub use super::field_lines::{Fields, Span, fields, most_fields};

/// A parsed head, as received.
#[derive(Debug)]
pub struct RequestHead<'h, 'b> {
    /// The method in its original case: methods are case-sensitive.
    pub method: &'b str,
    /// The target in origin form, or `*`; empty for an absolute URL without a path, which means `/`.
    target: &'b str,
    /// The authority of a target in absolute form. It overrides `Host` (RFC 9112 section 3.2.2).
    authority: Option<&'b str>,
    /// The client's version.
    pub version: Version,
    /// Position of the request line, behind any blank lines.
    start: usize,
    lines: FieldLines<'h, 'b>,
    /// The value of `Host`.
    host: Option<&'b [u8]>,
    /// The value of `Upgrade`.
    offered: Option<&'b [u8]>,
    /// Length of the head in bytes, blank line included.
    pub len: usize,
    /// The kind of body.
    pub body: BodyLength,
    /// Whether the client wants to keep the connection.
    pub keep_alive: bool,
    /// Whether the request asks for another protocol and may do so.
    pub wants_upgrade: bool,
    /// Whether the client waits for a 100 before it sends the body (RFC 9110 section 10.1.1).
    pub expects_continue: bool,
    /// Whether there is an `X-Debug`.
    pub wants_debug: bool,
    /// The remaining hops of a TRACE or OPTIONS (RFC 9110 section 7.6.2), if stated.
    pub max_forwards: Option<u64>,
    /// Length of the target as received, in bytes.
    pub uri_len: usize,
    has_via: bool,
    accepts_trailers: bool,
    framing: Framing,
}

impl From<HeadFault> for FailureReason {
    /// Maps a fault of a head to the reason for a client.
    fn from(fault: HeadFault) -> Self {
        match fault {
            HeadFault::Malformed => Self::MalformedHead,
            HeadFault::TooManyHeaders => Self::TooManyHeaders,
            HeadFault::Version => Self::UnknownVersion,
            HeadFault::Length => Self::AmbiguousLength,
            HeadFault::Coding => Self::UnknownCoding,
        }
    }
}

impl From<ChunkFault> for FailureReason {
    /// Maps a fault of the chunked coding to the reason for a client.
    fn from(fault: ChunkFault) -> Self {
        match fault {
            ChunkFault::Malformed => Self::MalformedChunk,
            ChunkFault::Extensions => Self::ExtensionsTooLarge,
            ChunkFault::Trailers => Self::TrailersTooLarge,
        }
    }
}

impl<'h, 'b> RequestHead<'h, 'b> {
    /// Parses the head at the start of `bytes`; `None` while it is not complete.
    ///
    /// On [`FailureReason::TooManyHeaders`] the caller may retry with more room (see [`most_fields`]), and on
    /// [`FailureReason::UnknownVersion`] with the head that [`version::as_http11`] returns.
    #[inline]
    pub fn parse<const N: usize>(bytes: &'b [u8], room: &'h mut Fields<'b, N>) -> Result<Option<Self>, FailureReason> {
        Self::parse_in(bytes, &mut room.headers, &mut room.marks)
    }

    fn parse_in(
        bytes: &'b [u8],
        headers: &'h mut [MaybeUninit<Header<'b>>],
        marks: &'h mut Marks,
    ) -> Result<Option<Self>, FailureReason> {
        let mut request = httparse::Request::new(&mut []);
        let len = match request.parse_with_uninit_headers(bytes, headers) {
            Ok(httparse::Status::Complete(len)) => len,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(httparse::Error::Version) => {
                return match version::judge(bytes) {
                    Odd::Incomplete => Ok(None),
                    Odd::Malformed => Err(FailureReason::MalformedHead),
                    Odd::Unknown => Err(FailureReason::UnknownVersion),
                };
            }
            Err(error) => return Err(HeadFault::from(error).into()),
        };
        let source = bytes.prefix(len);
        let (Some(method), Some(target)) = (request.method, request.path) else {
            return Err(FailureReason::MalformedHead);
        };
        let start = place_in(source, method.as_bytes());
        let mut lines = FieldLines::new(source, request.headers, marks);
        if !lines.read(start) {
            return Err(FailureReason::MalformedHead);
        }
        check_method(method)?;
        let uri_len = target.len();
        let (authority, target) = split_target(method, target)?;
        let version = Version::from_minor(request.version);
        let mut parsed = ParsedFields::default();
        parsed.read(&lines, method)?;
        if parsed.connection.names_fields {
            lines.mark_named();
        }
        let body = parsed.body(method, version)?;
        let is_http11 = version == Version::Http11;
        // HTTP/1.0 has no expectations, and there is only one expectation (RFC 9110 section 10.1.1).
        if is_http11 && parsed.expectations > usize::from(parsed.expects_continue) {
            return Err(FailureReason::ExpectationFailed);
        }
        Ok(Some(Self {
            method,
            target,
            authority,
            version,
            start,
            host: parsed.host,
            offered: parsed.offered,
            len,
            body,
            keep_alive: !parsed.connection.close && (is_http11 || parsed.connection.keep_alive),
            wants_upgrade: is_http11 && body == BodyLength::None && parsed.wants_upgrade(),
            expects_continue: is_http11 && body != BodyLength::None && parsed.expects_continue,
            wants_debug: parsed.wants_debug,
            max_forwards: parsed.max_forwards,
            uri_len,
            has_via: parsed.has_via,
            accepts_trailers: parsed.accepts_trailers,
            framing: parsed.framing,
            lines,
        }))
    }

    /// Number of lines.
    pub fn fields_len(&self) -> usize {
        self.lines.len()
    }

    /// The value of the first line with this name, regardless of case.
    pub fn value_of(&self, name: &str) -> Option<&'b [u8]> {
        self.lines.value_of(name)
    }

    /// Whether the request may be sent twice.
    pub fn is_idempotent(&self) -> bool {
        is_idempotent(self.method.as_bytes())
    }

    /// Whether the client's connection is encrypted, to this node or to a trusted proxy in front. The handling of that
    /// proxy's headers does not matter here.
    pub fn came_encrypted(&self, forward: &ForwardContext<'_>) -> bool {
        let told = || {
            let proto = self.lines.of(Field::XForwardedProto).next();
            proto.is_some_and(|header| header.value.eq_ignore_ascii_case(b"https"))
        };
        forward.peer.secure || (forward.policy.trusts(forward.peer.address) && told())
    }

    /// Whether the client itself is in a trusted network, rather than behind a proxy in one.
    #[cold]
    pub fn is_of_trusted_client(&self, forward: &ForwardContext<'_>) -> bool {
        let mut chain = self.lines.of(Field::XForwardedFor).flat_map(|header| list(header.value));
        forward.policy.trusts(forward.peer.address) && chain.all(|item| forwarded::is_trusted(item, forward.policy))
    }

    /// Writes the name of the host, in the form used for look-ups (see [`Spans::host`]).
    fn write_host(&self, may_lack_host: bool, out: &mut Vec<u8>) -> Result<(), FailureReason> {
        let stated = self.host;
        let value = match (self.authority, stated) {
            (Some(authority), _) => authority.as_bytes(),
            (None, Some(stated)) => stated,
            (None, None) if may_lack_host => return Ok(()),
            (None, None) => return Err(FailureReason::BadHost),
        };
        // A `Host` that an absolute target overrides must still be valid (RFC 9112 section 3.2).
        if let (Some(_), Some(stated)) = (self.authority, stated) {
            let start = out.len();
            host::write_name(stated, out).ok_or(FailureReason::BadHost)?;
            out.truncate(start);
        }
        host::write_name(value, out).ok_or(FailureReason::BadHost)
    }

    /// Whether a `Via` names this hop, so the request loops. An entry is the version, the name and an optional comment
    /// (RFC 9110 section 7.6.3).
    #[cold]
    fn came_through(&self, via: &str) -> bool {
        let words = |entry: &'b [u8]| entry.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let entries = self.lines.of(Field::Via).flat_map(|header| list(header.value));
        entries.filter_map(|entry| words(entry).nth(1)).any(|name| name == via.as_bytes())
    }

    /// Writes the host name, then the head for a backend, and returns the positions in the output. A looping request is
    /// refused ([`FailureReason::LoopDetected`]).
    pub fn write(&self, forward: &ForwardContext<'_>, out: &mut Vec<u8>) -> Result<Spans, FailureReason> {
        if self.has_via && forward.via.is_some_and(|via| self.came_through(via)) {
            return Err(FailureReason::LoopDetected);
        }
        let mut spans = Spans::default();
        let start = out.len();
        self.write_host(forward.may_lack_host, out)?;
        spans.host = Span::new(start, out.len());
        let head = out.len();
        let is_untouched = forward.policy.mode == forwarded::Mode::Untouched;
        let trusted = is_untouched || forward.policy.accepts_values_from(forward.peer.address);
        self.write_request_line(out, &mut spans).fields(|rewrite, line| {
            self.write_field(line, trusted, rewrite, (forward, &mut spans));
        });
        if let Some(id) = forward.request_id {
            put_request_id(out, id, &mut spans);
        }
        if let Some(millis) = forward.request_start {
            out.extend_from_slice(b"X-Request-Start: t=");
            out.extend_from_slice(itoa::Buffer::new().format(millis).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        if !is_untouched {
            forwarded::put_fields(out, forward.peer, trusted, &self.lines);
        }
        if let Some(via) = forward.via {
            let version: &[u8] = if self.version == Version::Http10 { b"Via: 1.0 " } else { b"Via: 1.1 " };
            out.extend_from_slice(version);
            out.extend_from_slice(via.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        match self.offered {
            Some(offered) if self.wants_upgrade => {
                out.extend_from_slice(b"Connection: Upgrade\r\n");
                put(out, "Upgrade", offered);
                let end = out.len() - 2;
                spans.upgrade = Some(Span::new(end - offered.len(), end));
            }
            _ if self.accepts_trailers => out.extend_from_slice(b"Connection: TE\r\nTE: trailers\r\n"),
            _ => {}
        }
        out.extend_from_slice(b"\r\n");
        spans.head = Span::new(head, out.len());
        Ok(spans)
    }

    /// Writes the request line, or leaves it to be copied unchanged with the fields.
    fn write_request_line<'o>(&'o self, out: &'o mut Vec<u8>, spans: &mut Spans) -> Rewrite<'o, 'h, 'b> {
        let start = out.len();
        let begins_with_path = matches!(self.target.as_bytes(), [b'/' | b'*', ..]);
        let target = start + self.method.len() + 1;
        let target_end = target + self.target.len() + usize::from(!begins_with_path);
        spans.method = Span::new(start, start + self.method.len());
        spans.target = Span::new(target, target_end);
        if self.version == Version::Http11 && self.authority.is_none() {
            return Rewrite::new(out, &self.lines, self.start);
        }
        out.extend_from_slice(self.method.as_bytes());
        out.extend_from_slice(if begins_with_path { b" " } else { b" /" });
        out.extend_from_slice(self.target.as_bytes());
        out.extend_from_slice(b" HTTP/1.1\r\n");
        match (self.authority, self.host) {
            (Some(authority), None) => put(out, "Host", authority.as_bytes()),
            // A request of HTTP/1.1 has a `Host`, if need be an empty one (RFC 9110 section 7.2).
            (None, None) => put(out, "Host", b""),
            _ => {}
        }
        Rewrite::new(out, &self.lines, self.lines.start())
    }

    fn write_field(
        &self,
        line: FieldLine<'h, 'b>,
        trusted: bool,
        rewrite: &mut Rewrite<'_, 'h, 'b>,
        (forward, spans): (&ForwardContext<'_>, &mut Spans),
    ) {
        match line.field() {
            Field::Connection
            | Field::KeepAlive
            | Field::ProxyConnection
            | Field::Te
            | Field::Upgrade
            | Field::ConnectionOption => rewrite.leave_out(line),
            // A CGI backend would set HTTP_PROXY from it, and its programs would use that proxy.
            Field::Proxy => rewrite.leave_out(line),
            Field::TransferEncoding => rewrite.replace(line, b"chunked"),
            Field::ContentLength => rewrite.keep_number(line, self.framing.stated_length()),
            Field::Host => match self.authority {
                Some(authority) => rewrite.replace(line, authority.as_bytes()),
                None => drop(rewrite.keep(line)),
            },
            // Without a body there is nothing to wait for.
            Field::Expect if !self.expects_continue || list(line.value()).next().is_none() => rewrite.leave_out(line),
            Field::Expect if line.value().contains(&b',') => rewrite.replace(line, b"100-continue"),
            Field::MaxForwards => match self.max_forwards {
                Some(hops) => rewrite.replace_number(line, hops.saturating_sub(1)),
                None => drop(rewrite.keep(line)),
            },
            // A backend that reads `_` as a hyphen would take it for a field that this node writes or judges.
            Field::HyphenVariant => rewrite.leave_out(line),
            field if !forwarded::passes(field, trusted) && forward.policy.mode != forwarded::Mode::Untouched => {
                rewrite.leave_out(line)
            }
            Field::XRequestId if forward.request_id.is_some() => rewrite.leave_out(line),
            Field::XRequestStart if forward.request_start.is_some() => rewrite.leave_out(line),
            Field::XRequestId => spans.request_id = Some(rewrite.keep(line)),
            Field::Referer => spans.referer = Some(rewrite.keep(line)),
            Field::UserAgent => spans.user_agent = Some(rewrite.keep(line)),
            _ => drop(rewrite.keep(line)),
        }
    }
}

/// The statements of the fields of a head, each by itself.
#[derive(Default)]
struct ParsedFields<'b> {
    connection: Connection,
    framing: Framing,
    host: Option<&'b [u8]>,
    hosts: usize,
    offered: Option<&'b [u8]>,
    upgrades: usize,
    expects_continue: bool,
    expectations: usize,
    wants_debug: bool,
    has_via: bool,
    max_forwards: Option<u64>,
    accepts_trailers: bool,
}

impl<'b> ParsedFields<'b> {
    fn read(&mut self, lines: &FieldLines<'_, 'b>, method: &str) -> Result<(), FailureReason> {
        for (field, header) in lines.known() {
            match field {
                Field::Connection => self.connection.read(header.value)?,
                Field::ContentLength => self.framing.content_length(header.value)?,
                Field::TransferEncoding => self.framing.transfer_encoding(header.value)?,
                Field::Host => {
                    self.hosts += 1;
                    self.host = Some(header.value);
                }
                Field::Expect => {
                    for expectation in list(header.value) {
                        self.expectations += 1;
                        self.expects_continue = expectation.eq_ignore_ascii_case(b"100-continue");
                    }
                }
                Field::Te => self.accepts_trailers |= list(header.value).any(|c| c.eq_ignore_ascii_case(b"trailers")),
                Field::Upgrade => {
                    self.upgrades += 1;
                    self.offered = Some(header.value);
                }
                Field::XDebug => self.wants_debug = true,
                Field::Via => self.has_via = true,
                Field::MaxForwards if matches!(method, "TRACE" | "OPTIONS") => {
                    let hops = number(header.value).filter(|_| self.max_forwards.is_none());
                    self.max_forwards = Some(hops.ok_or(FailureReason::MalformedHead)?);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The kind of body of a head that has the `Host` it needs.
    fn body(&self, method: &str, version: Version) -> Result<BodyLength, FailureReason> {
        if self.hosts > 1 || (self.hosts == 0 && version == Version::Http11) {
            return Err(FailureReason::BadHost);
        }
        let body = self.framing.of_request(version)?;
        if method == "TRACE" && body != BodyLength::None {
            return Err(FailureReason::UnexpectedBody);
        }
        Ok(body)
    }

    /// Whether the request asks for another protocol and may do so. A second `Upgrade` line could offer another protocol
    /// than the first, so it requests none.
    fn wants_upgrade(&self) -> bool {
        self.connection.upgrade && self.upgrades == 1 && self.offered.is_some_and(upgrade::may_be_asked)
    }
}

/// Facts about this hop for writing a head.
#[derive(Clone, Copy, Debug)]
pub struct ForwardContext<'a> {
    /// The client.
    pub peer: &'a Peer,
    /// The trusted networks.
    pub policy: &'a Policy,
    /// The pseudonym in `Via`, unique to this hop; `None` adds none and disables loop detection.
    pub via: Option<&'a str>,
    /// The `X-Request-Id` to set, in place of a received one; `None` leaves it unchanged.
    pub request_id: Option<u128>,
    /// The `X-Request-Start` to set, in milliseconds since 1970, in place of a received one; `None` leaves it
    /// unchanged.
    pub request_start: Option<u64>,
    /// Whether a request of HTTP/1.0 may omit `Host`, because routing does not need it.
    pub may_lack_host: bool,
}

/// Positions in the output of [`RequestHead::write`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spans {
    /// The host name: lower case, no port, no trailing dot.
    pub host: Span,
    /// The head for the backend.
    pub head: Span,
    /// The method.
    pub method: Span,
    /// The target.
    pub target: Span,
    /// The value of `Referer`.
    pub referer: Option<Span>,
    /// The value of `User-Agent`.
    pub user_agent: Option<Span>,
    /// The value of `Upgrade`, if it is forwarded.
    pub upgrade: Option<Span>,
    /// The value of `X-Request-Id`.
    pub request_id: Option<Span>,
}

/// Writes 32 hexadecimal digits.
#[cold]
fn put_request_id(out: &mut Vec<u8>, id: u128, spans: &mut Spans) {
    put(out, "X-Request-Id", format!("{id:032x}").as_bytes());
    let end = out.len() - 2;
    spans.request_id = Some(Span::new(end - 32, end));
}

/// Length of the target so far, in a head that is not complete.
pub fn uri_len_so_far(bytes: &[u8]) -> usize {
    let line = bytes.trim_ascii_start();
    let mut words = line.split(|byte| byte.is_ascii_whitespace());
    words.nth(1).map_or(0, <[u8]>::len)
}
