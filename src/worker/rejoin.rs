//! Exchanges that another process has begun. They continue at once, and are counted at their members once the routes of their
//! hosts are known: an unknown host, or a look-up that failed, is looked up again.

use crate::base::clock::Moment;
use crate::base::gen_slab::SlotKey;
use std::collections::BTreeSet;
use std::time::Duration;

/// The time until the next look-up of the routes that are missing. A change of routes shortens it.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Exchanges whose members are not known yet.
#[derive(Debug, Default)]
pub(super) struct Rejoining {
    missing: BTreeSet<SlotKey>,
    look_at: Option<Moment>,
}

impl Rejoining {
    /// The moment of the next look-up; [`Moment::NEVER`] for none.
    pub(super) fn next(&self) -> Moment {
        self.look_at.unwrap_or(Moment::NEVER)
    }

    /// The member of an exchange is not known.
    pub(super) fn look_later(&mut self, job: SlotKey, now: Moment) {
        self.missing.insert(job);
        self.look_at.get_or_insert(now + RETRY_AFTER);
    }

    /// The exchanges to look up, if that is due.
    pub(super) fn take_due(&mut self, now: Moment) -> BTreeSet<SlotKey> {
        if self.next() > now {
            return BTreeSet::new();
        }
        self.look_at = None;
        std::mem::take(&mut self.missing)
    }

    /// Routes have changed: one that was missing may be there.
    pub(super) fn note_change(&mut self, now: Moment) {
        if !self.missing.is_empty() {
            self.look_at = Some(now);
        }
    }
}
