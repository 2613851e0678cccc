//! On-demand clusters: made, changed and removed while the process runs, by x0d's API.
//!
//! They are a source of routes that precedes all others. A worker without a route for a host looks here first, and once
//! more when another source has replied: an edit changes the table, then mails the affected hosts and ports to all
//! workers. So a worker either sees the edit in its look-up, or reads the mail after it has cached the result.
//!
//! A port that some cluster names is *claimed*: requests at it are routed by host and port, all others by host alone.
//!
//! The table does not know where clusters are kept. With a Redis driver they are kept there ([`origin`]): an edit is
//! made there first, and edits of other nodes are followed ([`follow`]). Files ([`store`]) are written after an edit.

mod arguments;
mod buckets;
mod definition;
mod disk;
mod edits;
mod file;
mod follow;
mod import;
mod load;
mod origin;
mod preserver;
mod settings;
mod store;
mod table;
mod view;

pub use definition::{BackendDefinition, ClusterDefinition};
pub use load::State;
pub use view::ClusterView;

use super::catalog::{Clusters, FrontendRecord};
use super::dns::DnsNames;
use super::subscribers::Subscribers;
use super::{Error, RouteEvent, Settings, Source};
use crate::base::clock::{Clock, Moment};
use crate::cluster::{AdminState, Cluster, HealthWatcher, Member, Route};
use disk::Folder;
use origin::Origin;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;
use store::Store;
use table::{Change, Entry, Table};

/// The longest name.
const MAX_NAME: usize = 128;

/// The limit of the wait for the disk before an upgrade.
const MAX_FLUSH: Duration = Duration::from_secs(2);

/// The greatest number of clusters.
const MAX_CLUSTERS: usize = 1_000_000;

/// Names and values that came with a request.
pub type Arguments = [(String, String)];

/// Why an edit is refused. It has no effect then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such cluster, backend or bucket.
    NotFound(String),
    /// The arguments are wrong.
    Bad(String),
    /// The change is not allowed.
    Forbidden(String),
    /// Another cluster, or another process, has the resource.
    Conflict(String),
    /// The edit cannot be made now.
    Unavailable(String),
}

impl Refusal {
    fn bad(problem: String) -> Self {
        Self::Bad(problem)
    }

    /// The status of the response.
    pub fn status(&self) -> u16 {
        match self {
            Self::NotFound(_) => 404,
            Self::Bad(_) => 400,
            Self::Forbidden(_) => 403,
            Self::Conflict(_) => 409,
            Self::Unavailable(_) => 503,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound(problem)
            | Self::Bad(problem)
            | Self::Forbidden(problem)
            | Self::Conflict(problem)
            | Self::Unavailable(problem) => problem,
        })
    }
}

/// Opens and closes listening sockets while the process runs.
pub trait Ports: fmt::Debug + Send + Sync {
    /// Makes all workers accept at this port. An error is [`Refusal::Conflict`] if that is impossible, and
    /// [`Refusal::Unavailable`] if it is impossible now.
    fn open(&self, port: u16) -> Result<(), Refusal>;

    /// Closes a port that no cluster needs any more, unless the configuration has it.
    fn close(&self, port: u16);
}

/// Called for each cluster that is removed, by any node.
pub(super) struct OnRemoval(Box<dyn Fn(&str) + Send + Sync>);

impl fmt::Debug for OnRemoval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnRemoval")
    }
}

/// An edit of an on-demand cluster, as sent to workers.
#[derive(Clone, Debug)]
pub struct OnDemandEdit {
    /// The number of the edit: one more than the edit before.
    pub version: u64,
    /// The ports at which requests are routed by host and port, sorted.
    pub claimed: Arc<[u16]>,
    /// Earlier results for these hosts are no longer valid.
    pub hosts: Arc<[Arc<str>]>,
    /// Earlier results for requests at these ports are no longer valid.
    pub ports: Arc<[u16]>,
}

/// The route of a request from on-demand clusters.
#[derive(Clone, Debug, Default)]
pub struct OnDemandRoute {
    /// The route.
    pub route: Option<Arc<Route>>,
    /// Whether requests at this port are routed by host and port.
    pub is_port_claimed: bool,
}

/// All on-demand clusters of the process.
#[derive(Clone, Debug)]
pub(super) struct OnDemand(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    table: RwLock<Table>,
    /// The clusters of the table, as a catalog for probes and operators.
    clusters: Clusters,
    /// The number of the newest edit.
    version: Arc<AtomicU64>,
    /// Number of clusters that a request can lead to, readable without the lock.
    reachable: AtomicUsize,
    /// Held for a whole edit, which may wait for a port.
    edits: Mutex<()>,
    subscribers: Subscribers,
    names: DnsNames,
    clock: Clock,
    /// The files of the clusters, for the next start; `None` without a folder.
    store: Option<Store>,
    /// The Redis that holds the clusters of all nodes; `None` if each node has its own.
    origin: Option<Origin>,
    /// Opens and closes listening sockets; set by the supervisor.
    ports: OnceLock<Arc<dyn Ports>>,
    on_removal: OnceLock<OnRemoval>,
    /// Ports of clusters made by other nodes that could not be opened.
    missing_ports: Mutex<BTreeSet<u16>>,
    /// A successor process is starting or serving: it would not learn of an edit.
    is_suspended: Mutex<bool>,
}

impl OnDemand {
    /// The clusters of `state`; from now on they are kept where the settings say.
    pub(super) fn start(
        settings: &Settings,
        mut state: State,
        subscribers: &Subscribers,
        names: &DnsNames,
        clock: Clock,
    ) -> Result<Self, Error> {
        let store = match (&settings.state_dir, &state.folder_problem) {
            (Some(folder), None) => Some(Store::start(Folder::new(folder), std::mem::take(&mut state.findings), clock)),
            (Some(_), Some(problem)) => {
                log::error!("server.stateDir: {problem}; no cluster on demand is there, and none is kept on disk");
                None
            }
            (None, _) => None,
        };
        let thread = |error| Error::Thread(Arc::new(error));
        let origin = match &settings.source {
            Source::Redis(redis) => Some(Origin::new(&redis.write)),
            Source::File(_) | Source::Nothing => None,
        };
        let clusters = Clusters::default();
        let on_demand = Self(Arc::new(Shared {
            table: RwLock::new(Table::new(clusters.clone())),
            clusters,
            version: Arc::default(),
            reachable: AtomicUsize::new(0),
            edits: Mutex::default(),
            subscribers: subscribers.clone(),
            names: names.clone(),
            clock,
            store: store.transpose().map_err(thread)?,
            origin,
            ports: OnceLock::new(),
            on_removal: OnceLock::new(),
            missing_ports: Mutex::default(),
            is_suspended: Mutex::default(),
        }));
        on_demand.restore(state);
        follow::start(&on_demand).map_err(thread)?;
        Ok(on_demand)
    }

    fn restore(&self, state: State) {
        for (cluster, record) in state.clusters {
            let is_changed = state.changed.contains(&cluster.name);
            let cluster = Arc::new(cluster);
            self.publish(|table, now| table.put(Arc::clone(&cluster), &record, now));
            if is_changed {
                self.save(&cluster.name, Some(Arc::clone(&cluster)));
            }
        }
        state.removed.iter().for_each(|name| self.save(name, None));
    }

    /// The process serves: it owns the files from now on.
    pub(super) fn begin(&self) {
        self.0.store.iter().for_each(Store::begin);
    }

    /// Another process serves and owns the files.
    pub(super) fn retire(&self) {
        self.0.store.iter().for_each(Store::retire);
    }

    /// The reason why no cluster of this name can be made: its file is kept.
    fn reserved(&self, name: &str) -> Option<&str> {
        self.0.store.as_ref().and_then(|store| store.reserved(name))
    }

    fn save(&self, name: &str, cluster: Option<Arc<ClusterDefinition>>) {
        self.0.store.iter().for_each(|store| store.save(name, cluster.clone()));
    }

    /// Takes a cluster into use, replacing one with its name, and has it written.
    fn put(&self, cluster: ClusterDefinition, record: &FrontendRecord) {
        let cluster = Arc::new(cluster);
        self.publish(|table, now| table.put(Arc::clone(&cluster), record, now));
        self.save(&cluster.name, Some(Arc::clone(&cluster)));
    }

    /// Takes a cluster out of use, and has its file removed.
    fn remove(&self, name: &str) {
        self.leave_out(name);
        self.save(name, None);
    }

    /// Takes a cluster out of use.
    fn leave_out(&self, name: &str) {
        self.publish(|table, now| table.remove(name, now));
        self.0.clusters.out_of_service.forget(name);
        self.tell_removed(name);
    }

    fn tell_removed(&self, name: &str) {
        self.0.on_removal.get().into_iter().for_each(|on_removal| (on_removal.0)(name));
    }

    /// Reports all clusters to the probe thread, now and from now on.
    pub(super) fn set_watcher(&self, watcher: Arc<dyn HealthWatcher>) {
        self.0.clusters.set_watcher(watcher);
    }

    /// Records what an operator has set a member to, for later lists. Returns whether there was room to record it.
    pub(super) fn set_out_of_service(&self, cluster: &Cluster, member: &Member, admin: AdminState) -> bool {
        self.0.clusters.out_of_service.set(&cluster.key, member.url.endpoint(), admin)
    }

    /// The backends that operators have disabled or set to drain, for the log.
    pub(super) fn out_of_service(&self) -> Vec<String> {
        self.0.clusters.out_of_service.list()
    }

    fn suspended(&self) -> MutexGuard<'_, bool> {
        self.0.is_suspended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes pending changes. To be called at the end.
    pub(super) fn stop(&self, patience: Duration) {
        self.0.origin.iter().for_each(Origin::stop);
        self.0.store.iter().for_each(|store| store.stop(patience));
    }

    /// Waits until all present edits of Redis are taken over, if clusters are kept there. Returns whether they are.
    pub(super) fn catch_up(&self, patience: Duration) -> bool {
        self.0.origin.as_ref().is_none_or(|origin| origin.catch_up(patience))
    }

    fn table(&self) -> RwLockReadGuard<'_, Table> {
        self.0.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a request can lead to any cluster. It costs one load.
    pub(super) fn is_reachable(&self) -> bool {
        self.0.reachable.load(Ordering::Acquire) > 0
    }

    pub(super) fn look_up(&self, host: &str, port: Option<u16>) -> OnDemandRoute {
        if !self.is_reachable() {
            return OnDemandRoute::default();
        }
        let table = self.table();
        let is_port_claimed = port.is_some_and(|port| table.is_claimed(port));
        OnDemandRoute { route: table.look_up(host, port), is_port_claimed }
    }

    pub(super) fn claimed(&self) -> Arc<[u16]> {
        self.table().claimed().collect()
    }

    pub(super) fn version(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.0.version)
    }

    pub(super) fn route_of(&self, name: &str) -> Option<Arc<Route>> {
        self.table().get(name).map(|entry| Arc::clone(&entry.route))
    }

    pub(super) fn routes(&self) -> Vec<Arc<Route>> {
        self.table().iter().map(|entry| Arc::clone(&entry.route)).collect()
    }

    pub(super) fn clusters(&self) -> Vec<Arc<Cluster>> {
        self.table().iter().map(|entry| Arc::clone(&entry.route.cluster)).collect()
    }

    fn get(&self, name: &str) -> Option<Entry> {
        self.table().get(name).cloned()
    }

    /// Changes the table, and then notifies all workers. The caller holds the guard of the edits, so mail has their order.
    fn publish(&self, edit: impl FnOnce(&mut Table, Moment) -> Change) {
        let shared = &*self.0;
        let mut table = shared.table.write().unwrap_or_else(PoisonError::into_inner);
        let change = edit(&mut table, shared.clock.now());
        shared.reachable.store(table.reachable(), Ordering::Release);
        let claimed: Arc<[u16]> = table.claimed().collect();
        let unresolved = table.take_unresolved();
        // A worker that the mail wakes takes the lock at once: it would wait for a thread that its own core has just left.
        drop(table);
        unresolved.iter().for_each(|backend| shared.names.add(backend));
        let version = shared.version.load(Ordering::Relaxed) + 1;
        shared.version.store(version, Ordering::Release);
        let (hosts, ports) = (change.hosts.into_iter().collect(), change.ports.into_iter().collect());
        shared.subscribers.tell_all(&RouteEvent::OnDemand(OnDemandEdit { version, claimed, hosts, ports }));
    }

    fn missing_ports(&self) -> MutexGuard<'_, BTreeSet<u16>> {
        self.0.missing_ports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes all workers accept at a port.
    fn open_port(&self, port: u16) -> Result<(), Refusal> {
        match self.0.ports.get() {
            Some(ports) => ports.open(port),
            None => Err(Refusal::Unavailable(format!("port {port}: this process listens at no port yet"))),
        }
    }

    fn close_unclaimed(&self, port: Option<u16>) {
        if let Some(port) = port.filter(|port| !self.table().is_claimed(*port))
            && let Some(ports) = self.0.ports.get()
        {
            ports.close(port);
        }
    }
}

fn missing(name: &str) -> Refusal {
    Refusal::NotFound(format!("no cluster {}", crate::base::printable::printable(name)))
}
