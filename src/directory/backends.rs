//! The backends of the process by endpoint, shared by all clusters that name one.

use crate::cluster::{Addresses, Backend, BackendId, Endpoint};
use crate::net::tls::BackendAuthorities;
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// The id of the next backend. Each source of routes has its own list of backends, and all lists share the workers'
/// pools.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// Below this number of entries a purge is not worth its cost.
const MIN_PURGE: usize = 1024;

/// Every living backend by its endpoint. The references are weak: a backend lives as long as a list or a connection
/// needs it.
#[derive(Debug)]
pub(super) struct Backends {
    by_endpoint: HashMap<Endpoint, Weak<Backend>>,
    purge_at: usize,
    unresolved: Vec<Arc<Backend>>,
}

impl Default for Backends {
    fn default() -> Self {
        Self { by_endpoint: HashMap::new(), purge_at: MIN_PURGE, unresolved: Vec::new() }
    }
}

impl Backends {
    /// The backend of this endpoint, made if there is none.
    pub(super) fn get(&mut self, endpoint: &Endpoint) -> Arc<Backend> {
        if let Some(backend) = self.by_endpoint.get(endpoint).and_then(Weak::upgrade) {
            return backend;
        }
        let id = BackendId::new(NEXT_ID.fetch_add(1, Ordering::Relaxed));
        let backend = Arc::new(Backend::new(id, endpoint.clone()));
        load_authorities(&backend);
        if self.by_endpoint.len() >= self.purge_at {
            self.by_endpoint.retain(|_, backend| backend.strong_count() > 0);
            self.purge_at = MIN_PURGE.max(2 * self.by_endpoint.len());
        }
        self.by_endpoint.insert(endpoint.clone(), Arc::downgrade(&backend));
        if backend.addresses() == Addresses::Pending {
            self.unresolved.push(Arc::clone(&backend));
        }
        backend
    }

    /// Backends made since the last call whose name has to be resolved.
    pub(super) fn take_unresolved(&mut self) -> Vec<Arc<Backend>> {
        std::mem::take(&mut self.unresolved)
    }
}

/// Reads the file of the backend's own authorities (`ca`). Without it the backend cannot be talked to.
fn load_authorities(backend: &Backend) {
    let Some(path) = backend.endpoint().authorities().filter(|_| backend.endpoint().is_secure()) else { return };
    match BackendAuthorities::load(Path::new(path)) {
        Ok(authorities) => backend.set_authorities(Arc::new(authorities)),
        Err(fault) => log::error!("backend {}: #ca={fault}; it gets no requests", backend.endpoint()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::BackendUrl;

    fn endpoint(text: &str) -> Endpoint {
        BackendUrl::parse(text).expect("a good URL").endpoint().clone()
    }

    #[test]
    fn an_endpoint_has_one_backend_as_long_as_it_is_referenced() {
        let mut backends = Backends::default();
        let first = backends.get(&endpoint("http://10.0.0.1:80"));
        assert!(Arc::ptr_eq(&first, &backends.get(&endpoint("http://10.0.0.1:80"))));
        let id = first.id();
        drop(first);
        assert_ne!(backends.get(&endpoint("http://10.0.0.1:80")).id(), id, "an id is never given twice");
        assert!(backends.take_unresolved().is_empty(), "an address needs no look-up");
        let named = backends.get(&endpoint("http://app.internal"));
        assert_eq!(backends.take_unresolved().len(), 1);
        assert!(Arc::ptr_eq(&named, &backends.get(&endpoint("http://app.internal"))));
        assert!(backends.take_unresolved().is_empty(), "a name is handed over once");
    }

    #[test]
    fn the_dead_are_purged() {
        let mut backends = Backends::default();
        let kept = backends.get(&endpoint("http://10.1.0.0"));
        for number in 0..10 * MIN_PURGE {
            backends.get(&endpoint(&format!("http://10.0.{}.{}", number / 256, number % 256)));
            assert!(backends.by_endpoint.len() <= MIN_PURGE);
        }
        assert!(Arc::ptr_eq(&kept, &backends.get(&endpoint("http://10.1.0.0"))));
    }
}
