//! How a name is looked up: by the system, or by servers of names that say for how long their records are good.

use super::client::{self, Kind, Record};
use super::system::System;
use super::{Found, Resolve};
use crate::base::clock::Clock;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// The servers of names that are asked (`server.dnsServers`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DnsServers {
    /// Those of `/etc/resolv.conf`.
    System,
    /// These.
    These(Vec<SocketAddr>),
}

/// A way to look up names: with `servers`, or by the system, which does not tell how long a name is good. Names of services,
/// which begin with `_` (RFC 2782), are always asked of servers.
pub(in crate::directory) fn resolver(servers: Option<DnsServers>, clock: Clock) -> Box<Resolve> {
    Box::new(move |host, port| {
        let system = System::read();
        let asks = |system: System| Asks {
            servers: match &servers {
                Some(DnsServers::These(these)) => these.clone(),
                Some(DnsServers::System) | None => system.servers.clone(),
            },
            system,
            clock,
        };
        match servers {
            _ if host.starts_with('_') => asks(system).service(host),
            Some(_) if !system.has_host(host) => asks(system).addresses(host, port),
            _ => by_system(host, port),
        }
    })
}

fn by_system(host: &str, port: u16) -> io::Result<Found> {
    let found = std::net::ToSocketAddrs::to_socket_addrs(&(host, port))?;
    Ok(Found { addresses: found.map(|address| (address, 1)).collect(), ttl: None })
}

struct Asks {
    servers: Vec<SocketAddr>,
    system: System,
    clock: Clock,
}

impl Asks {
    /// The addresses of a host, with this port.
    fn addresses(&self, host: &str, port: u16) -> io::Result<Found> {
        let mut last = None;
        for name in self.system.candidates(host) {
            match self.addresses_of(&name) {
                Ok((addresses, ttl)) if !addresses.is_empty() => {
                    let addresses = addresses.into_iter().map(|address| (SocketAddr::new(address, port), 1)).collect();
                    return Ok(Found { addresses, ttl });
                }
                Ok(_) => {}
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| io::Error::new(ErrorKind::NotFound, "there is no such name, or it has no address")))
    }

    /// The addresses of both families, in turn, those of IPv6 first (RFC 8305 section 4).
    fn addresses_of(&self, name: &str) -> io::Result<(Vec<IpAddr>, Option<Duration>)> {
        let [v6, v4] = [Kind::Aaaa, Kind::A].map(|kind| client::ask(&self.servers, name, kind, self.clock));
        // One family will do where the server has a problem with the other.
        let (v6, v4) = match (v6, v4) {
            (Err(error), Err(_)) => return Err(error),
            (v6, v4) => (v6.unwrap_or_default(), v4.unwrap_or_default()),
        };
        let ttl = v6.ttl.into_iter().chain(v4.ttl).min();
        let address = |record: Record| match record {
            Record::Address(address) => Some(address),
            Record::Service { .. } => None,
        };
        let mut families = [v6, v4].map(|response| response.records.into_iter().filter_map(address));
        let mut addresses = Vec::new();
        loop {
            let before = addresses.len();
            families.iter_mut().for_each(|family| addresses.extend(family.next()));
            if addresses.len() == before {
                return Ok((addresses, ttl));
            }
        }
    }

    /// The hosts and ports of a service: those of the lowest priority that have an address, each with its weight.
    fn service(&self, name: &str) -> io::Result<Found> {
        let response = client::ask(&self.servers, name, Kind::Srv, self.clock)?;
        let mut services: Vec<_> = response
            .records
            .into_iter()
            .filter_map(|record| match record {
                // A target of the root: the service is not there (RFC 2782).
                Record::Service { priority, weight, port, target } if !target.is_empty() && target != "." => {
                    Some((priority, weight, port, target))
                }
                _ => None,
            })
            .collect();
        services.sort_unstable();
        let (mut addresses, mut ttl, mut last) = (Vec::new(), response.ttl, None);
        for group in services.chunk_by(|one, other| one.0 == other.0) {
            let is_weighted = group.iter().any(|(_, weight, ..)| *weight > 0);
            for (_, weight, port, target) in group {
                match self.addresses_of(target) {
                    Ok((found, found_ttl)) => {
                        let of_each = if is_weighted { share(*weight, found.len()) } else { 1 };
                        addresses.extend(found.into_iter().map(|address| (SocketAddr::new(address, *port), of_each)));
                        ttl = ttl.into_iter().chain(found_ttl).min();
                    }
                    Err(error) => last = Some(error),
                }
            }
            if !addresses.is_empty() {
                return Ok(Found { addresses, ttl });
            }
        }
        Err(last.unwrap_or_else(|| {
            io::Error::new(ErrorKind::NotFound, "there is no such service, or none of its hosts has an address")
        }))
    }
}

/// The weight of each address of a host with this weight. A host of weight 0 beside others has a very small one (RFC 2782).
fn share(weight: u16, addresses: usize) -> u32 {
    // The least common multiple of 1 to 8: few hosts have more addresses.
    let whole = u32::from(weight) * 840;
    u32::try_from(addresses).map_or(1, |count| whole.checked_div(count).unwrap_or(1)).max(1)
}
