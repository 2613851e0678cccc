//! Clients that move from one worker to another, and the queue in which they arrive.

use super::connection::{Admitted, BufferedConnection, ClosingSides};
use super::haproxy::Entry;
use super::proxy_protocol::HeaderUse;
use crate::base::buffer::BufferUsage;
use crate::base::clock::Moment;
use crate::cluster::Backend;
use crate::exchange::Exchange;
use crate::net::transport::Transport;
use crate::wire::forwarded::Peer;
use crate::wire::proxy_protocol::ProxyAddresses;
use crossbeam_channel::{Receiver, Sender};
use std::net::TcpStream;
use std::sync::Arc;

/// Arrival queue of the clients that move to a worker. It belongs to the worker's slot and outlives the worker, as the
/// listening sockets do, so no client is lost between the end of one worker and the start of the next.
#[derive(Clone, Debug)]
pub struct HandoffQueue {
    arrivals: Sender<Vec<MigratingConnection>>,
    waiting: Receiver<Vec<MigratingConnection>>,
}

impl Default for HandoffQueue {
    fn default() -> Self {
        // There are never more of them than clients of all workers.
        let (arrivals, waiting) = crossbeam_channel::unbounded();
        Self { arrivals, waiting }
    }
}

impl HandoffQueue {
    /// Adds clients to the queue. The first ones require a [`WorkerCommand::Arrivals`](super::WorkerCommand::Arrivals)
    /// to the worker; the result is `false` if others already wait, whose command was sent.
    pub fn put(&self, connections: Vec<MigratingConnection>) -> bool {
        // Sending fails only without a receiver, and this queue holds one.
        let _ = self.arrivals.send(connections);
        // This check comes after the send: if others are still here now, the worker has yet to find these behind them.
        self.waiting.len() <= 1
    }

    /// Takes the clients in the order of arrival.
    pub(super) fn receive(&self) -> Option<Vec<MigratingConnection>> {
        self.waiting.try_recv().ok()
    }

    /// Moves every client to another queue. Returns whether there was one.
    pub fn forward(&self, other: &Self) -> bool {
        self.waiting.try_iter().fold(false, |_, connections| {
            other.put(connections);
            true
        })
    }

    /// Whether the queue is empty.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

/// A client that moves to another worker. Dropping it closes its connection.
#[derive(Debug)]
pub struct MigratingConnection {
    pub(super) stream: BufferedConnection,
    pub(super) peer: Peer,
    /// `None` where it comes from another process: the address is enough there.
    pub(super) entry: Option<Entry>,
    pub(super) served: u32,
    pub(super) admitted: Option<Box<Admitted>>,
    pub(super) is_shaking_hands: bool,
    pub(super) awaits_header: Option<HeaderUse>,
    pub(super) told: Option<Box<ProxyAddresses>>,
    /// Deadline of its idle time or handshake; `None` to start anew.
    pub(super) due: Option<Moment>,
    pub(super) tunnel: Option<Box<MigratingTunnel>>,
}

/// The other side of a client that is a tunnel.
#[derive(Debug)]
pub(super) struct MigratingTunnel {
    pub(super) exchange: Exchange,
    pub(super) closing: ClosingSides,
    pub(super) upstream: BufferedConnection,
    pub(super) backend: Arc<Backend>,
    /// When the tunnel ends because its backend has left the list.
    pub(super) retire_at: Option<Moment>,
}

/// An idle client without encryption and without unread bytes: a socket and the client's identity.
#[derive(Debug)]
pub struct PlainClient {
    /// The connection, non-blocking.
    pub stream: TcpStream,
    /// The client's addresses.
    pub peer: Peer,
    /// Number of responses it has had.
    pub served: u32,
    /// Contents of the PROXY header.
    pub told: Option<ProxyAddresses>,
}

impl MigratingConnection {
    /// The part of a client that another process can take.
    pub fn into_plain(self) -> Option<PlainClient> {
        let is_idle = self.tunnel.is_none() && self.stream.unread.is_empty();
        let stream = self.stream.transport.into_plain().filter(|_| is_idle)?;
        Some(PlainClient { stream, peer: self.peer, served: self.served, told: self.told.map(|told| *told) })
    }

    /// Buffers of its worker that it holds.
    pub(super) fn buffer_usage(&self) -> BufferUsage {
        let of_tunnel = |tunnel: &MigratingTunnel| tunnel.exchange.buffer_usage().and(tunnel.upstream.lent());
        self.stream.lent().and(self.tunnel.as_deref().map_or_else(BufferUsage::default, of_tunnel))
    }
}

impl From<PlainClient> for MigratingConnection {
    fn from(client: PlainClient) -> Self {
        let PlainClient { stream, peer, served, told } = client;
        let stream = BufferedConnection::new(Transport::accepted(mio::net::TcpStream::from_std(stream)));
        let told = told.map(Box::new);
        Self {
            stream,
            peer,
            entry: None,
            served,
            admitted: None,
            is_shaking_hands: false,
            awaits_header: None,
            told,
            due: None,
            tunnel: None,
        }
    }
}
