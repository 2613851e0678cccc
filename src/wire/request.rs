//! The head of a request: read once, written once.

use super::body::{BodyLength, Framing};
use super::chunked::ChunkFault;
use super::field::{Connection, Field, list, number, put};
use super::forwarded::{self, Peer, Policy};
use super::lines::{self, Lines};
use super::{HeadFault, Version, host, upgrade};
use crate::base::cut::Cut;
use crate::base::reason::Reason;
use httparse::Header;

pub use super::lines::{Fields, Span, fields};

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
    /// All bytes of the head.
    source: &'b [u8],
    /// Where the request line begins, behind any blank lines.
    start: usize,
    fields: &'h [Header<'b>],
    kinds: &'h mut [Field],
    /// The value of `Host`.
    host: Option<&'b [u8]>,
    /// The value of `Upgrade`.
    offered: Option<&'b [u8]>,
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
    /// How many more hops a TRACE or OPTIONS may go (RFC 9110 section 7.6.2), where it says so.
    pub max_forwards: Option<u64>,
    /// The bytes of the target as it came.
    pub uri_len: usize,
    accepts_trailers: bool,
    connection: Connection,
    framing: Framing,
}

impl From<HeadFault> for Reason {
    /// What a fault means when it is the client's.
    fn from(fault: HeadFault) -> Self {
        match fault {
            HeadFault::Malformed => Self::MalformedHead,
            HeadFault::TooManyFields => Self::TooManyFields,
            HeadFault::Version => Self::UnknownVersion,
            HeadFault::Length => Self::AmbiguousLength,
            HeadFault::Coding => Self::UnknownCoding,
        }
    }
}

impl From<ChunkFault> for Reason {
    /// What a fault means when it is the client's.
    fn from(fault: ChunkFault) -> Self {
        match fault {
            ChunkFault::Malformed => Self::MalformedChunk,
            ChunkFault::Extensions => Self::ExtensionsTooLarge,
            ChunkFault::Trailers => Self::TrailersTooLarge,
        }
    }
}

impl<'h, 'b> RequestHead<'h, 'b> {
    /// Reads the head at the start of `bytes`; `None` while it is not complete.
    pub fn parse(bytes: &'b [u8], room: &'h mut Fields<'b>) -> Result<Option<Self>, Reason> {
        let mut request = httparse::Request::new(&mut []);
        let len = match request.parse_with_uninit_headers(bytes, &mut room.headers) {
            Ok(httparse::Status::Complete(len)) => len,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(error) => return Err(HeadFault::from(error).into()),
        };
        let source = bytes.before(len);
        let (Some(method), Some(target)) = (request.method, request.path) else { return Err(Reason::MalformedHead) };
        if !lines::end_in_crlf(source, method, request.headers) {
            return Err(Reason::MalformedHead);
        }
        check_method(method)?;
        let uri_len = target.len();
        let (authority, target) = split_target(method, target)?;
        let mut head = Self {
            method,
            target,
            authority,
            version: Version::from_minor(request.version),
            source,
            start: lines::place_of(method.as_bytes(), source).unwrap_or(0),
            fields: request.headers,
            kinds: lines::classify(request.headers, &mut room.kinds),
            host: None,
            offered: None,
            len,
            body: BodyLength::None,
            keep_alive: false,
            wants_upgrade: false,
            expects_continue: false,
            wants_debug: false,
            max_forwards: None,
            uri_len,
            accepts_trailers: false,
            connection: Connection::default(),
            framing: Framing::default(),
        };
        head.read_fields()?;
        Ok(Some(head))
    }

    fn read_fields(&mut self) -> Result<(), Reason> {
        let (mut hosts, mut upgrades, mut expectations) = (0, 0, 0);
        for (header, kind) in self.fields.iter().zip(&*self.kinds) {
            match kind {
                Field::Connection => self.connection.read(header.value)?,
                Field::ContentLength => self.framing.content_length(header.value)?,
                Field::TransferEncoding => self.framing.transfer_encoding(header.value)?,
                Field::Host => {
                    hosts += 1;
                    self.host = Some(header.value);
                }
                Field::Expect => {
                    expectations += 1;
                    self.expects_continue = header.value.eq_ignore_ascii_case(b"100-continue");
                }
                Field::Te => self.accepts_trailers |= list(header.value).any(|c| c.eq_ignore_ascii_case(b"trailers")),
                Field::Upgrade => {
                    upgrades += 1;
                    self.offered = Some(header.value);
                }
                Field::XDebug => self.wants_debug = true,
                Field::MaxForwards if matches!(self.method, "TRACE" | "OPTIONS") => {
                    let hops = number(header.value).filter(|_| self.max_forwards.is_none());
                    self.max_forwards = Some(hops.ok_or(Reason::MalformedHead)?);
                }
                _ => {}
            }
        }
        self.connection.mark_named(self.fields, self.kinds);
        if hosts > 1 || (hosts == 0 && self.version == Version::Http11) {
            return Err(Reason::BadHost);
        }
        self.body = self.framing.of_request(self.version)?;
        let is_http11 = self.version == Version::Http11;
        if self.method == "TRACE" && self.body != BodyLength::None {
            return Err(Reason::UnexpectedBody);
        }
        // HTTP/1.0 has no expectations, and there is but one to have (RFC 9110 section 10.1.1).
        if is_http11 && expectations > usize::from(self.expects_continue) {
            return Err(Reason::ExpectationFailed);
        }
        self.expects_continue &= is_http11 && self.body != BodyLength::None;
        self.keep_alive = !self.connection.close && (is_http11 || self.connection.keep_alive);
        // With a body on the way nobody could say where the other protocol begins. A second line could offer what the
        // first does not: then nothing is asked for.
        let may_upgrade = is_http11 && self.connection.upgrade && upgrades == 1 && self.body == BodyLength::None;
        self.wants_upgrade = may_upgrade && self.offered.is_some_and(upgrade::may_be_asked);
        Ok(())
    }

    /// How many lines there are.
    pub fn fields_len(&self) -> usize {
        self.fields.len()
    }

    /// Whether the method is safe to send twice (RFC 9110 section 9.2.2).
    pub fn is_idempotent(&self) -> bool {
        matches!(self.method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
    }

    /// Whether the client's connection is encrypted: to this node, or to a proxy in front that is trusted. What becomes
    /// of the proxy's headers is another matter.
    pub fn came_encrypted(&self, hop: &Hop<'_>) -> bool {
        let told = || {
            let proto = self.fields.iter().find(|header| Field::of(header.name) == Field::XForwardedProto);
            proto.is_some_and(|header| header.value.eq_ignore_ascii_case(b"https"))
        };
        hop.peer.secure || (hop.policy.trusts(hop.peer.address) && told())
    }

    /// Writes the name of the host that the request is for, as look-ups want it (see [`Spans::host`]).
    fn write_host(&self, out: &mut Vec<u8>) -> Result<(), Reason> {
        let stated = self.host;
        let value = match self.authority {
            Some(authority) => authority.as_bytes(),
            None => stated.ok_or(Reason::BadHost)?,
        };
        // A `Host` that an absolute target overrides has to be one all the same (RFC 9112 section 3.2).
        if let (Some(_), Some(stated)) = (self.authority, stated) {
            let start = out.len();
            host::write_name(stated, out).ok_or(Reason::BadHost)?;
            out.truncate(start);
        }
        host::write_name(value, out).ok_or(Reason::BadHost)
    }

    /// Writes the host's name and then the head in the form that goes to a backend, and says what stands where.
    pub fn write(&self, hop: &Hop<'_>, out: &mut Vec<u8>) -> Result<Spans, Reason> {
        let mut spans = Spans::default();
        let start = out.len();
        self.write_host(out)?;
        spans.host = Span::new(start, out.len());
        let head = out.len();
        let believed = hop.policy.believes(hop.peer.address);
        let mut lines = Lines::new(out, self.source);
        self.write_request_line(&mut lines, &mut spans);
        for (header, kind) in self.fields.iter().zip(&*self.kinds) {
            self.write_field(header, *kind, believed, &mut lines, &mut spans);
        }
        lines.flush();
        forwarded::put_fields(out, hop.peer, believed, self.fields);
        if let Some(via) = hop.via {
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

    fn write_request_line(&self, lines: &mut Lines<'_, 'b>, spans: &mut Spans) {
        let start = lines.len();
        let begins_with_path = self.target.starts_with(['/', '*']);
        let target = start + self.method.len() + 1;
        let target_end = target + self.target.len() + usize::from(!begins_with_path);
        spans.method = Span::new(start, start + self.method.len());
        spans.target = Span::new(target, target_end);
        if self.version == Version::Http11 && self.authority.is_none() {
            let line_len = target_end + b" HTTP/1.1\r\n".len() - start;
            return lines.keep_bytes(self.start..self.start + line_len);
        }
        lines.put_bytes(self.method.as_bytes());
        lines.put_bytes(if begins_with_path { b" " } else { b" /" });
        lines.put_bytes(self.target.as_bytes());
        lines.put_bytes(b" HTTP/1.1\r\n");
        if let (Some(authority), None) = (self.authority, self.host) {
            lines.put("Host", authority.as_bytes());
        }
    }

    fn write_field(
        &self,
        header: &Header<'b>,
        field: Field,
        believed: bool,
        lines: &mut Lines<'_, 'b>,
        spans: &mut Spans,
    ) {
        match field {
            Field::Connection
            | Field::KeepAlive
            | Field::ProxyConnection
            | Field::Te
            | Field::Upgrade
            | Field::Named => {}
            // A backend by CGI would make HTTP_PROXY of it, and its programs ask whom it names.
            Field::Proxy => {}
            Field::TransferEncoding => lines.put(header.name, b"chunked"),
            Field::ContentLength => lines.keep_number(header, self.framing.stated_length()),
            Field::Host => match self.authority {
                Some(authority) => lines.put(header.name, authority.as_bytes()),
                None => drop(lines.keep(header)),
            },
            // Nobody waits where nothing is to be sent.
            Field::Expect if !self.expects_continue => {}
            Field::MaxForwards => match self.max_forwards {
                Some(hops) => lines.put_number(header.name, hops.saturating_sub(1)),
                None => drop(lines.keep(header)),
            },
            // A backend that reads low lines as hyphens would read these as what this node writes or judges itself.
            Field::Lookalike => {}
            _ if !forwarded::passes(field, believed) => {}
            Field::Referer => spans.referer = Some(lines.keep(header)),
            Field::UserAgent => spans.user_agent = Some(lines.keep(header)),
            _ => drop(lines.keep(header)),
        }
    }
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spans {
    /// The host's name: lower case, no port, no trailing dot.
    pub host: Span,
    /// The head that goes to the backend.
    pub head: Span,
    /// The method.
    pub method: Span,
    /// The target.
    pub target: Span,
    /// The value of `Referer`.
    pub referer: Option<Span>,
    /// The value of `User-Agent`.
    pub user_agent: Option<Span>,
    /// The value of `Upgrade`, where it is passed on.
    pub upgrade: Option<Span>,
}

/// How long a target is of which the head has not come whole.
pub fn uri_len_so_far(bytes: &[u8]) -> usize {
    let line = bytes.trim_ascii_start();
    let mut words = line.split(|byte| byte.is_ascii_whitespace());
    words.nth(1).map_or(0, <[u8]>::len)
}

/// The longest method. Registered ones have at most 17 bytes.
const LONGEST_METHOD: usize = 32;

/// Methods that readers may know in any case. One that is spelt otherwise is another method to some and the same to
/// others, who would then differ about a body: who takes `head` for HEAD sends none.
const METHODS: [&str; 10] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "PRI"];

/// Whether a method may be passed on (RFC 9110 section 9.1).
fn check_method(method: &str) -> Result<(), Reason> {
    let is_misspelt = || METHODS.iter().any(|known| known.eq_ignore_ascii_case(method));
    let has_small_letters = method.bytes().any(|byte| byte.is_ascii_lowercase());
    if method == "CONNECT" || method.len() > LONGEST_METHOD || (has_small_letters && is_misspelt()) {
        return Err(Reason::MethodRefused);
    }
    Ok(())
}

/// Splits a target into the authority, of an absolute URL, and the path with its query (RFC 9112 section 3.2).
fn split_target<'b>(method: &str, target: &'b str) -> Result<(Option<&'b str>, &'b str), Reason> {
    if target.contains('#') {
        return Err(Reason::BadTarget);
    }
    if target.starts_with('/') || (target == "*" && method == "OPTIONS") {
        return Ok((None, target));
    }
    let strip = |scheme: &str| match target.split_at_checked(scheme.len()) {
        Some((start, rest)) if start.eq_ignore_ascii_case(scheme) => Some(rest),
        _ => None,
    };
    let rest = strip("http://").or_else(|| strip("https://")).ok_or(Reason::BadTarget)?;
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if authority.is_empty() || authority.contains('@') {
        return Err(Reason::BadTarget);
    }
    // OPTIONS without a path is about the server as a whole (RFC 9112 section 3.2.4).
    let path = if path.is_empty() && method == "OPTIONS" { "*" } else { path };
    Ok((Some(authority), path))
}
