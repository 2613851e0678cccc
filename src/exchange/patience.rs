//! Deadlines of the wait for a side, including pauses of frontends with a bandwidth limit.

use super::Exchange;
use super::events::Side;
use super::state::State;
use super::worker_context::WorkerContext;
use crate::base::clock::Moment;
use std::time::Duration;

impl Exchange {
    /// When [`Input::Deadline`](super::Input::Deadline) is due.
    pub fn deadline(&self) -> Moment {
        self.pause_end().unwrap_or(self.common.deadline)
    }

    /// The moment since which a socket has not accepted all bytes; [`Moment::NEVER`] if both have.
    pub fn blocked_since(&self) -> Moment {
        self.common.to_client.since().min(self.common.to_upstream.since())
    }

    /// Whether its bytes are paced: a read should be small.
    pub fn is_paced(&self) -> bool {
        self.common.pacing.is_some()
    }

    /// The end of the first pause of a side that the state can use bytes from. Neither side is waited for until then.
    #[inline]
    pub(super) fn pause_end(&self) -> Option<Moment> {
        let pacing = self.common.pacing.as_ref()?;
        let is_of_use = |side: &Side| match self.state {
            // The cache takes the place of a backend. While the client has bytes to read, the client is waited for.
            State::ServingCached(_) | State::ServingLive(_) => {
                *side == Side::Upstream && self.common.to_client.is_empty()
            }
            _ => self.has_use_for(*side),
        };
        let sides = [Side::Client, Side::Upstream].into_iter().filter(is_of_use);
        sides.filter_map(|side| pacing.paused_until(side)).min()
    }

    /// Extends the deadline: a side that accepts bytes, however slowly, has not stalled.
    #[cold]
    pub(super) fn extend_patience(&mut self, side: Side, core: &WorkerContext) {
        let patience = match &self.state {
            State::AwaitingResponse(_) if side != Side::Upstream => None,
            // Without a readable head there is no minimum rate either: the page has to be sent within one timeout.
            State::FlushingResponse(state) if state.context.is_some() => Some(self.common.body_timeout(&core.settings)),
            State::LocalService(state) => state.is_sending().then_some(core.settings.body_timeout),
            _ => self.patience_between_bytes(core),
        };
        if let Some(patience) = patience {
            self.common.deadline = core.now + patience;
        }
    }

    /// The limit for the next bytes of a response or a tunnel; `None` if none are waited for.
    fn patience_between_bytes(&self, core: &WorkerContext) -> Option<Duration> {
        match &self.state {
            State::AwaitingResponse(state) => Some(state.patience(&self.common, &core.settings)),
            State::ForwardingResponse(state) if self.common.to_client.is_empty() => {
                Some(state.patience(&self.common, &core.settings))
            }
            State::ForwardingResponse(_) | State::ServingCached(_) | State::ServingLive(_) => {
                Some(self.common.body_timeout(&core.settings))
            }
            State::Tunnel(state) => state.patience(&self.common, &core.settings),
            _ => None,
        }
    }

    /// Ends the pauses whose time has come. The side that is waited for then has its whole limit again.
    #[cold]
    #[inline(never)]
    pub(super) fn end_pauses(&mut self, core: &WorkerContext) {
        for side in [Side::Client, Side::Upstream] {
            let Some(pacing) = &mut self.common.pacing else { return };
            if !pacing.end_pause(side, core.now) {
                continue;
            }
            let patience = self.patience_between_bytes(core);
            let later = patience.map_or(Moment::ZERO, |patience| core.now + patience);
            self.common.deadline = self.common.deadline.max(later);
            if side == Side::Client
                && let Some(context) = self.state.context_mut()
            {
                context.upload_rate.excuse(core.now);
            }
        }
    }
}
