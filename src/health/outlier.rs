//! Outlier detection: a member that fails requests is ejected for a while that grows from one ejection to the next.
//! Source of the rules: Envoy's outlier detection. Pure; one for each member.

use crate::base::clock::Moment;
use std::time::Duration;

/// The window over which the share of 5xx responses is taken.
const WINDOW: Duration = Duration::from_secs(10);
/// Responses that a window has at least before their share says anything.
const MIN_RESPONSES: u32 = 20;
/// The first ejection; the next ones are twice, three times as long and so on.
const EJECTION: Duration = Duration::from_secs(30);
const MAX_EJECTIONS: u32 = 10;

/// Rules, from the options `health.maxFailures` and `health.maxErrorPercent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Failed requests in a row that eject; 0 for none.
    pub max_failures: u32,
    /// The share of 5xx responses that ejects, in per cent; 0 for none.
    pub max_error_percent: u8,
}

/// What is known of a member's requests.
#[derive(Clone, Debug, Default)]
pub struct Outlier {
    failures: u32,
    window_start: Moment,
    responses: u32,
    errors: u32,
    ejections: u32,
    last_ejection_end: Moment,
}

/// The outcome of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A response below 500.
    Good,
    /// A response of 500 and above.
    Error,
    /// No response.
    Failed,
}

impl Outlier {
    /// Notes the outcome of a request. Returns the moment at which an ejection ends, if this outcome brings one about.
    pub fn note(&mut self, outcome: Outcome, rules: Rules, now: Moment) -> Option<Moment> {
        if now.since(self.window_start) >= WINDOW {
            (self.window_start, self.responses, self.errors) = (now, 0, 0);
        }
        self.responses += 1;
        self.errors += u32::from(outcome != Outcome::Good);
        self.failures = if outcome == Outcome::Good { 0 } else { self.failures + 1 };
        let by_failures = rules.max_failures > 0 && self.failures >= rules.max_failures;
        let percent = u64::from(self.errors) * 100 / u64::from(self.responses);
        let by_share = rules.max_error_percent > 0
            && self.responses >= MIN_RESPONSES
            && percent >= u64::from(rules.max_error_percent);
        (by_failures || by_share).then(|| self.eject(now))
    }

    fn eject(&mut self, now: Moment) -> Moment {
        // A member that has served well for as long as its last ejection took begins anew.
        if now.since(self.last_ejection_end) > EJECTION * self.ejections.max(1) {
            self.ejections = 0;
        }
        self.ejections = (self.ejections + 1).min(MAX_EJECTIONS);
        (self.failures, self.responses, self.errors, self.window_start) = (0, 0, 0, now);
        self.last_ejection_end = now + EJECTION * self.ejections;
        self.last_ejection_end
    }
}

/// Whether so few members are left that all are used, ejected or not (Envoy's panic threshold).
pub fn is_panic(usable: usize, total: usize, panic_percent: u8) -> bool {
    usable * 100 < total * usize::from(panic_percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules { max_failures: 3, max_error_percent: 50 };

    fn at(seconds: u64) -> Moment {
        Moment::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn failures_in_a_row_eject_for_longer_and_longer() {
        let mut outlier = Outlier::default();
        let mut fail = |now| (0..3).find_map(|_| outlier.note(Outcome::Failed, RULES, now));
        assert_eq!(fail(at(100)), Some(at(130)));
        assert_eq!(fail(at(131)), Some(at(191)));
        assert_eq!(fail(at(192)), Some(at(282)));
        assert_eq!(fail(at(1000)), Some(at(1030)), "after a good while it begins anew");
    }

    #[test]
    fn a_good_response_ends_the_row_and_a_share_needs_enough_responses() {
        let mut outlier = Outlier::default();
        let outcomes = [Outcome::Error, Outcome::Error, Outcome::Good].into_iter().cycle();
        let ejected: Vec<_> = outcomes.take(30).map(|outcome| outlier.note(outcome, RULES, at(1))).collect();
        assert!(ejected[..19].iter().all(Option::is_none));
        assert_eq!(ejected[19], Some(at(31)));
    }

    #[test]
    fn panic_keeps_a_floor() {
        for (usable, total, expected) in [(5, 10, false), (4, 10, true), (0, 1, true), (1, 1, false)] {
            assert_eq!(is_panic(usable, total, 50), expected, "{usable} of {total}");
        }
    }
}
