//! The last resort of every scheduler: the member whose dead mark by this node ends first. Source: Hipache.

use super::Candidates;

pub(super) fn pick(candidates: &Candidates<'_>) -> Option<usize> {
    let role = |place: usize| candidates.cluster.members[place].role();
    candidates.open().min_by_key(|place| {
        let backend = candidates.cluster.members[*place].backend.id();
        let mark = candidates.demand.route.mark_of(backend);
        (role(*place) as u8, mark.and_then(|mark| mark.dead_until(candidates.now)))
    })
}
