//! The state of a tree for views, metrics and statistics.

use super::node::{Index, Nodes, ROOT_NODE};
use super::tree::Tree;
use std::time::Duration;

/// The state of one bucket. Numbers of tokens cover the bucket and all buckets in it; the queue and the counters cover
/// its own requests only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketView {
    /// The name; `root` for the whole tree and its unclassified requests.
    pub name: String,
    /// Index of the parent in the list; `None` for the root, which comes first.
    pub parent: Option<usize>,
    /// Assured tokens.
    pub rate: u32,
    /// The greatest number of tokens by its share.
    pub ceil: u32,
    /// The greatest number of tokens in force: one if the share is rounded down to 0.
    pub limit: u32,
    /// Tokens in use.
    pub held: u32,
    /// Tokens in use beyond the rate.
    pub over: u32,
    /// The greatest number of tokens ever in use at once.
    pub held_max: u32,
    /// Number of tokens ever taken by the bucket's own requests.
    pub taken: u64,
    /// Requests that wait now.
    pub queued: u32,
    /// The greatest number of requests that ever waited at once.
    pub queued_max: u32,
    /// Requests that ever waited.
    pub queued_total: u64,
    /// Requests refused because the queue was full.
    pub refused: u64,
    /// Requests whose time in the queue ended.
    pub timed_out: u64,
    /// Requests whose client left while they waited.
    pub left: u64,
    /// Requests that got a token after a wait.
    pub waits: u64,
    /// Total wait of these requests.
    pub waited: Duration,
    /// Whether the bucket is deleted and ends with its last request.
    pub is_draining: bool,
}

/// The buckets of a tree, parents first, in the order of the spec.
pub(super) fn views(tree: &Tree, nodes: &Nodes) -> Vec<BucketView> {
    let mut views = Vec::new();
    add(tree, nodes, ROOT_NODE, None, &mut views);
    views
}

fn add(tree: &Tree, nodes: &Nodes, index: Index, parent: Option<usize>, views: &mut Vec<BucketView>) {
    let plan = tree.plan(index);
    let leaf = tree.leaf_of(index);
    let own = tree.plan(leaf);
    let held = nodes.held(index);
    let place = views.len();
    views.push(BucketView {
        name: plan.name.to_string(),
        parent,
        rate: plan.rate,
        ceil: plan.ceil,
        limit: nodes.limit(index),
        held,
        over: held.saturating_sub(plan.rate),
        held_max: nodes.peak(index),
        taken: nodes.taken(leaf),
        queued: own.waiters,
        queued_max: own.stats.queued_max,
        queued_total: own.stats.queued_total,
        refused: own.stats.refused,
        timed_out: own.stats.timed_out,
        left: own.stats.left,
        waits: own.stats.waits,
        waited: Duration::from_micros(own.stats.waited_micros),
        is_draining: plan.is_draining,
    });
    for child in plan.children.iter().filter(|child| **child != leaf) {
        add(tree, nodes, *child, Some(place), views);
    }
}
