//! The facts of an exchange for log, counters and `X-Debug`. States write it; nothing decides by it.

use crate::base::clock::Moment;
use crate::base::reason::Reason;
use crate::cluster::Frontend;
use std::sync::Arc;
use std::time::Duration;

/// The facts of one exchange.
#[derive(Debug)]
pub struct Ledger {
    /// When the first byte of the head was read.
    pub started: Moment,
    /// The status that the client was told; 0 while none was.
    pub status: u16,
    /// Why the exchange ended otherwise than by a backend's answer.
    pub reason: Option<Reason>,
    /// Bytes that left for the client, heads included (Hipache logs the same).
    pub bytes_to_client: u64,
    /// The frontend and the place of the member that was chosen last.
    pub target: Option<(Arc<Frontend>, usize)>,
    /// When that member was chosen.
    backend_started: Option<Moment>,
    backend_ended: Option<Moment>,
}

impl Ledger {
    pub(super) fn new(now: Moment) -> Self {
        Self {
            started: now,
            status: 0,
            reason: None,
            bytes_to_client: 0,
            target: None,
            backend_started: None,
            backend_ended: None,
        }
    }

    /// The first reason is the one that counts.
    pub(super) fn fail(&mut self, reason: Reason) {
        self.reason.get_or_insert(reason);
    }

    pub(super) fn chose(&mut self, frontend: &Arc<Frontend>, member: usize, now: Moment) {
        match &mut self.target {
            Some((known, place)) if Arc::ptr_eq(known, frontend) => *place = member,
            target => *target = Some((Arc::clone(frontend), member)),
        }
        self.backend_started = Some(now);
        self.backend_ended = None;
    }

    pub(super) fn backend_done(&mut self, now: Moment) {
        self.backend_ended.get_or_insert(now);
    }

    /// From the first byte of the request until `now`.
    pub fn total(&self, now: Moment) -> Duration {
        now.since(self.started)
    }

    /// From the choice of the backend until the last byte of its answer, or `now` if that has not come.
    pub fn backend(&self, now: Moment) -> Option<Duration> {
        self.backend_started.map(|started| self.backend_ended.unwrap_or(now).since(started))
    }
}
