//! Clusters by key and routes by host: the state that workers were told, and its changes. Each source of routes has
//! one.

mod hosts_by_key;

use super::backends::Backends;
use super::out_of_service::OutOfService;
use crate::base::clock::Moment;
use crate::base::hash::{HashMap, HashSet};
use crate::cluster::{Backend, BackendUrl, Cluster, ClusterSpec, Endpoint, HealthWatcher, Mark, Options, Route};
use hosts_by_key::HostsByKey;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, Weak};

/// Below this number of hosts or clusters a purge is not worth its cost.
const MIN_PURGE: usize = 1024;

/// The list of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FrontendRecord {
    /// Item 0: any text, shown in the access log.
    pub(super) id: Box<str>,
    /// Items from 1 on. An empty list is legal: the host is known, and no backend is alive.
    pub(super) backends: Box<[BackendUrl]>,
    /// The options of the frontend.
    pub(super) options: Arc<Options>,
    /// See [`ClusterSpec::created`].
    pub(super) created: u64,
}

/// The clusters in use by key, readable by every thread. The lock is shared by readers of views and by the source that
/// changes clusters; no worker takes it.
#[derive(Clone, Debug, Default)]
pub(super) struct Clusters {
    by_key: Arc<RwLock<HashMap<Box<str>, Arc<Cluster>>>>,
    /// The routes of the hosts in use. The references are weak, so a view keeps no route in use.
    routes: Arc<RwLock<HashMap<Arc<str>, Weak<Route>>>>,
    /// Backends that operators have disabled.
    pub(super) out_of_service: OutOfService,
    /// The thread of health probes.
    watcher: Arc<OnceLock<Arc<dyn HealthWatcher>>>,
}

/// The cluster of each key and the route of each host in use.
///
/// All hosts that resolve to one key share its cluster, and all workers get the same `Arc<Route>` for a host, so a mark
/// of one worker is visible to all. An edit of a key moves all its hosts to the new list at once. A worker that looks
/// up a host again after a change or an eviction gets the same route: the catalog holds it too, until two successive
/// purges found no other holder. That bounds the hosts to three times those that workers hold, or to 2 × 1024 more. The
/// user of a member must hold its route: otherwise the member is not marked as removed. A cluster is dropped when no
/// route and no slot of it is left.
#[derive(Debug)]
pub(super) struct Catalog {
    clusters: Clusters,
    by_host: HashMap<Arc<str>, InUse>,
    by_key: HostsByKey,
    backends: Backends,
    purge_at: usize,
    purge_clusters_at: usize,
    /// Other nodes have the same clusters.
    is_shared: bool,
}

#[derive(Debug)]
struct InUse {
    route: Arc<Route>,
    /// The last purge found no other holder, and it was not asked for since.
    is_idle: bool,
    /// No write of its list was reported since it came into use. See [`Catalog::take_unreported`].
    is_unreported: bool,
}

impl Default for Catalog {
    fn default() -> Self {
        Self::new(Clusters::default())
    }
}

impl Clusters {
    /// The clusters that routes lead to, in no order.
    pub(super) fn list(&self) -> Vec<Arc<Cluster>> {
        let clusters = self.by_key.read().unwrap_or_else(PoisonError::into_inner);
        clusters.values().filter(|cluster| Arc::strong_count(cluster) > 1).cloned().collect()
    }

    /// The route of this host, if it is in use.
    pub(super) fn route(&self, host: &str) -> Option<Arc<Route>> {
        self.routes.read().unwrap_or_else(PoisonError::into_inner).get(host)?.upgrade()
    }

    /// The routes of all hosts in use.
    pub(super) fn routes(&self) -> Vec<Arc<Route>> {
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        let held: Vec<_> = routes.values().cloned().collect();
        drop(routes);
        // The lock is released first: the source need not wait for the upgrades.
        held.iter().filter_map(Weak::upgrade).collect()
    }

    fn note_route(&self, host: &Arc<str>, route: &Arc<Route>) {
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        routes.insert(Arc::clone(host), Arc::downgrade(route));
    }

    fn forget_route(&self, host: &str) {
        self.routes.write().unwrap_or_else(PoisonError::into_inner).remove(host);
    }

    fn forget_dropped_routes(&self) {
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        routes.retain(|_, route| route.strong_count() > 0);
    }

    /// The cluster of this key.
    pub(super) fn get(&self, key: &str) -> Option<Arc<Cluster>> {
        self.by_key.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// Passes all clusters to this thread, now and from now on.
    pub(super) fn set_watcher(&self, watcher: Arc<dyn HealthWatcher>) {
        let clusters = self.by_key.write().unwrap_or_else(PoisonError::into_inner);
        clusters.values().for_each(|cluster| cluster.set_watcher(&watcher));
        // It is set once: there is only one such thread.
        let _ = self.watcher.set(watcher);
    }

    fn put(&self, cluster: &Arc<Cluster>) -> usize {
        let mut clusters = self.by_key.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(watcher) = self.watcher.get() {
            cluster.set_watcher(watcher);
        }
        clusters.insert(cluster.key.clone(), Arc::clone(cluster));
        clusters.len()
    }

    /// Drops the clusters without a route and a slot. Returns how many stay.
    fn purge(&self) -> usize {
        let mut clusters = self.by_key.write().unwrap_or_else(PoisonError::into_inner);
        clusters.retain(|_, cluster| Arc::strong_count(cluster) > 1 || Arc::strong_count(&cluster.admission) > 1);
        clusters.len()
    }
}

impl Catalog {
    /// A catalog that publishes its clusters in `clusters`.
    pub(super) fn new(clusters: Clusters) -> Self {
        Self {
            clusters,
            by_host: HashMap::default(),
            by_key: HostsByKey::default(),
            backends: Backends::default(),
            purge_at: MIN_PURGE,
            purge_clusters_at: MIN_PURGE,
            is_shared: false,
        }
    }

    /// A catalog whose clusters are the same on other nodes.
    pub(super) fn of_all_nodes(clusters: Clusters) -> Self {
        Self { is_shared: true, ..Self::new(clusters) }
    }

    /// The route of `host`, if it is in use; counts as a use.
    pub(super) fn get(&mut self, host: &str) -> Option<Arc<Route>> {
        let in_use = self.by_host.get_mut(host)?;
        in_use.is_idle = false;
        Some(Arc::clone(&in_use.route))
    }

    /// The route of `host`, if it is in use; does not count as a use.
    pub(super) fn peek(&self, host: &str) -> Option<Arc<Route>> {
        self.by_host.get(host).map(|in_use| Arc::clone(&in_use.route))
    }

    /// The current cluster of this key.
    pub(super) fn cluster(&self, key: &str) -> Option<Arc<Cluster>> {
        self.clusters.get(key)
    }

    /// Takes the present result for `host` into use, and moves all other hosts of this key to the same list. A member
    /// whose endpoint stays in the list keeps its state and its mark; one whose endpoint is gone is marked as removed.
    /// Returns the hosts whose cluster has changed.
    pub(super) fn set(
        &mut self,
        host: &Arc<str>,
        pattern: &str,
        record: &FrontendRecord,
        now: Moment,
    ) -> Vec<Arc<str>> {
        let (cluster, mut changed) = self.update_cluster(pattern, record, now);
        if self.lead(host, &cluster) {
            changed.push(Arc::clone(host));
        }
        changed
    }

    /// Prepares for setting `host` to this list. If the list belongs to another key, an edit of the present key no
    /// longer moves the host, and removes no member that both lists have. Does nothing for an empty list, which may be
    /// refused.
    pub(super) fn leave_key(&mut self, host: &Arc<str>, pattern: &str, record: &FrontendRecord) {
        let Some(in_use) = self.by_host.get(host) else { return };
        if *in_use.route.cluster.key != *pattern && !record.backends.is_empty() {
            in_use.route.mark_replaced();
            self.by_key.remove(&in_use.route.cluster.key, host);
        }
    }

    /// Makes `host` lead to this cluster. Returns whether that is a change.
    fn lead(&mut self, host: &Arc<str>, cluster: &Arc<Cluster>) -> bool {
        self.by_key.insert(&cluster.key, host);
        let before = self.by_host.get(host);
        let (is_idle, is_unreported) = before.map_or((false, true), |before| (before.is_idle, before.is_unreported));
        let marks = match before.map(|before| Arc::clone(&before.route)) {
            Some(route) if Arc::ptr_eq(&route.cluster, cluster) => return false,
            Some(route) => {
                if route.cluster.key != cluster.key {
                    self.by_key.remove(&route.cluster.key, host);
                }
                let marks = marks(&route.marks, cluster);
                remove_missing(&route.marks, &marks);
                marks
            }
            None => {
                self.purge();
                marks(&[], cluster)
            }
        };
        self.mark_replaced(host);
        let route = Arc::new(Route::with_marks(host, Arc::clone(cluster), marks));
        self.clusters.note_route(host, &route);
        self.by_host.insert(Arc::clone(host), InUse { route, is_idle, is_unreported });
        true
    }

    /// Takes `host` into use with the present cluster of this key, if another host uses it. Returns whether one does.
    pub(super) fn adopt(&mut self, host: &Arc<str>, key: &str) -> bool {
        // This function and the map hold a reference each.
        let used = self.clusters.get(key).filter(|cluster| Arc::strong_count(cluster) > 2);
        used.is_some_and(|cluster| {
            self.lead(host, &cluster);
            true
        })
    }

    /// Records that `host` has no route any more. Returns whether it was in use.
    pub(super) fn remove(&mut self, host: &str) -> bool {
        let Some(gone) = self.by_host.remove(host) else { return false };
        self.clusters.forget_route(host);
        self.by_key.remove(&gone.route.cluster.key, host);
        gone.route.mark_replaced();
        remove_missing(&gone.route.marks, &[]);
        true
    }

    /// Whether a write of the list of `host`, which is reported now, is the first one since the host came into use; true
    /// for a host that is not in use. The look-up that took the host into use may have been faster than the report: then
    /// other cores still hold that the host is unknown.
    pub(super) fn take_unreported(&mut self, host: &str) -> bool {
        self.by_host.get_mut(host).is_none_or(|in_use| std::mem::take(&mut in_use.is_unreported))
    }

    /// Whether `host` is in use.
    pub(super) fn contains(&self, host: &str) -> bool {
        self.by_host.contains_key(host)
    }

    /// The routes in use with their hosts.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Route)> {
        self.by_host.iter().map(|(host, in_use)| (host, &*in_use.route))
    }

    /// The routes in use, as shared references.
    pub(super) fn shared(&self) -> impl Iterator<Item = Arc<Route>> {
        self.by_host.values().map(|in_use| Arc::clone(&in_use.route))
    }

    /// Backends made since the last call whose name has to be resolved.
    pub(super) fn take_unresolved(&mut self) -> Vec<Arc<Backend>> {
        self.backends.take_unresolved()
    }

    /// The cluster of this key with this list, and the hosts moved to it. An edit makes a new cluster, which serves the
    /// waiting requests from now on.
    fn update_cluster(&mut self, key: &str, record: &FrontendRecord, now: Moment) -> (Arc<Cluster>, Vec<Arc<str>>) {
        let before = self.clusters.get(key);
        if let Some(cluster) = before.as_ref().filter(|cluster| is_same(cluster, record)) {
            return (Arc::clone(cluster), Vec::new());
        }
        let hosts = self.hosts_of(key);
        for host in &hosts {
            self.mark_replaced(host);
        }
        let entries = record.backends.iter().map(|url| (url, self.backends.get(url.endpoint()))).collect();
        let spec = ClusterSpec { created: record.created, key, id: &record.id, entries, options: &record.options };
        let cluster = Cluster::edit(before.as_deref(), spec, now);
        let known = before.as_ref().and_then(|before| before.buckets_problem.as_ref());
        if let Some(problem) = cluster.buckets_problem.as_ref().filter(|problem| known != Some(problem)) {
            log::warn!("{key}: {problem}");
        }
        self.clusters.out_of_service.apply(&cluster, now);
        if self.is_shared {
            cluster.set_shared();
        }
        if self.clusters.put(&cluster) >= self.purge_clusters_at {
            self.purge_clusters_at = MIN_PURGE.max(2 * self.clusters.purge());
        }
        for host in &hosts {
            self.lead(host, &cluster);
        }
        (cluster, hosts)
    }

    /// The hosts in use that lead to this key.
    pub(super) fn hosts_of(&self, key: &str) -> Vec<Arc<str>> {
        let own = self.by_host.get_key_value(key).filter(|(_, in_use)| *in_use.route.cluster.key == *key);
        own.map(|(host, _)| host).into_iter().chain(self.by_key.hosts(key)).cloned().collect()
    }

    /// Marks a route as replaced. It precedes the edit, so that a request that finds no member left sees that its route
    /// is stale.
    fn mark_replaced(&self, host: &str) {
        if let Some(in_use) = self.by_host.get(host) {
            in_use.route.mark_replaced();
        }
    }

    /// Drops routes without another holder. The insertions since the last purge pay for its cost.
    fn purge(&mut self) {
        if self.by_host.len() < self.purge_at {
            return;
        }
        let mut held = 0;
        let by_key = &mut self.by_key;
        self.by_host.retain(|host, in_use| {
            // Other threads can only clone a route that they hold, so none can obtain a route held only here.
            if Arc::strong_count(&in_use.route) > 1 {
                held += 1;
                in_use.is_idle = false;
                return true;
            }
            let stays = !std::mem::replace(&mut in_use.is_idle, true);
            if !stays {
                by_key.remove(&in_use.route.cluster.key, host);
            }
            stays
        });
        self.clusters.forget_dropped_routes();
        self.purge_at = self.by_host.len() + MIN_PURGE.max(held);
    }
}

fn is_same(cluster: &Cluster, record: &FrontendRecord) -> bool {
    let urls = cluster.members.iter().map(|member| &member.url);
    (&cluster.id, cluster.created) == (&record.id, record.created)
        && cluster.options == record.options
        && urls.eq(&record.backends)
}

/// The marks of a host that had the marks `before` and that now leads to `cluster`.
fn marks(before: &[Arc<Mark>], cluster: &Cluster) -> Box<[Arc<Mark>]> {
    let mut by_endpoint: HashMap<&Endpoint, Arc<Mark>> =
        before.iter().map(|mark| (mark.backend.endpoint(), Arc::clone(mark))).collect();
    let mut marks = Vec::with_capacity(cluster.members.len());
    for member in &cluster.members {
        let mark = by_endpoint
            .entry(member.backend.endpoint())
            .or_insert_with(|| Arc::new(Mark::new(Arc::clone(&member.backend))));
        marks.push(Arc::clone(mark));
    }
    marks.into()
}

fn remove_missing(before: &[Arc<Mark>], now: &[Arc<Mark>]) {
    let kept: HashSet<_> = now.iter().map(Arc::as_ptr).collect();
    before.iter().filter(|mark| !kept.contains(&Arc::as_ptr(mark))).for_each(|mark| mark.mark_removed());
}

#[cfg(test)]
mod tests;
