//! The data shared by all writes to the store: quotas, recorded purges, and the follower of changes.

use super::object::Object;
use super::portable::Change;
use super::purge::{Selector, Ticket};
use super::quota::Quota;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::Sender;

/// The number of recorded purges for running fills. A fill that began before the oldest one is not stored.
const REMEMBERED_PURGES: usize = 256;

/// The number of quotas that are kept even if their frontends have no objects.
const LEAST_QUOTAS: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Writes {
    quotas: HashMap<Arc<str>, Arc<Quota>>,
    /// Beyond this number, quotas of frontends without objects are dropped.
    most_quotas: usize,
    purges: VecDeque<(u64, Selector)>,
    /// The epoch of the newest purge that is no longer recorded.
    forgotten: u64,
    /// The follower of removals.
    follower: Option<Sender<Change>>,
}

impl Writes {
    /// The quota of a frontend.
    pub(super) fn quota(&mut self, frontend: &Arc<str>) -> Arc<Quota> {
        if self.quotas.len() >= self.most_quotas {
            self.quotas.retain(|_, quota| !quota.is_idle());
            self.most_quotas = 2 * self.quotas.len().max(LEAST_QUOTAS);
        }
        match self.quotas.get(frontend) {
            Some(quota) => Arc::clone(quota),
            None => Arc::clone(self.quotas.entry(Arc::clone(frontend)).or_default()),
        }
    }

    /// The bytes of a frontend's objects.
    pub(super) fn bytes_of(&self, frontend: &str) -> u64 {
        self.quotas.get(frontend).map_or(0, |quota| quota.used())
    }

    /// Reports a change to the follower, if there is one.
    pub(super) fn tell(&self, change: impl FnOnce() -> Change) {
        if let Some(follower) = &self.follower {
            // A follower that has ended needs no notice.
            let _ = follower.send(change());
        }
    }

    /// Sets the follower of changes, or none.
    pub(super) fn follow(&mut self, follower: Option<Sender<Change>>) {
        self.follower = follower;
    }

    /// Records a purge of this epoch.
    pub(super) fn remember(&mut self, epoch: u64, selector: &Selector) {
        if self.purges.len() == REMEMBERED_PURGES
            && let Some((epoch, _)) = self.purges.pop_front()
        {
            self.forgotten = epoch;
        }
        self.purges.push_back((epoch, selector.clone()));
    }

    /// Whether an object was purged since its fill began.
    pub(super) fn was_purged(&self, object: &Object, ticket: Ticket) -> bool {
        let mut later = self.purges.iter().filter(|(epoch, _)| *epoch > ticket.0);
        self.forgotten > ticket.0 || later.any(|(_, selector)| selector.has(object))
    }
}
