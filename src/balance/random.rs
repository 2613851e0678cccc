//! `random`: each member as likely as its weight. Source: Hipache, where all weigh the same.

use super::Candidates;

/// Random places that are looked at before all members are walked.
const PROBES: usize = 4;

/// A place that is drawn at random and kept with the probability of its share is as likely as that share, so most requests
/// look at one or two members, however many there are.
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
