//! Named counters of one core. The core that owns them writes, anyone reads.

use super::histogram::{Histogram, Phase};
use super::reason::FailureReason;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

macro_rules! counters {
    ($( $(#[doc = $doc:literal])* $variant:ident = $name:literal; )*) => {
        /// Counted events, beside the requests that ended with a [`FailureReason`].
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

            /// What it counts, in one sentence.
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
    /// Connections, of a client or to a backend, for which the system had no file descriptor or no memory left.
    OutOfDescriptors = "out_of_descriptors";
    /// Idle connections of clients that were closed because a new one needed the place, or the descriptor.
    IdleClientsClosed = "idle_clients_closed";
    /// Idle connections to backends that were closed because something else needed the descriptor.
    IdleUpstreamsClosed = "idle_upstreams_closed";
    /// Connections of clients that were idle for `server.idleTimeout`.
    IdleTimeouts = "idle_timeouts";
    /// Connections that ended a lingering close by a limit: the client had not closed its side by then.
    LingeringTimeouts = "lingering_timeouts";
    /// Connections that were closed at once because their address had `server.maxConnectionsPerAddress` already.
    PerIpRejections = "per_ip_rejections";
    /// Connections whose last request was the one that `server.maxRequestsPerConnection` allows.
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
    /// Requests to the admin service; they are no others'.
    AdminRequests = "admin_requests";
    /// Upgraded connections.
    Tunnels = "tunnels";
    /// Requests tried again after a failure of a backend.
    Retries = "retries";
    /// Requests sent again because a pooled connection had been closed by the backend.
    StaleConnections = "stale_connections";
    /// Connections opened to backends.
    Dials = "dials";
    /// Requests that waited because `server.maxSockets` was reached.
    Queued = "queued_requests";
    /// Responses with a line that ends in a bare LF, which the option `lenient` let through.
    LenientBareLf = "lenient_bare_lf";
    /// Responses with a folded line, which the option `lenient` let through.
    LenientFoldedLine = "lenient_folded_line";
    /// Responses with the same length twice, which the option `lenient` let through.
    LenientRepeatedLength = "lenient_repeated_length";
    /// Responses with a length beside `chunked`, which the option `lenient` let through.
    LenientLengthBesideChunked = "lenient_length_beside_chunked";
    /// Dead marks made by this core.
    DeadMarks = "dead_marks";
    /// Times that its responses took a backend out of service (`health.maxFailures`, `health.maxErrorPercent`).
    Ejections = "ejections";
    /// Health probes that have ended.
    Probes = "health_probes";
    /// Those of them that failed.
    FailedProbes = "failed_health_probes";
    /// Backends that probes took out of service.
    ProbedDown = "backends_probed_down";
    /// Routes found in the core's cache.
    RouteHits = "route_hits";
    /// Routes asked of the directory.
    RouteMisses = "route_misses";
    /// Requests that got a fresh response from the object cache, those that waited for it included.
    CacheHits = "cache_hits";
    /// Requests that got a stale response from the object cache: while it was refreshed, or in place of an error.
    CacheStale = "cache_stale";
    /// Requests that got a response from the object cache which a backend had found to be still good.
    CacheValidations = "cache_validations";
    /// Requests that a backend responded to although the object cache took part.
    CacheMisses = "cache_misses";
    /// Responses that were put into the object cache.
    CacheFills = "cache_fills";
    /// Bytes sent to clients.
    BytesToClients = "bytes_to_clients";
    /// Completed TLS handshakes of clients.
    Handshakes = "handshakes";
    /// Completed handshakes that a session ticket resumed.
    ResumedHandshakes = "resumed_handshakes";
    /// Handshakes of clients that failed, or were not complete in time.
    FailedHandshakes = "failed_handshakes";
    /// Clients that were refused because they asked for a name without a certificate.
    UnknownNames = "unknown_names";
    /// Connections whose client was told by a header of the PROXY protocol.
    ProxyHeaders = "proxy_headers";
    /// Connections closed because their peer is in none of the networks that may send a PROXY header.
    UntrustedProxies = "untrusted_proxies";
    /// Connections closed because they did not begin with a header that can be read.
    BadProxyHeaders = "bad_proxy_headers";
    /// Connections closed because the header was not there in time.
    LateProxyHeaders = "late_proxy_headers";
    /// Certificates asked of the directory.
    CertificateMisses = "certificate_misses";
    /// Times that news from the directory did not fit the mailbox and the core's routes were dropped.
    MailboxOverflows = "mailbox_overflows";
}

/// The classes of statuses, and what counts them.
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
    /// Counts one. For the core that owns these counters only: other writers' counts could be lost.
    pub fn count(&self, counter: Counter) {
        self.add(counter, 1);
    }

    /// Counts several. For the core that owns these counters only.
    pub fn add(&self, counter: Counter, number: u64) {
        bump(&self.counts[counter as usize], number);
    }

    /// Counts a request that ended for `reason`. For the core that owns these counters only.
    pub fn count_reason(&self, reason: FailureReason) {
        bump(&self.reasons[reason as usize], 1);
    }

    /// Counts the status that a client got; 0 where it got none. For the core that owns these counters only.
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

    /// Counts how long a part of a request's way took. For the core that owns these counters only.
    #[inline]
    pub fn record_latency(&self, phase: Phase, duration: Duration) {
        self.latencies[phase as usize].record(duration);
    }

    /// How long a part of the way of all requests took.
    pub fn latency(&self, phase: Phase) -> &Histogram {
        &self.latencies[phase as usize]
    }

    /// Adds what another core has counted, which has ended.
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

    /// How many requests ended for `reason` so far.
    pub fn get_reason(&self, reason: FailureReason) -> u64 {
        self.reasons[reason as usize].load(Ordering::Relaxed)
    }
}

/// A single writer needs no locked instruction.
fn bump(cell: &AtomicU64, number: u64) {
    cell.store(cell.load(Ordering::Relaxed).wrapping_add(number), Ordering::Relaxed);
}
