//! A limit of requests in flight that follows measured latency, for servers of unknown capacity.
//!
//! Below its knee a server responds to many requests as fast as to few. Beyond the knee, requests wait in the server,
//! and the wait grows with their number. The *gradient* is the latency with fewer requests divided by the latency with
//! more: about 1 below the knee, and the ratio of the numbers of requests beyond it. Netflix's concurrency-limits
//! (`Gradient2Limit`) and Envoy's adaptive concurrency filter move their limit by the same quotient. For the latency
//! with fewer requests the former uses a long average, which drifts up while the server is overloaded; the latter sends
//! only a few requests for a while, which costs throughput.
//!
//! This machine lowers the limit by a fifth in a short *low* phase after each *high* phase of three times its length,
//! and compares the two. No measurement outlives such a pair, so nothing drifts. A constant rise of latency, from a
//! longer path to the server or from heavier requests, is the same in both phases of the next pair.
//!
//! * Latency comes from Little's law: the mean number of requests in flight over the rate of responses. A mean over the
//!   responses of a short phase would miss those that take longer than the phase.
//! * The measurement of a phase begins after one latency: until then the server still processes the requests of the
//!   phase before.
//! * If requests do not use up the limit, latency says nothing about it, and the limit stays. Where a known capacity is
//!   less than the limit, requests use that up: then both phases are measured at the capacity.
//! * The limit moves by a *step*, a fraction of itself. A step in the same direction as the one before is half as large
//!   again, a step in the other direction is half as large. So the limit finds the knee fast and stays there with
//!   little noise.

use crate::base::clock::Moment;
use std::time::Duration;

/// The initial limit.
const FIRST_LIMIT: u32 = 20;

/// The least number of responses in a low phase, and the least length of the phase.
const LOW_RESPONSES: u32 = 100;
const LOW_TIME: Duration = Duration::from_millis(50);

/// Length of a high phase, in low phases.
const HIGH_TIMES: u32 = 3;

/// A phase without enough responses ends after this time without a result.
const MAX_PHASE: Duration = Duration::from_secs(60);

/// The fraction of the limit that is used in a low phase.
const LOW_PART: f64 = 0.8;

/// The least significant difference between two phases, as a fraction of the requests in flight.
const MIN_DIFFERENCE: f64 = 0.05;

/// The fraction of the limit that requests have to use.
const MIN_USE: f64 = 0.9;

const MIN_STEP: f64 = 0.05;
const MAX_STEP: f64 = 0.4;

/// The bounds of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    min: u32,
    max: u32,
}

impl Bounds {
    /// A limit from `min`, at least one, to `max`; if `max` is less, `max` is the only limit.
    pub fn new(min: u32, max: u32) -> Self {
        let max = max.max(1);
        Self { min: min.clamp(1, max), max }
    }

    fn clamp(self, limit: f64) -> f64 {
        limit.clamp(f64::from(self.min), f64::from(self.max))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    High,
    Low,
}

/// The measurements of a phase.
#[derive(Clone, Copy, Debug, Default)]
struct Means {
    in_flight: f64,
    /// In seconds.
    latency: f64,
}

/// The state machine: responses in, a limit out. The time is passed in.
#[derive(Debug)]
pub struct Gradient {
    bounds: Bounds,
    /// The limit of high phases, with its fraction.
    limit: f64,
    /// The greatest number of requests in flight for other reasons.
    capacity: u32,
    step: f64,
    went_up: bool,
    phase: Phase,
    began: Moment,
    counts_from: Moment,
    responses: u32,
    /// Sum of the requests in flight over all responses.
    in_flight: u64,
    /// The measurements of the high phase before a low one.
    high: Means,
}

impl Gradient {
    /// A machine that begins with a limit of 20, or the nearest one within the bounds.
    pub fn new(bounds: Bounds, now: Moment) -> Self {
        Self {
            bounds,
            limit: bounds.clamp(f64::from(FIRST_LIMIT)),
            capacity: u32::MAX,
            step: MIN_STEP,
            went_up: true,
            phase: Phase::High,
            began: now,
            counts_from: now,
            responses: 0,
            in_flight: 0,
            high: Means::default(),
        }
    }

    /// Sets other bounds.
    pub fn set_bounds(&mut self, bounds: Bounds) {
        self.bounds = bounds;
        self.limit = bounds.clamp(self.limit);
    }

    /// Sets the greatest number of requests that may be in flight for other reasons; `u32::MAX` at first.
    pub fn set_capacity(&mut self, capacity: u32, now: Moment) {
        let before = self.usable();
        self.capacity = capacity.max(1);
        if (self.usable() - before).abs() > f64::EPSILON {
            // The two phases of a pair differ by the limit alone.
            self.begin(Phase::High, Means::default(), now);
        }
    }

    /// The limit of high phases, as far as the capacity allows it.
    fn usable(&self) -> f64 {
        self.limit.min(f64::from(self.capacity))
    }

    /// The current limit.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is between two whole numbers")]
    pub fn limit(&self) -> u32 {
        let high = self.usable().round() as u32;
        match self.phase {
            Phase::High => self.limit.round() as u32,
            // It is lower by at least one, since the comparison needs a difference.
            Phase::Low => ((self.usable() * LOW_PART).round() as u32).min(high.saturating_sub(1)).max(self.bounds.min),
        }
    }

    /// Records a response, with the number of requests in flight at that time, its own included. Returns whether the
    /// limit has changed.
    pub fn note_response(&mut self, in_flight: u32, now: Moment) -> bool {
        let before = self.limit();
        self.count(in_flight, now);
        self.limit() != before
    }

    fn count(&mut self, in_flight: u32, now: Moment) {
        if now.since(self.began) > MAX_PHASE {
            return self.begin(Phase::High, Means::default(), now);
        }
        if now < self.counts_from {
            return;
        }
        self.responses += 1;
        self.in_flight += u64::from(in_flight);
        let times = if self.phase == Phase::High { HIGH_TIMES } else { 1 };
        if self.responses < LOW_RESPONSES * times || now.since(self.counts_from) < LOW_TIME * times {
            return;
        }
        let means = self.means(now);
        match self.phase {
            Phase::High if means.in_flight < self.usable().round() * MIN_USE => self.begin(Phase::High, means, now),
            // The limit cannot go lower, so a higher one is tried.
            Phase::High if self.usable().round() <= f64::from(self.bounds.min) => {
                self.go(1.0);
                self.begin(Phase::High, means, now);
            }
            Phase::High => {
                self.high = means;
                self.begin(Phase::Low, means, now);
            }
            Phase::Low => {
                self.compare(means);
                self.begin(Phase::High, means, now);
            }
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a mean needs no more")]
    fn means(&self, now: Moment) -> Means {
        let responses = f64::from(self.responses.max(1));
        let in_flight = self.in_flight as f64 / responses;
        Means { in_flight, latency: in_flight * now.since(self.counts_from).as_secs_f64() / responses }
    }

    fn begin(&mut self, phase: Phase, before: Means, now: Moment) {
        (self.phase, self.began, self.responses, self.in_flight) = (phase, now, 0, 0);
        self.counts_from = now + Duration::try_from_secs_f64(before.latency).unwrap_or(MAX_PHASE);
    }

    /// Moves the limit by the difference between a low phase and the high one before it.
    fn compare(&mut self, low: Means) {
        let difference = 1.0 - low.in_flight / self.high.in_flight;
        if difference < MIN_DIFFERENCE {
            return;
        }
        let gradient = low.latency / self.high.latency;
        // The fraction of the withheld requests that had only waited in the server.
        let waited = ((1.0 - gradient) / difference).clamp(0.0, 1.0);
        if waited.is_finite() {
            self.go(1.0 - 2.0 * waited);
        }
    }

    /// Moves the limit by a step: up for 1, down for -1.
    fn go(&mut self, direction: f64) {
        let is_up = direction > 0.0;
        let factor = if is_up == self.went_up { 1.5 } else { 0.5 };
        (self.step, self.went_up) = ((self.step * factor).clamp(MIN_STEP, MAX_STEP), is_up);
        // A small limit moves by whole requests; otherwise it would not move at all.
        let moved = self.usable() + (self.usable() * self.step).max(1.0) * direction;
        // Beyond the capacity nothing is known, so it does not grow there.
        let limit = if is_up { self.limit.max(moved.min(f64::from(self.capacity))) } else { moved };
        self.limit = self.bounds.clamp(limit);
    }
}
