//! Fairness between classes of requests: a tree of token buckets over a capacity, as in x0d's TokenShaper and Linux's
//! HTB, and the rules that classify requests into buckets.
//!
//! A token is one request in flight. The root has as many tokens as the capacity. A bucket has a *rate*, which is
//! assured, and a *ceil*, its limit. Idle tokens are lent: any bucket may use them up to its ceil, and the owner gets
//! lent tokens back as requests end. Every node limits all tokens held below it, so the tree never holds more than its
//! root has.
//!
//! # Who gets a freed token
//!
//! 1. The first waiter of a bucket that *starves*. A bucket starves if it holds no token while other waiters got as
//!    many tokens as the root's size, and at least 16, since it last got one or since its queue began. This bounds the
//!    wait: a bucket with room in its own limits gets a token after that many grants, plus one grant for each other
//!    starving bucket. At most one token of a bucket comes from this rule.
//! 2. From the root down, at each level, a child below its rate before a child at or above it; among equals the turn
//!    rotates, weighted by the rates. The first waiter in the queue of the chosen leaf gets the token.
//!
//! Unclassified requests are a child of the root like any other: their rate is the part of the root's rate that the
//! buckets leave, and at least one token. A bucket whose ceil is rounded down to 0 may use one token, as long as its
//! parent has one.
//!
//! # Cores
//!
//! Counters are atomics, exact over all cores. While no request waits anywhere in the tree, a token costs one atomic
//! update at each level and no lock. Once a request waits, takers and givers go through the lock, because each of them
//! may decide which waiter is next. A waiter announces itself before its last look at the counters, and a giver looks
//! for waiters after its update, all sequentially consistent: so one of the two sees the other, and no token stays
//! idle.

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
pub use spec::{Fault, MAX_BUCKETS, MAX_DEPTH, Spec};
pub use tree::{QueueLimits, TooManyDraining};
pub use waiters::{Flow, WaiterKey};

#[cfg(test)]
mod tests;
