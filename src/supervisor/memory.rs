//! When which worker is renewed for the memory's sake: a policy without I/O and clock.
//!
//! Past the limit the worker that holds most is renewed, then, if that was not enough, the next one, each once a round.
//! When all have been renewed in vain, the process itself may be; and the pauses grow, so that a limit below what the
//! process needs makes it turn slowly, and say so, rather than storm.

use crate::base::clock::Moment;
use std::time::Duration;

/// The limit counts as kept again below this part of it, in percent: until then the round goes on.
const CALM_PERCENT: u64 = 90;

/// The least time between two renewals, in intervals of looking.
const SHORTEST_PAUSE: u32 = 5;

/// The longest it grows to.
const LONGEST_PAUSE: u32 = 60;

/// How long a worker that has ended is let alone to have given back what it held, in intervals.
const SETTLING: u32 = 2;

/// A round in which nothing was to be decided for so long is over, in intervals: what comes then has another cause.
const FORGOTTEN: u32 = 60;

/// One worker's life. Never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WorkerId(pub(super) u64);

/// A worker as the policy sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) id: WorkerId,
    pub(super) started: Moment,
    /// The memory it says it holds.
    pub(super) bytes: u64,
}

/// The next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Nothing.
    Rest,
    /// This worker gets a successor.
    Renew(WorkerId),
    /// All have been renewed since it began, and it was not enough.
    Exhausted,
}

/// When memory is given back: whenever far less is held than was held before. Not each time a load breathes: threads that
/// allocate meanwhile wait for it, for 20 to 90 ms where 100 MiB are free and for 90 to 200 ms where it is 400 MiB.
#[derive(Debug)]
pub(super) struct MemoryTrim {
    /// The most that was held since memory was given back.
    highest: u64,
    pause: Duration,
    rest_until: Moment,
}

impl MemoryTrim {
    /// Fewest free bytes that are worth a walk through the allocator's lists.
    const LEAST: u64 = 1 << 20;

    /// Looking each `interval`.
    pub(super) fn new(interval: Duration) -> Self {
        Self { highest: 0, pause: interval * SHORTEST_PAUSE, rest_until: Moment::ZERO }
    }

    /// Whether memory is to be given back, where so many bytes are held now.
    pub(super) fn look(&mut self, now: Moment, bytes: u64) -> bool {
        self.highest = self.highest.max(bytes);
        let has_fallen = self.highest - bytes >= Self::LEAST.max(self.highest / 4) && now >= self.rest_until;
        if has_fallen {
            self.highest = bytes;
            self.rest_until = now + self.pause;
        }
        has_fallen
    }
}

/// The decisions so far.
#[derive(Debug)]
pub(super) struct MemoryPolicy {
    limit: u64,
    interval: Duration,
    /// When the present round began.
    round: Option<Moment>,
    rest_until: Moment,
    pause: u32,
}

impl MemoryPolicy {
    /// Keeps to `limit` bytes, looking each `interval`.
    pub(super) fn new(limit: u64, interval: Duration) -> Self {
        Self { limit, interval, round: None, rest_until: Moment::ZERO, pause: SHORTEST_PAUSE }
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// Decides. `resident` is what the process holds, in bytes; `is_draining`: the worker renewed last has yet to end,
    /// and so to give back what it holds.
    pub(super) fn decide(
        &mut self,
        now: Moment,
        resident: u64,
        candidates: &[Candidate],
        is_draining: bool,
    ) -> Decision {
        if resident <= self.limit / 100 * CALM_PERCENT || self.rest_until + self.interval * FORGOTTEN < now {
            self.round = None;
            self.pause = SHORTEST_PAUSE;
        }
        if is_draining {
            self.rest_until = self.rest_until.max(now + self.interval * SETTLING);
        }
        if resident <= self.limit || now < self.rest_until {
            return Decision::Rest;
        }
        let began = *self.round.get_or_insert(now);
        self.rest_until = now + self.interval * self.pause;
        let left = candidates.iter().filter(|candidate| candidate.started < began);
        match left.max_by_key(|candidate| (candidate.bytes, std::cmp::Reverse(candidate.started))) {
            Some(candidate) => Decision::Renew(candidate.id),
            None => {
                self.round = None;
                self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                self.rest_until = now + self.interval * self.pause;
                Decision::Exhausted
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(1);

    fn at(second: u64) -> Moment {
        Moment::ZERO + Duration::from_secs(second)
    }

    fn candidate(id: u64, started: u64, bytes: u64) -> Candidate {
        Candidate { id: WorkerId(id), started: at(started), bytes }
    }

    #[test]
    fn decisions() {
        use Decision::{Exhausted, Renew, Rest};
        let mut policy = MemoryPolicy::new(1000, INTERVAL);
        let both = [candidate(1, 0, 10), candidate(2, 0, 20)];
        let second_is_new = [candidate(1, 0, 10), candidate(3, 11, 900)];
        let all_new = [candidate(4, 17, 10), candidate(3, 11, 900)];
        let since_42 = [candidate(5, 43, 10), candidate(6, 44, 20)];
        type Row<'a> = (u64, u64, &'a [Candidate], bool, Decision);
        let table: [Row<'_>; 14] = [
            (1, 1000, &both, false, Rest),
            (10, 1001, &both, false, Renew(WorkerId(2))),
            (11, 1001, &second_is_new, false, Rest),
            (15, 1001, &second_is_new, true, Rest),
            // Its memory has only just been freed.
            (16, 1001, &second_is_new, false, Rest),
            // Below the limit, and yet not so far that a new round would begin.
            (16, 950, &second_is_new, false, Rest),
            (17, 1001, &second_is_new, false, Renew(WorkerId(1))),
            (22, 1001, &all_new, false, Exhausted),
            (31, 1001, &all_new, false, Rest),
            (32, 1001, &all_new, false, Renew(WorkerId(3))),
            (33, 900, &all_new, false, Rest),
            (42, 1001, &all_new, false, Renew(WorkerId(3))),
            // All are new in this round, so all would have been renewed in vain; but it is forgotten.
            (107, 950, &since_42, false, Rest),
            (108, 1001, &since_42, false, Renew(WorkerId(6))),
        ];
        for (second, resident, candidates, is_draining, expected) in table {
            let found = policy.decide(at(second), resident, candidates, is_draining);
            assert_eq!(found, expected, "at {second} s with {resident} bytes");
        }
        assert_eq!(policy.pause, SHORTEST_PAUSE);
    }

    #[test]
    fn memory_is_given_back_when_a_load_has_gone_and_not_each_time_it_breathes() {
        const MIB: u64 = 1 << 20;
        let mut memory_trim = MemoryTrim::new(INTERVAL);
        let table = [
            (0, 2 * MIB, false),
            (1, 40 * MIB, false),
            (2, 35 * MIB, false),
            (3, 40 * MIB, false),
            (4, 30 * MIB, true),
            (5, 29 * MIB, false),
            (8, MIB, false),
            (9, MIB, true),
            (15, 0, true),
            (20, MIB / 2, false),
            (21, 0, false),
        ];
        for (second, bytes, expected) in table {
            assert_eq!(memory_trim.look(at(second), bytes), expected, "{bytes} bytes at {second} s after {table:?}");
        }
    }

    /// With any course of the memory, no worker is replaced below the limit, twice in a round, or before the pause is
    /// over; the cost of a limit that is always exceeded is bounded; and a load that ends leaves nothing behind.
    #[test]
    fn no_storm_whatever_happens() {
        for seed in 0..200 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let workers = rng.u64(1..6);
            let always = rng.bool();
            let mut policy = MemoryPolicy::new(1000, INTERVAL);
            let mut candidates: Vec<_> = (0..workers).map(|id| candidate(id, 0, rng.u64(..500))).collect();
            let (mut next_id, mut draining_until, mut last, mut renewals) = (workers, 0, None::<u64>, 0);
            let seconds = 3600;
            for second in 1..seconds {
                let resident = if always { 1500 } else { rng.u64(500..1500) };
                let decision = policy.decide(at(second), resident, &candidates, second < draining_until);
                if decision != Decision::Rest {
                    assert!(resident > 1000 && second >= draining_until, "seed {seed}: {decision:?} at {second}");
                    let pause = last.map_or(u64::MAX, |last| second - last);
                    assert!(pause >= u64::from(SHORTEST_PAUSE), "seed {seed}: {pause} s after the last one");
                    last = Some(second);
                }
                if let Decision::Renew(id) = decision {
                    renewals += 1;
                    let place = candidates.iter().position(|candidate| candidate.id == id).expect("one of them");
                    candidates[place] = candidate(next_id, second, rng.u64(..500));
                    next_id += 1;
                    draining_until = second + rng.u64(..20);
                }
            }
            let bound = seconds / u64::from(SHORTEST_PAUSE);
            assert!(renewals > workers && renewals < bound, "seed {seed}: {renewals} renewals");
            if always && workers == 1 {
                assert!(renewals < 2 * seconds / u64::from(LONGEST_PAUSE), "seed {seed}: {renewals} renewals");
            }
        }
    }
}
