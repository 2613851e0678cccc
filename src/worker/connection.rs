//! What lives in a worker's three slabs.

use super::haproxy::Entry;
use super::proxy_protocol::HeaderUse;
use super::read_size::{ClientReadSize, ReadSize};
use crate::base::buffer::{BufferPool, BufferUsage};
use crate::base::clock::Moment;
use crate::base::gen_slab::{GenSlab, SlotKey};
use crate::base::slice_ext::SliceExt;
use crate::base::wheel::Timer;
use crate::cluster::{Backend, BackendId};
use crate::exchange::{Exchange, Side};
use crate::haproxy::serve::Visit;
use crate::net::connection_limiter::ConnectionPermit;
use crate::net::tls::TlsClientTarget;
use crate::net::transport::Transport;
use crate::wire::forwarded::Peer;
use crate::wire::proxy_protocol::ProxyAddresses;
use std::net::SocketAddr;
use std::sync::Arc;

/// A connection and what was read from it that no step has consumed.
#[derive(Debug)]
pub(super) struct BufferedConnection {
    pub(super) transport: Transport,
    pub(super) unread: ReadBuffer,
}

/// Bytes that were read and not consumed. They stay where they are until all are, however many steps that takes; only
/// then is the buffer given back. Owns memory only while there is something in it.
#[derive(Debug, Default)]
pub(super) struct ReadBuffer(Option<Box<UnreadBytes>>);

#[derive(Debug)]
struct UnreadBytes {
    buffer: Vec<u8>,
    /// How many bytes at the buffer's end are left. While the buffer is borrowed there are none here, until it is said how many
    /// there will be.
    left: usize,
    /// It was offered, and nothing of it could be used yet: more has to come.
    is_starved: bool,
}

impl ReadBuffer {
    /// How many bytes there are.
    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |rest| rest.left)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |rest| rest.buffer.suffix(rest.buffer.len() - rest.left))
    }

    /// The buffer of the worker's that is in use for it.
    pub(super) fn lent(&self) -> BufferUsage {
        self.0.as_ref().map_or_else(BufferUsage::default, |rest| BufferUsage::of(&rest.buffer))
    }

    /// Keeps these bytes, where there were none.
    pub(super) fn fill(&mut self, bytes: &[u8], buffers: &mut BufferPool) {
        debug_assert!(self.is_empty(), "bytes that were read before");
        self.0 = Some(Box::new(UnreadBytes { buffer: buffers.take(), left: 0, is_starved: false }));
        self.append(bytes, buffers);
    }

    /// Adds what was read since, where there were some.
    pub(super) fn append(&mut self, bytes: &[u8], buffers: &mut BufferPool) {
        if let Some(UnreadBytes { buffer, left, .. }) = self.0.as_deref_mut() {
            buffer.drain(..buffer.len() - *left);
            buffers.extend(buffer, bytes);
            *left = buffer.len();
        }
    }

    /// The buffer, and where in it the bytes begin. It is to come back by [`ReadBuffer::put_back`].
    pub(super) fn borrow(&mut self) -> (Vec<u8>, usize) {
        self.0.as_deref_mut().map_or_else(Default::default, |rest| {
            let start = rest.buffer.len() - std::mem::take(&mut rest.left);
            (std::mem::take(&mut rest.buffer), start)
        })
    }

    /// Says how many of the borrowed bytes are left.
    pub(super) fn set_left(&mut self, left: usize) {
        if let Some(rest) = &mut self.0 {
            rest.left = left;
        }
    }

    /// Whether there is something that can be offered without another read.
    pub(super) fn has_usable(&self) -> bool {
        self.0.as_ref().is_some_and(|rest| rest.left > 0 && !rest.is_starved)
    }

    /// Says whether nothing of it can be used before more has come.
    pub(super) fn set_starved(&mut self, is_starved: bool) {
        if let Some(rest) = &mut self.0 {
            rest.is_starved = is_starved;
        }
    }

    /// The buffer comes back.
    pub(super) fn put_back(&mut self, buffer: Vec<u8>, buffers: &mut BufferPool) {
        match &mut self.0 {
            Some(rest) if rest.left > 0 => rest.buffer = buffer,
            _ => {
                self.0 = None;
                buffers.give(buffer);
            }
        }
    }

    /// Drops what there is.
    pub(super) fn discard(&mut self, buffers: &mut BufferPool) {
        if let Some(rest) = self.0.take() {
            buffers.give(rest.buffer);
        }
    }
}

impl BufferedConnection {
    pub(super) fn new(transport: Transport) -> Self {
        Self { transport, unread: ReadBuffer::default() }
    }

    /// The buffers in use for it.
    pub(super) fn lent(&self) -> BufferUsage {
        self.unread.lent().and(self.transport.kept())
    }

    /// How many bytes it keeps from others.
    pub(super) fn buffered_bytes(&self) -> usize {
        self.unread.len() + self.transport.kept().grown
    }

    /// Counts the records among them anew. Who is sent to has just taken some, or not all.
    pub(super) fn count_records(&mut self, buffers: &mut BufferPool) {
        buffers.export_usage(self.transport.kept());
        buffers.import_usage(self.transport.recount());
    }

    /// The end of it: drops what was read, and the records that did not leave.
    pub(super) fn close(&mut self, buffers: &mut BufferPool) {
        self.unread.discard(buffers);
        self.transport.close_gracefully();
        buffers.export_usage(self.transport.kept());
    }

    /// Whether there may be bytes to offer.
    pub(super) fn has_more(&self) -> bool {
        self.transport.is_readable() || self.unread.has_usable()
    }
}

/// A connection from a client. Between two requests this is all that there is of it.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) stream: BufferedConnection,
    pub(super) peer: Peer,
    pub(super) timer: Timer,
    pub(super) job: Option<SlotKey>,
    /// Since when it has no job; [`Moment::NEVER`] while it has one.
    pub(super) idle_since: Moment,
    /// How many answers it has had.
    pub(super) served: u32,
    /// How much the first read of its next exchange may bring.
    pub(super) read_size: ClientReadSize,
    /// Where it came in.
    pub(super) entry: Entry,
    /// What it counts in: mostly nothing.
    pub(super) admitted: Option<Box<Admitted>>,
    /// It counts among those whose handshake is under way.
    pub(super) is_shaking_hands: bool,
    /// A proxy has yet to tell who it is.
    pub(super) awaits_header: Option<HeaderUse>,
    /// It came to the service of this node, and moves to no other worker.
    pub(super) is_for_service: bool,
    /// The poll tells what happens to it.
    pub(super) is_registered: bool,
    /// The writing to it is shut down, and what it still sends is discarded.
    pub(super) is_lingering: bool,
    /// What a proxy has told.
    pub(super) told: Option<Box<ProxyAddresses>>,
}

/// What a client counts in for as long as its connection lasts.
#[derive(Debug)]
pub(super) struct Admitted {
    /// Its part of what its address may have, where that is limited.
    _permit: Option<ConnectionPermit>,
    /// What the rules of its frontend keep of it.
    pub(super) visit: Option<Arc<Visit>>,
}

impl Client {
    /// Counts it among the connections of its address, which is known only now.
    pub(super) fn set_permit(&mut self, permit: Option<ConnectionPermit>) {
        let visit = self.admitted.take().and_then(|admitted| admitted.visit);
        self.admitted = Admitted::new(permit, visit);
    }
}

impl Admitted {
    /// `None` where there is nothing that it counts in.
    pub(super) fn new(permit: Option<ConnectionPermit>, visit: Option<Arc<Visit>>) -> Option<Box<Self>> {
        (permit.is_some() || visit.is_some()).then(|| Box::new(Self { _permit: permit, visit }))
    }
}

/// An exchange and what it is tied to.
#[derive(Debug)]
pub(super) struct ActiveExchange {
    pub(super) exchange: Exchange,
    pub(super) client: SlotKey,
    pub(super) upstream_state: UpstreamState,
    /// The writing to these sides is to be shut down once everything has left.
    pub(super) closing: ClosingSides,
    /// How much one read may bring: less while the other side cannot take as much.
    pub(super) read_size: ReadSize,
    /// Where it is one of those who upload, as far as the pool is concerned.
    pub(super) upload_to: Option<BackendId>,
    /// Something has arrived for it that waits in the batch.
    pub(super) is_staged: bool,
}

/// Whose socket it is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Endpoint {
    Client(SlotKey),
    Upstream(SlotKey),
}

impl Endpoint {
    pub(super) fn side(self) -> Side {
        match self {
            Self::Client(_) => Side::Client,
            Self::Upstream(_) => Side::Upstream,
        }
    }

    /// What has come from it, and the way to it; `None` once it is closed.
    pub(super) fn stream<'s>(
        self,
        clients: &'s mut GenSlab<Client>,
        upstreams: &'s mut GenSlab<Upstream>,
    ) -> Option<&'s mut BufferedConnection> {
        match self {
            Self::Client(key) => clients.get_mut(key).map(|client| &mut client.stream),
            Self::Upstream(key) => upstreams.get_mut(key).map(|upstream| &mut upstream.stream),
        }
    }

    /// The same, if this exchange is the one that it is tied to.
    pub(super) fn stream_for<'s>(
        self,
        job: SlotKey,
        clients: &'s mut GenSlab<Client>,
        upstreams: &'s mut GenSlab<Upstream>,
    ) -> Option<&'s mut BufferedConnection> {
        let tied_to = match self {
            Self::Client(key) => clients.get(key)?.job,
            Self::Upstream(key) => upstreams.get(key)?.job,
        };
        self.stream(clients, upstreams).filter(|_| tied_to == Some(job))
    }
}

impl ActiveExchange {
    /// Whether what comes from there is for this exchange.
    pub(super) fn is_tied_to(&self, source: Endpoint) -> bool {
        match source {
            Endpoint::Client(key) => self.client == key,
            Endpoint::Upstream(key) => self.upstream_state == UpstreamState::Upstream(key),
        }
    }

    /// The socket of a side, where there is one.
    pub(super) fn transport<'s>(
        &self,
        side: Side,
        clients: &'s mut GenSlab<Client>,
        upstreams: &'s mut GenSlab<Upstream>,
    ) -> Option<&'s mut Transport> {
        Some(&mut self.endpoint(side)?.stream(clients, upstreams)?.transport)
    }

    /// Has the socket of a side say so with what it is sent next, if the stream ends behind that.
    pub(super) fn announce_end(&self, side: Side, clients: &mut GenSlab<Client>, upstreams: &mut GenSlab<Upstream>) {
        if side == Side::Client
            && self.exchange.ends_behind_response()
            && let Some(transport) = self.transport(side, clients, upstreams)
        {
            transport.announce_end();
        }
    }

    /// Who is at a side, where somebody is.
    pub(super) fn endpoint(&self, side: Side) -> Option<Endpoint> {
        match (side, self.upstream_state) {
            (Side::Client, _) => Some(Endpoint::Client(self.client)),
            (Side::Upstream, UpstreamState::Upstream(key)) => Some(Endpoint::Upstream(key)),
            (Side::Upstream, _) => None,
        }
    }
}

/// Sides, in one byte: there may be many tunnels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ClosingSides(u8);

impl ClosingSides {
    const fn bit(side: Side) -> u8 {
        match side {
            Side::Client => 1,
            Side::Upstream => 2,
        }
    }

    pub(super) fn add(&mut self, side: Side) {
        self.0 |= Self::bit(side);
    }

    /// Takes a side out. Whether it was there.
    pub(super) fn take(&mut self, side: Side) -> bool {
        let was_there = self.0 & Self::bit(side) != 0;
        self.0 &= !Self::bit(side);
        was_there
    }
}

/// What an exchange has of a connection to its backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum UpstreamState {
    /// Nothing.
    #[default]
    None,
    /// A place in the queue of this backend.
    Queued(BackendId),
    /// The permission to open one, when the name of this backend is known.
    ResolvingDns(BackendId),
    /// A connection, there or being opened.
    Upstream(SlotKey),
}

/// A connection to a backend.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) stream: BufferedConnection,
    pub(super) backend: Arc<Backend>,
    /// The exchange that uses it, or has waited and is about to get it; `None` in the pool.
    pub(super) job: Option<SlotKey>,
    /// Since when it is in the pool; [`Moment::NEVER`] while it is not.
    pub(super) idle_since: Moment,
    /// How long it may still be in the pool, or be opened; that of a tunnel is dead.
    pub(super) timer: Timer,
    /// The addresses that are left to try while it is being opened.
    pub(super) dial: Option<Box<Dial>>,
    /// What earlier exchanges had sent when this one took the connection.
    pub(super) sent_before: u64,
    /// For how many seconds its backend keeps it when it is idle, where the last response said so.
    pub(super) idle_seconds: Option<u16>,
    /// It is a tunnel, and no longer counts in the pool.
    pub(super) is_tunnel: bool,
}

/// A connection being opened.
#[derive(Debug)]
pub(super) struct Dial {
    pub(super) addresses: Arc<[SocketAddr]>,
    /// How many of them were tried.
    pub(super) tried: usize,
    /// The one that is being tried.
    pub(super) address: Option<SocketAddr>,
    /// Those that were tried before, and have yet to take notice: whichever is there first has it.
    pub(super) earlier: Vec<(SocketAddr, Transport)>,
    /// What is told of the client ahead of everything; mostly nothing.
    pub(super) preface: Box<[u8]>,
    /// Whom to shake hands with, where the connection is to be encrypted.
    pub(super) tls: Option<TlsClientTarget>,
}

impl Dial {
    /// The next address to try.
    pub(super) fn next_address(&mut self) -> Option<SocketAddr> {
        let address = self.addresses.get(self.tried).copied()?;
        self.tried += 1;
        self.address = Some(address);
        Some(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;
    use std::os::fd::RawFd;

    /// A value in a slot, behind its generation.
    fn slot<T>() -> usize {
        size_of::<(NonZeroU32, T)>()
    }

    /// A connection in a slot. Where assertions are compiled in, mio notes in every socket which poll watches it; that is
    /// left out.
    fn slot_of_connection<T>() -> usize {
        slot::<T>() - (size_of::<mio::net::TcpStream>() - size_of::<RawFd>()).next_multiple_of(size_of::<usize>())
    }

    /// What is idle may be many. A tunnel has, beside its slots, its timer's entry and a text for the log, in the smallest
    /// piece of memory that there is.
    #[test]
    fn what_is_idle_is_small() {
        let (entry, text) = (24, 32);
        let client = slot_of_connection::<Client>() + entry;
        assert!(client <= 160, "{client} bytes for an idle client");
        let tunnel = client + slot::<ActiveExchange>() + slot_of_connection::<Upstream>() + text;
        assert!(tunnel <= 544, "{tunnel} bytes for an idle tunnel");
    }
}
