//! `chance`: the first of the list that has room, so one backend fills before the next is touched. Source: x0d.

use super::Candidates;

pub(super) fn pick(candidates: &Candidates<'_>) -> Option<usize> {
    candidates.eligible().next()
}
