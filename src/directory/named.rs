//! Clusters that rules select by name and no host leads to: those of HAProxy files. No source of routes knows them, and
//! no snapshot contains them.

use super::catalog::{Catalog, FrontendRecord};
use super::dns::DnsNames;
use crate::base::clock::Clock;
use crate::cluster::{BackendUrl, Options, Route};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// A cluster as its file defines it.
#[derive(Debug)]
pub struct NamedCluster {
    /// Its key, which differs from every host.
    pub key: Arc<str>,
    /// The file that defines it, for views and the access log.
    pub source: Box<str>,
    /// The members.
    pub urls: Vec<BackendUrl>,
    /// The options.
    pub options: Arc<Options>,
}

/// All such clusters.
#[derive(Debug)]
pub struct NamedClusters {
    catalog: Catalog,
    names: DnsNames,
    /// The keys by the file that defines them.
    keys: HashMap<Box<str>, HashSet<Arc<str>>>,
    clock: Clock,
}

impl NamedClusters {
    pub(super) fn new(catalog: Catalog, names: DnsNames, clock: Clock) -> Self {
        Self { catalog, names, keys: HashMap::new(), clock }
    }

    /// Replaces the clusters of a file by difference: members that stay keep their connections, marks and counters. The
    /// routes are in the order of the clusters.
    pub fn replace(&mut self, source: &str, clusters: Vec<NamedCluster>) -> Vec<Option<Arc<Route>>> {
        let now = self.clock.now();
        let keys: HashSet<_> = clusters.iter().map(|cluster| Arc::clone(&cluster.key)).collect();
        let before = self.keys.insert(source.into(), keys).unwrap_or_default();
        let mut routes = Vec::with_capacity(clusters.len());
        for NamedCluster { key, source, urls, options } in clusters {
            let record = FrontendRecord { id: source, backends: urls.into(), options, created: 0 };
            self.catalog.set(&key, &key, &record, now);
            routes.push(self.catalog.get(&key));
        }
        let keys = self.keys.get(source);
        for gone in before.iter().filter(|key| keys.is_none_or(|keys| !keys.contains(*key))) {
            self.catalog.remove(gone);
        }
        for backend in self.catalog.take_unresolved() {
            self.names.add(&backend);
        }
        routes
    }
}
