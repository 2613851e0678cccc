//! A Redis that comes back with other data than it had, with older data, or with none: what it does not have yet is not
//! taken for deleted.
//!
//! A server that was restarted without its data is usually being filled again. A host that worked before serves on
//! until its list is seen, or until so much time has passed since the last write that no more is to be expected, or
//! until `server.resyncHold` has passed since the first one. While the database has no route at all, neither time begins.

use super::super::super::catalog::FrontendRecord;
use super::RouteState;
use crate::base::clock::Moment;
use crate::base::hash::HashMap;
use crate::cluster::Route;
use crate::route;
use std::sync::Arc;
use std::time::Duration;

/// How long after the last write the data counts as complete.
const QUIET: Duration = Duration::from_secs(30);

/// Hosts that are named in the log while they are held; of more than these the number is.
const MAX_NAMED: u64 = 1000;

#[derive(Debug)]
pub(super) struct ResyncGuard {
    /// The longest time that hosts are held once the database has a route (`server.resyncHold`).
    limit: Duration,
    is_on: bool,
    /// Whether each was held already.
    unconfirmed: HashMap<Arc<str>, bool>,
    first_route: Option<Moment>,
    last_write: Option<Moment>,
    /// Hosts held in all, and since it is on.
    held_total: u64,
    held: u64,
}

impl ResyncGuard {
    /// Nothing is held for longer than `limit`.
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

    /// Nothing of `hosts` is confirmed. Without them, and nothing `restored` besides, there is nothing to hold.
    pub(super) fn begin(&mut self, hosts: impl Iterator<Item = Arc<str>>, restored: bool) {
        let hosts = hosts.map(|host| (host, false));
        // One that goes on is no new one: a Redis that comes back again and again holds nothing for ever. But what was
        // written to the data before says nothing of this one.
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

    /// Whether less may be told of this host than is known.
    pub(super) fn is_holding(&self, host: &str) -> bool {
        self.is_on && self.unconfirmed.contains_key(host)
    }

    /// A list was written.
    pub(super) fn saw_write(&mut self, now: Moment) {
        if self.is_on {
            self.first_route.get_or_insert(now);
            self.last_write = Some(now);
        }
    }

    /// A list was read: the database is not empty.
    pub(super) fn saw_route(&mut self, now: Moment) {
        if self.is_on && self.last_write.is_none() {
            self.saw_write(now);
        }
    }

    /// Whether a host in use, of which less was read than is known ([`is_less`]) or nothing, serves on as before. More
    /// confirms it; from then on it is as any other.
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

    /// Holds a host that was remembered.
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
                "redis: {host} is not in Redis since it came back with other or older data; its last route serves on, up \
                 to {limit:?} (server.resyncHold)"
            );
        }
    }

    /// How many hosts were held, in all.
    pub(super) fn held_total(&self) -> u64 {
        self.held_total
    }

    /// When the data counts as complete; `None` if there is nothing to wait for.
    pub(super) fn ends_at(&self) -> Option<Moment> {
        let first_route = self.first_route.filter(|_| self.is_on)?;
        let complete = self.last_write.map(|write| write + QUIET);
        Some(complete.unwrap_or(Moment::NEVER).min(first_route + self.limit))
    }

    /// Ends it. Returns the hosts that were never confirmed.
    pub(super) fn end(&mut self) -> Vec<Arc<str>> {
        self.is_on = false;
        let held = self.held.saturating_sub(MAX_NAMED);
        if held > 0 {
            log::warn!("redis: {held} more hosts than those named were held");
        }
        std::mem::take(&mut self.unconfirmed).into_keys().collect()
    }
}

/// Whether what was read of a host may be half of what is to be written: the list has no backend, because lists are often
/// written item by item, the identifier first; or it is that of a wildcard with which the host has nothing to do once its
/// own list, or that of a longer wildcard, is there again.
pub(super) fn is_less(host: &str, key: &str, pattern: &str, record: &FrontendRecord) -> bool {
    let first = || route::patterns(host).find(|name| **name == *key || **name == *pattern);
    record.backends.is_empty() || (key != pattern && first().is_some_and(|name| *name == *key))
}

impl RouteState {
    /// Whether hosts serve on that a Redis with other data lacks, or would.
    pub(in crate::directory::redis) fn is_holding(&self) -> bool {
        self.guard.is_on()
    }

    /// While other hosts of a key are held, a host that comes to it is served by the list that these have: the new one may
    /// be half written.
    pub(super) fn hold_with_others(&mut self, host: &Arc<str>, pattern: &str) -> Option<Arc<Route>> {
        let has_members = self.catalog.cluster(pattern).is_some_and(|cluster| !cluster.members.is_empty());
        if !(self.guard.is_on() && has_members && self.catalog.adopt(host, pattern)) {
            return None;
        }
        self.guard.hold(Arc::clone(host));
        self.version += 1;
        self.catalog.peek(host)
    }
}
