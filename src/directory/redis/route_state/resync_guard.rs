//! A Redis that comes back with other data than it had, or none: what it does not have yet is not taken for deleted.
//!
//! A server that was restarted without its data is usually being filled again. A host that worked before serves on
//! until its list is seen, or until so much time has passed since the last write that no more is to be expected. While
//! the database has no route at all that time does not even begin.

use crate::base::clock::Moment;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// How long after the last write the data counts as complete.
const QUIET: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(super) struct ResyncGuard {
    is_on: bool,
    unconfirmed: HashSet<Arc<str>>,
    last_write: Option<Moment>,
}

impl ResyncGuard {
    /// Nothing of `hosts` is confirmed. Without them, and nothing `remembered` besides, there is nothing to hold.
    pub(super) fn begin(&mut self, hosts: impl Iterator<Item = Arc<str>>, snapshot_routes: bool) {
        self.unconfirmed.extend(hosts);
        self.is_on = snapshot_routes || !self.unconfirmed.is_empty();
        self.last_write = None;
    }

    pub(super) fn is_on(&self) -> bool {
        self.is_on
    }

    /// A list was written.
    pub(super) fn saw_write(&mut self, now: Moment) {
        if self.is_on {
            self.last_write = Some(now);
        }
    }

    /// A list was read: the database is not empty.
    pub(super) fn saw_route(&mut self, now: Moment) {
        if self.is_on && self.last_write.is_none() {
            self.last_write = Some(now);
        }
    }

    /// Whether a host in use, of which a list without backends or none was read, serves on as before. A list with
    /// backends confirms it; from then on it is as any other. Lists are often written item by item, the identifier
    /// first.
    pub(super) fn holds(&mut self, host: &Arc<str>, has_no_backend: bool) -> bool {
        if has_no_backend {
            return self.is_on && self.unconfirmed.contains(host);
        }
        self.unconfirmed.remove(host);
        false
    }

    /// Holds a host that was remembered.
    pub(super) fn hold(&mut self, host: Arc<str>) {
        self.unconfirmed.insert(host);
    }

    /// When the data counts as complete; `None` if there is nothing to wait for.
    pub(super) fn ends_at(&self) -> Option<Moment> {
        self.last_write.filter(|_| self.is_on).map(|write| write + QUIET)
    }

    /// Ends it. Returns the hosts that were never confirmed.
    pub(super) fn end(&mut self) -> HashSet<Arc<str>> {
        self.is_on = false;
        std::mem::take(&mut self.unconfirmed)
    }
}
