//! Edits of on-demand clusters by x0d's API.

use super::definition::{self, ClusterDefinition};
use super::table::Entry;
use super::view::ClusterView;
use super::{Arguments, MAX_CLUSTERS, MAX_FLUSH, OnDemand, OnRemoval, Ports, Refusal, missing};
use crate::cluster::AdminState;
use crate::directory::Directory;
use crate::directory::catalog::FrontendRecord;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

/// The limit of retries of an edit that other nodes overtake: a node that takes over a large cluster each time is
/// slower than they are.
const MAX_OVERTAKEN: Duration = Duration::from_secs(5);

/// Why an attempt at an edit had no effect.
#[derive(Debug)]
pub(super) enum Failure {
    Refused(Refusal),
    /// Another node has edited the cluster meanwhile.
    Overtaken,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl OnDemand {
    /// Replaces a cluster by the result of `edit` for its present state; `None` is no cluster. If other nodes edit the
    /// cluster too, `edit` is called again with their result. Returns whether the cluster existed.
    fn edit(
        &self,
        name: &str,
        edit: impl Fn(Option<&ClusterDefinition>) -> Result<Option<ClusterDefinition>, Refusal>,
    ) -> Result<bool, Refusal> {
        let deadline = self.0.clock.now() + MAX_OVERTAKEN;
        loop {
            // Between two attempts, edits of other clusters by other nodes are taken over.
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

    /// Changes an existing cluster.
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

    /// The guard of an edit; refused while a successor process is starting.
    fn begin_edit(&self) -> Result<MutexGuard<'_, ()>, Refusal> {
        let edits = self.edits();
        if *self.suspended() { Err(suspended()) } else { Ok(edits) }
    }

    /// The guard of all changes to clusters.
    pub(super) fn edits(&self) -> MutexGuard<'_, ()> {
        self.0.edits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the earlier cluster by `after`, or removes it. The caller holds the guard of the edit.
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
        if let Some(record) = &record {
            self.check_buckets(name, record)?;
        }
        if let Some(port) = port.filter(|_| port != port_before) {
            self.open_for_edit(port)?;
        }
        let committed = self.commit(name, before, after.zip(record));
        // This is the old port, or the new one if the edit failed.
        self.close_unclaimed(port_before);
        self.close_unclaimed(port);
        committed
    }

    /// Opens a port that an edit names. If it opens too late and no cluster needs it, it is closed.
    fn open_for_edit(&self, port: u16) -> Result<(), Refusal> {
        self.open_port(port).inspect_err(|_| self.close_unclaimed(Some(port)))
    }

    /// A cluster that is made now.
    fn new_cluster(&self, name: &str) -> ClusterDefinition {
        let since_1970 = self.0.clock.wall(self.0.clock.now()).duration_since(UNIX_EPOCH).unwrap_or_default();
        let created = u64::try_from(since_1970.as_micros()).unwrap_or(0);
        ClusterDefinition { created, ..ClusterDefinition::new(name) }
    }

    /// Applies arguments to a cluster. A port that they name is opened even if the cluster has it already: another
    /// process may have had it at the start.
    fn apply(&self, cluster: &mut ClusterDefinition, arguments: &Arguments) -> Result<(), Refusal> {
        let before = cluster.port;
        cluster.apply(arguments)?;
        let is_named = arguments.iter().any(|(name, _)| name == "port");
        match cluster.port.filter(|_| is_named && cluster.port == before) {
            Some(port) => self.open_for_edit(port),
            None => Ok(()),
        }
    }

    /// Refuses a cluster while another one serves the same requests.
    fn check_rival(&self, cluster: &ClusterDefinition) -> Result<(), Refusal> {
        let rival = || self.table().rival(cluster).map(str::to_owned);
        if let Some(known) = rival() {
            // Another node may have just removed it.
            self.refresh(&known)?;
        }
        match rival() {
            Some(rival) => Err(taken(&rival)),
            None => Ok(()),
        }
    }

    /// Refuses buckets that cannot be applied now: too many deleted ones still have requests.
    fn check_buckets(&self, name: &str, record: &FrontendRecord) -> Result<(), Refusal> {
        let Some(route) = self.route_of(name) else { return Ok(()) };
        let checked = route.cluster.check_buckets(&record.options);
        checked.map_err(|error| Refusal::Conflict(format!("the buckets cannot be changed now: {error}: try again")))
    }

    /// Makes an edit and has it written. Relative to an order to suspend edits, an edit comes wholly before or wholly
    /// after.
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
        let (revision, created) = match &self.0.origin {
            Some(origin) => origin.write(name, before, after.as_ref().map(|(cluster, _)| cluster))?,
            None => (0, after.as_ref().map_or(0, |(cluster, _)| cluster.created)),
        };
        match after {
            Some((cluster, record)) => {
                self.put(ClusterDefinition { revision, created, ..cluster }, &FrontendRecord { created, ..record });
            }
            None => self.remove(name),
        }
        Ok(())
    }

    /// Takes over the edit of a cluster by another node, if clusters are kept in Redis.
    fn refresh(&self, name: &str) -> Result<(), Refusal> {
        if let Some(origin) = &self.0.origin {
            self.take_over(name, origin.read(name)?);
        }
        Ok(())
    }
}

/// The refusal because another cluster serves the same requests.
pub(super) fn taken(rival: &str) -> Refusal {
    Refusal::Conflict(format!("cluster {rival} is for the same requests"))
}

fn suspended() -> Refusal {
    Refusal::Unavailable("another process is about to take this one's place: try again".to_owned())
}

fn needs_match() -> Refusal {
    Refusal::bad("hostname= or port= is needed: a cluster on demand is for a host, a port, or both".into())
}

/// Edits of on-demand clusters, one after the other. An edit applies on each core once the core has read its mail; a
/// refused edit changes nothing.
impl Directory {
    /// Sets the object that opens and closes ports for on-demand clusters.
    pub fn set_ports(&self, ports: Arc<dyn Ports>) {
        // There is one supervisor, which does so once.
        let _ = self.on_demand.0.ports.set(ports);
    }

    /// Calls `act` for each on-demand cluster that is removed from now on, by any node. It is meant for the owner of a
    /// cluster's data: a later call has no effect.
    pub fn on_cluster_removed(&self, act: impl Fn(&str) + Send + Sync + 'static) {
        let _ = self.on_demand.0.on_removal.set(OnRemoval(Box::new(act)));
    }

    /// Makes a cluster, or changes an existing one. Returns whether it is new.
    pub fn put_cluster(&self, name: &str, arguments: &Arguments) -> Result<bool, Refusal> {
        definition::check_cluster_name(name)?;
        let was_there = self.on_demand.edit(name, |before| {
            if before.is_none() && self.on_demand.table().len() >= MAX_CLUSTERS {
                return Err(Refusal::Conflict(format!("there are {MAX_CLUSTERS} clusters, and more cannot be")));
            }
            if before.is_none()
                && let Some(problem) = self.on_demand.reserved(name)
            {
                return Err(Refusal::Conflict(format!("cluster {name} cannot be made: {problem}")));
            }
            let mut cluster = before.cloned().unwrap_or_else(|| self.on_demand.new_cluster(name));
            self.on_demand.apply(&mut cluster, arguments)?;
            Ok(Some(cluster))
        });
        was_there.map(|was_there| !was_there)
    }

    /// Changes a cluster.
    pub fn edit_cluster(&self, name: &str, arguments: &Arguments) -> Result<(), Refusal> {
        self.on_demand.change(name, |cluster| self.on_demand.apply(cluster, arguments))
    }

    /// Enables a cluster, or makes it refuse every request.
    pub fn enable_cluster(&self, name: &str, is_enabled: bool) -> Result<(), Refusal> {
        self.on_demand.change(name, |cluster| {
            cluster.settings.set_enabled(is_enabled);
            Ok(())
        })
    }

    /// Removes a cluster. Its requests in progress are finished.
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

    /// Enables or disables a backend.
    pub fn enable_backend(&self, cluster: &str, backend: &str, is: bool) -> Result<(), Refusal> {
        self.on_demand.change(cluster, |cluster| cluster.set_backend_enabled(backend, is))?;
        self.put_back(cluster, backend);
        Ok(())
    }

    /// Returns an enabled backend to service that probes keep disabled (`sticky-offline-mode`), or that an operator has
    /// disabled by its URL.
    fn put_back(&self, cluster: &str, backend: &str) {
        let Some(view) = self.on_demand_cluster(cluster) else { return };
        let Some(place) = view.definition().place_of(backend) else { return };
        let is_enabled = view.definition().backends().get(place).is_some_and(|backend| backend.is_enabled);
        if let Some(member) =
            view.cluster().members.get(place).filter(|member| member.state.is_disabled() || member.state.is_draining())
            && is_enabled
        {
            let now = self.on_demand.0.clock.now();
            self.set_admin_state(view.cluster(), member, AdminState::Ready, now);
            view.cluster().serve(now);
        }
    }

    /// Removes a backend. It gets no new request, and finishes the requests that it has.
    pub fn remove_backend(&self, cluster: &str, backend: &str) -> Result<(), Refusal> {
        if let Some(view) = self.on_demand_cluster(cluster)
            && view.is_terminating(backend)
        {
            return Err(Refusal::bad(format!("backend {backend} is terminating already")));
        }
        self.on_demand.change(cluster, |cluster| cluster.remove_backend(backend))
    }

    /// Adds a bucket, or changes an existing one.
    pub fn put_bucket(&self, cluster: &str, bucket: Option<&str>, arguments: &Arguments) -> Result<(), Refusal> {
        self.on_demand.change(cluster, |cluster| cluster.put_bucket(bucket, arguments))
    }

    /// Changes a bucket.
    pub fn edit_bucket(&self, cluster: &str, bucket: &str, arguments: &Arguments) -> Result<(), Refusal> {
        self.on_demand.change(cluster, |cluster| cluster.edit_bucket(bucket, arguments))
    }

    /// Removes a bucket and the buckets in it.
    pub fn remove_bucket(&self, cluster: &str, bucket: &str) -> Result<(), Refusal> {
        self.on_demand.change(cluster, |cluster| cluster.remove_bucket(bucket))
    }

    /// Refuses edits from now on, and waits until earlier ones are written, for a successor process. An error if they
    /// cannot be written: the successor would have older clusters. Then [`Directory::resume_edits`] has to follow.
    pub fn suspend_edits(&self) -> Result<(), String> {
        let shared = &self.on_demand.0;
        *self.on_demand.suspended() = true;
        // Clusters in Redis are read from there.
        let is_kept = shared.origin.is_some() || shared.store.as_ref().is_none_or(|store| store.flush(MAX_FLUSH));
        if is_kept {
            return Ok(());
        }
        Err(format!(
            "server.stateDir: not all clusters on demand could be written within {MAX_FLUSH:?}, and the new process would \
             have older ones; the log says which, and why"
        ))
    }

    /// Accepts edits again, after a failed upgrade.
    pub fn resume_edits(&self) {
        *self.on_demand.suspended() = false;
    }

    /// The on-demand cluster with this name, for views.
    pub fn on_demand_cluster(&self, name: &str) -> Option<ClusterView> {
        self.on_demand.get(name).map(ClusterView::new)
    }

    /// All on-demand clusters, sorted by name.
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
    use crate::shaper::RequestView;
    use std::sync::Mutex;
    use std::time::Duration;

    /// Opens ports unless a test forbids it, and records the calls.
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

    fn directory_without_source() -> Directory {
        let settings = Settings {
            source: Source::Nothing,
            dns_refresh: Duration::from_secs(60),
            dns_servers: None,
            state_dir: None,
        };
        directory::start(&settings, Clock::new()).expect("a directory")
    }

    #[test]
    fn a_port_that_is_late_costs_no_other_cluster_its_own() {
        let directory = directory_without_source();
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
        // A port that no cluster has is closed if it opens late.
        assert_eq!(put("b", "hostname=b&port=8081"), Err(late.clone()));
        assert_eq!(ports.take(), ["open 8081", "close 8081"]);
        assert!(directory.on_demand_cluster("b").is_none());
        // An edit that names the present port asks for it again; other edits do not.
        assert_eq!(directory.edit_cluster("a", &arguments("port=8080")), Err(late));
        assert_eq!(ports.take(), ["open 8080"]);
        assert_eq!(directory.edit_cluster("a", &arguments("enabled=false")), Ok(()));
        assert_eq!(ports.take(), [""; 0]);
        *ports.refusal.lock().expect("no panic") = None;
        assert_eq!(directory.edit_cluster("a", &arguments("port=8080")), Ok(()));
        assert_eq!(directory.remove_cluster("a"), Ok(()));
        assert_eq!(ports.take(), ["open 8080", "close 8080"]);
    }

    #[test]
    fn buckets_that_find_no_room_beside_those_that_are_leaving_are_refused_and_nothing_changes() {
        let directory = directory_without_source();
        let rules = r#"hostname=a.test&classify=[{"bucketFrom": "X-Director-Bucket"}]"#;
        directory.put_cluster("a", &arguments(rules)).expect("a cluster");
        let backend = arguments("hostname=127.0.0.1&port=1&capacity=500");
        directory.add_backend("a", Some("one"), &backend).expect("a backend");
        let mut tokens = Vec::new();
        let refused = (0..).find_map(|number| {
            let name = format!("b{number}");
            if let Err(refusal) = directory.put_bucket("a", Some(&name), &arguments("rate=0&ceil=1")) {
                return Some((number, refusal));
            }
            let cluster = Arc::clone(directory.on_demand_cluster("a").expect("a cluster").cluster());
            let bucket = cluster.classify(&RequestView {
                host: "a.test",
                method: b"GET",
                target: b"/",
                fields: format!("X-Director-Bucket: {name}\r\n\r\n").as_bytes(),
                client: [127, 0, 0, 1].into(),
                tls_name: None,
                is_trusted: true,
            });
            let now = Clock::new().now();
            let token = cluster.try_token(bucket, now).unwrap_or_else(|| panic!("{name}: {:?}", cluster.buckets()));
            tokens.push((Arc::clone(&cluster), token));
            directory.remove_bucket("a", &name).expect("removed");
            None
        });
        let (number, refusal) = refused.expect("no room at last");
        assert_eq!(refusal.status(), 409, "{refusal}");
        assert!(refusal.to_string().starts_with("the buckets cannot be changed now: "), "{refusal}");
        assert!(number > 60 && directory.on_demand_cluster("a").expect("a cluster").definition().buckets.is_empty());
        tokens.into_iter().for_each(|(cluster, token)| cluster.give_back_token(token));
        assert_eq!(directory.put_bucket("a", Some("now"), &arguments("rate=0&ceil=1")), Ok(()));
    }
}
