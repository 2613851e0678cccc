//! Exchanges that another process has begun. They continue at once, and are counted at their members once the routes of their
//! hosts are known: an unknown host, or a look-up that failed, is looked up again.

use super::Worker;
use super::effects::RouteResult;
use crate::base::clock::Moment;
use crate::base::gen_slab::SlotKey;
use crate::base::reason::FailureReason;
use crate::cluster::Route;
use crate::route::Cached;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// The time until the next look-up of the routes that are missing. A change of routes shortens it.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Exchanges whose members are not known yet.
#[derive(Debug, Default)]
pub(super) struct Rejoining {
    missing: BTreeSet<SlotKey>,
    look_at: Option<Moment>,
}

impl Rejoining {
    /// The moment of the next look-up; [`Moment::NEVER`] for none.
    pub(super) fn next(&self) -> Moment {
        self.look_at.unwrap_or(Moment::NEVER)
    }

    fn look_later(&mut self, job: SlotKey, now: Moment) {
        self.missing.insert(job);
        self.look_at.get_or_insert(now + RETRY_AFTER);
    }

    /// Routes have changed: one that was missing may be there.
    pub(super) fn note_change(&mut self, now: Moment) {
        if !self.missing.is_empty() {
            self.look_at = Some(now);
        }
    }
}

impl Worker {
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
        if self.rejoining.next() > self.core.now {
            return;
        }
        self.rejoining.look_at = None;
        for job in std::mem::take(&mut self.rejoining.missing) {
            self.look_up_moved(job);
        }
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
}
