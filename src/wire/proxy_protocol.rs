//! The PROXY protocol, versions 1 and 2: the addresses of a client, sent by a proxy before the first byte of the
//! connection (HAProxy's `doc/proxy-protocol.txt`).
//!
//! It is implemented here, not by a crate: it precedes all other input of an untrusted peer, and no crate that reads
//! both versions can be called again with more bytes without an allocation.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest header of version 1, CRLF included (section 2.1).
const LONGEST_LINE: usize = 107;

/// The longest header of version 2 that is read, in bytes. The addresses take 52 bytes; the TLVs that follow are
/// skipped and take a few hundred bytes if they hold the name of a certificate.
const LONGEST_BLOCK: usize = 4096;

/// The greatest number of bytes that have to be examined.
pub const LONGEST: usize = LONGEST_BLOCK;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const FIRST_WORD: &[u8] = b"PROXY ";

/// The bytes of version 2 before the addresses: signature, version and command, family, length.
const BLOCK_START: usize = 16;

/// The two ends of the client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyAddresses {
    /// The client. An IPv4 address is never in its mapped IPv6 form.
    pub source: SocketAddr,
    /// The address the client connected to; never in the mapped form either.
    pub destination: SocketAddr,
}

impl ProxyAddresses {
    /// Converts mapped IPv6 addresses to IPv4.
    pub fn new(source: SocketAddr, destination: SocketAddr) -> Self {
        let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        Self { source: canonical(source), destination: canonical(destination) }
    }
}

/// A header that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Length in bytes.
    pub len: usize,
    /// The ends of the client's connection. `None` if the proxy speaks for itself (`LOCAL`, as in its health checks) or
    /// for a client without a TCP/IP address (`UNKNOWN`, a UNIX socket). The connection's own addresses apply then.
    pub ends: Option<ProxyAddresses>,
}

/// Why the start of a connection is not a valid header. The only reaction is to close the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It matches neither version.
    Signature,
    /// A line of version 1 that is malformed: another word than `TCP4`, `TCP6` and `UNKNOWN`, an address of the other
    /// family, a number with a sign or leading zeros, two spaces, a bare LF.
    Line,
    /// More than 107 bytes without a line end in version 1, more than 4096 bytes in version 2.
    TooLong,
    /// In the binary form, a version other than 2, or a command other than `LOCAL` and `PROXY`.
    Version,
    /// A family or a transport that the protocol does not know.
    Family,
    /// Fewer bytes than the addresses of its family take.
    TooShort,
}

impl Fault {
    /// A description of the fault, for the log.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Signature => "no PROXY header",
            Self::Line => "a PROXY line that cannot be read",
            Self::TooLong => "a PROXY header that is too long",
            Self::Version => "a PROXY header of an unknown version or command",
            Self::Family => "a PROXY header of an unknown family of addresses",
            Self::TooShort => "a PROXY header that is too short for its addresses",
        }
    }
}

/// Reads the header at the start of `bytes`; `None` while it is not complete.
pub fn parse(bytes: &[u8]) -> Result<Option<Header>, Fault> {
    if begins_as(bytes, SIGNATURE) {
        parse_block(bytes)
    } else if begins_as(bytes, FIRST_WORD) {
        parse_line(bytes)
    } else {
        Err(Fault::Signature)
    }
}

/// Whether `bytes` begin with `start`, as far as they go.
fn begins_as(bytes: &[u8], start: &[u8]) -> bool {
    bytes.iter().zip(start).all(|(found, expected)| found == expected)
}

fn parse_line(bytes: &[u8]) -> Result<Option<Header>, Fault> {
    let within = bytes.get(..LONGEST_LINE).unwrap_or(bytes);
    let Some(end) = memchr::memchr(b'\n', within) else {
        return if bytes.len() < LONGEST_LINE { Ok(None) } else { Err(Fault::TooLong) };
    };
    let line = within.get(FIRST_WORD.len()..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(Fault::Line)?;
    let line = std::str::from_utf8(line).map_err(|_| Fault::Line)?;
    // The text behind the word has no meaning.
    let is_unknown = line.strip_prefix("UNKNOWN").is_some_and(|rest| rest.is_empty() || rest.starts_with(' '));
    let ends = if is_unknown { None } else { Some(read_ends(line).ok_or(Fault::Line)?) };
    Ok(Some(Header { len: end + 1, ends }))
}

fn read_ends(line: &str) -> Option<ProxyAddresses> {
    let mut words = line.split(' ');
    let family = words.next()?;
    let mut address = || -> Option<IpAddr> {
        let word = words.next()?;
        match family {
            "TCP4" => word.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => word.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let (source, destination) = (address()?, address()?);
    let (source_port, destination_port) = (read_port(words.next()?)?, read_port(words.next()?)?);
    let (source, destination) = (SocketAddr::new(source, source_port), SocketAddr::new(destination, destination_port));
    words.next().is_none().then(|| ProxyAddresses::new(source, destination))
}

/// A port in its canonical form: section 2.1 allows no leading zeros.
fn read_port(word: &str) -> Option<u16> {
    let is_canonical = word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    word.parse().ok().filter(|_| is_canonical)
}

fn parse_block(bytes: &[u8]) -> Result<Option<Header>, Fault> {
    let Some(&[version_and_command, family, len_high, len_low]) = bytes.get(SIGNATURE.len()..BLOCK_START) else {
        return Ok(None);
    };
    let len = BLOCK_START + usize::from(u16::from_be_bytes([len_high, len_low]));
    let is_local = match version_and_command {
        0x20 => true,
        0x21 => false,
        _ => return Err(Fault::Version),
    };
    if len > LONGEST_BLOCK {
        return Err(Fault::TooLong);
    }
    if family >> 4 > 3 || family & 0xf > 2 {
        return Err(Fault::Family);
    }
    let Some(content) = bytes.get(BLOCK_START..len) else { return Ok(None) };
    let ends = match family {
        _ if is_local => None,
        0x11 => Some(read_block::<4>(content).ok_or(Fault::TooShort)?),
        0x21 => Some(read_block::<16>(content).ok_or(Fault::TooShort)?),
        _ => None,
    };
    Ok(Some(Header { len, ends }))
}

/// Reads two addresses and two ports; the TLVs that follow are skipped.
fn read_block<const LEN: usize>(content: &[u8]) -> Option<ProxyAddresses>
where
    IpAddr: From<[u8; LEN]>,
{
    let (source, rest) = content.split_first_chunk::<LEN>()?;
    let (destination, rest) = rest.split_first_chunk::<LEN>()?;
    let (source_port, rest) = rest.split_first_chunk::<2>()?;
    let destination_port = rest.first_chunk::<2>()?;
    let [source_port, destination_port] = [source_port, destination_port].map(|port| u16::from_be_bytes(*port));
    let source = SocketAddr::new((*source).into(), source_port);
    Some(ProxyAddresses::new(source, SocketAddr::new((*destination).into(), destination_port)))
}

/// The version of the header that a backend gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// A line of text.
    V1,
    /// The binary form.
    V2,
}

/// Writes the header for this client; `None` writes one without addresses. If the two ends are of different families,
/// both are written as IPv6.
pub fn write(version: Version, ends: Option<ProxyAddresses>, out: &mut Vec<u8>) {
    match (version, ends) {
        (Version::V1, None) => out.extend_from_slice(b"PROXY UNKNOWN\r\n"),
        (Version::V1, Some(ProxyAddresses { source, destination })) => {
            let (from, to) = (source.port(), destination.port());
            // Writing to a `Vec` cannot fail.
            let _ = match (source.ip(), destination.ip()) {
                (IpAddr::V4(source), IpAddr::V4(destination)) => {
                    write!(out, "PROXY TCP4 {source} {destination} {from} {to}\r\n")
                }
                (source, destination) => {
                    let [source, destination] = [source, destination].map(as_v6);
                    write!(out, "PROXY TCP6 {source} {destination} {from} {to}\r\n")
                }
            };
        }
        (Version::V2, None) => {
            out.extend_from_slice(SIGNATURE);
            out.extend_from_slice(&[0x20, 0, 0, 0]);
        }
        (Version::V2, Some(ProxyAddresses { source, destination })) => {
            out.extend_from_slice(SIGNATURE);
            match (source.ip(), destination.ip()) {
                (IpAddr::V4(source), IpAddr::V4(destination)) => {
                    out.extend_from_slice(&[0x21, 0x11, 0, 12]);
                    out.extend_from_slice(&source.octets());
                    out.extend_from_slice(&destination.octets());
                }
                (source, destination) => {
                    out.extend_from_slice(&[0x21, 0x21, 0, 36]);
                    out.extend_from_slice(&as_v6(source).octets());
                    out.extend_from_slice(&as_v6(destination).octets());
                }
            }
            out.extend_from_slice(&source.port().to_be_bytes());
            out.extend_from_slice(&destination.port().to_be_bytes());
        }
    }
}

fn as_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}
