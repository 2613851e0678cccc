//! The facts of an exchange for log, counters and `X-Debug`. States write it; nothing decides by it.

use crate::base::clock::Moment;
use crate::base::counters::Counter;
use crate::base::histogram::Phase;
use crate::base::reason::FailureReason;
use crate::wire::response_fault::ResponseFault;
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
    /// What the object cache was to the request, where it took part. [`Counter::CacheFills`]: a miss whose response was stored.
    pub cache: Option<Counter>,
    /// Where the head of a backend's response could not be read: the last one of the request.
    pub fault: Option<Box<ResponseFault>>,
    /// Bytes that left for the client, heads included (Hipache logs the same).
    pub bytes_to_client: u64,
    /// When the last backend was chosen; [`Moment::NEVER`] while none was.
    backend_started: Moment,
    /// When the last byte of its answer had come; [`Moment::NEVER`] before.
    backend_ended: Moment,
    /// When the present phase began.
    phase_began: Moment,
    /// The last tries of these phases, in microseconds; [`NONE`] where there was none.
    queue_micros: u32,
    connect_micros: u32,
    first_byte_micros: u32,
}

/// A phase that was not gone through.
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

    /// A connection to a backend is asked for. What the try before has taken for its own does not count.
    pub(super) fn begin_try(&mut self, now: Moment) {
        (self.connect_micros, self.first_byte_micros) = (NONE, NONE);
        self.begin_phase(now);
    }

    /// A wait begins.
    pub(super) fn begin_phase(&mut self, now: Moment) {
        self.phase_began = now;
    }

    /// The wait for a slot or a connection is over, whatever it has come to.
    pub(super) fn end_queue(&mut self, now: Moment) {
        let waited = self.end_phase(now);
        // It may have waited for a slot, and then for a socket.
        self.queue_micros =
            if self.queue_micros == NONE { waited } else { self.queue_micros.saturating_add(waited).min(NONE - 1) };
    }

    /// A connection has been opened, or could not be.
    pub(super) fn end_connect(&mut self, now: Moment) {
        self.connect_micros = self.end_phase(now);
    }

    /// The head of the response has come, or does not come in time.
    #[inline]
    pub(super) fn end_wait(&mut self, now: Moment) {
        self.first_byte_micros = self.end_phase(now);
    }

    fn end_phase(&mut self, now: Moment) -> u32 {
        let began = std::mem::replace(&mut self.phase_began, now);
        // What is longer than an hour counts as an hour.
        u32::try_from(now.since(began).as_micros()).unwrap_or(NONE - 1)
    }

    /// How long this phase took, where the request went through it. Of a request that was tried again it is the last try's.
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

    /// From the first byte of the request until `now`.
    pub fn total(&self, now: Moment) -> Duration {
        now.since(self.started)
    }

    /// From the choice of the backend until the last byte of its answer, or `now` if that has not come.
    pub fn backend(&self, now: Moment) -> Option<Duration> {
        (self.backend_started != Moment::NEVER).then(|| self.backend_ended.min(now).since(self.backend_started))
    }
}
