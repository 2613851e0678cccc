//! The fills of all cores: [`Fills`] with waiters that are notified by mail.
//!
//! Only requests that found nothing to serve take the lock, for the time of one map access.

use super::collapse::{FillId, Fills, Handover, Joined, UnderWay};
use super::live::{LiveFill, Sleeper, Wake};
use crate::base::clock::Moment;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The mailbox for requests of one worker that wait for a fill.
pub trait FillSink: Wake + fmt::Debug {
    /// Reports the end of a fill to a request. A message that cannot be delivered is dropped, and a dropped
    /// [`FillLead`] passes the fill to the next request.
    fn tell(&self, exchange: u64, end: FillEnd);
}

/// A message to a waiting request.
#[derive(Debug)]
pub enum FillEnd {
    /// The head of the response has arrived, and the body follows.
    Streams(Arc<LiveFill>),
    /// There are more bytes to read, or readers have caught up.
    More,
    /// The objects of the key are loaded from the disk tier, and pending removals are done.
    Loaded,
    /// The object is stored.
    Stored,
    /// The response could not be stored: each request asks a backend itself.
    Released,
    /// The fill failed, and this request fills now.
    Lead(FillLead),
}

/// A request that may wait.
#[derive(Clone, Debug)]
pub struct FillWaiter {
    /// The mailbox of its worker.
    pub sink: Arc<dyn FillSink>,
    /// Its id in the worker.
    pub exchange: u64,
}

impl PartialEq for FillWaiter {
    fn eq(&self, other: &Self) -> bool {
        self.exchange == other.exchange && Arc::ptr_eq(&self.sink, &other.sink)
    }
}

impl FillWaiter {
    /// The handle that wakes it.
    pub fn sleeper(&self) -> Sleeper {
        Sleeper { sink: Arc::clone(&self.sink) as Arc<dyn Wake>, exchange: self.exchange }
    }
}

impl UnderWay for Arc<LiveFill> {
    fn moved_at(&self) -> Moment {
        LiveFill::moved_at(self)
    }
}

/// The action of a request that found nothing to serve.
#[derive(Debug)]
pub enum FillStart {
    /// It fills.
    Lead(FillLead),
    /// It waits for another request's fill, until this moment at most.
    Wait(FillWait, Moment),
    /// It reads a response that is being filled.
    Stream(Arc<LiveFill>, Sleeper),
    /// It asks a backend without filling.
    Pass,
}

/// The fills in progress on all cores.
#[derive(Debug, Default)]
pub struct SharedFills(Mutex<Fills<FillWaiter, Arc<LiveFill>>>);

impl SharedFills {
    /// Handles a request that found nothing to serve; see [`Fills::join`].
    pub fn join(
        self: &Arc<Self>,
        key: &Arc<[u8]>,
        waiter: FillWaiter,
        may_lead: bool,
        timeout: Duration,
        now: Moment,
    ) -> FillStart {
        let joined = self.lock().join(Arc::clone(key), waiter.clone(), may_lead, timeout, now);
        match joined {
            Joined::Lead(id) => FillStart::Lead(self.lead(key, id, waiter)),
            Joined::Stream(live) => FillStart::Stream(live, waiter.sleeper()),
            Joined::Wait(until) => {
                FillStart::Wait(FillWait { fills: Arc::clone(self), key: Arc::clone(key), waiter }, until)
            }
            Joined::Pass => FillStart::Pass,
        }
    }

    /// Number of fills in progress.
    pub fn under_way(&self) -> usize {
        self.lock().under_way()
    }

    fn lead(self: &Arc<Self>, key: &Arc<[u8]>, id: FillId, waiter: FillWaiter) -> FillLead {
        FillLead { fills: Arc::clone(self), key: Arc::clone(key), id: Some(id), waiter, is_published: false }
    }

    fn lock(&self) -> MutexGuard<'_, Fills<FillWaiter, Arc<LiveFill>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among the waiters of a fill. Dropping it leaves the place.
#[derive(Debug)]
pub struct FillWait {
    fills: Arc<SharedFills>,
    key: Arc<[u8]>,
    waiter: FillWaiter,
}

impl FillWait {
    /// The handle that wakes the request.
    pub fn sleeper(&self) -> Sleeper {
        self.waiter.sleeper()
    }
}

impl Drop for FillWait {
    fn drop(&mut self) {
        self.fills.lock().leave(&self.key, &self.waiter);
    }
}

/// The right to fill. If it is dropped without an end, the fill has failed.
#[derive(Debug)]
pub struct FillLead {
    fills: Arc<SharedFills>,
    key: Arc<[u8]>,
    id: Option<FillId>,
    /// The filling request.
    waiter: FillWaiter,
    is_published: bool,
}

impl FillLead {
    /// Begins a fill that was passed to this request.
    pub fn begin(&self, now: Moment) {
        if let Some(id) = self.id {
            self.fills.lock().begin(&self.key, id, now);
        }
    }

    /// The handle that wakes the filling request.
    pub fn sleeper(&self) -> Sleeper {
        self.waiter.sleeper()
    }

    /// Whether the waiters were notified of the response.
    pub fn is_published(&self) -> bool {
        self.is_published
    }

    /// Passes the response to the waiters: its head has arrived.
    pub fn publish(&mut self, live: &Arc<LiveFill>) {
        if let Some(id) = self.id.filter(|_| !self.is_published) {
            self.is_published = true;
            let waiters = self.fills.lock().publish(&self.key, id, Arc::clone(live));
            tell_all(waiters, || FillEnd::Streams(Arc::clone(live)));
        }
    }

    /// The object is stored.
    pub fn stored(mut self) {
        if let Some(id) = self.id.take() {
            let waiters = self.fills.lock().end(&self.key, id);
            tell_all(waiters, || FillEnd::Stored);
        }
    }

    /// The response is not stored, for a reason that does not concern later ones.
    pub fn release(mut self) {
        if let Some(id) = self.id.take() {
            let waiters = self.fills.lock().end(&self.key, id);
            tell_all(waiters, || FillEnd::Released);
        }
    }

    /// The response cannot be stored, and later ones probably cannot either.
    pub fn uncacheable(mut self, now: Moment) {
        if let Some(id) = self.id.take() {
            let waiters = self.fills.lock().uncacheable(&self.key, id, now);
            tell_all(waiters, || FillEnd::Released);
        }
    }
}

impl Drop for FillLead {
    /// Passes the fill on. A waiter that is gone drops its right in turn; after a few failures all are released, so
    /// that ends.
    fn drop(&mut self) {
        let Some(id) = self.id.take() else { return };
        let handover = self.fills.lock().failed(&self.key, id);
        match handover {
            Handover::Next(waiter, id) => {
                let lead = self.fills.lead(&self.key, id, waiter.clone());
                waiter.sink.tell(waiter.exchange, FillEnd::Lead(lead));
            }
            Handover::Release(waiters) => tell_all(waiters, || FillEnd::Released),
        }
    }
}

fn tell_all(waiters: Vec<FillWaiter>, end: impl Fn() -> FillEnd) {
    waiters.into_iter().for_each(|waiter| waiter.sink.tell(waiter.exchange, end()));
}
