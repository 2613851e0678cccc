//! The backends of the process by URL, so that all frontends that name one share it.

use crate::cluster::{Addresses, Backend, BackendId, BackendUrl};
use std::collections::HashMap;
use std::sync::{Arc, Weak};

/// Below this number of entries no purge is worth its walk.
const MIN_PURGE: usize = 1024;

/// Every living backend by its URL as written. It holds none alive: a backend lives for as long as a list or a
/// connection needs it.
#[derive(Debug)]
pub(super) struct Backends {
    by_url: HashMap<BackendUrl, Weak<Backend>>,
    next_id: u64,
    purge_at: usize,
    unresolved: Vec<Arc<Backend>>,
}

impl Default for Backends {
    fn default() -> Self {
        Self { by_url: HashMap::new(), next_id: 1, purge_at: MIN_PURGE, unresolved: Vec::new() }
    }
}

impl Backends {
    /// The backend of this URL, made if there is none.
    pub(super) fn get(&mut self, url: &BackendUrl) -> Arc<Backend> {
        if let Some(backend) = self.by_url.get(url).and_then(Weak::upgrade) {
            return backend;
        }
        let backend = Arc::new(Backend::new(BackendId(self.next_id), url.clone()));
        self.next_id += 1;
        if self.by_url.len() >= self.purge_at {
            self.by_url.retain(|_, backend| backend.strong_count() > 0);
            self.purge_at = MIN_PURGE.max(2 * self.by_url.len());
        }
        self.by_url.insert(url.clone(), Arc::downgrade(&backend));
        if backend.addresses() == Addresses::Pending {
            self.unresolved.push(Arc::clone(&backend));
        }
        backend
    }

    /// The backends made since the last call whose name has to be looked up.
    pub(super) fn take_unresolved(&mut self) -> Vec<Arc<Backend>> {
        std::mem::take(&mut self.unresolved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> BackendUrl {
        BackendUrl::parse(text).expect("a good URL")
    }

    #[test]
    fn one_backend_a_url_for_as_long_as_somebody_holds_it() {
        let mut backends = Backends::default();
        let first = backends.get(&url("http://10.0.0.1:80"));
        assert!(Arc::ptr_eq(&first, &backends.get(&url("http://10.0.0.1:80"))));
        let id = first.id();
        drop(first);
        assert_ne!(backends.get(&url("http://10.0.0.1:80")).id(), id, "an id is never given twice");
        assert!(backends.take_unresolved().is_empty(), "an address needs no look-up");
        let named = backends.get(&url("http://app.internal"));
        assert_eq!(backends.take_unresolved().len(), 1);
        assert!(Arc::ptr_eq(&named, &backends.get(&url("http://app.internal"))));
        assert!(backends.take_unresolved().is_empty(), "a name is handed over once");
    }

    #[test]
    fn the_dead_are_purged() {
        let mut backends = Backends::default();
        let kept = backends.get(&url("http://10.1.0.0"));
        for number in 0..10 * MIN_PURGE {
            backends.get(&url(&format!("http://10.0.{}.{}", number / 256, number % 256)));
            assert!(backends.by_url.len() <= MIN_PURGE);
        }
        assert!(Arc::ptr_eq(&kept, &backends.get(&url("http://10.1.0.0"))));
    }
}
