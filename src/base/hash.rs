//! Maps whose order differs from process to process, so that no client can choose keys that collide; in unit tests it is
//! the same in every run, so that a simulation can be played again.

#[cfg(test)]
use std::hash::{BuildHasherDefault, DefaultHasher};

#[cfg(not(test))]
type Seed = std::collections::hash_map::RandomState;
#[cfg(test)]
type Seed = BuildHasherDefault<DefaultHasher>;

/// A map with such an order.
pub type HashMap<K, V> = std::collections::HashMap<K, V, Seed>;

/// A set with such an order.
pub type HashSet<T> = std::collections::HashSet<T, Seed>;
