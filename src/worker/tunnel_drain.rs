//! Tunnels to backends that have left their lists stay open, or end after `server.tunnelDrain`. Tunnels of a node that
//! stops end within `server.drainTimeout`. In either case each tunnel ends at a moment of its own in the last quarter of
//! that time, so that their clients do not all come back at once.

use super::Worker;
use crate::base::clock::Moment;
use crate::base::gen_slab::SlotKey;
use crate::base::reason::FailureReason;
use crate::exchange::Input;
use crate::route::Cached;
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

/// The shortest time between two scans of the tunnels, however often routes change.
const REST: Duration = Duration::from_secs(1);

/// Tunnels that are to be ended.
#[derive(Debug, Default)]
pub(super) struct TunnelDrain {
    look_at: Option<Moment>,
    /// The time of the last scan.
    looked_at: Option<Moment>,
    due: BTreeSet<(Moment, SlotKey)>,
    known: HashMap<SlotKey, Moment>,
}

impl TunnelDrain {
    /// The moment of the next work; [`Moment::NEVER`] for none.
    pub(super) fn next(&self) -> Moment {
        let first = self.due.first().map_or(Moment::NEVER, |(due, _)| *due);
        self.look_at.unwrap_or(Moment::NEVER).min(first)
    }

    /// A tunnel is to be ended at this moment, unless its backend is in the list again by then.
    pub(super) fn expect(&mut self, job: SlotKey, due: Moment) {
        if let Entry::Vacant(place) = self.known.entry(job) {
            place.insert(due);
            self.due.insert((due, job));
        }
    }

    /// Drops the deadline of a tunnel that has ended or moved. Returns when it was to be ended.
    pub(super) fn forget(&mut self, job: SlotKey) -> Option<Moment> {
        let due = self.known.remove(&job)?;
        self.due.remove(&(due, job));
        Some(due)
    }
}

/// A time in the last quarter of this one.
fn within(limit: Duration) -> Duration {
    limit.mul_f64(0.75 + 0.25 * fastrand::f64())
}

impl Worker {
    /// Routes have changed: backends may have left.
    pub(super) fn schedule_tunnel_scan(&mut self) {
        if self.settings.tunnel_drain.is_some() {
            let soonest = self.tunnel_drain.looked_at.map_or(self.core.now, |moment| moment + REST);
            self.tunnel_drain.look_at.get_or_insert(soonest.max(self.core.now));
        }
    }

    #[cold]
    pub(super) fn retire_tunnels(&mut self) {
        if self.tunnel_drain.look_at.is_some_and(|moment| moment <= self.core.now) {
            self.scan_tunnels();
        }
        while let Some((due, job)) = self.tunnel_drain.due.first().copied()
            && due <= self.core.now
        {
            self.tunnel_drain.forget(job);
            if self.drain.is_some() {
                self.dispatch(job, Input::Abort(FailureReason::Stopped));
            } else if self.has_departed(job) {
                self.dispatch(job, Input::Abort(FailureReason::BackendRemoved));
            }
        }
    }

    fn scan_tunnels(&mut self) {
        self.tunnel_drain.look_at = None;
        self.tunnel_drain.looked_at = Some(self.core.now);
        let Some(drain) = self.settings.tunnel_drain else { return };
        let left = |key: &SlotKey| {
            let exchange = self.jobs.get(*key).map(|job| &job.exchange);
            exchange.is_some_and(|exchange| match (exchange.mark(), exchange.permit()) {
                (Some(mark), _) => mark.is_removed(),
                (None, permit) => permit.is_some_and(|permit| permit.member().state.is_removed()),
            })
        };
        let departed: Vec<SlotKey> = self.tunnels().filter(left).collect();
        for job in departed {
            self.tunnel_drain.expect(job, self.core.now + within(drain));
        }
    }

    /// The tunnels under way.
    fn tunnels(&self) -> impl Iterator<Item = SlotKey> {
        self.jobs.keys().filter(|key| self.jobs.get(*key).is_some_and(|job| job.exchange.is_tunnel()))
    }

    /// This worker stops, and no other one takes its tunnels: they end within this time.
    pub(super) fn spread_tunnel_ends(&mut self, limit: Duration) {
        let tunnels: Vec<SlotKey> = self.tunnels().collect();
        let now = self.clock.now();
        tunnels.into_iter().for_each(|job| self.tunnel_drain.expect(job, now + within(limit)));
    }

    /// A tunnel came from another process, and its host has no route any more, or one without its backend.
    pub(super) fn expect_departed(&mut self, job: SlotKey) {
        if let Some(drain) = self.settings.tunnel_drain {
            self.tunnel_drain.expect(job, self.core.now + within(drain));
        }
    }

    /// Whether the backend of a tunnel is still out of its list: one that came back keeps its tunnels.
    fn has_departed(&mut self, job: SlotKey) -> bool {
        let Some(exchange) = self.jobs.get(job).map(|job| &job.exchange) else { return false };
        let Some(permit) = exchange.permit() else { return !self.is_led_to(job) };
        let Some(route) = exchange.route() else { return false };
        let backend = permit.member().backend.id();
        if self.directory.is_on_demand(permit.cluster()) {
            return permit.member().state.is_removed();
        }
        match self.routes.get(&route.host) {
            Some(Cached::Found(now)) => {
                !now.marks.iter().any(|mark| mark.backend.id() == backend && !mark.is_removed())
            }
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tunnels_end_in_the_last_quarter_and_not_together() {
        let limit = Duration::from_secs(100);
        let ends: Vec<Duration> = (0..1000).map(|_| within(limit)).collect();
        assert!(ends.iter().all(|end| (75..=100).contains(&end.as_secs())), "{ends:?}");
        let in_second = |second: u64| ends.iter().filter(|end| end.as_secs() == second).count();
        assert!((75..100).all(|second| in_second(second) < 100), "about 40 in each second");
        assert_eq!(within(Duration::ZERO), Duration::ZERO);
    }
}
