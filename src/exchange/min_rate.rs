//! The minimum transfer rate of a side.

use super::Settings;
use crate::base::clock::Moment;
use std::time::Duration;

/// The bytes of one side, and the time spent waiting for that side alone. Bytes that arrive without a wait count too:
/// they raise the measured rate by at most one window.
#[derive(Debug)]
pub(super) struct MinRateMonitor {
    waited: Duration,
    bytes: u64,
    /// The start of the current wait; [`Moment::NEVER`] outside a wait.
    since: Moment,
}

impl Default for MinRateMonitor {
    fn default() -> Self {
        Self { waited: Duration::ZERO, bytes: 0, since: Moment::NEVER }
    }
}

impl MinRateMonitor {
    /// Starts a wait now; an earlier wait was for another side.
    pub(super) fn restart(&mut self, now: Moment) {
        self.since = now;
    }

    /// Starts a wait, unless one is running.
    pub(super) fn start(&mut self, now: Moment) {
        self.since = self.since.min(now);
    }

    /// Restarts a running wait now: this node did not read from the side before.
    pub(super) fn excuse(&mut self, now: Moment) {
        if self.since != Moment::NEVER {
            self.since = now;
        }
    }

    /// Ends the wait: the other side is waited for.
    pub(super) fn pause(&mut self, now: Moment) {
        // No time has passed since a moment that never comes.
        self.waited = self.waited.saturating_add(now.since(self.since));
        self.since = Moment::NEVER;
    }

    /// Counts bytes that the side has sent or accepted, waited for or not.
    pub(super) fn count(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    /// Whether the side is fast enough. Each time the waits add up to the timeout of a body, the bytes since the last
    /// time must reach `server.minBodyRate`, and the measurement starts again. To be called after each wait.
    pub(super) fn keeps_up(&mut self, now: Moment, settings: &Settings) -> bool {
        if self.since != Moment::NEVER {
            self.pause(now);
            self.start(now);
        }
        if self.waited < settings.body_timeout {
            return true;
        }
        let wanted = u128::from(settings.min_body_rate) * self.waited.as_millis();
        let is_enough = u128::from(self.bytes) * 1000 >= wanted;
        (self.waited, self.bytes) = (Duration::ZERO, 0);
        is_enough
    }
}
