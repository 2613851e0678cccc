//! What a worker tells of itself when it is asked: that it still turns, and what it holds.

use super::{EVENTS, Worker};
use crate::base::buffer::FRESH_CAPACITY;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the session of an encrypted connection holds, about.
const SESSION_BYTES: usize = 4 * 1024;

/// What a route in the cache holds, about: its key, its place in the LRU and its share of a frontend.
const ROUTE_BYTES: usize = 512;

/// The answers of a worker: it writes, the supervisor reads. They are written when the supervisor asks
/// ([`super::WorkerCommand::Report`]), so that they cost no request anything.
#[derive(Debug, Default)]
pub struct WorkerStats {
    replied: AtomicU64,
    forced: AtomicU64,
    clients: AtomicU64,
    requests: AtomicU64,
    upstreams: AtomicU64,
    bytes: AtomicU64,
}

/// What a worker holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResourceUsage {
    /// Client connections.
    pub clients: u64,
    /// Requests and tunnels under way.
    pub requests: u64,
    /// Connections to backends.
    pub upstreams: u64,
    /// Memory, about: connections, buffers and routes. It tells which worker holds most, not how much that is to a byte.
    pub bytes: u64,
}

impl WorkerStats {
    /// The number of the last question that was answered.
    pub fn replied(&self) -> u64 {
        self.replied.load(Ordering::Acquire)
    }

    /// How many requests and tunnels were ended by force at the end of the worker.
    pub fn forced(&self) -> u64 {
        self.forced.load(Ordering::Relaxed)
    }

    /// What the worker held when it answered last.
    pub fn usage(&self) -> ResourceUsage {
        let read = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        ResourceUsage {
            clients: read(&self.clients),
            requests: read(&self.requests),
            upstreams: read(&self.upstreams),
            bytes: read(&self.bytes),
        }
    }

    pub(super) fn note_forced(&self, count: usize) {
        self.forced.store(count as u64, Ordering::Relaxed);
    }
}

impl Worker {
    /// Answers the supervisor's question of this number, and gives back what a passed load has left behind.
    pub(super) fn report(&mut self, question: u64) {
        self.trim();
        let stats = &self.stats;
        let put = |cell: &AtomicU64, count: usize| cell.store(count as u64, Ordering::Relaxed);
        put(&stats.clients, self.traffic_clients());
        put(&stats.requests, self.traffic_requests());
        put(&stats.upstreams, self.upstreams.len());
        put(&stats.bytes, self.held_bytes());
        stats.replied.store(question, Ordering::Release);
    }

    pub(super) fn held_bytes(&self) -> usize {
        let streams = self.clients.values().map(|client| &client.stream);
        let streams = streams.chain(self.upstreams.values().map(|upstream| &upstream.stream));
        let sessions = streams.filter(|stream| stream.transport.is_encrypted()).count();
        self.clients.bytes()
            + self.jobs.bytes()
            + self.upstreams.bytes()
            + sessions * SESSION_BYTES
            + self.core.buffers.count() * FRESH_CAPACITY
            + self.core.buffers.grown()
            + self.core.output.room()
            + self.batch.room()
            + self.routes.count() * ROUTE_BYTES
            + self.core.rules.capacity()
    }

    /// Room for far more than there is, is given back.
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
