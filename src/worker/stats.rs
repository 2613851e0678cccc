//! A worker's report to the supervisor: that it makes progress, and the resources it holds.

use super::{EVENTS, Worker};
use crate::base::buffer::FRESH_CAPACITY;
use crate::base::clock::Moment;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Approximate memory of a TLS session.
const SESSION_BYTES: usize = 4 * 1024;

/// Approximate memory of a cached route: its key, its place in the LRU and its share of a frontend.
const ROUTE_BYTES: usize = 512;

/// The reports of a worker: it writes, the supervisor reads. Reports are written when the supervisor asks
/// ([`super::WorkerCommand::Report`]), so they cost requests nothing.
#[derive(Debug, Default)]
pub struct WorkerStats {
    replied: AtomicU64,
    forced: AtomicU64,
    clients: AtomicU64,
    requests: AtomicU64,
    upstreams: AtomicU64,
    idle_upstreams: AtomicU64,
    tunnels: AtomicU64,
    routes: AtomicU64,
    bytes: AtomicU64,
    busy_micros: AtomicU64,
    longest_turn_micros: AtomicU64,
}

/// What a worker holds, counted as it comes and goes: a report walks over no connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Exchanges that are tunnels.
    pub(super) tunnels: usize,
    /// Connections with TLS, of clients and to backends.
    pub(super) sessions: usize,
}

/// The turns of a worker's loop, for the worker alone: it reports them on request.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Whether the loop has turned yet.
    has_turned: bool,
    /// The time of all turns, without the sleep between them.
    busy_micros: u64,
    /// The longest turn since the last report.
    longest_micros: u64,
}

impl Turns {
    /// Counts the turn from `began` to `ended`.
    #[inline]
    pub(super) fn count(&mut self, began: Moment, ended: Moment) {
        if !std::mem::replace(&mut self.has_turned, true) {
            return;
        }
        let micros = ended.as_micros().saturating_sub(began.as_micros());
        self.busy_micros += micros;
        self.longest_micros = self.longest_micros.max(micros);
    }
}

/// Resources that a worker holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResourceUsage {
    /// Client connections.
    pub clients: u64,
    /// Requests and tunnels in progress.
    pub requests: u64,
    /// Connections to backends.
    pub upstreams: u64,
    /// Those of them that are idle in the pool.
    pub idle_upstreams: u64,
    /// Open tunnels.
    pub tunnels: u64,
    /// Hosts in the cache of routes, known or unknown.
    pub routes: u64,
    /// Approximate memory: connections, buffers and routes. It shows which worker holds most, not the exact size.
    pub bytes: u64,
    /// The time that its loop has worked, and not slept, since its start.
    pub busy: Duration,
    /// The longest turn of its loop between the last two reports: an event may have waited as long.
    pub longest_turn: Duration,
}

impl WorkerStats {
    /// Number of the last report written.
    pub fn replied(&self) -> u64 {
        self.replied.load(Ordering::Acquire)
    }

    /// Requests and tunnels ended by force at the end of the worker.
    pub fn forced(&self) -> u64 {
        self.forced.load(Ordering::Relaxed)
    }

    /// Resources held at the time of the last report.
    pub fn usage(&self) -> ResourceUsage {
        let read = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        ResourceUsage {
            clients: read(&self.clients),
            requests: read(&self.requests),
            upstreams: read(&self.upstreams),
            idle_upstreams: read(&self.idle_upstreams),
            tunnels: read(&self.tunnels),
            routes: read(&self.routes),
            bytes: read(&self.bytes),
            busy: Duration::from_micros(read(&self.busy_micros)),
            longest_turn: Duration::from_micros(read(&self.longest_turn_micros)),
        }
    }

    /// A report of this busy time alone.
    #[cfg(test)]
    pub fn with_busy(busy: Duration) -> Self {
        let micros = u64::try_from(busy.as_micros()).unwrap_or(u64::MAX);
        Self { busy_micros: micros.into(), ..Self::default() }
    }

    pub(super) fn note_forced(&self, count: usize) {
        self.forced.store(count as u64, Ordering::Relaxed);
    }
}

impl Worker {
    /// Writes the report of this number, and does what is to be done about once a second: it follows the clock, and frees
    /// memory that an earlier load has left.
    pub(super) fn report(&mut self, question: u64) {
        self.follow_clock();
        self.trim();
        debug_assert_eq!(self.tally, self.counted(), "the tally differs from what the worker holds");
        let stats = &self.stats;
        let put = |cell: &AtomicU64, count: usize| cell.store(count as u64, Ordering::Relaxed);
        put(&stats.clients, self.traffic_clients());
        put(&stats.requests, self.traffic_requests());
        put(&stats.upstreams, self.upstreams.len());
        put(&stats.idle_upstreams, self.pool.idle_count());
        put(&stats.tunnels, self.tally.tunnels);
        put(&stats.routes, self.routes.count());
        put(&stats.bytes, self.held_bytes());
        stats.busy_micros.store(self.turns.busy_micros, Ordering::Relaxed);
        stats.longest_turn_micros.store(std::mem::take(&mut self.turns.longest_micros), Ordering::Relaxed);
        stats.replied.store(question, Ordering::Release);
    }

    /// The system's clock may have been set: the supervisor looks at it before it asks for a report.
    pub(super) fn follow_clock(&mut self) {
        self.core.wall_origin = self.clock.wall(Moment::ZERO);
    }

    /// The tally, by a walk over everything. For assertions.
    fn counted(&self) -> Tally {
        let clients = self.clients.values().filter(|client| client.has_session).count();
        let upstreams = self.upstreams.values().filter(|upstream| upstream.stream.transport.is_encrypted()).count();
        let tunnels = self.upstreams.values().filter(|upstream| upstream.is_tunnel).count();
        Tally { tunnels, sessions: clients + upstreams }
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.clients.bytes()
            + self.jobs.bytes()
            + self.upstreams.bytes()
            + self.tally.sessions * SESSION_BYTES
            + self.core.buffers.count() * FRESH_CAPACITY
            + self.core.buffers.grown()
            + self.core.output.room()
            + self.batch.room()
            + self.routes.count() * ROUTE_BYTES
            + self.core.rules.capacity()
    }

    /// Capacity far above the present need is freed.
    fn trim(&mut self) {
        self.clients.trim();
        self.jobs.trim();
        self.upstreams.trim();
        self.timers.trim();
        self.core.buffers.trim();
        self.core.output.trim();
        self.batch.trim();
        self.idle.trim();
        self.deferred.shrink_to(EVENTS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_summed_up_and_the_longest_is_kept() {
        let at = Moment::from_micros;
        let mut turns = Turns::default();
        // The time before the first turn does not count.
        turns.count(at(0), at(900));
        turns.count(at(1000), at(1010));
        turns.count(at(2000), at(2300));
        turns.count(at(3000), at(3001));
        assert_eq!((turns.busy_micros, turns.longest_micros), (311, 300));
    }
}
