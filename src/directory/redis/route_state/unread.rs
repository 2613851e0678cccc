//! Hosts whose replies were not read to their end, because they were too long or too slow. They are not read for a
//! while: each attempt costs a connection, and delays all others.

use super::super::TOO_LONG_FOR;
use super::{LookupResult, RouteState};
use crate::base::clock::Moment;
use crate::base::reason::FailureReason;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// The greatest number of hosts that are remembered. Further ones may be queried again at once.
const MAX_UNREAD: usize = 10_000;

/// The hosts, and when each may be queried again.
#[derive(Debug, Default)]
pub(super) struct Unread {
    reasons: HashMap<Arc<str>, FailureReason>,
    queue: VecDeque<(Moment, Arc<str>)>,
}

impl Unread {
    /// Why a host is not queried at present, if it is not.
    pub(super) fn reason(&self, host: &str) -> Option<FailureReason> {
        self.reasons.get(host).copied()
    }

    /// When the next host may be queried again.
    pub(super) fn next(&self) -> Option<Moment> {
        self.queue.front().map(|(until, _)| *until)
    }

    fn note(&mut self, host: &Arc<str>, reason: FailureReason, now: Moment) {
        if self.queue.len() < MAX_UNREAD && self.reasons.insert(Arc::clone(host), reason).is_none() {
            self.queue.push_back((now + TOO_LONG_FOR, Arc::clone(host)));
        }
    }

    /// Allows a host to be queried at once. Returns whether it was excluded. Its entry in the queue stays and does no
    /// harm.
    pub(super) fn forget(&mut self, host: &str) -> bool {
        self.reasons.remove(host).is_some()
    }

    /// Allows all hosts to be queried whose server could not be asked. Their entries in the queue stay and do no harm.
    pub(super) fn forget_away(&mut self) {
        self.reasons.retain(|_, reason| *reason != FailureReason::RouteSourceDown);
    }

    fn take_due(&mut self, now: Moment) -> Option<Arc<str>> {
        self.next().filter(|until| *until <= now)?;
        let (_, host) = self.queue.pop_front()?;
        self.reasons.remove(&host);
        Some(host)
    }
}

impl RouteState {
    /// Handles a reading that was not complete: the known data of the host stays.
    pub(super) fn found_unread(&mut self, host: &Arc<str>, reason: FailureReason, now: Moment) -> LookupResult {
        self.unread.note(host, reason, now);
        let known = self.catalog.peek(host).or_else(|| self.restore(host, now));
        known.map_or(LookupResult::Failed(reason), LookupResult::Found)
    }

    /// Schedules hosts of a batch again that were not read. The next reply shows writes made meanwhile.
    pub(super) fn ask_again(&mut self, hosts: Vec<Arc<str>>) {
        // The checker's heartbeat is read at the end of a batch.
        self.checker_wanted |= !hosts.is_empty();
        for host in hosts {
            if let Some(pending) = self.pending.get_mut(&host) {
                (pending.in_flight, pending.tainted) = (false, false);
                let later = std::mem::take(&mut pending.later);
                pending.askers.extend(later);
                self.queues.push(host, pending);
            }
        }
    }

    /// Reads hosts in use again once their time is over; other hosts are read when they are requested.
    pub(super) fn read_the_unread(&mut self, now: Moment) {
        while let Some(host) = self.unread.take_due(now) {
            self.read_again(host);
        }
    }
}
