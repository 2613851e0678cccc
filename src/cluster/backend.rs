//! A backend: the server behind one endpoint, shared by all clusters that name it and by all cores.

use super::endpoint::Endpoint;
use super::rotation::Rotation;
use crate::base::clock::Moment;
use crate::net::tls::{BackendAuthorities, Trust};
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// The id of a [`Backend`] within the process. Ids are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendId(NonZeroU64);

impl BackendId {
    /// The id with this number, from 0.
    pub const fn new(number: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(number))
    }
}

/// A server that requests are forwarded to.
#[derive(Debug)]
pub struct Backend {
    id: BackendId,
    endpoint: Endpoint,
    /// It is read only when a connection is opened: the request has to wait there anyway, so a lock is acceptable.
    addresses: Mutex<Resolved>,
    /// Addresses that did not respond to a connection attempt, and the time until which each is tried last.
    silent: Mutex<Vec<(SocketAddr, Moment)>>,
    /// Number of connections opened on all cores: the next one begins with the next address.
    turn: AtomicUsize,
    address_changes: AtomicU16,
    /// Number of routes that lead to it.
    references: AtomicUsize,
    /// The authorities of `ca`; nothing where their file cannot be used.
    authorities: OnceLock<Arc<BackendAuthorities>>,
    /// The cells of the gauges of all cores. The lock is taken when a core's first connection becomes idle and when its
    /// last one is gone, and by readers.
    idle: Mutex<Vec<Arc<AtomicU32>>>,
}

/// The number of idle connections that one core has to a backend: the core writes it, any thread reads it.
#[derive(Debug)]
pub struct IdleGauge {
    cell: Arc<AtomicU32>,
    backend: Arc<Backend>,
}

impl IdleGauge {
    /// A gauge at 0. It counts until it is dropped.
    pub fn new(backend: &Arc<Backend>) -> Self {
        let cell = Arc::<AtomicU32>::default();
        backend.idle_cells().push(Arc::clone(&cell));
        Self { cell, backend: Arc::clone(backend) }
    }

    /// Sets the number.
    #[inline]
    pub fn set(&self, count: usize) {
        self.cell.store(u32::try_from(count).unwrap_or(u32::MAX), Ordering::Relaxed);
    }
}

impl Drop for IdleGauge {
    fn drop(&mut self) {
        self.backend.idle_cells().retain(|cell| !Arc::ptr_eq(cell, &self.cell));
    }
}

/// The addresses of a backend, as far as known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// The name is being resolved for the first time.
    Pending,
    /// The addresses in order of preference; never empty.
    Known(Arc<[SocketAddr]>),
    /// The name has never been resolved.
    NotFound,
}

/// The addresses with their turns.
#[derive(Debug)]
struct Resolved {
    addresses: Addresses,
    /// Where the weights of the addresses differ; otherwise they take turns.
    turns: Option<Turns>,
}

#[derive(Debug)]
struct Turns {
    weights: Box<[u32]>,
    rotation: Rotation,
}

impl Resolved {
    /// Whether these are its addresses with these weights, in any order.
    fn is(&self, found: &[(SocketAddr, u32)]) -> bool {
        let Addresses::Known(known) = &self.addresses else { return false };
        let weight_of = |place: usize| self.turns.as_ref().map_or(1, |turns| turns.weights[place]);
        let is_found = |(place, address): (usize, &SocketAddr)| found.contains(&(*address, weight_of(place)));
        known.len() == found.len() && known.iter().enumerate().all(is_found)
    }
}

impl Backend {
    /// A backend with this endpoint. An IP address is known at once, a name is [`Addresses::Pending`].
    pub fn new(id: BackendId, endpoint: Endpoint) -> Self {
        let addresses = match endpoint.address() {
            Some(address) => Addresses::Known(Arc::new([address])),
            None => Addresses::Pending,
        };
        Self {
            id,
            endpoint,
            addresses: Mutex::new(Resolved { addresses, turns: None }),
            address_changes: AtomicU16::new(0),
            silent: Mutex::default(),
            turn: AtomicUsize::new(0),
            references: AtomicUsize::new(0),
            authorities: OnceLock::new(),
            idle: Mutex::default(),
        }
    }

    fn idle_cells(&self) -> MutexGuard<'_, Vec<Arc<AtomicU32>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of idle connections to it, of all cores.
    pub fn idle_connections(&self) -> u64 {
        self.idle_cells().iter().map(|cell| u64::from(cell.load(Ordering::Relaxed))).sum()
    }

    /// A backend outside all lists, for the other end of a connection that another process has opened.
    pub fn stand_in(endpoint: Endpoint) -> Self {
        Self::new(BackendId(NonZeroU64::MAX), endpoint)
    }

    /// Whether no route leads to this backend: its connections are then of no use.
    pub fn is_unreferenced(&self) -> bool {
        self.references.load(Ordering::Acquire) == 0
    }

    pub(super) fn join(&self) {
        self.references.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn leave(&self) {
        let before = self.references.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(before > 0, "{} left more routes than it had joined", self.endpoint);
    }

    /// The id within this process.
    pub fn id(&self) -> BackendId {
        self.id
    }

    /// Where it is reached.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Sets the authorities of its attribute `ca`, once they are read.
    pub fn set_authorities(&self, authorities: Arc<BackendAuthorities>) {
        // They are read once, when the backend is made.
        let _ = self.authorities.set(authorities);
    }

    /// What its certificate has to prove; `None` where the file of its authorities cannot be used.
    pub fn trust(&self) -> Option<Trust<'_>> {
        match self.endpoint.authorities() {
            _ if self.endpoint.is_unverified() => Some(Trust::Anything),
            Some(_) => self.authorities.get().map(Trust::Authorities),
            None => Some(Trust::Settings),
        }
    }

    /// The socket addresses to connect to.
    pub fn addresses(&self) -> Addresses {
        self.resolved().addresses.clone()
    }

    fn resolved(&self) -> MutexGuard<'_, Resolved> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The addresses to connect to now, in the order of attempts: each address takes its turns by its weight to be the
    /// first, and those that did not respond recently come last.
    pub fn next_addresses(&self, now: Moment) -> Addresses {
        let resolved = self.resolved();
        let addresses = resolved.addresses.clone();
        let Addresses::Known(known) = &addresses else { return addresses };
        if known.len() < 2 {
            return addresses;
        }
        let number = self.turn.fetch_add(1, Ordering::Relaxed);
        let by_weight = resolved.turns.as_ref().and_then(|turns| turns.rotation.turn(number));
        let first = by_weight.unwrap_or(number % known.len());
        drop(resolved);
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        silent.retain(|(_, until)| *until > now);
        let is_silent = |address: &SocketAddr| silent.iter().any(|(silent, _)| silent == address);
        let (before, from) = known.split_at(first);
        let in_turn = || from.iter().chain(before).copied();
        let well = in_turn().filter(|address| !is_silent(address));
        Addresses::Known(well.chain(in_turn().filter(is_silent)).collect())
    }

    /// Records that an address did not respond to a connection attempt: it is tried last until `until`. Returns whether
    /// that is new.
    pub fn note_silent(&self, address: SocketAddr, until: Moment) -> bool {
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        match silent.iter_mut().find(|(known, _)| *known == address) {
            Some((_, known)) => {
                *known = until;
                false
            }
            None => {
                silent.push((address, until));
                true
            }
        }
    }

    /// Sets the resolver's result. A failure never overwrites known addresses (fail static). Returns whether anything
    /// changed.
    pub fn set_addresses(&self, found: Addresses) -> bool {
        let mut resolved = self.resolved();
        let known = &resolved.addresses;
        let keep = matches!((known, &found), (Addresses::Known(_), Addresses::NotFound | Addresses::Pending));
        let changed = !keep && *known != found;
        if changed {
            *resolved = Resolved { addresses: found, turns: None };
            self.address_changes.fetch_add(1, Ordering::Release);
        }
        changed
    }

    /// Sets the addresses that the resolver has found, each with its weight (RFC 2782): its share of the connections.
    /// Another order of the same is no change, since name servers rotate it. Returns whether anything changed.
    pub fn set_weighted(&self, found: &[(SocketAddr, u32)]) -> bool {
        let weights: Box<[u32]> = found.iter().map(|(_, weight)| *weight).collect();
        let is_even = weights.iter().all(|weight| *weight == 1);
        let turns = (!is_even).then(|| Turns { rotation: Rotation::new(&weights), weights });
        let addresses = Addresses::Known(found.iter().map(|(address, _)| *address).collect());
        let mut resolved = self.resolved();
        let changed = !resolved.is(found);
        if changed {
            *resolved = Resolved { addresses, turns };
            self.address_changes.fetch_add(1, Ordering::Release);
        }
        changed
    }

    /// Number of changes of its addresses, which wraps: while it stays the same, a connection has an address of this backend.
    pub fn address_changes(&self) -> u16 {
        self.address_changes.load(Ordering::Acquire)
    }

    /// Whether this is one of its addresses.
    pub fn leads_to(&self, address: SocketAddr) -> bool {
        let is_it = |known: &SocketAddr| (known.ip(), known.port()) == (address.ip(), address.port());
        matches!(self.addresses(), Addresses::Known(known) if known.iter().any(is_it))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_turn_and_a_silent_one_comes_last() {
        let backend = Backend::new(BackendId::new(1), Endpoint::new("app.internal", 80, false));
        let all: Vec<SocketAddr> = (1..=3).map(|n| SocketAddr::from(([127, 0, 0, n], 80))).collect();
        backend.set_addresses(Addresses::Known(all.clone().into()));
        let now = Moment::ZERO + std::time::Duration::from_secs(1);
        let order = |now| match backend.next_addresses(now) {
            Addresses::Known(addresses) => {
                addresses.iter().map(|a| all.iter().position(|b| a == b).expect("known")).collect()
            }
            _ => Vec::new(),
        };
        let turns: Vec<Vec<usize>> = (0..4).map(|_| order(now)).collect();
        assert_eq!(turns, [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]]);
        let later = now + std::time::Duration::from_secs(60);
        assert!(backend.note_silent(all[1], later) && !backend.note_silent(all[1], later));
        assert_eq!((order(now), order(now), order(now)), (vec![2, 0, 1], vec![2, 0, 1], vec![0, 2, 1]));
        assert_eq!(order(later), [1, 2, 0]);
    }

    #[test]
    fn addresses_have_turns_by_their_weights() {
        let backend = Backend::new(BackendId::new(1), Endpoint::new("_http._tcp.app.internal", 80, false));
        let [one, two] = [1, 2].map(|n| SocketAddr::from(([127, 0, 0, n], 80)));
        assert!(backend.set_weighted(&[(one, 3), (two, 1)]));
        assert!(!backend.set_weighted(&[(two, 1), (one, 3)]), "the order does not count");
        let first = || match backend.next_addresses(Moment::ZERO) {
            Addresses::Known(addresses) => addresses[0],
            other => panic!("{other:?}"),
        };
        let turns: Vec<_> = (0..8).map(|_| first() == one).collect();
        assert_eq!(turns.iter().filter(|is_one| **is_one).count(), 6, "{turns:?}");
        assert!(backend.set_weighted(&[(one, 1), (two, 3)]), "the weights do");
        assert_eq!((0..8).filter(|_| first() == one).count(), 2);
        assert!(backend.set_weighted(&[(one, 1), (two, 1)]));
        assert_eq!((0..8).filter(|_| first() == one).count(), 4);
    }

    #[test]
    fn a_failed_lookup_keeps_what_is_known() {
        let backend = Backend::new(BackendId::new(1), Endpoint::new("app.internal", 80, false));
        assert_eq!(backend.addresses(), Addresses::Pending);
        let known = Addresses::Known(Arc::new([SocketAddr::from(([127, 0, 0, 1], 80))]));
        assert!(backend.set_addresses(known.clone()));
        assert!(!backend.set_addresses(Addresses::NotFound));
        assert_eq!(backend.addresses(), known);
    }
}
