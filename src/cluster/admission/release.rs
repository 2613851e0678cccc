//! The gradual release of held requests, in order.

use super::{Admission, Cluster};
use crate::base::clock::Moment;
use std::sync::Arc;
use std::time::Duration;

/// Number of requests released at once.
const FIRST: u32 = 4;

/// Each time this passes, the total number that may be released doubles.
const STEP: Duration = Duration::from_millis(100);

/// After this many steps all requests are released.
const STEPS: u32 = 20;

/// A release in progress: the backends have just been started, and should not get all held requests at once.
#[derive(Debug)]
pub(super) struct Release {
    since: Moment,
    let_go: u32,
}

impl Release {
    /// A release that begins now.
    pub(super) fn new(now: Moment) -> Self {
        Self { since: now, let_go: 0 }
    }

    /// Records the number of released requests.
    pub(super) fn note(&mut self, count: usize) {
        self.let_go = self.let_go.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
    }

    /// The time at which all requests are released.
    pub(super) fn end(&self) -> Moment {
        self.since + STEP * STEPS
    }

    /// The number of requests that may be released now.
    pub(super) fn allowance(&self, now: Moment) -> u32 {
        let steps = u32::try_from(now.since(self.since).as_millis() / STEP.as_millis()).unwrap_or(STEPS);
        if steps >= STEPS { u32::MAX } else { (FIRST << steps).saturating_sub(self.let_go) }
    }
}

impl Admission {
    /// Makes this the list from which waiting requests are served.
    pub(super) fn follow(&self, cluster: &Arc<Cluster>, now: Moment) {
        self.lock().follow(cluster, now);
    }

    /// Whether the newest list is disabled.
    pub fn is_closed(&self) -> bool {
        self.newest().is_some_and(|newest| newest.options.is_disabled)
    }
}
