//! Options of a frontend: each is defined once, with its name, its values and its meaning.
//!
//! They are stored in the hash `options:<pattern>` in Redis and in `"options"` of a routes file, nested ones with a dot
//! in their name (`health.mode`). An invalid value is reported, and the earlier value stays.

mod classes;
mod pages;
mod retry;
mod scheduler;
pub(super) mod values;

pub use classes::ClassRules;
pub use pages::{ErrorPages, PageTexts, Statuses};
pub use retry::{RetryCause, RetryCauses};
pub use scheduler::{HashKey, Scheduler};
pub(super) use values::Kind;
pub use values::{MAX_COUNT, MAX_TIME, read_whole};

use crate::cache;
use crate::cache::bypass::BypassRules;
use crate::cache::key::KeyPattern;
use crate::health::{HealthMode, MonitorSettings, StatusSet};
use crate::shaper::{Bounds, Fault, Spec};
use classes::{BUCKETS, CLASSIFY};
use pages::{PAGE, PAGE_FOLDER, STATUS};
use retry::RETRY_CAUSES;
use scheduler::{HASH_KEY, SCHEDULER};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use values::{
    BYTE_RATE, BYTES, CLIENT_RATE, COUNT, FLAG, HEALTH_MODE, HOST, LIMIT, ON_CLIENT_ABORT, PATH, PERCENT, POSITIVE,
    PROBE_METHOD, STATUS_SET, TENANT, TEXT, TIME, TIME_OR_ZERO, TOKEN,
};

/// Options of a frontend. `None` applies the node's own setting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Whether plaintext requests are redirected to `https`.
    pub https_redirect: Option<bool>,
    /// Whether every request gets a 503.
    pub is_disabled: bool,
    /// Whether requests wait while it is disabled.
    pub hold: bool,
    /// Whether the first request that waits because no backend serves has a message published that wakes one.
    pub wake: bool,
    /// The fate of a request whose client leaves before its response has begun.
    pub on_client_abort: Option<OnClientAbort>,
    /// Statuses of this node's own responses.
    pub statuses: Statuses,
    /// Error pages.
    pub pages: ErrorPages,
    /// The scheduler.
    pub scheduler: Scheduler,
    /// Whether responses are accepted that are not strictly valid.
    pub is_lenient: bool,
    /// The key of the scheduler `hash`.
    pub hash: HashKey,
    /// The name of the cookie that keeps a client at its backend.
    pub sticky_cookie: Option<Box<str>>,
    /// The header by which clients in trusted networks name the backend.
    pub backend_header: Option<Box<str>>,
    /// The cookie by which clients in trusted networks name the backend.
    pub backend_cookie: Option<Box<str>>,
    /// The name of its tenant.
    pub tenant: Option<Box<str>>,
    /// Limit of requests in flight over all members and cores.
    pub max_requests: Option<NonZeroU32>,
    /// Limit of requests in flight and tunnels of one client over all members and cores.
    pub max_requests_per_client: Option<NonZeroU32>,
    /// Limit of tunnels over all members and cores.
    pub max_tunnels: Option<NonZeroU32>,
    /// The queue.
    pub queue: Queue,
    /// The shares of classes of requests.
    pub buckets: Option<Arc<Spec>>,
    /// The rules that classify requests.
    pub classify: Option<ClassRules>,
    /// Whether responses name the bucket of their request.
    pub bucket_header: bool,
    /// The limit that follows latency.
    pub adaptive: Adaptive,
    /// Whether requests are logged in the access log.
    pub access_log: Option<bool>,
    /// Whether it always has series of metrics of its own.
    pub metrics: bool,
    /// Timeouts.
    pub timeouts: Timeouts,
    /// The greatest size of a request's body in bytes; 0 for no limit.
    pub max_body_bytes: Option<u64>,
    /// Requests a second, over all clients and cores; 0 for no limit.
    pub requests_per_second: u32,
    /// Whether requests beyond that wait; otherwise they get a 429.
    pub requests_per_second_waits: Waits,
    /// Requests a second of one client; 0 for any.
    pub requests_per_second_per_client: u32,
    /// Bytes a second from clients, over all requests and cores; 0 for no limit.
    pub bytes_per_second_in: u64,
    /// Bytes a second from backends, over all requests and cores; 0 for no limit.
    pub bytes_per_second_out: u64,
    /// The greatest number of retries of a request on other members.
    pub retries: Option<u32>,
    /// The failures that cause a retry.
    pub retry_on: RetryCauses,
    /// Time in which a member's share rises once it is up.
    pub slow_start: Duration,
    /// Health monitor.
    pub health: MonitorSettings,
    /// Object cache.
    pub cache: cache::options::Options,
    /// The valid pairs as read, for tools that copy options.
    written: Vec<(&'static str, Box<str>)>,
}

/// Whether requests beyond a rate wait. They do where nothing else is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waits(pub bool);

impl Default for Waits {
    fn default() -> Self {
        Self(true)
    }
}

impl From<bool> for Waits {
    fn from(waits: bool) -> Self {
        Self(waits)
    }
}

/// What happens to a request whose client ends its side, or the connection, during the wait for a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnClientAbort {
    /// The request ends, and its upstream connection is closed (nginx: `proxy_ignore_client_abort off`).
    Close,
    /// The backend finishes, and a client that has only ended its side gets the response. The request is neither
    /// retried nor started from the queue.
    Ignore,
}

/// Options of the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// The greatest number of waiting requests, over all cores.
    pub limit: u32,
    /// The limit of a request's wait.
    pub timeout: Duration,
    /// `Retry-After` of this node's own 503 responses; zero for none.
    pub retry_after: Duration,
    /// Whether requests also wait when no member is up, and not only when all are full.
    pub enqueue_on_unavailable: bool,
}

/// Options of a limit of requests in flight that follows the latency of responses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adaptive {
    /// Whether the limit is on.
    pub is_enabled: bool,
    /// The lowest limit.
    pub min: u32,
    /// The highest limit.
    pub max: u32,
}

impl Default for Adaptive {
    fn default() -> Self {
        Self { is_enabled: false, min: 1, max: 1000 }
    }
}

impl Adaptive {
    /// The bounds of the limit; `None` if it is off.
    pub(in crate::cluster) fn bounds(&self) -> Option<Bounds> {
        self.is_enabled.then(|| Bounds::new(self.min, self.max))
    }
}

/// Timeouts of requests to one frontend. `None` applies the node's own setting.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timeouts {
    /// Opening a connection.
    pub connect: Option<Duration>,
    /// From the end of the request to the head of the response.
    pub response: Option<Duration>,
    /// Between two parts of a body.
    pub body: Option<Duration>,
    /// Idle limit of a tunnel; zero for no limit.
    pub tunnel: Option<Duration>,
    /// Limit of the silence of a response without a length, once it has begun; zero for no limit.
    pub stream: Option<Duration>,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            limit: 1024,
            timeout: Duration::from_secs(30),
            // This was the node's value before options existed; x0d's default is 10 s.
            retry_after: Duration::from_secs(1),
            enqueue_on_unavailable: false,
        }
    }
}

/// How often the backends of a sleeping application are probed.
const SLEEPER_INTERVAL: Duration = Duration::from_millis(500);

const CACHE_KEY: Kind<KeyPattern> = Kind { expected: cache::key::EXPECTED, read: KeyPattern::parse };

const CACHE_BYPASS: Kind<BypassRules> = Kind { expected: cache::bypass::EXPECTED, read: BypassRules::parse };

/// An option: name, values and meaning.
pub struct Definition {
    /// The name.
    pub name: &'static str,
    /// The values, for messages.
    pub expected: &'static str,
    /// The default value: empty for none, or for the node's setting that applies then.
    pub default: &'static str,
    /// The meaning, for the documentation.
    pub meaning: &'static str,
    set: fn(&mut Options, &str) -> bool,
    copy: fn(&mut Options, &Options),
}

impl fmt::Debug for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

macro_rules! definitions {
    ($($name:literal, $($field:ident).+, $kind:expr, $default:literal, $meaning:literal;)* $($other:ident),*) => {
        /// Every option.
        pub const DEFINITIONS: &[Definition] = &[$(Definition {
            name: $name,
            expected: $kind.expected,
            default: $default,
            meaning: $meaning,
            set: |options, text| match ($kind.read)(text) {
                Some(value) => {
                    options.$($field).+ = value.into();
                    true
                }
                None => false,
            },
            copy: |options, from| options.$($field).+.clone_from(&from.$($field).+),
        },)* $($other),*];
    };
}

definitions! {
    "httpsRedirect", https_redirect, FLAG, "https.redirect", "Whether requests over plain HTTP are redirected to https";
    "disabled", is_disabled, FLAG, "false", "Whether every request gets a 503";
    "hold", hold, FLAG, "false", "Whether requests wait while the frontend is disabled, in place of a 503: [maintenance](#maintenance)";
    "wake", wake, FLAG, "false", "Whether requests wait while no backend serves, and the first one has a message published that starts one: [sleeping applications](#sleeping-applications)";
    "disabledStatus", statuses.disabled, STATUS, "503", "The status of responses while the frontend is disabled";
    "emptyStatus", statuses.empty, STATUS, "502", "The status of responses while its list has no backends";
    "errorPages", pages.folder, PAGE_FOLDER, "", "A folder of error pages: [error pages](#error-pages)";
    "errorPage.403", pages.texts.forbidden, PAGE, "", "The page of 403 responses";
    "errorPage.408", pages.texts.timeout, PAGE, "", "The page of 408 responses";
    "errorPage.413", pages.texts.too_large, PAGE, "", "The page of 413 responses";
    "errorPage.429", pages.texts.too_many, PAGE, "", "The page of 429 responses";
    "errorPage.502", pages.texts.bad_gateway, PAGE, "", "The page of 502 responses";
    "errorPage.503", pages.texts.unavailable, PAGE, "", "The page of 503 responses";
    "errorPage.504", pages.texts.gateway_timeout, PAGE, "", "The page of 504 responses";
    "errorPage.default", pages.texts.default, PAGE, "", "The page of all other responses of this node";
    "onClientAbort", on_client_abort, ON_CLIENT_ABORT, "server.onClientAbort", "The fate of a request whose client leaves before the response begins: close (and notify, as in x0d) ends it, with ignore the backend finishes";
    "lenient", is_lenient, FLAG, "false", "Whether malformed heads of responses are repaired if their meaning is clear: [lenient](forwarding.md#lenient)";
    "scheduler", scheduler, SCHEDULER, "random", "How a backend is chosen";
    "hash.key", hash, HASH_KEY, "client", "The part of a request that is the key of the scheduler hash";
    "sticky.cookie", sticky_cookie, TOKEN, "", "The name of the cookie that keeps a client at its backend";
    "backend.header", backend_header, TOKEN, "", "The header by which clients in trusted networks name the backend";
    "backend.cookie", backend_cookie, TOKEN, "", "The cookie by which clients in trusted networks name the backend";
    "tenant", tenant, TENANT, "", "The tenant that it belongs to, one of `server.tenants.buckets`: [between tenants](shaper.md#between-tenants-of-a-node)";
    "maxRequests", max_requests, LIMIT, "0", "Requests in flight over all backends; 0 for any number";
    "maxRequestsPerClient", max_requests_per_client, LIMIT, "0", "Requests and tunnels of one client address, over all backends; the next one gets a 429, 0 for any number";
    "maxTunnels", max_tunnels, LIMIT, "0", "Tunnels over all backends; 0 for any number";
    "queueLimit", queue.limit, COUNT, "1024", "Requests that wait for a backend with room; the next one gets a 503";
    "queueTimeout", queue.timeout, TIME, "30", "How long a request waits for a backend with room, then it gets a 503";
    "retryAfter", queue.retry_after, TIME_OR_ZERO, "1", "Retry-After of this node's 503 responses; 0 for none";
    "enqueueOnUnavailable", queue.enqueue_on_unavailable, FLAG, "false", "Whether requests wait when no backend is up";
    "bucketHeader", bucket_header, FLAG, "false", "Whether responses name the bucket of their request in X-Director-Bucket";
    "adaptive.enabled", adaptive.is_enabled, FLAG, "false", "Whether the number of requests in flight follows the latency of responses: [the adaptive root](shaper.md#the-adaptive-root)";
    "adaptive.min", adaptive.min, POSITIVE, "1", "The least number of requests in flight that latency allows";
    "adaptive.max", adaptive.max, POSITIVE, "1000", "The greatest number of requests in flight that latency allows";
    "accessLog", access_log, FLAG, "server.accessLog", "Whether requests are logged in the access log";
    "metrics", metrics, FLAG, "false", "Whether it always has [series of metrics](metrics.md#labels) of its own, however quiet it is";
    "connectTimeout", timeouts.connect, TIME, "server.connectTimeout", "Opening a connection to a backend";
    "responseTimeout", timeouts.response, TIME, "server.responseTimeout", "From the end of a request to the head of its response";
    "bodyTimeout", timeouts.body, TIME, "server.bodyTimeout", "Between two pieces of a body";
    "tunnelTimeout", timeouts.tunnel, TIME_OR_ZERO, "server.tunnelTimeout", "How long a tunnel may be idle; 0 for ever";
    "streamTimeout", timeouts.stream, TIME_OR_ZERO, "server.streamTimeout", "How long a response without a length may be silent; 0 for ever";
    "maxBodyBytes", max_body_bytes, BYTES, "server.maxBodyBytes", "Size of a request's body (413); 0 for any";
    "requestsPerSecond", requests_per_second, COUNT, "0", "Requests a second, over all clients; others wait, 0 for any: [between tenants](shaper.md#between-tenants-of-a-node)";
    "requestsPerSecondWait", requests_per_second_waits, FLAG, "true", "Whether requests beyond requestsPerSecond wait; otherwise they get a 429";
    "requestsPerSecondPerClient", requests_per_second_per_client, CLIENT_RATE, "0", "Requests a second of one client address, up to as many at once; further ones get a 429, 0 for any";
    "bytesPerSecond.in", bytes_per_second_in, BYTE_RATE, "0", "Bytes of requests a second, over all clients; 0 for any: [bytes a second](shaper.md#bytes-a-second)";
    "bytesPerSecond.out", bytes_per_second_out, BYTE_RATE, "0", "Bytes of responses a second, over all clients; 0 for any: [bytes a second](shaper.md#bytes-a-second)";
    "retries", retries, COUNT, "server.retryOnError", "How often a request is retried on another backend";
    "retryOn", retry_on, RETRY_CAUSES, "connect,close,timeout", "The failures of a backend after which a request is retried: [retries](#retries)";
    "slowStart", slow_start, TIME_OR_ZERO, "0", "Time in which share and capacity of a backend rise once it is up";
    "health.mode", health.mode, HEALTH_MODE, "off", "When backends are probed";
    "health.method", health.method, PROBE_METHOD, "OPTIONS", "The method of a probe";
    "health.path", health.path, PATH, "/", "The path of a probe";
    "health.host", health.host, HOST, "backend-healthcheck", "The Host of a probe";
    "health.expect", health.expect, STATUS_SET, "200-399", "The status codes of a good response";
    "health.body", health.body, TEXT, "", "Text that the body of a good response contains";
    "health.interval", health.interval, TIME, "2", "The time between two probes of a backend";
    "health.timeout", health.timeout, TIME, "2", "How long a probe may take";
    "health.rise", health.rise, COUNT, "2", "Good probes in a row that bring a backend up";
    "health.fall", health.fall, COUNT, "1", "Bad probes in a row that take a backend down";
    "health.stickyOffline", health.sticky_offline, FLAG, "false", "Whether a backend that comes up again stays disabled";
    "health.maxFailures", health.max_failures, COUNT, "0", "Failed requests in a row that eject a backend; 0 for none";
    "health.maxErrorPercent", health.max_error_percent, PERCENT, "0", "Share of 5xx that ejects a backend; 0 for none";
    "health.panicPercent", health.panic_percent, PERCENT, "50", "Share of backends that is never ejected";
    "cache.enabled", cache.is_enabled, FLAG, "false", "Whether responses are stored and served from the cache";
    "cache.deliverActive", cache.deliver_active, FLAG, "true", "Whether fresh objects are served";
    "cache.deliverShadow", cache.deliver_shadow, FLAG, "true", "Whether a stale object is served in place of this node's own 502, 503 or 504";
    "cache.defaultTtl", cache.default_ttl, TIME_OR_ZERO, "0", "Lifetime of responses without one; 0 for none";
    "cache.defaultShadowTtl", cache.default_shadow_ttl, TIME_OR_ZERO, "0", "How long an object may be stale in place of an error; 0 for ever";
    "cache.heuristic", cache.heuristic, FLAG, "false", "Whether Last-Modified gives a lifetime if none is stated";
    "cache.lockOnUpdate", cache.lock_on_update, FLAG, "true", "Whether requests wait while another one refreshes a stale object; otherwise they get the stale object";
    "cache.updateLockTimeout", cache.update_lock_timeout, TIME, "10", "How long a request waits for another one's fill";
    "cache.key", cache.key, CACHE_KEY, "%s%h%r%q", "The pattern of the key of an object";
    "cache.bypass", cache.bypass, CACHE_BYPASS, "", "Requests that bypass the cache: neither served from it nor stored";
    "cache.maxObjectBytes", cache.max_object_bytes, BYTES, "8388608", "The greatest body that is stored";
    "cache.maxBytes", cache.max_bytes, BYTES, "0", "Bytes of the cache that the frontend may use; 0 for no limit";
    "cache.storeSetCookie", cache.store_set_cookie, FLAG, "false", "Whether responses with Set-Cookie are stored";
    "cache.obeyClients", cache.obey_clients, FLAG, "false", "Whether Cache-Control and Pragma of requests are obeyed";
    BUCKETS, CLASSIFY
}

/// An invalid name or value. Its `Display` names the option, not the frontend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptionError {
    /// The value is invalid; the earlier value stays.
    BadValue {
        /// The name of the option.
        name: &'static str,
        /// The value, shortened.
        found: String,
        /// The valid values.
        expected: &'static str,
    },
    /// The value has faults; the earlier value stays.
    Faults {
        /// The name of the option.
        name: &'static str,
        /// Each with its position in the value. Never empty.
        faults: Vec<Fault>,
    },
    /// There is no option of this name.
    Unknown {
        /// The name, shortened.
        name: String,
    },
}

impl Options {
    /// Whether bytes have a rate limit, in either direction.
    #[inline]
    pub fn has_byte_rates(&self) -> bool {
        (self.bytes_per_second_in | self.bytes_per_second_out) != 0
    }

    /// Whether the frontend is disabled and its requests wait.
    pub fn holds(&self) -> bool {
        self.is_disabled && (self.hold || self.wake)
    }

    /// Whether requests wait while no backend is up.
    pub fn waits_for_backends(&self) -> bool {
        self.queue.enqueue_on_unavailable || self.wake
    }

    /// A frontend whose application sleeps has its backends probed by connections, unless it says otherwise: requests are
    /// to be served once one accepts them.
    fn watch_sleepers(&mut self) {
        let is_set = |name: &str| self.written.iter().any(|(known, _)| *known == name);
        if self.wake && !is_set("health.mode") {
            self.health.mode = HealthMode::Lazy;
            if !is_set("health.expect") {
                self.health.expect = StatusSet::any();
            }
            if !is_set("health.interval") {
                self.health.interval = SLEEPER_INTERVAL;
            }
        }
    }

    /// Reads options from their names and values. An option with an invalid value has its value in `before`, and one
    /// that is not named has its default.
    pub fn read<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>, before: &Self) -> (Self, Vec<OptionError>) {
        let mut options = Self::default();
        let mut errors = Vec::new();
        let mut pairs: Vec<_> = pairs.into_iter().collect();
        // Its rules name buckets, so it comes last.
        pairs.sort_by_key(|(name, _)| *name == CLASSIFY.name);
        for (name, value) in pairs {
            match DEFINITIONS.iter().find(|definition| definition.name == name) {
                Some(definition) if (definition.set)(&mut options, value) => {
                    options.note_written(definition.name, Some(value));
                }
                Some(definition) => {
                    let faults = classes::faults_of(definition.name, value, &options);
                    (definition.copy)(&mut options, before);
                    let Definition { name, expected, .. } = definition;
                    let held = before.written.iter().find(|(known, _)| known == name).map(|(_, value)| &**value);
                    options.note_written(name, held);
                    errors.push(match faults.is_empty() {
                        true => OptionError::BadValue { name, found: shorten(value).into_owned(), expected },
                        false => OptionError::Faults { name, faults },
                    });
                }
                None => errors.push(OptionError::Unknown { name: shorten(name).into_owned() }),
            }
        }
        options.written.sort_unstable_by_key(|(name, _)| *name);
        options.watch_sleepers();
        (options, errors)
    }

    /// The default options: one object for all frontends.
    pub fn none() -> Arc<Self> {
        static NONE: LazyLock<Arc<Options>> = LazyLock::new(Arc::default);
        Arc::clone(&NONE)
    }

    /// Names and values that result in these options, sorted by name.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.written.iter().map(|(name, value)| (*name, &**value))
    }

    fn note_written(&mut self, name: &'static str, value: Option<&str>) {
        self.written.retain(|(known, _)| *known != name);
        self.written.extend(value.map(|value| (name, value.into())));
    }
}

/// A text for a message, cut to a length that suits a log.
pub(super) fn shorten(text: &str) -> Cow<'_, str> {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadValue { name, found, expected } => write!(f, "{name} is {found:?}, expected {expected}"),
            Self::Faults { faults, .. } => {
                let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
                f.write_str(&faults.join("; "))
            }
            Self::Unknown { name } => write!(f, "{name:?} is unknown and ignored"),
        }
    }
}

#[cfg(test)]
mod tests;
