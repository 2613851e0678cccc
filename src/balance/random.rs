//! `random`: each member with a probability proportional to its weight. Source: Hipache, where all weights are equal.

use super::Candidates;

/// Number of random places tried before all members are examined.
const PROBES: usize = 4;

/// A place drawn at random is accepted with the probability of its share, so each member is chosen in proportion to its
/// share. Most requests examine one or two members, whatever the number of members.
pub(super) fn pick(candidates: &Candidates<'_>, rng: &mut fastrand::Rng) -> Option<usize> {
    let whole = u64::from(candidates.cluster.max_weight()) * 1024;
    for _ in 0..PROBES {
        let place = rng.usize(..candidates.len().max(1));
        if candidates.is_open(place) {
            let share = candidates.share(place);
            if share >= whole || rng.u64(..whole) < share {
                return Some(place);
            }
        }
    }
    walk(candidates, rng)
}

fn walk(candidates: &Candidates<'_>, rng: &mut fastrand::Rng) -> Option<usize> {
    let total: u64 = candidates.open().map(|place| candidates.share(place)).sum();
    if total == 0 {
        return None;
    }
    let mut left = rng.u64(..total);
    candidates.open().find(|place| {
        let share = candidates.share(*place);
        let is_it = left < share;
        left = left.saturating_sub(share);
        is_it
    })
}
