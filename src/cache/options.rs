//! Options of the cache for one frontend.

use super::bypass::BypassRules;
use super::key::KeyPattern;
use std::time::Duration;

/// Options of the cache for one frontend. Names and defaults are those of x0d's object cache, where it has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whether the cache takes part (`cache.enabled`).
    pub is_enabled: bool,
    /// Whether fresh objects are served (`cache.deliverActive`).
    pub deliver_active: bool,
    /// Whether a stale object is served in place of this node's own 502, 503 or 504 (`cache.deliverShadow`).
    pub deliver_shadow: bool,
    /// The lifetime of responses without one, if their status is cacheable; zero for none (`cache.defaultTtl`).
    pub default_ttl: Duration,
    /// Time after its lifetime for which an object may be a shadow; zero until it is evicted
    /// (`cache.defaultShadowTtl`).
    pub default_shadow_ttl: Duration,
    /// Whether a lifetime is derived from `Last-Modified` if none is stated (`cache.heuristic`, RFC 9111 section
    /// 4.2.2).
    pub heuristic: bool,
    /// Whether requests wait while another one refreshes a stale object; otherwise they get the stale one
    /// (`cache.lockOnUpdate`).
    pub lock_on_update: bool,
    /// The limit of a request's wait for another one's fill; then it is sent to a backend (`cache.updateLockTimeout`).
    pub update_lock_timeout: Duration,
    /// The pattern of keys (`cache.key`).
    pub key: KeyPattern,
    /// The rules by which requests bypass the cache (`cache.bypass`).
    pub bypass: BypassRules,
    /// The greatest body that is stored, in bytes; 0 for the store's limit (`cache.maxObjectBytes`).
    pub max_object_bytes: u64,
    /// The greatest share of the cache that the frontend may use, in bytes; 0 for no limit (`cache.maxBytes`).
    pub max_bytes: u64,
    /// Whether responses with `Set-Cookie` are stored (`cache.storeSetCookie`).
    pub store_set_cookie: bool,
    /// Whether `Cache-Control` of requests is obeyed (`cache.obeyClients`).
    pub obey_clients: bool,
}

impl Options {
    /// Whether an object may be served this long after its lifetime, unless the response says so itself.
    pub(super) fn may_be_shadow(&self, staleness: Duration) -> bool {
        self.default_shadow_ttl.is_zero() || staleness <= self.default_shadow_ttl
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            is_enabled: false,
            deliver_active: true,
            deliver_shadow: true,
            default_ttl: Duration::ZERO,
            default_shadow_ttl: Duration::ZERO,
            heuristic: false,
            lock_on_update: true,
            update_lock_timeout: Duration::from_secs(10),
            key: KeyPattern::default(),
            bypass: BypassRules::default(),
            max_object_bytes: 8 << 20,
            max_bytes: 0,
            store_set_cookie: false,
            obey_clients: false,
        }
    }
}
