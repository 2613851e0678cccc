//! The thread of health probes. It starts before the workers and ends before them.

use super::{Error, Supervisor};
use crate::admin::Roster;
use crate::base::clock::Clock;
use crate::base::counters::Counters;
use crate::cluster::Backend;
use crate::config::Settings;
use crate::directory::Directory;
use crate::directory::redis::ProbeSharer;
use crate::health::ProbeSharing;
use crate::net::tls::BackendTls;
use crate::probe::{ProbeConfig, Probes, start as start_probes};
use std::sync::Arc;

/// Starts the thread and passes it all clusters.
pub(super) fn start(
    settings: &Settings,
    directory: &Directory,
    roster: &Roster,
    backend_tls: Option<BackendTls>,
    clock: Clock,
) -> Result<ProbeThreads, Error> {
    let source = directory.clone();
    let on_alive = Box::new(move |host: &str, backend: &Arc<Backend>| source.end_mark(host, backend));
    let sharing = directory.fleet().is_some().then(Arc::<ProbeSharing>::default);
    let sharer = sharing.as_ref().and_then(|sharing| directory.share_probes(sharing));
    let sharing = sharing.filter(|_| sharer.is_some());
    let config = ProbeConfig { backend_tls, liveness: settings.worker.liveness, on_alive, clock, sharing };
    let probes = start_probes(config).map_err(|error| Error::System("starting the thread of health probes", error))?;
    roster.set_probe_counters(Arc::clone(probes.counters()));
    directory.set_watcher(probes.watcher());
    Ok(ProbeThreads { probes, sharer })
}

/// The probe thread, and the thread that shares probes with other nodes.
#[derive(Debug)]
pub(super) struct ProbeThreads {
    probes: Probes,
    sharer: Option<ProbeSharer>,
}

impl ProbeThreads {
    /// Replaces the TLS settings for backends of `https://`.
    pub(super) fn set_backend_tls(&self, tls: BackendTls) {
        self.probes.set_backend_tls(tls);
    }

    /// The counters of the probe thread.
    pub(super) fn counters(&self) -> &Arc<Counters> {
        self.probes.counters()
    }

    /// Ends both and waits for them. Other nodes may take over at once.
    pub(super) fn stop(&mut self) {
        self.probes.stop();
        self.sharer = None;
    }
}

impl Supervisor {
    /// Ends the probes: another process probes from now on, or none.
    pub(super) fn stop_probes(&mut self) {
        self.pool.deps.probes.stop();
    }
}
