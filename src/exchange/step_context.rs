//! What a step has at hand: its core's part, and the exchange's own.

use super::output_queue::PendingWrite;
use super::request_context::Target;
use super::{Effect, KeepAlive, RequestStats, Side, WorkerContext};
use crate::base::clock::Moment;
use crate::health::{CLOSED_IN_A_ROW, Observation};
use std::time::Duration;

/// What an exchange has in each of its states.
#[derive(Debug)]
pub(super) struct CommonState {
    pub(super) stats: RequestStats,
    /// Where the request goes, or went last.
    pub(super) target: Option<Target>,
    pub(super) deadline: Moment,
    /// Its client's connection is encrypted.
    pub(super) is_encrypted: bool,
    /// It is the last that its client's connection may carry.
    pub(super) is_last: bool,
    /// Its client has ended its side, or the connection, while the backend was waited for, and that is ignored.
    pub(super) client_left: bool,
    /// Its client came to the service of this node: no request of it has a route.
    pub(super) is_for_service: bool,
    /// A connection to a backend is there, or was asked for.
    pub(super) holds_upstream: bool,
    /// For how many seconds the backend keeps its connection when it is idle, where it said so.
    pub(super) upstream_idle_seconds: Option<u16>,
    pub(super) to_client: PendingWrite,
    pub(super) to_upstream: PendingWrite,
}

/// What a state's step may touch beside its own data.
pub(super) struct StepContext<'a> {
    pub(super) core: &'a mut WorkerContext,
    pub(super) common: &'a mut CommonState,
    /// How many of the input's bytes were used.
    pub(super) consumed: usize,
}

impl StepContext<'_> {
    pub(super) fn effect(&mut self, effect: Effect) {
        self.core.output.effects.push(effect);
    }

    /// Asks for a connection to the target.
    pub(super) fn connect(&mut self, fresh: bool) {
        debug_assert!(!self.common.holds_upstream, "a second connection");
        self.common.holds_upstream = true;
        self.effect(Effect::Connect { fresh });
    }

    /// Gives back what there is of a connection to a backend. Bytes that have not left for it never will: the next
    /// backend begins with a whole request.
    pub(super) fn release(&mut self, reuse: bool) {
        if std::mem::take(&mut self.common.holds_upstream) {
            self.core.output.upstream.clear();
            self.common.to_upstream.discard(&mut self.core.buffers);
            self.effect(Effect::Release { reuse });
        }
    }

    pub(super) fn deadline_in(&mut self, duration: Duration) {
        self.common.deadline = self.core.now + duration;
    }

    /// Judges the target by what was seen of it. A client that has left marks nobody.
    pub(super) fn observe(&mut self, observation: Observation) {
        let Some(target) = &self.common.target else { return };
        let (member, may_mark) = (target.place, !self.common.client_left);
        if may_mark && target.is_marked_by(observation, self.core.now, &self.core.settings.health) {
            self.effect(Effect::MarkedDead { member, why: observation });
        } else if matches!(observation, Observation::Responded { status: ..500, .. }) && target.member().note_good() {
            self.effect(Effect::Revived { member });
        }
    }

    /// Judges the target by a new connection that ended before the first byte of a response.
    #[cold]
    pub(super) fn observe_close(&mut self) {
        let target = self.common.target.as_ref().filter(|_| !self.common.client_left);
        let count = target.map_or(0, |target| target.member().count_closed());
        if count >= CLOSED_IN_A_ROW {
            self.observe(Observation::ClosedUnanswered);
        }
    }

    /// Whether the client's connection may be kept, as far as this node is concerned.
    pub(super) fn may_keep_alive(&self) -> bool {
        !self.common.is_last
            && match self.core.settings.keep_alive {
                KeepAlive::Always => true,
                KeepAlive::Plain => !self.common.is_encrypted,
                KeepAlive::Never => false,
            }
    }

    /// Whether everything for the side has left, with nothing added in this turn.
    pub(super) fn is_drained(&self, side: Side) -> bool {
        match side {
            Side::Client => self.common.to_client.is_empty() && self.core.output.client.is_empty(),
            Side::Upstream => self.common.to_upstream.is_empty() && self.core.output.upstream.is_empty(),
        }
    }
}

impl CommonState {
    pub(super) fn pending_write(&self, side: Side) -> &PendingWrite {
        match side {
            Side::Client => &self.to_client,
            Side::Upstream => &self.to_upstream,
        }
    }

    pub(super) fn pending_write_mut(&mut self, side: Side) -> &mut PendingWrite {
        match side {
            Side::Client => &mut self.to_client,
            Side::Upstream => &mut self.to_upstream,
        }
    }
}
