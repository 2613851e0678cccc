//! A tree shared by all cores.

use super::node::{BucketId, Index, Nodes, ROOT_LEAF, ROOT_NODE, Token};
use super::snapshot::{self, BucketView};
use super::spec::Spec;
use super::tree::{QueueLimits, TooManyDraining, Tree};
use super::waiters::{Flow, WaiterKey, Waiters, Waiting};
use crate::base::clock::Moment;
use arrayvec::ArrayVec;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The result of a request for a token.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission {
    /// The token.
    Token(Token),
    /// The request waits in the queue of its bucket. The token is delivered later, possibly by another core and
    /// possibly already now.
    Queued {
        /// The waiter's place, for [`Shaper::cancel`].
        key: WaiterKey,
        /// The end of its time in the queue. The caller has to cancel it then.
        deadline: Moment,
    },
    /// The queue is full.
    QueueFull,
}

/// Why a waiter leaves the queue without a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departure {
    /// Its time in the queue ran out.
    TimedOut,
    /// Its client left, or the request ended in another way.
    Left,
}

/// Tokens delivered together, before the lock is taken again.
type Grants<W> = ArrayVec<(W, Token), 16>;

/// A tree of token buckets with a queue of waiters for each bucket. `W` is a waiter's handle: where its token is to be
/// sent.
///
/// Each function that frees tokens takes `deliver`, which is called without the lock, once for each waiter that got a
/// token. It must not call the shaper.
#[derive(Debug)]
pub struct Shaper<W> {
    nodes: Nodes,
    /// Number of waiters in all queues. It changes under the lock only.
    waiting: AtomicUsize,
    locked: Mutex<Locked<W>>,
}

#[derive(Debug)]
struct Locked<W> {
    tree: Tree,
    waiters: Waiters<W>,
}

impl<W: Flow> Shaper<W> {
    /// A tree of `size` tokens. `queue` applies to unclassified requests and to all buckets without limits of their
    /// own.
    pub fn new(size: u32, spec: &Spec, queue: QueueLimits) -> Self {
        let nodes = Nodes::new();
        let mut tree = Tree::new(&nodes, size, queue);
        let applied = tree.apply(&nodes, size, spec, queue);
        debug_assert_eq!(applied, Ok(()), "a checked spec fits into an empty tree");
        let locked = Mutex::new(Locked { tree, waiters: Waiters::new() });
        Self { nodes, waiting: AtomicUsize::new(0), locked }
    }

    /// Requests a token for a request of `bucket`; if there is none, `waiter` waits. A bucket that was deleted counts
    /// as unclassified.
    pub fn admit(&self, bucket: BucketId, waiter: W, now: Moment, deliver: impl FnMut(W, Token)) -> Admission {
        let token = if self.waiting.load(SeqCst) == 0 { self.take(bucket) } else { None };
        match token {
            Some(token) => Admission::Token(token),
            None => self.admit_slowly(bucket, waiter, now, deliver),
        }
    }

    /// Takes a token for a request of `bucket`, if one is free and no request waits anywhere in the tree. It takes no
    /// lock. If it fails, [`Shaper::admit`] may still succeed.
    pub fn try_take(&self, bucket: BucketId, now: Moment, deliver: impl FnMut(W, Token)) -> Option<Token> {
        if self.waiting.load(SeqCst) > 0 {
            return None;
        }
        let token = self.take(bucket);
        if token.is_none() && self.waiting.load(SeqCst) > 0 {
            // The attempt may have held the last token of a bucket for an instant, in which a waiter found none.
            self.dispatch(now, deliver);
        }
        token
    }

    fn take(&self, bucket: BucketId) -> Option<Token> {
        self.nodes.take(self.nodes.leaf(bucket)?)
    }

    /// Queues the waiter, then lets the tree choose, so no request overtakes one with a higher claim.
    #[cold]
    fn admit_slowly(&self, bucket: BucketId, waiter: W, now: Moment, mut deliver: impl FnMut(W, Token)) -> Admission {
        let mut grants = Grants::new();
        let mut locked = self.lock();
        let leaf = self.nodes.leaf(bucket).unwrap_or(ROOT_LEAF);
        let queue = locked.tree.plan(leaf).queue;
        let deadline = now + queue.timeout;
        let key = locked.push(&self.waiting, leaf, waiter, now);
        let mut own = None;
        while !grants.is_full()
            && let Some((granted, waiting, token)) = locked.grant(&self.nodes, &self.waiting, now)
        {
            match granted == key {
                true => own = Some(token),
                false => grants.push((waiting.waiter, token)),
            }
        }
        let admission = match own {
            Some(token) => Admission::Token(token),
            None => {
                let queued = locked.waiters.len(leaf);
                let is_full = locked.waiters.len_of_flow(key) > queue.limit;
                let refused = if is_full { locked.remove(&self.waiting, key) } else { None };
                let stats = locked.tree.stats_mut(leaf);
                match refused {
                    Some(_) => stats.refused += 1,
                    None => {
                        stats.queued_total += 1;
                        stats.queued_max = stats.queued_max.max(queued);
                    }
                }
                if is_full { Admission::QueueFull } else { Admission::Queued { key, deadline } }
            }
        };
        drop(locked);
        let was_full = grants.is_full();
        grants.into_iter().for_each(|(waiter, token)| deliver(waiter, token));
        if was_full {
            self.dispatch(now, deliver);
        }
        admission
    }

    /// Returns a token; the next waiter gets it.
    pub fn give_back(&self, token: Token, now: Moment, deliver: impl FnMut(W, Token)) {
        self.nodes.give_back(token);
        if self.waiting.load(SeqCst) > 0 {
            self.dispatch(now, deliver);
        }
    }

    /// Removes a waiter from its queue. `None`: its token is already under way, and its receiver returns it.
    pub fn cancel(&self, key: WaiterKey, cause: Departure) -> Option<W> {
        let mut locked = self.lock();
        let waiting = locked.remove(&self.waiting, key)?;
        locked.count_departure(waiting.leaf, cause);
        Some(waiting.waiter)
    }

    /// Changes the number of tokens. If more are held, none is revoked, and none is granted until it fits.
    pub fn resize(&self, size: u32, now: Moment, deliver: impl FnMut(W, Token)) {
        self.lock().tree.resize(&self.nodes, size);
        self.dispatch(now, deliver);
    }

    /// Ends all limits, of the root and of all buckets: every waiter gets a token. [`Shaper::resize`] and [`Shaper::apply`]
    /// set limits again.
    pub fn lift_limits(&self, now: Moment, deliver: impl FnMut(W, Token)) {
        self.lock().tree.lift_limits(&self.nodes);
        self.dispatch(now, deliver);
    }

    /// Maps all waiters, in no order, under the lock.
    pub fn map_waiters<T>(&self, map: impl FnMut(&W) -> T) -> Vec<T> {
        self.lock().waiters.iter().map(map).collect()
    }

    /// Changes the size and the spec of the tree in one step. A bucket that keeps its name and its place keeps its
    /// tokens, its queue and its counters. A deleted bucket still serves its waiters and ends with its last request;
    /// new requests of it count as unclassified. Classifiers have to be bound again. If the spec is refused, the old
    /// one stays, with the new size.
    pub fn apply(
        &self,
        size: u32,
        spec: &Spec,
        queue: QueueLimits,
        now: Moment,
        deliver: impl FnMut(W, Token),
    ) -> Result<(), TooManyDraining> {
        let applied = self.lock().tree.apply(&self.nodes, size, spec, queue);
        self.dispatch(now, deliver);
        applied
    }

    /// Whether [`Shaper::apply`] would take this spec now: deleted buckets have room until their last request ends.
    pub fn check(&self, spec: &Spec) -> Result<(), TooManyDraining> {
        self.lock().tree.check(&self.nodes, spec)
    }

    /// The bucket with this name; `root` gives [`BucketId::UNCLASSIFIED`].
    pub fn bucket(&self, name: &str) -> Option<BucketId> {
        self.lock().tree.bucket(&self.nodes, name)
    }

    /// The state of all buckets: the root first, parents before children.
    pub fn snapshot(&self) -> Vec<BucketView> {
        let mut locked = self.lock();
        locked.tree.sweep(&self.nodes);
        snapshot::views(&locked.tree, &self.nodes)
    }

    /// Number of tokens held, over all buckets.
    pub fn held(&self) -> u32 {
        self.nodes.held(ROOT_NODE)
    }

    /// Number of waiters in all queues.
    pub fn queued(&self) -> usize {
        self.waiting.load(SeqCst)
    }

    /// Gives tokens to waiters until either is used up.
    #[cold]
    fn dispatch(&self, now: Moment, mut deliver: impl FnMut(W, Token)) {
        loop {
            let mut grants = Grants::new();
            let mut locked = self.lock();
            while !grants.is_full()
                && let Some((_, waiting, token)) = locked.grant(&self.nodes, &self.waiting, now)
            {
                grants.push((waiting.waiter, token));
            }
            drop(locked);
            let was_full = grants.is_full();
            grants.into_iter().for_each(|(waiter, token)| deliver(waiter, token));
            if !was_full {
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Locked<W>> {
        // Code under the lock can only panic from a defect of this room; the counters then stay as they are.
        self.locked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W: Flow> Locked<W> {
    fn push(&mut self, count: &AtomicUsize, leaf: Index, waiter: W, now: Moment) -> WaiterKey {
        let key = self.waiters.push(leaf, waiter, now);
        self.tree.add_waiter(leaf);
        count.fetch_add(1, SeqCst);
        key
    }

    fn remove(&mut self, count: &AtomicUsize, key: WaiterKey) -> Option<Waiting<W>> {
        let waiting = self.waiters.remove(key)?;
        self.count_out(count, waiting.leaf);
        Some(waiting)
    }

    fn count_out(&mut self, count: &AtomicUsize, leaf: Index) {
        self.tree.remove_waiter(leaf);
        count.fetch_sub(1, SeqCst);
    }

    /// Gives a token to the next waiter, if there are both.
    fn grant(&mut self, nodes: &Nodes, count: &AtomicUsize, now: Moment) -> Option<(WaiterKey, Waiting<W>, Token)> {
        loop {
            let (leaf, steps) = self.tree.choose(nodes)?;
            let key = self.waiters.first(leaf)?;
            // Another core may have taken the token; then the choice is repeated.
            let Some(token) = nodes.take(leaf) else { continue };
            self.tree.granted(leaf, &steps);
            let waiting = self.waiters.serve(key)?;
            self.count_out(count, leaf);
            let waited = now.since(waiting.since);
            if !waited.is_zero() {
                let stats = self.tree.stats_mut(leaf);
                stats.waits += 1;
                stats.waited_micros += u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
            }
            return Some((key, waiting, token));
        }
    }

    fn count_departure(&mut self, leaf: Index, cause: Departure) {
        let stats = self.tree.stats_mut(leaf);
        match cause {
            Departure::TimedOut => stats.timed_out += 1,
            Departure::Left => stats.left += 1,
        }
    }
}
