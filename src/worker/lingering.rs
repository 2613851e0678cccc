//! The lingering close: the proxy ends its side first, and the client may still be sending.
//!
//! A byte that arrives at a closed socket, or that was still unread at the close, makes the kernel send a reset, and a
//! reset destroys any part of the response that is not acknowledged (RFC 9112 section 9.6). So the write side is shut
//! down, and bytes from the client are read and discarded until it ends its side, or a limit is reached.
//!
//! A client that has announced its last request mostly closes at once. So it is not registered with the poll: the
//! worker checks it after [`FIRST_LOOK`], while the kernel's state of it is still in the processor's cache, and closes
//! it if it has gone. After [`SECOND_LOOK`] the worker also closes it if it has acknowledged everything and sent
//! nothing; otherwise it registers it.
//!
//! A lingering client has no request: its log line is written, it holds no buffer, cannot move to another worker,
//! counts among the connections of its worker and of its address until it is closed, and is evicted for new clients
//! that find no other place.
//!
//! # Where connections are closed
//!
//! | connection | peer that may still be sending | how |
//! |---|---|---|
//! | client: behind a response that is its last (a stop, an upgrade, a limit, an error page, `Connection: close`, a cut response) | the client: its next request, the rest of a body, a stray CRLF | lingering close |
//! | client: a tunnel that this node ends | the client | lingering close |
//! | client: a TLS alert was sent | the client: the alert has yet to reach it | lingering close |
//! | client: idle for `server.idleTimeout`, or at a stop | the client: its next request, and the race is HTTP's own (RFC 9112 section 9.5) | at once where the last response was acknowledged, else lingering close |
//! | client: idle, and its place is needed | as above | at once; those whose response was not acknowledged, and those that linger, go last |
//! | client: reset, or its end was read | none | at once |
//! | client: takes nothing for `server.bodyTimeout` | the client; the response is lost all the same | at once |
//! | client: a response whose missing end would look like its end | the client; it has to see a failure | reset |
//! | client: no PROXY header, no handshake, no free place for its address | the client, which was sent nothing | at once |
//! | client: the system cannot watch it (no memory for the poll) | the client; nothing would be heard of it | at once |
//! | client: on its way to another process that ends | the client; the sockets end with that process | at once |
//! | client: still in the queue of a listening socket that is closed without a successor | the client, which was sent nothing | by the kernel, a reset |
//! | client: the time for draining is over | the client; no limit above that one | at once |
//! | backend: behind its response | the backend: bytes without a request. The request was sent as a whole, or its rest was not needed | at once |
//! | backend: in the middle of a request that has failed | the backend: a response that is no longer needed | at once |
//! | backend: a tunnel whose sides have both ended | none | at once |
//! | backend: idle in the pool, or its address is no longer one of its name | the backend: its end, or bytes without a request | at once |
//! | backend: the slower ones of several addresses that are tried, or a connection that no exchange waits for any more | the backend, which was sent no request | at once |
//! | backend: a health probe | the backend: the rest of a response that is judged already | at once |

use super::connection::Client;
use super::idle::REST;
use super::read_size::LARGEST_READ;
use super::{Deferred, Worker};
use crate::base::clock::Moment;
use crate::base::counters::Counter;
use crate::base::gen_slab::{GenSlab, SlotKey};
use crate::base::slice_ext::SliceExt;
use crate::net::transport::Received;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// When an unregistered client is first checked: soon enough for a nearby one.
const FIRST_LOOK: Duration = Duration::from_millis(2);

/// When it is checked again.
const SECOND_LOOK: Duration = Duration::from_millis(20);

/// The time in which a client has to send or acknowledge something (nginx: `lingering_timeout`).
const IDLE_LIMIT: Duration = Duration::from_secs(5);

/// The same while the worker drains.
const IDLE_LIMIT_AT_END: Duration = Duration::from_secs(1);

/// The time a client may linger in all (nginx: `lingering_time`).
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// Number of bytes that are discarded of one client.
const BYTES_LIMIT: usize = 16 * 1024 * 1024;

/// Number of reads that discard bytes of one client in one turn.
const READS_AT_ONCE: usize = 4;

/// The lingering clients.
#[derive(Debug, Default)]
pub(super) struct Lingering {
    /// Clients that were not checked yet, soonest first. Some are gone by then.
    fresh: VecDeque<Fresh>,
    /// Clients that were checked once, soonest first. Some are gone by then.
    seen: VecDeque<Fresh>,
    /// Clients that were checked twice, oldest first. Some are gone.
    old: VecDeque<(Moment, SlotKey)>,
    progress: HashMap<SlotKey, Progress>,
}

#[derive(Clone, Copy, Debug)]
struct Fresh {
    key: SlotKey,
    look_at: Moment,
    client_may_send: bool,
}

/// Progress of a client since its first check.
#[derive(Clone, Copy, Debug)]
struct Progress {
    until: Moment,
    discarded: usize,
    /// Progress at the last check.
    discarded_before: usize,
    unacknowledged: u32,
}

impl Lingering {
    /// The moment of the next check; [`Moment::NEVER`] for none.
    pub(super) fn next_look(&self) -> Moment {
        let look_at = |queue: &VecDeque<Fresh>| queue.front().map_or(Moment::NEVER, |fresh| fresh.look_at);
        look_at(&self.fresh).min(look_at(&self.seen))
    }

    /// The earliest moment at which one may be evicted for a new client.
    pub(super) fn next_to_go(&self) -> Moment {
        self.old.front().map_or(self.next_look(), |(since, _)| *since + REST)
    }

    /// The client that has lingered the longest, if that is at least `rest`.
    pub(super) fn oldest(&mut self, now: Moment, rest: Duration, clients: &GenSlab<Client>) -> Option<SlotKey> {
        while let Some((since, key)) = self.old.front().copied() {
            if clients.get(key).is_some_and(|client| client.is_lingering) {
                return (since + rest <= now).then_some(key);
            }
            self.old.pop_front();
        }
        None
    }

    /// A client is closed.
    pub(super) fn forget(&mut self, key: SlotKey) {
        self.progress.remove(&key);
    }

    /// The next client that is due, and whether it was checked before.
    fn take_due(&mut self, now: Moment) -> Option<(Fresh, bool)> {
        let take = |list: &mut VecDeque<Fresh>| match list.front() {
            Some(first) if first.look_at <= now => list.pop_front(),
            _ => None,
        };
        let fresh = take(&mut self.fresh).map(|fresh| (fresh, false));
        fresh.or_else(|| take(&mut self.seen).map(|fresh| (fresh, true)))
    }

    /// A client lingers beyond its checks.
    fn keep(&mut self, key: SlotKey, unacknowledged: u32, now: Moment) -> &mut Progress {
        // Stale entries are removed once they are more than half.
        if self.old.len() >= 2 * self.progress.len() + 64 {
            self.old.retain(|(_, key)| self.progress.contains_key(key));
        }
        self.progress.entry(key).or_insert_with(|| {
            self.old.push_back((now, key));
            Progress { until: now + TIME_LIMIT, discarded: 0, discarded_before: 0, unacknowledged }
        })
    }
}

impl Worker {
    /// Shuts down the write side of a client and begins to discard its bytes. Its exchange, if it had one, is over.
    pub(super) fn start_lingering_close(&mut self, key: SlotKey, client_may_send: bool) {
        let Some(client) = self.clients.get_mut(key) else { return };
        client.stream.unread.discard(&mut self.core.buffers);
        if !client.stream.transport.start_lingering() {
            return self.close_client(key);
        }
        client.is_lingering = true;
        client.idle_since = Moment::NEVER;
        if std::mem::take(&mut client.is_shaking_hands) {
            self.remove_handshake();
        }
        self.lingering.fresh.push_back(Fresh { key, look_at: self.core.now + FIRST_LOOK, client_may_send });
        if self.limiter.is_some() {
            // Its place among the connections of its address has to be free as soon as it has gone.
            self.register_client(key);
        }
    }

    /// Closes an idle client. A response that is not acknowledged may be lost.
    pub(super) fn close_idle_client(&mut self, key: SlotKey) {
        let unacknowledged = self.clients.get(key).map_or(0, |client| client.stream.transport.bytes_unacknowledged());
        if unacknowledged == 0 {
            self.close_client(key);
        } else {
            self.start_lingering_close(key, true);
        }
    }

    /// Checks the clients that are due.
    pub(super) fn look_at_lingering(&mut self) {
        while let Some((fresh, is_seen)) = self.lingering.take_due(self.core.now) {
            if is_seen {
                self.look(fresh.key, fresh.client_may_send);
                continue;
            }
            self.discard(fresh.key);
            if self.clients.get(fresh.key).is_some() {
                let look_at = self.core.now + (SECOND_LOOK - FIRST_LOOK);
                self.lingering.seen.push_back(Fresh { look_at, ..fresh });
            }
        }
    }

    /// Checks all clients that were not checked yet, because their places are needed. Returns whether one has gone.
    pub(super) fn look_for_gone(&mut self) -> bool {
        let before = self.clients.len();
        let mut queues = [std::mem::take(&mut self.lingering.seen), std::mem::take(&mut self.lingering.fresh)];
        for Fresh { key, client_may_send, .. } in queues.iter_mut().flat_map(|queue| queue.drain(..)) {
            self.look(key, client_may_send);
        }
        self.clients.len() < before
    }

    fn idle_limit(&self) -> Duration {
        if self.drain.is_some() { IDLE_LIMIT_AT_END } else { IDLE_LIMIT }
    }

    /// Whether a client has gone. One that has not is registered from now on.
    fn look(&mut self, key: SlotKey, client_may_send: bool) {
        self.discard(key);
        let next = self.core.now + self.idle_limit();
        let Some(client) = self.clients.get_mut(key) else { return };
        let unacknowledged = client.stream.transport.bytes_unacknowledged();
        let has_sent = self.lingering.progress.contains_key(&key);
        if unacknowledged == 0 && !client_may_send && !has_sent {
            return self.close_client(key);
        }
        self.lingering.keep(key, unacknowledged, self.core.now).unacknowledged = unacknowledged;
        self.timers.set(&mut client.timer, next);
        self.register_client(key);
    }

    /// A client has lingered for long: it may continue while it acknowledges its response, or sends.
    #[cold]
    pub(super) fn lingering_due(&mut self, key: SlotKey) {
        self.discard(key);
        let next = self.core.now + self.idle_limit();
        let Some(client) = self.clients.get_mut(key) else { return };
        let (now, unacknowledged) = (self.core.now, client.stream.transport.bytes_unacknowledged());
        let progress = self.lingering.keep(key, u32::MAX, now);
        let goes_on = progress.discarded > progress.discarded_before || unacknowledged < progress.unacknowledged;
        (progress.discarded_before, progress.unacknowledged) = (progress.discarded, unacknowledged);
        if goes_on && now < progress.until {
            self.timers.set(&mut client.timer, next.min(progress.until));
        } else {
            self.counters.count(Counter::LingeringTimeouts);
            self.close_client(key);
        }
    }

    /// Discards the bytes of a lingering client, and closes the client at its end or at the limit.
    pub(super) fn discard(&mut self, key: SlotKey) {
        for _ in 0..READS_AT_ONCE {
            let Some(client) = self.clients.get_mut(key) else { return };
            // The worker's buffer is in use while a request needs a descriptor.
            let mut spare = [0; 1024];
            let room = if self.scratch.is_empty() { &mut spare } else { self.scratch.limit(LARGEST_READ) };
            match client.stream.transport.discard(room) {
                Received::Bytes(count) => {
                    let progress = self.lingering.keep(key, u32::MAX, self.core.now);
                    progress.discarded += count;
                    if progress.discarded > BYTES_LIMIT {
                        self.counters.count(Counter::LingeringTimeouts);
                        return self.close_client(key);
                    }
                    if !client.stream.transport.has_bytes_to_discard() {
                        return;
                    }
                }
                Received::End | Received::Broken => return self.close_client(key),
                _ => return,
            }
        }
        self.deferred.push(Deferred::ReadRequest(key));
    }
}
