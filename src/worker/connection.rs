//! What lives in a worker's three slabs.

use crate::base::line::Place;
use crate::base::slots::{Key, Slots};
use crate::base::wheel::Timer;
use crate::cluster::{Backend, BackendId};
use crate::exchange::{Exchange, Side};
use crate::net::quota::Share;
use crate::net::tls::ToBackend;
use crate::net::transport::Transport;
use crate::wire::forwarded::Peer;
use crate::wire::proxy_header::Ends;
use std::net::SocketAddr;
use std::sync::Arc;

/// A connection and what was read from it that no step has consumed.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) transport: Transport,
    /// Owns memory only while there is something in it.
    pub(super) unread: Vec<u8>,
    /// What is unread was offered, and nothing of it could be used yet: more has to come.
    pub(super) starved: bool,
}

impl Stream {
    pub(super) fn new(transport: Transport) -> Self {
        Self { transport, unread: Vec::new(), starved: false }
    }

    /// Whether a buffer of the worker's is in use for it.
    pub(super) fn holds_buffer(&self) -> bool {
        self.unread.capacity() > 0
    }

    /// Whether there may be bytes to offer.
    pub(super) fn has_more(&self) -> bool {
        self.transport.is_readable() || (!self.unread.is_empty() && !self.starved)
    }
}

/// A connection from a client. Between two requests this is all that there is of it.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) stream: Stream,
    pub(super) peer: Peer,
    pub(super) timer: Timer,
    pub(super) job: Option<Key>,
    /// Its place among the idle ones, while it has no job.
    pub(super) idle: Option<Place>,
    /// How many answers it has had.
    pub(super) served: u32,
    /// The number of the door it came through.
    pub(super) door: u32,
    /// Its part of what its address may have, where that is limited.
    pub(super) share: Option<Box<Share>>,
    /// It counts among those whose handshake is under way.
    pub(super) is_shaking_hands: bool,
    /// A proxy has yet to tell who it is.
    pub(super) awaits_header: bool,
    /// The poll tells what happens to it.
    pub(super) is_watched: bool,
    /// What a proxy has told.
    pub(super) told: Option<Box<Ends>>,
}

/// An exchange and what it is tied to.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) exchange: Exchange,
    pub(super) client: Key,
    pub(super) link: Link,
    /// The writing to these sides is to be shut down once everything has left.
    pub(super) closing_client: bool,
    pub(super) closing_upstream: bool,
    /// How much one read may bring: less while the other side cannot take as much.
    pub(super) read_limit: usize,
}

impl Job {
    /// The socket of a side, where there is one.
    pub(super) fn transport<'s>(
        &self,
        side: Side,
        clients: &'s mut Slots<Client>,
        upstreams: &'s mut Slots<Upstream>,
    ) -> Option<&'s mut Transport> {
        match (side, self.link) {
            (Side::Client, _) => clients.get_mut(self.client).map(|client| &mut client.stream.transport),
            (Side::Upstream, Link::Upstream(key)) => {
                upstreams.get_mut(key).map(|upstream| &mut upstream.stream.transport)
            }
            (Side::Upstream, _) => None,
        }
    }

    pub(super) fn closing(&mut self, side: Side) -> &mut bool {
        match side {
            Side::Client => &mut self.closing_client,
            Side::Upstream => &mut self.closing_upstream,
        }
    }
}

/// What an exchange has of a connection to its backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Link {
    /// Nothing.
    #[default]
    None,
    /// A place in the queue of this backend.
    Queued(BackendId),
    /// The permission to open one, when the name of this backend is known.
    Naming(BackendId),
    /// A connection, there or being opened.
    Upstream(Key),
}

/// A connection to a backend.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) stream: Stream,
    pub(super) backend: Arc<Backend>,
    /// The exchange that uses it, or has waited and is about to get it; `None` in the pool.
    pub(super) job: Option<Key>,
    /// Its place among the idle ones, while it is in the pool.
    pub(super) idle: Option<Place>,
    pub(super) timer: Timer,
    /// The addresses that are left to try while it is being opened.
    pub(super) dial: Option<Dial>,
    /// What earlier exchanges had sent when this one took the connection.
    pub(super) sent_before: u64,
    /// It is a tunnel, and no longer counts in the pool.
    pub(super) is_tunnel: bool,
}

/// A connection being opened.
#[derive(Debug)]
pub(super) struct Dial {
    pub(super) addresses: Arc<[SocketAddr]>,
    /// How many of them were tried.
    pub(super) tried: usize,
    /// What is told of the client ahead of everything; mostly nothing.
    pub(super) preface: Box<[u8]>,
    /// Whom to shake hands with, where the connection is to be encrypted.
    pub(super) tls: Option<ToBackend>,
}

impl Dial {
    /// The next address to try.
    pub(super) fn next_address(&mut self) -> Option<SocketAddr> {
        let address = self.addresses.get(self.tried).copied()?;
        self.tried += 1;
        Some(address)
    }
}
