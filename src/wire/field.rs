//! Names of header fields that mean something to a proxy, and the lists in their values.

use super::HeadFault;
use httparse::Header;

/// The fields that are acted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Field {
    Connection,
    ContentLength,
    Expect,
    Forwarded,
    Host,
    KeepAlive,
    MaxForwards,
    /// No field that anybody has a use for, but what CGI makes of it is where programs look for a proxy ("httpoxy").
    Proxy,
    ProxyConnection,
    Referer,
    RetryAfter,
    Te,
    TransferEncoding,
    Upgrade,
    UserAgent,
    XDebug,
    ClientSubject,
    XForwardedFor,
    XForwardedPort,
    XForwardedProto,
    XForwardedProtocol,
    XRealIp,
    /// A name that is one of these to a reader who takes other signs for a hyphen, as CGI and its heirs do.
    Lookalike,
    /// What a `Connection` field names: it ends at this hop.
    Named,
    /// Any other: passed on as it is.
    Other,
}

impl Field {
    /// Which field has this name. The length tells most apart before a byte is compared.
    pub(super) fn of(name: &str) -> Self {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        match name.len() {
            2 if is("te") => Self::Te,
            4 if is("host") => Self::Host,
            5 if is("proxy") => Self::Proxy,
            6 if is("expect") => Self::Expect,
            7 if is("upgrade") => Self::Upgrade,
            7 if is("referer") => Self::Referer,
            7 if is("x-debug") => Self::XDebug,
            9 if is("forwarded") => Self::Forwarded,
            9 if is("x-real-ip") => Self::XRealIp,
            10 if is("connection") => Self::Connection,
            10 if is("user-agent") => Self::UserAgent,
            10 if is("keep-alive") => Self::KeepAlive,
            11 if is("retry-after") => Self::RetryAfter,
            12 if is("max-forwards") => Self::MaxForwards,
            14 if is("content-length") => Self::ContentLength,
            15 if is("x-forwarded-for") => Self::XForwardedFor,
            16 if is("proxy-connection") => Self::ProxyConnection,
            16 if is("x-forwarded-port") => Self::XForwardedPort,
            17 if is("transfer-encoding") => Self::TransferEncoding,
            17 if is("x-forwarded-proto") => Self::XForwardedProto,
            17 if is(CLIENT_SUBJECT) => Self::ClientSubject,
            20 if is("x-forwarded-protocol") => Self::XForwardedProtocol,
            7 | 9..=12 | 14..=17 | 20 if is_lookalike(name) => Self::Lookalike,
            _ => Self::Other,
        }
    }

    /// Whether `Connection` may take this field away. Framing and routing are not a neighbour's to remove, nor is what
    /// a proxy in front said of the client (RFC 9110 section 7.6.1 forbids naming end-to-end fields so).
    fn may_be_named(self) -> bool {
        matches!(self, Self::Other | Self::Proxy | Self::Referer | Self::UserAgent | Self::RetryAfter)
    }
}

/// The length of the longest name that is known.
const LONGEST_KNOWN: usize = 20;

/// The field in which backends are told who a client's certificate says it is.
pub(super) const CLIENT_SUBJECT: &str = "X-SSL-Client-S-DN";

/// Many backends make a variable of a name, with a low line for a hyphen and some for whatever is no letter and no digit
/// (RFC 3875 section 4.1.18), and so would believe a forger who writes another sign. Whether this name would be a known
/// one if its signs were hyphens.
fn is_lookalike(name: &str) -> bool {
    if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return false;
    }
    let mut plain = [b'-'; LONGEST_KNOWN];
    for (plain, byte) in plain.iter_mut().zip(name.bytes()).filter(|(_, byte)| byte.is_ascii_alphanumeric()) {
        *plain = byte;
    }
    let plain = plain.get(..name.len()).and_then(|plain| std::str::from_utf8(plain).ok());
    plain.is_some_and(|plain| Field::of(plain) != Field::Other)
}

/// The most options that the `Connection` fields of one head may have. Each is looked for among all lines, and nobody has
/// a use for as many.
const MOST_OPTIONS: usize = 32;

/// What the `Connection` fields of one head say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Connection {
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
    /// Other fields are named: they end at this hop.
    names_fields: bool,
    options: usize,
}

impl Connection {
    /// Adds what one more `Connection` field says.
    pub(super) fn read(&mut self, value: &[u8]) -> Result<(), HeadFault> {
        for option in list(value) {
            self.options += 1;
            if self.options > MOST_OPTIONS {
                return Err(HeadFault::Malformed);
            }
            if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                self.upgrade = true;
            } else {
                self.names_fields = true;
            }
        }
        Ok(())
    }

    /// Makes [`Field::Named`] of the lines that the `Connection` fields of this head name and may name.
    pub(super) fn mark_named(self, fields: &[Header<'_>], kinds: &mut [Field]) {
        if !self.names_fields {
            return;
        }
        let is_connection = |header: &&Header<'_>| Field::of(header.name) == Field::Connection;
        for name in fields.iter().filter(is_connection).flat_map(|header| list(header.value)) {
            for (header, kind) in fields.iter().zip(&mut *kinds) {
                if kind.may_be_named() && header.name.as_bytes().eq_ignore_ascii_case(name) {
                    *kind = Field::Named;
                }
            }
        }
    }
}

/// The members of a comma-separated list (RFC 9110 section 5.6.1), without the empty ones.
pub(super) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

/// The most digits of a number: any of so many fits into 63 bits, which is what others have where they count with signs.
const MOST_DIGITS: usize = 18;

/// A number of digits alone, as far as everybody has numbers.
pub(super) fn number(digits: &[u8]) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.len() <= MOST_DIGITS && digits.iter().all(u8::is_ascii_digit);
    is_number.then(|| digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

/// Writes `name: value` and CRLF.
pub(super) fn put(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Writes `name: number` and CRLF.
pub(super) fn put_number(out: &mut Vec<u8>, name: &str, number: u64) {
    put(out, name, itoa::Buffer::new().format(number).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of the lines of a head.
    fn kinds(fields: &[Header<'_>]) -> Result<(Connection, Vec<Field>), HeadFault> {
        let mut kinds: Vec<_> = fields.iter().map(|header| Field::of(header.name)).collect();
        let mut connection = Connection::default();
        for (header, _) in fields.iter().zip(&kinds).filter(|(_, kind)| **kind == Field::Connection) {
            connection.read(header.value)?;
        }
        connection.mark_named(fields, &mut kinds);
        Ok((connection, kinds))
    }

    #[test]
    fn connection_options() {
        let fields = [
            Header { name: "x-secret", value: b"1" },
            Header { name: "Connection", value: b" X-Secret , close,, Content-Length" },
            Header { name: "X-Other", value: b"1" },
            Header { name: "Content-Length", value: b"1" },
        ];
        let (connection, kinds) = kinds(&fields).expect("a good head");
        assert!(connection.close && !connection.keep_alive && connection.names_fields);
        assert_eq!(kinds, [Field::Named, Field::Connection, Field::Other, Field::ContentLength], "framing stays");
    }

    #[test]
    fn options_have_an_end() {
        let options = |count: usize| vec!["x"; count].join(",");
        for (first, second, is_good) in [(32, 0, true), (33, 0, false), (16, 16, true), (16, 17, false)] {
            let values = [options(first), options(second)];
            let fields = values.each_ref().map(|value| Header { name: "Connection", value: value.as_bytes() });
            assert_eq!(kinds(&fields).is_ok(), is_good, "{first} and {second}");
        }
        let empty = ",".repeat(60_000);
        assert!(kinds(&[Header { name: "Connection", value: empty.as_bytes() }]).is_ok(), "none at all");
    }

    #[test]
    fn numbers_fit_in_everywhere() {
        assert_eq!(number(b"999999999999999999"), Some(999_999_999_999_999_999));
        for text in ["1000000000000000000", "9223372036854775807", "9223372036854775808", "", "+1"] {
            assert_eq!(number(text.as_bytes()), None, "{text}");
        }
    }
}
