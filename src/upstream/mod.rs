//! The upstream connections of one core, and the exchanges that wait for one. The room knows keys, not sockets.

use crate::base::gen_slab::SlotKey;
use crate::cluster::{Backend, BackendId, IdleGauge};
use hashbrown::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Settings of the upstream connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The greatest number of connections of a core to one backend (`server.maxSockets`). Tunnels do not count.
    pub max_sockets: usize,
    /// The greatest number of requests of a core that may wait for a connection to one backend.
    pub max_queue: usize,
    /// Time after which an idle connection is closed.
    pub idle_timeout: Duration,
    /// The receive buffer of a connection, in bytes; 0 for the system's choice (`server.upstreamReceiveBuffer`).
    pub receive_buffer: usize,
}

/// The connections of one core to all backends.
///
/// A connection counts from the permission to dial ([`Claim::Dial`]) until [`Pool::forget`]. The holder of a connection
/// returns it with exactly one call of [`Pool::check_in`] or [`Pool::forget`].
#[derive(Debug)]
pub struct Pool {
    settings: Settings,
    backends: HashMap<BackendId, Connections>,
    /// Number of idle connections to all backends.
    idle: usize,
}

#[derive(Debug, Default)]
struct Connections {
    /// Idle connections. The one returned last is reused first, so the others can age and close.
    idle: Vec<SlotKey>,
    /// Their number for readers of other threads, since one was idle for the first time.
    gauge: Option<IdleGauge>,
    /// Number of connections that count, the idle ones included.
    open: usize,
    /// Exchanges whose request body is still arriving and that have a connection, or the permission to open one.
    uploads: Vec<SlotKey>,
    /// Exchanges that wait for a connection, in order.
    waiting: VecDeque<Waiting>,
}

/// An exchange that waits for a connection.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    exchange: SlotKey,
    /// Part of its request body is still to arrive.
    uploads: bool,
}

/// The kind of connection that an exchange needs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Want {
    /// A new connection, because the pooled ones seem to be stale.
    pub fresh: bool,
    /// Part of the request body is still to arrive, and the connection is held until it has. Until
    /// [`Pool::upload_ended`] the exchange counts as an upload. Uploads share three quarters of the connections, so
    /// slow clients cannot take all of them.
    pub uploads: bool,
}

impl Connections {
    /// Takes the idle connection that was returned last.
    fn take_idle(&mut self) -> Option<SlotKey> {
        let connection = self.idle.pop()?;
        self.show_idle();
        Some(connection)
    }

    /// Updates the number that other threads see.
    fn show_idle(&self) {
        if let Some(gauge) = &self.gauge {
            gauge.set(self.idle.len());
        }
    }

    /// Removes the next exchange that may get a connection from the queue, and returns it.
    fn next(&mut self, most_uploads: usize) -> Option<SlotKey> {
        let may_upload = self.uploads.len() < most_uploads;
        let place = self.waiting.iter().position(|waiting| may_upload || !waiting.uploads)?;
        self.let_go(place)
    }

    /// Removes the exchange at `place` from the queue.
    fn let_go(&mut self, place: usize) -> Option<SlotKey> {
        let Waiting { exchange, uploads } = self.waiting.remove(place)?;
        if uploads {
            self.uploads.push(exchange);
        }
        Some(exchange)
    }
}

/// The result of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// An idle connection to use.
    Reuse(SlotKey),
    /// The permission to open a connection.
    Dial,
    /// A place in the queue.
    Wait,
    /// Nothing: the queue is full.
    Full,
}

impl Pool {
    /// A pool without connections.
    pub fn new(settings: Settings) -> Self {
        Self { settings, backends: HashMap::new(), idle: 0 }
    }

    /// Time after which an idle connection is closed.
    pub fn idle_timeout(&self) -> Duration {
        self.settings.idle_timeout
    }

    /// Claims a connection to `backend` for `exchange`.
    pub fn claim(&mut self, backend: BackendId, exchange: SlotKey, want: Want) -> Claim {
        let Want { fresh, uploads } = want;
        let (most_uploads, room_to_wait) = (self.most_uploads(), self.room_to_wait(uploads));
        let connections = self.backends.entry(backend).or_default();
        let may_have = !uploads || connections.uploads.len() < most_uploads;
        let granted = if let Some(key) = (may_have && !fresh).then(|| connections.take_idle()).flatten() {
            self.idle -= 1;
            Claim::Reuse(key)
        } else if may_have && connections.open < self.settings.max_sockets {
            connections.open += 1;
            Claim::Dial
        } else if connections.waiting.len() < room_to_wait {
            connections.waiting.push_back(Waiting { exchange, uploads });
            return Claim::Wait;
        } else {
            return Claim::Full;
        };
        if uploads {
            connections.uploads.push(exchange);
        }
        granted
    }

    /// Length of the queue at which a new exchange is refused. The last quarter is reserved for complete requests: slow
    /// uploads would otherwise keep them out.
    fn room_to_wait(&self, uploads: bool) -> usize {
        let most = self.settings.max_queue;
        if uploads { most - most / 4 } else { most }
    }

    /// The greatest number of connections to a backend that uploads may hold.
    fn most_uploads(&self) -> usize {
        let most = self.settings.max_sockets;
        (most - most.div_ceil(4)).max(1)
    }

    /// Reports that the whole request of an exchange has arrived, or that it needs no connection to `backend` any more.
    /// Returns the next waiting upload, with an idle connection or the permission to dial (`None`).
    pub fn upload_ended(&mut self, backend: BackendId, exchange: SlotKey) -> Option<(SlotKey, Option<SlotKey>)> {
        let connections = self.backends.get_mut(&backend)?;
        let place = connections.uploads.iter().position(|upload| *upload == exchange)?;
        connections.uploads.swap_remove(place);
        if connections.idle.is_empty() && connections.open >= self.settings.max_sockets {
            return None;
        }
        // While the backend has room, only uploads wait.
        let place = connections.waiting.iter().position(|waiting| waiting.uploads)?;
        let next = connections.let_go(place)?;
        let idle = connections.take_idle();
        connections.open += usize::from(idle.is_none());
        self.idle -= usize::from(idle.is_some());
        Some((next, idle))
    }

    /// Number of idle connections to all backends.
    pub fn idle_count(&self) -> usize {
        self.idle
    }

    /// The idle connections to `backend`.
    pub fn idle(&self, backend: BackendId) -> Vec<SlotKey> {
        self.backends.get(&backend).map_or(Vec::new(), |connections| connections.idle.clone())
    }

    /// Returns a connection to the pool. If an exchange waits, it gets the connection and is returned.
    pub fn check_in(&mut self, backend: &Arc<Backend>, connection: SlotKey) -> Option<SlotKey> {
        let most_uploads = self.most_uploads();
        let connections = self.backends.get_mut(&backend.id())?;
        let next = connections.next(most_uploads);
        if next.is_none() {
            connections.idle.push(connection);
            connections.gauge.get_or_insert_with(|| IdleGauge::new(backend));
            connections.show_idle();
            self.idle += 1;
        }
        next
    }

    /// Reports that a connection, in use or about to be opened, no longer counts. Returns the waiting exchange that may
    /// dial in its place, if any; its permission counts already.
    pub fn forget(&mut self, backend: BackendId) -> Option<SlotKey> {
        let most_uploads = self.most_uploads();
        let connections = self.backends.get_mut(&backend)?;
        debug_assert!(connections.open > 0, "a connection was given back twice");
        let next = connections.next(most_uploads);
        if next.is_none() {
            connections.open -= 1;
            self.drop_if_empty(backend);
        }
        next
    }

    /// Reports that an idle connection is closed. No exchange can be waiting for it, since idle connections are handed
    /// out first.
    pub fn forget_idle(&mut self, backend: BackendId, connection: SlotKey) {
        let Some(connections) = self.backends.get_mut(&backend) else { return };
        let before = connections.idle.len();
        connections.idle.retain(|idle| *idle != connection);
        connections.show_idle();
        let closed = before - connections.idle.len();
        connections.open -= closed;
        self.idle -= closed;
        self.drop_if_empty(backend);
    }

    /// Removes an exchange from the queue of `backend`.
    pub fn stop_waiting(&mut self, backend: BackendId, exchange: SlotKey) {
        if let Some(connections) = self.backends.get_mut(&backend) {
            connections.waiting.retain(|waiting| waiting.exchange != exchange);
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
    use crate::base::gen_slab::GenSlab;
    use crate::cluster::BackendUrl;

    const BACKEND: BackendId = BackendId::new(1);
    const FRESH: Want = Want { fresh: true, uploads: false };

    fn backend() -> Arc<Backend> {
        let url = BackendUrl::parse("http://10.0.0.1").expect("a URL");
        Arc::new(Backend::new(BACKEND, url.endpoint().clone()))
    }

    fn pool() -> (Pool, Vec<SlotKey>) {
        let settings =
            Settings { max_sockets: 2, max_queue: 2, idle_timeout: Duration::from_secs(1), receive_buffer: 0 };
        let mut slots = GenSlab::default();
        (Pool::new(settings), (0..9).map(|_| slots.insert(())).collect())
    }

    #[test]
    fn the_limit_holds_and_the_queue_is_served_in_turn() {
        let (mut pool, keys) = pool();
        let mut claim = |exchange: usize| pool.claim(BACKEND, keys[exchange], Want::default());
        assert_eq!([claim(0), claim(1)], [Claim::Dial, Claim::Dial]);
        assert_eq!([claim(2), claim(3), claim(4)], [Claim::Wait, Claim::Wait, Claim::Full]);
        assert_eq!(pool.check_in(&backend(), keys[7]), Some(keys[2]));
        assert_eq!(pool.forget(BACKEND), Some(keys[3]), "a closed one makes room for a dial");
        assert_eq!((pool.check_in(&backend(), keys[7]), pool.idle_count()), (None, 1));
        assert_eq!(pool.claim(BACKEND, keys[5], Want::default()), Claim::Reuse(keys[7]));
        assert_eq!(pool.idle_count(), 0);
        assert_eq!(pool.claim(BACKEND, keys[5], FRESH), Claim::Wait);
    }

    #[test]
    fn other_threads_see_the_idle_connections_of_all_pools() {
        let backend = backend();
        let (mut pools, keys) = ([pool().0, pool().0], pool().1);
        for (pool, exchange) in [(0, 0), (0, 1), (1, 2)] {
            assert_eq!(pools[pool].claim(BACKEND, keys[exchange], Want::default()), Claim::Dial);
        }
        assert_eq!(backend.idle_connections(), 0);
        for (pool, connection) in [(0, 6), (0, 7), (1, 8)] {
            assert_eq!(pools[pool].check_in(&backend, keys[connection]), None);
        }
        assert_eq!(backend.idle_connections(), 3);
        assert_eq!(pools[0].claim(BACKEND, keys[0], Want::default()), Claim::Reuse(keys[7]));
        assert_eq!(backend.idle_connections(), 2);
        pools[0].forget_idle(BACKEND, keys[6]);
        assert_eq!(backend.idle_connections(), 1);
        drop(pools);
        assert_eq!(backend.idle_connections(), 0, "a pool that has gone leaves nothing");
    }

    #[test]
    fn nothing_is_left_of_a_backend_without_connections() {
        let (mut pool, keys) = pool();
        for exchange in &keys[..4] {
            pool.claim(BACKEND, *exchange, Want::default());
        }
        pool.stop_waiting(BACKEND, keys[2]);
        pool.stop_waiting(BACKEND, keys[3]);
        assert_eq!(pool.check_in(&backend(), keys[7]), None);
        pool.forget_idle(BACKEND, keys[7]);
        assert_eq!(pool.idle_count(), 0);
        assert_eq!(pool.forget(BACKEND), None);
        assert!(pool.backends.is_empty());
    }

    #[test]
    fn the_freshest_idle_connection_goes_first_and_fresh_means_none_of_them() {
        let (mut pool, keys) = pool();
        pool.claim(BACKEND, keys[0], Want::default());
        assert_eq!(pool.check_in(&backend(), keys[7]), None);
        assert_eq!(pool.claim(BACKEND, keys[0], FRESH), Claim::Dial);
        assert_eq!(pool.check_in(&backend(), keys[8]), None);
        assert_eq!(pool.claim(BACKEND, keys[0], Want::default()), Claim::Reuse(keys[8]));
        assert_eq!(pool.claim(BACKEND, keys[0], Want::default()), Claim::Reuse(keys[7]));
    }

    #[test]
    fn uploads_leave_a_quarter_to_others() {
        let (mut pool, keys) = pool();
        (pool.settings.max_sockets, pool.settings.max_queue) = (4, 9);
        let upload = Want { uploads: true, ..Want::default() };
        let claims = [0, 1, 2, 3].map(|exchange| pool.claim(BACKEND, keys[exchange], upload));
        assert_eq!(claims, [Claim::Dial, Claim::Dial, Claim::Dial, Claim::Wait]);
        assert_eq!(pool.claim(BACKEND, keys[4], Want::default()), Claim::Dial, "the fourth is for others");
        assert_eq!(pool.claim(BACKEND, keys[5], Want::default()), Claim::Wait);
        assert_eq!(pool.forget(BACKEND), Some(keys[5]), "who may have it, although another one came first");
        assert_eq!(pool.check_in(&backend(), keys[8]), None, "the waiting upload may not have it");
        assert_eq!(pool.upload_ended(BACKEND, keys[5]), None, "that was no upload");
        assert_eq!(pool.upload_ended(BACKEND, keys[1]), Some((keys[3], Some(keys[8]))), "the idle one");
        assert_eq!(pool.claim(BACKEND, keys[6], upload), Claim::Wait);
        assert_eq!(pool.forget(BACKEND), None, "the closed connection carried no upload");
        assert_eq!(pool.upload_ended(BACKEND, keys[3]), Some((keys[6], None)), "a new one");
        assert_eq!(pool.upload_ended(BACKEND, keys[6]), None, "no exchange waits");
        assert_eq!(pool.backends[&BACKEND].uploads.len(), 2);
    }

    #[test]
    fn waiting_uploads_leave_a_quarter_of_the_queue_to_others() {
        let (mut pool, keys) = pool();
        (pool.settings.max_sockets, pool.settings.max_queue) = (1, 4);
        let upload = Want { uploads: true, ..Want::default() };
        let claims = [0, 1, 2, 3, 4].map(|exchange| pool.claim(BACKEND, keys[exchange], upload));
        assert_eq!(claims, [Claim::Dial, Claim::Wait, Claim::Wait, Claim::Wait, Claim::Full]);
        assert_eq!(
            [5, 6].map(|exchange| pool.claim(BACKEND, keys[exchange], Want::default())),
            [Claim::Wait, Claim::Full]
        );
    }

    #[test]
    fn the_only_connection_is_for_all() {
        let (mut pool, keys) = pool();
        pool.settings.max_sockets = 1;
        let upload = Want { uploads: true, ..Want::default() };
        assert_eq!([0, 1].map(|exchange| pool.claim(BACKEND, keys[exchange], upload)), [Claim::Dial, Claim::Wait]);
        assert_eq!(pool.upload_ended(BACKEND, keys[0]), None, "the connection is still in use");
        assert_eq!(pool.check_in(&backend(), keys[7]), Some(keys[1]));
    }
}
