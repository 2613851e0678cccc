//! A limit of bytes a second, shared by all cores.
//!
//! Bytes are counted after they have passed, and their flow waits until they are paid for at the rate. So flows take
//! turns in the order in which they have counted. Over any time `t`, at most `rate * t` bytes, the burst, and one read
//! of each flow pass.

use super::clock::Moment;
use super::rate_limiter::{RateLimiter, Turn};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The smallest burst, in bytes.
const MIN_BURST: u64 = 16 * 1024;

/// The bytes that a flow pays for in advance, so a small read needs no atomic operation.
const ADVANCE: u64 = 4 * 1024;

/// The rate, and the bytes counted so far. `Default` has no limit.
#[derive(Debug)]
pub struct Pacer {
    limiter: RateLimiter,
    bytes: AtomicU64,
    waits: AtomicU64,
}

/// The state of one flow: bytes that are paid for and have not passed yet.
#[derive(Debug, Default)]
pub struct Credit(u64);

impl Default for Pacer {
    fn default() -> Self {
        Self { limiter: RateLimiter::new(MIN_BURST), bytes: AtomicU64::new(0), waits: AtomicU64::new(0) }
    }
}

impl Pacer {
    /// Sets the rate in bytes a second from `now` on; 0 for no limit. Bytes that have passed are paid for at the new rate.
    pub fn set_rate(&self, rate: u64, now: Moment) {
        self.limiter.set_per_second(rate, now);
    }

    /// The end of a wait that began at `since` and was to end at `until`: it is earlier if the rate was raised since then,
    /// and never later. A flow asks once in [`LOOK`](super::rate_limiter::LOOK).
    pub fn end_of_wait(&self, until: Moment, since: Moment) -> Moment {
        self.limiter.turn_of(until, since)
    }

    /// The rate in bytes a second; 0 for no limit.
    pub fn rate(&self) -> u64 {
        self.limiter.per_second()
    }

    /// The number of counted bytes, and of waits.
    pub fn totals(&self) -> (u64, u64) {
        (self.bytes.load(Ordering::Relaxed), self.waits.load(Ordering::Relaxed))
    }

    /// Counts bytes of a flow that have passed at `now`; 0 before the first read. Returns the moment from which the
    /// flow may pass more bytes, if that is later than `now`.
    pub fn count(&self, credit: &mut Credit, bytes: usize, now: Moment) -> Option<Moment> {
        if self.rate() == 0 {
            return None;
        }
        let bytes = bytes as u64;
        if bytes < credit.0 {
            credit.0 -= bytes;
            return None;
        }
        let charged = bytes - credit.0 + ADVANCE;
        credit.0 = ADVANCE;
        self.bytes.fetch_add(charged, Ordering::Relaxed);
        match self.limiter.take(charged, Duration::MAX, now) {
            Turn::At(until) => {
                self.waits.fetch_add(1, Ordering::Relaxed);
                Some(until)
            }
            Turn::Now | Turn::Refused => None,
        }
    }

    /// Ends a flow: bytes that it has paid for in advance are returned.
    pub fn end(&self, credit: Credit) {
        if self.rate() > 0 && credit.0 > 0 {
            self.bytes.fetch_sub(credit.0, Ordering::Relaxed);
            self.limiter.give_back(credit.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;
    use std::time::Duration;

    /// Simulates flows that always have more bytes, in reads of up to `read`, for ten seconds. Returns the bytes of
    /// each.
    fn play(pacer: &Pacer, flows: usize, read: usize, seed: u64, check: impl Fn(u64, Moment)) -> Vec<u64> {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut credits: Vec<_> = (0..flows).map(|_| Credit::default()).collect();
        let (mut passed, mut turns) = (vec![0; flows], BinaryHeap::new());
        for (flow, credit) in credits.iter_mut().enumerate() {
            turns.push(Reverse((pacer.count(credit, 0, Moment::ZERO).unwrap_or(Moment::ZERO), flow)));
        }
        while let Some(Reverse((now, flow))) = turns.pop()
            && now.as_micros() <= 10_000_000
        {
            let bytes = random.usize(1..=read);
            passed[flow] += bytes as u64;
            check(passed.iter().sum(), now);
            let until = pacer.count(&mut credits[flow], bytes, now);
            // Without a wait, the next read comes a moment later.
            turns.push(Reverse((until.unwrap_or(now + Duration::from_micros(1)), flow)));
        }
        credits.into_iter().for_each(|credit| pacer.end(credit));
        passed
    }

    #[test]
    fn the_rate_is_kept_used_up_and_shared() {
        for (rate, flows, read) in
            [(100_000, 1, 16_384), (1_000_000, 20, 16_384), (50_000_000, 7, 16_384), (20_000, 50, 500)]
        {
            let pacer = Pacer::default();
            pacer.set_rate(rate, Moment::ZERO);
            let burst = MIN_BURST.max(rate / 10);
            let passed = play(&pacer, flows, read, rate, |bytes, now| {
                let most = rate * now.as_micros() / 1_000_000 + burst + (flows * read) as u64;
                assert!(bytes <= most, "{rate}: {bytes} bytes at {now:?}");
            });
            let sum: u64 = passed.iter().sum();
            assert!(sum >= rate * 10 * 97 / 100, "{rate}: only {sum} bytes in 10 s");
            let fair = sum / flows as u64;
            assert!(
                passed.iter().all(|bytes| bytes.abs_diff(fair) <= fair / 4 + 2 * read as u64 + ADVANCE),
                "{rate}: {passed:?}"
            );
            assert_eq!(pacer.totals().0, sum, "what was paid in advance is given back");
        }
    }

    #[test]
    fn a_flow_that_is_late_makes_up_for_it_within_the_burst() {
        let (pacer, mut credit) = (Pacer::default(), Credit::default());
        pacer.set_rate(1_000_000, Moment::ZERO);
        let mut now = Moment::ZERO;
        // Its timer has a step of 5 ms.
        let (mut bytes, end) = (0, Moment::from_micros(10_000_000));
        pacer.count(&mut credit, 0, now);
        while now < end {
            bytes += 1000;
            if let Some(until) = pacer.count(&mut credit, 1000, now) {
                now = Moment::from_micros(until.as_micros().next_multiple_of(5000));
            }
        }
        assert!((9_900_000..10_200_000).contains(&bytes), "{bytes}");
    }

    #[test]
    fn without_a_rate_nothing_waits_and_a_rate_may_change() {
        let (pacer, mut credit) = (Pacer::default(), Credit::default());
        assert_eq!(pacer.count(&mut credit, 1 << 30, Moment::ZERO), None);
        assert_eq!(pacer.totals(), (0, 0));
        pacer.set_rate(1_000, Moment::ZERO);
        // 20,096 bytes with the advance take 20.096 s, of which the burst of 16 KiB is at once.
        let until = pacer.count(&mut credit, 16_000, Moment::ZERO).expect("a wait");
        assert_eq!(until, Moment::from_micros(20_096_000 - 16_384_000));
        pacer.set_rate(0, Moment::ZERO);
        assert_eq!(pacer.count(&mut credit, 1 << 30, Moment::ZERO), None);
    }

    #[test]
    fn a_raise_counts_for_flows_that_wait() {
        let (pacer, mut credit) = (Pacer::default(), Credit::default());
        pacer.set_rate(1_000, Moment::ZERO);
        let until = pacer.count(&mut credit, 1_000_000, Moment::ZERO).expect("a wait");
        assert!(until.since(Moment::ZERO) > Duration::from_secs(900), "{until:?}");
        let raised = Moment::ZERO + Duration::from_secs(10);
        pacer.set_rate(1_000_000, raised);
        let earlier = pacer.end_of_wait(until, Moment::ZERO);
        assert!(earlier.since(raised) < Duration::from_secs(1), "{earlier:?}");
        // The next flow pays for its own bytes, and for what is unpaid at the new rate.
        let other = pacer.count(&mut Credit::default(), 1000, raised).expect("a wait");
        assert!(other.since(raised) < Duration::from_secs(1), "{other:?}");
    }

    #[test]
    fn threads_count_every_byte() {
        let pacer = Pacer::default();
        pacer.set_rate(1_000_000, Moment::ZERO);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut credit = Credit::default();
                    (0..10_000).for_each(|_| _ = pacer.count(&mut credit, 1000, Moment::ZERO));
                    pacer.end(credit);
                });
            }
        });
        assert_eq!(pacer.totals().0, 40_000_000);
        // The next flow waits for the bytes of all flows and for its own, less the burst.
        let until = pacer.count(&mut Credit::default(), 1000, Moment::ZERO).expect("a wait");
        let expected = 40_000_000 + 1000 + ADVANCE - 100_000;
        assert!(until.as_micros().abs_diff(expected) < 1000, "{until:?}");
    }
}
