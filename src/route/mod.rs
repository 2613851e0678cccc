//! The ladder of patterns of a host name, and a core's cache of answers.

mod cache;
mod host_patterns;
mod wildcards;

pub use cache::{Cache, Cached};
pub use host_patterns::{MAX_SUFFIX_LABELS, patterns};

use std::time::Duration;

/// What of a core's route cache can be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The greatest number of hosts in the cache (`server.lruCache.size`). With 0 nothing is kept.
    pub capacity: usize,
    /// How long an answer is kept where the source cannot tell of changes (`server.lruCache.ttl`). The file source can.
    pub ttl: Duration,
    /// The greatest number of unknown hosts that are remembered; they are kept apart, so a flood of them evicts no route.
    pub unknown_capacity: usize,
}
