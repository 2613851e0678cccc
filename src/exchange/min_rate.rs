//! Whether somebody who is waited for is fast enough.

use super::Settings;
use crate::base::clock::Moment;
use std::time::Duration;

/// The bytes of one side, and the time for which that side alone was waited for. Bytes for which nobody had to wait count
/// too: they only make the side faster, by no more than one count's worth.
#[derive(Debug)]
pub(super) struct MinRateMonitor {
    waited: Duration,
    bytes: u64,
    /// Since when it is waited for; [`Moment::NEVER`] while it is not.
    since: Moment,
}

impl Default for MinRateMonitor {
    fn default() -> Self {
        Self { waited: Duration::ZERO, bytes: 0, since: Moment::NEVER }
    }
}

impl MinRateMonitor {
    /// From now on it is waited for; what was before, for somebody else.
    pub(super) fn restart(&mut self, now: Moment) {
        self.since = now;
    }

    /// From now on it is waited for, if it was not before.
    pub(super) fn start(&mut self, now: Moment) {
        self.since = self.since.min(now);
    }

    /// If it was waited for, it is so from now on only: this node did not read from it before.
    pub(super) fn excuse(&mut self, now: Moment) {
        if self.since != Moment::NEVER {
            self.since = now;
        }
    }

    /// It is not waited for any more: the other side is.
    pub(super) fn pause(&mut self, now: Moment) {
        // Of a moment that never comes there has passed nothing.
        self.waited = self.waited.saturating_add(now.since(self.since));
        self.since = Moment::NEVER;
    }

    /// It has sent, or taken, these bytes, waited for or not.
    pub(super) fn count(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    /// Whether it is fast enough: once the waiting adds up to the patience that there is with a body, all bytes together
    /// have to make up `server.minBodyRate`, and the count begins anew. To be asked behind each wait.
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
