//! What lives in a worker's three slabs.

use super::pump::Endpoint;
use super::read_limit::{ClientsLimit, ReadLimit};
use crate::base::buffer::{BufferPool, Lent};
use crate::base::clock::Moment;
use crate::base::cut::Cut;
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
    pub(super) unread: Unread,
}

/// Bytes that were read and not consumed. They stay where they are until all are, however many steps that takes; only
/// then is the buffer given back. Owns memory only while there is something in it.
#[derive(Debug, Default)]
pub(super) struct Unread(Option<Box<Rest>>);

#[derive(Debug)]
struct Rest {
    buffer: Vec<u8>,
    /// How many bytes at the buffer's end are left. While the buffer is borrowed there are none here, until it is said how many
    /// there will be.
    left: usize,
    /// It was offered, and nothing of it could be used yet: more has to come.
    is_starved: bool,
}

impl Unread {
    /// How many bytes there are.
    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |rest| rest.left)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |rest| rest.buffer.from(rest.buffer.len() - rest.left))
    }

    /// The buffer of the worker's that is in use for it.
    pub(super) fn lent(&self) -> Lent {
        self.0.as_ref().map_or_else(Lent::default, |rest| Lent::of(&rest.buffer))
    }

    /// Keeps these bytes, where there were none.
    pub(super) fn fill(&mut self, bytes: &[u8], buffers: &mut BufferPool) {
        debug_assert!(self.is_empty(), "bytes that were read before");
        self.0 = Some(Box::new(Rest { buffer: buffers.take(), left: 0, is_starved: false }));
        self.append(bytes, buffers);
    }

    /// Adds what was read since, where there were some.
    pub(super) fn append(&mut self, bytes: &[u8], buffers: &mut BufferPool) {
        if let Some(Rest { buffer, left, .. }) = self.0.as_deref_mut() {
            buffer.drain(..buffer.len() - *left);
            buffers.extend(buffer, bytes);
            *left = buffer.len();
        }
    }

    /// The buffer, and where in it the bytes begin. It is to come back by [`Unread::put_back`].
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
    pub(super) fn is_of_use(&self) -> bool {
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

impl Stream {
    pub(super) fn new(transport: Transport) -> Self {
        Self { transport, unread: Unread::default() }
    }

    /// The buffers in use for it.
    pub(super) fn lent(&self) -> Lent {
        self.unread.lent().and(self.transport.kept())
    }

    /// How many bytes it keeps from others.
    pub(super) fn burden(&self) -> usize {
        self.unread.len() + self.transport.kept().grown
    }

    /// Counts the records among them anew. Who is sent to has just taken some, or not all.
    pub(super) fn count_records(&mut self, buffers: &mut BufferPool) {
        buffers.part_with(self.transport.kept());
        buffers.welcome(self.transport.recount());
    }

    /// The end of it: drops what was read, and the records that did not leave.
    pub(super) fn close(&mut self, buffers: &mut BufferPool) {
        self.unread.discard(buffers);
        self.transport.take_leave();
        buffers.part_with(self.transport.kept());
    }

    /// Whether there may be bytes to offer.
    pub(super) fn has_more(&self) -> bool {
        self.transport.is_readable() || self.unread.is_of_use()
    }
}

/// A connection from a client. Between two requests this is all that there is of it.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) stream: Stream,
    pub(super) peer: Peer,
    pub(super) timer: Timer,
    pub(super) job: Option<Key>,
    /// Since when it has no job; [`Moment::NEVER`] while it has one.
    pub(super) idle_since: Moment,
    /// How many answers it has had.
    pub(super) served: u32,
    /// How much the first read of its next exchange may bring.
    pub(super) read_limit: ClientsLimit,
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
    /// The writing to it is shut down, and what it still sends is discarded.
    pub(super) is_lingering: bool,
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
    pub(super) read_limit: ReadLimit,
    /// Where it is one of those who upload, as far as the pool is concerned.
    pub(super) upload_to: Option<BackendId>,
    /// Something has arrived for it that waits in the batch.
    pub(super) is_staged: bool,
}

impl Job {
    /// Whether what comes from there is for this exchange.
    pub(super) fn is_tied_to(&self, source: Endpoint) -> bool {
        match source {
            Endpoint::Client(key) => self.client == key,
            Endpoint::Upstream(key) => self.link == Link::Upstream(key),
        }
    }

    /// The socket of a side, where there is one.
    pub(super) fn transport<'s>(
        &self,
        side: Side,
        clients: &'s mut Slots<Client>,
        upstreams: &'s mut Slots<Upstream>,
    ) -> Option<&'s mut Transport> {
        Some(&mut self.endpoint(side)?.stream(clients, upstreams)?.transport)
    }

    /// Has the socket of a side say so with what it is sent next, if the stream ends behind that.
    pub(super) fn announce_end(&self, side: Side, clients: &mut Slots<Client>, upstreams: &mut Slots<Upstream>) {
        if side == Side::Client
            && self.exchange.ends_behind_answer()
            && let Some(transport) = self.transport(side, clients, upstreams)
        {
            transport.announce_end();
        }
    }

    /// Who is at a side, where somebody is.
    pub(super) fn endpoint(&self, side: Side) -> Option<Endpoint> {
        match (side, self.link) {
            (Side::Client, _) => Some(Endpoint::Client(self.client)),
            (Side::Upstream, Link::Upstream(key)) => Some(Endpoint::Upstream(key)),
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
    /// Since when it is in the pool; [`Moment::NEVER`] while it is not.
    pub(super) idle_since: Moment,
    /// How long it may still be in the pool, or be opened; that of a tunnel is dead.
    pub(super) timer: Timer,
    /// The addresses that are left to try while it is being opened.
    pub(super) dial: Option<Box<Dial>>,
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
        let tunnel = client + slot::<Job>() + slot_of_connection::<Upstream>() + text;
        assert!(tunnel <= 500, "{tunnel} bytes for an idle tunnel");
    }
}
