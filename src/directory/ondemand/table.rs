//! The on-demand clusters by name, and the requests they serve.

use super::definition::{BackendDefinition, ClusterDefinition};
use crate::base::clock::Moment;
use crate::cluster::{Backend, MemberState, Options, Route};
use crate::directory::catalog::{Catalog, Clusters, FrontendRecord};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// A cluster in use.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) definition: Arc<ClusterDefinition>,
    pub(super) route: Arc<Route>,
    /// Removed backends that still had requests in flight.
    pub(super) terminating: Vec<(BackendDefinition, Arc<MemberState>)>,
}

/// All clusters. Pure: no thread, no clock, no file.
#[derive(Debug, Default)]
pub(super) struct Table {
    catalog: Catalog,
    by_name: BTreeMap<Box<str>, Entry>,
    by_host: HashMap<Box<str>, Box<str>>,
    by_port: BTreeMap<u16, PortClusters>,
}

/// The clusters of one port.
#[derive(Debug, Default)]
struct PortClusters {
    /// The cluster for any host.
    any: Option<Box<str>>,
    by_host: HashMap<Box<str>, Box<str>>,
}

/// The routes that an edit affects.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// Hosts whose requests may get another route.
    pub(super) hosts: BTreeSet<Arc<str>>,
    /// Ports whose requests may get another route, whatever their host.
    pub(super) ports: BTreeSet<u16>,
}

impl Change {
    fn add(&mut self, definition: &ClusterDefinition) {
        self.hosts.extend(definition.hostname.as_deref().map(Arc::from));
        // Workers cache an unknown host at this port under the port too.
        self.ports.extend(definition.port);
    }
}

impl Table {
    /// A table whose clusters can be seen in `clusters`.
    pub(super) fn new(clusters: Clusters) -> Self {
        Self { catalog: Catalog::new(clusters), ..Self::default() }
    }

    /// The route of a request for this host at this port: a cluster of both precedes a cluster of the host, which
    /// precedes a cluster of the port.
    pub(super) fn look_up(&self, host: &str, port: Option<u16>) -> Option<Arc<Route>> {
        let of_port = port.and_then(|port| self.by_port.get(&port));
        let name = of_port
            .and_then(|clusters| clusters.by_host.get(host))
            .or_else(|| self.by_host.get(host))
            .or_else(|| of_port.and_then(|clusters| clusters.any.as_ref()))?;
        self.by_name.get(name).map(|entry| Arc::clone(&entry.route))
    }

    /// Whether some cluster names this port.
    pub(super) fn is_claimed(&self, port: u16) -> bool {
        self.by_port.contains_key(&port)
    }

    /// The ports named by clusters, sorted.
    pub(super) fn claimed(&self) -> impl Iterator<Item = u16> {
        self.by_port.keys().copied()
    }

    pub(super) fn get(&self, name: &str) -> Option<&Entry> {
        self.by_name.get(name)
    }

    /// All clusters, sorted by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.by_name.values()
    }

    /// Number of clusters.
    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Number of clusters that a request can lead to.
    pub(super) fn reachable(&self) -> usize {
        self.by_host.len() + self.by_port.len()
    }

    /// Another cluster than `name` that serves the same requests.
    pub(super) fn rival(&self, definition: &ClusterDefinition) -> Option<&str> {
        let found = match (definition.hostname.as_deref(), definition.port) {
            (None, None) => None,
            (Some(host), None) => self.by_host.get(host),
            (None, Some(port)) => self.by_port.get(&port).and_then(|clusters| clusters.any.as_ref()),
            (Some(host), Some(port)) => self.by_port.get(&port).and_then(|clusters| clusters.by_host.get(host)),
        };
        found.map(|name| &**name).filter(|name| **name != *definition.name)
    }

    /// Takes this cluster into use, replacing one with its name.
    pub(super) fn put(&mut self, definition: Arc<ClusterDefinition>, record: &FrontendRecord, now: Moment) -> Change {
        let (name, mut change) = (definition.name.clone(), Change::default());
        let before = self.by_name.remove(&name);
        match &before {
            // Cached routes of these requests are stale, or unchanged.
            Some(before) if before.definition.is_for_same_requests(&definition) => {
                change.hosts.extend(definition.hostname.as_deref().map(Arc::from));
                self.unindex(&before.definition);
            }
            Some(before) => {
                change.add(&before.definition);
                change.add(&definition);
                self.unindex(&before.definition);
            }
            None => change.add(&definition),
        }
        let key: Arc<str> = (&*name).into();
        self.catalog.set(&key, &name, record, now);
        let Some(route) = self.catalog.get(&name) else { return change };
        let terminating = before.map(|before| terminating(before, &definition)).unwrap_or_default();
        self.index(&definition);
        self.by_name.insert(name, Entry { definition, route, terminating });
        change
    }

    /// Takes the cluster with this name out of use: its backends get no new request, even from old routes.
    pub(super) fn remove(&mut self, name: &str, now: Moment) -> Change {
        let mut change = Change::default();
        let Some(entry) = self.by_name.remove(name) else { return change };
        change.add(&entry.definition);
        self.unindex(&entry.definition);
        // Requests that wait in it, for a slot or a token, look up their routes again.
        let mut options = Options::clone(&entry.route.cluster.options);
        (options.queue.enqueue_on_unavailable, options.buckets) = (false, None);
        let created = entry.definition.created;
        let empty = FrontendRecord { id: name.into(), backends: Box::default(), options: Arc::new(options), created };
        let key: Arc<str> = name.into();
        self.catalog.set(&key, name, &empty, now);
        self.catalog.remove(name);
        change
    }

    /// Backends made since the last call whose name has to be resolved.
    pub(super) fn take_unresolved(&mut self) -> Vec<Arc<Backend>> {
        self.catalog.take_unresolved()
    }

    fn index(&mut self, definition: &ClusterDefinition) {
        let name = definition.name.clone();
        match (definition.hostname.clone(), definition.port) {
            (None, None) => {}
            (Some(host), None) => _ = self.by_host.insert(host, name),
            (None, Some(port)) => self.by_port.entry(port).or_default().any = Some(name),
            (Some(host), Some(port)) => _ = self.by_port.entry(port).or_default().by_host.insert(host, name),
        }
    }

    /// Removes the index entries of a cluster, unless another cluster has them by now: edits of other nodes may arrive
    /// in another order than they were made.
    fn unindex(&mut self, definition: &ClusterDefinition) {
        let is_its = |name: &str| *name == *definition.name;
        let (host, port) = (definition.hostname.as_deref(), definition.port);
        let Some(port) = port else {
            if let Some(host) = host.filter(|host| self.by_host.get(*host).is_some_and(|name| is_its(name))) {
                self.by_host.remove(host);
            }
            return;
        };
        let Some(clusters) = self.by_port.get_mut(&port) else { return };
        match host {
            Some(host) if clusters.by_host.get(host).is_some_and(|name| is_its(name)) => {
                _ = clusters.by_host.remove(host)
            }
            None => _ = clusters.any.take_if(|name| is_its(name)),
            Some(_) => {}
        }
        if clusters.any.is_none() && clusters.by_host.is_empty() {
            self.by_port.remove(&port);
        }
    }
}

/// The backends of a cluster that finish requests and are no longer in its list.
fn terminating(before: Entry, now: &ClusterDefinition) -> Vec<(BackendDefinition, Arc<MemberState>)> {
    let mut terminating = before.terminating;
    for (backend, member) in before.definition.backends.iter().zip(&before.route.cluster.members) {
        if now.place_of(&backend.name).is_none() {
            terminating.push((backend.clone(), Arc::clone(&member.state)));
        }
    }
    terminating.retain(|(backend, state)| is_terminating(state) && now.place_of(&backend.name).is_none());
    terminating
}

/// Whether a removed backend still has requests.
pub(super) fn is_terminating(state: &MemberState) -> bool {
    state.is_removed() && state.in_flight() > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(name: &str, host: &str, port: u16) -> Arc<ClusterDefinition> {
        let mut definition = ClusterDefinition::new(name);
        definition.hostname = (!host.is_empty()).then(|| host.into());
        definition.port = Some(port).filter(|port| *port > 0);
        Arc::new(definition)
    }

    fn put(table: &mut Table, name: &str, host: &str, port: u16) -> Change {
        let definition = definition(name, host, port);
        let record = definition.record().expect("a good cluster");
        table.put(definition, &record, Moment::ZERO)
    }

    fn found(table: &Table, host: &str, port: u16) -> Option<String> {
        table.look_up(host, Some(port)).map(|route| route.cluster.key.to_string())
    }

    #[test]
    fn the_most_specific_cluster_wins() {
        let mut table = Table::default();
        put(&mut table, "host", "a", 0);
        put(&mut table, "port", "", 81);
        put(&mut table, "both", "a", 81);
        put(&mut table, "none", "", 0);
        let rows = [("a", 80, Some("host")), ("a", 81, Some("both")), ("b", 81, Some("port")), ("b", 80, None)];
        for (host, port, expected) in rows {
            assert_eq!(found(&table, host, port).as_deref(), expected, "{host}:{port}");
        }
        assert_eq!(table.look_up("a", None).map(|route| route.cluster.key.to_string()).as_deref(), Some("host"));
        assert_eq!(table.rival(&definition("new", "a", 81)), Some("both"));
        assert_eq!(table.rival(&definition("both", "a", 81)), None);
        let change = put(&mut table, "both", "b", 82);
        assert_eq!(change.ports.into_iter().collect::<Vec<_>>(), [81, 82]);
        assert_eq!(change.hosts.iter().map(|host| &**host).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(found(&table, "a", 81).as_deref(), Some("host"), "a host comes before a port");
        table.remove("both", Moment::ZERO);
        table.remove("port", Moment::ZERO);
        assert_eq!((table.claimed().count(), table.reachable()), (0, 1));
        assert!(found(&table, "b", 82).is_none() && !table.is_claimed(82));
    }

    #[test]
    fn an_edit_that_keeps_the_requests_touches_no_port() {
        let mut table = Table::default();
        put(&mut table, "both", "a", 81);
        put(&mut table, "port", "", 82);
        let change = put(&mut table, "both", "a", 81);
        assert_eq!((change.hosts.len(), change.ports.len()), (1, 0));
        let change = put(&mut table, "port", "", 82);
        assert_eq!((change.hosts.len(), change.ports.len()), (0, 0));
        let change = put(&mut table, "port", "", 83);
        assert_eq!(change.ports.into_iter().collect::<Vec<_>>(), [82, 83]);
        assert_eq!(table.remove("both", Moment::ZERO).ports.into_iter().collect::<Vec<_>>(), [81]);
    }

    #[test]
    fn a_route_of_a_removed_cluster_is_stale() {
        let mut table = Table::default();
        let mut with_backend = ClusterDefinition::new("x");
        with_backend.hostname = Some("a".into());
        with_backend.backends.push(BackendDefinition::new("one", "127.0.0.1", 80));
        let record = with_backend.record().expect("a good cluster");
        table.put(Arc::new(with_backend), &record, Moment::ZERO);
        let route = table.look_up("a", None).expect("a route");
        assert!(!route.is_stale());
        table.remove("x", Moment::ZERO);
        assert!(route.is_stale() && table.look_up("a", None).is_none());
    }
}
