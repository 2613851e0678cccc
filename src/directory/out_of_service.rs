//! The backends that operators have disabled. They stay disabled when they leave a list and come back, or when their
//! cluster is dropped and made again, until an operator enables them or the process ends.

use crate::base::clock::Moment;
use crate::cluster::{Cluster, Endpoint};
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The greatest number of backends that may be disabled at once.
const MAX_BACKENDS: usize = 10_000;

/// The endpoints by the key of their cluster. The lock is taken by operators and by the source that changes lists.
#[derive(Clone, Debug, Default)]
pub(super) struct OutOfService(Arc<Mutex<BTreeMap<Box<str>, HashSet<Endpoint>>>>);

impl OutOfService {
    /// Disables an endpoint of a cluster, or enables it again. Returns whether there was room to record it.
    pub(super) fn set(&self, key: &str, endpoint: &Endpoint, is_out: bool) -> bool {
        let mut by_key = self.lock();
        if !is_out {
            let is_last =
                by_key.get_mut(key).is_some_and(|endpoints| endpoints.remove(endpoint) && endpoints.is_empty());
            if is_last {
                by_key.remove(key);
            }
            return true;
        }
        if by_key.values().map(HashSet::len).sum::<usize>() >= MAX_BACKENDS {
            return false;
        }
        by_key.entry(key.into()).or_default().insert(endpoint.clone());
        true
    }

    /// Enables all backends of a cluster: the next cluster of its name is another one.
    pub(super) fn forget(&self, key: &str) {
        self.lock().remove(key);
    }

    /// Disables the members of a new list that an operator has disabled.
    pub(super) fn apply(&self, cluster: &Cluster, now: Moment) {
        if let Some(endpoints) = self.lock().get(&cluster.key) {
            let out = cluster.members.iter().filter(|member| endpoints.contains(member.url.endpoint()));
            out.for_each(|member| member.state.set_disabled(true, now));
        }
    }

    /// All disabled backends, for the log.
    pub(super) fn list(&self) -> Vec<String> {
        let by_key = self.lock();
        let named = by_key
            .iter()
            .flat_map(|(key, endpoints)| endpoints.iter().map(move |endpoint| format!("{endpoint} of {key}")));
        named.collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Box<str>, HashSet<Endpoint>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
