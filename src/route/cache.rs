//! A core's cache of look-ups of hosts, with separate LRUs for exact hosts, hosts below wildcards, and unknown hosts.
//! None evicts entries of another: clients can request any number of hosts below a wildcard, and of unknown hosts, but
//! only the writer of routes adds exact hosts.

use super::Settings;
use super::wildcards::Wildcards;
use lru::LruCache;
use std::num::NonZeroUsize;
use std::sync::Arc;

/// Results of recent look-ups of one core. A hit allocates nothing.
#[derive(Debug)]
pub struct Cache<T> {
    /// `None` if the capacity is 0.
    found: Option<LruCache<Arc<str>, T>>,
    below: Wildcards<T>,
    unknown: Option<LruCache<Arc<str>, ()>>,
    /// Number of hosts dropped for lack of room, not yet taken.
    evictions: u64,
}

/// The result of a look-up.
#[derive(Clone, Debug)]
pub enum Cached<T> {
    /// A route was found.
    Found(T),
    /// The host has no route.
    Unknown,
}

impl<T: Clone> Cache<T> {
    /// An empty cache. Memory is allocated as it fills.
    pub fn new(settings: &Settings) -> Self {
        Self {
            found: NonZeroUsize::new(settings.capacity).map(LruCache::sparse),
            below: Wildcards::new(settings.capacity),
            unknown: NonZeroUsize::new(settings.unknown_capacity).map(LruCache::sparse),
            evictions: 0,
        }
    }

    /// The number of hosts dropped for lack of room since the last call.
    #[inline]
    pub fn take_evictions(&mut self) -> u64 {
        std::mem::take(&mut self.evictions)
    }

    /// The cached result for `host`; `None` if the directory must be asked.
    pub fn get(&mut self, host: &str) -> Option<Cached<T>> {
        if let Some(found) = self.found.as_mut().and_then(|found| found.get(host)) {
            return Some(Cached::Found(found.clone()));
        }
        if let Some(found) = self.below.get(host) {
            return Some(Cached::Found(found.clone()));
        }
        self.unknown.as_mut()?.get(host).map(|()| Cached::Unknown)
    }

    /// Stores the route of `host`.
    pub fn put_found(&mut self, host: Arc<str>, value: T) {
        self.evict(&host);
        if let Some(found) = &mut self.found {
            // The host itself is not there any more: another one made room.
            self.evictions += u64::from(found.push(host, value).is_some());
        }
    }

    /// Stores the route of `host`, which a wildcard serves.
    pub fn put_below(&mut self, pattern: &str, host: Arc<str>, value: T) {
        self.evict(&host);
        self.evictions += self.below.put(pattern, host, value);
    }

    /// Stores that `host` has no route.
    pub fn put_unknown(&mut self, host: Arc<str>) {
        self.evict(&host);
        if let Some(unknown) = &mut self.unknown {
            self.evictions += u64::from(unknown.push(host, ()).is_some());
        }
    }

    /// Removes `host`. Returns its route, if it had one.
    pub fn evict(&mut self, host: &str) -> Option<T> {
        if let Some(unknown) = &mut self.unknown {
            unknown.pop(host);
        }
        self.found.as_mut().and_then(|found| found.pop(host)).or_else(|| self.below.pop(host))
    }

    /// Removes all hosts for which `is_meant` is true, and returns their number. It examines every host.
    pub fn evict_all(&mut self, is_meant: impl Fn(&str) -> bool) -> usize {
        let before = self.count();
        let meant = |hosts: Vec<&Arc<str>>| -> Vec<Arc<str>> {
            hosts.into_iter().filter(|host| is_meant(host)).cloned().collect()
        };
        if let Some(found) = &mut self.found {
            for host in meant(found.iter().map(|(host, _)| host).collect()) {
                found.pop(&host);
            }
        }
        for host in meant(self.below.hosts().collect()) {
            self.below.pop(&host);
        }
        if let Some(unknown) = &mut self.unknown {
            for host in meant(unknown.iter().map(|(host, ())| host).collect()) {
                unknown.pop(&host);
            }
        }
        before - self.count()
    }

    /// Removes the unknown hosts, and keeps the routes.
    pub fn clear_unknown(&mut self) {
        if let Some(unknown) = &mut self.unknown {
            unknown.clear();
        }
    }

    /// Number of cached hosts, known or unknown.
    pub fn count(&self) -> usize {
        self.found.as_ref().map_or(0, LruCache::len) + self.below.len() + self.unknown.as_ref().map_or(0, LruCache::len)
    }

    /// Removes everything.
    pub fn clear(&mut self) {
        if let Some(found) = &mut self.found {
            found.clear();
        }
        self.below.clear();
        self.clear_unknown();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn cache(capacity: usize, unknown_capacity: usize) -> Cache<Arc<str>> {
        Cache::new(&Settings { capacity, ttl: Duration::from_secs(60), unknown_capacity })
    }

    fn put(cache: &mut Cache<Arc<str>>, host: &str) {
        cache.put_found(host.into(), host.into());
    }

    #[test]
    fn a_flood_below_one_wildcard_evicts_no_host_of_its_own_and_no_host_of_another_wildcard() {
        let mut cache = cache(80, 2);
        put(&mut cache, "own");
        for number in 0..10 {
            let host = format!("{number}.other");
            cache.put_below("*.other", host.as_str().into(), host.as_str().into());
        }
        assert_eq!(cache.take_evictions(), 0);
        for number in 0..1000 {
            let host = format!("{number}.flood");
            cache.put_below("*.flood", host.as_str().into(), host.as_str().into());
            assert!(cache.count() <= 81);
        }
        assert_eq!((cache.take_evictions(), cache.take_evictions()), (1010 - 80, 0));
        assert_eq!(known(&mut cache, &["own", "0.other", "9.other", "999.flood", "0.flood"]), "ffff-");
        put(&mut cache, "0.other");
        cache.put_unknown("1.other".into());
        assert_eq!(cache.count(), 81);
        assert!(cache.evict("2.other").is_some());
        assert!(cache.evict_all(|host| host.ends_with(".flood")) > 60);
        assert_eq!(known(&mut cache, &["0.other", "1.other", "2.other", "3.other", "999.flood"]), "fu-f-");
        cache.clear();
        assert_eq!(cache.count(), 0);
    }

    /// `f` for found, `u` for unknown, `-` for not cached.
    fn known(cache: &mut Cache<Arc<str>>, hosts: &[&str]) -> String {
        let letter = |host: &&str| match cache.get(host) {
            Some(Cached::Found(found)) => {
                assert_eq!(*found, **host);
                'f'
            }
            Some(Cached::Unknown) => 'u',
            None => '-',
        };
        hosts.iter().map(letter).collect()
    }

    #[test]
    fn the_longest_unused_goes_first_and_a_flood_of_unknown_hosts_evicts_no_route() {
        let mut cache = cache(2, 2);
        put(&mut cache, "a");
        put(&mut cache, "b");
        assert_eq!(known(&mut cache, &["a"]), "f");
        put(&mut cache, "c");
        assert_eq!(known(&mut cache, &["a", "b", "c"]), "f-f");
        for flood in 0..10 {
            cache.put_unknown(format!("x{flood}").into());
        }
        assert_eq!(known(&mut cache, &["a", "c", "x7", "x8", "x9"]), "ff-uu");
        assert_eq!(cache.take_evictions(), 1 + 8);
    }

    #[test]
    fn a_host_is_either_found_or_unknown_and_can_be_forgotten() {
        let mut cache = cache(8, 8);
        put(&mut cache, "a");
        cache.put_unknown("a".into());
        assert_eq!(known(&mut cache, &["a"]), "u");
        put(&mut cache, "a");
        cache.put_unknown("b".into());
        cache.put_unknown("c".into());
        cache.evict("b");
        assert_eq!(known(&mut cache, &["a", "b", "c"]), "f-u");
        cache.clear_unknown();
        assert_eq!(known(&mut cache, &["a", "b", "c"]), "f--");
        cache.clear();
        assert_eq!(known(&mut cache, &["a"]), "-");
    }

    #[test]
    fn a_cache_of_no_room_keeps_nothing() {
        let mut cache = cache(0, 0);
        put(&mut cache, "a");
        cache.put_unknown("b".into());
        cache.put_below("*", "c".into(), "c".into());
        assert_eq!(known(&mut cache, &["a", "b", "c"]), "---");
    }
}
