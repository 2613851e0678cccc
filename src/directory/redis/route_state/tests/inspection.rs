//! Access of the directory's simulation to the route state.

use crate::directory::redis::route_state::RouteState;

impl RouteState {
    /// Checks the invariants.
    pub(in crate::directory::redis) fn check(&self) {
        self.catalog.check();
    }

    /// Whether the hold's time has begun.
    pub(in crate::directory::redis) fn has_seen_route(&self) -> bool {
        self.guard.ends_at().is_some()
    }

    pub(in crate::directory::redis) fn pending_hosts(&self) -> usize {
        self.pending.len()
    }
}
