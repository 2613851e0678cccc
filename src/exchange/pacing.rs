//! Bandwidth limits of a frontend (`bytesPerSecond.in`, `bytesPerSecond.out`): a side is not read until its bytes are
//! paid for.

use super::events::Side;
use crate::base::clock::Moment;
use crate::base::pacer::{Credit, Pacer};
use crate::cluster::Admission;
use std::sync::Arc;

/// The flows of one request or tunnel.
#[derive(Debug)]
pub(super) struct Pacing {
    admission: Arc<Admission>,
    from_client: Flow,
    from_upstream: Flow,
}

#[derive(Debug, Default)]
struct Flow {
    credit: Credit,
    /// The end of the pause. It is `Some` until the exchange was notified of that moment.
    paused_until: Option<Moment>,
}

impl Pacing {
    /// The pacing of a request of which `head` bytes have arrived already.
    pub(super) fn new(admission: Arc<Admission>, head: usize, now: Moment) -> Self {
        let mut pacing = Self { admission, from_client: Flow::default(), from_upstream: Flow::default() };
        pacing.count(Side::Client, head, now);
        pacing.count(Side::Upstream, 0, now);
        pacing
    }

    /// The moment until which a side is not read.
    pub(super) fn paused_until(&self, side: Side) -> Option<Moment> {
        self.flow(side).paused_until
    }

    /// Ends the pause of a side whose time has come. Returns whether there was one.
    pub(super) fn end_pause(&mut self, side: Side, now: Moment) -> bool {
        let (flow, _) = self.parts(side);
        flow.paused_until.take_if(|until| *until <= now).is_some()
    }

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

    /// Counts bytes received from a side. It may begin a pause.
    pub(super) fn count(&mut self, side: Side, bytes: usize, now: Moment) {
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
