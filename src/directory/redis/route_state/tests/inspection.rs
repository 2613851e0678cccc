//! What the simulation of the whole directory looks at.

use crate::directory::redis::route_state::RouteState;

impl RouteState {
    /// What always holds.
    pub(in crate::directory::redis) fn check(&self) {
        self.catalog.check();
    }

    /// Whether the time of the hold runs.
    pub(in crate::directory::redis) fn has_seen_route(&self) -> bool {
        self.guard.ends_at().is_some()
    }

    pub(in crate::directory::redis) fn pending_hosts(&self) -> usize {
        self.pending.len()
    }
}
