//! The queues of requests that wait for a token: first in, first out at each leaf; removing one waiter takes O(1).

use super::node::{Index, MAX_NODES};
use crate::base::clock::Moment;
use crate::base::gen_slab::{GenSlab, SlotKey};
use std::collections::{HashMap, VecDeque};

/// The flow that a waiter belongs to. Without flows of their own, all requests of a bucket are one.
pub trait Flow {
    /// The number of the flow.
    fn flow(&self) -> u32 {
        0
    }

    /// The tokens that the flow holds at present: of several flows, those with the fewest are served first.
    fn held(&self) -> u32 {
        0
    }

    /// The moment by which the waiters of a flow are ordered; of those of one moment the first to join goes first.
    fn arrived(&self) -> Moment {
        Moment::ZERO
    }
}

/// A waiter that is a number is of the one flow.
impl Flow for u32 {}

/// As many flows at most, the next ones in turn, are compared by the tokens that they hold.
const COMPARED: usize = 16;

/// The place of a waiter in its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WaiterKey(SlotKey);

/// A waiter and its neighbours.
#[derive(Debug)]
pub(super) struct Waiting<W> {
    pub(super) waiter: W,
    pub(super) leaf: Index,
    pub(super) since: Moment,
    queue: SlotKey,
    previous: Option<SlotKey>,
    next: Option<SlotKey>,
}

/// The waiters of one flow at a leaf. It is there while it has some.
#[derive(Clone, Copy, Debug)]
struct Queue {
    flow: u32,
    first: SlotKey,
    last: SlotKey,
    len: u32,
}

/// The queues of a leaf, the one whose turn it is first.
#[derive(Debug, Default)]
struct Leaf {
    /// It may have removed queues, never at the front: they are taken out together, since each alone would take a search.
    turns: VecDeque<SlotKey>,
    of_flow: HashMap<u32, SlotKey>,
    len: u32,
}

impl Leaf {
    /// The queues that are compared, with their places.
    fn compared<'l>(&'l self, queues: &'l GenSlab<Queue>) -> impl Iterator<Item = (usize, SlotKey)> + 'l {
        let places = self.turns.iter().copied().enumerate().take(COMPARED);
        places.filter(|(_, queue)| queues.get(*queue).is_some())
    }

    /// Takes the queues out that are gone: those at the front, and all if they are the greater part.
    fn tidy(&mut self, queues: &GenSlab<Queue>) {
        while self.turns.front().is_some_and(|queue| queues.get(*queue).is_none()) {
            self.turns.pop_front();
        }
        if self.turns.len() > 2 * self.of_flow.len() + COMPARED {
            self.turns.retain(|queue| queues.get(*queue).is_some());
        }
    }
}

/// The waiters of a tree, with a queue for each leaf.
#[derive(Debug)]
pub(super) struct Waiters<W> {
    slots: GenSlab<Waiting<W>>,
    queues: GenSlab<Queue>,
    leaves: Box<[Leaf]>,
}

impl<W: Flow> Waiters<W> {
    pub(super) fn new() -> Self {
        let leaves = (0..MAX_NODES).map(|_| Leaf::default()).collect();
        Self { slots: GenSlab::default(), queues: GenSlab::default(), leaves }
    }

    /// All waiters, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &W> {
        self.slots.values().map(|waiting| &waiting.waiter)
    }

    /// The waiters at a leaf.
    pub(super) fn len(&self, leaf: Index) -> u32 {
        self.leaves[usize::from(leaf)].len
    }

    /// The waiters of the flow that a waiter is of, itself among them.
    pub(super) fn len_of_flow(&self, key: WaiterKey) -> u32 {
        let queue = self.slots.get(key.0).and_then(|waiting| self.queues.get(waiting.queue));
        queue.map_or(0, |queue| queue.len)
    }

    /// Puts a waiter into the queue of its flow, behind those that arrived no later: nearly always at the end.
    pub(super) fn push(&mut self, leaf: Index, waiter: W, since: Moment) -> WaiterKey {
        let (flow, arrived, queues) = (waiter.flow(), waiter.arrived(), &mut self.queues);
        let Leaf { turns, of_flow, .. } = &mut self.leaves[usize::from(leaf)];
        let known = of_flow.get(&flow).copied();
        let (mut previous, mut next) = (known.and_then(|queue| queues.get(queue)).map(|queue| queue.last), None);
        while let Some(later) = previous.and_then(|previous| self.slots.get(previous))
            && later.waiter.arrived() > arrived
        {
            (previous, next) = (later.previous, previous);
        }
        let slots = &mut self.slots;
        let key = slots.insert_with(|key| {
            let queue = known.unwrap_or_else(|| {
                let queue = queues.insert(Queue { flow, first: key, last: key, len: 0 });
                turns.push_back(queue);
                of_flow.insert(flow, queue);
                queue
            });
            if let Some(queue) = queues.get_mut(queue) {
                queue.first = previous.map_or(key, |_| queue.first);
                queue.last = next.map_or(key, |_| queue.last);
                queue.len += 1;
            }
            Waiting { waiter, leaf, since, queue, previous, next }
        });
        if let Some(behind) = next.and_then(|next| self.slots.get_mut(next)) {
            behind.previous = Some(key);
        }
        if let Some(before) = previous.and_then(|previous| self.slots.get_mut(previous)) {
            before.next = Some(key);
        }
        self.leaves[usize::from(leaf)].len += 1;
        WaiterKey(key)
    }

    /// The waiter of a leaf that is next.
    pub(super) fn first(&self, leaf: Index) -> Option<WaiterKey> {
        let leaf = &self.leaves[usize::from(leaf)];
        let mut firsts = leaf.compared(&self.queues).filter_map(|(_, queue)| Some(self.queues.get(queue)?.first));
        let first = match leaf.of_flow.len() {
            0 | 1 => firsts.next(),
            _ => firsts.min_by_key(|first| self.slots.get(*first).map(|waiting| waiting.waiter.held())),
        };
        first.map(WaiterKey)
    }

    /// Takes a waiter out that has got its token: its flow has had its turn.
    pub(super) fn serve(&mut self, key: WaiterKey) -> Option<Waiting<W>> {
        let waiting = self.remove(key)?;
        let leaf = &mut self.leaves[usize::from(waiting.leaf)];
        let place = leaf.compared(&self.queues).find(|(_, queue)| *queue == waiting.queue).map(|(place, _)| place);
        if let Some(place) = place {
            leaf.turns.remove(place);
            leaf.turns.push_back(waiting.queue);
            leaf.tidy(&self.queues);
        }
        Some(waiting)
    }

    /// Removes a waiter from any position of its queue.
    pub(super) fn remove(&mut self, key: WaiterKey) -> Option<Waiting<W>> {
        let waiting = self.slots.remove(key.0)?;
        if let Some(before) = waiting.previous.and_then(|key| self.slots.get_mut(key)) {
            before.next = waiting.next;
        }
        if let Some(behind) = waiting.next.and_then(|key| self.slots.get_mut(key)) {
            behind.previous = waiting.previous;
        }
        let leaf = &mut self.leaves[usize::from(waiting.leaf)];
        leaf.len -= 1;
        if let Some(queue) = self.queues.get_mut(waiting.queue) {
            queue.len -= 1;
            queue.first = waiting.previous.map_or(waiting.next.unwrap_or(queue.first), |_| queue.first);
            queue.last = waiting.next.map_or(waiting.previous.unwrap_or(queue.last), |_| queue.last);
            if queue.len == 0 {
                leaf.of_flow.remove(&queue.flow);
                self.queues.remove(waiting.queue);
                leaf.tidy(&self.queues);
            }
        }
        Some(waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Of(u32);

    impl Flow for Of {
        fn flow(&self) -> u32 {
            self.0
        }
    }

    /// Flows come and go in any order: those that are there keep their turns, and those that are gone take no room.
    #[test]
    fn flows_that_are_gone_stand_in_nobodys_way() {
        for seed in 0..20 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut waiters = Waiters::new();
            let mut there: Vec<(u32, WaiterKey)> = Vec::new();
            for flow in 0..4000 {
                there.push((flow, waiters.push(0, Of(flow), Moment::ZERO)));
                while there.len() > 5 && random.u8(..4) != 0 {
                    let (_, key) = there.swap_remove(random.usize(..there.len()));
                    waiters.remove(key).expect("a waiter");
                }
                let leaf = &waiters.leaves[0];
                assert_eq!((leaf.len as usize, leaf.of_flow.len()), (there.len(), there.len()), "seed {seed}");
                assert!(leaf.turns.len() <= 2 * there.len() + COMPARED, "seed {seed}: {} places", leaf.turns.len());
            }
            there.sort_by_key(|(flow, _)| *flow);
            for (flow, _) in there {
                let first = waiters.first(0).expect("a waiter");
                assert_eq!(waiters.serve(first).map(|waiting| waiting.waiter.0), Some(flow), "seed {seed}");
            }
            assert!(waiters.first(0).is_none() && waiters.leaves[0].turns.is_empty(), "seed {seed}");
        }
    }
}
