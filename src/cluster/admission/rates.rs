//! Limits of a cluster by rate, over all cores: requests, and bytes in each direction. They outlive edits.

use super::Admission;
use super::clients::Clients;
use crate::base::clock::Moment;
use crate::base::pacer::Pacer;
use crate::base::rate_limiter::{RateLimiter, Turn};
use crate::cluster::options::Options;
use std::sync::atomic::Ordering;

/// The rates of the newest options.
#[derive(Debug)]
pub struct Rates {
    /// Bytes from clients (`bytesPerSecond.in`).
    pub bytes_in: Pacer,
    /// Bytes from backends (`bytesPerSecond.out`).
    pub bytes_out: Pacer,
    /// Requests (`requestsPerSecond`).
    requests: RateLimiter,
    /// Requests of each client (`maxRequestsPerClient`).
    pub(super) clients: Clients,
}

impl Default for Rates {
    fn default() -> Self {
        let (bytes_in, bytes_out) = <(Pacer, Pacer)>::default();
        Self { bytes_in, bytes_out, requests: RateLimiter::new(1), clients: Clients::default() }
    }
}

impl Rates {
    pub(super) fn set(&self, options: &Options, now: Moment) {
        self.bytes_in.set_rate(options.bytes_per_second_in, now);
        self.bytes_out.set_rate(options.bytes_per_second_out, now);
        self.requests.set_per_second(options.requests_per_second.into(), now);
    }
}

impl Admission {
    /// Takes the turn of a request, if requests have a rate limit. The wait is limited as in the queue, in time and in
    /// number; with `requestsPerSecondWait` off there is none.
    pub fn take_turn(&self, options: &Options, now: Moment) -> Turn {
        let Some(rate) = self.rates.requests.rate() else { return Turn::Now };
        let limit = if options.requests_per_second_waits.0 { options.queue.limit } else { 0 };
        let longest = options.queue.timeout.min(rate.time_of(limit.into()));
        let turn = self.rates.requests.take(1, longest, now);
        match turn {
            Turn::Now => {}
            Turn::At(_) => _ = self.queued.fetch_add(1, Ordering::Relaxed),
            Turn::Refused => _ = self.dropped.fetch_add(1, Ordering::Relaxed),
        }
        turn
    }

    /// Returns the turn of a request that has left before it: later requests need not wait for it.
    pub fn return_turn(&self) {
        self.rates.requests.give_back(1);
    }

    /// The turn of a request that was taken at `since` and was to come at `turn`: it is earlier if the rate was raised
    /// since then.
    pub fn turn_of(&self, turn: Moment, since: Moment) -> Moment {
        self.rates.requests.turn_of(turn, since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::options::Queue;
    use std::time::Duration;

    #[test]
    fn a_turn_waits_no_longer_and_behind_no_more_than_in_the_queue() {
        let admission = Admission::default();
        admission.rates.requests.set_per_second(1, Moment::ZERO);
        let at = |seconds: u64| Moment::from_micros(seconds * 1_000_000);
        let take = |limit, timeout, now| {
            let mut options = Options::default();
            options.queue = Queue { limit, timeout: Duration::from_secs(timeout), ..Queue::default() };
            admission.take_turn(&options, at(now))
        };
        assert_eq!(take(2, 10, 0), Turn::Now);
        assert_eq!(take(2, 0, 0), Turn::Refused, "it would wait for a second");
        assert_eq!(take(2, 10, 0), Turn::At(at(1)));
        assert_eq!(take(2, 10, 0), Turn::At(at(2)));
        assert_eq!(take(2, 10, 0), Turn::Refused, "two wait");
        assert_eq!(take(0, 10, 0), Turn::Refused, "none may wait");
        assert_eq!(take(2, 10, 1), Turn::At(at(3)), "one of the two has had its turn");
        assert_eq!((admission.queued.into_inner(), admission.dropped.into_inner()), (3, 3));
    }

    #[test]
    fn the_turns_of_clients_that_leave_are_others() {
        let admission = Admission::default();
        let (options, now) = (Options::default(), Moment::from_micros(1_000_000));
        admission.rates.requests.set_per_second(10, now);
        let taken = (0..300).filter(|_| admission.take_turn(&options, now) != Turn::Refused).count();
        assert!(taken > 100, "{taken}");
        (0..taken).for_each(|_| admission.return_turn());
        assert_eq!(admission.take_turn(&options, now), Turn::Now);
        // What was never taken is no credit.
        (0..100).for_each(|_| admission.return_turn());
        let at_once = (0..100).filter(|_| admission.take_turn(&options, now) == Turn::Now).count();
        assert!(at_once <= 1, "{at_once}");
    }

    #[test]
    fn a_raise_refuses_no_request_for_what_others_have_taken_before() {
        let admission = Admission::default();
        let at = |seconds: u64| Moment::from_micros(seconds * 1_000_000);
        let mut options = Options::default();
        options.queue = Queue { limit: 20, timeout: Duration::from_secs(60), ..Queue::default() };
        options.requests_per_second = 1;
        admission.rates.set(&options, at(1));
        let waiting = (0..21).filter(|_| admission.take_turn(&options, at(1)) != Turn::Refused).count();
        assert_eq!((waiting, admission.take_turn(&options, at(1))), (21, Turn::Refused));
        options.requests_per_second = 1000;
        admission.rates.set(&options, at(1));
        let passed = (0..1000).filter(|step| {
            let now = at(2) + Duration::from_millis(*step);
            admission.take_turn(&options, now) != Turn::Refused
        });
        assert_eq!(passed.count(), 1000);
        assert!(admission.turn_of(at(20), at(1)) < at(2), "who waits goes earlier too");
    }
}
