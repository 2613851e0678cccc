//! `chance`: the first of the list that has room, so one backend fills before the next is touched. Source: x0d. Slow start
//! has a part in it only by the capacity.

use super::Candidates;

pub(super) fn pick(candidates: &Candidates<'_>) -> Option<usize> {
    candidates.open().next()
}
