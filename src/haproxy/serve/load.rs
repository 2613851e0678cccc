//! Client counts of a frontend, over all workers and reloads, and the state that its rules keep for each connection.

use super::stick_table::Tracked;
use super::variables::SharedVariables;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// The number of stick table entries that a connection can track.
pub(in super::super) const SLOTS: usize = 3;

/// The connections of a frontend: the present number, and the total since the process began.
#[derive(Debug, Default)]
pub struct FrontendLoad {
    current: AtomicU64,
    total: AtomicU64,
}

impl FrontendLoad {
    /// Counts a new connection for as long as the visit lasts, unless `limit` is reached.
    pub fn enter(self: &Arc<Self>, limit: Option<u64>) -> Option<Arc<Visit>> {
        let may_enter = |current: u64| limit.is_none_or(|limit| current < limit).then_some(current + 1);
        self.current.fetch_update(Ordering::Relaxed, Ordering::Relaxed, may_enter).ok()?;
        self.total.fetch_add(1, Ordering::Relaxed);
        let load = Arc::clone(self);
        let (has_requested, ends, tracked, variables) = Default::default();
        Some(Arc::new(Visit { load, has_requested, ends, tracked, variables }))
    }

    /// Whether the limit is reached.
    pub fn is_full(&self, limit: Option<u64>) -> bool {
        limit.is_some_and(|limit| self.current() >= limit)
    }

    /// Present number of connections.
    pub fn current(&self) -> u64 {
        self.current.load(Ordering::Relaxed)
    }

    /// Number of connections since the process began.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }
}

/// A connection of a client at a frontend.
#[derive(Debug)]
pub struct Visit {
    load: Arc<FrontendLoad>,
    /// The rules for new connections were applied.
    has_requested: AtomicBool,
    /// Both ends of the connection, determined on demand, which costs system calls.
    ends: OnceLock<Option<(SocketAddr, SocketAddr)>>,
    /// The entries of `tcp-request connection track-sc…`.
    tracked: [OnceLock<Tracked>; SLOTS],
    /// Variables whose scope is `sess`.
    variables: SharedVariables,
}

impl Visit {
    /// Whether this call begins its first request; later calls return false.
    pub(super) fn begin_first_request(&self) -> bool {
        !self.has_requested.swap(true, Ordering::Relaxed)
    }

    /// Both ends of the connection, which `find` determines once.
    pub fn ends(&self, find: impl FnOnce() -> Option<(SocketAddr, SocketAddr)>) -> Option<(SocketAddr, SocketAddr)> {
        *self.ends.get_or_init(find)
    }

    /// Variables of the connection.
    pub(super) fn variables(&self) -> &SharedVariables {
        &self.variables
    }

    /// The entry in a slot.
    pub(super) fn tracked(&self, slot: usize) -> Option<&Tracked> {
        self.tracked.get(slot)?.get()
    }

    /// Tracks an entry for the life of the connection. The first one in a slot stays.
    pub(super) fn track(&self, slot: usize, tracked: Tracked) {
        if let Some(place) = self.tracked.get(slot) {
            let _ = place.set(tracked);
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.load.current.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_keeps_clients_out_until_one_leaves() {
        let load = Arc::new(FrontendLoad::default());
        let visits = [load.enter(Some(2)).expect("room"), load.enter(Some(2)).expect("room")];
        assert!(load.enter(Some(2)).is_none() && load.is_full(Some(2)) && !load.is_full(None));
        assert_eq!((load.current(), load.total()), (2, 2));
        drop(visits);
        assert_eq!((load.current(), load.total()), (0, 2));
    }
}
