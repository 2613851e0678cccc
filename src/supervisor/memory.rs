//! The choice of workers to replace for their memory: a policy without I/O and clock.
//!
//! Above the limit, the worker with the most memory is replaced, then, if that did not suffice, the next one, each once
//! a round. If replacing all of them did not suffice, the process itself may be replaced. Pauses grow, so that a limit
//! below the needs of the process leads to slow, logged replacements and not to a storm.

use crate::base::clock::Moment;
use std::time::Duration;

/// The round ends when memory falls below this percentage of the limit.
const CALM_PERCENT: u64 = 90;

/// The shortest pause between two replacements, in check intervals.
const SHORTEST_PAUSE: u32 = 5;

/// The longest pause between two replacements, in check intervals.
const LONGEST_PAUSE: u32 = 60;

/// Check intervals after the end of a worker until its memory counts as freed.
const SETTLING: u32 = 2;

/// Check intervals without a decision after which a round is over: a later excess has another cause.
const FORGOTTEN: u32 = 60;

/// The id of one worker. Ids are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WorkerId(pub(super) u64);

/// A worker in the view of the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) id: WorkerId,
    pub(super) started: Moment,
    /// The memory that it reports.
    pub(super) bytes: u64,
}

/// The next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Nothing.
    Rest,
    /// This worker gets a successor.
    Renew(WorkerId),
    /// All workers have been replaced in this round, and it did not suffice.
    Exhausted,
}

/// When free memory is returned to the system: whenever far less is used than before. It does not happen at every
/// fluctuation of the load, since threads that allocate wait for it: 20 to 90 ms for 100 MiB of free memory, 90 to 200
/// ms for 400 MiB.
#[derive(Debug)]
pub(super) struct MemoryTrim {
    /// The greatest use since memory was last returned.
    highest: u64,
    pause: Duration,
    rest_until: Moment,
}

impl MemoryTrim {
    /// The least number of free bytes that justify a walk through the allocator's lists.
    const LEAST: u64 = 1 << 20;

    /// A state for checks at each `interval`.
    pub(super) fn new(interval: Duration) -> Self {
        Self { highest: 0, pause: interval * SHORTEST_PAUSE, rest_until: Moment::ZERO }
    }

    /// Whether memory should be returned, given the bytes in use now.
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

/// The policy and its state.
#[derive(Debug)]
pub(super) struct MemoryPolicy {
    limit: u64,
    interval: Duration,
    /// The start of the current round.
    round: Option<Moment>,
    rest_until: Moment,
    pause: u32,
}

impl MemoryPolicy {
    /// A policy for a limit of `limit` bytes, checked at each `interval`.
    pub(super) fn new(limit: u64, interval: Duration) -> Self {
        Self { limit, interval, round: None, rest_until: Moment::ZERO, pause: SHORTEST_PAUSE }
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// Decides. `resident` is the memory of the process in bytes; `is_draining`: the worker replaced last has not
    /// ended, so its memory is still in use.
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
            // Its memory was freed only just now.
            (16, 1001, &second_is_new, false, Rest),
            // Below the limit, but not low enough to end the round.
            (16, 950, &second_is_new, false, Rest),
            (17, 1001, &second_is_new, false, Renew(WorkerId(1))),
            (22, 1001, &all_new, false, Exhausted),
            (31, 1001, &all_new, false, Rest),
            (32, 1001, &all_new, false, Renew(WorkerId(3))),
            (33, 900, &all_new, false, Rest),
            (42, 1001, &all_new, false, Renew(WorkerId(3))),
            // All workers are new in this round, so the round would be exhausted; but the round is over by age.
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

    /// Whatever the memory does, no worker is replaced below the limit, twice in a round, or before the pause is over;
    /// a limit that is always exceeded has a bounded cost; and a load that ends leaves no state behind.
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
