//! The thread of health probes. It starts before the workers and ends before them.

use super::{Error, Supervisor};
use crate::admin::Roster;
use crate::base::clock::Clock;
use crate::cluster::Backend;
use crate::config::Settings;
use crate::directory::Directory;
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
) -> Result<Probes, Error> {
    let source = directory.clone();
    let on_alive = Box::new(move |host: &str, backend: &Arc<Backend>| source.end_mark(host, backend));
    let config = ProbeConfig { backend_tls, liveness: settings.worker.liveness, on_alive, clock };
    let probes = start_probes(config).map_err(|error| Error::System("starting the thread of health probes", error))?;
    roster.set_probe_counters(Arc::clone(probes.counters()));
    directory.set_watcher(probes.watcher());
    Ok(probes)
}

impl Supervisor {
    /// Ends the probes: another process probes from now on, or none.
    pub(super) fn stop_probes(&mut self) {
        self.pool.deps.probes.stop();
    }
}
