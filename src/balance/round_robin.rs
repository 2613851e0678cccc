//! `rr`: smooth weighted round robin, one rotation for all cores.

use super::Candidates;

/// Takes the next turn. A member that may not serve, or is still held back by slow start, is passed over.
pub(super) fn pick(candidates: &Candidates<'_>, rng: &mut fastrand::Rng) -> Option<usize> {
    let rotation = candidates.cluster.rotation();
    for _ in 0..rotation.len() {
        let place = rotation.turn(candidates.cluster.admission.next_turn())?;
        if candidates.is_eligible(place) && candidates.passes_ramp(place, rng) {
            return Some(place);
        }
    }
    candidates.eligible().next()
}
