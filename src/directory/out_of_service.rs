//! The backends that operators have disabled or set to drain. They stay so when they leave a list and come back, or when their
//! cluster is dropped and made again, until an operator enables them or the process ends.

use crate::base::clock::Moment;
use crate::cluster::{AdminState, Cluster, Endpoint};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The greatest number of backends that may be disabled or draining at once.
const MAX_BACKENDS: usize = 10_000;

/// The endpoints by the key of their cluster. The lock is taken by operators and by the source that changes lists.
#[derive(Clone, Debug, Default)]
pub(super) struct OutOfService(Arc<Mutex<ByKey>>);

type ByKey = BTreeMap<Box<str>, HashMap<Endpoint, AdminState>>;

impl OutOfService {
    /// Records the state that an operator has set an endpoint of a cluster to. Returns whether there was room to record it.
    pub(super) fn set(&self, key: &str, endpoint: &Endpoint, admin: AdminState) -> bool {
        let mut by_key = self.lock();
        if admin == AdminState::Ready {
            let is_last = by_key
                .get_mut(key)
                .is_some_and(|endpoints| endpoints.remove(endpoint).is_some() && endpoints.is_empty());
            if is_last {
                by_key.remove(key);
            }
            return true;
        }
        if by_key.values().map(HashMap::len).sum::<usize>() >= MAX_BACKENDS {
            return false;
        }
        by_key.entry(key.into()).or_default().insert(endpoint.clone(), admin);
        true
    }

    /// Enables all backends of a cluster: the next cluster of its name is another one.
    pub(super) fn forget(&self, key: &str) {
        self.lock().remove(key);
    }

    /// Sets the members of a new list to the states that an operator has set them to.
    pub(super) fn apply(&self, cluster: &Cluster, now: Moment) {
        if let Some(endpoints) = self.lock().get(&cluster.key) {
            for member in cluster.members.iter() {
                if let Some(admin) = endpoints.get(member.url.endpoint()) {
                    member.state.set_admin_state(*admin, now);
                }
            }
        }
    }

    /// All backends that are disabled or draining, for the log.
    pub(super) fn list(&self) -> Vec<String> {
        let by_key = self.lock();
        let named = by_key
            .iter()
            .flat_map(|(key, endpoints)| endpoints.keys().map(move |endpoint| format!("{endpoint} of {key}")));
        named.collect()
    }

    fn lock(&self) -> MutexGuard<'_, ByKey> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
