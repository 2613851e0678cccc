//! The edits that x0d's API makes of clusters on demand.

use super::definition::{self, ClusterDefinition};
use super::table::Entry;
use super::view::ClusterView;
use super::{Arguments, MAX_CLUSTERS, MAX_FLUSH, OnDemand, Ports, Refusal, missing};
use crate::directory::Directory;
use crate::directory::catalog::FrontendRecord;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

/// How long an edit is tried that other nodes overtake: one that takes over a large cluster each time is slower than they.
const MAX_OVERTAKEN: Duration = Duration::from_secs(5);

/// Why a try at an edit has changed nothing.
#[derive(Debug)]
pub(super) enum Failure {
    Refused(Refusal),
    /// Another node has edited the cluster in between.
    Overtaken,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl OnDemand {
    /// Has a cluster be what `edit` makes of what it is; `None` is no cluster. Where other nodes edit it too, `edit` is called
    /// again with what they have made of it. Returns whether the cluster was there.
    fn edit(
        &self,
        name: &str,
        edit: impl Fn(Option<&ClusterDefinition>) -> Result<Option<ClusterDefinition>, Refusal>,
    ) -> Result<bool, Refusal> {
        let deadline = self.0.clock.now() + MAX_OVERTAKEN;
        loop {
            // Between two tries, what other nodes have done to other clusters is taken over.
            let _edits = self.begin_edit()?;
            self.refresh(name)?;
            let before = self.get(name).map(|entry| entry.definition);
            let after = edit(before.as_deref())?;
            if after.as_ref() == before.as_deref() {
                return Ok(before.is_some());
            }
            match self.replace(name, before.as_deref(), after) {
                Ok(()) => return Ok(before.is_some()),
                Err(Failure::Refused(refusal)) => return Err(refusal),
                Err(Failure::Overtaken) if self.0.clock.now() < deadline => {}
                Err(Failure::Overtaken) => {
                    return Err(Refusal::Conflict(format!(
                        "other nodes have edited cluster {name} all the time for {MAX_OVERTAKEN:?}: try again"
                    )));
                }
            }
        }
    }

    /// Changes a cluster that is there.
    fn change(
        &self,
        name: &str,
        change: impl Fn(&mut ClusterDefinition) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let edit = |before: Option<&ClusterDefinition>| {
            let mut after = before.ok_or_else(|| missing(name))?.clone();
            change(&mut after)?;
            Ok(Some(after))
        };
        self.edit(name, edit).map(drop)
    }

    /// The guard of an edit; refused while another process is about to take this one's place.
    fn begin_edit(&self) -> Result<MutexGuard<'_, ()>, Refusal> {
        let edits = self.edits();
        if *self.suspended() { Err(suspended()) } else { Ok(edits) }
    }

    /// The guard of all that changes clusters.
    pub(super) fn edits(&self) -> MutexGuard<'_, ()> {
        self.0.edits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the cluster `after`, or none, in the place of the one before. The caller holds the guard of the edit.
    fn replace(
        &self,
        name: &str,
        before: Option<&ClusterDefinition>,
        after: Option<ClusterDefinition>,
    ) -> Result<(), Failure> {
        let port_before = before.and_then(|before| before.port);
        let port = after.as_ref().and_then(|after| after.port);
        if let Some(after) = &after {
            let has_match = |cluster: &ClusterDefinition| cluster.hostname.is_some() || cluster.port.is_some();
            if !has_match(after) && before.is_none_or(has_match) {
                return Err(needs_match().into());
            }
            self.check_rival(after)?;
        }
        let record = after.as_ref().map(ClusterDefinition::record).transpose()?;
        if let Some(port) = port.filter(|_| port != port_before) {
            self.open_for_edit(port)?;
        }
        let committed = self.commit(name, before, after.zip(record));
        // The one before, or the new one where the edit was not made.
        self.close_unclaimed(port_before);
        self.close_unclaimed(port);
        committed
    }

    /// Has a port opened that an edit names. One that is opened later than that, and that no cluster needs, is closed.
    fn open_for_edit(&self, port: u16) -> Result<(), Refusal> {
        self.open_port(port).inspect_err(|_| self.close_unclaimed(Some(port)))
    }

    /// Changes a cluster as arguments say. A port that they name is opened even where the cluster has it already: it may
    /// have been another process's at the start.
    fn apply(&self, cluster: &mut ClusterDefinition, arguments: &Arguments) -> Result<(), Refusal> {
        let before = cluster.port;
        cluster.apply(arguments)?;
        let is_named = arguments.iter().any(|(name, _)| name == "port");
        match cluster.port.filter(|_| is_named && cluster.port == before) {
            Some(port) => self.open_for_edit(port),
            None => Ok(()),
        }
    }

    /// Refuses a cluster while another one is for the same requests.
    fn check_rival(&self, cluster: &ClusterDefinition) -> Result<(), Refusal> {
        let rival = || self.table().rival(cluster).map(str::to_owned);
        if let Some(known) = rival() {
            // Another node may have removed it a moment ago.
            self.refresh(&known)?;
        }
        match rival() {
            Some(rival) => Err(taken(&rival)),
            None => Ok(()),
        }
    }

    /// Makes an edit, and has it written. An edit is made before or after an order to suspend edits, as a whole.
    fn commit(
        &self,
        name: &str,
        before: Option<&ClusterDefinition>,
        after: Option<(ClusterDefinition, FrontendRecord)>,
    ) -> Result<(), Failure> {
        let is_suspended = self.suspended();
        if *is_suspended {
            return Err(suspended().into());
        }
        let revision = match &self.0.origin {
            Some(origin) => origin.write(name, before, after.as_ref().map(|(cluster, _)| cluster))?,
            None => 0,
        };
        match after {
            Some((cluster, record)) => self.put(ClusterDefinition { revision, ..cluster }, &record),
            None => self.remove(name),
        }
        Ok(())
    }

    /// Takes over what another node has made of a cluster, where clusters are kept in Redis.
    fn refresh(&self, name: &str) -> Result<(), Refusal> {
        if let Some(origin) = &self.0.origin {
            self.take_over(name, origin.read(name)?);
        }
        Ok(())
    }
}

/// Another cluster is for the same requests.
pub(super) fn taken(rival: &str) -> Refusal {
    Refusal::Conflict(format!("cluster {rival} is for the same requests"))
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
    /// Has clusters on demand open and close ports by these from now on.
    pub fn set_ports(&self, ports: Arc<dyn Ports>) {
        // There is one supervisor, which does so once.
        let _ = self.on_demand.0.ports.set(ports);
    }

    /// Makes a cluster, or changes it where it is there. Returns whether it is new.
    pub fn put_cluster(&self, name: &str, arguments: &Arguments) -> Result<bool, Refusal> {
        definition::check_cluster_name(name)?;
        let was_there = self.on_demand.edit(name, |before| {
            if before.is_none() && self.on_demand.table().len() >= MAX_CLUSTERS {
                return Err(Refusal::Conflict(format!("there are {MAX_CLUSTERS} clusters, and more cannot be")));
            }
            let mut cluster = before.cloned().unwrap_or_else(|| ClusterDefinition::new(name));
            self.on_demand.apply(&mut cluster, arguments)?;
            Ok(Some(cluster))
        });
        was_there.map(|was_there| !was_there)
    }

    /// Changes a cluster.
    pub fn edit_cluster(&self, name: &str, arguments: &Arguments) -> Result<(), Refusal> {
        self.on_demand.change(name, |cluster| self.on_demand.apply(cluster, arguments))
    }

    /// Has a cluster serve, or refuse every request.
    pub fn enable_cluster(&self, name: &str, is_enabled: bool) -> Result<(), Refusal> {
        self.on_demand.change(name, |cluster| {
            cluster.settings.set_enabled(is_enabled);
            Ok(())
        })
    }

    /// Removes a cluster. Requests that it has begun are finished.
    pub fn remove_cluster(&self, name: &str) -> Result<(), Refusal> {
        let removed = self.on_demand.edit(name, |before| {
            let before = before.ok_or_else(|| missing(name))?;
            if before.is_protected {
                return Err(Refusal::Forbidden(format!(
                    "cluster {name} is protected: POST terminate-protection=false first"
                )));
            }
            Ok(None)
        });
        removed.map(drop)
    }

    /// Adds a backend to a cluster.
    pub fn add_backend(&self, cluster: &str, backend: Option<&str>, arguments: &Arguments) -> Result<(), Refusal> {
        self.on_demand.change(cluster, |cluster| cluster.add_backend(backend, arguments))
    }

    /// Changes a backend.
    pub fn edit_backend(&self, cluster: &str, backend: &str, arguments: &Arguments) -> Result<(), Refusal> {
        self.on_demand.change(cluster, |cluster| cluster.edit_backend(backend, arguments))?;
        if arguments.iter().any(|(name, _)| name == "enabled") {
            self.put_back(cluster, backend);
        }
        Ok(())
    }

    /// Has a backend serve, or not.
    pub fn enable_backend(&self, cluster: &str, backend: &str, is: bool) -> Result<(), Refusal> {
        self.on_demand.change(cluster, |cluster| cluster.set_backend_enabled(backend, is))?;
        self.put_back(cluster, backend);
        Ok(())
    }

    /// Puts an enabled backend back into service that probes keep disabled (`sticky-offline-mode`), or that an operator has
    /// taken out by its URL.
    fn put_back(&self, cluster: &str, backend: &str) {
        let Some(view) = self.on_demand_cluster(cluster) else { return };
        let Some(place) = view.definition().place_of(backend) else { return };
        let is_enabled = view.definition().backends().get(place).is_some_and(|backend| backend.is_enabled);
        if let Some(member) = view.cluster().members.get(place).filter(|member| member.state.is_disabled())
            && is_enabled
        {
            let now = self.on_demand.0.clock.now();
            self.set_out_of_service(view.cluster(), member, false, now);
            view.cluster().serve(now);
        }
    }

    /// Removes a backend. It gets no new request, and finishes those that it has.
    pub fn remove_backend(&self, cluster: &str, backend: &str) -> Result<(), Refusal> {
        if let Some(view) = self.on_demand_cluster(cluster)
            && view.is_terminating(backend)
        {
            return Err(Refusal::bad(format!("backend {backend} is terminating already")));
        }
        self.on_demand.change(cluster, |cluster| cluster.remove_backend(backend))
    }

    /// Adds a bucket, or changes it where it is there.
    pub fn put_bucket(&self, cluster: &str, bucket: Option<&str>, arguments: &Arguments) -> Result<(), Refusal> {
        self.on_demand.change(cluster, |cluster| cluster.put_bucket(bucket, arguments))
    }

    /// Changes a bucket.
    pub fn edit_bucket(&self, cluster: &str, bucket: &str, arguments: &Arguments) -> Result<(), Refusal> {
        self.on_demand.change(cluster, |cluster| cluster.edit_bucket(bucket, arguments))
    }

    /// Removes a bucket and those in it.
    pub fn remove_bucket(&self, cluster: &str, bucket: &str) -> Result<(), Refusal> {
        self.on_demand.change(cluster, |cluster| cluster.remove_bucket(bucket))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Clock;
    use crate::directory::{self, Settings, Source};
    use std::sync::Mutex;
    use std::time::Duration;

    /// Opens ports as long as it is told to, and notes what is asked.
    #[derive(Debug, Default)]
    struct FakePorts {
        refusal: Mutex<Option<Refusal>>,
        asked: Mutex<Vec<String>>,
    }

    impl Ports for FakePorts {
        fn open(&self, port: u16) -> Result<(), Refusal> {
            self.asked.lock().expect("no panic").push(format!("open {port}"));
            self.refusal.lock().expect("no panic").clone().map_or(Ok(()), Err)
        }

        fn close(&self, port: u16) {
            self.asked.lock().expect("no panic").push(format!("close {port}"));
        }
    }

    impl FakePorts {
        fn take(&self) -> Vec<String> {
            std::mem::take(&mut *self.asked.lock().expect("no panic"))
        }
    }

    fn arguments(text: &str) -> Vec<(String, String)> {
        let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn a_port_that_is_late_costs_no_other_cluster_its_own() {
        let settings = Settings { source: Source::Nothing, dns_refresh: Duration::from_secs(60), state_dir: None };
        let directory = directory::start(&settings, Clock::new()).expect("a directory");
        let ports = Arc::<FakePorts>::default();
        directory.set_ports(Arc::clone(&ports) as Arc<dyn Ports>);
        let put = |name: &str, text: &str| directory.put_cluster(name, &arguments(text));
        assert_eq!(put("a", "hostname=a&port=8080"), Ok(true));
        assert_eq!(ports.take(), ["open 8080"]);
        let late = Refusal::Unavailable("late".to_owned());
        *ports.refusal.lock().expect("no panic") = Some(late.clone());
        assert_eq!(late.status(), 503, "a tool tries that again");
        assert_eq!(put("b", "hostname=b&port=8080"), Err(late.clone()));
        assert_eq!(ports.take(), ["open 8080"], "a has the port");
        // Where no cluster has it, it is closed when it is opened after all.
        assert_eq!(put("b", "hostname=b&port=8081"), Err(late.clone()));
        assert_eq!(ports.take(), ["open 8081", "close 8081"]);
        assert!(directory.on_demand_cluster("b").is_none());
        // An edit that names the port of before asks for it again, and any other does not.
        assert_eq!(directory.edit_cluster("a", &arguments("port=8080")), Err(late));
        assert_eq!(ports.take(), ["open 8080"]);
        assert_eq!(directory.edit_cluster("a", &arguments("enabled=false")), Ok(()));
        assert_eq!(ports.take(), [""; 0]);
        *ports.refusal.lock().expect("no panic") = None;
        assert_eq!(directory.edit_cluster("a", &arguments("port=8080")), Ok(()));
        assert_eq!(directory.remove_cluster("a"), Ok(()));
        assert_eq!(ports.take(), ["open 8080", "close 8080"]);
    }
}
