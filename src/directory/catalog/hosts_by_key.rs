//! Hosts by the key that they lead to.

use crate::base::hash::{HashMap, HashSet};
use std::sync::Arc;

/// The hosts of each key, without the host equal to the key: most keys are exact hosts and have no other.
#[derive(Debug, Default)]
pub(super) struct HostsByKey(HashMap<Box<str>, HashSet<Arc<str>>>);

impl HostsByKey {
    pub(super) fn insert(&mut self, key: &str, host: &Arc<str>) {
        if *key == **host {
            return;
        }
        match self.0.get_mut(key) {
            Some(hosts) => drop(hosts.insert(Arc::clone(host))),
            None => drop(self.0.insert(key.into(), std::iter::once(Arc::clone(host)).collect())),
        }
    }

    pub(super) fn remove(&mut self, key: &str, host: &str) {
        let Some(hosts) = self.0.get_mut(key) else { return };
        hosts.remove(host);
        if hosts.is_empty() {
            self.0.remove(key);
        }
    }

    /// The hosts of this key, without the host equal to it.
    pub(super) fn hosts(&self, key: &str) -> impl Iterator<Item = &Arc<str>> {
        self.0.get(key).into_iter().flatten()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.values().map(HashSet::len).sum()
    }
}
