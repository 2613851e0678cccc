//! When connections run out, idle ones are evicted, the oldest first.
//!
//! Idle connections are clients between two requests, clients that have sent nothing yet, and connections to backends
//! in the pool. The one that has been silent the longest is the least likely to be missed, so a client whose last
//! response was 20 seconds ago goes before one whose last response was 2 seconds ago. A client with a fresh response is
//! protected for [`REST`], since its next request often follows at once. A new client without bytes is protected for
//! [`GRACE`], since its first bytes may have a long way. A connection whose request is under way is never evicted, nor
//! is one from which bytes have come: RFC 9112 section 9.3 allows a close between two requests, and section 9.5
//! prepares clients for it.
//!
//! Memory is different: exchanges under way fill it. When the buffers have reached their limit, the exchanges that have
//! held most for the longest are ended.

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

/// Purpose of a descriptor.
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
        // Clients of the service make no room for others.
        let Some(client) = self.clients.get_mut(key).filter(|client| !client.is_for_service) else { return };
        client.idle_since = now;
        let served = client.served;
        self.idle.add_client(key, served, now, &self.clients);
        self.note_room();
    }

    /// Evicts the client that has been idle the longest, if a new client may use its place. Returns whether there was
    /// one.
    pub(super) fn give_up_client(&mut self) -> bool {
        self.give_up_client_after(REST)
    }

    fn give_up_client_after(&mut self, rest: Duration) -> bool {
        if self.look_for_gone() {
            return true;
        }
        self.idle.keep(&self.clients, &self.upstreams);
        let mut last_resort = None;
        // A client that turns out to have sent bytes goes to the end of the order, so each is checked once.
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
            // It has sent bytes, which are read in their turn; or it has yet to receive all of its response.
            self.note_idle(key);
        }
        let given_up = last_resort.or_else(|| self.lingering.oldest(self.core.now, rest, &self.clients));
        if let Some(key) = given_up {
            self.counters.count(Counter::IdleClientsClosed);
            self.close_client(key);
        }
        given_up.is_some()
    }

    /// Evicts the connection, of a client or to a backend, that has been idle the longest, because the system has no
    /// descriptor or memory left. Returns whether there was one. A new client can wait until another one's protection
    /// ends; a request that needs its backend would fail, so for it no connection is protected.
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

    /// Counts the TLS records that are buffered for a slow side.
    #[cold]
    pub(super) fn count_records(&mut self, job: SlotKey, side: Side) {
        let addressee = self.jobs.get(job).and_then(|job| job.endpoint(side));
        let stream = addressee.and_then(|addressee| addressee.stream(&mut self.clients, &mut self.upstreams));
        if let Some(stream) = stream {
            stream.count_records(&mut self.core.buffers);
        }
    }

    /// Whether so many bytes are buffered for slow peers that reads are small from now on.
    pub(super) fn is_short_of_buffers(&self) -> bool {
        self.core.buffers.grown() > self.settings.max_buffer_bytes / 2
    }

    /// The bytes buffered for slow peers exceed the limit: ends the requests and tunnels that have held most for the
    /// longest, until a quarter is free.
    pub(super) fn shed_buffers(&mut self) {
        if self.core.buffers.grown() > self.settings.max_buffer_bytes {
            self.abort_largest_holder();
        }
    }

    /// Ends them if the last search found some, or is long enough ago.
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
        // Another search at once would find no others.
        self.no_shedding_until = (self.core.buffers.grown() > limit).then(|| now + REST);
        self.warn_throttled("ending slow requests", &"server.maxBufferBytes is reached");
    }

    /// The memory that a request or tunnel holds: bytes, and the time for which it has held them. A slow but steady
    /// exchange need not end before a stalled one, so the time counts up to the body timeout only.
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

    /// Logs a shortage, at most once in ten seconds.
    #[cold]
    pub(super) fn warn_throttled(&mut self, what: &str, error: &dyn Display) {
        if let Some(suppressed) = self.shortage_warnings.admit(self.core.now) {
            let times = suppressed + 1;
            log::warn!("worker {}: {what}: {error} ({times} times since the last line)", self.number);
        }
    }

    /// Logs a warning that requests can cause, so that untrusted peers may cause it at any rate.
    #[cold]
    pub(super) fn warn(&mut self, what: Arguments<'_>) {
        match self.warnings.admit(self.core.now) {
            Some(0) => log::warn!("{what}"),
            Some(suppressed) => {
                log::warn!("{what} (and {suppressed} warnings of worker {} were suppressed)", self.number)
            }
            None => {}
        }
    }
}
