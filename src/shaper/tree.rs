//! The shape of a tree and the choice of the next waiter. It changes under the shaper's lock only.
//!
//! Requests hold tokens at leaves. The root, and each bucket that contains buckets, has its own leaf for requests
//! classified to it; the rate of that leaf is the part that the other children leave.

use super::node::{BucketId, Index, MAX_NODES, Nodes, ROOT_LEAF, ROOT_NODE};
use super::share::{self, Share};
use super::spec::{self, BucketSpec, MAX_DEPTH, Spec};
use arrayvec::ArrayVec;
use std::time::Duration;

/// The limits of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// The greatest number of requests that wait in one bucket; with 0 none waits.
    pub limit: u32,
    /// The longest time that a request waits.
    pub timeout: Duration,
}

/// The change needs more nodes than are free, because deleted buckets are still in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyDraining;

impl std::fmt::Display for TooManyDraining {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(
            "too many deleted buckets still have requests in flight: apply the change again once they have ended",
        )
    }
}

/// A token is assured or lent.
const PHASES: usize = 2;

/// The least number of grants after which a bucket without a token goes first.
const MIN_PATIENCE: u64 = 16;

/// The statistics of a leaf. Waits are those that ended with a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LeafStats {
    pub(super) queued_total: u64,
    pub(super) queued_max: u32,
    pub(super) refused: u64,
    pub(super) timed_out: u64,
    pub(super) left: u64,
    pub(super) waits: u64,
    pub(super) waited_micros: u64,
}

/// The settings of a node, and its turn among its siblings.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) name: Box<str>,
    pub(super) parent: Option<Index>,
    pub(super) children: Vec<Index>,
    /// `None` for the root and for leaves of their parent's own requests.
    pub(super) share: Option<Share>,
    pub(super) rate: u32,
    pub(super) ceil: u32,
    fine_rate: u64,
    pub(super) queue: QueueLimits,
    pub(super) is_draining: bool,
    /// Waiters here and below.
    pub(super) waiters: u32,
    /// Its turn in each phase, and the current turn of its children.
    turn: [u128; PHASES],
    time: [u128; PHASES],
    /// The number of the grant since which its queue has got none.
    hungry_since: u64,
    pub(super) stats: LeafStats,
}

impl Plan {
    fn new(name: &str, parent: Option<Index>, share: Option<Share>, queue: QueueLimits) -> Self {
        Self {
            name: name.into(),
            parent,
            children: Vec::new(),
            share,
            rate: 0,
            ceil: 0,
            fine_rate: 0,
            queue,
            is_draining: false,
            waiters: 0,
            turn: [0; PHASES],
            time: [0; PHASES],
            hungry_since: 0,
            stats: LeafStats::default(),
        }
    }

    fn is_own_leaf(&self) -> bool {
        self.share.is_none() && self.parent.is_some()
    }
}

/// One level of a choice: a child, its phase, and its turn.
type Step = (Index, usize, u128);

/// The path of a choice from the root's child to a leaf.
pub(super) type Steps = ArrayVec<Step, { MAX_DEPTH + 2 }>;

/// The shape of a tree.
#[derive(Debug)]
pub(super) struct Tree {
    plans: Vec<Option<Plan>>,
    size: u32,
    /// Tokens given to waiters so far.
    grants: u64,
}

impl Tree {
    /// A tree with only the root.
    pub(super) fn new(nodes: &Nodes, size: u32, queue: QueueLimits) -> Self {
        let mut tree = Self { plans: Vec::new(), size, grants: 0 };
        tree.plans.push(Some(Plan::new(spec::ROOT, None, None, queue)));
        tree.plans.push(Some(Plan::new(spec::ROOT, Some(ROOT_NODE), None, queue)));
        tree.plan_mut(ROOT_NODE).children.push(ROOT_LEAF);
        nodes.assign(ROOT_NODE, None);
        nodes.assign(ROOT_LEAF, Some(ROOT_NODE));
        tree.resize(nodes, size);
        tree
    }

    /// The plan of a node in use.
    pub(super) fn plan(&self, index: Index) -> &Plan {
        self.plans[usize::from(index)].as_ref().unwrap_or_else(|| panic!("the node {index} is not in use"))
    }

    fn plan_mut(&mut self, index: Index) -> &mut Plan {
        self.plans[usize::from(index)].as_mut().unwrap_or_else(|| panic!("the node {index} is not in use"))
    }

    pub(super) fn stats_mut(&mut self, leaf: Index) -> &mut LeafStats {
        &mut self.plan_mut(leaf).stats
    }

    /// The leaf that the requests of a bucket are counted at.
    pub(super) fn leaf_of(&self, index: Index) -> Index {
        self.plan(index).children.iter().copied().find(|child| self.plan(*child).is_own_leaf()).unwrap_or(index)
    }

    /// The bucket with this name.
    pub(super) fn bucket(&self, nodes: &Nodes, name: &str) -> Option<BucketId> {
        let plans = self.plans.iter().zip(0..);
        let mut found = plans.filter_map(|(plan, index)| Some((plan.as_ref()?, index)));
        let (_, index) = found.find(|(plan, _)| &*plan.name == name && !plan.is_draining && !plan.is_own_leaf())?;
        Some(nodes.bucket(self.leaf_of(index)))
    }

    /// Adds a waiter at a leaf and its ancestors.
    pub(super) fn add_waiter(&mut self, leaf: Index) {
        let grants = self.grants;
        let plan = self.plan_mut(leaf);
        if plan.waiters == 0 {
            plan.hungry_since = grants;
        }
        self.each_above(leaf, |plan| plan.waiters += 1);
    }

    /// Removes a waiter at a leaf and its ancestors.
    pub(super) fn remove_waiter(&mut self, leaf: Index) {
        self.each_above(leaf, |plan| plan.waiters -= 1);
    }

    fn each_above(&mut self, leaf: Index, change: impl Fn(&mut Plan)) {
        let mut at = Some(leaf);
        while let Some(index) = at {
            let plan = self.plan_mut(index);
            change(plan);
            at = plan.parent;
        }
    }

    /// Chooses the leaf whose first waiter gets the next token: see the shaper's module for the rule.
    pub(super) fn choose(&self, nodes: &Nodes) -> Option<(Index, Steps)> {
        if !self.can_serve(nodes, ROOT_NODE) {
            return None;
        }
        if let Some(leaf) = self.starving(nodes) {
            return Some((leaf, Steps::new()));
        }
        let mut steps = Steps::new();
        let mut at = ROOT_NODE;
        while !self.plan(at).children.is_empty() {
            let step = self.choose_child(nodes, at)?;
            steps.push(step);
            at = step.0;
        }
        Some((at, steps))
    }

    /// Whether a waiter here or below could get a token, as far as this subtree is concerned.
    fn can_serve(&self, nodes: &Nodes, index: Index) -> bool {
        let plan = self.plan(index);
        let below = || plan.children.is_empty() || plan.children.iter().any(|child| self.can_serve(nodes, *child));
        plan.waiters > 0 && nodes.has_room(index) && below()
    }

    /// Children below their rate go first; among equals, the child with the earliest turn.
    fn choose_child(&self, nodes: &Nodes, parent: Index) -> Option<Step> {
        let parent = self.plan(parent);
        let steps = parent.children.iter().filter(|child| self.can_serve(nodes, **child)).map(|child| {
            let plan = self.plan(*child);
            let phase = usize::from(nodes.held(*child) >= plan.rate);
            (*child, phase, plan.turn[phase].max(parent.time[phase]))
        });
        steps.min_by_key(|(_, phase, turn)| (*phase, *turn))
    }

    /// The leaf that has been without a token for too long.
    fn starving(&self, nodes: &Nodes) -> Option<Index> {
        let patience = self.patience();
        let plans = self.plans.iter().zip(0..).filter_map(|(plan, index)| Some((plan.as_ref()?, index)));
        let starving = plans.filter(|(plan, index)| {
            plan.waiters > 0
                && plan.children.is_empty()
                && self.grants - plan.hungry_since >= patience
                && nodes.held(*index) == 0
                && self.has_room_above(nodes, *index)
        });
        starving.min_by_key(|(plan, _)| plan.hungry_since).map(|(_, index)| index)
    }

    /// The number of grants to others that a leaf without a token accepts.
    pub(super) fn patience(&self) -> u64 {
        u64::from(self.size).max(MIN_PATIENCE)
    }

    fn has_room_above(&self, nodes: &Nodes, leaf: Index) -> bool {
        let mut at = Some(leaf);
        while let Some(index) = at {
            if !nodes.has_room(index) {
                return false;
            }
            at = self.plan(index).parent;
        }
        true
    }

    /// Records that the leaf of a choice got its token.
    pub(super) fn granted(&mut self, leaf: Index, steps: &Steps) {
        self.grants += 1;
        self.plan_mut(leaf).hungry_since = self.grants;
        for (child, phase, turn) in steps {
            let plan = self.plan_mut(*child);
            plan.turn[*phase] = turn + (1 << u64::BITS) / u128::from(plan.fine_rate.max(1));
            if let Some(parent) = plan.parent {
                self.plan_mut(parent).time[*phase] = *turn;
            }
        }
    }

    /// Computes all rates and limits from the root down. Tokens already held stay.
    pub(super) fn resize(&mut self, nodes: &Nodes, size: u32) {
        self.size = size;
        let root = self.plan_mut(ROOT_NODE);
        (root.rate, root.ceil, root.fine_rate) = (size, size, share::fine(size));
        nodes.set_limit(ROOT_NODE, size);
        self.resize_children(nodes, ROOT_NODE);
    }

    /// Lets every node in use hold any number of tokens, whatever its share is.
    pub(super) fn lift_limits(&mut self, nodes: &Nodes) {
        self.resize(nodes, u32::MAX);
        for (plan, index) in self.plans.iter_mut().zip(0..).filter_map(|(plan, index)| Some((plan.as_mut()?, index))) {
            if !plan.is_draining || plan.waiters > 0 {
                plan.ceil = u32::MAX;
                nodes.set_limit(index, u32::MAX);
            }
        }
    }

    fn resize_children(&mut self, nodes: &Nodes, index: Index) {
        let parent = self.plan(index);
        let (rate, ceil, fine_rate) = (parent.rate, parent.ceil, parent.fine_rate);
        let limit = nodes.limit(index);
        let (mut rest, mut fine_rest) = (rate, fine_rate);
        let children = parent.children.clone();
        for child in &children {
            let plan = self.plan_mut(*child);
            let Some(share) = plan.share else { continue };
            plan.ceil = share.ceil.of(ceil);
            if plan.is_draining {
                (plan.rate, plan.fine_rate) = (0, 0);
            } else {
                plan.rate = share.rate.of(rate).min(plan.ceil);
                plan.fine_rate = share.fine_rate(fine_rate);
            }
            (rest, fine_rest) = (rest.saturating_sub(plan.rate), fine_rest.saturating_sub(plan.fine_rate));
            // A share rounded down to 0 could never be used.
            let lowest = limit.min(1);
            let limit = if plan.is_draining && plan.waiters == 0 { 0 } else { plan.ceil.max(lowest) };
            nodes.set_limit(*child, limit);
            self.resize_children(nodes, *child);
        }
        if let Some(own) = children.into_iter().find(|child| self.plan(*child).is_own_leaf()) {
            let is_root = index == ROOT_NODE;
            let is_gone = self.plan(own).is_draining && self.plan(own).waiters == 0;
            let plan = self.plan_mut(own);
            plan.rate = if is_root { rest.max(1) } else { rest };
            plan.fine_rate = if is_root { fine_rest.max(share::fine(1)) } else { fine_rest };
            plan.ceil = ceil;
            nodes.set_limit(own, if is_gone { 0 } else { limit });
        }
    }

    /// Changes the tree to `size` and `spec`, by difference. A bucket keeps its tokens, its queue and its counters if
    /// it keeps its name and its parent, and still has, or still lacks, buckets in it. Other buckets are deleted once
    /// they are no longer in use.
    pub(super) fn apply(
        &mut self,
        nodes: &Nodes,
        size: u32,
        spec: &Spec,
        queue: QueueLimits,
    ) -> Result<(), TooManyDraining> {
        let fits = self.check(nodes, spec);
        if fits.is_ok() {
            (self.plan_mut(ROOT_NODE).queue, self.plan_mut(ROOT_LEAF).queue) = (queue, queue);
            self.apply_children(nodes, ROOT_NODE, &spec.buckets, queue);
        }
        self.resize(nodes, size);
        self.sweep(nodes);
        fits
    }

    /// Whether there is room for this spec besides deleted buckets that are still in use.
    pub(super) fn check(&mut self, nodes: &Nodes, spec: &Spec) -> Result<(), TooManyDraining> {
        self.sweep(nodes);
        let needed = self.nodes_needed(ROOT_NODE, &spec.buckets) + self.in_use();
        if needed <= MAX_NODES { Ok(()) } else { Err(TooManyDraining) }
    }

    fn in_use(&self) -> usize {
        self.plans.iter().flatten().count()
    }

    /// The existing child that a bucket of the spec continues.
    fn continued(&self, parent: Index, bucket: &BucketSpec) -> Option<Index> {
        let is_same = |child: &Index| {
            let plan = self.plan(*child);
            let is_inner = !plan.children.is_empty();
            plan.name == bucket.name
                && !plan.is_own_leaf()
                && !plan.is_draining
                && is_inner != bucket.children.is_empty()
        };
        self.plan(parent).children.iter().copied().find(is_same)
    }

    /// Number of new nodes that a list of buckets needs.
    fn nodes_needed(&self, parent: Index, buckets: &[BucketSpec]) -> usize {
        let of_one = |bucket: &BucketSpec| match self.continued(parent, bucket) {
            Some(index) => self.nodes_needed(index, &bucket.children),
            None => nodes_of(bucket),
        };
        buckets.iter().map(of_one).sum()
    }

    fn apply_children(&mut self, nodes: &Nodes, parent: Index, buckets: &[BucketSpec], queue: QueueLimits) {
        let kept: Vec<_> = buckets.iter().filter_map(|bucket| self.continued(parent, bucket)).collect();
        for child in self.plan(parent).children.clone() {
            if !kept.contains(&child) && !self.plan(child).is_own_leaf() {
                self.drain(nodes, child);
            }
        }
        for bucket in buckets {
            let queue = QueueLimits {
                limit: bucket.queue_limit.unwrap_or(queue.limit),
                timeout: bucket.queue_timeout.unwrap_or(queue.timeout),
            };
            let index = match self.continued(parent, bucket) {
                Some(index) => index,
                None => {
                    let index = self.insert(nodes, Plan::new(&bucket.name, Some(parent), Some(bucket.share), queue));
                    if !bucket.children.is_empty() {
                        self.insert(nodes, Plan::new(&bucket.name, Some(index), None, queue));
                    }
                    index
                }
            };
            self.plan_mut(index).share = Some(bucket.share);
            self.plan_mut(index).queue = queue;
            let leaf = self.leaf_of(index);
            self.plan_mut(leaf).queue = queue;
            self.apply_children(nodes, index, &bucket.children, queue);
        }
        // Views follow the order of the spec.
        let place = |name: &str| buckets.iter().position(|bucket| &*bucket.name == name);
        let mut children = std::mem::take(&mut self.plan_mut(parent).children);
        children.sort_by_key(|child| {
            let plan = self.plan(*child);
            if plan.is_own_leaf() || plan.is_draining { usize::MAX } else { place(&plan.name).unwrap_or(usize::MAX) }
        });
        self.plan_mut(parent).children = children;
    }

    fn insert(&mut self, nodes: &Nodes, plan: Plan) -> Index {
        let free = self.plans.iter().position(Option::is_none).unwrap_or_else(|| {
            self.plans.push(None);
            self.plans.len() - 1
        });
        let index = Index::try_from(free).unwrap_or_else(|_| panic!("more nodes than MAX_NODES"));
        nodes.assign(index, plan.parent);
        if let Some(parent) = plan.parent {
            self.plan_mut(parent).children.push(index);
        }
        self.plans[free] = Some(plan);
        index
    }

    /// Deletes a bucket and the buckets in it, once they are no longer in use.
    fn drain(&mut self, nodes: &Nodes, index: Index) {
        if !self.plan(index).is_draining {
            self.plan_mut(index).is_draining = true;
            nodes.revoke(index);
        }
        for child in self.plan(index).children.clone() {
            self.drain(nodes, child);
        }
    }

    /// Frees the nodes of deleted buckets that are no longer in use.
    pub(super) fn sweep(&mut self, nodes: &Nodes) {
        loop {
            let found = self.plans.iter().zip(0..).find_map(|(plan, index): (_, Index)| {
                let plan = plan.as_ref()?;
                let is_unused = plan.is_draining && plan.children.is_empty() && plan.waiters == 0;
                (is_unused && self.is_closed(nodes, index)).then_some((index, plan.parent?))
            });
            let Some((index, parent)) = found else { return };
            self.plan_mut(parent).children.retain(|child| *child != index);
            self.plans[usize::from(index)] = None;
        }
    }

    /// Closes a node to new tokens; returns whether none is held there.
    fn is_closed(&self, nodes: &Nodes, index: Index) -> bool {
        nodes.set_limit(index, 0);
        nodes.held(index) == 0
    }
}

fn nodes_of(bucket: &BucketSpec) -> usize {
    let own = if bucket.children.is_empty() { 1 } else { 2 };
    own + bucket.children.iter().map(nodes_of).sum::<usize>()
}
