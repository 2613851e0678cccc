//! Until the keys of other spellings are known, a known host without a key keeps its route: its key may be such a one.

use super::super::reading::Reading;
use super::{Pending, RouteState};
use crate::base::clock::Moment;
use crate::base::hash::HashSet;
use std::sync::Arc;

impl RouteState {
    /// Keys of other spellings are not known until [`RouteState::note_scan`].
    pub(in crate::directory::redis) fn await_scan(&mut self) {
        self.unscanned = Some(HashSet::default());
    }

    /// The keys of other spellings are known.
    pub(in crate::directory::redis) fn note_scan(&mut self) {
        for host in self.unscanned.take().unwrap_or_default() {
            self.read_again(host);
        }
    }

    /// Keeps the route of a known host without a key until the keys of other spellings are known. Returns whether it does.
    pub(super) fn keeps_for_scan(
        &mut self,
        host: &Arc<str>,
        reading: &Reading,
        pending: &Pending,
        now: Moment,
    ) -> bool {
        let is_meant = *reading == Reading::Unknown && self.is_known(host);
        let Some(unscanned) = self.unscanned.as_mut().filter(|_| is_meant) else { return false };
        unscanned.insert(Arc::clone(host));
        for core in pending.askers.iter().chain(&pending.later) {
            self.reply_unavailable(*core, Arc::clone(host), now);
        }
        true
    }
}
