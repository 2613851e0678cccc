//! Ports that are opened and closed while the process runs: clusters on demand need them.
//!
//! The supervisor binds a socket for each worker and keeps it, as it does for the ports of the configuration, so a worker
//! that is replaced loses no connection. Each worker is told all sockets at which it accepts from now on.

use super::WorkerPool;
use std::collections::BTreeSet;

impl WorkerPool {
    /// Has all workers accept at this port too, if they do not yet.
    pub(in crate::supervisor) fn open_port(&mut self, port: u16) -> Result<(), String> {
        let settings = &self.deps.settings;
        let listeners = self.listeners.as_mut().ok_or("this process accepts no connections any more")?;
        if listeners.open_port(port, settings)? {
            log::info!("listening on port {port} for clusters on demand");
            self.reassign_listeners();
        }
        Ok(())
    }

    /// Has no worker accept at this port, unless the configuration has it.
    pub(in crate::supervisor) fn close_port(&mut self, port: u16) {
        if self.listeners.as_mut().is_some_and(|listeners| listeners.close_port(port)) {
            log::info!("port {port} is closed: no cluster on demand needs it any more");
            self.reassign_listeners();
        }
    }

    /// Tells every worker that accepts all its sockets.
    fn reassign_listeners(&mut self) {
        let accepting: BTreeSet<_> =
            self.slots.iter().flat_map(|slot| [slot.current, slot.stand_in]).flatten().collect();
        accepting.into_iter().for_each(|id| self.assign_listeners(id));
    }
}
