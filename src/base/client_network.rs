//! The unit that counts as one client.

use std::net::{IpAddr, Ipv6Addr};

/// The network of one customer: its hosts choose their addresses within it freely (RFC 6177, RFC 8981).
const PREFIX: u128 = !0 << 64;

/// The unit that counts as one client: an IPv4 address, or an IPv6 network of 64 bits.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & PREFIX).into(),
        ip => ip,
    }
}
