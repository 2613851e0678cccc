//! Routes: looked up in the cache, then at the directory, and kept until a message invalidates them.

use super::Worker;
use super::effects::RouteResult;
use crate::base::counters::Counter;
use crate::base::gen_slab::SlotKey;
use crate::base::reason::FailureReason;
use crate::cluster::Route;
use crate::directory::{Directory, LookupResult, OnDemandEdit, OnDemandRoute, RouteEvent};
use crate::exchange::Input;
use crate::route::Cached;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// This worker's view of the clusters on demand: the ports at which requests are routed by host and port, and the keys
/// of their routes.
#[derive(Debug)]
pub(super) struct OnDemand {
    ports: Arc<[u16]>,
    /// The newest edit whose message was read.
    version: u64,
    /// The newest edit that was made.
    newest: Arc<AtomicU64>,
    /// Ports that keys of kept routes may have; other ports need no search.
    kept: BTreeSet<u16>,
    key: String,
}

impl OnDemand {
    pub(super) fn new(directory: &Directory) -> Self {
        let newest = directory.on_demand_version();
        // This comes before the ports: the message of a newer edit follows.
        let version = newest.load(Ordering::Acquire);
        Self { ports: directory.claimed_ports(), version, newest, kept: BTreeSet::new(), key: String::new() }
    }

    /// Whether the messages of all edits were read.
    fn is_current(&self) -> bool {
        self.newest.load(Ordering::Acquire) == self.version
    }

    /// `port`, if requests there are routed by host and port.
    fn claimed(&self, port: Option<u16>) -> Option<u16> {
        if self.ports.is_empty() { None } else { port.filter(|port| self.ports.binary_search(port).is_ok()) }
    }

    /// The cache key of the route of this host at this port, if that is claimed. No host contains a slash.
    fn key<'k>(&'k mut self, host: &'k str, port: Option<u16>) -> &'k str {
        let Some(port) = port else { return host };
        self.key.clear();
        self.key.push_str(itoa::Buffer::new().format(port));
        self.key.push('/');
        self.key.push_str(host);
        &self.key
    }
}

impl Worker {
    /// Finds the route of an exchange's host, now or by mail.
    pub(super) fn resolve(&mut self, job_key: SlotKey) {
        let Some(job) = self.jobs.get(job_key) else { return };
        if job.exchange.rules().is_some() {
            if let Some(route) = self.resolve_ruled(job_key) {
                self.step_only(job_key, Input::Route(route));
            }
            return;
        }
        let Some(request) = job.exchange.request() else { return };
        if request.is_for_another_name() {
            return self.resolve_for_another_name(job_key);
        }
        self.resolve_host(job_key);
    }

    /// Finds the route of the host of an exchange that may have it, now or by mail.
    pub(super) fn resolve_host(&mut self, job_key: SlotKey) {
        let port = self.claimed_port(job_key);
        let Some(request) = self.jobs.get(job_key).and_then(|job| job.exchange.request()) else { return };
        let known = match self.routes.get(self.on_demand.key(request.host(), port)) {
            Some(Cached::Found(route)) if route.is_stale() => None,
            Some(Cached::Found(route)) => Some(Ok(route)),
            Some(Cached::Unknown) => Some(Err(FailureReason::UnknownHost)),
            None => None,
        };
        // The message of an edit is unread; the directory has applied the edit.
        let known = if self.on_demand.is_current() { known } else { self.beside_unread_edit(job_key, known) };
        match known {
            Some(route) => {
                self.counters.count(Counter::RouteHits);
                self.step_only(job_key, Input::Route(route));
            }
            None => self.look_up(job_key),
        }
    }

    /// The known result for an exchange's host while the message of an edit is unread: on-demand clusters are looked up
    /// again, and results of other sources stay valid.
    #[cold]
    fn beside_unread_edit(&mut self, job_key: SlotKey, known: Option<RouteResult>) -> Option<RouteResult> {
        let known = known?;
        let port = self.local_port(job_key);
        let host: Arc<str> = self.jobs.get(job_key)?.exchange.request()?.host().into();
        match self.directory.on_demand_route(&host, port).route {
            Some(route) => Some(Ok(route)),
            None => Some(known)
                .filter(|known| known.as_ref().map_or(true, |route| !self.directory.is_on_demand(&route.cluster))),
        }
    }

    /// The port that the client of an exchange connected to, if requests there are routed by host and port.
    fn claimed_port(&self, job: SlotKey) -> Option<u16> {
        if self.on_demand.ports.is_empty() { None } else { self.on_demand.claimed(self.local_port(job)) }
    }

    pub(super) fn local_port(&self, job: SlotKey) -> Option<u16> {
        let client = self.clients.get(self.jobs.get(job)?.client)?;
        Some(client.peer.local_port)
    }

    /// Asks the directory, unless a look-up of this host is pending.
    #[cold]
    fn look_up(&mut self, job_key: SlotKey) {
        let port = self.local_port(job_key);
        let Some(job) = self.jobs.get(job_key) else { return };
        let Some(request) = job.exchange.request() else { return };
        self.counters.count(Counter::RouteMisses);
        let (host, client): (Arc<str>, SlotKey) = (request.host().into(), job.client);
        if let Some(route) = self.on_demand_route(&host, port) {
            return self.step_only(job_key, Input::Route(Ok(route)));
        }
        if let Some(waiting) = self.lookups.get_mut(&host) {
            return waiting.push(job_key);
        }
        let (may_look_up_unknown, client) = self.may_look_up_unknown(client);
        if !may_look_up_unknown {
            return self.step_only(job_key, Input::Route(Err(FailureReason::RouteLookupOverloaded)));
        }
        if self.directory.lookup(self.id, Arc::clone(&host), client) {
            self.lookups.insert(host, vec![job_key]);
        } else {
            self.step_only(job_key, Input::Route(Err(FailureReason::RouteLookupOverloaded)));
        }
    }

    /// The route of a request in the on-demand clusters, which is cached. The message of an edit that it does not
    /// include is still to come.
    pub(super) fn on_demand_route(&mut self, host: &Arc<str>, port: Option<u16>) -> Option<Arc<Route>> {
        let OnDemandRoute { route, is_port_claimed } = self.directory.on_demand_route(host, port);
        let route = route?;
        let claimed = self.on_demand.claimed(port);
        // Otherwise the message of the port is in the mailbox.
        if claimed.is_some() == is_port_claimed {
            match claimed {
                // A cluster for a port without a host serves any host that a client invents: such routes are cached
                // apart, as hosts below a wildcard are.
                Some(port) => {
                    self.on_demand.kept.insert(port);
                    let key = self.on_demand.key(host, Some(port)).into();
                    self.routes.put_below(itoa::Buffer::new().format(port), key, Arc::clone(&route));
                }
                None => self.routes.put_found(Arc::clone(host), Arc::clone(&route)),
            }
            self.count_evictions();
        }
        Some(route)
    }

    /// Whether this client may look up a host that is not known here, and the address that the look-up counts for.
    /// Proxies in front of this node look up many and do not count.
    fn may_look_up_unknown(&mut self, client: SlotKey) -> (bool, Option<IpAddr>) {
        let Some(most) = self.settings.unknown_host_limit else { return (true, None) };
        let Some(client) = self.clients.get(client).map(|client| client.peer.address) else { return (false, None) };
        if self.core.settings.forwarded.trusts(client) {
            return (true, None);
        }
        (self.unknown_host_limiter.begin(client, most, self.core.now), Some(client))
    }

    pub(super) fn read_route_events(&mut self) {
        if self.route_events.take_overflow() {
            self.recover_from_overflow();
        }
        while let Some(route_events) = self.route_events.receive() {
            match route_events {
                RouteEvent::LookedUp { host, result, keep } => self.take_lookup_result(host, &result, keep),
                RouteEvent::Checker { until } => self.core.settings.health.checker_until = until,
                RouteEvent::Changed { hosts, unknowns } => {
                    hosts.iter().for_each(|host| self.forget_route(host));
                    if unknowns {
                        self.routes.clear_unknown();
                    }
                    self.note_changed_routes();
                }
                RouteEvent::Addresses { backend } => self.on_dns_result(backend),
                RouteEvent::OnDemand(edit) => self.note_on_demand_edit(edit),
                RouteEvent::Barrier(unread) => drop(unread),
                RouteEvent::Certificate { name, result } => self.take_certificate(name, &result),
                RouteEvent::CertificatesChanged { patterns } => self.forget_certificates(&patterns),
            }
        }
    }

    /// Drops the routes of a host, and closes the idle connections that no list uses.
    fn forget_route(&mut self, host: &str) {
        self.forget_key(host);
        let kept = std::mem::take(&mut self.on_demand.kept);
        for port in &kept {
            let key = self.on_demand.key(host, Some(*port)).to_owned();
            self.forget_key(&key);
        }
        self.on_demand.kept = kept;
    }

    fn forget_key(&mut self, key: &str) {
        let Some(route) = self.routes.evict(key) else { return };
        self.counters.count(Counter::RouteInvalidations);
        for mark in route.marks.iter().filter(|mark| mark.backend.is_unreferenced()) {
            for connection in self.pool.idle(mark.backend.id()) {
                self.close_upstream(connection);
            }
        }
    }

    /// Looks up the routes again that an edit touches. So no route of a port remains that is no longer claimed.
    fn note_on_demand_edit(&mut self, edit: OnDemandEdit) {
        edit.hosts.iter().for_each(|host| self.forget_route(host));
        if edit.ports.iter().filter(|port| self.on_demand.kept.remove(port)).count() > 0 {
            let of_port = |key: &str| key.split_once('/').and_then(|(port, _)| port.parse::<u16>().ok());
            let dropped = self.routes.evict_all(|key| of_port(key).is_some_and(|port| edit.ports.contains(&port)));
            self.counters.add(Counter::RouteInvalidations, dropped as u64);
        }
        (self.on_demand.ports, self.on_demand.version) = (edit.claimed, edit.version);
        self.note_changed_routes();
    }

    fn note_changed_routes(&mut self) {
        self.schedule_tunnel_scan();
        self.rejoining.note_change(self.core.now);
    }

    fn take_lookup_result(&mut self, host: Arc<str>, result: &LookupResult, keep: bool) {
        let jobs = self.lookups.remove(&host).unwrap_or_default();
        // An on-demand cluster may have been created meanwhile. Messages of edits after this look-up are in the
        // mailbox.
        let is_on_demand = self.directory.on_demand_route(&host, None).route.is_some();
        if keep && !is_on_demand {
            self.keep_result(Arc::clone(&host), result);
        }
        // The look-up was begun for the first of them.
        let asker = jobs.first().and_then(|job| self.clients.get(self.jobs.get(*job)?.client));
        if !matches!(result, LookupResult::Unknown | LookupResult::Failed(FailureReason::RouteLookupOverloaded))
            && let Some(asker) = asker
        {
            self.unknown_host_limiter.end_uncounted(asker.peer.address);
        }
        for job in jobs {
            let route = self.route_at_port(job, &host, result, keep);
            match self.jobs.get(job).is_some_and(|job| job.exchange.host_to_rejoin().is_some()) {
                true => self.rejoin(job, route),
                false => self.dispatch(job, Input::Route(route)),
            }
        }
    }

    /// The route of an exchange for whose host another source has this result.
    fn route_at_port(&mut self, job: SlotKey, host: &Arc<str>, result: &LookupResult, keep: bool) -> RouteResult {
        let port = self.local_port(job);
        if let Some(route) = self.on_demand_route(host, port) {
            return Ok(route);
        }
        if let Some(port) = self.on_demand.claimed(port).filter(|_| keep) {
            self.on_demand.kept.insert(port);
            let key = self.on_demand.key(host, Some(port)).into();
            self.keep_result(key, result);
        }
        route_of(result)
    }

    /// Looks up the route of an exchange that another process has begun. The exchange does not wait for it.
    pub(super) fn look_up_moved(&mut self, job_key: SlotKey) {
        let Some(job) = self.jobs.get(job_key) else { return };
        let Some(host) = job.exchange.host_to_rejoin() else { return };
        let host: Arc<str> = host.into();
        let port = self.clients.get(job.client).map(|client| client.peer.local_port);
        if let Some(route) = self.on_demand_route(&host, port) {
            return self.rejoin(job_key, Ok(route));
        }
        match self.routes.get(&host) {
            Some(Cached::Found(route)) if !route.is_stale() => self.rejoin(job_key, Ok(route)),
            Some(Cached::Unknown) => self.rejoin(job_key, Err(FailureReason::UnknownHost)),
            _ => {
                if let Some(waiting) = self.lookups.get_mut(&host) {
                    waiting.push(job_key);
                } else if self.directory.lookup(self.id, Arc::clone(&host), None) {
                    self.lookups.insert(host, vec![job_key]);
                } else {
                    self.rejoin(job_key, Err(FailureReason::RouteLookupOverloaded));
                }
            }
        }
    }

    /// Counts an exchange of another process at its member. If the host has no such member, a tunnel ends like those whose
    /// backends leave the list.
    pub(super) fn rejoin(&mut self, job_key: SlotKey, route: RouteResult) {
        let now = self.core.now;
        let Some(job) = self.jobs.get_mut(job_key) else { return };
        let has_joined = match &route {
            Ok(route) => job.exchange.rejoin(route, now),
            Err(_) => false,
        };
        if has_joined {
            return;
        }
        self.rejoining.look_later(job_key, now);
        let has_left = matches!(route, Ok(_) | Err(FailureReason::UnknownHost));
        if has_left && self.jobs.get(job_key).is_some_and(|job| job.exchange.is_tunnel()) {
            self.expect_departed(job_key);
        }
    }

    /// Looks up the routes that are still missing.
    #[cold]
    pub(super) fn look_up_missing(&mut self) {
        let due = self.rejoining.take_due(self.core.now);
        due.into_iter().for_each(|job| self.look_up_moved(job));
    }

    /// Whether the route of its host contains the backend of an exchange that has no permit.
    pub(super) fn is_led_to(&mut self, job_key: SlotKey) -> bool {
        let Some(job) = self.jobs.get(job_key) else { return false };
        let Some(origin) = job.exchange.origin() else { return false };
        let (host, port): (Arc<str>, _) = (origin.host().into(), self.local_port(job_key));
        let now: Option<Arc<Route>> = self.on_demand_route(&host, port).or_else(|| match self.routes.get(&host) {
            Some(Cached::Found(route)) => Some(route),
            _ => None,
        });
        now.is_some_and(|route| self.jobs.get(job_key).is_some_and(|job| job.exchange.is_led_to_by(&route)))
    }

    fn keep_result(&mut self, key: Arc<str>, result: &LookupResult) {
        match result {
            LookupResult::Found(route) if route.cluster.key.starts_with('*') => {
                self.routes.put_below(&route.cluster.key, key, Arc::clone(route));
            }
            LookupResult::Found(route) => self.routes.put_found(key, Arc::clone(route)),
            LookupResult::Unknown => self.routes.put_unknown(key),
            LookupResult::Failed(_) => {}
        }
        self.count_evictions();
    }

    fn count_evictions(&mut self) {
        self.counters.add(Counter::RouteEvictions, self.routes.take_evictions());
    }

    /// The mailbox overflowed: cached routes may be stale and responses lost. So the worker drops the cache and
    /// re-issues every pending look-up; exchanges that wait for a name look it up again.
    fn recover_from_overflow(&mut self) {
        self.counters.count(Counter::MailboxOverflows);
        log::warn!("worker {}: the mailbox was full; asking for all routes again", self.number);
        while self.route_events.receive().is_some() {}
        self.routes.clear();
        self.on_demand = OnDemand::new(&self.directory);
        let lost: Vec<_> = self.lookups.keys().cloned().collect();
        for host in lost {
            if !self.directory.lookup(self.id, Arc::clone(&host), None) {
                self.take_lookup_result(host, &LookupResult::Failed(FailureReason::RouteLookupOverloaded), false);
            }
        }
        self.ask_for_certificates_again();
        let backends: Vec<_> = self.awaiting_dns.keys().copied().collect();
        backends.into_iter().for_each(|backend| self.on_dns_result(backend));
    }
}

/// The route of a result, or the reason for its absence.
fn route_of(result: &LookupResult) -> RouteResult {
    match result {
        LookupResult::Found(route) => Ok(Arc::clone(route)),
        LookupResult::Unknown => Err(FailureReason::UnknownHost),
        LookupResult::Failed(reason) => Err(*reason),
    }
}
