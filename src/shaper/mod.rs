//! Fairness between classes of requests: a tree of token buckets over a capacity, as in x0d's TokenShaper and Linux's
//! HTB, and the rules that say which bucket a request belongs to.
//!
//! A token is one request in flight. The root has as many as the capacity; a bucket has a *rate*, which is assured, and
//! a *ceil*, its limit. Idle tokens are lent: any bucket may use them up to its ceil, and lent tokens come back with the
//! next ones freed. Every node limits all that is held below it, so the tree never holds more than its root has.
//!
//! # Who gets a freed token
//!
//! 1. The first waiter of a bucket that *starves*: it holds no token, and since it last got one (or since its queue
//!    began) as many tokens as the root's size, and at least 16, went to other waiters. This is the bound: a bucket
//!    whose own limits leave it room goes no longer than that, and one token for each other starving bucket, without.
//!    At most one token of a bucket stems from this rule.
//! 2. From the root down, at each level, a child below its rate before one that is not; among equals the turn goes
//!    round, weighted by the rates. Then the first waiter of that child's queue.
//!
//! Unclassified requests are children of the root like any other: their rate is what the buckets leave of the root's,
//! and at least one token. A bucket whose ceil is rounded down to no token may use one, as long as its parent has one.
//!
//! # Cores
//!
//! Counters are atomics, exact over all cores. As long as nobody waits anywhere in the tree, a token costs one atomic
//! update at each level and no lock. Once a request waits, takers and givers pass through the lock, because each of them
//! may decide who is next. A waiter announces itself before its last look at the counters, and a giver looks for waiters
//! after its update, all sequentially consistent: so one of the two sees the other, and no token lies idle.

mod gradient;
mod json;
mod node;
mod rules;
mod share;
mod shared;
mod snapshot;
mod spec;
mod tree;
mod waiters;

pub use gradient::{Bounds, Gradient};
pub use node::{BucketId, Token};
pub use rules::{Class, Classifier, RequestView, Rules};
pub use shared::{Admission, Departure, Shaper};
pub use snapshot::BucketView;
pub use spec::{Fault, Spec};
pub use tree::{QueueLimits, TooManyDraining};
pub use waiters::WaiterKey;

#[cfg(test)]
mod tests;
