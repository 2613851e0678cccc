//! The headers that tell a backend about its client (`X-Forwarded-For` and its kin; the set is Hipache's).

use super::field::{CLIENT_SUBJECT, Field, put, put_number};
use httparse::Header;
use ipnet::IpNet;
use std::io::Write;
use std::net::IpAddr;
use std::sync::Arc;

/// Whom to believe, and what becomes of the values that came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The networks of proxies in front of this one. What comes from elsewhere is always replaced.
    pub trusted: Vec<IpNet>,
    /// What becomes of values from a trusted network.
    pub mode: Mode,
}

/// What becomes of forwarded headers from a trusted network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `X-Forwarded-For` gets the peer's address at its end; the others are kept where they are present.
    Append,
    /// All are replaced by what this node sees itself.
    Replace,
}

impl Policy {
    /// Whether values from this peer are believed.
    pub fn believes(&self, peer: IpAddr) -> bool {
        self.mode == Mode::Append && self.trusts(peer)
    }

    /// Whether this is a proxy in front of this node.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(&peer))
    }
}

/// What this node knows of the client itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The address the connection came from; an IPv4 address never in its mapped IPv6 form.
    pub address: IpAddr,
    /// The port it came to.
    pub local_port: u16,
    /// Whether it is encrypted.
    pub secure: bool,
    /// Who the client's certificate says it is, in visible ASCII.
    pub subject: Option<Arc<str>>,
}

/// Whether a field that came in is passed on as it is. `X-Forwarded-For` never is: [`put_fields`] writes it anew;
/// nor is the subject of a certificate, which nobody but this node can have seen.
/// `Forwarded` (RFC 7239) is nothing this node adds, but from strangers it would be believed behind it.
pub(super) fn passes(field: Field, believed: bool) -> bool {
    match field {
        Field::XForwardedFor | Field::ClientSubject => false,
        Field::XRealIp
        | Field::XForwardedProto
        | Field::XForwardedProtocol
        | Field::XForwardedPort
        | Field::Forwarded => believed,
        _ => true,
    }
}

/// Writes the forwarded headers that are not passed on as they came.
pub(super) fn put_fields(out: &mut Vec<u8>, peer: &Peer, believed: bool, fields: &[Header<'_>]) {
    let is_missing = |field| !believed || !fields.iter().any(|header| Field::of(header.name) == field);
    out.extend_from_slice(b"X-Forwarded-For: ");
    if believed {
        let known = |header: &&Header<'_>| Field::of(header.name) == Field::XForwardedFor && !header.value.is_empty();
        for header in fields.iter().filter(known) {
            out.extend_from_slice(header.value);
            out.extend_from_slice(b", ");
        }
    }
    let start = out.len();
    put_address(out, peer.address);
    let address = start..out.len();
    out.extend_from_slice(b"\r\n");
    if is_missing(Field::XRealIp) {
        out.extend_from_slice(b"X-Real-IP: ");
        out.extend_from_within(address);
        out.extend_from_slice(b"\r\n");
    }
    let scheme: &[u8] = if peer.secure { b"https" } else { b"http" };
    if is_missing(Field::XForwardedProto) {
        put(out, "X-Forwarded-Proto", scheme);
    }
    if is_missing(Field::XForwardedProtocol) {
        put(out, "X-Forwarded-Protocol", scheme);
    }
    if is_missing(Field::XForwardedPort) {
        put_number(out, "X-Forwarded-Port", u64::from(peer.local_port));
    }
    if let Some(subject) = &peer.subject {
        put(out, CLIENT_SUBJECT, subject.as_bytes());
    }
}

/// IPv4, the common case, without the formatting machinery.
fn put_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            for (place, octet) in address.octets().into_iter().enumerate() {
                if place > 0 {
                    out.push(b'.');
                }
                if octet >= 100 {
                    out.push(b'0' + octet / 100);
                }
                if octet >= 10 {
                    out.push(b'0' + octet / 10 % 10);
                }
                out.push(b'0' + octet % 10);
            }
        }
        IpAddr::V6(address) => {
            // Writing to a `Vec` cannot fail.
            let _ = write!(out, "{address}");
        }
    }
}
