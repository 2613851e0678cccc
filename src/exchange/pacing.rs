//! Bytes of a frontend with a rate (`bytesPerSecond.in`, `bytesPerSecond.out`): a side is not read from until its bytes are
//! paid for.

use super::state::State;
use super::{CommonState, Exchange, Side, WorkerContext};
use crate::base::clock::Moment;
use crate::base::pacer::{Credit, Pacer};
use crate::cluster::Admission;
use std::sync::Arc;

/// The flows of one request, or tunnel.
#[derive(Debug)]
pub(super) struct Pacing {
    admission: Arc<Admission>,
    from_client: Flow,
    from_upstream: Flow,
}

#[derive(Debug, Default)]
struct Flow {
    credit: Credit,
    /// Until then nothing is read. It is `Some` until the exchange was told of that moment.
    paused_until: Option<Moment>,
}

impl Pacing {
    fn flow(&self, side: Side) -> &Flow {
        match side {
            Side::Client => &self.from_client,
            Side::Upstream => &self.from_upstream,
        }
    }

    fn parts(&mut self, side: Side) -> (&mut Flow, &Pacer) {
        match side {
            Side::Client => (&mut self.from_client, &self.admission.rates.bytes_in),
            Side::Upstream => (&mut self.from_upstream, &self.admission.rates.bytes_out),
        }
    }

    /// Counts bytes that have come from a side. It may be the last for a while.
    fn count(&mut self, side: Side, bytes: usize, now: Moment) {
        let (flow, pacer) = self.parts(side);
        let until = pacer.count(&mut flow.credit, bytes, now);
        flow.paused_until = flow.paused_until.max(until);
    }
}

impl Drop for Pacing {
    fn drop(&mut self) {
        for side in [Side::Client, Side::Upstream] {
            let (flow, pacer) = self.parts(side);
            pacer.end(std::mem::take(&mut flow.credit));
        }
    }
}

impl CommonState {
    /// Has the bytes of the request paced from now on, if its frontend has a rate. `head` bytes have come already.
    #[cold]
    #[inline(never)]
    pub(super) fn start_pacing(&mut self, head: usize, now: Moment) {
        let Some(route) = self.route().filter(|_| self.pacing.is_none()) else { return };
        let admission = Arc::clone(&route.cluster.admission);
        let mut pacing = Pacing { admission, from_client: Flow::default(), from_upstream: Flow::default() };
        pacing.count(Side::Client, head, now);
        pacing.count(Side::Upstream, 0, now);
        self.pacing = Some(Box::new(pacing));
    }

    /// Counts bytes that have come from a side, or are sent in place of such.
    #[cold]
    #[inline(never)]
    pub(super) fn count_paced(&mut self, side: Side, bytes: usize, now: Moment) {
        if let Some(pacing) = &mut self.pacing {
            pacing.count(side, bytes, now);
        }
    }

    pub(super) fn is_paused(&self, side: Side) -> bool {
        self.pacing.as_ref().is_some_and(|pacing| pacing.flow(side).paused_until.is_some())
    }
}

impl Exchange {
    /// Whether its bytes have a rate: a read is to bring few of them.
    pub fn is_paced(&self) -> bool {
        self.common.pacing.is_some()
    }

    /// When the first pause ends of a side that the state has a use for. Until then neither side is waited for.
    #[inline]
    pub(super) fn pause_end(&self) -> Option<Moment> {
        let pacing = self.common.pacing.as_ref()?;
        let is_of_use = |side: &Side| match self.state {
            // The cache takes the place of a backend. While the client has yet to take bytes, it is the one to be waited for.
            State::ServingCached(_) => *side == Side::Upstream && self.common.to_client.is_empty(),
            _ => self.has_use_for(*side),
        };
        let sides = [Side::Client, Side::Upstream].into_iter().filter(is_of_use);
        sides.filter_map(|side| pacing.flow(side).paused_until).min()
    }

    /// Ends the pauses whose time has come. Whoever is waited for then has as long as ever.
    #[cold]
    #[inline(never)]
    pub(super) fn end_pauses(&mut self, core: &WorkerContext) {
        for side in [Side::Client, Side::Upstream] {
            let Some(pacing) = &mut self.common.pacing else { return };
            let (flow, _) = pacing.parts(side);
            if flow.paused_until.take_if(|until| *until <= core.now).is_none() {
                continue;
            }
            let patience = match &self.state {
                State::AwaitingResponse(state) => Some(state.patience(&self.common, &core.settings)),
                State::ForwardingResponse(state) if self.common.to_client.is_empty() => {
                    Some(state.patience(&self.common, &core.settings))
                }
                State::ForwardingResponse(_) => Some(self.common.body_timeout(&core.settings)),
                State::ServingCached(_) => Some(self.common.body_timeout(&core.settings)),
                State::Tunnel(state) => state.patience(&self.common, &core.settings),
                _ => None,
            };
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
