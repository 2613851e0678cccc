//! One fill for many requests.
//!
//! Requests wait for the head of the response, and read it from then on. A fill that is stored before that sends them back
//! to the store. Waiters have their own
//! deadlines; one that passes, or whose client leaves, calls [`Fills::leave`].

use crate::base::clock::Moment;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// The most fills at a time. A request beyond it is forwarded by itself.
const MOST_FILLS: usize = 65_536;

/// The most requests that wait for one fill. One beyond it is forwarded by itself.
const MOST_WAITERS: usize = 4096;

/// How many fills of one key may fail in a row before those who wait are released.
const MOST_FAILURES: u32 = 3;

/// How long a key whose response could not be stored is not waited for.
const UNCACHEABLE_FOR: Duration = Duration::from_secs(10);

/// How many such keys are remembered.
const MOST_UNCACHEABLE: usize = 4096;

/// The identity of a fill. What a fill reports that was given up is ignored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FillId(u64);

/// What a request does that found nothing to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined<L> {
    /// It fills: it asks a backend, and reports the end of it.
    Lead(FillId),
    /// It waits for another one's fill until this moment; then it leaves and asks a backend by itself.
    Wait(Moment),
    /// It reads the response that is under way.
    Stream(L),
    /// It asks a backend by itself.
    Pass,
}

/// What the end of a failed fill leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handover<W> {
    /// This waiter fills now; the others go on waiting.
    Next(W, FillId),
    /// These waiters ask a backend, each by itself.
    Release(Vec<W>),
}

/// A response that is under way.
pub trait UnderWay: Clone {
    /// When the last byte of it came.
    fn moved_at(&self) -> Moment;
}

/// The fills that are under way. `W` is what a waiting request is reached by, `L` a response whose head has come.
#[derive(Debug)]
pub struct Fills<W, L> {
    fills: HashMap<Arc<[u8]>, Fill<W, L>>,
    uncacheable: HashMap<Arc<[u8]>, Moment>,
    uncacheable_order: VecDeque<Arc<[u8]>>,
    last: u64,
}

#[derive(Debug)]
struct Fill<W, L> {
    id: FillId,
    started: Moment,
    waiters: VecDeque<W>,
    /// The response, once its head has come. From then on nobody waits.
    live: Option<L>,
    failures: u32,
}

impl<W, L> Default for Fills<W, L> {
    fn default() -> Self {
        Self { fills: HashMap::new(), uncacheable: HashMap::new(), uncacheable_order: VecDeque::new(), last: 0 }
    }
}

impl<W: PartialEq, L: UnderWay> Fills<W, L> {
    /// A request found nothing fresh. `key` is the object's key and the selection by the `Vary` that was learned last.
    /// `timeout` is `cache.updateLockTimeout`, counted from the start of the fill; a fill that takes longer is replaced by
    /// the next request's, unless bytes of its response have come within that time. A request that may not lead waits for a
    /// fill that is under way, or asks by itself.
    pub fn join(&mut self, key: &[u8], waiter: W, may_lead: bool, timeout: Duration, now: Moment) -> Joined<L> {
        if self.is_uncacheable(key, now) {
            return Joined::Pass;
        }
        let id = FillId(self.last + 1);
        let is_full = self.fills.len() >= MOST_FILLS;
        match self.fills.get_mut(key) {
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
            // Nobody is told any more of one whose head has come.
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

    /// A waiter's deadline passed, or its client is gone.
    pub fn leave(&mut self, key: &[u8], waiter: &W) {
        if let Some(fill) = self.fills.get_mut(key) {
            fill.waiters.retain(|known| known != waiter);
        }
    }

    /// The head of the response has come, and the body follows. Those who waited are told, and whoever comes later reads too.
    pub fn publish(&mut self, key: &[u8], id: FillId, live: L) -> Vec<W> {
        match self.fills.get_mut(key).filter(|fill| fill.id == id) {
            Some(fill) => {
                fill.live = Some(live);
                std::mem::take(&mut fill.waiters).into()
            }
            None => Vec::new(),
        }
    }

    /// The fill has ended, and there is nothing to remember of it. Those who waited are told what has become of it.
    pub fn end(&mut self, key: &[u8], id: FillId) -> Vec<W> {
        match self.fills.get(key) {
            Some(fill) if fill.id == id => self.fills.remove(key).map(|fill| fill.waiters.into()).unwrap_or_default(),
            _ => Vec::new(),
        }
    }

    /// A waiter that was handed the fill begins it now.
    pub fn begin(&mut self, key: &[u8], id: FillId, now: Moment) {
        if let Some(fill) = self.fills.get_mut(key).filter(|fill| fill.id == id) {
            fill.started = now;
        }
    }

    /// The head of the response says that it cannot be stored. All waiters ask a backend, and for a while no request waits for
    /// this key.
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

    /// The fill died: its client left, its backend failed, or its body was cut short. The next one begins with
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

    /// The number of fills under way.
    pub fn under_way(&self) -> usize {
        self.fills.len()
    }

    fn is_uncacheable(&mut self, key: &[u8], now: Moment) -> bool {
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
