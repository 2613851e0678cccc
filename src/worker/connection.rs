//! Entries of a worker's three slabs.

use super::haproxy::Entry;
use super::proxy_protocol::HeaderUse;
use super::read_size::{ClientReadSize, ReadSize};
use super::token::Kind;
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
use mio::event::Event;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

/// A connection and the bytes that were read from it and that no step has consumed.
#[derive(Debug)]
pub(super) struct BufferedConnection {
    pub(super) transport: Transport,
    pub(super) unread: ReadBuffer,
}

/// Bytes that were read and not consumed. They stay in place until all are consumed, however many steps that takes;
/// only then does the buffer go back. It owns memory only while it holds bytes.
#[derive(Debug, Default)]
pub(super) struct ReadBuffer(Option<Box<UnreadBytes>>);

#[derive(Debug)]
struct UnreadBytes {
    buffer: Vec<u8>,
    /// Number of bytes left at the end of the buffer. It is 0 while the buffer is borrowed, until the borrower reports
    /// the number.
    left: usize,
    /// The bytes were offered to a step, and it needs more of them to use any.
    is_starved: bool,
}

impl ReadBuffer {
    /// Number of bytes.
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

    /// The worker's buffer that holds the bytes.
    pub(super) fn lent(&self) -> BufferUsage {
        self.0.as_ref().map_or_else(BufferUsage::default, |rest| BufferUsage::of(&rest.buffer))
    }

    /// Stores these bytes in an empty buffer.
    pub(super) fn fill(&mut self, bytes: &[u8], buffers: &mut BufferPool) {
        debug_assert!(self.is_empty(), "the read buffer is not empty");
        self.0 = Some(Box::new(UnreadBytes { buffer: buffers.take(), left: 0, is_starved: false }));
        self.append(bytes, buffers);
    }

    /// Adds bytes that were read later to a buffer that holds some.
    pub(super) fn append(&mut self, bytes: &[u8], buffers: &mut BufferPool) {
        if let Some(UnreadBytes { buffer, left, .. }) = self.0.as_deref_mut() {
            buffer.drain(..buffer.len() - *left);
            buffers.extend(buffer, bytes);
            *left = buffer.len();
        }
    }

    /// Lends the buffer, with the position of its first byte. [`ReadBuffer::put_back`] has to follow.
    pub(super) fn borrow(&mut self) -> (Vec<u8>, usize) {
        self.0.as_deref_mut().map_or_else(Default::default, |rest| {
            let start = rest.buffer.len() - std::mem::take(&mut rest.left);
            (std::mem::take(&mut rest.buffer), start)
        })
    }

    /// Sets the number of borrowed bytes that are left.
    pub(super) fn set_left(&mut self, left: usize) {
        if let Some(rest) = &mut self.0 {
            rest.left = left;
        }
    }

    /// Whether there are bytes to offer without another read.
    pub(super) fn has_usable(&self) -> bool {
        self.0.as_ref().is_some_and(|rest| rest.left > 0 && !rest.is_starved)
    }

    /// Sets whether the bytes are of no use before more arrive.
    pub(super) fn set_starved(&mut self, is_starved: bool) {
        if let Some(rest) = &mut self.0 {
            rest.is_starved = is_starved;
        }
    }

    /// Takes the borrowed buffer back.
    pub(super) fn put_back(&mut self, buffer: Vec<u8>, buffers: &mut BufferPool) {
        match &mut self.0 {
            Some(rest) if rest.left > 0 => rest.buffer = buffer,
            _ => {
                self.0 = None;
                buffers.give(buffer);
            }
        }
    }

    /// Drops the bytes.
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

    /// The buffers in use for the connection.
    pub(super) fn lent(&self) -> BufferUsage {
        self.unread.lent().and(self.transport.kept())
    }

    /// Bytes of memory that the connection holds.
    pub(super) fn buffered_bytes(&self) -> usize {
        self.unread.len() + self.transport.kept().grown
    }

    /// Updates the count of buffered TLS records. A send has just taken some of them, or not all.
    pub(super) fn count_records(&mut self, buffers: &mut BufferPool) {
        buffers.export_usage(self.transport.kept());
        buffers.import_usage(self.transport.recount());
    }

    /// Ends the use of buffers: drops the unread bytes and the unsent records.
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

/// A client's connection. Between two requests this is its whole state.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) stream: BufferedConnection,
    pub(super) peer: Peer,
    pub(super) timer: Timer,
    pub(super) job: Option<SlotKey>,
    /// Start of the idle time; [`Moment::NEVER`] while an exchange is under way.
    pub(super) idle_since: Moment,
    /// Number of responses it has had.
    pub(super) served: u32,
    /// Size of the first read of its next exchange.
    pub(super) read_size: ClientReadSize,
    /// The listener it came from.
    pub(super) entry: Entry,
    /// The limits that count the client; mostly none.
    pub(super) admitted: Option<Box<Admitted>>,
    /// The client counts among the TLS handshakes under way.
    pub(super) is_shaking_hands: bool,
    /// The PROXY header has yet to arrive.
    pub(super) awaits_header: Option<HeaderUse>,
    /// The client came to the service of this node, and moves to no other worker.
    pub(super) is_for_service: bool,
    /// The connection is registered with the poll.
    pub(super) is_registered: bool,
    /// The write side is shut down, and received bytes are discarded.
    pub(super) is_lingering: bool,
    /// It came with TLS: it counts among the sessions of its worker, even if it turns out to send plaintext.
    pub(super) has_session: bool,
    /// Contents of the PROXY header.
    pub(super) told: Option<Box<ProxyAddresses>>,
}

/// Limits that count a client for as long as its connection lasts.
#[derive(Debug)]
pub(super) struct Admitted {
    /// Its permit among the connections of its address, if those are limited.
    permit: Option<ConnectionPermit>,
    /// The state that the rules of its frontend keep for it.
    pub(super) visit: Option<Arc<Visit>>,
}

impl Client {
    /// Counts it among the connections of its address, once the address is known.
    pub(super) fn set_permit(&mut self, permit: Option<ConnectionPermit>) {
        match &mut self.admitted {
            Some(admitted) => admitted.permit = permit,
            None => self.admitted = Admitted::new(permit, None),
        }
    }
}

impl Admitted {
    /// `None` if no limit counts it.
    pub(super) fn new(permit: Option<ConnectionPermit>, visit: Option<Arc<Visit>>) -> Option<Box<Self>> {
        (permit.is_some() || visit.is_some()).then(|| Box::new(Self { permit, visit }))
    }
}

/// An exchange and its connections.
#[derive(Debug)]
pub(super) struct ActiveExchange {
    pub(super) exchange: Exchange,
    pub(super) client: SlotKey,
    pub(super) upstream_state: UpstreamState,
    /// Sides whose write side is shut down once everything is sent.
    pub(super) closing: ClosingSides,
    /// Size of one read: smaller while the other side cannot take as much.
    pub(super) read_size: ReadSize,
    /// Position among the uploads of the pool, if it is an upload.
    pub(super) upload_to: Option<BackendId>,
    /// Bytes for it have arrived and wait in the batch.
    pub(super) is_staged: bool,
}

/// Owner of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Client(SlotKey),
    Upstream(SlotKey),
}

impl Endpoint {
    /// The connection that an event is of, if it is of one.
    #[inline]
    pub(super) fn of(event: &Event) -> Option<Self> {
        match Kind::of(event.token()) {
            (Kind::Client, word) => Some(Self::Client(SlotKey::unpack(word))),
            (Kind::Upstream, word) => Some(Self::Upstream(SlotKey::unpack(word))),
            (Kind::Waker | Kind::Listener | Kind::WakeupTimer, _) => None,
        }
    }

    pub(super) fn side(self) -> Side {
        match self {
            Self::Client(_) => Side::Client,
            Self::Upstream(_) => Side::Upstream,
        }
    }

    /// The received bytes of a side and the connection to it; `None` once it is closed.
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

    /// The same, if the connection belongs to this exchange.
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
    /// An exchange without a connection to a backend.
    pub(super) fn new(exchange: Exchange, client: SlotKey, read_size: ReadSize) -> Self {
        Self {
            exchange,
            client,
            upstream_state: UpstreamState::None,
            closing: ClosingSides::default(),
            read_size,
            upload_to: None,
            is_staged: false,
        }
    }

    /// Whether bytes from that connection are for this exchange.
    pub(super) fn is_tied_to(&self, source: Endpoint) -> bool {
        match source {
            Endpoint::Client(key) => self.client == key,
            Endpoint::Upstream(key) => self.upstream_state == UpstreamState::Upstream(key),
        }
    }

    /// The socket of a side, if there is one.
    pub(super) fn transport<'s>(
        &self,
        side: Side,
        clients: &'s mut GenSlab<Client>,
        upstreams: &'s mut GenSlab<Upstream>,
    ) -> Option<&'s mut Transport> {
        Some(&mut self.endpoint(side)?.stream(clients, upstreams)?.transport)
    }

    /// Marks the next bytes sent on a side's socket as the last of the stream, where the stream ends behind them.
    pub(super) fn announce_end(&self, side: Side, clients: &mut GenSlab<Client>, upstreams: &mut GenSlab<Upstream>) {
        if side == Side::Client
            && self.exchange.ends_behind_response()
            && let Some(transport) = self.transport(side, clients, upstreams)
        {
            transport.announce_end();
        }
    }

    /// Peer of a side, if there is one.
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

    pub(super) fn has(self, side: Side) -> bool {
        self.0 & Self::bit(side) != 0
    }

    /// Removes a side. Returns whether it was in the set.
    pub(super) fn take(&mut self, side: Side) -> bool {
        let was_there = self.has(side);
        self.0 &= !Self::bit(side);
        was_there
    }
}

/// The upstream connection of an exchange, or its claim to one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum UpstreamState {
    /// Nothing.
    #[default]
    None,
    /// A place in the queue of this backend.
    Queued(BackendId),
    /// A permission to open one, once the name of this backend is resolved.
    ResolvingDns(BackendId),
    /// A connection, established or being opened.
    Upstream(SlotKey),
}

/// A connection to a backend.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) stream: BufferedConnection,
    pub(super) backend: Arc<Backend>,
    /// The exchange that uses it, or that has waited and is about to get it; `None` in the pool.
    pub(super) job: Option<SlotKey>,
    /// Start of its time in the pool; [`Moment::NEVER`] outside the pool.
    pub(super) idle_since: Moment,
    /// Deadline of its time in the pool or of its dial; that of a tunnel is not set.
    pub(super) timer: Timer,
    /// Addresses that are still to be tried while it is being opened.
    pub(super) dial: Option<Box<Dial>>,
    /// Bytes that earlier exchanges had sent when this one took the connection.
    pub(super) sent_before: u64,
    /// [`Backend::address_changes`] when its address was last checked.
    pub(super) address_changes: u16,
    /// Seconds for which the backend keeps it idle, where the last response said so.
    pub(super) idle_seconds: Option<NonZeroU16>,
    /// It does not count in the pool, and never goes there: it is a tunnel, or moved here with its exchange.
    pub(super) is_uncounted: bool,
    /// It counts among the tunnels of its worker.
    pub(super) is_tunnel: bool,
}

/// A connection being opened.
#[derive(Debug)]
pub(super) struct Dial {
    pub(super) addresses: Arc<[SocketAddr]>,
    /// [`Backend::address_changes`] before they were read.
    pub(super) address_changes: u16,
    /// Number of addresses tried.
    pub(super) tried: usize,
    /// The address being tried.
    pub(super) address: Option<SocketAddr>,
    /// Attempts on earlier addresses that are still pending: the first one established wins.
    pub(super) earlier: Vec<(SocketAddr, Transport)>,
    /// Bytes to send ahead of everything, the PROXY header; mostly none.
    pub(super) preface: Box<[u8]>,
    /// Target of the TLS handshake, where the connection is encrypted.
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

    /// A slab's value, behind its generation.
    fn slot<T>() -> usize {
        size_of::<(NonZeroU32, T)>()
    }

    /// A connection in a slot. With debug assertions, mio stores the poll in every socket; that part is subtracted.
    fn slot_of_connection<T>() -> usize {
        slot::<T>() - (size_of::<mio::net::TcpStream>() - size_of::<RawFd>()).next_multiple_of(size_of::<usize>())
    }

    /// Idle connections may be many. Beside its slots a tunnel has the entry of its timer and a text for the log, in
    /// the smallest allocation there is.
    #[test]
    fn idle_connections_are_small() {
        let (entry, text) = (24, 32);
        let client = slot_of_connection::<Client>() + entry;
        assert!(client <= 160, "{client} bytes for an idle client");
        let tunnel = client + slot::<ActiveExchange>() + slot_of_connection::<Upstream>() + text;
        assert!(tunnel <= 568, "{tunnel} bytes for an idle tunnel");
    }
}
