//! A thread that takes over edits of other nodes from Redis.
//!
//! While Redis is away, clusters stay as they are. When it is back, all are compared. Clusters that Redis has lost are
//! written there again by the first node that has them, so neither a restart without persistence nor a fail-over
//! removes a cluster.

use super::definition::ClusterDefinition;
use super::origin::{Comparison, Texts};
use super::{OnDemand, Shared, file};
use crate::directory::redis::{Edit, LoggedEdit, Outcome, Pause, Record, SharedClusters};
use ::redis::RedisResult;
use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Weak};
use std::thread;

/// Starts the thread, if clusters are kept in Redis. It ends soon after `Origin::stop`.
pub(super) fn start(on_demand: &OnDemand) -> io::Result<()> {
    let Some(origin) = &on_demand.0.origin else { return Ok(()) };
    let clusters = SharedClusters::new(&origin.target);
    let shared = Arc::downgrade(&on_demand.0);
    thread::Builder::new().name("redis-ondemand".into()).spawn(move || run(&shared, clusters)).map(drop)
}

fn run(shared: &Weak<Shared>, mut clusters: SharedClusters) {
    let (mut pause, mut is_told) = (Pause::default(), false);
    while let Err(problem) = follow(shared, &mut clusters, &mut pause) {
        let Some(on_demand) = shared.upgrade().map(OnDemand) else { return };
        let Some(origin) = &on_demand.0.origin else { return };
        if origin.set_followed(false) || !std::mem::replace(&mut is_told, true) {
            let target = &origin.target;
            log::warn!("redis: {target}: {problem}; clusters on demand serve on, and cannot be edited");
        }
        let stop = origin.stop.clone();
        drop(on_demand);
        if pause.wait(&stop) {
            return;
        }
    }
}

/// Takes over all edits, until the process ends or Redis is lost.
fn follow(shared: &Weak<Shared>, clusters: &mut SharedClusters, pause: &mut Pause) -> RedisResult<()> {
    let mut seen = None;
    loop {
        let news = match seen {
            Some(seen) => clusters.wait(seen)?,
            None => Vec::new(),
        };
        let Some(on_demand) = shared.upgrade().map(OnDemand) else { return Ok(()) };
        let Some(origin) = on_demand.0.origin.as_ref().filter(|origin| !origin.stop.is_set()) else { return Ok(()) };
        if let Some(newest) = news.last() {
            on_demand.take_over_edits(clusters, &news)?;
            origin.set_seen(newest.revision);
            seen = Some(newest.revision);
            continue;
        }
        clusters.check_master()?;
        // If Redis was emptied, its revisions start low again.
        if seen.is_none_or(|seen| clusters.newest().is_ok_and(|newest| newest < seen)) {
            let revision = on_demand.compare(clusters)?;
            origin.set_seen(revision);
            seen = Some(revision);
        }
        on_demand.open_missing_ports();
        pause.reset();
        if origin.set_followed(true) {
            log::info!("redis: clusters on demand are those of {}", origin.target);
        }
    }
}

impl OnDemand {
    /// Takes over edits of these clusters by other nodes.
    fn take_over_edits(&self, clusters: &mut SharedClusters, edits: &[LoggedEdit]) -> RedisResult<()> {
        let names: Vec<String> =
            edits.iter().map(|edit| &edit.name).collect::<BTreeSet<_>>().into_iter().cloned().collect();
        let _edits = self.edits();
        for (name, record) in clusters.read(&names)? {
            let before = self.get(&name).map(|entry| entry.definition);
            let is_later = |edit: &&LoggedEdit| before.as_ref().is_some_and(|before| edit.revision > before.revision);
            if edits.iter().filter(is_later).any(|edit| edit.is_removal && edit.name == name) {
                // The present cluster was created again, and shares nothing with the removed one.
                self.remove(&name);
            }
            self.take_over(&name, record);
            self.close_unclaimed(before.and_then(|before| before.port));
        }
        Ok(())
    }

    /// Takes over all clusters of Redis, and writes those that it has lost. Returns the revision of its newest edit.
    fn compare(&self, clusters: &mut SharedClusters) -> RedisResult<u64> {
        let _edits = self.edits();
        let newest = clusters.newest()?;
        let mut records = clusters.read_all()?;
        let known: Vec<_> = self.table().iter().map(|entry| Arc::clone(&entry.definition)).collect();
        let revisions = known.iter().map(|cluster| (&*cluster.name, cluster.revision));
        let compared = Comparison::new(revisions, &records, newest);
        for name in &compared.lost {
            let record = records.remove(&**name);
            if let Some(entry) = self.get(name) {
                self.write_again(clusters, &entry.definition, record)?;
            }
        }
        records.into_iter().for_each(|(name, record)| self.take_over(&name, Some(record)));
        compared.removed.iter().for_each(|name| self.take_over(name, None));
        Ok(newest)
    }

    /// Writes a cluster to Redis that is missing there, or stored with an older text.
    fn write_again(
        &self,
        clusters: &mut SharedClusters,
        cluster: &ClusterDefinition,
        record: Option<Record>,
    ) -> RedisResult<()> {
        let name = &*cluster.name;
        let texts = match Texts::new(None, Some(cluster)) {
            Ok(texts) => texts,
            Err(refusal) => {
                log::error!("cluster {name} is this node's alone: {refusal}");
                return Ok(());
            }
        };
        let known = record.map_or(0, |record| record.revision);
        let edit = Edit { known, least: cluster.revision, created: cluster.created, ..texts.edit(name) };
        match clusters.write(&edit)? {
            Outcome::Made { revision, created } => {
                log::info!("redis: cluster {name} is written: it was not there, or older");
                let cluster = ClusterDefinition { revision, created, ..cluster.clone() };
                match cluster.record() {
                    Ok(record) => self.put(cluster, &record),
                    Err(refusal) => log::error!("cluster {name}: {refusal}"),
                }
            }
            // Another node has written it first.
            Outcome::Changed => {
                let read = clusters.read(&[name.to_owned()])?;
                read.into_iter().for_each(|(name, record)| self.take_over(&name, record));
            }
            Outcome::Taken(rival) => {
                log::error!(
                    "cluster {name} is left out: in Redis, cluster {rival} is for the same requests; a file of it stays"
                );
                self.leave_out(name);
                self.close_unclaimed(cluster.port);
            }
        }
        Ok(())
    }

    /// Takes over the record of a cluster in Redis. An invalid record leaves the cluster unchanged. The caller holds
    /// the guard of the edits.
    pub(super) fn take_over(&self, name: &str, record: Option<Record>) {
        let before = self.get(name).map(|entry| entry.definition);
        let port_before = before.as_ref().and_then(|before| before.port);
        let Some(record) = record else {
            if before.is_some() {
                self.remove(name);
                self.close_unclaimed(port_before);
            }
            return;
        };
        let is_same = |before: &Arc<ClusterDefinition>| {
            (before.revision, before.created) == (record.revision, record.created)
                && file::render_record(before) == record.text
        };
        if before.as_ref().is_some_and(is_same) {
            return;
        }
        match read(name, &record) {
            Ok((cluster, frontend)) => {
                let port = cluster.port;
                if before.as_ref().is_some_and(|before| is_other(before, &cluster)) {
                    // It was removed and created again, and shares nothing with the removed one.
                    self.remove(name);
                }
                self.put(cluster, &frontend);
                if let Some(port) = port.filter(|_| port != port_before) {
                    self.open_for_others(port);
                }
                self.close_unclaimed(port_before);
            }
            Err(problem) => {
                let name = name.escape_debug();
                log::error!("redis: ondemand: the record of {name}: {problem}; the cluster stays as it was");
            }
        }
    }

    /// Opens a port that another node has requested. If that fails, it is retried.
    fn open_for_others(&self, port: u16) {
        if *self.suspended() {
            // The successor process opens it.
            return;
        }
        if let Err(problem) = self.open_port(port) {
            let mut missing = self.missing_ports();
            if missing.insert(port) {
                log::error!("{problem}: a cluster on demand that another node has made is for it; trying again");
            }
        }
    }

    /// Retries ports that could not be opened.
    fn open_missing_ports(&self) {
        let ports: Vec<u16> = self.missing_ports().iter().copied().collect();
        for port in ports {
            let _edits = self.edits();
            if !self.table().is_claimed(port) || self.open_port(port).is_ok() {
                self.missing_ports().remove(&port);
            }
        }
    }
}

/// Whether two clusters of one name were created separately.
fn is_other(one: &ClusterDefinition, other: &ClusterDefinition) -> bool {
    one.created != other.created && one.created != 0 && other.created != 0
}

/// Parses the record of a cluster.
pub(super) fn read(
    name: &str,
    record: &Record,
) -> Result<(ClusterDefinition, crate::directory::catalog::FrontendRecord), String> {
    super::definition::check_cluster_name(name).map_err(|refusal| refusal.to_string())?;
    if record.revision == 0 {
        return Err("no revision stands before its text".to_owned());
    }
    let read = file::parse(name, &record.text, false)?;
    if read.assumed.is_some() {
        return Err("it is no text of this program".to_owned());
    }
    let cluster = ClusterDefinition { revision: record.revision, created: record.created, ..read.definition };
    let frontend = cluster.record().map_err(|refusal| refusal.to_string())?;
    Ok((cluster, frontend))
}
