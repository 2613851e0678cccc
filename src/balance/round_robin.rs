//! `rr`: smooth weighted round robin, one rotation for all cores.

use super::Candidates;

/// Turns that are passed over before all members are walked.
const MAX_PASSED: usize = 16;

/// The whole of a share.
const FULL: u32 = 1024;

/// Takes the next turn. A member that is not open is passed over, and one in its slow start as often as its share says,
/// measured by the largest share of those that were met: so members that all have just started take even turns.
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
                // Those behind begin where this one ends: else the next of a member that is out has its turns too.
                admission.pass_turns(passed);
                return Some(place);
            }
        }
    }
    walk(candidates, first)
}

/// The largest share that slow start lets an open member have. Members are looked at only where one has less than all.
fn largest_ramp(candidates: &Candidates<'_>, ramp: u32) -> u32 {
    if ramp >= FULL { ramp } else { candidates.open().map(|place| candidates.ramp(place)).max().unwrap_or(ramp) }
}

/// Where few of many are open: each of these has turns by its share.
#[cold]
fn walk(candidates: &Candidates<'_>, turn: usize) -> Option<usize> {
    let total: u64 = candidates.open().map(|place| candidates.share(place)).sum();
    // Neighbouring turns are to be different members: the turn is spread over the whole.
    let mut left = (turn as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).checked_rem(total)?;
    candidates.open().find(|place| {
        let share = candidates.share(*place);
        let is_it = left < share;
        left = left.saturating_sub(share);
        is_it
    })
}
