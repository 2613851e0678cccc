//! A core that has more to do than it can do at once serves its tenants by turns (`server.tenants`).
//!
//! Connections that are ready are sorted by the tenants of their requests, and each tenant has short turns: [`FairTurns`]. A
//! tenant whose thousand connections are ready at once does not delay the one connection of another. As long as few
//! connections are ready, they are served as they come.

use super::connection::Endpoint;
use super::fair_turns::FairTurns;
use super::{Deferred, Owner, Worker};
use crate::base::client_network::network_of;
use crate::base::clock::Moment;
use crate::base::gen_slab::SlotKey;
use crate::cluster::{TenantKey, Tenants};
use crate::exchange::Side;
use mio::Events;
use mio::event::Event;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// The greatest number of ready connections that are served as they come, and the number of a turn.
const CONNECTIONS: usize = 4;

/// Turns are given for so long, then the poll is asked for what has become ready meanwhile.
const LOOK_AFTER: Duration = Duration::from_micros(50);

/// The tenants of a core, and their connections that are ready.
#[derive(Debug)]
pub(super) struct TenantTurns {
    tenants: Arc<Tenants>,
    turns: FairTurns<TenantKey, Endpoint>,
    /// The connections that wait for a turn of [`TenantKey::UNKNOWN`], by their clients' networks: many new connections from
    /// one network do not stand before that of another.
    newcomers: FairTurns<Option<IpAddr>, Endpoint>,
    /// What is known of connections, by their slots. It is no part of them, as most nodes have no use for it.
    clients: Vec<Known>,
    upstreams: Vec<Known>,
}

/// What is known of a connection.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// Which connection of the slot is meant.
    key: SlotKey,
    /// The tenant of its last request.
    tenant: TenantKey,
    waits: WaitsForTurn,
}

/// Whether a connection that is ready waits for the turn of its tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum WaitsForTurn {
    #[default]
    No,
    /// It waits.
    Yes,
    /// It waits, and its socket takes bytes again.
    Writable,
}

impl Known {
    fn nothing_of(key: SlotKey) -> Self {
        Self { key, tenant: TenantKey::UNKNOWN, waits: WaitsForTurn::No }
    }
}

impl TenantTurns {
    pub(super) fn new(tenants: Arc<Tenants>) -> Self {
        let (turns, newcomers) = (FairTurns::new(|key: TenantKey| !key.is_named()), FairTurns::new(|_| false));
        Self { tenants, turns, newcomers, clients: Vec::new(), upstreams: Vec::new() }
    }

    /// Adds a connection of a tenant that is ready. `address` is that of its client.
    pub(super) fn push(&mut self, tenant: TenantKey, source: Endpoint, address: Option<IpAddr>) {
        self.turns.push(tenant, source);
        if tenant == TenantKey::UNKNOWN {
            self.newcomers.push(address.map(network_of), source);
        }
    }

    /// The next connection of a tenant that has its turn.
    pub(super) fn take(&mut self, tenant: TenantKey) -> Option<Endpoint> {
        let next = self.turns.take(tenant)?;
        if tenant != TenantKey::UNKNOWN {
            return Some(next);
        }
        let address = self.newcomers.begin_turn()?;
        let source = self.newcomers.take(address);
        self.newcomers.end_turn(address, 1, 1);
        source
    }

    /// Whether a connection waits for a turn, which it then no longer does.
    fn take_wait(&mut self, source: Endpoint) -> WaitsForTurn {
        self.known(source).map(|known| std::mem::take(&mut known.waits)).unwrap_or_default()
    }

    fn known(&mut self, source: Endpoint) -> Option<&mut Known> {
        let (slots, key) = match source {
            Endpoint::Client(key) => (&mut self.clients, key),
            Endpoint::Upstream(key) => (&mut self.upstreams, key),
        };
        // A refresh of the cache has no client.
        if key == SlotKey::NONE {
            return None;
        }
        if key.index() >= slots.len() {
            slots.resize(key.index() + 1, Known::nothing_of(SlotKey::NONE));
        }
        let known = slots.get_mut(key.index())?;
        if known.key != key {
            *known = Known::nothing_of(key);
        }
        Some(known)
    }

    /// The tenant of the last request of a client.
    fn last_of(&self, client: SlotKey) -> TenantKey {
        let known = self.clients.get(client.index()).filter(|known| known.key == client);
        known.map_or(TenantKey::UNKNOWN, |known| known.tenant)
    }

    /// The number of connections that there is memory for.
    #[cfg(test)]
    pub(super) fn places(&self) -> usize {
        self.clients.len() + self.upstreams.len()
    }

    fn weight(&self, key: TenantKey) -> u32 {
        self.tenants.weight(key, self.turns.counted())
    }
}

impl Worker {
    /// Whether connections wait for the turns of their tenants.
    pub(super) fn has_turns(&self) -> bool {
        self.tenants.as_ref().is_some_and(|tenants| !tenants.turns.is_empty())
    }

    /// Handles the events of a poll: all of them, or where tenants share the core, as many as have their turn.
    pub(super) fn take_events(&mut self, events: &Events) {
        if self.tenants.is_some() && (self.has_turns() || events.iter().nth(CONNECTIONS).is_some()) {
            return self.take_turns(events);
        }
        for event in events {
            self.take_event(event);
        }
        self.finish_batch();
    }

    #[cold]
    fn take_turns(&mut self, events: &Events) {
        for event in events {
            match Endpoint::of(event) {
                Some(source) => self.queue_event(source, event),
                None => self.handle(event),
            }
        }
        self.give_turns();
    }

    pub(super) fn queue_event(&mut self, source: Endpoint, event: &Event) {
        self.note_event(source, event);
        self.queue_ready(source, event.is_writable());
    }

    /// Has a connection that is ready wait for the turn of its tenant. It waits once, whatever becomes of it meanwhile.
    fn queue_ready(&mut self, source: Endpoint, is_writable: bool) {
        let tenant = self.tenant_of(source);
        let address = match source {
            Endpoint::Client(key) => self.clients.get(key).map(|client| client.peer.address),
            Endpoint::Upstream(_) => None,
        };
        let Some(tenants) = &mut self.tenants else { return };
        let Some(known) = tenants.known(source) else { return };
        let waited = known.waits != WaitsForTurn::No;
        if is_writable || !waited {
            known.waits = if is_writable { WaitsForTurn::Writable } else { WaitsForTurn::Yes };
        }
        if !waited {
            tenants.push(tenant, source, address);
        }
    }

    /// Has deferred work wait for its tenant, if that is a matter of turns: more to read of a connection.
    pub(super) fn queue_deferred(&mut self, deferred: Deferred) -> bool {
        let source = match deferred {
            Deferred::Pump(job, side) => self.jobs.get(job).and_then(|job| job.endpoint(side)),
            Deferred::ReadRequest(client) => Some(Endpoint::Client(client)),
            _ => return false,
        };
        if let Some(source) = source {
            self.queue_ready(source, false);
        }
        true
    }

    /// The tenant of a connection's request, or of its last one.
    fn tenant_of(&self, source: Endpoint) -> TenantKey {
        let job = match source {
            Endpoint::Client(key) => self.clients.get(key).and_then(|client| client.job),
            Endpoint::Upstream(key) => self.upstreams.get(key).and_then(|upstream| upstream.job),
        };
        let client = match source {
            Endpoint::Client(key) => Some(key),
            Endpoint::Upstream(_) => job.and_then(|job| self.jobs.get(job)).map(|job| job.client),
        };
        let of_last = || Some(self.tenants.as_ref()?.last_of(client?));
        job.and_then(|job| self.tenant_of_job(job)).or_else(of_last).unwrap_or(TenantKey::UNKNOWN)
    }

    fn tenant_of_job(&self, job: SlotKey) -> Option<TenantKey> {
        let route = self.jobs.get(job)?.exchange.route()?;
        Some(self.tenants.as_ref()?.tenants.key_of(&route.cluster))
    }

    /// Gives turns to tenants whose connections are ready, until it is time to look for others.
    pub(super) fn give_turns(&mut self) {
        let began = self.clock.now();
        let mut now = began;
        while now.since(began) < LOOK_AFTER && self.give_turn(&mut now) {}
    }

    fn give_turn(&mut self, now: &mut Moment) -> bool {
        let Some(key) = self.tenants.as_mut().and_then(|tenants| tenants.turns.begin_turn()) else { return false };
        for _ in 0..CONNECTIONS {
            let Some(tenants) = &mut self.tenants else { break };
            let Some(source) = tenants.take(key) else { break };
            self.serve_waiting(source);
        }
        self.finish_batch();
        let ended = self.clock.now();
        if let Some(tenants) = &mut self.tenants {
            let weight = tenants.weight(key);
            let nanos = u64::try_from(ended.since(*now).as_nanos()).unwrap_or(u64::MAX);
            tenants.turns.end_turn(key, nanos, weight);
        }
        *now = ended;
        true
    }

    /// Serves a connection that waits for a turn, if it still does; a call of [`Worker::finish_batch`] has to follow.
    fn serve_waiting(&mut self, source: Endpoint) {
        // The slot of a connection that was closed meanwhile may be another one's.
        let is_there = match source {
            Endpoint::Client(key) => self.clients.get(key).is_some(),
            Endpoint::Upstream(key) => self.upstreams.get(key).is_some(),
        };
        let waits = self.tenants.as_mut().filter(|_| is_there).map(|tenants| tenants.take_wait(source));
        if let Some(waits @ (WaitsForTurn::Yes | WaitsForTurn::Writable)) = waits {
            self.take_ready(source, waits == WaitsForTurn::Writable);
        }
    }

    /// Serves the connections of an owner whose deadline has passed, if they wait for a turn: their bytes have come in time.
    pub(super) fn serve_before_deadline(&mut self, owner: Owner) {
        if !self.has_turns() {
            return;
        }
        let (own, other) = match owner {
            Owner::Client(key) => {
                let job = self.clients.get(key).and_then(|client| client.job).and_then(|job| self.jobs.get(job));
                (Endpoint::Client(key), job.and_then(|job| job.endpoint(Side::Upstream)))
            }
            Owner::Upstream(key) => (Endpoint::Upstream(key), None),
        };
        self.serve_waiting(own);
        if let Some(other) = other {
            self.serve_waiting(other);
        }
        self.finish_batch();
    }

    /// Notes the tenant of a client whose request is over.
    pub(super) fn note_tenant(&mut self, client: SlotKey, of_request: Option<TenantKey>) {
        let known = self.tenants.as_mut().and_then(|tenants| tenants.known(Endpoint::Client(client)));
        if let (Some(known), Some(tenant)) = (known, of_request) {
            known.tenant = tenant;
        }
    }

    /// The tenant of a request, where tenants share the core.
    #[inline]
    pub(super) fn tenant_of_exchange(&self, job: SlotKey) -> Option<TenantKey> {
        if self.tenants.is_some() { self.tenant_of_job(job) } else { None }
    }
}
