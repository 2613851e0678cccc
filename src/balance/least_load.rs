//! `leastLoad`: the member with the most free slots (x0d), or without capacities the one with the fewest requests in
//! flight for its share.

use super::Candidates;
use std::cmp::Reverse;

/// From this number of members on, the better of two random members is taken. That spreads the load as well, at a cost
/// independent of the number of members (M. Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing").
const MANY: usize = 32;

/// Number of pairs drawn before all members are examined.
const DRAWS: usize = 4;

pub(super) fn pick(candidates: &Candidates<'_>, rng: &mut fastrand::Rng) -> Option<usize> {
    let count = candidates.len();
    if count >= MANY {
        for _ in 0..DRAWS {
            let pair = [rng.usize(..count), rng.usize(..count)];
            let better = pair.into_iter().filter(|place| candidates.is_open(*place));
            if let Some(place) = better.min_by_key(|place| load(candidates, *place)) {
                return Some(place);
            }
        }
    }
    // Among equal loads the start of the scan decides: an idle cluster uses all members.
    let start = if candidates.cluster.has_capacities() { 0 } else { rng.usize(..count.max(1)) };
    let places = (start..count).chain(0..start).filter(|place| candidates.is_open(*place));
    places.min_by_key(|place| load(candidates, *place))
}

/// The load for comparison, the least first: members without a capacity before those with one, then by free slots, then
/// by requests for each share.
fn load(candidates: &Candidates<'_>, place: usize) -> (Reverse<u64>, u64) {
    let member = &candidates.cluster.members[place];
    let in_flight = candidates.in_flight(place);
    let usable = member.usable_capacity(candidates.cluster.options.slow_start, candidates.now);
    if usable == u32::MAX {
        // Idle members are equal, whatever their weight.
        let requests = if in_flight == 0 { 0 } else { in_flight + 1 };
        return (Reverse(u64::MAX), requests * (1 << 32) / candidates.share(place).max(1));
    }
    (Reverse(u64::from(usable).saturating_sub(in_flight)), 0)
}
