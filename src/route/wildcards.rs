//! Hosts served by wildcards: an LRU for each wildcard, within one common limit. At the limit a wildcard with many
//! hosts loses one before a wildcard with few does, so made-up hosts below one wildcard evict no host of another.

use lru::LruCache;
use std::collections::HashMap;
use std::sync::Arc;

/// A wildcard with more than this part of the capacity loses its own host.
const SHARE: usize = 8;
/// Number of wildcards that are examined to find one that loses a host.
const SAMPLE: usize = 64;

/// Hosts by the wildcard that serves them.
#[derive(Debug)]
pub(super) struct Wildcards<T> {
    capacity: usize,
    patterns: HashMap<Arc<str>, Arc<str>>,
    hosts: HashMap<Arc<str>, LruCache<Arc<str>, T>>,
}

impl<T> Wildcards<T> {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, patterns: HashMap::new(), hosts: HashMap::new() }
    }

    pub(super) fn get(&mut self, host: &str) -> Option<&T> {
        let pattern = self.patterns.get(host)?;
        self.hosts.get_mut(pattern)?.get(host)
    }

    /// Adds a host that is not there. Returns the number of hosts that made room.
    pub(super) fn put(&mut self, pattern: &str, host: Arc<str>, value: T) -> u64 {
        if self.capacity == 0 {
            return 0;
        }
        let mut evicted = 0;
        while self.patterns.len() >= self.capacity {
            self.make_room(pattern);
            evicted += 1;
        }
        let pattern = self.hosts.get_key_value(pattern).map_or_else(|| pattern.into(), |(known, _)| Arc::clone(known));
        self.patterns.insert(Arc::clone(&host), Arc::clone(&pattern));
        self.hosts.entry(pattern).or_insert_with(LruCache::unbounded).put(host, value);
        evicted
    }

    /// Removes the least recently used host of the wildcard that has to lose one.
    fn make_room(&mut self, pattern: &str) {
        let share = self.capacity / SHARE;
        let greatest = self.hosts.iter().take(SAMPLE).max_by_key(|(_, hosts)| hosts.len());
        let victim = match (self.hosts.get_key_value(pattern), greatest) {
            (Some((own, hosts)), _) if hosts.len() > share => Arc::clone(own),
            (_, Some((greatest, _))) => Arc::clone(greatest),
            (_, None) => return,
        };
        let oldest = self.hosts.get(&victim).and_then(|hosts| hosts.peek_lru().map(|(host, _)| Arc::clone(host)));
        if let Some(host) = oldest {
            self.pop(&host);
        }
    }

    pub(super) fn pop(&mut self, host: &str) -> Option<T> {
        let pattern = self.patterns.remove(host)?;
        let hosts = self.hosts.get_mut(&pattern)?;
        let value = hosts.pop(host);
        if hosts.is_empty() {
            self.hosts.remove(&pattern);
        }
        value
    }

    pub(super) fn hosts(&self) -> impl Iterator<Item = &Arc<str>> {
        self.patterns.keys()
    }

    pub(super) fn len(&self) -> usize {
        self.patterns.len()
    }

    pub(super) fn clear(&mut self) {
        self.patterns = HashMap::new();
        self.hosts = HashMap::new();
    }
}
