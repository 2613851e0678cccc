//! Clients that move from one worker to another, and the queue in which they arrive.

use super::connection::{Admitted, BufferedConnection, ClosingSides};
use super::haproxy::Entry;
use super::proxy_protocol::HeaderUse;
use crate::base::buffer::BufferUsage;
use crate::base::clock::Moment;
use crate::cluster::Backend;
use crate::exchange::{Exchange, PortableExchange, Side};
use crate::net::tls::PortableSession;
use crate::net::transport::Transport;
use crate::wire::forwarded::Peer;
use crate::wire::proxy_protocol::ProxyAddresses;
use crossbeam_channel::{Receiver, Sender};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
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
        // Clients of all workers bound the length of this queue.
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
        // This check comes after the send: if other clients are still queued now, the worker will find these behind
        // them.
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

    /// The number of clients in the queue, which are taken.
    #[cfg(test)]
    pub fn take_all(&self) -> usize {
        self.waiting.try_iter().map(|clients| clients.len()).sum()
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
    /// `None` for a client from another process, whose address is sufficient there.
    pub(super) entry: Option<Entry>,
    pub(super) served: u32,
    pub(super) admitted: Option<Box<Admitted>>,
    pub(super) is_shaking_hands: bool,
    pub(super) awaits_header: Option<HeaderUse>,
    pub(super) told: Option<Box<ProxyAddresses>>,
    /// Deadline of its idle time or handshake; `None` to restart it.
    pub(super) due: Option<Moment>,
    pub(super) exchange: Option<MigratingExchange>,
    /// Another process has not accepted it.
    pub(super) is_refused: bool,
}

/// The exchange of a client, with the connection to its backend.
#[derive(Debug)]
pub(super) enum MigratingExchange {
    /// An exchange of this process.
    Own(Box<OwnExchange>),
    /// An exchange of another process.
    Foreign(Box<ForeignExchange>),
}

/// An exchange of this process.
#[derive(Debug)]
pub(super) struct OwnExchange {
    pub(super) exchange: Exchange,
    pub(super) closing: ClosingSides,
    pub(super) upstream: BufferedConnection,
    pub(super) backend: Arc<Backend>,
    /// The moment at which the tunnel ends because its backend has left the list.
    pub(super) retire_at: Option<Moment>,
    /// Its state and its facts for the log, if it leaves the process.
    pub(super) portable: Option<(PortableExchange, Box<[u8]>)>,
}

/// A client of another process or for one: idle and without unread bytes, or with an exchange.
#[derive(Debug)]
pub struct PortableClient {
    /// The connection, non-blocking.
    pub stream: TcpStream,
    /// Its TLS session; `None` without TLS.
    pub session: Option<PortableSession>,
    /// The client's addresses.
    pub peer: Peer,
    /// Number of responses it has had.
    pub served: u32,
    /// Contents of the PROXY header.
    pub told: Option<ProxyAddresses>,
    /// The tunnel or the response in progress.
    pub exchange: Option<Box<ForeignExchange>>,
}

/// An exchange of another process.
#[derive(Debug)]
pub struct ForeignExchange {
    /// The connection to the backend, non-blocking.
    pub upstream: TcpStream,
    /// Its TLS session; `None` without TLS.
    pub upstream_session: Option<PortableSession>,
    /// The state of the exchange.
    pub state: PortableExchange,
    /// The sides, client and backend, whose stream ends after the bytes for them.
    pub closing: [bool; 2],
    /// Its bytes.
    pub bytes: RunningBytes<Vec<u8>>,
}

/// A client with an exchange, as it is sent to another process.
#[derive(Debug)]
pub struct RunningClient<'c> {
    /// The connections: the client's, and the one to the backend.
    pub sockets: [BorrowedFd<'c>; 2],
    /// Their TLS sessions.
    pub sessions: [Option<&'c PortableSession>; 2],
    /// The client's addresses.
    pub peer: &'c Peer,
    /// Number of responses it has had.
    pub served: u32,
    /// Contents of the PROXY header.
    pub told: Option<&'c ProxyAddresses>,
    /// The state of the exchange.
    pub state: &'c PortableExchange,
    /// The sides, client and backend, whose stream ends after the bytes for them.
    pub closing: [bool; 2],
    /// Its bytes.
    pub bytes: RunningBytes<&'c [u8]>,
}

/// The bytes of a client with an exchange that have been read, and not sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunningBytes<B> {
    /// The facts about the request for the log.
    pub log_fields: B,
    /// Bytes from the client that no step of the exchange has consumed.
    pub client_unread: B,
    /// Bytes from the backend that no step of the exchange has consumed.
    pub upstream_unread: B,
    /// Bytes that the client's socket has not accepted.
    pub to_client: B,
    /// Bytes that the backend's socket has not accepted.
    pub to_upstream: B,
}

impl<B> RunningBytes<B> {
    /// All parts, in this order.
    pub fn parts(&self) -> [&B; 5] {
        [&self.log_fields, &self.client_unread, &self.upstream_unread, &self.to_client, &self.to_upstream]
    }

    /// The bytes from their parts.
    pub fn from_parts([log_fields, client_unread, upstream_unread, to_client, to_upstream]: [B; 5]) -> Self {
        Self { log_fields, client_unread, upstream_unread, to_client, to_upstream }
    }
}

impl MigratingConnection {
    /// An idle client, for another process; `None` if none can continue it.
    pub fn into_portable(self) -> Option<PortableClient> {
        let is_idle = self.exchange.is_none() && self.stream.unread.is_empty();
        let session = self.stream.transport.portable_session().cloned();
        let stream = self.stream.transport.into_portable().filter(|_| is_idle)?;
        let told = self.told.map(|told| *told);
        Some(PortableClient { stream, session, peer: self.peer, served: self.served, told, exchange: None })
    }

    /// The part of a client with an exchange that another process can continue.
    pub(super) fn running(&self) -> Option<RunningClient<'_>> {
        let client = self.stream.transport.as_portable()?;
        let session = self.stream.transport.portable_session();
        let (upstream, upstream_session, state, closing, bytes) = match self.exchange.as_ref()? {
            MigratingExchange::Own(own) => {
                let (state, log_fields) = own.portable.as_ref()?;
                let bytes = RunningBytes {
                    log_fields: &**log_fields,
                    client_unread: self.stream.unread.bytes(),
                    upstream_unread: own.upstream.unread.bytes(),
                    to_client: own.exchange.pending_bytes(Side::Client),
                    to_upstream: own.exchange.pending_bytes(Side::Upstream),
                };
                let closing = [Side::Client, Side::Upstream].map(|side| own.closing.has(side));
                let upstream = &own.upstream.transport;
                (upstream.as_portable()?, upstream.portable_session(), state, closing, bytes)
            }
            MigratingExchange::Foreign(foreign) => {
                let bytes = RunningBytes::from_parts(foreign.bytes.parts().map(Vec::as_slice));
                (foreign.upstream.as_fd(), foreign.upstream_session.as_ref(), &foreign.state, foreign.closing, bytes)
            }
        };
        let (peer, served, told) = (&self.peer, self.served, self.told.as_deref());
        let (sockets, sessions) = ([client, upstream], [session, upstream_session]);
        Some(RunningClient { sockets, sessions, peer, served, told, state, closing, bytes })
    }

    /// Buffers of its worker that it holds.
    pub(super) fn buffer_usage(&self) -> BufferUsage {
        let of_exchange = match &self.exchange {
            Some(MigratingExchange::Own(own)) => own.exchange.buffer_usage().and(own.upstream.lent()),
            Some(MigratingExchange::Foreign(_)) | None => BufferUsage::default(),
        };
        self.stream.lent().and(of_exchange)
    }
}

impl From<PortableClient> for MigratingConnection {
    fn from(client: PortableClient) -> Self {
        let PortableClient { stream, session, peer, served, told, exchange } = client;
        let stream = BufferedConnection::new(Transport::arrived(mio::net::TcpStream::from_std(stream), session));
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
            exchange: exchange.map(MigratingExchange::Foreign),
            is_refused: false,
        }
    }
}
