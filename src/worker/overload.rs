//! What happens when connections run out: idle ones make room, the oldest first.
//!
//! Idle is a client between two requests, or one that has sent nothing yet, and a connection to a backend in the pool.
//! Whoever has been silent the longest is the least likely to be missed, so a client that was served 20 seconds ago
//! goes before one that was served 2 seconds ago. One that was served just now is let alone for [`REST`], since its next
//! request often follows at once, and one that has come but not spoken for [`GRACE`], since its first bytes may have a
//! long way. No connection whose request is under way is ever touched, and none from which bytes have come: an end of the
//! connection between two requests is what RFC 9112 section 9.3 allows, and section 9.5 has clients prepared for it.
//!
//! Memory is another matter: those who fill it are under way. When the buffers have grown to what they may, those go who
//! have held most for the longest.

use super::Worker;
use super::connection::UpstreamState;
#[cfg(doc)]
use super::idle::GRACE;
use super::idle::REST;
use crate::base::clock::Moment;
use crate::base::counters::Counter;
use crate::base::gen_slab::SlotKey;
use crate::base::reason::FailureReason;
use crate::exchange::{Input, Side};
use nix::errno::Errno;
use std::cmp::Reverse;
use std::fmt::{Arguments, Display};
use std::io;
use std::time::Duration;

/// What a descriptor is needed for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Need {
    Client,
    Backend,
}

/// Whether an error says that the system has no descriptor or no memory for another connection.
pub(super) fn is_shortage(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM))
}

impl Worker {
    /// A client is idle from now on.
    pub(super) fn note_idle(&mut self, key: SlotKey) {
        let now = self.core.now;
        // A client of the service makes no room for others.
        let Some(client) = self.clients.get_mut(key).filter(|client| !client.is_for_service) else { return };
        client.idle_since = now;
        let served = client.served;
        self.idle.add_client(key, served, now, &self.clients);
        self.note_room();
    }

    /// Closes the client that has been idle the longest, if its place is for a new one. Whether there was one.
    pub(super) fn give_up_client(&mut self) -> bool {
        self.give_up_client_after(REST)
    }

    fn give_up_client_after(&mut self, rest: Duration) -> bool {
        if self.look_for_gone() {
            return true;
        }
        self.idle.keep(&self.clients, &self.upstreams);
        let mut last_resort = None;
        // Whoever turns out to have spoken goes to the end of the line, so each is looked at once.
        for _ in 0..self.idle.clients() {
            let oldest = self.idle.oldest_client(&self.clients, self.core.now, rest);
            let Some((key, _)) = oldest else { break };
            let Some(client) = self.clients.get(key) else { break };
            if client.stream.unread.is_empty() && client.stream.transport.is_silent() {
                if client.stream.transport.bytes_unacknowledged() == 0 {
                    self.counters.count(Counter::IdleClientsClosed);
                    self.close_client(key);
                    return true;
                }
                last_resort = last_resort.or(Some(key));
            }
            // It has spoken, and is heard in its turn; or it has yet to take all of its response.
            self.note_idle(key);
        }
        let given_up = last_resort.or_else(|| self.lingering.oldest(self.core.now, rest, &self.clients));
        if let Some(key) = given_up {
            self.counters.count(Counter::IdleClientsClosed);
            self.close_client(key);
        }
        given_up.is_some()
    }

    /// Something needs a descriptor or memory that the system has not: gives up the connection, of a client or to a
    /// backend, that has been idle the longest. Whether there was one. A new client can wait until another one has had
    /// its rest; a request that needs its backend would fail, so then nobody's rest counts.
    #[cold]
    pub(super) fn shed_idle(&mut self, need: Need, error: &io::Error) -> bool {
        self.counters.count(Counter::OutOfDescriptors);
        let (what, rest) = match need {
            Need::Client => ("accepting a connection", REST),
            Need::Backend => ("connecting to a backend", Duration::ZERO),
        };
        self.warn_throttled(what, error);
        let now = self.core.now;
        self.idle.keep(&self.clients, &self.upstreams);
        let client = self.idle.oldest_client(&self.clients, now, rest).map_or(Moment::NEVER, |(_, since)| since);
        match self.idle.oldest_upstream(&self.upstreams) {
            Some((key, since)) if since <= client => {
                self.counters.count(Counter::IdleUpstreamsClosed);
                self.close_upstream(key);
                true
            }
            _ => self.give_up_client_after(rest),
        }
    }

    /// Counts what records are kept for a side that is encrypted and slow.
    #[cold]
    pub(super) fn count_records(&mut self, job: SlotKey, side: Side) {
        let addressee = self.jobs.get(job).and_then(|job| job.endpoint(side));
        let stream = addressee.and_then(|addressee| addressee.stream(&mut self.clients, &mut self.upstreams));
        if let Some(stream) = stream {
            stream.count_records(&mut self.core.buffers);
        }
    }

    /// Whether so much is kept for those who are slow that nobody gets a large read any more.
    pub(super) fn is_short_of_buffers(&self) -> bool {
        self.core.buffers.grown() > self.settings.max_buffer_bytes / 2
    }

    /// More is kept for those who are slow than may be: ends those requests and tunnels that have held most for the
    /// longest, until a quarter is free.
    pub(super) fn shed_buffers(&mut self) {
        if self.core.buffers.grown() > self.settings.max_buffer_bytes {
            self.abort_largest_holder();
        }
    }

    /// Does so, if somebody was found the last time or that is long enough ago.
    #[cold]
    fn abort_largest_holder(&mut self) {
        let (limit, now) = (self.settings.max_buffer_bytes, self.core.now);
        if self.no_shedding_until.is_some_and(|until| until > now) {
            return;
        }
        let mut loads: Vec<_> = self.jobs.keys().filter_map(|key| Some((self.buffered_bytes(key)?, key))).collect();
        loads.sort_unstable_by_key(|(buffered_bytes, _)| Reverse(*buffered_bytes));
        let enough = limit - limit / 4;
        for (_, key) in loads {
            if self.core.buffers.grown() <= enough {
                break;
            }
            self.dispatch(key, Input::Abort(FailureReason::BufferLimit));
        }
        // To look through all of them again at once would find no others.
        self.no_shedding_until = (self.core.buffers.grown() > limit).then(|| now + REST);
        self.warn_throttled("ending slow requests", &"server.maxBufferBytes is reached");
    }

    /// What a request or tunnel keeps from others: bytes, and how long it has kept them. Whoever is served by and by need
    /// not go before one that has stopped, so the time counts up to the patience with a body alone.
    pub(super) fn buffered_bytes(&self, key: SlotKey) -> Option<u128> {
        let job = self.jobs.get(key)?;
        let of_client = self.clients.get(job.client).map_or(0, |client| client.stream.buffered_bytes());
        let of_upstream = match job.upstream_state {
            UpstreamState::Upstream(key) => {
                self.upstreams.get(key).map_or(0, |upstream| upstream.stream.buffered_bytes())
            }
            _ => 0,
        };
        let bytes = job.exchange.buffered_bytes() + of_client + of_upstream;
        let since = match job.exchange.blocked_since() {
            Moment::NEVER => job.exchange.stats().started,
            since => since,
        };
        let time = self.core.now.since(since).min(self.core.settings.body_timeout);
        (bytes > 0).then(|| bytes as u128 * (1 + time.as_millis()))
    }

    /// Tells of a shortage, once in ten seconds at the most.
    #[cold]
    pub(super) fn warn_throttled(&mut self, what: &str, error: &dyn Display) {
        if let Some(untold) = self.shortage_warnings.admit(self.core.now) {
            let times = untold + 1;
            log::warn!("worker {}: {what}: {error} ({times} times since this was told last)", self.number);
        }
    }

    /// Tells of what requests can bring about, and so a stranger as often as he likes.
    #[cold]
    pub(super) fn warn(&mut self, what: Arguments<'_>) {
        match self.warnings.admit(self.core.now) {
            Some(0) => log::warn!("{what}"),
            Some(untold) => log::warn!("{what} (and {untold} warnings of worker {} were left out)", self.number),
            None => {}
        }
    }
}
