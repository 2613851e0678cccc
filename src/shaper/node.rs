//! The counters of a tree's nodes: atomics, so a token is taken and returned without a lock.
//!
//! A node's limit and the tokens held below it share one word, so no token is taken beyond a limit that was just
//! lowered. A token is counted at its leaf and at every ancestor up to the root.

use std::num::NonZeroU16;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64};

/// The greatest number of nodes of a tree: two for each inner bucket, one for each other bucket, two for the root, and
/// spare ones for deleted buckets that are still in use.
pub(super) const MAX_NODES: usize = 128;

/// The index of a node.
pub(super) type Index = u16;

/// The root's index.
pub(super) const ROOT_NODE: Index = 0;

/// The index of the leaf for the root's own requests: the unclassified ones.
pub(super) const ROOT_LEAF: Index = 1;

const NO_PARENT: u32 = u32::MAX;

/// A bucket of one tree. Requests of a bucket that was deleted count as unclassified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BucketId {
    /// The leaf. It is never 0, the root, so an optional bucket takes no extra space.
    leaf: NonZeroU16,
    /// The generation, which wraps. After a full cycle of edits, an old classification would match another bucket.
    generation: u16,
}

impl BucketId {
    /// The bucket of unclassified requests: the root itself.
    pub const UNCLASSIFIED: Self = Self { leaf: NonZeroU16::MIN, generation: 0 };
}

const _: () = assert!(NonZeroU16::MIN.get() == ROOT_LEAF);

/// The right to one request in flight. It has to be returned to the tree that it came from.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a token that is not given back is lost to its tree"]
pub struct Token {
    /// The leaf. It is never 0, the root, so an optional token takes no extra space.
    leaf: NonZeroU16,
}

fn of_leaf(leaf: Index) -> NonZeroU16 {
    NonZeroU16::new(leaf).unwrap_or(NonZeroU16::MIN)
}

/// A node on its own cache lines.
#[derive(Debug)]
#[repr(align(128))]
struct Node {
    /// The limit in the high half, the tokens held here and below in the low half.
    state: AtomicU64,
    parent: AtomicU32,
    /// Number of buckets that have used this node.
    generation: AtomicU16,
    /// The greatest number of tokens ever held at once.
    peak: AtomicU32,
    /// Number of tokens taken so far; counted at leaves only.
    taken: AtomicU64,
}

impl Node {
    const fn new() -> Self {
        Self {
            state: AtomicU64::new(0),
            parent: AtomicU32::new(NO_PARENT),
            generation: AtomicU16::new(0),
            peak: AtomicU32::new(0),
            taken: AtomicU64::new(0),
        }
    }

    fn take(&self) -> bool {
        let taken = self.state.fetch_update(SeqCst, SeqCst, |state| (held(state) < limit(state)).then_some(state + 1));
        let Ok(before) = taken else { return false };
        let now_held = held(before) + 1;
        if now_held > self.peak.load(Relaxed) {
            self.peak.fetch_max(now_held, Relaxed);
        }
        true
    }

    fn parent(&self) -> Option<Index> {
        Index::try_from(self.parent.load(SeqCst)).ok()
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
const fn held(state: u64) -> u32 {
    state as u32
}

const fn limit(state: u64) -> u32 {
    (state >> 32) as u32
}

/// The counters of all nodes of a tree.
#[derive(Debug)]
pub(super) struct Nodes(Box<[Node]>);

impl Nodes {
    pub(super) fn new() -> Self {
        Self((0..MAX_NODES).map(|_| Node::new()).collect())
    }

    fn node(&self, index: Index) -> &Node {
        &self.0[usize::from(index)]
    }

    /// The leaf of a bucket, if it is still in the tree.
    pub(super) fn leaf(&self, bucket: BucketId) -> Option<Index> {
        let leaf = bucket.leaf.get();
        (self.node(leaf).generation.load(SeqCst) == bucket.generation).then_some(leaf)
    }

    /// The bucket that uses this leaf at present.
    pub(super) fn bucket(&self, leaf: Index) -> BucketId {
        BucketId { leaf: of_leaf(leaf), generation: self.node(leaf).generation.load(SeqCst) }
    }

    /// Takes a token at a leaf and all its ancestors, or at none of them.
    pub(super) fn take(&self, leaf: Index) -> Option<Token> {
        let mut at = leaf;
        loop {
            let node = self.node(at);
            if !node.take() {
                self.undo(leaf, at);
                return None;
            }
            match node.parent() {
                Some(parent) => at = parent,
                None => {
                    self.node(leaf).taken.fetch_add(1, Relaxed);
                    return Some(Token { leaf: of_leaf(leaf) });
                }
            }
        }
    }

    /// Returns a partly taken token, from `leaf` up to below `end`.
    #[cold]
    fn undo(&self, leaf: Index, end: Index) {
        let mut at = leaf;
        while at != end {
            let Some(parent) = self.node(at).parent() else { return };
            self.node(at).state.fetch_sub(1, SeqCst);
            at = parent;
        }
    }

    /// Returns a token.
    #[expect(clippy::needless_pass_by_value, reason = "a token is given back once")]
    pub(super) fn give_back(&self, token: Token) {
        let mut at = Some(token.leaf.get());
        while let Some(index) = at {
            let node = self.node(index);
            // The parent is read first: once no token is held here, the node may go to another bucket.
            at = node.parent();
            node.state.fetch_sub(1, SeqCst);
        }
    }

    /// The tokens held at a node and below it.
    pub(super) fn held(&self, index: Index) -> u32 {
        held(self.node(index).state.load(SeqCst))
    }

    /// The greatest number of tokens that may be held at a node and below it.
    pub(super) fn limit(&self, index: Index) -> u32 {
        limit(self.node(index).state.load(SeqCst))
    }

    /// Whether the node itself has room for one more token.
    pub(super) fn has_room(&self, index: Index) -> bool {
        let state = self.node(index).state.load(SeqCst);
        held(state) < limit(state)
    }

    /// Sets the limit of a node. Tokens already held stay.
    pub(super) fn set_limit(&self, index: Index, limit: u32) {
        let set = |state| Some((u64::from(limit) << 32) | u64::from(held(state)));
        // The closure always succeeds.
        let _ = self.node(index).state.fetch_update(SeqCst, SeqCst, set);
    }

    /// Assigns a node without tokens to a bucket. Its limit stays 0 until it is set.
    pub(super) fn assign(&self, index: Index, parent: Option<Index>) {
        let node = self.node(index);
        node.parent.store(parent.map_or(NO_PARENT, u32::from), SeqCst);
        node.peak.store(0, Relaxed);
        node.taken.store(0, Relaxed);
    }

    /// Detaches the node's bucket: its requests count as unclassified from now on.
    pub(super) fn revoke(&self, index: Index) {
        self.node(index).generation.fetch_add(1, SeqCst);
    }

    /// Number of tokens taken so far at a leaf.
    pub(super) fn taken(&self, leaf: Index) -> u64 {
        self.node(leaf).taken.load(Relaxed)
    }

    /// The greatest number of tokens ever held at a node at once.
    pub(super) fn peak(&self, index: Index) -> u32 {
        self.node(index).peak.load(Relaxed)
    }
}
