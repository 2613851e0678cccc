//! Maps with a random order for each process, so no client can choose keys that collide. In unit tests the order is the
//! same in every run, so a simulation can be replayed.

#[cfg(test)]
use std::hash::{BuildHasherDefault, DefaultHasher};

#[cfg(not(test))]
type Seed = std::collections::hash_map::RandomState;
#[cfg(test)]
type Seed = BuildHasherDefault<DefaultHasher>;

/// A map with that order.
pub type HashMap<K, V> = std::collections::HashMap<K, V, Seed>;

/// A set with that order.
pub type HashSet<T> = std::collections::HashSet<T, Seed>;
