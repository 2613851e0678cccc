//! Collapsed forwarding: one fill for many requests.
//!
//! Requests wait for the head of the response, and read the response from then on. A fill that is stored before that
//! sends them back to the store. Waiters have their own deadlines; after its deadline, or when its client leaves, a
//! waiter calls [`Fills::leave`].

use crate::base::clock::Moment;
use quick_cache::DefaultHashBuilder;
use std::borrow::Borrow;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// The greatest number of fills at a time. A further request is forwarded without waiting.
const MOST_FILLS: usize = 65_536;

/// The greatest number of requests that wait for one fill. A further one is forwarded without waiting.
const MOST_WAITERS: usize = 4096;

/// The number of successive failed fills of one key after which its waiters are released.
const MOST_FAILURES: u32 = 3;

/// Time for which requests do not wait for a key whose response could not be stored.
const UNCACHEABLE_FOR: Duration = Duration::from_secs(10);

/// The greatest number of such keys.
const MOST_UNCACHEABLE: usize = 4096;

/// The id of a fill. Reports of a fill that was replaced are ignored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FillId(u64);

/// The action of a request that found nothing to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined<L> {
    /// It fills: it asks a backend, and reports the end.
    Lead(FillId),
    /// It waits for another request's fill until this moment; then it leaves and asks a backend without filling.
    Wait(Moment),
    /// It reads a response that is being filled.
    Stream(L),
    /// It asks a backend without filling.
    Pass,
}

/// The result of a failed fill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handover<W> {
    /// This waiter fills now; the others keep waiting.
    Next(W, FillId),
    /// These waiters ask a backend, each for itself.
    Release(Vec<W>),
}

/// A response that is being filled.
pub trait UnderWay: Clone {
    /// The time at which its last byte arrived.
    fn moved_at(&self) -> Moment;
}

/// The fills in progress. `W` identifies a waiting request, `L` is a response whose head has arrived.
#[derive(Debug)]
pub struct Fills<W, L> {
    fills: HashMap<Arc<[u8]>, Fill<W, L>, DefaultHashBuilder>,
    uncacheable: HashMap<Arc<[u8]>, Moment, DefaultHashBuilder>,
    uncacheable_order: VecDeque<Arc<[u8]>>,
    last: u64,
}

#[derive(Debug)]
struct Fill<W, L> {
    id: FillId,
    started: Moment,
    waiters: VecDeque<W>,
    /// The response, once its head has arrived. No request waits from then on.
    live: Option<L>,
    failures: u32,
}

impl<W, L> Default for Fills<W, L> {
    fn default() -> Self {
        Self { fills: HashMap::default(), uncacheable: HashMap::default(), uncacheable_order: VecDeque::new(), last: 0 }
    }
}

impl<W: PartialEq, L: UnderWay> Fills<W, L> {
    /// Handles a request that found nothing fresh. `key` is the object's key with the selection by the last known
    /// `Vary`. `timeout` is `cache.updateLockTimeout`, counted from the start of the fill. A fill that takes longer is
    /// replaced by the next request's, unless bytes of its response have arrived within that time. A request that may
    /// not lead waits for a fill in progress, or asks a backend itself.
    pub fn join<K>(&mut self, key: K, waiter: W, may_lead: bool, timeout: Duration, now: Moment) -> Joined<L>
    where
        K: Borrow<[u8]> + Into<Arc<[u8]>>,
    {
        if self.is_uncacheable(key.borrow(), now) {
            return Joined::Pass;
        }
        let id = FillId(self.last + 1);
        let is_full = self.fills.len() >= MOST_FILLS;
        match self.fills.get_mut(key.borrow()) {
            None if is_full || !may_lead => return Joined::Pass,
            None => {
                let fill = Fill { id, started: now, waiters: VecDeque::new(), live: None, failures: 0 };
                self.fills.insert(key.into(), fill);
            }
            Some(Fill { live: Some(live), .. }) if now < live.moved_at() + timeout => {
                return Joined::Stream(live.clone());
            }
            Some(fill) if now >= fill.started + timeout => {
                if !may_lead {
                    return Joined::Pass;
                }
                (fill.id, fill.started, fill.live) = (id, now, None);
            }
            // The waiters of a fill whose head has arrived are no longer notified.
            Some(Fill { live: Some(_), .. }) => return Joined::Pass,
            Some(fill) if fill.waiters.len() >= MOST_WAITERS => return Joined::Pass,
            Some(fill) => {
                fill.waiters.push_back(waiter);
                return Joined::Wait(fill.started + timeout);
            }
        }
        self.last += 1;
        Joined::Lead(id)
    }

    /// Removes a waiter whose deadline has passed, or whose client is gone.
    pub fn leave(&mut self, key: &[u8], waiter: &W) {
        if let Some(fill) = self.fills.get_mut(key) {
            fill.waiters.retain(|known| known != waiter);
        }
    }

    /// The head of the response has arrived, and the body follows. Returns the waiters to notify; later requests read
    /// the response too.
    pub fn publish(&mut self, key: &[u8], id: FillId, live: L) -> Vec<W> {
        match self.fills.get_mut(key).filter(|fill| fill.id == id) {
            Some(fill) => {
                fill.live = Some(live);
                std::mem::take(&mut fill.waiters).into()
            }
            None => Vec::new(),
        }
    }

    /// The fill has ended without a lasting effect. Returns the waiters to notify.
    pub fn end(&mut self, key: &[u8], id: FillId) -> Vec<W> {
        match self.fills.get(key) {
            Some(fill) if fill.id == id => self.fills.remove(key).map(|fill| fill.waiters.into()).unwrap_or_default(),
            _ => Vec::new(),
        }
    }

    /// A waiter that took over the fill begins it now.
    pub fn begin(&mut self, key: &[u8], id: FillId, now: Moment) {
        if let Some(fill) = self.fills.get_mut(key).filter(|fill| fill.id == id) {
            fill.started = now;
        }
    }

    /// The response cannot be stored. All waiters ask a backend, and for a while no request waits for this key.
    pub fn uncacheable(&mut self, key: &[u8], id: FillId, now: Moment) -> Vec<W> {
        let waiters = self.end(key, id);
        if self.uncacheable_order.len() >= MOST_UNCACHEABLE
            && let Some(oldest) = self.uncacheable_order.pop_front()
        {
            self.uncacheable.remove(&oldest);
        }
        let key: Arc<[u8]> = key.into();
        if self.uncacheable.insert(Arc::clone(&key), now + UNCACHEABLE_FOR).is_none() {
            self.uncacheable_order.push_back(key);
        }
        waiters
    }

    /// The fill failed: its client left, its backend failed, or its body was cut short. The next fill begins with
    /// [`Fills::begin`].
    pub fn failed(&mut self, key: &[u8], id: FillId) -> Handover<W> {
        let Some(fill) = self.fills.get_mut(key).filter(|fill| fill.id == id) else {
            return Handover::Release(Vec::new());
        };
        fill.failures += 1;
        fill.live = None;
        match fill.waiters.pop_front() {
            Some(next) if fill.failures < MOST_FAILURES => {
                self.last += 1;
                fill.id = FillId(self.last);
                Handover::Next(next, fill.id)
            }
            next => Handover::Release(next.into_iter().chain(self.end(key, id)).collect()),
        }
    }

    /// Number of fills in progress.
    pub fn under_way(&self) -> usize {
        self.fills.len()
    }

    fn is_uncacheable(&mut self, key: &[u8], now: Moment) -> bool {
        if self.uncacheable.is_empty() {
            return false;
        }
        match self.uncacheable.get(key) {
            Some(until) if now < *until => true,
            Some(_) => {
                self.uncacheable.remove(key);
                self.uncacheable_order.retain(|known| **known != *key);
                false
            }
            None => false,
        }
    }
}
