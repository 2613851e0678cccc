//! The candidate patterns of a host, and a core's cache of look-ups.

mod cache;
mod host_patterns;
mod wildcards;

pub use cache::{Cache, Cached};
pub use host_patterns::{MAX_SUFFIX_LABELS, patterns};

use std::time::Duration;

/// Settings of a core's route cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The greatest number of hosts in the cache (`server.lruCache.size`). 0 disables it.
    pub capacity: usize,
    /// Time for which a route is kept if the source cannot report changes (`server.lruCache.ttl`). The file source can.
    pub ttl: Duration,
    /// The greatest number of unknown hosts in the cache. They are kept apart, so a flood of them evicts no route.
    pub unknown_capacity: usize,
}
