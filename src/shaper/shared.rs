//! A tree that all cores share.

use super::node::{BucketId, Index, Nodes, ROOT_LEAF, ROOT_NODE, Token};
use super::snapshot::{self, BucketView};
use super::spec::Spec;
use super::tree::{QueueLimits, TooManyDraining, Tree};
use super::waiters::{WaiterKey, Waiters, Waiting};
use crate::base::clock::Moment;
use arrayvec::ArrayVec;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What becomes of a request that asks for a token.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission {
    /// It has one.
    Token(Token),
    /// It waits in its bucket's queue. The token is delivered later, perhaps by another core and perhaps already now.
    Queued {
        /// Its place, for [`Shaper::cancel`].
        key: WaiterKey,
        /// When its time in the queue runs out. Who asked has to cancel it then.
        deadline: Moment,
    },
    /// The queue is full.
    QueueFull,
}

/// Why a waiter leaves its queue without a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departure {
    /// Its time in the queue ran out.
    TimedOut,
    /// Its client left, or the request ended in another way.
    Left,
}

/// Tokens delivered in one go, before the lock is taken again.
type Grants<W> = ArrayVec<(W, Token), 16>;

/// A tree of token buckets with a queue of waiters a bucket. `W` is a waiter's handle: where its token is to be sent.
///
/// Whoever calls a function that frees tokens passes `deliver`, which is called without the lock, once for each waiter
/// that has got a token. It must not call the shaper.
#[derive(Debug)]
pub struct Shaper<W> {
    nodes: Nodes,
    /// Waiters in all queues. It changes under the lock only.
    waiting: AtomicUsize,
    locked: Mutex<Locked<W>>,
}

#[derive(Debug)]
struct Locked<W> {
    tree: Tree,
    waiters: Waiters<W>,
}

impl<W> Shaper<W> {
    /// A tree of `size` tokens. `queue` is for unclassified requests and all buckets that have no limits of their own.
    pub fn new(size: u32, spec: &Spec, queue: QueueLimits) -> Self {
        let nodes = Nodes::new();
        let mut tree = Tree::new(&nodes, size, queue);
        let applied = tree.apply(&nodes, size, spec, queue);
        debug_assert_eq!(applied, Ok(()), "a checked spec fits into an empty tree");
        let locked = Mutex::new(Locked { tree, waiters: Waiters::new() });
        Self { nodes, waiting: AtomicUsize::new(0), locked }
    }

    /// Asks for a token, for a request of `bucket`; where there is none, `waiter` waits for one. A bucket that has been
    /// deleted counts as unclassified.
    pub fn admit(&self, bucket: BucketId, waiter: W, now: Moment, deliver: impl FnMut(W, Token)) -> Admission {
        let token = if self.waiting.load(SeqCst) == 0 { self.take(bucket) } else { None };
        match token {
            Some(token) => Admission::Token(token),
            None => self.admit_slowly(bucket, waiter, now, deliver),
        }
    }

    /// Takes a token, for a request of `bucket`, if there is one and no request waits anywhere in the tree. It takes no
    /// lock. Where it fails, [`Shaper::admit`] may succeed all the same.
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

    /// Queues the waiter, then lets the tree choose: so nobody overtakes who has the better claim.
    #[cold]
    fn admit_slowly(&self, bucket: BucketId, waiter: W, now: Moment, mut deliver: impl FnMut(W, Token)) -> Admission {
        let mut grants = Grants::new();
        let mut locked = self.lock();
        let leaf = self.nodes.leaf(bucket).unwrap_or(ROOT_LEAF);
        let queue = locked.tree.plan(leaf).queue;
        let deadline = now + queue.timeout;
        let key = locked.push(&self.waiting, leaf, waiter, now, deadline);
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
                let is_full = queued > queue.limit;
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

    /// Gives a token back; the waiter that is next gets it.
    pub fn give_back(&self, token: Token, now: Moment, deliver: impl FnMut(W, Token)) {
        self.nodes.give_back(token);
        if self.waiting.load(SeqCst) > 0 {
            self.dispatch(now, deliver);
        }
    }

    /// Takes a waiter out of its queue. `None`: its token is on its way already, and whoever receives it gives it back.
    pub fn cancel(&self, key: WaiterKey, cause: Departure) -> Option<W> {
        let mut locked = self.lock();
        let waiting = locked.remove(&self.waiting, key)?;
        locked.count_departure(waiting.leaf, cause);
        Some(waiting.waiter)
    }

    /// Takes out the waiters whose time has run out, and returns when the next one's will. A queue is looked through from
    /// its head, so after its timeout was shortened, the new one holds once those before have gone.
    pub fn expire(&self, now: Moment, mut expired: impl FnMut(W)) -> Option<Moment> {
        let mut gone = Vec::new();
        let mut locked = self.lock();
        let mut next = None::<Moment>;
        for leaf in 0..locked.tree.len() {
            while let Some((key, deadline)) = locked.waiters.first(leaf) {
                if deadline > now {
                    next = Some(next.map_or(deadline, |next| next.min(deadline)));
                    break;
                }
                gone.extend(locked.remove(&self.waiting, key).map(|waiting| waiting.waiter));
                locked.count_departure(leaf, Departure::TimedOut);
            }
        }
        drop(locked);
        gone.into_iter().for_each(&mut expired);
        next
    }

    /// Changes the number of tokens. Where more are held, none is taken back, and none is granted until it fits.
    pub fn resize(&self, size: u32, now: Moment, deliver: impl FnMut(W, Token)) {
        self.lock().tree.resize(&self.nodes, size);
        self.dispatch(now, deliver);
    }

    /// Changes the tree to another size and spec in one step. A bucket that keeps its name and its place keeps its tokens, its queue and its
    /// counters. A deleted one still serves those that wait in it and ends with its last request; new requests of it
    /// count as unclassified. Classifiers have to be bound anew. A refused spec leaves that of before, in the new size.
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

    /// The bucket of a name; that of `root` is [`BucketId::UNCLASSIFIED`].
    pub fn bucket(&self, name: &str) -> Option<BucketId> {
        self.lock().tree.bucket(&self.nodes, name)
    }

    /// The state of all buckets: the root first, parents before those in them.
    pub fn snapshot(&self) -> Vec<BucketView> {
        let mut locked = self.lock();
        locked.tree.sweep(&self.nodes);
        snapshot::views(&locked.tree, &self.nodes)
    }

    /// The tokens that are held, over all buckets.
    pub fn held(&self) -> u32 {
        self.nodes.held(ROOT_NODE)
    }

    /// The waiters in all queues.
    pub fn queued(&self) -> usize {
        self.waiting.load(SeqCst)
    }

    /// Gives waiters tokens for as long as there are both.
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
        // Nothing within a lock can panic half way but for a fault of this room; counters stay as they are then.
        self.locked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W> Locked<W> {
    fn push(&mut self, count: &AtomicUsize, leaf: Index, waiter: W, now: Moment, deadline: Moment) -> WaiterKey {
        let key = self.waiters.push(leaf, waiter, now, deadline);
        self.tree.add_waiter(leaf);
        count.fetch_add(1, SeqCst);
        key
    }

    fn remove(&mut self, count: &AtomicUsize, key: WaiterKey) -> Option<Waiting<W>> {
        let waiting = self.waiters.remove(key)?;
        self.tree.remove_waiter(waiting.leaf);
        count.fetch_sub(1, SeqCst);
        Some(waiting)
    }

    /// Gives the next waiter a token, if there are both.
    fn grant(&mut self, nodes: &Nodes, count: &AtomicUsize, now: Moment) -> Option<(WaiterKey, Waiting<W>, Token)> {
        loop {
            let (leaf, steps) = self.tree.choose(nodes)?;
            let (key, _) = self.waiters.first(leaf)?;
            // Another core may have been faster; then the choice is made anew.
            let Some(token) = nodes.take(leaf) else { continue };
            self.tree.granted(leaf, &steps);
            let waiting = self.remove(count, key)?;
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
