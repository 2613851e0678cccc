//! What all that write to the store share: quotas, remembered purges, and the one who is told of changes.

use super::object::Object;
use super::portable::Change;
use super::purge::{Selector, Ticket};
use super::quota::Quota;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::Sender;

/// How many purges are remembered for the fills that are under way. A fill that began before the oldest is not stored.
const REMEMBERED_PURGES: usize = 256;

/// The quotas that are kept even where their frontends have no objects.
const LEAST_QUOTAS: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Writes {
    quotas: HashMap<Arc<str>, Arc<Quota>>,
    /// With so many quotas those of frontends without objects are dropped.
    most_quotas: usize,
    purges: VecDeque<(u64, Selector)>,
    /// The epoch of the newest purge that is no longer remembered.
    forgotten: u64,
    /// The one who learns of what takes objects away.
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

    /// The bytes that a frontend's objects take.
    pub(super) fn bytes_of(&self, frontend: &str) -> u64 {
        self.quotas.get(frontend).map_or(0, |quota| quota.used())
    }

    /// Reports a change to the follower, if there is one.
    pub(super) fn tell(&self, change: impl FnOnce() -> Change) {
        if let Some(follower) = &self.follower {
            // A follower that has ended need not know.
            let _ = follower.send(change());
        }
    }

    /// Tells this one of changes, or no one.
    pub(super) fn follow(&mut self, follower: Option<Sender<Change>>) {
        self.follower = follower;
    }

    /// Keeps a purge of this epoch in mind.
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
