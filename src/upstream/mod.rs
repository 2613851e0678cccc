//! Which connections to backends a core has, and who waits for one. Knows keys, not sockets.

use crate::base::slots::Key;
use crate::cluster::BackendId;
use hashbrown::HashMap;
use std::collections::VecDeque;
use std::time::Duration;

/// What of the upstream connections can be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The greatest number of connections of a core to one backend (`server.maxSockets`). Tunnels do not count.
    pub max_sockets: usize,
    /// The greatest number of requests of a core that wait for a connection to one backend.
    pub max_waiting: usize,
    /// How long a connection may be idle before it is closed.
    pub idle_timeout: Duration,
    /// The receive buffer of a connection, in bytes; 0 for the system's choice (`server.upstreamReceiveBuffer`).
    pub receive_buffer: usize,
}

/// The connections of one core to all backends.
///
/// A connection counts from the permission to dial ([`Claim::Dial`]) until [`Pool::forget`]. Whoever holds one gives
/// it back by exactly one call of [`Pool::check_in`] or [`Pool::forget`].
#[derive(Debug)]
pub struct Pool {
    settings: Settings,
    backends: HashMap<BackendId, Connections>,
}

#[derive(Debug, Default)]
struct Connections {
    /// Those that wait for a request. The one that came last is the first to go: the others may then age and close.
    idle: Vec<Key>,
    /// All that count, the idle ones included.
    open: usize,
    /// The exchanges that wait for one, in turn.
    waiting: VecDeque<Key>,
}

/// What an exchange that wants a connection gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// This idle connection.
    Reuse(Key),
    /// The permission to open one.
    Dial,
    /// A place in the queue.
    Wait,
    /// Nothing: the queue is full.
    Full,
}

impl Pool {
    /// A pool without connections.
    pub fn new(settings: Settings) -> Self {
        Self { settings, backends: HashMap::new() }
    }

    /// How long a connection may be idle.
    pub fn idle_timeout(&self) -> Duration {
        self.settings.idle_timeout
    }

    /// Asks for a connection to `backend` on behalf of `exchange`; a new one if `fresh`.
    pub fn claim(&mut self, backend: BackendId, exchange: Key, fresh: bool) -> Claim {
        let connections = self.backends.entry(backend).or_default();
        if let Some(key) = (!fresh).then(|| connections.idle.pop()).flatten() {
            return Claim::Reuse(key);
        }
        if connections.open < self.settings.max_sockets {
            connections.open += 1;
            return Claim::Dial;
        }
        if connections.waiting.len() < self.settings.max_waiting {
            connections.waiting.push_back(exchange);
            return Claim::Wait;
        }
        Claim::Full
    }

    /// The idle connections to `backend`.
    pub fn idle(&self, backend: BackendId) -> Vec<Key> {
        self.backends.get(&backend).map_or(Vec::new(), |connections| connections.idle.clone())
    }

    /// Gives a connection back for the next one. Returns the exchange that gets it at once, if one waits.
    pub fn check_in(&mut self, backend: BackendId, connection: Key) -> Option<Key> {
        let connections = self.backends.get_mut(&backend)?;
        let next = connections.waiting.pop_front();
        if next.is_none() {
            connections.idle.push(connection);
        }
        next
    }

    /// Says that a connection that was in use, or was to be opened, no longer counts. Returns the exchange that may
    /// dial in its place, if one waits; its permission counts already.
    pub fn forget(&mut self, backend: BackendId) -> Option<Key> {
        let connections = self.backends.get_mut(&backend)?;
        debug_assert!(connections.open > 0, "a connection was given back twice");
        let next = connections.waiting.pop_front();
        if next.is_none() {
            connections.open -= 1;
            self.drop_if_empty(backend);
        }
        next
    }

    /// Says that an idle connection is closed. Nobody waits where there are idle ones.
    pub fn forget_idle(&mut self, backend: BackendId, connection: Key) {
        let Some(connections) = self.backends.get_mut(&backend) else { return };
        let before = connections.idle.len();
        connections.idle.retain(|idle| *idle != connection);
        connections.open -= before - connections.idle.len();
        self.drop_if_empty(backend);
    }

    /// Takes an exchange out of the queue of `backend`.
    pub fn stop_waiting(&mut self, backend: BackendId, exchange: Key) {
        if let Some(connections) = self.backends.get_mut(&backend) {
            connections.waiting.retain(|waiting| *waiting != exchange);
            self.drop_if_empty(backend);
        }
    }

    fn drop_if_empty(&mut self, backend: BackendId) {
        if self.backends.get(&backend).is_some_and(|c| c.open == 0 && c.waiting.is_empty()) {
            self.backends.remove(&backend);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::slots::Slots;

    const BACKEND: BackendId = BackendId(1);

    fn pool() -> (Pool, Vec<Key>) {
        let settings =
            Settings { max_sockets: 2, max_waiting: 2, idle_timeout: Duration::from_secs(1), receive_buffer: 0 };
        let mut slots = Slots::default();
        (Pool::new(settings), (0..9).map(|_| slots.insert(())).collect())
    }

    #[test]
    fn the_limit_holds_and_the_queue_is_served_in_turn() {
        let (mut pool, keys) = pool();
        let mut claim = |exchange: usize| pool.claim(BACKEND, keys[exchange], false);
        assert_eq!([claim(0), claim(1)], [Claim::Dial, Claim::Dial]);
        assert_eq!([claim(2), claim(3), claim(4)], [Claim::Wait, Claim::Wait, Claim::Full]);
        assert_eq!(pool.check_in(BACKEND, keys[7]), Some(keys[2]));
        assert_eq!(pool.forget(BACKEND), Some(keys[3]), "a closed one makes room for a dial");
        assert_eq!(pool.check_in(BACKEND, keys[7]), None);
        assert_eq!(pool.claim(BACKEND, keys[5], false), Claim::Reuse(keys[7]));
        assert_eq!(pool.claim(BACKEND, keys[5], true), Claim::Wait);
    }

    #[test]
    fn nothing_is_left_of_a_backend_without_connections() {
        let (mut pool, keys) = pool();
        for exchange in &keys[..4] {
            pool.claim(BACKEND, *exchange, false);
        }
        pool.stop_waiting(BACKEND, keys[2]);
        pool.stop_waiting(BACKEND, keys[3]);
        assert_eq!(pool.check_in(BACKEND, keys[7]), None);
        pool.forget_idle(BACKEND, keys[7]);
        assert_eq!(pool.forget(BACKEND), None);
        assert!(pool.backends.is_empty());
    }

    #[test]
    fn the_freshest_idle_connection_goes_first_and_fresh_means_none_of_them() {
        let (mut pool, keys) = pool();
        pool.claim(BACKEND, keys[0], false);
        assert_eq!(pool.check_in(BACKEND, keys[7]), None);
        assert_eq!(pool.claim(BACKEND, keys[0], true), Claim::Dial);
        assert_eq!(pool.check_in(BACKEND, keys[8]), None);
        assert_eq!(pool.claim(BACKEND, keys[0], false), Claim::Reuse(keys[8]));
        assert_eq!(pool.claim(BACKEND, keys[0], false), Claim::Reuse(keys[7]));
    }
}
