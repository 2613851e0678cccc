//! The successor and the predecessor of this process.

use super::upgrade::{self, PredecessorLink, SuccessorEvent};
use super::{Event, LEAST_AGE, Supervisor, report};
use crate::directory::Refusal;
use crate::supervisor::pid_file::PidFile;
use crate::worker::PortableClient;

impl Supervisor {
    /// Imports a client of the predecessor, or forwards it.
    pub(super) fn take(&mut self, client: PortableClient) {
        // A client with an exchange goes by a worker, which keeps it if it is not taken.
        let may_pass = !self.is_ordered_to_stop && client.exchange.is_none();
        match self.upgrade_state.drain_target().filter(|_| may_pass) {
            Some(drain_target) => drain_target.pass_on(client),
            None => self.pool.import(client),
        }
    }

    /// Replaces the process for its memory. A young process is not replaced: its successor would soon use as much
    /// memory and be replaced in turn.
    pub(super) fn renew(&mut self) {
        let deps = &self.pool.deps;
        let age = deps.clock.now().since(self.started);
        if age < deps.settings.supervision.memory_check_interval * LEAST_AGE {
            log::warn!("the process has been up for only {age:?}: it is not replaced (server.memoryUpgrade)");
        } else {
            log::warn!("the process is replaced for its memory (server.memoryUpgrade)");
            self.upgrade();
        }
    }

    pub(super) fn upgrade(&mut self) {
        let events = self.events.clone();
        // It fails only after the supervisor has ended.
        let tell = move |event| drop(events.send(Event::Successor(event)));
        let timeout = self.pool.deps.settings.supervision.upgrade_timeout;
        let data = (&self.pool.deps.directory, self.pool.deps.cache.as_ref());
        self.upgrade_state.begin(self.pool.listeners.as_ref(), data, timeout, tell);
    }

    pub(super) fn hear_of_successor(&mut self, event: SuccessorEvent) {
        match event {
            SuccessorEvent::Failed(why) => {
                self.upgrade_state.failed(&why);
                self.pool.deps.directory.resume_edits();
                // The successor may have written its own id.
                if let Some(Err(error)) = self.pid_file.as_ref().map(PidFile::renew) {
                    log::error!("server.pidFile: {error}");
                }
            }
            SuccessorEvent::ReopenLog => self.reopen_log(),
            SuccessorEvent::Serves { pid } if self.is_ordered_to_stop => self.upgrade_state.stop_too(pid),
            SuccessorEvent::Serves { pid } => {
                let Some(drain_target) = self.upgrade_state.succeeded(pid) else { return };
                self.pool.deps.directory.retire();
                report::tell_back_in_service(&self.pool.deps.directory.out_of_service());
                self.pool.hand_over(&drain_target);
                self.stop_probes();
                let grace = self.pool.deps.settings.worker.drain_timeout;
                self.passes_on_until = Some(self.pool.deps.clock.now() + grace.max(upgrade::HANDOFF_TIMEOUT));
            }
            SuccessorEvent::Gone if self.upgrade_state.is_replaced() && !self.has_ended() => {
                log::warn!("upgrade: the new process accepts no more clients; the remaining ones end here");
                self.predecessor_link.iter().for_each(PredecessorLink::hang_up);
                self.pool.stop();
            }
            SuccessorEvent::Gone => {}
        }
    }

    /// Makes all workers accept at this port too. It is refused during an upgrade, since the successor would not have
    /// the socket.
    pub(super) fn open_port(&mut self, port: u16) -> Result<(), Refusal> {
        if self.upgrade_state.is_none() {
            self.pool.open_port(port)
        } else {
            Err(Refusal::Unavailable("an upgrade is under way: try again".to_owned()))
        }
    }
}
