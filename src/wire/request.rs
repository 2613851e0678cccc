//! The head of a request: read once, written once.

use super::body::{BodyLength, Framing};
use super::field::{Connection, Field, list, put, put_number};
use super::forwarded::{self, Peer, Policy};
use super::{HeadFault, MAX_FIELDS, Version, host, lines_end_in_crlf, upgrade};
use crate::base::reason::Reason;
use httparse::Header;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Room for the lines of a head while it is read.
pub type Fields<'b> = [MaybeUninit<Header<'b>>; MAX_FIELDS];

/// Room for the lines of a head.
pub const fn fields<'b>() -> Fields<'b> {
    [const { MaybeUninit::uninit() }; MAX_FIELDS]
}

/// A head as it came, and what it says that matters here.
#[derive(Debug)]
pub struct RequestHead<'h, 'b> {
    /// The method, in the case in which it came: methods are case-sensitive.
    pub method: &'b str,
    /// The target in origin form, or `*`; empty where an absolute URL has no path, which means `/`.
    target: &'b str,
    /// The authority of a target in absolute form. It overrides `Host` (RFC 9112 section 3.2.2).
    authority: Option<&'b str>,
    /// The version the client speaks.
    pub version: Version,
    fields: &'h [Header<'b>],
    /// The bytes of the head, blank line included.
    pub len: usize,
    /// How the body's end is known.
    pub body: BodyLength,
    /// Whether the client wants to keep the connection.
    pub keep_alive: bool,
    /// Whether another protocol is asked for that may be asked for.
    pub wants_upgrade: bool,
    /// Whether the client waits for a 100 before it sends the body (RFC 9110 section 10.1.1).
    pub expects_continue: bool,
    /// Whether there is an `X-Debug`.
    pub wants_debug: bool,
    accepts_trailers: bool,
    connection: Connection,
    framing: Framing,
}

impl From<HeadFault> for Reason {
    /// What a fault means when it is the client's.
    fn from(fault: HeadFault) -> Self {
        match fault {
            HeadFault::Malformed => Self::MalformedHead,
            HeadFault::TooManyFields => Self::HeadTooLarge,
            HeadFault::Version => Self::UnknownVersion,
            HeadFault::Length => Self::AmbiguousLength,
            HeadFault::Coding => Self::UnknownCoding,
        }
    }
}

impl<'h, 'b> RequestHead<'h, 'b> {
    /// Reads the head at the start of `bytes`; `None` while it is not complete.
    pub fn parse(bytes: &'b [u8], room: &'h mut Fields<'b>) -> Result<Option<Self>, Reason> {
        let mut request = httparse::Request::new(&mut []);
        let len = match request.parse_with_uninit_headers(bytes, room) {
            Ok(httparse::Status::Complete(len)) => len,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(error) => return Err(HeadFault::from(error).into()),
        };
        if !lines_end_in_crlf(&bytes[..len]) {
            return Err(Reason::MalformedHead);
        }
        let (Some(method), Some(target)) = (request.method, request.path) else { return Err(Reason::MalformedHead) };
        let (authority, target) = split_target(method, target)?;
        let mut head = Self {
            method,
            target,
            authority,
            version: Version::from_minor(request.version),
            fields: request.headers,
            len,
            body: BodyLength::None,
            keep_alive: false,
            wants_upgrade: false,
            expects_continue: false,
            wants_debug: false,
            accepts_trailers: false,
            connection: Connection::default(),
            framing: Framing::default(),
        };
        head.read_fields()?;
        Ok(Some(head))
    }

    fn read_fields(&mut self) -> Result<(), Reason> {
        let mut offered = None;
        let mut hosts = 0;
        for header in self.fields {
            match Field::of(header.name) {
                Field::Connection => self.connection.read(header.value),
                Field::ContentLength => self.framing.content_length(header.value)?,
                Field::TransferEncoding => self.framing.transfer_encoding(header.value)?,
                Field::Host => hosts += 1,
                Field::Expect => self.expects_continue |= header.value.eq_ignore_ascii_case(b"100-continue"),
                Field::Te => self.accepts_trailers |= list(header.value).any(|c| c.eq_ignore_ascii_case(b"trailers")),
                Field::Upgrade => offered = Some(header.value),
                Field::XDebug => self.wants_debug = true,
                _ => {}
            }
        }
        if hosts > 1 || (hosts == 0 && self.version == Version::Http11) {
            return Err(Reason::BadHost);
        }
        self.body = self.framing.of_request(self.version)?;
        let is_http11 = self.version == Version::Http11;
        self.expects_continue &= is_http11 && self.body != BodyLength::None;
        self.keep_alive = !self.connection.close && (is_http11 || self.connection.keep_alive);
        // With a body on the way nobody could say where the other protocol begins.
        let may_upgrade = is_http11 && self.connection.upgrade && self.body == BodyLength::None;
        self.wants_upgrade = may_upgrade && offered.is_some_and(upgrade::may_be_asked);
        Ok(())
    }

    /// Whether the method is safe to send twice (RFC 9110 section 9.2.2).
    pub fn is_idempotent(&self) -> bool {
        matches!(self.method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
    }

    /// Writes the name of the host that the request is for, as look-ups want it (see [`Spans::host`]).
    fn write_host(&self, out: &mut Vec<u8>) -> Result<(), Reason> {
        let value = match self.authority {
            Some(authority) => authority.as_bytes(),
            None => self.value_of(Field::Host).ok_or(Reason::BadHost)?,
        };
        host::write_name(value, out).ok_or(Reason::BadHost)
    }

    fn value_of(&self, field: Field) -> Option<&'b [u8]> {
        self.fields.iter().find(|header| Field::of(header.name) == field).map(|header| header.value)
    }

    /// Writes the host's name and then the head in the form that goes to a backend, and says what stands where.
    pub fn write(&self, hop: &Hop<'_>, out: &mut Vec<u8>) -> Result<Spans, Reason> {
        let mut spans = Spans::default();
        let start = out.len();
        self.write_host(out)?;
        spans.host = start..out.len();
        spans.head.start = out.len();
        self.write_request_line(out, &mut spans);
        let believed = hop.policy.believes(hop.peer.address);
        for header in self.fields {
            self.write_field(header, believed, out, &mut spans);
        }
        forwarded::put_fields(out, hop.peer, believed, self.fields);
        if let Some(via) = hop.via {
            let version: &[u8] = if self.version == Version::Http10 { b"Via: 1.0 " } else { b"Via: 1.1 " };
            out.extend_from_slice(version);
            out.extend_from_slice(via.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        match self.value_of(Field::Upgrade) {
            Some(offered) if self.wants_upgrade => {
                put(out, "Connection", b"Upgrade");
                put(out, "Upgrade", offered);
                spans.upgrade = value_span(out, offered);
            }
            _ if self.accepts_trailers => out.extend_from_slice(b"Connection: TE\r\nTE: trailers\r\n"),
            _ => {}
        }
        out.extend_from_slice(b"\r\n");
        spans.head.end = out.len();
        Ok(spans)
    }

    fn write_request_line(&self, out: &mut Vec<u8>, spans: &mut Spans) {
        spans.method = out.len()..out.len() + self.method.len();
        out.extend_from_slice(self.method.as_bytes());
        out.push(b' ');
        let target = out.len();
        if !self.target.starts_with(['/', '*']) {
            out.push(b'/');
        }
        out.extend_from_slice(self.target.as_bytes());
        spans.target = target..out.len();
        out.extend_from_slice(b" HTTP/1.1\r\n");
        if let (Some(authority), None) = (self.authority, self.value_of(Field::Host)) {
            put(out, "Host", authority.as_bytes());
        }
    }

    fn write_field(&self, header: &Header<'b>, believed: bool, out: &mut Vec<u8>, spans: &mut Spans) {
        let field = Field::of(header.name);
        match field {
            Field::Connection | Field::KeepAlive | Field::ProxyConnection | Field::Te | Field::Upgrade => {}
            Field::TransferEncoding => put(out, header.name, b"chunked"),
            Field::ContentLength => put_number(out, header.name, self.framing.stated_length().unwrap_or(0)),
            Field::Host => put(out, header.name, self.authority.map_or(header.value, str::as_bytes)),
            Field::Expect if self.version == Version::Http10 => {}
            _ if !forwarded::passes(field, believed) => {}
            _ if self.connection.names(field, header.name, self.fields) => {}
            Field::Referer | Field::UserAgent => {
                put(out, header.name, header.value);
                let span = value_span(out, header.value);
                *if field == Field::Referer { &mut spans.referer } else { &mut spans.user_agent } = span;
            }
            _ => put(out, header.name, header.value),
        }
    }
}

/// Where the value of the line just written stands.
fn value_span(out: &[u8], value: &[u8]) -> Option<Range<usize>> {
    let end = out.len() - 2;
    Some(end - value.len()..end)
}

/// What the writing of a head needs to know of this hop.
#[derive(Clone, Copy, Debug)]
pub struct Hop<'a> {
    /// The client.
    pub peer: &'a Peer,
    /// Whom to believe.
    pub policy: &'a Policy,
    /// The pseudonym in `Via`.
    pub via: Option<&'a str>,
}

/// What stands where in the output of [`RequestHead::write`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spans {
    /// The host's name: lower case, no port, no trailing dot.
    pub host: Range<usize>,
    /// The head that goes to the backend.
    pub head: Range<usize>,
    /// The method.
    pub method: Range<usize>,
    /// The target.
    pub target: Range<usize>,
    /// The value of `Referer`.
    pub referer: Option<Range<usize>>,
    /// The value of `User-Agent`.
    pub user_agent: Option<Range<usize>>,
    /// The value of `Upgrade`, where it is passed on.
    pub upgrade: Option<Range<usize>>,
}

/// Splits a target into the authority, of an absolute URL, and the path with its query (RFC 9112 section 3.2).
fn split_target<'b>(method: &str, target: &'b str) -> Result<(Option<&'b str>, &'b str), Reason> {
    if method == "CONNECT" {
        return Err(Reason::MethodRefused);
    }
    if target.contains('#') {
        return Err(Reason::BadTarget);
    }
    if target.starts_with('/') || (target == "*" && method == "OPTIONS") {
        return Ok((None, target));
    }
    let strip = |scheme: &str| match target.get(..scheme.len()) {
        Some(start) if start.eq_ignore_ascii_case(scheme) => Some(&target[scheme.len()..]),
        _ => None,
    };
    let rest = strip("http://").or_else(|| strip("https://")).ok_or(Reason::BadTarget)?;
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if authority.is_empty() || authority.contains('@') {
        return Err(Reason::BadTarget);
    }
    Ok((Some(authority), path))
}
