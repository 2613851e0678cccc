//! The PROXY protocol at both ends: at some listeners a proxy names the client before its first byte, and some backends
//! get the same header. Only headers from the networks that a listener names are trusted.

use super::Worker;
use crate::base::counters::Counter;
use crate::base::gen_slab::SlotKey;
use crate::net::transport::Received;
use crate::wire::proxy_protocol::{self, Fault, Header, LONGEST, ProxyAddresses, Version};
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// Networks that connect to an address, and whether their connections begin with a header.
pub type ProxyNetworks = Arc<[(IpNet, HeaderUse)]>;

/// Whether connections from a network begin with a PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderUse {
    /// The header is required.
    Required,
    /// The header is optional: a connection without it belongs to its own client, such as the plain probe of a
    /// balancer.
    Allowed,
    /// The header is refused: bytes that look like one are a bad request.
    Ignored,
}

/// Every connection has to begin with a header, from any network.
pub(super) fn every_network() -> ProxyNetworks {
    [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)]
        .into_iter()
        .filter_map(|address| Some((IpNet::new(address, 0).ok()?, HeaderUse::Required)))
        .collect()
}

/// Rule of an address: that of the narrowest network that contains it.
pub(super) fn header_use(networks: &[(IpNet, HeaderUse)], address: IpAddr) -> Option<HeaderUse> {
    let having = networks.iter().filter(|(network, _)| network.contains(&address));
    having.max_by_key(|(network, _)| network.prefix_len()).map(|(_, header)| *header)
}

/// Result of reading a header.
enum Read {
    Whole(Header),
    /// More bytes have to come.
    Part,
    Bad(&'static str),
    /// There is no header, and none is required.
    Absent,
    /// The proxy closed without a byte, as port checks do.
    Nothing,
}

impl Worker {
    /// A client was accepted whose PROXY header is still to come. A TLS handshake after it has a time limit of its own.
    pub(super) fn await_header(&mut self, key: SlotKey) {
        if let Some(client) = self.clients.get_mut(key) {
            self.timers.set(&mut client.timer, self.core.now + self.core.settings.head_timeout);
        }
    }

    /// Reads the PROXY header, if it is complete; returns whether the client's own bytes follow. The header is peeked
    /// in place until it is complete, and no byte behind it is consumed.
    pub(super) fn read_header(&mut self, key: SlotKey) -> bool {
        let Some(client) = self.clients.get_mut(key) else { return false };
        let transport = &mut client.stream.transport;
        let room = self.scratch.get_mut(..LONGEST).unwrap_or_default();
        let read = match transport.peek(room) {
            Received::Bytes(count) => match proxy_protocol::parse(room.get(..count).unwrap_or_default()) {
                Ok(Some(header)) if room.get_mut(..header.len).is_some_and(|room| transport.skip(room)) => {
                    Read::Whole(header)
                }
                Ok(Some(_)) => Read::Bad("a connection that broke"),
                // Bytes that were peeked and can still be read end here.
                Ok(None) if transport.is_readable() => Read::Bad("the end within a PROXY header"),
                Ok(None) => Read::Part,
                Err(Fault::Signature) if client.awaits_header == Some(HeaderUse::Allowed) => Read::Absent,
                Err(fault) => Read::Bad(fault.text()),
            },
            Received::Nothing | Received::Hello | Received::Plain(_) => Read::Part,
            Received::End | Received::Broken => Read::Nothing,
        };
        match read {
            Read::Whole(header) => {
                if let Some(ends) = header.ends {
                    client.peer.address = ends.source.ip();
                    client.peer.local_port = ends.destination.port();
                    client.told = Some(Box::new(ends));
                }
                self.counters.count(Counter::ProxyHeaders);
                return self.begin_behind_header(key);
            }
            Read::Absent => return self.begin_behind_header(key),
            Read::Part => {}
            Read::Nothing => self.close_client(key),
            Read::Bad(what) => {
                log::debug!("{}: {what}", client.peer.address);
                self.counters.count(Counter::BadProxyHeaders);
                self.close_client(key);
            }
        }
        false
    }

    /// The client's own bytes follow. Returns whether it is admitted.
    fn begin_behind_header(&mut self, key: SlotKey) -> bool {
        let Some(client) = self.clients.get_mut(key) else { return false };
        client.awaits_header = None;
        if !client.is_shaking_hands {
            self.timers.set(&mut client.timer, self.core.now + self.settings.idle_timeout);
        }
        self.may_move(key);
        self.admit_named(key)
    }

    /// Counts a client for the address that the PROXY header has named, or for the connection's own address without a
    /// header, if that address may have another connection.
    fn admit_named(&mut self, key: SlotKey) -> bool {
        let Some(client) = self.clients.get(key) else { return false };
        let permit = self.admit(client.peer.address);
        match (permit, self.clients.get_mut(key)) {
            (Ok(permit), Some(client)) => {
                client.set_permit(permit);
                true
            }
            _ => {
                self.counters.count(Counter::PerIpRejections);
                self.close_client(key);
                false
            }
        }
    }

    /// A header did not arrive in time.
    pub(super) fn header_due(&mut self, key: SlotKey) {
        self.counters.count(Counter::LateProxyHeaders);
        self.close_client(key);
    }

    /// The PROXY header for the backend of an exchange.
    pub(super) fn preface(&self, job: SlotKey, version: Version) -> Box<[u8]> {
        let client = self.jobs.get(job).and_then(|job| self.clients.get(job.client));
        let ends = client.and_then(|client| match &client.told {
            Some(told) => Some(**told),
            None => client
                .stream
                .transport
                .ends()
                .ok()
                .map(|(source, destination)| ProxyAddresses::new(source, destination)),
        });
        let mut preface = Vec::new();
        proxy_protocol::write(version, ends, &mut preface);
        preface.into()
    }
}
