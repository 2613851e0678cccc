//! Named counters of one core. The owning core writes them; any thread reads them.

use super::histogram::{Histogram, Phase, bump};
use super::reason::FailureReason;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

macro_rules! counters {
    ($( $(#[doc = $doc:literal])* $variant:ident = $name:literal; )*) => {
        /// Counted events. Requests that ended with a [`FailureReason`] are counted apart.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Counter {
            $( $(#[doc = $doc])* $variant, )*
        }

        impl Counter {
            /// Every counter, in the order of the enum.
            pub const ALL: &'static [Self] = &[$( Self::$variant, )*];

            /// The name in logs and metrics.
            pub const fn name(self) -> &'static str {
                match self { $( Self::$variant => $name, )* }
            }

            /// A description of one sentence, for metrics.
            pub const fn help(self) -> &'static str {
                match self { $( Self::$variant => concat!($($doc,)*), )* }
            }
        }
    };
}

counters! {
    /// Client connections accepted.
    Accepted = "accepted_connections";
    /// Client connections taken over from another worker.
    MigratedConnections = "migrated_connections";
    /// Times that accepting stopped because `server.maxConnections` was reached.
    AcceptPauses = "accept_pauses";
    /// Times that new encrypted connections had to wait because `https.maxHandshakes` was reached.
    HandshakePauses = "handshake_pauses";
    /// Connections, of a client or to a backend, that failed because the system had no file descriptor or no memory
    /// left.
    OutOfDescriptors = "out_of_descriptors";
    /// Idle client connections closed because a new one needed the slot or the descriptor.
    IdleClientsClosed = "idle_clients_closed";
    /// Idle connections to backends closed because another connection needed the descriptor.
    IdleUpstreamsClosed = "idle_upstreams_closed";
    /// Client connections closed after being idle for `server.idleTimeout`.
    IdleTimeouts = "idle_timeouts";
    /// Lingering closes ended by a limit, before the client closed its side.
    LingeringTimeouts = "lingering_timeouts";
    /// Connections closed at once because their address already had `server.maxConnectionsPerAddress`.
    PerIpRejections = "per_ip_rejections";
    /// Connections closed after the number of requests that `server.maxRequestsPerConnection` allows.
    RequestLimits = "request_limits";
    /// Requests whose head was complete.
    Requests = "requests";
    /// Tunnels that have ended.
    Status1xx = "responses_1xx";
    /// Requests that got a status of 200 to 299.
    Status2xx = "responses_2xx";
    /// Requests that got a status of 300 to 399.
    Status3xx = "responses_3xx";
    /// Requests that got a status of 400 to 499.
    Status4xx = "responses_4xx";
    /// Requests that got a status of 500 and above.
    Status5xx = "responses_5xx";
    /// Requests to the admin service; other counters of requests leave them out.
    AdminRequests = "admin_requests";
    /// Upgraded connections.
    Tunnels = "tunnels";
    /// Requests retried after a failure of a backend.
    Retries = "retries";
    /// Requests sent again because the backend had closed the pooled connection.
    StaleConnections = "stale_connections";
    /// Connections opened to backends.
    Dials = "dials";
    /// Requests sent over a connection of the pool.
    ReusedUpstreams = "reused_upstream_connections";
    /// Requests that waited in a queue: for a slot or a token of their frontend, or for one of `server.maxSockets`.
    Queued = "queued_requests";
    /// Responses with a line that ends in a bare LF, accepted by the option `lenient`.
    LenientBareLf = "lenient_bare_lf";
    /// Responses with a folded line, accepted by the option `lenient`.
    LenientFoldedLine = "lenient_folded_line";
    /// Responses with the same length twice, accepted by the option `lenient`.
    LenientRepeatedLength = "lenient_repeated_length";
    /// Responses with a length beside `chunked`, accepted by the option `lenient`.
    LenientLengthBesideChunked = "lenient_length_beside_chunked";
    /// Dead marks made by this core.
    DeadMarks = "dead_marks";
    /// Ejections of a backend because of its responses (`health.maxFailures`, `health.maxErrorPercent`).
    Ejections = "ejections";
    /// Health probes that have ended.
    Probes = "health_probes";
    /// Health probes that failed.
    FailedProbes = "failed_health_probes";
    /// Backends that health probes took out of service.
    ProbedDown = "backends_probed_down";
    /// Routes found in the core's cache.
    RouteHits = "route_hits";
    /// Routes requested from the directory.
    RouteMisses = "route_misses";
    /// Hosts that the core's cache of routes dropped for lack of room.
    RouteEvictions = "route_cache_evictions";
    /// Routes that the core's cache dropped because the source of routes had changed them.
    RouteInvalidations = "route_invalidations";
    /// Requests served with a fresh response from the object cache, including those that waited for the fill.
    CacheHits = "cache_hits";
    /// Requests served with a stale response from the object cache, during a refresh or in place of an error.
    CacheStale = "cache_stale";
    /// Requests served from the object cache after a backend had validated the stored response (304).
    CacheValidations = "cache_validations";
    /// Cacheable requests that a backend responded to.
    CacheMisses = "cache_misses";
    /// Refreshes of the object cache for which no client waited.
    CacheRefreshes = "cache_refreshes";
    /// Responses stored in the object cache.
    CacheFills = "cache_fills";
    /// Bytes sent to clients.
    BytesToClients = "bytes_to_clients";
    /// Completed TLS handshakes of clients.
    Handshakes = "handshakes";
    /// Completed handshakes that a session ticket resumed.
    ResumedHandshakes = "resumed_handshakes";
    /// Handshakes of clients that failed, or were not complete in time.
    FailedHandshakes = "failed_handshakes";
    /// Clients refused because they asked for a server name without a certificate.
    UnknownNames = "unknown_names";
    /// Connections whose client address came from a PROXY header.
    ProxyHeaders = "proxy_headers";
    /// Connections closed because their peer is in no network that may send a PROXY header.
    UntrustedProxies = "untrusted_proxies";
    /// Connections closed because they did not begin with a valid PROXY header.
    BadProxyHeaders = "bad_proxy_headers";
    /// Connections closed because the PROXY header did not arrive in time.
    LateProxyHeaders = "late_proxy_headers";
    /// Certificates requested from the directory.
    CertificateMisses = "certificate_misses";
    /// Times that the core's cached routes were dropped because messages of the directory did not fit the mailbox.
    MailboxOverflows = "mailbox_overflows";
}

/// The classes of statuses, and their counters.
pub const STATUS_CLASSES: [(&str, Counter); 5] = [
    ("1xx", Counter::Status1xx),
    ("2xx", Counter::Status2xx),
    ("3xx", Counter::Status3xx),
    ("4xx", Counter::Status4xx),
    ("5xx", Counter::Status5xx),
];

/// The counters of one core.
#[derive(Debug)]
pub struct Counters {
    counts: [AtomicU64; Counter::ALL.len()],
    reasons: [AtomicU64; FailureReason::ALL.len()],
    latencies: [Histogram; Phase::ALL.len()],
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            counts: [const { AtomicU64::new(0) }; _],
            reasons: [const { AtomicU64::new(0) }; _],
            latencies: Default::default(),
        }
    }
}

impl Counters {
    /// Counts one event. Only the owning core may call this: counts of other writers could be lost.
    pub fn count(&self, counter: Counter) {
        self.add(counter, 1);
    }

    /// Counts several events. Only the owning core may call this.
    pub fn add(&self, counter: Counter, number: u64) {
        bump(&self.counts[counter as usize], number);
    }

    /// Counts a request that ended for `reason`. Only the owning core may call this.
    pub fn count_reason(&self, reason: FailureReason) {
        bump(&self.reasons[reason as usize], 1);
    }

    /// Counts the status that a client got; 0 if it got none. Only the owning core may call this.
    #[inline]
    pub fn count_status(&self, status: u16) {
        match status {
            0..100 => {}
            100..200 => self.count(Counter::Status1xx),
            200..300 => self.count(Counter::Status2xx),
            300..400 => self.count(Counter::Status3xx),
            400..500 => self.count(Counter::Status4xx),
            500.. => self.count(Counter::Status5xx),
        }
    }

    /// Counts the duration of a phase of a request. Only the owning core may call this.
    #[inline]
    pub fn record_latency(&self, phase: Phase, duration: Duration) {
        self.latencies[phase as usize].record(duration);
    }

    /// Durations of a phase, over all requests.
    pub fn latency(&self, phase: Phase) -> &Histogram {
        &self.latencies[phase as usize]
    }

    /// Adds the counts of a core that has ended.
    pub fn absorb(&self, other: &Self) {
        for (mine, theirs) in self.counts.iter().zip(&other.counts).chain(self.reasons.iter().zip(&other.reasons)) {
            bump(mine, theirs.load(Ordering::Relaxed));
        }
        for (mine, theirs) in self.latencies.iter().zip(&other.latencies) {
            mine.absorb(theirs);
        }
    }

    /// The count so far.
    pub fn get(&self, counter: Counter) -> u64 {
        self.counts[counter as usize].load(Ordering::Relaxed)
    }

    /// Number of requests that ended for `reason` so far.
    pub fn get_reason(&self, reason: FailureReason) -> u64 {
        self.reasons[reason as usize].load(Ordering::Relaxed)
    }
}
