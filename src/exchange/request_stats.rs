//! The facts of an exchange for log, counters and `X-Debug`. States write it; nothing decides by it.

use crate::base::clock::Moment;
use crate::base::reason::FailureReason;
use std::time::Duration;

/// The facts of one exchange.
#[derive(Debug)]
pub struct RequestStats {
    /// When the first byte of the head was read.
    pub started: Moment,
    /// The status that the client was told; 0 while none was.
    pub status: u16,
    /// Why the exchange ended otherwise than by a backend's answer.
    pub reason: Option<FailureReason>,
    /// Bytes that left for the client, heads included (Hipache logs the same).
    pub bytes_to_client: u64,
    /// When the last backend was chosen; [`Moment::NEVER`] while none was.
    backend_started: Moment,
    /// When the last byte of its answer had come; [`Moment::NEVER`] before.
    backend_ended: Moment,
}

impl RequestStats {
    pub(super) fn new(now: Moment) -> Self {
        Self {
            started: now,
            status: 0,
            reason: None,
            bytes_to_client: 0,
            backend_started: Moment::NEVER,
            backend_ended: Moment::NEVER,
        }
    }

    /// The first reason is the one that counts.
    pub(super) fn fail(&mut self, reason: FailureReason) {
        self.reason.get_or_insert(reason);
    }

    /// Whether the backends, or this node on their behalf, have failed the request.
    pub(super) fn has_failed(&self) -> bool {
        let is_cut = matches!(self.reason, Some(FailureReason::UpstreamTruncated | FailureReason::UpstreamStalled));
        self.status >= 500 || is_cut
    }

    pub(super) fn chose_backend(&mut self, now: Moment) {
        (self.backend_started, self.backend_ended) = (now, Moment::NEVER);
    }

    pub(super) fn backend_done(&mut self, now: Moment) {
        self.backend_ended = self.backend_ended.min(now);
    }

    /// From the first byte of the request until `now`.
    pub fn total(&self, now: Moment) -> Duration {
        now.since(self.started)
    }

    /// From the choice of the backend until the last byte of its answer, or `now` if that has not come.
    pub fn backend(&self, now: Moment) -> Option<Duration> {
        (self.backend_started != Moment::NEVER).then(|| self.backend_ended.min(now).since(self.backend_started))
    }
}
