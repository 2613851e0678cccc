//! Clusters on demand: made, changed and removed while the process runs, by x0d's API.
//!
//! They are a source of routes that comes before all others. A worker that knows no route of a host looks here first, and
//! once more when another source has replied: an edit changes the table, then mails all workers which hosts and ports it
//! touches. So a worker either sees the edit when it looks, or reads the mail behind what it has kept.
//!
//! A port that some cluster is for is *claimed*: requests there are routed by host and port, all others by their host alone.

mod arguments;
mod buckets;
mod definition;
mod disk;
mod file;
mod import;
mod load;
mod settings;
mod store;
mod table;
mod view;

pub use definition::{BackendDefinition, ClusterDefinition};
pub use load::State;
pub use view::ClusterView;

use super::dns::DnsNames;
use super::subscribers::Subscribers;
use super::{Directory, Error, RouteEvent, Settings};
use crate::base::clock::{Clock, Moment};
use crate::cluster::{Cluster, Route};
use disk::Folder;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;
use store::Store;
use table::{Change, Entry, Table};

/// The longest name.
const MAX_NAME: usize = 128;

/// How long a process that is about to be replaced waits for the disk.
const MAX_FLUSH: Duration = Duration::from_secs(2);

/// The greatest number of clusters.
const MAX_CLUSTERS: usize = 1_000_000;

/// Names and values that came with a request.
pub type Arguments = [(String, String)];

/// Why an edit is not made. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such cluster, backend or bucket.
    NotFound(String),
    /// The arguments are wrong.
    Bad(String),
    /// It may not be changed.
    Forbidden(String),
    /// Another cluster, or another process, has it.
    Conflict(String),
    /// It cannot be made now.
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
pub trait Ports {
    /// Has all workers accept at this port, if they do not yet. The error says why that cannot be.
    fn open(&self, port: u16) -> Result<(), String>;

    /// No cluster needs this port any more: its sockets are closed, unless the configuration has it.
    fn close(&self, port: u16);
}

/// An edit of a cluster on demand, as workers are told of it.
#[derive(Clone, Debug)]
pub struct OnDemandEdit {
    /// The number of the edit: one more than that of the edit before.
    pub version: u64,
    /// The ports at which requests are routed by host and port, in order.
    pub claimed: Arc<[u16]>,
    /// Whatever was found for these hosts is no longer true.
    pub hosts: Arc<[Arc<str>]>,
    /// Whatever was found for requests at these ports is no longer true.
    pub ports: Arc<[u16]>,
}

/// The route of a request, as far as clusters on demand have one.
#[derive(Clone, Debug, Default)]
pub struct OnDemandRoute {
    /// The route.
    pub route: Option<Arc<Route>>,
    /// Whether requests at this port are routed by host and port.
    pub is_port_claimed: bool,
}

/// All clusters on demand of the process.
#[derive(Clone, Debug)]
pub(super) struct OnDemand(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    table: RwLock<Table>,
    /// The number of the newest edit.
    version: Arc<AtomicU64>,
    /// How many clusters a request can lead to, to be read without the lock.
    reachable: AtomicUsize,
    /// Held for a whole edit, which may wait for a port.
    edits: Mutex<()>,
    subscribers: Subscribers,
    names: DnsNames,
    clock: Clock,
    /// Where clusters are kept for the next start; `None` where they are not.
    store: Option<Store>,
    /// Another process is about to take this one's place, or has: it would not know of an edit.
    is_suspended: Mutex<bool>,
}

impl OnDemand {
    /// The clusters of `state`, which are kept in the folder of the settings from now on.
    pub(super) fn start(
        settings: &Settings,
        state: State,
        subscribers: &Subscribers,
        names: &DnsNames,
        clock: Clock,
    ) -> Result<Self, Error> {
        let store = settings.state_dir.as_deref().map(|folder| {
            if let Err(error) = store::keep_originals(&Folder::new(folder), &state.imported) {
                log::error!("server.stateDir: keeping files of x0d: {error}");
            }
            Store::start(Folder::new(folder))
        });
        let on_demand = Self(Arc::new(Shared {
            table: RwLock::default(),
            version: Arc::default(),
            reachable: AtomicUsize::new(0),
            edits: Mutex::default(),
            subscribers: subscribers.clone(),
            names: names.clone(),
            clock,
            store: store.transpose().map_err(|error| Error::Thread(Arc::new(error)))?,
            is_suspended: Mutex::default(),
        }));
        on_demand.restore(state);
        Ok(on_demand)
    }

    fn restore(&self, state: State) {
        for (cluster, record) in state.clusters {
            let (name, is_imported) = (cluster.name.clone(), state.imported.contains(&cluster.name));
            let rival = self.table().rival(&cluster).map(str::to_owned);
            if let Some(rival) = rival {
                log::error!("cluster {name} is left out: cluster {rival} is for the same requests; edit its file");
                continue;
            }
            let cluster = Arc::new(cluster);
            self.publish(|table, now| table.put(Arc::clone(&cluster), &record, now));
            if is_imported {
                self.save(&name, Some(cluster));
            }
        }
    }

    fn save(&self, name: &str, cluster: Option<Arc<ClusterDefinition>>) {
        self.0.store.iter().for_each(|store| store.save(name, cluster.clone()));
    }

    /// The guard of an edit; refused while another process is about to take this one's place.
    fn begin_edit(&self) -> Result<MutexGuard<'_, ()>, Refusal> {
        let edits = self.0.edits.lock().unwrap_or_else(PoisonError::into_inner);
        if *self.suspended() { Err(suspended()) } else { Ok(edits) }
    }

    fn suspended(&self) -> MutexGuard<'_, bool> {
        self.0.is_suspended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes an edit, and has it written. An edit is made before or after an order to suspend edits, as a whole.
    fn commit(
        &self,
        name: &str,
        cluster: Option<Arc<ClusterDefinition>>,
        edit: impl FnOnce(&mut Table, Moment) -> Change,
    ) -> Result<(), Refusal> {
        let is_suspended = self.suspended();
        if *is_suspended {
            return Err(suspended());
        }
        self.publish(edit);
        self.save(name, cluster);
        Ok(())
    }

    /// Writes what is left. To be called at the end.
    pub(super) fn stop(&self, patience: Duration) {
        self.0.store.iter().for_each(|store| store.stop(patience));
    }

    fn table(&self) -> RwLockReadGuard<'_, Table> {
        self.0.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a request can lead to any cluster. Costs one load.
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

    /// Makes the cluster `after`, or puts it in the place of the one of its name. The caller holds [`Shared::edits`].
    fn replace(
        &self,
        before: Option<&ClusterDefinition>,
        after: ClusterDefinition,
        ports: &dyn Ports,
    ) -> Result<(), Refusal> {
        let record = after.record()?;
        let rival = self.table().rival(&after).map(str::to_owned);
        if let Some(rival) = rival {
            return Err(Refusal::Conflict(format!("cluster {rival} is for the same requests")));
        }
        let port_before = before.and_then(|before| before.port);
        if let Some(port) = after.port.filter(|_| after.port != port_before) {
            ports.open(port).map_err(Refusal::Conflict)?;
        }
        let port = after.port;
        let after = Arc::new(after);
        let edit = Arc::clone(&after);
        let committed = self.commit(&after.name, Some(Arc::clone(&after)), |table, now| table.put(edit, &record, now));
        // The one before, or the new one where the edit was not made.
        self.close_unclaimed(port_before, ports);
        self.close_unclaimed(port, ports);
        committed
    }

    /// Changes the table, and tells all workers.
    fn publish(&self, edit: impl FnOnce(&mut Table, Moment) -> Change) {
        let shared = &*self.0;
        let mut table = shared.table.write().unwrap_or_else(PoisonError::into_inner);
        let change = edit(&mut table, shared.clock.now());
        shared.reachable.store(table.reachable(), Ordering::Release);
        let claimed: Arc<[u16]> = table.claimed().collect();
        table.take_unresolved().iter().for_each(|backend| shared.names.add(backend));
        // Under the lock, so that mail has the order of the edits.
        let version = shared.version.load(Ordering::Relaxed) + 1;
        shared.version.store(version, Ordering::Release);
        let (hosts, ports) = (change.hosts.into_iter().collect(), change.ports.into_iter().collect());
        shared.subscribers.tell_all(&RouteEvent::OnDemand(OnDemandEdit { version, claimed, hosts, ports }));
    }

    fn close_unclaimed(&self, port: Option<u16>, ports: &dyn Ports) {
        if let Some(port) = port.filter(|port| !self.table().is_claimed(*port)) {
            ports.close(port);
        }
    }

    fn change(
        &self,
        name: &str,
        ports: &dyn Ports,
        change: impl FnOnce(&mut ClusterDefinition) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let _edits = self.begin_edit()?;
        let before = self.get(name).ok_or_else(|| missing(name))?.definition;
        let mut after = (*before).clone();
        change(&mut after)?;
        if after.hostname.is_none() && after.port.is_none() && (before.hostname.is_some() || before.port.is_some()) {
            return Err(needs_match());
        }
        if after == *before { Ok(()) } else { self.replace(Some(&before), after, ports) }
    }
}

fn missing(name: &str) -> Refusal {
    Refusal::NotFound(format!("no cluster {}", crate::base::printable::printable(name)))
}

fn suspended() -> Refusal {
    Refusal::Unavailable("another process is about to take this one's place: try again".to_owned())
}

fn needs_match() -> Refusal {
    Refusal::bad("hostname= or port= is needed: a cluster on demand is for a host, a port, or both".into())
}

/// Edits of clusters on demand, one after the other. Each is live on all cores once its mail is read, and one that is
/// refused changes nothing.
impl Directory {
    /// Makes a cluster, or changes it where it is there. Returns whether it is new.
    pub fn put_cluster(&self, name: &str, arguments: &Arguments, ports: &dyn Ports) -> Result<bool, Refusal> {
        definition::check_cluster_name(name)?;
        let on_demand = &self.on_demand;
        if on_demand.get(name).is_some() {
            return on_demand.change(name, ports, |cluster| cluster.apply(arguments)).map(|()| false);
        }
        let _edits = on_demand.begin_edit()?;
        if on_demand.table().len() >= MAX_CLUSTERS {
            return Err(Refusal::Conflict(format!("there are {MAX_CLUSTERS} clusters, and more cannot be")));
        }
        let mut cluster = ClusterDefinition::new(name);
        cluster.apply(arguments)?;
        if cluster.hostname.is_none() && cluster.port.is_none() {
            return Err(needs_match());
        }
        on_demand.replace(None, cluster, ports).map(|()| true)
    }

    /// Changes a cluster.
    pub fn edit_cluster(&self, name: &str, arguments: &Arguments, ports: &dyn Ports) -> Result<(), Refusal> {
        self.on_demand.change(name, ports, |cluster| cluster.apply(arguments))
    }

    /// Has a cluster serve, or refuse every request.
    pub fn enable_cluster(&self, name: &str, is_enabled: bool, ports: &dyn Ports) -> Result<(), Refusal> {
        self.on_demand.change(name, ports, |cluster| {
            cluster.settings.set_enabled(is_enabled);
            Ok(())
        })
    }

    /// Removes a cluster. Requests that it has begun are finished.
    pub fn remove_cluster(&self, name: &str, ports: &dyn Ports) -> Result<(), Refusal> {
        let on_demand = &self.on_demand;
        let _edits = on_demand.begin_edit()?;
        let cluster = on_demand.get(name).ok_or_else(|| missing(name))?.definition;
        if cluster.is_protected {
            return Err(Refusal::Forbidden(format!(
                "cluster {name} is protected: POST terminate-protection=false first"
            )));
        }
        on_demand.commit(name, None, |table, now| table.remove(name, now))?;
        on_demand.close_unclaimed(cluster.port, ports);
        Ok(())
    }

    /// Adds a backend to a cluster.
    pub fn add_backend(
        &self,
        cluster: &str,
        backend: Option<&str>,
        arguments: &Arguments,
        ports: &dyn Ports,
    ) -> Result<(), Refusal> {
        self.on_demand.change(cluster, ports, |cluster| cluster.add_backend(backend, arguments))
    }

    /// Changes a backend.
    pub fn edit_backend(
        &self,
        cluster: &str,
        backend: &str,
        arguments: &Arguments,
        ports: &dyn Ports,
    ) -> Result<(), Refusal> {
        self.on_demand.change(cluster, ports, |cluster| cluster.edit_backend(backend, arguments))
    }

    /// Has a backend serve, or not.
    pub fn enable_backend(&self, cluster: &str, backend: &str, is: bool, ports: &dyn Ports) -> Result<(), Refusal> {
        self.on_demand.change(cluster, ports, |cluster| cluster.set_backend_enabled(backend, is))
    }

    /// Removes a backend. It gets no new request, and finishes those that it has.
    pub fn remove_backend(&self, cluster: &str, backend: &str, ports: &dyn Ports) -> Result<(), Refusal> {
        if let Some(view) = self.on_demand_cluster(cluster)
            && view.is_terminating(backend)
        {
            return Err(Refusal::bad(format!("backend {backend} is terminating already")));
        }
        self.on_demand.change(cluster, ports, |cluster| cluster.remove_backend(backend))
    }

    /// Adds a bucket, or changes it where it is there.
    pub fn put_bucket(
        &self,
        cluster: &str,
        bucket: Option<&str>,
        arguments: &Arguments,
        ports: &dyn Ports,
    ) -> Result<(), Refusal> {
        self.on_demand.change(cluster, ports, |cluster| cluster.put_bucket(bucket, arguments))
    }

    /// Changes a bucket.
    pub fn edit_bucket(
        &self,
        cluster: &str,
        bucket: &str,
        arguments: &Arguments,
        ports: &dyn Ports,
    ) -> Result<(), Refusal> {
        self.on_demand.change(cluster, ports, |cluster| cluster.edit_bucket(bucket, arguments))
    }

    /// Removes a bucket and those in it.
    pub fn remove_bucket(&self, cluster: &str, bucket: &str, ports: &dyn Ports) -> Result<(), Refusal> {
        self.on_demand.change(cluster, ports, |cluster| cluster.remove_bucket(bucket))
    }

    /// Refuses edits from now on, and waits until those made are written, for a process that takes this one's place.
    pub fn suspend_edits(&self) {
        *self.on_demand.suspended() = true;
        if self.on_demand.0.store.as_ref().is_some_and(|store| !store.flush(MAX_FLUSH)) {
            log::warn!(
                "server.stateDir: not all clusters on demand are written; the next process has their older files"
            );
        }
    }

    /// Takes edits again: no other process takes this one's place.
    pub fn resume_edits(&self) {
        *self.on_demand.suspended() = false;
    }

    /// The cluster on demand of this name, for views.
    pub fn on_demand_cluster(&self, name: &str) -> Option<ClusterView> {
        self.on_demand.get(name).map(ClusterView::new)
    }

    /// All clusters on demand, in the order of their names.
    pub fn on_demand_clusters(&self) -> Vec<ClusterView> {
        let entries: Vec<Entry> = self.on_demand.table().iter().cloned().collect();
        entries.into_iter().map(ClusterView::new).collect()
    }
}
