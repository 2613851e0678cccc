//! `chance`: the first member of the list that has room, so one backend fills before the next is used. Source: x0d.
//! Slow start affects it only through the capacity.

use super::Candidates;

pub(super) fn pick(candidates: &Candidates<'_>) -> Option<usize> {
    candidates.open().next()
}
