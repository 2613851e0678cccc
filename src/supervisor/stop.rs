//! The order to stop: at once, or after a time in which the process reports that it is not ready and still accepts.

use super::upgrade::PredecessorLink;
use super::{Supervisor, notify};
use crate::worker::WorkerCommand;

impl Supervisor {
    /// Executes the order to stop.
    pub(super) fn stop(&mut self) {
        self.is_ordered_to_stop = true;
        self.pool.deps.roster.note_draining();
        self.upgrade_state.give_up();
        // The predecessor has to close its clients from now on, as this process does.
        self.predecessor_link.iter().for_each(PredecessorLink::hang_up);
        if !self.upgrade_state.is_replaced() {
            notify::stopping();
        }
        let lame_duck = self.pool.deps.settings.supervision.lame_duck;
        if lame_duck.is_zero() || self.upgrade_state.is_replaced() {
            return self.pool.stop();
        }
        log::info!("told to stop: not ready any more, and accepting for another {lame_duck:?} (server.lameDuck)");
        self.pool.tell_all(|| WorkerCommand::KeepNoConnection);
        self.stop_at = Some(self.pool.deps.clock.now() + lame_duck);
    }

    /// Readiness checks have noticed by now: no more connections are accepted.
    pub(super) fn end_lame_duck(&mut self) {
        self.stop_at = None;
        self.pool.stop();
    }
}
