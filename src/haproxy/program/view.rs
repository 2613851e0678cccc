//! The view of a request for programs, and the values that they compare.

use crate::haproxy::rules::{Counter, CounterOperation, LoadKind, Side, TextMatch};
use arrayvec::ArrayString;
use ipnet::IpNet;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

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
    /// Free places for connections and in queues of a backend.
    fn connection_slots(&self, _backend: Option<&str>) -> Option<u64> {
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
    /// The value as a number; a text counts as far as it is one.
    pub fn number(self) -> Option<i64> {
        match self {
            Self::Bool(value) => Some(value.into()),
            Self::Int(value) => Some(value),
            Self::Text(text) => std::str::from_utf8(text).ok()?.trim().parse().ok(),
            Self::Ip(_) => None,
        }
    }

    /// The value as an address.
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Ip(ip) => Some(ip),
            Self::Text(text) => std::str::from_utf8(text).ok()?.trim().parse().ok(),
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
            Self::Ip(ip) => drop(write!(text, "{}", ip.to_canonical())),
        }
        see(text.as_bytes())
    }
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
        TextMatch::Folder => delimited(b"/?"),
        TextMatch::Domain => delimited(b".:/?"),
        TextMatch::Regex => false,
    }
}
