//! Progress checks of workers. A sleeping worker is not stuck: it gets a question and has to reply in time.

use crate::base::clock::Moment;
use std::time::Duration;

/// The state of the questions to one worker.
#[derive(Clone, Copy, Debug)]
pub(super) struct WatchdogState {
    question: u64,
    asked: Moment,
    is_stuck: bool,
}

/// The next step of the check of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// Ask the question with this number.
    Ask(u64),
    /// Its reply is still due.
    Wait,
    /// It has not replied for this long.
    Stuck(Duration),
}

impl WatchdogState {
    /// A check that begins now, without a question so far.
    pub(super) fn new(now: Moment) -> Self {
        Self { question: 0, asked: now, is_stuck: false }
    }

    /// Checks the worker. `replied` is the number of the last question with a reply; 0 if there was none. A stuck
    /// worker is reported once.
    pub(super) fn look(&mut self, now: Moment, replied: u64, limit: Duration) -> Finding {
        if replied >= self.question {
            self.is_stuck = false;
            self.question += 1;
            self.asked = now;
            return Finding::Ask(self.question);
        }
        let waited = now.since(self.asked);
        if waited >= limit && !self.is_stuck {
            self.is_stuck = true;
            return Finding::Stuck(waited);
        }
        Finding::Wait
    }
}

/// The delay before a failed worker is replaced: none, unless workers fail repeatedly.
#[derive(Debug, Default)]
pub(super) struct RestartBackoff {
    failures: Vec<Moment>,
}

impl RestartBackoff {
    /// The number of failures a minute that are handled without a delay.
    pub(super) const AT_ONCE: usize = 10;

    const MINUTE: Duration = Duration::from_secs(60);

    const LONGEST: Duration = Duration::from_secs(30);

    /// Records a failure. Returns how long the slot stays empty.
    pub(super) fn delay(&mut self, now: Moment) -> Duration {
        self.failures.retain(|failure| now.since(*failure) < Self::MINUTE);
        self.failures.push(now);
        match self.failures.len().checked_sub(Self::AT_ONCE + 1) {
            None => Duration::ZERO,
            Some(beyond) => Duration::from_secs(1 << beyond.min(5)).min(Self::LONGEST),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn a_worker_that_replies_is_asked_again_and_a_silent_one_is_reported_once() {
        use Finding::{Ask, Stuck, Wait};
        let limit = Duration::from_secs(5);
        let mut watch = WatchdogState::new(at(0));
        let table = [
            (0, 0, Ask(1)),
            (1, 1, Ask(2)),
            (2, 1, Wait),
            (5, 1, Wait),
            (6, 1, Stuck(limit)),
            (60, 1, Wait),
            (61, 2, Ask(3)),
            (62, 3, Ask(4)),
            (70, 3, Stuck(Duration::from_secs(8))),
        ];
        for (second, replied, expected) in table {
            assert_eq!(watch.look(at(second), replied, limit), expected, "at {second} s");
        }
    }

    #[test]
    fn failures_one_after_the_other_slow_down_and_quiet_ends_it() {
        let mut backoff = RestartBackoff::default();
        for second in 0..10 {
            assert_eq!(backoff.delay(at(second)), Duration::ZERO);
        }
        let delays: Vec<u64> = (10..18).map(|second| backoff.delay(at(second)).as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 30, 30, 30]);
        assert_eq!(backoff.delay(at(80)), Duration::ZERO);
    }
}
