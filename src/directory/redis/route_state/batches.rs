//! The hosts to read next. Those that requests of good clients wait for come first, but they leave room for others: for
//! hosts that were written to, and for those that are only compared.

use super::{Batch, ConnectionState, Pending, RouteState};
use std::collections::VecDeque;
use std::sync::Arc;

/// Number of hosts that are read at once.
const BATCH: usize = 256;
/// The part of a batch that is reserved for hosts that were written to, if there are any.
const SHARE_EDITED: usize = 96;
/// The part of a batch that is reserved for hosts that no request waits for, if there are any.
const SHARE_IDLE: usize = 32;
/// The greatest number of hosts in a batch that no request waits for.
const BATCH_IDLE: usize = 128;
/// The greatest number of hosts in a batch from clients with recent misses, besides those of other clients.
const BATCH_SUSPECT: usize = 64;

/// The hosts to read, in the order of the batches.
#[derive(Debug, Default)]
pub(super) struct Queues {
    /// Hosts that requests wait for.
    pub(super) urgent: VecDeque<Arc<str>>,
    /// Hosts requested by clients that have recently asked for unknown hosts.
    pub(super) suspect: VecDeque<Arc<str>>,
    /// Known hosts that were written to.
    pub(super) edited: VecDeque<Arc<str>>,
    /// Hosts that are only compared.
    pub(super) idle: VecDeque<Arc<str>>,
}

impl Queues {
    /// Queues a host that is read again: as it is waited for, or not.
    pub(super) fn push(&mut self, host: Arc<str>, pending: &Pending) {
        let queue = if pending.askers.is_empty() { &mut self.edited } else { &mut self.urgent };
        queue.push_back(host);
    }
}

impl RouteState {
    /// The next batch to read, if there is one and none is in flight.
    pub(in crate::directory::redis) fn take_batch(&mut self) -> Option<Batch> {
        if self.connection != ConnectionState::Up || self.in_flight {
            return None;
        }
        let mut hosts = Vec::new();
        // An edit of a wildcard may affect very many hosts.
        let for_idle = SHARE_IDLE.min(self.queues.idle.len() + self.restored.unverified_count());
        let for_suspects = BATCH_SUSPECT.min(self.queues.suspect.len());
        let for_edited = SHARE_EDITED.min(self.queues.edited.len());
        self.send_from(|queues| &mut queues.urgent, BATCH - for_idle - for_edited, &mut hosts);
        self.send_from(|queues| &mut queues.edited, BATCH - for_idle - for_suspects, &mut hosts);
        self.send_from(|queues| &mut queues.urgent, BATCH - for_idle, &mut hosts);
        let limit = (hosts.len() + BATCH_SUSPECT).min(BATCH - for_idle);
        self.send_from(|queues| &mut queues.suspect, limit, &mut hosts);
        let limit = (hosts.len() + BATCH_IDLE).min(BATCH);
        self.send_from(|queues| &mut queues.idle, limit, &mut hosts);
        while hosts.len() < limit
            && let Some(host) = self.restored.next_unverified()
        {
            if !self.catalog.contains(&host) && !self.pending.contains_key(&host) {
                self.pending.insert(Arc::clone(&host), Pending::default());
                self.send(host, &mut hosts);
            }
        }
        let checker = std::mem::take(&mut self.checker_wanted);
        let confirms = hosts.iter().any(|host| self.pending.get(host).is_some_and(|pending| pending.confirms));
        if hosts.is_empty() && !checker {
            return None;
        }
        self.ticket += 1;
        self.in_flight = true;
        Some(Batch { ticket: self.ticket, hosts, checker, confirms })
    }

    /// Fills a batch up to this size from a queue.
    fn send_from(
        &mut self,
        queue: impl Fn(&mut Queues) -> &mut VecDeque<Arc<str>>,
        size: usize,
        hosts: &mut Vec<Arc<str>>,
    ) {
        while hosts.len() < size
            && let Some(host) = queue(&mut self.queues).pop_front()
        {
            self.send(host, hosts);
        }
    }

    fn send(&mut self, host: Arc<str>, hosts: &mut Vec<Arc<str>>) {
        if let Some(pending) = self.pending.get_mut(&host).filter(|pending| !pending.in_flight) {
            pending.in_flight = true;
            hosts.push(host);
        }
    }

    /// Queues a host that was read.
    pub(super) fn queue_again(&mut self, host: Arc<str>, pending: Pending) {
        self.queues.push(Arc::clone(&host), &pending);
        self.pending.insert(host, pending);
    }
}
