//! The head of a response: parsed once, written once.

use super::body::{BodyLength, Framing};
use super::field::{Connection, Field, list, number, put};
use super::field_lines::{FieldLine, FieldLines, Marks, Rewrite};
use super::request::Fields;
use super::{HeadFault, Version};
use crate::base::slice_ext::SliceExt;
use httparse::Header;
use std::mem::MaybeUninit;

/// A parsed head, as received.
#[derive(Debug)]
pub struct ResponseHead<'h, 'b> {
    /// The status, from 100 to 999.
    pub status: u16,
    phrase: &'b str,
    version: Version,
    lines: FieldLines<'h, 'b>,
    /// Length of the head in bytes, blank line included.
    pub len: usize,
    /// The kind of body.
    pub body: BodyLength,
    /// Whether the backend keeps the connection open behind this response.
    pub keep_alive: bool,
    /// Whether the response has a `Retry-After`.
    pub retry_after: bool,
    /// Seconds for which the backend keeps an idle connection, if stated (`Keep-Alive: timeout=5`).
    pub idle_seconds: Option<u16>,
    connection: Connection,
    framing: Framing,
}

impl<'h, 'b> ResponseHead<'h, 'b> {
    /// Parses the head at the start of `bytes`; `None` while it is not complete. `to_head`: the request was HEAD.
    ///
    /// On [`HeadFault::TooManyHeaders`] the caller may retry with more room
    /// ([`most_fields`](super::request::most_fields)), and on [`HeadFault::Version`] with the head that
    /// [`as_http11`](super::version::as_http11) returns.
    #[inline]
    pub fn parse<const N: usize>(
        bytes: &'b [u8],
        room: &'h mut Fields<'b, N>,
        to_head: bool,
    ) -> Result<Option<Self>, HeadFault> {
        Self::parse_in(bytes, &mut room.headers, &mut room.marks, to_head)
    }

    fn parse_in(
        bytes: &'b [u8],
        headers: &'h mut [MaybeUninit<Header<'b>>],
        marks: &'h mut Marks,
        to_head: bool,
    ) -> Result<Option<Self>, HeadFault> {
        // Only a request may have blank lines before it (RFC 9112 section 2.2). Before a response they are the rest of
        // an earlier one.
        if bytes.first().is_some_and(|byte| *byte != b'H') {
            return Err(HeadFault::Malformed);
        }
        let mut response = httparse::Response::new(&mut []);
        let parser = httparse::ParserConfig::default();
        let len = match parser.parse_response_with_uninit_headers(&mut response, bytes, headers) {
            Ok(httparse::Status::Complete(len)) => len,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let status = response.code.filter(|status| *status >= 100).ok_or(HeadFault::Malformed)?;
        let mut lines = FieldLines::new(bytes.prefix(len), response.headers, marks);
        if !lines.read(0) {
            return Err(HeadFault::Malformed);
        }
        let mut head = Self {
            status,
            phrase: response.reason.unwrap_or_default(),
            version: Version::from_minor(response.version),
            lines,
            len,
            body: BodyLength::None,
            keep_alive: false,
            retry_after: false,
            idle_seconds: None,
            connection: Connection::default(),
            framing: Framing::default(),
        };
        head.read_fields(to_head)?;
        Ok(Some(head))
    }

    fn read_fields(&mut self, to_head: bool) -> Result<(), HeadFault> {
        for (field, header) in self.lines.known() {
            match field {
                Field::Connection => self.connection.read(header.value)?,
                Field::ContentLength => self.framing.content_length(header.value)?,
                Field::TransferEncoding => self.framing.transfer_encoding(header.value)?,
                Field::RetryAfter => self.retry_after = true,
                Field::KeepAlive => self.idle_seconds = idle_seconds(header.value),
                _ => {}
            }
        }
        if self.connection.names_fields {
            self.lines.mark_named();
        }
        self.body = self.framing.of_response(self.version, self.status, to_head)?;
        let persists = self.version == Version::Http11 || self.connection.keep_alive;
        self.keep_alive = persists && !self.connection.close && self.body != BodyLength::UntilClose;
        Ok(())
    }

    /// Whether the backend's version is HTTP/1.1.
    pub fn is_http11(&self) -> bool {
        self.version == Version::Http11
    }

    /// Number of lines.
    pub fn fields_len(&self) -> usize {
        self.lines.len()
    }

    /// The reason phrase.
    pub fn phrase(&self) -> &'b str {
        self.phrase
    }

    /// The lines as received.
    pub fn headers(&self) -> &'h [Header<'b>] {
        self.lines.all()
    }

    /// Whether this is a 1xx that another response follows.
    pub fn is_informational(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }

    /// The protocol that a 101 switches to, provided that `Connection` says so too and no other protocol is named.
    pub fn upgrade(&self) -> Option<&'b [u8]> {
        let mut headers = self.lines.of(Field::Upgrade);
        let (header, None) = (headers.next()?, headers.next()) else { return None };
        self.connection.upgrade.then_some(header.value)
    }

    /// Writes the head for the client without the blank line, so the caller can add lines.
    pub fn write(&self, encoding: &ResponseEncoding<'_>, out: &mut Vec<u8>) {
        let mut coding_written = false;
        self.write_status_line(out).fields(|rewrite, line| {
            coding_written |= line.field() == Field::TransferEncoding;
            self.write_field(line, encoding, rewrite);
        });
        if encoding.chunked && !coding_written {
            put(out, "Transfer-Encoding", b"chunked");
        }
        if let Some(via) = encoding.via {
            let version: &[u8] = if self.version == Version::Http10 { b"Via: 1.0 " } else { b"Via: 1.1 " };
            out.extend_from_slice(version);
            out.extend_from_slice(via.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        // A response that requests an upgrade must name `Upgrade` in `Connection` (RFC 9110 section 7.8).
        let names_upgrade = self.status == 426 && self.lines.of(Field::Upgrade).next().is_some();
        match (encoding.persistence, names_upgrade) {
            (Persistence::Implied, false) => {}
            (Persistence::Close, false) => put(out, "Connection", b"close"),
            (Persistence::Close, true) => put(out, "Connection", b"close, Upgrade"),
            (Persistence::KeepAlive, false) => put(out, "Connection", b"keep-alive"),
            (Persistence::KeepAlive, true) => put(out, "Connection", b"keep-alive, Upgrade"),
            (Persistence::Upgrade, _) | (Persistence::Implied, true) => put(out, "Connection", b"Upgrade"),
        }
    }

    /// Writes the status line, or leaves it to be copied unchanged with the fields.
    fn write_status_line<'o>(&'o self, out: &'o mut Vec<u8>) -> Rewrite<'o, 'h, 'b> {
        let start = self.lines.start();
        if self.version == Version::Http11 && start == b"HTTP/1.1 200 \r\n".len() + self.phrase.len() {
            return Rewrite::new(out, &self.lines, 0);
        }
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(itoa::Buffer::new().format(self.status).as_bytes());
        out.extend_from_slice(b" ");
        out.extend_from_slice(self.phrase.as_bytes());
        out.extend_from_slice(b"\r\n");
        Rewrite::new(out, &self.lines, start)
    }

    fn write_field(&self, line: FieldLine<'h, 'b>, encoding: &ResponseEncoding<'_>, rewrite: &mut Rewrite<'_, 'h, 'b>) {
        // RFC 9110 section 8.6 and RFC 9112 section 6.1: a 1xx or a 204 has neither field.
        let may_have_length = self.status >= 200 && self.status != 204;
        match line.field() {
            Field::Connection | Field::ConnectionOption | Field::KeepAlive | Field::ProxyConnection => {
                rewrite.leave_out(line)
            }
            Field::ContentLength if !may_have_length => rewrite.leave_out(line),
            Field::ContentLength => rewrite.keep_number(line, self.framing.stated_length()),
            Field::TransferEncoding if !may_have_length || !encoding.to_http11 => rewrite.leave_out(line),
            Field::TransferEncoding => rewrite.replace(line, b"chunked"),
            // A 426 names the protocol that it requires (RFC 9110 section 15.5.22).
            Field::Upgrade if self.status != 101 && self.status != 426 => rewrite.leave_out(line),
            _ => drop(rewrite.keep(line)),
        }
    }
}

/// The `timeout` of a `Keep-Alive` field (RFC 2068 section 19.7.1.1; servers still send it).
#[cold]
fn idle_seconds(value: &[u8]) -> Option<u16> {
    list(value).find_map(|parameter| {
        let (name, value) = parameter.split_at_checked(b"timeout=".len())?;
        let seconds = number(value).filter(|_| name.eq_ignore_ascii_case(b"timeout="))?;
        Some(u16::try_from(seconds).unwrap_or(u16::MAX))
    })
}

/// The form in which a response goes to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseEncoding<'a> {
    /// The body is sent chunked.
    pub chunked: bool,
    /// The client speaks HTTP/1.1.
    pub to_http11: bool,
    /// The statement about the connection.
    pub persistence: Persistence,
    /// The pseudonym in `Via`.
    pub via: Option<&'a str>,
}

/// The statement of a response about the client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// Nothing: the version implies it.
    Implied,
    /// The connection closes behind the response.
    Close,
    /// The connection stays open although the client's version is HTTP/1.0.
    KeepAlive,
    /// The connection changes its protocol.
    Upgrade,
}
