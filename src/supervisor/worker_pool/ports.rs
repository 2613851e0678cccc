//! Ports that are opened and closed while the process runs, for on-demand clusters.
//!
//! The supervisor binds a socket for each worker and keeps it, as for the configured ports, so that replacing a worker
//! loses no connection. Each worker gets the full list of sockets at which it accepts from now on.

use super::{WorkerId, WorkerPool};
use crate::directory::Refusal;
use std::collections::BTreeSet;
use std::net::SocketAddr;

impl WorkerPool {
    /// Makes all workers accept at this port too. A port at which not all can accept is closed again: the kernel would
    /// assign some of its connections to a socket that no worker reads.
    pub(in crate::supervisor) fn open_port(&mut self, port: u16) -> Result<(), Refusal> {
        let settings = &self.deps.settings;
        let listeners = self
            .listeners
            .as_mut()
            .ok_or_else(|| Refusal::Unavailable("this process accepts no connections any more".to_owned()))?;
        if listeners.open_port(port, settings)? {
            self.reassign_listeners();
            if !self.unassigned.is_empty() {
                let _ = self.listeners.as_mut().is_some_and(|listeners| listeners.close_port(port));
                self.reassign_listeners();
                return Err(Refusal::Unavailable(format!(
                    "not all workers could get the sockets of port {port}: the log says why; try again"
                )));
            }
            log::info!("listening on port {port} for clusters on demand");
        }
        Ok(())
    }

    /// Makes all workers accept at exactly these addresses of the HAProxy files.
    pub(in crate::supervisor) fn serve_at(&mut self, addresses: &[SocketAddr]) {
        let settings = &self.deps.settings;
        if self.listeners.as_mut().is_some_and(|listeners| listeners.serve_at(addresses, settings)) {
            self.reassign_listeners();
        }
    }

    /// Retries addresses that could not be opened, and notifies workers that do not have their sockets yet.
    pub(in crate::supervisor) fn retry_listeners(&mut self) {
        let settings = &self.deps.settings;
        if self.listeners.as_mut().is_some_and(|listeners| listeners.retry(settings)) {
            self.reassign_listeners();
        } else {
            let unassigned: Vec<WorkerId> = self.unassigned.iter().copied().collect();
            unassigned.into_iter().for_each(|id| self.assign_listeners(id));
        }
    }

    /// Makes all workers stop accepting at this port, unless the configuration has it.
    pub(in crate::supervisor) fn close_port(&mut self, port: u16) {
        if self.listeners.as_mut().is_some_and(|listeners| listeners.close_port(port)) {
            log::info!("port {port} is closed: no cluster on demand needs it any more");
            // A HAProxy file may have waited for it.
            let settings = &self.deps.settings;
            let _ = self.listeners.as_mut().is_some_and(|listeners| listeners.retry(settings));
            self.reassign_listeners();
        }
    }

    /// Sends every accepting worker the list of its sockets.
    fn reassign_listeners(&mut self) {
        let accepting: BTreeSet<_> =
            self.slots.iter().flat_map(|slot| [slot.current, slot.stand_in]).flatten().collect();
        accepting.into_iter().for_each(|id| self.assign_listeners(id));
    }
}
