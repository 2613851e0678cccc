//! Reports of an exchange at its end, besides its [`RequestStats`](super::RequestStats).

use super::Exchange;
use crate::base::clock::Moment;

impl Exchange {
    /// Counts the request in the history of its cluster and of its member. To be called once, at its end.
    pub fn count(&self, now: Moment) {
        let Some(route) = self.common.route() else { return };
        let has_failed = self.common.stats.has_failed();
        route.cluster.admission.history().count(has_failed, now);
        if let Some(permit) = &self.common.permit {
            permit.member().state.history().count(has_failed, now);
        }
        if has_failed {
            let member = self.common.permit.as_ref().map(|permit| permit.member().identity());
            let stats = &self.common.stats;
            route.cluster.admission.failures().note(stats.reason, stats.status, member, now);
        }
    }

    /// Bytes received from the client, and the number of retries. `None` for a tunnel, whose request is over.
    pub fn received_and_retries(&self) -> Option<(u64, u8)> {
        self.state.context().map(|context| (context.received_bytes, context.connections.saturating_sub(1)))
    }
}
