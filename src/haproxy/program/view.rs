//! What a program sees of a request, and the values that it compares.

use crate::haproxy::rules::{Counter, CounterOperation, LoadKind, Side, TextMatch};
use arrayvec::ArrayString;
use ipnet::IpNet;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

/// A request as rules see it, rewritten as far as it is. What does not exist is `None`: then no test of it matches.
pub trait RequestView {
    /// The method.
    fn method(&self) -> &[u8];
    /// The target, as it stands in the request line.
    fn target(&self) -> &[u8];
    /// The target as it came.
    fn captured_uri(&self) -> Option<&[u8]> {
        None
    }
    /// Major and minor version.
    fn version(&self) -> (u8, u8);
    /// Calls `see` with name and value of each field in order, until it returns true; tells whether it did.
    fn each_field(&self, side: Side, see: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> bool;
    /// Address and port of the client.
    fn source(&self) -> SocketAddr;
    /// Address and port that the client connected to.
    fn destination(&self) -> SocketAddr;
    /// Whether the client speaks TLS.
    fn is_tls(&self) -> bool;
    /// The name that the client asked for in TLS.
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
    /// The user of `Authorization: Basic`, if its password is right in this list.
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
    /// Servers that are up in a backend; its own without a name.
    fn servers_up(&self, _backend: Option<&str>) -> Option<u64> {
        None
    }
    /// Whether a server is up.
    fn server_is_up(&self, _backend: Option<&str>, _server: &str) -> Option<bool> {
        None
    }
    /// Free places of connections and queues in a backend.
    fn connection_slots(&self, _backend: Option<&str>) -> Option<u64> {
        None
    }
    /// Connections or queued requests of a proxy.
    fn load(&self, _kind: LoadKind, _proxy: Option<&str>) -> Option<u64> {
        None
    }
    /// A counter of a stick table: of a tracked entry, or of the client's own without a slot.
    fn counter(&self, _counter: (Counter, CounterOperation), _slot: Option<u8>, _table: Option<&str>) -> Option<u64> {
        None
    }
    /// The names of the frontend, the backend and the server, as far as they are known.
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
    /// The text that converters work on.
    pub(super) current: Vec<u8>,
    /// What a converter makes of it.
    pub(super) other: Vec<u8>,
    /// A text made of two parts of a request.
    pub(super) joined: Vec<u8>,
    /// A text in lower case, for look-ups.
    pub(super) folded: Vec<u8>,
    /// The name of a backend.
    pub(super) name: Vec<u8>,
}

impl Scratch {
    /// Bytes that its buffers hold.
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
    /// As a number; a text as far as it is one.
    pub fn number(self) -> Option<i64> {
        match self {
            Self::Bool(value) => Some(value.into()),
            Self::Int(value) => Some(value),
            Self::Text(text) => std::str::from_utf8(text).ok()?.trim().parse().ok(),
            Self::Ip(_) => None,
        }
    }

    /// As an address.
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Ip(ip) => Some(ip),
            Self::Text(text) => std::str::from_utf8(text).ok()?.trim().parse().ok(),
            _ => None,
        }
    }

    /// As a text.
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

/// Whether an address lies in a network; IPv4 within IPv6 is what it stands for (configuration.txt section 7.1.6).
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

/// Whether a text fits a pattern; the pattern is in lower case if case does not count.
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
