//! Clients on their way from one worker to another, and where they arrive.

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

/// Where clients arrive who move to a worker. It belongs to the worker's place and outlives the worker, as the listening
/// sockets do: so nobody is lost who arrives while one worker goes and the next one comes.
#[derive(Clone, Debug)]
pub struct HandoffQueue {
    arrivals: Sender<Vec<MigratingConnection>>,
    waiting: Receiver<Vec<MigratingConnection>>,
}

impl Default for HandoffQueue {
    fn default() -> Self {
        // There are never more of them than the workers have clients.
        let (arrivals, waiting) = crossbeam_channel::unbounded();
        Self { arrivals, waiting }
    }
}

impl HandoffQueue {
    /// Puts clients there. The worker is to be told ([`WorkerCommand::Arrivals`](super::WorkerCommand::Arrivals)), if they are the first; `false` if others wait
    /// already, of whom it has been told.
    pub fn put(&self, connections: Vec<MigratingConnection>) -> bool {
        // Fails only where nobody can receive, and this is one who can.
        let _ = self.arrivals.send(connections);
        // Looked at afterwards: if others are still there now, the worker has yet to find these behind them.
        self.waiting.len() <= 1
    }

    /// Takes those who have arrived first.
    pub(super) fn receive(&self) -> Option<Vec<MigratingConnection>> {
        self.waiting.try_recv().ok()
    }

    /// Sends everybody to another landing. Whether there was somebody.
    pub fn forward(&self, other: &Self) -> bool {
        self.waiting.try_iter().fold(false, |_, connections| {
            other.put(connections);
            true
        })
    }

    /// Whether nobody waits there.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

/// A client on its way to another worker. Dropping it closes its connection.
#[derive(Debug)]
pub struct MigratingConnection {
    pub(super) stream: BufferedConnection,
    pub(super) peer: Peer,
    /// `None` where it comes from another process: its address tells.
    pub(super) entry: Option<Entry>,
    pub(super) served: u32,
    pub(super) admitted: Option<Box<Admitted>>,
    pub(super) is_shaking_hands: bool,
    pub(super) awaits_header: Option<HeaderUse>,
    pub(super) told: Option<Box<ProxyAddresses>>,
    /// When it has been idle, or has shaken hands, for too long; `None` to begin anew.
    pub(super) due: Option<Moment>,
    pub(super) tunnel: Option<Box<MigratingTunnel>>,
}

/// The other half of a client that is one end of a tunnel.
#[derive(Debug)]
pub(super) struct MigratingTunnel {
    pub(super) exchange: Exchange,
    pub(super) closing: ClosingSides,
    pub(super) upstream: BufferedConnection,
    pub(super) backend: Arc<Backend>,
    /// When it is ended because its backend has left the list.
    pub(super) retire_at: Option<Moment>,
}

/// A client that is idle and not encrypted, and of which nothing is read that was not used: a socket and who it is.
#[derive(Debug)]
pub struct PlainClient {
    /// The connection, non-blocking.
    pub stream: TcpStream,
    /// Who it is.
    pub peer: Peer,
    /// How many answers it has had.
    pub served: u32,
    /// What a proxy has told of it.
    pub told: Option<ProxyAddresses>,
}

impl MigratingConnection {
    /// What another process can take on.
    pub fn into_plain(self) -> Option<PlainClient> {
        let is_idle = self.tunnel.is_none() && self.stream.unread.is_empty();
        let stream = self.stream.transport.into_plain().filter(|_| is_idle)?;
        Some(PlainClient { stream, peer: self.peer, served: self.served, told: self.told.map(|told| *told) })
    }

    /// Which buffers of its worker it holds.
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
