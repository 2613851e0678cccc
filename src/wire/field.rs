//! Names of header fields that mean something to a proxy, and the lists in their values.

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
        matches!(self, Self::Other | Self::Referer | Self::UserAgent | Self::RetryAfter)
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

/// What the `Connection` fields of one head say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Connection {
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
    /// Other fields are named: they end at this hop.
    pub(super) names_fields: bool,
}

impl Connection {
    /// Adds what one more `Connection` field says.
    pub(super) fn read(&mut self, value: &[u8]) {
        for option in list(value) {
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
    }

    /// Whether a `Connection` field of this head names `field`.
    pub(super) fn names(self, field: Field, name: &str, fields: &[Header<'_>]) -> bool {
        let named = |header: &Header<'_>| {
            Field::of(header.name) == Field::Connection
                && list(header.value).any(|option| option.eq_ignore_ascii_case(name.as_bytes()))
        };
        self.names_fields && field.may_be_named() && fields.iter().any(named)
    }
}

/// The members of a comma-separated list (RFC 9110 section 5.6.1), without the empty ones.
pub(super) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

/// A number of digits alone, as far as there are numbers.
pub(super) fn number(digits: &[u8]) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.len() <= 19 && digits.iter().all(u8::is_ascii_digit);
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

    #[test]
    fn connection_options() {
        let fields = [
            Header { name: "Connection", value: b" X-Secret , close,, Content-Length" },
            Header { name: "X-Secret", value: b"1" },
        ];
        let mut connection = Connection::default();
        connection.read(fields[0].value);
        assert!(connection.close && !connection.keep_alive && connection.names_fields);
        assert!(connection.names(Field::of("x-secret"), "x-secret", &fields));
        assert!(!connection.names(Field::Other, "X-Other", &fields));
        assert!(!connection.names(Field::ContentLength, "Content-Length", &fields), "framing cannot be named away");
    }
}
