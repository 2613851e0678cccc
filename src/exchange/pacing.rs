//! Bandwidth limits of a frontend (`bytesPerSecond.in`, `bytesPerSecond.out`): a side is not read until its bytes are
//! paid for.

use super::events::Side;
use crate::base::clock::Moment;
use crate::base::pacer::{Credit, Pacer};
use crate::base::rate_limiter::LOOK;
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
    /// It is `Some` until the exchange was notified of its end.
    pause: Option<Pause>,
}

#[derive(Clone, Copy, Debug)]
struct Pause {
    until: Moment,
    /// The moment of which `until` is: a raise of the rate after it ends the pause earlier.
    looked_at: Moment,
}

impl Pause {
    /// Its end, or an earlier moment at which to look for that again.
    fn next_look(self) -> Moment {
        self.until.min(self.looked_at + LOOK)
    }

    /// The pause at the rate of this moment.
    fn look(self, pacer: &Pacer, now: Moment) -> Self {
        Self { until: pacer.end_of_wait(self.until, self.looked_at), looked_at: now }
    }
}

impl Pacing {
    /// The pacing of a request of which `head` bytes have arrived already.
    pub(super) fn new(admission: Arc<Admission>, head: usize, now: Moment) -> Self {
        let mut pacing = Self { admission, from_client: Flow::default(), from_upstream: Flow::default() };
        pacing.count(Side::Client, head, now);
        pacing.count(Side::Upstream, 0, now);
        pacing
    }

    /// The moment at which [`Pacing::end_pause`] is due for a side that is not read.
    pub(super) fn paused_until(&self, side: Side) -> Option<Moment> {
        self.flow(side).pause.map(Pause::next_look)
    }

    /// Ends the pause of a side whose time has come. Returns whether there was one.
    pub(super) fn end_pause(&mut self, side: Side, now: Moment) -> bool {
        let (flow, pacer) = self.parts(side);
        let Some(pause) = flow.pause.filter(|pause| pause.next_look() <= now) else { return false };
        let pause = pause.look(pacer, now);
        flow.pause = Some(pause).filter(|pause| pause.until > now);
        flow.pause.is_none()
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
        if let Some(until) = pacer.count(&mut flow.credit, bytes, now) {
            let before = flow.pause.map_or(Moment::ZERO, |pause| pause.look(pacer, now).until);
            flow.pause = Some(Pause { until: until.max(before), looked_at: now });
        }
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
