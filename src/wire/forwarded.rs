//! The header fields that tell a backend about its client (`X-Forwarded-For` and related ones; the set is Hipache's).

use super::field::{Field, put};
use super::field_lines::FieldLines;
use crate::base::slice_ext::SliceExt;
use ipnet::IpNet;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

pub use super::field::CLIENT_SUBJECT;

/// Trusted networks, and the handling of forwarded headers from them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Networks of proxies in front of this node. Forwarded headers from other peers are always replaced.
    pub trusted: Vec<IpNet>,
    /// Handling of forwarded headers from a trusted network.
    pub mode: Mode,
}

/// Handling of forwarded headers from a trusted network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The peer's address is appended to `X-Forwarded-For`; the other headers are kept if present.
    Append,
    /// All are replaced by what this node sees itself.
    Replace,
    /// All are forwarded unchanged, and none is added: another proxy is responsible for them.
    Untouched,
}

impl Policy {
    /// Whether forwarded headers from this peer are kept.
    pub fn accepts_values_from(&self, peer: IpAddr) -> bool {
        self.mode == Mode::Append && self.trusts(peer)
    }

    /// Whether the peer is a trusted proxy.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(&peer))
    }
}

/// The facts that this node knows about a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The source address of the connection; an IPv4 address is never in its mapped IPv6 form.
    pub address: IpAddr,
    /// The local port.
    pub local_port: u16,
    /// Whether the connection is encrypted.
    pub secure: bool,
    /// Facts of the TLS handshake; `None` if there are none.
    pub tls: Option<Arc<TlsPeer>>,
}

impl Peer {
    /// An address that stands for a local process connected to a UNIX socket: the id of its user, at port 0.
    /// [`Peer::local_user`] reads it.
    pub fn address_of_user(uid: u32) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::from(uid), 0))
    }

    /// The user of a local process that is connected to a UNIX socket.
    pub fn local_user(&self) -> Option<u32> {
        match self.address {
            IpAddr::V4(address) if self.local_port == 0 => Some(address.into()),
            _ => None,
        }
    }
}

/// Facts about a client from its TLS handshake.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsPeer {
    /// The server name it asked for, in lower case.
    pub server_name: Option<Box<str>>,
    /// The subject of its certificate, in visible ASCII.
    pub subject: Option<Arc<String>>,
    /// The host names of the certificate shown to the client for that name, in lower case; a wildcard is `*.suffix`.
    /// `None` if rules of a frontend select the certificate.
    pub shown: Option<Arc<[String]>>,
}

impl TlsPeer {
    /// Whether the client asked for another server name than this host and was shown a certificate that does not cover
    /// the host.
    pub fn is_for_another(&self, host: &str) -> bool {
        let (Some(name), Some(shown)) = (self.server_name.as_deref(), &self.shown) else { return false };
        let is_covered = || {
            let suffix = host.split_once('.').map(|(_, suffix)| suffix);
            shown.iter().any(|shown| shown == host || (suffix.is_some() && shown.strip_prefix("*.") == suffix))
        };
        name != host && !is_covered()
    }
}

/// The client that a chain of proxies names: the first address from the right that is not a trusted proxy, or the
/// leftmost one if all are. An invalid address ends the search, since no trusted proxy confirms what stands left of it.
pub fn client_of(chain: &[u8], policy: &Policy, peer: IpAddr) -> IpAddr {
    let mut client = peer;
    for item in chain.rsplit(|byte| *byte == b',') {
        let Some(address) = as_address(item.trim_ascii()) else { return client };
        client = address;
        if !policy.trusts(address) {
            return client;
        }
    }
    client
}

/// Whether an item of a chain is the address of a trusted proxy.
pub(super) fn is_trusted(item: &[u8], policy: &Policy) -> bool {
    as_address(item).is_some_and(|address| policy.trusts(address))
}

/// An address with an optional port.
fn as_address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let address = text.parse::<IpAddr>().or_else(|_| text.parse::<std::net::SocketAddr>().map(|address| address.ip()));
    address.ok().map(|address| address.to_canonical())
}

/// Whether a received field is forwarded unchanged. `X-Forwarded-For` never is: [`put_fields`] writes it anew. Nor is
/// the subject of a certificate, which this node alone can have verified. `Forwarded` (RFC 7239) is not written by this
/// node; from an untrusted peer it is dropped, since backends would trust it.
pub(super) fn passes(field: Field, trusted: bool) -> bool {
    match field {
        Field::XForwardedFor | Field::ClientSubject => false,
        Field::XRealIp
        | Field::XForwardedProto
        | Field::XForwardedProtocol
        | Field::XForwardedPort
        | Field::Forwarded => trusted,
        _ => true,
    }
}

/// Writes the forwarded headers, except those forwarded unchanged.
pub(super) fn put_fields(out: &mut Vec<u8>, peer: &Peer, trusted: bool, lines: &FieldLines<'_, '_>) {
    let is_missing = |field| !trusted || lines.of(field).next().is_none();
    out.extend_from_slice(b"X-Forwarded-For: ");
    if trusted {
        for header in lines.of(Field::XForwardedFor).filter(|header| !header.value.is_empty()) {
            out.extend_from_slice(header.value);
            out.extend_from_slice(b", ");
        }
    }
    let address = AddressText::of(peer.address);
    address.put(out);
    if is_missing(Field::XRealIp) {
        out.extend_from_slice(b"X-Real-IP: ");
        address.put(out);
    }
    // Each of these constants has a fixed length: copying a slice of variable length is a call.
    if is_missing(Field::XForwardedProto) {
        match peer.secure {
            true => out.extend_from_slice(b"X-Forwarded-Proto: https\r\n"),
            false => out.extend_from_slice(b"X-Forwarded-Proto: http\r\n"),
        }
    }
    if is_missing(Field::XForwardedProtocol) {
        match peer.secure {
            true => out.extend_from_slice(b"X-Forwarded-Protocol: https\r\n"),
            false => out.extend_from_slice(b"X-Forwarded-Protocol: http\r\n"),
        }
    }
    if is_missing(Field::XForwardedPort) {
        out.extend_from_slice(b"X-Forwarded-Port: ");
        out.extend_from_slice(itoa::Buffer::new().format(peer.local_port).as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    if let Some(subject) = peer.tls.as_ref().and_then(|tls| tls.subject.as_ref()) {
        put(out, CLIENT_SUBJECT, subject.as_bytes());
    }
}

/// The text of an address.
enum AddressText {
    /// The common case, without the formatting machinery. The text is put together in one word, not in memory: reading
    /// back smaller writes would stall the processor.
    V4 {
        word: u128,
        len: usize,
    },
    V6 {
        text: [u8; Self::LONGEST],
        len: usize,
    },
}

impl AddressText {
    /// The greatest length of an IPv6 address.
    const LONGEST: usize = b"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".len();

    fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::of_v4(address),
            IpAddr::V6(address) => Self::of_v6(address),
        }
    }

    fn of_v4(address: Ipv4Addr) -> Self {
        let (mut word, mut len) = (0, 0);
        for octet in address.octets() {
            let decimals = DECIMALS.get(usize::from(octet)).copied().unwrap_or_default();
            word |= u128::from(u32::from_le_bytes(decimals)) << (8 * len);
            len += decimal_len(octet);
        }
        // The last point is left out.
        Self::V4 { word, len: len - 1 }
    }

    /// The text is made once for all lines that hold it.
    #[inline(never)]
    fn of_v6(address: Ipv6Addr) -> Self {
        let mut text = [0; Self::LONGEST];
        let mut rest = text.as_mut_slice();
        // There is room for any address.
        let _ = write!(rest, "{address}");
        let len = Self::LONGEST - rest.len();
        Self::V6 { text, len }
    }

    /// Writes the text and CRLF.
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::V4 { word, len } => {
                // The whole word is written and the excess cut off, which avoids a call.
                let end = out.len() + len;
                out.extend_from_slice(&word.to_le_bytes());
                out.truncate(end);
            }
            Self::V6 { text, len } => out.extend_from_slice(text.prefix(*len)),
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// Each octet as decimal digits and a point.
static DECIMALS: [[u8; 4]; 256] = decimals();

const fn decimals() -> [[u8; 4]; 256] {
    let mut decimals = [[0; 4]; 256];
    let mut rest: &mut [[u8; 4]] = &mut decimals;
    let mut octet = 0;
    while let Some((place, others)) = rest.split_first_mut() {
        let [hundreds, tens, ones] = [b'0' + octet / 100, b'0' + octet / 10 % 10, b'0' + octet % 10];
        *place = match decimal_len(octet) {
            4 => [hundreds, tens, ones, b'.'],
            3 => [tens, ones, b'.', 0],
            _ => [ones, b'.', 0, 0],
        };
        rest = others;
        octet = octet.wrapping_add(1);
    }
    decimals
}

/// Length of an octet with its point.
const fn decimal_len(octet: u8) -> usize {
    2 + (octet >= 10) as usize + (octet >= 100) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each octet at each position, next to neighbours of each width, is written as the standard library would.
    #[test]
    fn the_client_is_the_first_untrusted_address_from_the_right() {
        let trusted = ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().expect("a network")).to_vec();
        let policy = Policy { trusted, mode: Mode::Append };
        let peer: IpAddr = "10.0.0.1".parse().expect("an address");
        let table = [
            ("", "10.0.0.1"),
            ("10.0.0.1", "10.0.0.1"),
            ("192.0.2.1, 10.0.0.1", "192.0.2.1"),
            ("6.6.6.6, 192.0.2.1, 10.0.0.2,10.0.0.1", "192.0.2.1"),
            ("10.0.0.9, 10.0.0.1", "10.0.0.9"),
            ("192.0.2.1, unknown, 10.0.0.2, 10.0.0.1", "10.0.0.2"),
            ("192.0.2.1:4321, 10.0.0.1", "192.0.2.1"),
            ("[2001:db8::1]:4321, fd00::1, 10.0.0.1", "2001:db8::1"),
            ("::ffff:192.0.2.1, 10.0.0.1", "192.0.2.1"),
        ];
        for (chain, expected) in table {
            assert_eq!(client_of(chain.as_bytes(), &policy, peer).to_string(), expected, "{chain:?}");
        }
    }

    #[test]
    fn an_address_is_written_in_decimals() {
        let check = |address: IpAddr| {
            let mut out = b"X-Real-IP: ".to_vec();
            AddressText::of(address).put(&mut out);
            assert_eq!(out, format!("X-Real-IP: {address}\r\n").into_bytes(), "{address}");
        };
        for octet in 0..=u8::MAX {
            for place in 0..4 {
                for neighbour in [0, 9, 10, 99, 100, 255] {
                    let mut octets = [neighbour; 4];
                    octets[place] = octet;
                    check(Ipv4Addr::from(octets).into());
                }
            }
        }
        for address in ["::", "::1", "2001:db8::7", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"] {
            check(address.parse().expect("an address"));
        }
    }
}
