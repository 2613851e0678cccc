//! Protection against a Redis that comes back with other, older or no data: a host that it lacks does not count as
//! deleted at once.
//!
//! A server that was restarted without its data is usually being filled again. A host that worked before stays in
//! service until its list appears, until no write was seen for a while, or until `server.resyncHold` has passed since
//! the first write. While the database has no route at all, neither time begins.

use super::super::super::catalog::FrontendRecord;
use super::RouteState;
use crate::base::clock::Moment;
use crate::base::hash::HashMap;
use crate::cluster::Route;
use crate::route;
use std::sync::Arc;
use std::time::Duration;

/// Time after the last write when the data counts as complete.
const QUIET: Duration = Duration::from_secs(30);

/// The greatest number of held hosts named in the log; further ones are counted.
const MAX_NAMED: u64 = 1000;

#[derive(Debug)]
pub(super) struct ResyncGuard {
    /// The longest time for which hosts are held once the database has a route (`server.resyncHold`).
    limit: Duration,
    is_on: bool,
    /// Whether each host was held already.
    unconfirmed: HashMap<Arc<str>, bool>,
    first_route: Option<Moment>,
    last_write: Option<Moment>,
    /// Number of hosts held, in total and in the present hold.
    held_total: u64,
    held: u64,
}

impl ResyncGuard {
    /// A guard that holds hosts for at most `limit`.
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            limit,
            is_on: false,
            unconfirmed: HashMap::default(),
            first_route: None,
            last_write: None,
            held_total: 0,
            held: 0,
        }
    }

    /// Begins a hold with all `hosts` unconfirmed. Without any, and without `restored` ones, there is nothing to hold.
    pub(super) fn begin(&mut self, hosts: impl Iterator<Item = Arc<str>>, restored: bool) {
        let hosts = hosts.map(|host| (host, false));
        // A hold that continues is not restarted, so a Redis that keeps coming back cannot extend it for ever. But
        // writes to the earlier data do not count for this one.
        if self.is_on {
            self.last_write = None;
            for (host, was_held) in hosts {
                self.unconfirmed.entry(host).or_insert(was_held);
            }
            return;
        }
        self.unconfirmed.extend(hosts);
        self.is_on = !self.limit.is_zero() && (restored || !self.unconfirmed.is_empty());
        (self.first_route, self.last_write, self.held) = (None, None, 0);
    }

    pub(super) fn is_on(&self) -> bool {
        self.is_on
    }

    /// Whether this host must keep its known route.
    pub(super) fn is_holding(&self, host: &str) -> bool {
        self.is_on && self.unconfirmed.contains_key(host)
    }

    /// Records that a list was written.
    pub(super) fn saw_write(&mut self, now: Moment) {
        if self.is_on {
            self.first_route.get_or_insert(now);
            self.last_write = Some(now);
        }
    }

    /// Records that a list was read: the database is not empty.
    pub(super) fn saw_route(&mut self, now: Moment) {
        if self.is_on && self.last_write.is_none() {
            self.saw_write(now);
        }
    }

    /// Whether a host in use stays in service, given that its reading has less than is known ([`is_less`]) or nothing.
    /// A reading with more confirms it; from then on it is not held.
    pub(super) fn holds(&mut self, host: &Arc<str>, is_less: bool) -> bool {
        if !is_less {
            self.unconfirmed.remove(host);
            return false;
        }
        let Some(was_held) = self.unconfirmed.get_mut(host).filter(|_| self.is_on) else { return false };
        if !std::mem::replace(was_held, true) {
            self.note_held(host);
        }
        true
    }

    /// A host comes into use with its route of the snapshot: it is as unconfirmed as those in use before.
    pub(super) fn add(&mut self, host: Arc<str>) {
        if self.is_on {
            self.unconfirmed.entry(host).or_insert(false);
        }
    }

    /// Holds a host that was restored.
    pub(super) fn hold(&mut self, host: Arc<str>) {
        self.note_held(&host);
        self.unconfirmed.insert(host, true);
    }

    fn note_held(&mut self, host: &str) {
        self.held += 1;
        self.held_total += 1;
        if self.held <= MAX_NAMED {
            let limit = self.limit;
            log::warn!(
                "redis: {host} is not in Redis since it came back with other or older data; its last route stays in \
                 use for up to {limit:?} (server.resyncHold)"
            );
        }
    }

    /// Total number of held hosts.
    pub(super) fn held_total(&self) -> u64 {
        self.held_total
    }

    /// When the data counts as complete; `None` if there is no hold.
    pub(super) fn ends_at(&self) -> Option<Moment> {
        let first_route = self.first_route.filter(|_| self.is_on)?;
        let complete = self.last_write.map(|write| write + QUIET);
        Some(complete.unwrap_or(Moment::NEVER).min(first_route + self.limit))
    }

    /// Ends the hold. Returns the hosts that were never confirmed.
    pub(super) fn end(&mut self) -> Vec<Arc<str>> {
        self.is_on = false;
        let held = self.held.saturating_sub(MAX_NAMED);
        if held > 0 {
            log::warn!("redis: {held} more hosts than those named were held");
        }
        std::mem::take(&mut self.unconfirmed).into_keys().collect()
    }
}

/// Whether the reading of a host may be only a part of what is being written. Either the list has no backend, because
/// lists are often written item by item, the identifier first. Or it is the list of a wildcard that no longer serves
/// the host once its own list, or that of a longer wildcard, is there again.
pub(super) fn is_less(host: &str, key: &str, pattern: &str, record: &FrontendRecord) -> bool {
    let first = || route::patterns(host).find(|name| **name == *key || **name == *pattern);
    record.backends.is_empty() || (key != pattern && first().is_some_and(|name| *name == *key))
}

impl RouteState {
    /// Whether a hold is active.
    pub(in crate::directory::redis) fn is_holding(&self) -> bool {
        self.guard.is_on()
    }

    /// While a hold is active, handles a host that comes to this pattern, whose list may be half written. One that was not
    /// in use keeps its route of the snapshot. Without one, or if others of this pattern are held, it gets their list: all
    /// hosts of a pattern share one, so a half list would reach those too.
    pub(super) fn hold_newcomer(
        &mut self,
        host: &Arc<str>,
        pattern: &str,
        record: &FrontendRecord,
        now: Moment,
    ) -> Option<Arc<Route>> {
        if !self.guard.is_on() {
            return None;
        }
        let was_in_use = self.catalog.contains(host);
        let known = self.restored.routes.get(host).filter(|_| !was_in_use);
        let route = match known.is_some_and(|known| is_less(host, &known.pattern, pattern, record)) {
            true => self.restore(host, now)?,
            _ if record.backends.is_empty() && (!was_in_use || self.holds_any_of(pattern)) => {
                self.join_others(host, pattern)?
            }
            _ => return None,
        };
        self.guard.hold(Arc::clone(host));
        if was_in_use {
            self.changed([Arc::clone(host)], false);
        }
        Some(route)
    }

    fn holds_any_of(&self, pattern: &str) -> bool {
        self.catalog.hosts_of(pattern).iter().any(|host| self.guard.is_holding(host))
    }

    fn join_others(&mut self, host: &Arc<str>, pattern: &str) -> Option<Arc<Route>> {
        let has_members = self.catalog.cluster(pattern).is_some_and(|cluster| !cluster.members.is_empty());
        if !(has_members && self.catalog.adopt(host, pattern)) {
            return None;
        }
        self.version += 1;
        self.catalog.peek(host)
    }
}
