//! Outlier detection: a member that fails requests is ejected for a time that grows with each ejection. Source of the
//! rules: Envoy's outlier detection. Each member has one, shared by all cores without a lock.

use super::passive::Observation;
use crate::base::clock::Moment;
use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// The window over which the share of 5xx responses is taken.
const WINDOW: Duration = Duration::from_secs(10);
/// The least number of responses in a window for its share to count.
const MIN_RESPONSES: u64 = 20;
/// Length of the first ejection; the next ones take twice, three times this and so on.
const EJECTION: Duration = Duration::from_secs(30);
const MAX_EJECTIONS: u32 = 10;

/// A window packs the lower 16 bits of its number, 24 bits of errors and 24 bits of responses.
const ERROR: u64 = 1 << 24;
const STAMP_SHIFT: u32 = 48;
const COUNT_MASK: u64 = ERROR - 1;

/// Rules, from the options `health.maxFailures` and `health.maxErrorPercent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Number of successive failed requests that ejects; 0 for none.
    pub max_failures: u32,
    /// The share of 5xx responses that ejects, in per cent; 0 for none.
    pub max_error_percent: u8,
}

impl Rules {
    /// Whether any rule is on.
    pub fn are_on(self) -> bool {
        self.max_failures > 0 || self.max_error_percent > 0
    }
}

/// The recent requests of a member.
#[derive(Debug, Default)]
pub struct Outlier {
    failures: AtomicU32,
    window: AtomicU64,
    ejections: AtomicU32,
    /// The end of the last ejection in microseconds; 0 if there was none.
    ejected_until: AtomicU64,
    /// [`Cause`] of the last ejection, as a number.
    cause: AtomicU32,
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

impl Outcome {
    /// The outcome that corresponds to an observation. `None` for a response that only says the backend is busy.
    pub fn of(observation: Observation) -> Option<Self> {
        match observation {
            Observation::Unreachable | Observation::ClosedUnanswered => Some(Self::Failed),
            Observation::Responded { status: 503, retry_after: true } | Observation::Responded { status: 529, .. } => {
                None
            }
            Observation::Responded { status: 500.., .. } => Some(Self::Error),
            Observation::Responded { .. } => Some(Self::Good),
        }
    }
}

/// Why a member was ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// This many successive requests failed.
    Failures(u32),
    /// This percentage of the responses was 5xx.
    Percent(u32),
}

impl Cause {
    const PERCENT: u32 = 1 << 31;

    fn code(self) -> u32 {
        match self {
            Self::Failures(count) => count.min(Self::PERCENT - 1),
            Self::Percent(percent) => Self::PERCENT | percent,
        }
    }

    fn from_code(code: u32) -> Self {
        if code & Self::PERCENT == 0 { Self::Failures(code) } else { Self::Percent(code & !Self::PERCENT) }
    }
}

impl fmt::Display for Cause {
    /// The cause, for logs and views.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failures(count) => write!(f, "{count} requests in a row failed (health.maxFailures)"),
            Self::Percent(percent) => {
                write!(f, "{percent} % of the responses within 10 s were 5xx (health.maxErrorPercent)")
            }
        }
    }
}

impl Outlier {
    /// Records the outcome of a request. Returns the end of the ejection, if this outcome causes one.
    pub fn note(&self, outcome: Outcome, rules: Rules, now: Moment) -> Option<Moment> {
        let is_good = outcome == Outcome::Good;
        let share = if rules.max_error_percent > 0 { self.count(!is_good, now) } else { None };
        if is_good {
            if self.failures.load(Ordering::Relaxed) != 0 {
                self.failures.store(0, Ordering::Relaxed);
            }
            return None;
        }
        // Requests under way to an ejected member tell nothing new.
        if self.ejection(now).is_some() {
            return None;
        }
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let by_failures = rules.max_failures > 0 && failures >= rules.max_failures;
        let by_share = share.filter(|percent| *percent >= u32::from(rules.max_error_percent)).map(Cause::Percent);
        let cause = if by_failures { Some(Cause::Failures(failures)) } else { by_share };
        cause.and_then(|cause| self.eject(cause, now))
    }

    /// Counts a response in the window. Returns the percentage of errors, if the window has enough responses.
    fn count(&self, is_error: bool, now: Moment) -> Option<u32> {
        let stamp = (now.as_micros() / u64::try_from(WINDOW.as_micros()).unwrap_or(u64::MAX)) & 0xffff;
        let one = 1 + if is_error { ERROR } else { 0 };
        let more = |window: u64| {
            let is_current = window >> STAMP_SHIFT == stamp;
            Some(if is_current && window & COUNT_MASK < COUNT_MASK {
                window + one
            } else {
                (stamp << STAMP_SHIFT) + one
            })
        };
        let before = self.window.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        let window = more(before.unwrap_or_default()).unwrap_or_default();
        let (responses, errors) = (window & COUNT_MASK, (window / ERROR) & COUNT_MASK);
        (responses >= MIN_RESPONSES).then(|| u32::try_from(errors * 100 / responses).unwrap_or(100))
    }

    /// If several cores eject the member at the same time, one of them succeeds.
    fn eject(&self, cause: Cause, now: Moment) -> Option<Moment> {
        let last = self.ejected_until.load(Ordering::Relaxed);
        let (last_end, ejections) = (Moment::from_micros(last), self.ejections.load(Ordering::Relaxed));
        if last_end > now {
            return None;
        }
        // After serving well for as long as its last ejection took, a member starts again with the shortest ejection.
        let is_forgiven = now.since(last_end) > EJECTION * ejections.max(1);
        let ejections = if is_forgiven { 1 } else { (ejections + 1).min(MAX_EJECTIONS) };
        let until = now + EJECTION * ejections;
        let is_first =
            self.ejected_until.compare_exchange(last, until.as_micros(), Ordering::Relaxed, Ordering::Relaxed).is_ok();
        is_first.then(|| {
            self.ejections.store(ejections, Ordering::Relaxed);
            self.cause.store(cause.code(), Ordering::Relaxed);
            self.failures.store(0, Ordering::Relaxed);
            self.window.store(0, Ordering::Relaxed);
            until
        })
    }

    /// The end and the cause of the current ejection; `None` if the member is not ejected.
    pub fn ejection(&self, now: Moment) -> Option<(Moment, Cause)> {
        let until = Moment::from_micros(self.ejected_until.load(Ordering::Relaxed));
        (until > now).then(|| (until, Cause::from_code(self.cause.load(Ordering::Relaxed))))
    }

    /// Ends an ejection, because the rules were removed.
    pub fn pardon(&self) {
        self.ejected_until.store(0, Ordering::Relaxed);
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
        let outlier = Outlier::default();
        let fail = |now| (0..3).find_map(|_| outlier.note(Outcome::Failed, RULES, now));
        assert_eq!(fail(at(100)), Some(at(130)));
        assert_eq!(outlier.ejection(at(129)), Some((at(130), Cause::Failures(3))));
        assert_eq!(fail(at(129)), None, "it is ejected already");
        assert_eq!(fail(at(131)), Some(at(191)));
        assert_eq!(fail(at(192)), Some(at(282)));
        assert_eq!(fail(at(1000)), Some(at(1030)), "after a good while it begins anew");
        assert_eq!(outlier.ejection(at(1030)), None);
        assert_eq!(fail(at(1030)), Some(at(1090)));
        outlier.pardon();
        assert_eq!(outlier.ejection(at(1031)), None);
    }

    #[test]
    fn a_good_response_ends_the_row_and_a_share_needs_enough_responses() {
        let outlier = Outlier::default();
        let outcomes = [Outcome::Error, Outcome::Error, Outcome::Good].into_iter().cycle();
        let ejected: Vec<_> = outcomes.take(20).map(|outcome| outlier.note(outcome, RULES, at(1))).collect();
        assert!(ejected[..19].iter().all(Option::is_none));
        assert_eq!(ejected[19], Some(at(31)));
        assert_eq!(outlier.ejection(at(1)), Some((at(31), Cause::Percent(70))));
    }

    #[test]
    fn a_window_counts_its_own_responses() {
        let outlier = Outlier::default();
        let rules = Rules { max_failures: 0, max_error_percent: 50 };
        for second in [8, 12, 22, 39] {
            let ejected = (0..19).find_map(|_| outlier.note(Outcome::Error, rules, at(second)));
            assert_eq!(ejected, None, "19 errors in the window of second {second}");
        }
        assert_eq!(outlier.note(Outcome::Error, rules, at(39)), Some(at(69)));
    }

    #[test]
    fn one_of_many_threads_ejects() {
        let outlier = Outlier::default();
        let fail = |_| (0..1000).filter_map(|_| outlier.note(Outcome::Failed, RULES, at(100))).count();
        let ejections: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|number| scope.spawn(move || fail(number))).collect();
            threads.into_iter().map(|thread| thread.join().expect("a thread")).sum()
        });
        assert_eq!(ejections, 1);
    }

    #[test]
    fn a_busy_backend_is_neither_good_nor_bad() {
        let responded = |status, retry_after| Observation::Responded { status, retry_after };
        let table = [
            (Observation::Unreachable, Some(Outcome::Failed)),
            (Observation::ClosedUnanswered, Some(Outcome::Failed)),
            (responded(200, false), Some(Outcome::Good)),
            (responded(404, false), Some(Outcome::Good)),
            (responded(500, false), Some(Outcome::Error)),
            (responded(503, false), Some(Outcome::Error)),
            (responded(503, true), None),
            (responded(529, false), None),
        ];
        for (observation, expected) in table {
            assert_eq!(Outcome::of(observation), expected, "{observation:?}");
        }
    }

    #[test]
    fn panic_keeps_a_floor() {
        for (usable, total, expected) in [(5, 10, false), (4, 10, true), (0, 1, true), (1, 1, false)] {
            assert_eq!(is_panic(usable, total, 50), expected, "{usable} of {total}");
        }
    }
}
