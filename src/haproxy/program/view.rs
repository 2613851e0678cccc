//! The view of a request for programs, and the values that they compare.

use crate::haproxy::rules::{Counter, CounterOperation, LoadKind, Side, TextMatch};
use arrayvec::ArrayString;
use ipnet::IpNet;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// A request in the view of rules, with all changes so far. A missing part is `None`: no test of it matches.
pub trait RequestView {
    /// The method.
    fn method(&self) -> &[u8];
    /// The target, as in the request line.
    fn target(&self) -> &[u8];
    /// The target as received.
    fn captured_uri(&self) -> Option<&[u8]> {
        None
    }
    /// Major and minor version.
    fn version(&self) -> (u8, u8);
    /// Calls `see` with name and value of each field in order, until it returns true; returns whether it did.
    fn each_field(&self, side: Side, see: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> bool;
    /// Address and port of the client.
    fn source(&self) -> SocketAddr;
    /// Address and port that the client connected to.
    fn destination(&self) -> SocketAddr;
    /// Whether the client speaks TLS.
    fn is_tls(&self) -> bool;
    /// The server name of the client's TLS handshake.
    fn server_name(&self) -> Option<&[u8]> {
        None
    }
    /// The status of the response.
    fn status(&self) -> Option<u16> {
        None
    }
    /// The value of a variable, such as `txn.host`.
    fn variable(&self, _name: &str) -> Option<&[u8]> {
        None
    }
    /// The identifier of the request.
    fn unique_id(&self) -> Option<&[u8]> {
        None
    }
    /// The user of `Authorization: Basic`, if its password is correct in this list.
    fn user(&self, _userlist: &str) -> Option<&str> {
        None
    }
    /// The user of `Authorization: Basic`, whatever its password.
    fn sent_user(&self) -> Option<&str> {
        None
    }
    /// The groups of the user in this list.
    fn groups(&self, _userlist: &str, _see: &mut dyn FnMut(&str) -> bool) -> bool {
        false
    }
    /// The number of servers that are up in a backend; in the own backend without a name.
    fn servers_up(&self, _backend: Option<&str>) -> Option<u64> {
        None
    }
    /// Whether a server is up.
    fn server_is_up(&self, _backend: Option<&str>, _server: &str) -> Option<bool> {
        None
    }
    /// Free places for connections and in queues of a backend; -1 if some server has no limit.
    fn connection_slots(&self, _backend: Option<&str>) -> Option<i64> {
        None
    }
    /// The value in a slot of captures of the frontend.
    fn captured(&self, _side: Side, _slot: u16) -> Option<&[u8]> {
        None
    }
    /// Connections or queued requests of a proxy.
    fn load(&self, _kind: LoadKind, _proxy: Option<&str>) -> Option<u64> {
        None
    }
    /// A counter of a stick table: of a tracked entry, or of the client's own entry without a slot.
    fn counter(&self, _counter: (Counter, CounterOperation), _slot: Option<u8>, _table: Option<&str>) -> Option<u64> {
        None
    }
    /// The names of the frontend, the backend and the server, as far as known.
    fn names(&self) -> [Option<&str>; 3] {
        [None; 3]
    }
    /// Seconds since 1970.
    fn unix_seconds(&self) -> i64 {
        0
    }
    /// Milliseconds of the second.
    fn subsec_millis(&self) -> u16 {
        0
    }
    /// The number of the request in this process.
    fn request_number(&self) -> u64 {
        0
    }
    /// A random number.
    fn random(&self) -> u32 {
        0
    }
}

/// Buffers of one worker, kept from request to request.
#[derive(Debug, Default)]
pub struct Scratch {
    /// The text that converters change.
    pub(super) current: Vec<u8>,
    /// The result of a converter.
    pub(super) other: Vec<u8>,
    /// A text joined from two parts of a request.
    pub(super) joined: Vec<u8>,
    /// A text in lower case, for look-ups.
    pub(super) folded: Vec<u8>,
    /// The name of a backend.
    pub(super) name: Vec<u8>,
}

impl Scratch {
    /// Capacity of its buffers in bytes.
    pub fn capacity(&self) -> usize {
        let all = [&self.current, &self.other, &self.joined, &self.folded, &self.name];
        all.iter().map(|buffer| buffer.capacity()).sum()
    }
}

/// A value of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'v> {
    /// True or false.
    Bool(bool),
    /// A number.
    Int(i64),
    /// An address.
    Ip(IpAddr),
    /// Bytes.
    Text(&'v [u8]),
}

impl Value<'_> {
    /// As a number. A text is one as far as its digits go, and 0 without digits, as in HAProxy; an empty one is none.
    pub fn number(self) -> Option<i64> {
        match self {
            Self::Bool(value) => Some(value.into()),
            Self::Int(value) => Some(value),
            Self::Text(text) => (!text.is_empty()).then(|| text_number(text)),
            Self::Ip(IpAddr::V4(ip)) => Some(u32::from(ip).into()),
            Self::Ip(IpAddr::V6(_)) => None,
        }
    }

    /// As an address. The text behind an IPv4 address is ignored, as in HAProxy.
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Ip(ip) => Some(ip),
            Self::Text(text) => text_ip(text),
            _ => None,
        }
    }

    /// Passes the value as a text.
    pub fn with_text<T>(self, see: impl FnOnce(&[u8]) -> T) -> T {
        let mut text = ArrayString::<64>::new();
        match self {
            Self::Text(text) => return see(text),
            Self::Bool(value) => text.push(if value { '1' } else { '0' }),
            Self::Int(value) => return see(itoa::Buffer::new().format(value).as_bytes()),
            // The longest address has 45 characters.
            Self::Ip(ip) => drop(write!(text, "{ip}")),
        }
        see(text.as_bytes())
    }
}

/// `read_int64` of HAProxy: a sign and digits, at most as much as 64 bits hold.
fn text_number(text: &[u8]) -> i64 {
    let (is_negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    let digits = digits.iter().take_while(|byte| byte.is_ascii_digit()).map(|byte| i64::from(byte - b'0'));
    digits.fold(0, |number: i64, digit| {
        let number = number.saturating_mul(10);
        if is_negative { number.saturating_sub(digit) } else { number.saturating_add(digit) }
    })
}

/// The number in a header (`hdr_val`) or cookie, as HAProxy's `strl2ic` parses it: 32 bits that wrap. A byte below `0`
/// counts as a negative digit, a byte above `9` ends the number.
pub(super) fn field_number(text: &[u8]) -> i64 {
    let (sign, digits) = match text {
        [b'-', digits @ ..] => (-1, digits),
        digits => (1, digits),
    };
    // Bytes from 128 on are negative there.
    let digits = digits.iter().map(|byte| i32::from(byte.cast_signed()) - i32::from(b'0'));
    let number = digits
        .take_while(|digit| *digit <= 9)
        .fold(0i32, |number, digit| number.wrapping_mul(10).wrapping_add(digit.wrapping_mul(sign)));
    number.into()
}

/// The address that a text begins with, and its length: four numbers, whose leading zeros mean nothing.
fn leading_ipv4(text: &[u8]) -> Option<(Ipv4Addr, usize)> {
    let len = text.iter().take_while(|byte| byte.is_ascii_digit() || **byte == b'.').count();
    let mut octets = [0; 4];
    let mut parts = text.get(..len)?.split(|byte| *byte == b'.');
    for octet in &mut octets {
        let part = parts.next().filter(|part| !part.is_empty())?;
        let value = part.iter().try_fold(0u8, |value, digit| value.checked_mul(10)?.checked_add(digit - b'0'));
        *octet = value?;
    }
    // A dot at the end is left over.
    parts.next().is_none_or(|part| part.is_empty() && parts.next().is_none()).then_some((octets.into(), len))
}

fn text_ip(text: &[u8]) -> Option<IpAddr> {
    leading_ipv4(text).map(|(ip, _)| IpAddr::V4(ip)).or_else(|| ipv6(text))
}

fn ipv6(text: &[u8]) -> Option<IpAddr> {
    std::str::from_utf8(text).ok()?.parse().ok().map(IpAddr::V6)
}

/// The address in a header, as `hdr_ip` reads it: one alone, or an IPv4 address and a port.
pub(super) fn field_ip(text: &[u8]) -> Option<IpAddr> {
    let Some((ip, len)) = leading_ipv4(text) else { return ipv6(text) };
    let is_port = |port: &[u8]| {
        let port = std::str::from_utf8(port).ok().filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
        port.is_some_and(|port| port.parse::<u16>().is_ok())
    };
    let is_alone = match text.get(len..)? {
        [] => text.last() != Some(&b'.'),
        [b':', port @ ..] => is_port(port),
        _ => false,
    };
    is_alone.then_some(IpAddr::V4(ip))
}

/// Whether a network contains an address; an IPv4-mapped IPv6 address counts as IPv4 (configuration.txt section 7.1.6).
pub(super) fn contains(net: &IpNet, ip: IpAddr) -> bool {
    match (net, ip) {
        (IpNet::V4(net), IpAddr::V4(ip)) => net.contains(&ip),
        (IpNet::V6(net), IpAddr::V6(ip)) => net.contains(&ip),
        (IpNet::V6(net), IpAddr::V4(ip)) => net.contains(&ip.to_ipv6_mapped()),
        (IpNet::V4(net), IpAddr::V6(ip)) => {
            let [first, .., _, _] = ip.segments();
            let octets = ip.octets();
            let six_to_four = (first == 0x2002).then(|| [octets[2], octets[3], octets[4], octets[5]].into());
            ip.to_ipv4().or(six_to_four).is_some_and(|ip| net.contains(&ip))
        }
    }
}

/// The delimiters of `dir` and `dom`.
pub(super) const FOLDER_ENDS: &[u8] = b"/?";
pub(super) const DOMAIN_ENDS: &[u8] = b".:/?";

/// Whether a text matches a pattern; the pattern is in lower case if case is ignored.
pub(super) fn text_fits(method: TextMatch, pattern: &[u8], ignore_case: bool, text: &[u8]) -> bool {
    let equal = |one: &[u8]| if ignore_case { one.eq_ignore_ascii_case(pattern) } else { one == pattern };
    let delimited = |delimiters: &[u8]| {
        let is_delimiter = |byte: Option<&u8>| byte.is_none_or(|byte| delimiters.contains(byte));
        let mut starts = 0..=text.len().saturating_sub(pattern.len());
        text.len() >= pattern.len()
            && !pattern.is_empty()
            && starts.any(|start| {
                let end = start + pattern.len();
                let before = start.checked_sub(1).and_then(|before| text.get(before));
                is_delimiter(before) && is_delimiter(text.get(end)) && text.get(start..end).is_some_and(equal)
            })
    };
    match method {
        TextMatch::Equal => equal(text),
        TextMatch::Begin => text.get(..pattern.len()).is_some_and(equal),
        TextMatch::End => text.len().checked_sub(pattern.len()).and_then(|start| text.get(start..)).is_some_and(equal),
        TextMatch::Contain if !ignore_case => memchr::memmem::find(text, pattern).is_some(),
        TextMatch::Contain => pattern.is_empty() || text.windows(pattern.len()).any(equal),
        TextMatch::Folder => delimited(FOLDER_ENDS),
        TextMatch::Domain => delimited(DOMAIN_ENDS),
        TextMatch::Regex => false,
    }
}
