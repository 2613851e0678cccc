//! The release of held requests: in order, and not all at once.

use super::{Admission, Cluster};
use crate::base::clock::Moment;
use std::sync::Arc;
use std::time::Duration;

/// How many are let go at once.
const FIRST: u32 = 4;

/// Each time that this has passed, as many have been let go as before and once more.
const STEP: Duration = Duration::from_millis(100);

/// After so many steps all are let go.
const STEPS: u32 = 20;

/// A release that is under way: the backends have just been started, and are not to have all requests of a closed time in
/// one instant.
#[derive(Debug)]
pub(super) struct Release {
    since: Moment,
    let_go: u32,
}

impl Release {
    /// One that begins now.
    pub(super) fn new(now: Moment) -> Self {
        Self { since: now, let_go: 0 }
    }

    /// Notes that so many were let go.
    pub(super) fn note(&mut self, count: usize) {
        self.let_go = self.let_go.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
    }

    /// When all are let go.
    pub(super) fn end(&self) -> Moment {
        self.since + STEP * STEPS
    }

    /// How many may be let go now.
    pub(super) fn allowance(&self, now: Moment) -> u32 {
        let steps = u32::try_from(now.since(self.since).as_millis() / STEP.as_millis()).unwrap_or(STEPS);
        if steps >= STEPS { u32::MAX } else { (FIRST << steps).saturating_sub(self.let_go) }
    }
}

impl Admission {
    /// Makes this list the one that waiting requests are served from.
    pub(super) fn follow(&self, cluster: &Arc<Cluster>, now: Moment) {
        self.lock().follow(cluster, now);
    }

    /// Whether the newest list is disabled.
    pub fn is_closed(&self) -> bool {
        self.newest().is_some_and(|newest| newest.options.is_disabled)
    }
}
