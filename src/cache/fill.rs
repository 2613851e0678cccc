//! Fills of all cores: the collapse of [`Fills`], with waiters that are reached by mail.
//!
//! A lock is taken by requests that found nothing to serve, and for the time of one look at a map.

use super::collapse::{FillId, Fills, Handover, Joined};
use crate::base::clock::Moment;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The way to the requests of one worker that wait for a fill.
pub trait FillSink: Send + Sync + fmt::Debug {
    /// Tells a request what has become of the fill. What does not arrive is dropped, and a dropped [`FillLead`] hands over
    /// to the next request.
    fn tell(&self, exchange: u64, end: FillEnd);
}

/// What a waiting request is told.
#[derive(Debug)]
pub enum FillEnd {
    /// The object is stored.
    Stored,
    /// The response could not be stored: each request asks a backend by itself.
    Released,
    /// The fill died, and this request fills now.
    Lead(FillLead),
}

/// A request that may wait.
#[derive(Clone, Debug)]
pub struct FillWaiter {
    /// The way to its worker.
    pub sink: Arc<dyn FillSink>,
    /// The request there.
    pub exchange: u64,
}

impl PartialEq for FillWaiter {
    fn eq(&self, other: &Self) -> bool {
        self.exchange == other.exchange && Arc::ptr_eq(&self.sink, &other.sink)
    }
}

/// What a request does that found nothing to serve.
#[derive(Debug)]
pub enum FillStart {
    /// It fills.
    Lead(FillLead),
    /// It waits for another one's fill, until this moment at most.
    Wait(FillWait, Moment),
    /// It asks a backend by itself.
    Pass,
}

/// The fills that are under way on all cores.
#[derive(Debug, Default)]
pub struct SharedFills(Mutex<Fills<FillWaiter>>);

impl SharedFills {
    /// A request found nothing to serve; see [`Fills::join`].
    pub fn join(
        self: &Arc<Self>,
        key: &[u8],
        waiter: FillWaiter,
        may_lead: bool,
        timeout: Duration,
        now: Moment,
    ) -> FillStart {
        let joined = self.lock().join(key, waiter.clone(), may_lead, timeout, now);
        match joined {
            Joined::Lead(id) => FillStart::Lead(self.lead(key, id)),
            Joined::Wait(until) => {
                FillStart::Wait(FillWait { fills: Arc::clone(self), key: key.into(), waiter }, until)
            }
            Joined::Pass => FillStart::Pass,
        }
    }

    /// The number of fills under way.
    pub fn under_way(&self) -> usize {
        self.lock().under_way()
    }

    fn lead(self: &Arc<Self>, key: &[u8], id: FillId) -> FillLead {
        FillLead { fills: Arc::clone(self), key: key.into(), id: Some(id) }
    }

    fn lock(&self) -> MutexGuard<'_, Fills<FillWaiter>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among those that wait for a fill. It is left when dropped.
#[derive(Debug)]
pub struct FillWait {
    fills: Arc<SharedFills>,
    key: Box<[u8]>,
    waiter: FillWaiter,
}

impl Drop for FillWait {
    fn drop(&mut self) {
        self.fills.lock().leave(&self.key, &self.waiter);
    }
}

/// The right to fill. One that is dropped without an end has failed.
#[derive(Debug)]
pub struct FillLead {
    fills: Arc<SharedFills>,
    key: Box<[u8]>,
    id: Option<FillId>,
}

impl FillLead {
    /// The request that the fill was handed to begins it.
    pub fn begin(&self, now: Moment) {
        if let Some(id) = self.id {
            self.fills.lock().begin(&self.key, id, now);
        }
    }

    /// The object is stored.
    pub fn stored(mut self) {
        if let Some(id) = self.id.take() {
            let waiters = self.fills.lock().end(&self.key, id);
            waiters.into_iter().for_each(|waiter| waiter.sink.tell(waiter.exchange, FillEnd::Stored));
        }
    }

    /// The response is not stored, and that says nothing about the next one.
    pub fn release(mut self) {
        if let Some(id) = self.id.take() {
            let waiters = self.fills.lock().end(&self.key, id);
            waiters.into_iter().for_each(|waiter| waiter.sink.tell(waiter.exchange, FillEnd::Released));
        }
    }

    /// The response cannot be stored, nor waited for, nor can the next ones.
    pub fn uncacheable(mut self, now: Moment) {
        if let Some(id) = self.id.take() {
            let waiters = self.fills.lock().uncacheable(&self.key, id, now);
            waiters.into_iter().for_each(|waiter| waiter.sink.tell(waiter.exchange, FillEnd::Released));
        }
    }
}

impl Drop for FillLead {
    /// Hands over. A waiter that is gone drops its right in turn; after a few failures all are released, so that ends.
    fn drop(&mut self) {
        let Some(id) = self.id.take() else { return };
        let handover = self.fills.lock().failed(&self.key, id);
        match handover {
            Handover::Next(waiter, id) => {
                let lead = self.fills.lead(&self.key, id);
                waiter.sink.tell(waiter.exchange, FillEnd::Lead(lead));
            }
            Handover::Release(waiters) => {
                waiters.into_iter().for_each(|waiter| waiter.sink.tell(waiter.exchange, FillEnd::Released));
            }
        }
    }
}
