//! The queues of requests that wait for a token: first in, first out at each leaf; removing one waiter takes O(1).

use super::node::{Index, MAX_NODES};
use crate::base::clock::Moment;
use crate::base::gen_slab::{GenSlab, SlotKey};

/// The place of a waiter in its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WaiterKey(SlotKey);

/// A waiter and its neighbours.
#[derive(Debug)]
pub(super) struct Waiting<W> {
    pub(super) waiter: W,
    pub(super) leaf: Index,
    pub(super) since: Moment,
    pub(super) deadline: Moment,
    previous: Option<SlotKey>,
    next: Option<SlotKey>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Queue {
    first: Option<SlotKey>,
    last: Option<SlotKey>,
    len: u32,
}

/// The waiters of a tree, with a queue for each leaf.
#[derive(Debug)]
pub(super) struct Waiters<W> {
    slots: GenSlab<Waiting<W>>,
    queues: Box<[Queue; MAX_NODES]>,
}

impl<W> Waiters<W> {
    pub(super) fn new() -> Self {
        Self { slots: GenSlab::default(), queues: Box::new([Queue::default(); MAX_NODES]) }
    }

    pub(super) fn len(&self, leaf: Index) -> u32 {
        self.queues[usize::from(leaf)].len
    }

    /// Adds a waiter at the end of a queue.
    pub(super) fn push(&mut self, leaf: Index, waiter: W, since: Moment, deadline: Moment) -> WaiterKey {
        let queue = &mut self.queues[usize::from(leaf)];
        let previous = queue.last;
        let key = self.slots.insert(Waiting { waiter, leaf, since, deadline, previous, next: None });
        queue.last = Some(key);
        queue.len += 1;
        match previous {
            Some(previous) => self.slots.get_mut(previous).into_iter().for_each(|waiting| waiting.next = Some(key)),
            None => queue.first = Some(key),
        }
        WaiterKey(key)
    }

    /// The first waiter of a queue.
    pub(super) fn first(&self, leaf: Index) -> Option<(WaiterKey, Moment)> {
        let key = self.queues[usize::from(leaf)].first?;
        self.slots.get(key).map(|waiting| (WaiterKey(key), waiting.deadline))
    }

    /// Removes a waiter from any position of its queue.
    pub(super) fn remove(&mut self, key: WaiterKey) -> Option<Waiting<W>> {
        let waiting = self.slots.remove(key.0)?;
        let queue = &mut self.queues[usize::from(waiting.leaf)];
        queue.len -= 1;
        match waiting.previous {
            Some(previous) => self.slots.get_mut(previous).into_iter().for_each(|found| found.next = waiting.next),
            None => queue.first = waiting.next,
        }
        match waiting.next {
            Some(next) => self.slots.get_mut(next).into_iter().for_each(|found| found.previous = waiting.previous),
            None => queue.last = waiting.previous,
        }
        Some(waiting)
    }
}
