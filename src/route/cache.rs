//! A core's cache of answers: two LRUs, one for routes and one for hosts that have none.

use super::Settings;
use crate::cluster::Frontend;
use lru::LruCache;
use std::num::NonZeroUsize;
use std::sync::Arc;

/// What a core knows of the hosts it was asked for lately. A hit allocates nothing.
#[derive(Debug)]
pub struct Cache {
    /// `None` where nothing may be kept.
    found: Option<LruCache<Arc<str>, Arc<Frontend>>>,
    unknown: Option<LruCache<Arc<str>, ()>>,
}

/// What is known of a host.
#[derive(Clone, Debug)]
pub enum Cached {
    /// The frontend that serves it.
    Found(Arc<Frontend>),
    /// It has none.
    Unknown,
}

impl Cache {
    /// An empty cache. Memory is taken as it fills.
    pub fn new(settings: &Settings) -> Self {
        Self {
            found: NonZeroUsize::new(settings.capacity).map(LruCache::sparse),
            unknown: NonZeroUsize::new(settings.unknown_capacity).map(LruCache::sparse),
        }
    }

    /// What is known of `host`; `None` if the directory must be asked.
    pub fn get(&mut self, host: &str) -> Option<Cached> {
        if let Some(frontend) = self.found.as_mut().and_then(|found| found.get(host)) {
            return Some(Cached::Found(Arc::clone(frontend)));
        }
        self.unknown.as_mut()?.get(host).map(|()| Cached::Unknown)
    }

    /// Remembers the frontend of `host`.
    pub fn put_found(&mut self, host: Arc<str>, frontend: Arc<Frontend>) {
        if let Some(unknown) = &mut self.unknown {
            unknown.pop(&host);
        }
        if let Some(found) = &mut self.found {
            found.put(host, frontend);
        }
    }

    /// Remembers that `host` has no frontend.
    pub fn put_unknown(&mut self, host: Arc<str>) {
        if let Some(found) = &mut self.found {
            found.pop(&host);
        }
        if let Some(unknown) = &mut self.unknown {
            unknown.put(host, ());
        }
    }

    /// Forgets `host`. Returns the frontend that served it.
    pub fn evict(&mut self, host: &str) -> Option<Arc<Frontend>> {
        if let Some(unknown) = &mut self.unknown {
            unknown.pop(host);
        }
        self.found.as_mut()?.pop(host)
    }

    /// Forgets which hosts have no frontend, and keeps the routes.
    pub fn clear_unknown(&mut self) {
        if let Some(unknown) = &mut self.unknown {
            unknown.clear();
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        if let Some(found) = &mut self.found {
            found.clear();
        }
        self.clear_unknown();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn cache(capacity: usize, unknown_capacity: usize) -> Cache {
        Cache::new(&Settings { capacity, ttl: Duration::from_secs(60), unknown_capacity })
    }

    fn put(cache: &mut Cache, host: &str) {
        let frontend = Frontend { host: host.into(), pattern: host.into(), id: "x".into(), members: Box::default() };
        cache.put_found(host.into(), Arc::new(frontend));
    }

    /// `f` for found, `u` for unknown, `-` for nothing known.
    fn known(cache: &mut Cache, hosts: &[&str]) -> String {
        let letter = |host: &&str| match cache.get(host) {
            Some(Cached::Found(frontend)) => {
                assert_eq!(*frontend.host, **host);
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
        assert_eq!(known(&mut cache, &["a", "b"]), "--");
    }
}
