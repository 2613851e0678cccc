//! `rr`: smooth weighted round robin, one rotation for all cores.

use super::Candidates;

/// Number of turns skipped before all members are examined.
const MAX_PASSED: usize = 16;

/// A full share.
const FULL: u32 = 1024;

/// Takes the next turn. A member that is not open is skipped. A member in slow start is skipped with a probability that
/// depends on its share, relative to the largest share of the open members: so members that all have just started get
/// equal turns.
pub(super) fn pick(candidates: &Candidates<'_>, rng: &mut fastrand::Rng) -> Option<usize> {
    let (rotation, admission) = (candidates.cluster.rotation(), &candidates.cluster.admission);
    let first = admission.next_turn();
    let mut most = None;
    for passed in 0..rotation.count().min(MAX_PASSED) {
        let place = rotation.turn(first.wrapping_add(passed))?;
        if candidates.is_open(place) {
            let ramp = candidates.ramp(place);
            let whole = *most.get_or_insert_with(|| largest_ramp(candidates, ramp));
            if ramp >= whole || rng.u32(..whole) < ramp {
                // Later requests continue behind this turn: otherwise the successor of a closed member would get the
                // closed member's turns too.
                admission.pass_turns(passed);
                return Some(place);
            }
        }
    }
    walk(candidates, first)
}

/// The largest share that slow start leaves an open member. The members are examined only if this one has less than a
/// full share.
fn largest_ramp(candidates: &Candidates<'_>, ramp: u32) -> u32 {
    if ramp >= FULL { ramp } else { candidates.open().map(|place| candidates.ramp(place)).max().unwrap_or(ramp) }
}

/// Chooses by share among the open members, when few of many are open.
#[cold]
fn walk(candidates: &Candidates<'_>, turn: usize) -> Option<usize> {
    let total: u64 = candidates.open().map(|place| candidates.share(place)).sum();
    // Neighbouring turns should select different members, so the turn is spread over the whole range.
    let mut left = (turn as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).checked_rem(total)?;
    candidates.open().find(|place| {
        let share = candidates.share(*place);
        let is_it = left < share;
        left = left.saturating_sub(share);
        is_it
    })
}
