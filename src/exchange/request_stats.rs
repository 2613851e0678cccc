//! Statistics of an exchange for log, counters and `X-Debug`. States write them; no decision depends on them.

use crate::base::clock::Moment;
use crate::base::counters::Counter;
use crate::base::histogram::Phase;
use crate::base::reason::FailureReason;
use crate::wire::response_fault::ResponseFault;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Statistics of one exchange.
#[derive(Debug)]
pub struct RequestStats {
    /// The moment at which the first byte of the head was read.
    pub started: Moment,
    /// The status that the client got; 0 if none yet.
    pub status: u16,
    /// The reason, if the exchange ended without a complete response of a backend.
    pub reason: Option<FailureReason>,
    /// The outcome of the object cache, if it took part. [`Counter::CacheFills`]: a miss whose response was stored.
    pub cache: Option<Counter>,
    /// The fault in the head of a backend's response, the last one of the request.
    pub fault: Option<Box<ResponseFault>>,
    /// Bytes sent to the client, heads included (Hipache logs the same).
    pub bytes_to_client: u64,
    /// The moment at which the last backend was chosen; [`Moment::NEVER`] if none.
    backend_started: Moment,
    /// The moment at which the last byte of its response arrived; [`Moment::NEVER`] before.
    backend_ended: Moment,
    /// The start of the current phase.
    phase_began: Moment,
    /// The duration of these phases at the last try, in microseconds; [`NONE`] if skipped.
    queue_micros: u32,
    connect_micros: u32,
    first_byte_micros: u32,
}

/// The facts of an exchange for another process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PortableStats {
    status: u16,
    cache: Option<Box<str>>,
    bytes_to_client: u64,
    has_backend: bool,
    queue_micros: u32,
    connect_micros: u32,
    first_byte_micros: u32,
}

/// A phase that was skipped.
const NONE: u32 = u32::MAX;

impl RequestStats {
    pub(super) fn new(now: Moment) -> Self {
        Self {
            started: now,
            status: 0,
            reason: None,
            cache: None,
            fault: None,
            bytes_to_client: 0,
            backend_started: Moment::NEVER,
            backend_ended: Moment::NEVER,
            phase_began: now,
            queue_micros: NONE,
            connect_micros: NONE,
            first_byte_micros: NONE,
        }
    }

    pub(super) fn to_portable(&self) -> PortableStats {
        PortableStats {
            status: self.status,
            cache: self.cache.map(|counter| counter.name().into()),
            bytes_to_client: self.bytes_to_client,
            has_backend: self.backend_started != Moment::NEVER,
            queue_micros: self.queue_micros,
            connect_micros: self.connect_micros,
            first_byte_micros: self.first_byte_micros,
        }
    }

    /// The facts of an exchange that another process has begun, without its time there ([`Origin`](super::Origin)).
    pub(super) fn from_portable(portable: PortableStats, now: Moment) -> Self {
        let cache =
            portable.cache.and_then(|name| Counter::ALL.iter().find(|counter| counter.name() == &*name).copied());
        Self {
            status: portable.status,
            cache,
            bytes_to_client: portable.bytes_to_client,
            backend_started: if portable.has_backend { now } else { Moment::NEVER },
            queue_micros: portable.queue_micros,
            connect_micros: portable.connect_micros,
            first_byte_micros: portable.first_byte_micros,
            ..Self::new(now)
        }
    }

    /// Sets the reason. The first one stays.
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

    /// Records that a connection to a backend is requested. The times of an earlier try are dropped.
    pub(super) fn begin_try(&mut self, now: Moment) {
        (self.connect_micros, self.first_byte_micros) = (NONE, NONE);
        self.begin_phase(now);
    }

    /// Records the start of a wait.
    pub(super) fn begin_phase(&mut self, now: Moment) {
        self.phase_began = now;
    }

    /// Records the end of a wait for a slot or a connection, whatever its outcome.
    pub(super) fn end_queue(&mut self, now: Moment) {
        let waited = self.end_phase(now);
        // The request may have waited for a slot, and then for a socket.
        self.queue_micros =
            if self.queue_micros == NONE { waited } else { self.queue_micros.saturating_add(waited).min(NONE - 1) };
    }

    /// Records that a connection was opened, or could not be.
    pub(super) fn end_connect(&mut self, now: Moment) {
        self.connect_micros = self.end_phase(now);
    }

    /// Records that the head of the response arrived, or is late.
    #[inline]
    pub(super) fn end_wait(&mut self, now: Moment) {
        self.first_byte_micros = self.end_phase(now);
    }

    fn end_phase(&mut self, now: Moment) -> u32 {
        let began = std::mem::replace(&mut self.phase_began, now);
        // A duration above an hour counts as an hour.
        u32::try_from(now.since(began).as_micros()).unwrap_or(NONE - 1)
    }

    /// Duration of a phase at the last try, if the request went through it.
    #[inline]
    pub fn phase(&self, phase: Phase, now: Moment) -> Option<Duration> {
        let micros = match phase {
            Phase::Total => return Some(self.total(now)),
            Phase::Queue => self.queue_micros,
            Phase::Connect => self.connect_micros,
            Phase::FirstByte => self.first_byte_micros,
        };
        (micros != NONE).then(|| Duration::from_micros(micros.into()))
    }

    /// Time from the first byte of the request to `now`.
    pub fn total(&self, now: Moment) -> Duration {
        now.since(self.started)
    }

    /// Time from the choice of the backend to the last byte of its response, or to `now` before that.
    pub fn backend(&self, now: Moment) -> Option<Duration> {
        (self.backend_started != Moment::NEVER).then(|| self.backend_ended.min(now).since(self.backend_started))
    }
}
