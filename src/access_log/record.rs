//! The facts about a request at its end, and the line made from them.

use crate::base::clock::Moment;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// The greatest length of one text within a line, as written. A longer one is cut and ends in `...`.
pub const TEXT_LIMIT_BYTES: usize = 8 * 1024;
const CUT: &[u8] = b"...";

/// Length of a text that was cut.
pub(super) const TEXT_BYTES: usize = TEXT_LIMIT_BYTES + CUT.len();

/// A request that has ended. An absent or empty value is written as `-`.
#[derive(Clone, Debug)]
pub struct LogRecord<'a> {
    /// When the request ended.
    pub ended: Moment,
    /// The client.
    pub client: IpAddr,
    /// The method as received; empty if the head could not be read.
    pub method: &'a [u8],
    /// The request target as received.
    pub target: &'a [u8],
    /// The minor version: 0 of HTTP/1.0, or 1 of HTTP/1.1.
    pub minor_version: u8,
    /// The status of the response.
    pub status: u16,
    /// Bytes sent to the client.
    pub sent_bytes: u64,
    /// The value of `Referer`.
    pub referer: Option<&'a [u8]>,
    /// The value of `User-Agent`.
    pub user_agent: Option<&'a [u8]>,
    /// The identifier of the frontend: item 0 of its list.
    pub frontend_id: Option<&'a [u8]>,
    /// From the first byte of the request to the last byte of the response.
    pub total: Duration,
    /// The part of it that the backend took.
    pub backend: Option<Duration>,
    /// The requested host.
    pub host: Option<&'a [u8]>,
    /// The pattern whose list serves the host.
    pub pattern: Option<&'a [u8]>,
    /// The backend chosen last, without parts that may be a password.
    pub backend_url: Option<&'a str>,
    /// The reason, if the request ended without a complete response of a backend.
    pub reason: Option<&'static str>,
    /// The shaper's bucket of the request.
    pub bucket: Option<&'a str>,
    /// Whether the client's connection is encrypted.
    pub is_secure: bool,
    /// The wait for an upstream connection.
    pub queue: Option<Duration>,
    /// The time to open the connection.
    pub connect: Option<Duration>,
    /// From the connection to the head of the response.
    pub first_byte: Option<Duration>,
    /// The value of `X-Request-Id`, as the backend gets it.
    pub request_id: Option<&'a [u8]>,
    /// The version of TLS and the cipher suite of the client's connection.
    pub tls: Option<(&'static str, &'static str)>,
    /// The chain of addresses that the backend gets.
    pub forwarded_for: Option<&'a [u8]>,
    /// Bytes received from the client, heads included.
    pub received_bytes: Option<u64>,
    /// Attempts at backends after the first one.
    pub retries: Option<u8>,
}

impl Default for LogRecord<'_> {
    /// A request without any known fact.
    fn default() -> Self {
        Self {
            ended: Moment::ZERO,
            client: Ipv4Addr::UNSPECIFIED.into(),
            method: b"",
            target: b"",
            minor_version: 1,
            status: 0,
            sent_bytes: 0,
            referer: None,
            user_agent: None,
            frontend_id: None,
            total: Duration::ZERO,
            backend: None,
            host: None,
            pattern: None,
            backend_url: None,
            reason: None,
            bucket: None,
            is_secure: false,
            queue: None,
            connect: None,
            first_byte: None,
            request_id: None,
            tls: None,
            forwarded_for: None,
            received_bytes: None,
            retries: None,
        }
    }
}

impl LogRecord<'_> {
    /// Appends the line to `out`, in the combined format or in Hipache's, which extends it; `stamp` is the time in that
    /// format.
    pub(super) fn append_to(&self, out: &mut Vec<u8>, stamp: &str, is_hipache: bool) {
        append_ip(out, self.client);
        out.extend_from_slice(b" - - [");
        out.extend_from_slice(stamp.as_bytes());
        out.extend_from_slice(b"] \"");
        self.append_request(out);
        out.extend_from_slice(b"\" ");
        append_number(out, self.status);
        out.push(b' ');
        append_number(out, self.sent_bytes);
        out.extend_from_slice(b" \"");
        append_text(out, self.referer);
        out.extend_from_slice(b"\" \"");
        append_text(out, self.user_agent);
        if !is_hipache {
            return out.extend_from_slice(b"\"\n");
        }
        out.extend_from_slice(b"\" \"");
        append_text(out, self.frontend_id);
        out.extend_from_slice(b"\" ");
        append_seconds(out, self.total);
        out.push(b' ');
        match self.backend {
            Some(duration) => append_seconds(out, duration),
            None => out.push(b'-'),
        }
        out.push(b'\n');
    }

    fn append_request(&self, out: &mut Vec<u8>) {
        if self.method.is_empty() {
            out.push(b'-');
            return;
        }
        append_escaped(out, self.method);
        out.push(b' ');
        append_escaped(out, self.target);
        out.extend_from_slice(b" HTTP/1.");
        append_number(out, self.minor_version);
    }
}

/// An IPv4 address mapped into IPv6 is written as IPv4.
pub(super) fn append_ip(out: &mut Vec<u8>, ip: IpAddr) {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            for (place, octet) in ip.octets().into_iter().enumerate() {
                if place > 0 {
                    out.push(b'.');
                }
                append_number(out, octet);
            }
        }
        IpAddr::V6(ip) => write!(out, "{ip}").unwrap_or_else(|_| unreachable!("a vector takes all")),
    }
}

pub(super) fn append_number(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Three decimals; the rest is cut off.
pub(super) fn append_seconds(out: &mut Vec<u8>, duration: Duration) {
    append_number(out, duration.as_secs());
    // A digit before the decimals keeps their zeros; the point then replaces it.
    let point = out.len();
    append_number(out, 1000 + duration.subsec_millis());
    out[point] = b'.';
}

pub(super) fn append_text(out: &mut Vec<u8>, text: Option<&[u8]>) {
    match text {
        Some(text) if !text.is_empty() => append_escaped(out, text),
        _ => out.push(b'-'),
    }
}

/// As in nginx, a character that could end the quotes or the line, or is not ASCII, becomes `\xHH`.
fn append_escaped(out: &mut Vec<u8>, text: &[u8]) {
    let end = out.len() + TEXT_LIMIT_BYTES;
    let mut rest = text;
    loop {
        let room = end - out.len();
        let plain_len = rest.iter().position(|byte| !is_plain(*byte)).unwrap_or(rest.len());
        if plain_len > room {
            out.extend_from_slice(&rest[..room]);
            out.extend_from_slice(CUT);
            return;
        }
        out.extend_from_slice(&rest[..plain_len]);
        let Some((byte, after)) = rest[plain_len..].split_first() else { return };
        let escape = escape(*byte);
        if escape.len() > room - plain_len {
            out.extend_from_slice(CUT);
            return;
        }
        out.extend_from_slice(&escape);
        rest = after;
    }
}

const fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\'
}

const fn escape(byte: u8) -> [u8; 4] {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    [b'\\', b'x', DIGITS[(byte >> 4) as usize], DIGITS[(byte & 0xF) as usize]]
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::format::Format;
    use super::*;

    pub(in crate::access_log) fn record() -> LogRecord<'static> {
        LogRecord {
            ended: Moment::ZERO,
            client: IpAddr::from([192, 0, 2, 10]),
            method: b"GET",
            target: b"/x",
            minor_version: 1,
            status: 200,
            sent_bytes: 512,
            referer: Some(b"http://example.com/"),
            user_agent: Some(b"Mozilla/5.0 (X11)"),
            frontend_id: Some(b"mywebsite"),
            total: Duration::from_micros(1_234_999),
            backend: Some(Duration::from_millis(7)),
            host: Some(b"www.example.com"),
            pattern: Some(b"*.example.com"),
            ..LogRecord::default()
        }
    }

    fn line(record: &LogRecord<'_>) -> String {
        let mut out = Vec::new();
        record.append_to(&mut out, "20/Nov/2026:09:00:00 +0000", true);
        String::from_utf8(out).expect("a line is ASCII")
    }

    #[test]
    fn lines() {
        let full = record();
        let table = [
            (
                full.clone(),
                r#"192.0.2.10 - - [20/Nov/2026:09:00:00 +0000] "GET /x HTTP/1.1" 200 512 "http://example.com/" "Mozilla/5.0 (X11)" "mywebsite" 1.234 0.007"#,
            ),
            (
                LogRecord {
                    client: "::ffff:10.0.0.255".parse().expect("an address"),
                    method: b"HEAD",
                    minor_version: 0,
                    status: 502,
                    sent_bytes: u64::MAX,
                    referer: None,
                    user_agent: Some(b""),
                    backend: None,
                    ..full.clone()
                },
                r#"10.0.0.255 - - [20/Nov/2026:09:00:00 +0000] "HEAD /x HTTP/1.0" 502 18446744073709551615 "-" "-" "mywebsite" 1.234 -"#,
            ),
            (
                LogRecord {
                    client: "2001:db8::1".parse().expect("an address"),
                    method: b"",
                    target: b"",
                    status: 400,
                    sent_bytes: 0,
                    referer: None,
                    user_agent: None,
                    frontend_id: None,
                    total: Duration::ZERO,
                    backend: None,
                    ..full.clone()
                },
                r#"2001:db8::1 - - [20/Nov/2026:09:00:00 +0000] "-" 400 0 "-" "-" "-" 0.000 -"#,
            ),
            (
                LogRecord {
                    target: b"/\"a\\b\t\x7f",
                    referer: Some(b"x\r\n127.0.0.1 - - forged\n"),
                    user_agent: Some("caf\u{e9}".as_bytes()),
                    frontend_id: Some(b"\x00 \x1b[31m ~"),
                    ..full
                },
                r#"192.0.2.10 - - [20/Nov/2026:09:00:00 +0000] "GET /\x22a\x5Cb\x09\x7F HTTP/1.1" 200 512 "x\x0D\x0A127.0.0.1 - - forged\x0A" "caf\xC3\xA9" "\x00 \x1B[31m ~" 1.234 0.007"#,
            ),
        ];
        for (record, expected) in table {
            assert_eq!(line(&record), format!("{expected}\n"));
        }
    }

    #[test]
    fn a_long_text_is_cut_and_so_no_line_is_longer_than_the_limit() {
        let escaped = [b'"'; 100_000];
        let plain = [b'a'; 100_000];
        let mixed: Vec<u8> = plain[..TEXT_LIMIT_BYTES - 3].iter().chain(b"\"").copied().collect();
        for (text, end) in [(&plain[..], "aaaaa..."), (&escaped[..], "\\x22..."), (&mixed[..], "aaaaa...")] {
            let mut out = Vec::new();
            append_escaped(&mut out, text);
            assert!(out.len() <= TEXT_LIMIT_BYTES + CUT.len());
            assert!(out.ends_with(end.as_bytes()), "expected {end}");
        }
        let mut out = Vec::new();
        append_escaped(&mut out, &plain[..TEXT_LIMIT_BYTES]);
        assert_eq!(out, plain[..TEXT_LIMIT_BYTES], "what just fits is not cut");

        let longest = LogRecord {
            client: "2001:db8:1111:2222:3333:4444:5555:6666".parse().expect("an address"),
            method: &escaped,
            target: &escaped,
            status: u16::MAX,
            sent_bytes: u64::MAX,
            referer: Some(&escaped),
            user_agent: Some(&escaped),
            frontend_id: Some(&escaped),
            total: Duration::MAX,
            backend: Some(Duration::MAX),
            ..record()
        };
        assert!(line(&longest).len() <= Format::Hipache.line_limit());
    }
}
