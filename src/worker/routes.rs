//! Routes: asked of the cache, then of the directory, and kept until news says otherwise.

use super::Worker;
use super::effects::RouteResult;
use crate::base::counters::Counter;
use crate::base::gen_slab::SlotKey;
use crate::base::reason::FailureReason;
use crate::directory::{LookupResult, RouteEvent};
use crate::exchange::Input;
use crate::route::Cached;
use std::net::IpAddr;
use std::sync::Arc;

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
        let known = match self.routes.get(request.host()) {
            // The news of the change is in the mail; the directory knows already.
            Some(Cached::Found(route)) if route.is_stale() => None,
            Some(Cached::Found(route)) => Some(Ok(route)),
            Some(Cached::Unknown) => Some(Err(FailureReason::UnknownHost)),
            None => None,
        };
        match known {
            Some(route) => {
                self.counters.count(Counter::RouteHits);
                self.step_only(job_key, Input::Route(route));
            }
            None => self.look_up(job_key),
        }
    }

    /// Asks the directory, unless it was asked for this host already.
    #[cold]
    fn look_up(&mut self, job_key: SlotKey) {
        let Some(job) = self.jobs.get(job_key) else { return };
        let Some(request) = job.exchange.request() else { return };
        self.counters.count(Counter::RouteMisses);
        if let Some(waiting) = self.lookups.get_mut(request.host()) {
            return waiting.push(job_key);
        }
        let host: Arc<str> = request.host().into();
        let (may_look_up_unknown, client) = self.may_look_up_unknown(job.client);
        if !may_look_up_unknown {
            return self.step_only(job_key, Input::Route(Err(FailureReason::RouteLookupOverloaded)));
        }
        if self.directory.lookup(self.id, Arc::clone(&host), client) {
            self.lookups.insert(host, vec![job_key]);
        } else {
            self.step_only(job_key, Input::Route(Err(FailureReason::RouteLookupOverloaded)));
        }
    }

    /// Whether this client may ask for a host that is not known here, and the address that it counts for. Proxies in
    /// front of this node ask for many, and count for nobody.
    fn may_look_up_unknown(&mut self, client: SlotKey) -> (bool, Option<IpAddr>) {
        let Some(most) = self.settings.unknown_host_limit else { return (true, None) };
        let Some(client) = self.clients.get(client).map(|client| client.peer.address) else { return (false, None) };
        if self.core.settings.forwarded.trusts(client) {
            return (true, None);
        }
        (self.unknown_host_limiter.may_ask(client, most, self.core.now), Some(client))
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
                    self.schedule_tunnel_scan();
                }
                RouteEvent::Addresses { backend } => self.on_dns_result(backend),
                RouteEvent::Certificate { name, result } => self.take_certificate(name, &result),
                RouteEvent::CertificatesChanged { patterns } => self.forget_certificates(&patterns),
            }
        }
    }

    /// Forgets a route, and lets the idle connections go that no list has a use for.
    fn forget_route(&mut self, host: &str) {
        let Some(route) = self.routes.evict(host) else { return };
        for mark in route.marks.iter().filter(|mark| mark.backend.is_unreferenced()) {
            for connection in self.pool.idle(mark.backend.id()) {
                self.close_upstream(connection);
            }
        }
    }

    fn take_lookup_result(&mut self, host: Arc<str>, result: &LookupResult, keep: bool) {
        match result {
            LookupResult::Found(route) if keep && route.cluster.key.starts_with('*') => {
                self.routes.put_below(&route.cluster.key, Arc::clone(&host), Arc::clone(route));
            }
            LookupResult::Found(route) if keep => self.routes.put_found(Arc::clone(&host), Arc::clone(route)),
            LookupResult::Unknown if keep => self.routes.put_unknown(Arc::clone(&host)),
            _ => {}
        }
        for job in self.lookups.remove(&host).unwrap_or_default() {
            if matches!(result, LookupResult::Unknown | LookupResult::Failed(FailureReason::RouteLookupOverloaded))
                && self.settings.unknown_host_limit.is_some()
                && let Some(client) = self.jobs.get(job).and_then(|job| self.clients.get(job.client))
            {
                self.unknown_host_limiter.note(client.peer.address, self.core.now);
            }
            self.dispatch(job, Input::Route(route_of(result)));
        }
    }

    /// Letters were lost: what is cached may be outdated, and answers may never come. So nothing is kept, and what was
    /// asked is asked again; whoever waits for a name looks again.
    fn recover_from_overflow(&mut self) {
        self.counters.count(Counter::MailboxOverflows);
        log::warn!("worker {}: the mailbox was full; asking for all routes again", self.number);
        while self.route_events.receive().is_some() {}
        self.routes.clear();
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

/// The route of a result, or why there is none.
fn route_of(result: &LookupResult) -> RouteResult {
    match result {
        LookupResult::Found(route) => Ok(Arc::clone(route)),
        LookupResult::Unknown => Err(FailureReason::UnknownHost),
        LookupResult::Failed(reason) => Err(*reason),
    }
}
