//! Routes from a snapshot or from the predecessor. They serve while Redis is away, and each stays until Redis denies
//! it, whether it is requested or not: so a restart never makes the next snapshot smaller.
//!
//! While Redis is connected, each of them is read once more after each connection, behind all pending look-ups, and
//! again when its key is written to.

use super::super::super::catalog::FrontendRecord;
use super::super::reading::Reading;
use super::RouteState;
use super::resync_guard::is_less;
use crate::base::clock::Moment;
use crate::base::hash::HashMap;
use crate::cluster::Route;
use std::collections::VecDeque;
use std::sync::Arc;

/// The greatest number of routes taken from a snapshot.
pub(in crate::directory::redis) const MAX_SNAPSHOT_ROUTES: usize = 1 << 20;

/// The route of a host in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::directory::redis) struct SnapshotRoute {
    pub(in crate::directory::redis) pattern: Box<str>,
    pub(in crate::directory::redis) record: FrontendRecord,
    /// Dead marks that had not ended.
    pub(in crate::directory::redis) marks: Box<[SnapshotMark]>,
}

/// A dead mark in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::directory::redis) struct SnapshotMark {
    /// The index of the marked member in the record.
    pub(in crate::directory::redis) member: usize,
    pub(in crate::directory::redis) until: Moment,
    /// Another node or a checker has made it, so it excludes the member.
    pub(in crate::directory::redis) is_external: bool,
}

/// The routes of a snapshot by host.
pub(in crate::directory::redis) type SnapshotRoutes = HashMap<Arc<str>, Arc<SnapshotRoute>>;

/// All known routes, for a snapshot.
#[derive(Debug, Default)]
pub(in crate::directory::redis) struct KnownRoutes {
    /// Routes in use.
    pub(in crate::directory::redis) routes: Vec<Arc<Route>>,
    /// Routes of the last snapshot that are not in use.
    pub(in crate::directory::redis) unused: Vec<(Arc<str>, Arc<SnapshotRoute>)>,
}

/// The rest of a snapshot.
#[derive(Debug, Default)]
pub(super) struct Restored {
    pub(super) routes: SnapshotRoutes,
    /// Hosts that Redis has yet to confirm or deny since it was connected.
    unverified: VecDeque<Arc<str>>,
}

impl Restored {
    pub(super) fn new(routes: SnapshotRoutes) -> Self {
        Self { routes, unverified: VecDeque::new() }
    }

    /// Schedules those for another read whose host is meant.
    pub(super) fn verify_where(&mut self, is_meant: impl Fn(&str) -> bool) {
        self.unverified.retain(|host| !is_meant(host));
        self.unverified.extend(self.routes.keys().filter(|host| is_meant(host)).cloned());
    }

    /// Stops reading, because Redis is away.
    pub(super) fn suspend(&mut self) {
        self.unverified.clear();
    }

    /// The number of hosts that are to be read again.
    pub(super) fn unverified_count(&self) -> usize {
        self.unverified.len()
    }

    /// The next host to read again.
    pub(super) fn next_unverified(&mut self) -> Option<Arc<str>> {
        self.unverified.pop_front()
    }

    /// Hosts for whose host and pattern `is_meant` is true.
    pub(super) fn hosts_where(&self, is_meant: impl Fn(&str, &str) -> bool) -> impl Iterator<Item = &Arc<str>> {
        self.routes.iter().filter(move |(host, route)| is_meant(host, &route.pattern)).map(|(host, _)| host)
    }

    /// Sets the record of a host in the snapshot. Returns whether it has changed.
    pub(super) fn update(&mut self, host: &str, pattern: &str, record: &FrontendRecord) -> bool {
        let Some(route) = self.routes.get_mut(host) else { return false };
        if *route.pattern == *pattern && route.record == *record {
            return false;
        }
        *route = Arc::new(SnapshotRoute { pattern: pattern.into(), record: record.clone(), marks: Box::default() });
        true
    }
}

impl RouteState {
    /// Handles the reading of a host that is in the snapshot and not in use.
    pub(super) fn verify(&mut self, host: &Arc<str>, reading: Reading, now: Moment) {
        match reading {
            Reading::Found { pattern, mut listing, .. } => {
                self.guard.saw_route(now);
                let Some(before) = self.restored.routes.get(host) else { return };
                if self.guard.is_on() && is_less(host, &before.pattern, &pattern, &listing.record) {
                    return;
                }
                let held = (before.pattern == pattern).then_some(&before.record.options);
                listing.record.options = listing.read_options(&pattern, held).0;
                self.version += u64::from(self.restored.update(host, &pattern, &listing.record));
            }
            Reading::Unknown if self.guard.is_on() => {}
            Reading::Unknown => self.version += u64::from(self.restored.routes.remove(host).is_some()),
            // It may be fixed.
            Reading::Bad(_) | Reading::Unread(_) => {}
        }
    }

    /// Takes a host into use with its route of the snapshot.
    pub(super) fn restore(&mut self, host: &Arc<str>, now: Moment) -> Option<Arc<Route>> {
        let route = Arc::clone(self.restored.routes.get(host)?);
        // A record read since for another host of this pattern is newer.
        if !self.catalog.adopt(host, &route.pattern) {
            self.catalog.set(host, &route.pattern, &route.record, Moment::ZERO);
        }
        let found = self.catalog.peek(host)?;
        self.guard.add(Arc::clone(host));
        self.marks.restore(&found, &route, now);
        Some(found)
    }

    /// All routes in use, and the rest of the last snapshot.
    pub(in crate::directory::redis) fn routes(&self) -> KnownRoutes {
        let unused = self.restored.routes.iter().filter(|(host, _)| !self.catalog.contains(host));
        KnownRoutes {
            routes: self.catalog.shared().collect(),
            unused: unused.map(|(host, route)| (Arc::clone(host), Arc::clone(route))).collect(),
        }
    }
}
