//! The PROXY protocol at both ends: at some doors a proxy tells who the client is before its first byte, and some
//! backends are told in the same way. Nobody's word is taken but that of the networks that a door names.

use super::Worker;
use crate::base::counters::Counter;
use crate::base::gen_slab::SlotKey;
use crate::net::transport::Received;
use crate::wire::proxy_protocol::{self, Fault, Header, LONGEST, ProxyAddresses, Version};
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// The networks that connect to an address, and whether their connections begin with a header.
pub type ProxyNetworks = Arc<[(IpNet, HeaderUse)]>;

/// Whether the connections from a network begin with a header of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderUse {
    /// Each has to.
    Required,
    /// Each may: one that begins otherwise is its own client's, as the plain probe of a balancer is.
    Allowed,
    /// None does: what looks like a header is a bad request.
    Ignored,
}

/// Every connection begins with a header, whoever sends it.
pub(super) fn every_network() -> ProxyNetworks {
    [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)]
        .into_iter()
        .filter_map(|address| Some((IpNet::new(address, 0).ok()?, HeaderUse::Required)))
        .collect()
}

/// What holds for an address: the word of the narrowest network that has it.
pub(super) fn header_use(networks: &[(IpNet, HeaderUse)], address: IpAddr) -> Option<HeaderUse> {
    let having = networks.iter().filter(|(network, _)| network.contains(&address));
    having.max_by_key(|(network, _)| network.prefix_len()).map(|(_, header)| *header)
}

/// What became of a header.
enum Read {
    Whole(Header),
    /// More of it has to come.
    Part,
    Bad(&'static str),
    /// There is none, and there need not be one.
    Absent,
    /// The proxy left without a byte, as those do who only look whether somebody listens.
    Nothing,
}

impl Worker {
    /// A client has come in of whom a proxy has yet to tell. Where hands are to be shaken, that has a time of its own.
    pub(super) fn await_header(&mut self, key: SlotKey) {
        if let Some(client) = self.clients.get_mut(key) {
            self.timers.set(&mut client.timer, self.core.now + self.core.settings.head_timeout);
        }
    }

    /// Reads what the proxy tells, if it is all there; whether the client itself is heard from here on. The header is
    /// looked at where it lies until it is complete, and nothing behind it is touched.
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
                // What is looked at and can still be read ends here.
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
                client.awaits_header = None;
                if let Some(ends) = header.ends {
                    client.peer.address = ends.source.ip();
                    client.peer.local_port = ends.destination.port();
                    client.told = Some(Box::new(ends));
                }
                if !client.is_shaking_hands {
                    self.timers.set(&mut client.timer, self.core.now + self.settings.idle_timeout);
                }
                self.counters.count(Counter::ProxyHeaders);
                self.may_move(key);
                return self.admit_told(key);
            }
            Read::Absent => {
                client.awaits_header = None;
                if !client.is_shaking_hands {
                    self.timers.set(&mut client.timer, self.core.now + self.settings.idle_timeout);
                }
                self.may_move(key);
                return self.admit_told(key);
            }
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

    /// Counts a client as one of the address that its proxy has told, or of the connection's own where it has told none,
    /// if that may have another.
    fn admit_told(&mut self, key: SlotKey) -> bool {
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

    /// A header that was not there in time.
    pub(super) fn header_due(&mut self, key: SlotKey) {
        self.counters.count(Counter::LateProxyHeaders);
        self.close_client(key);
    }

    /// What a backend is told of the client of an exchange.
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
