//! What the scenarios of a run have met: a simulation that no longer gets anywhere would find nothing wrong either.

use crate::scene::decoder::Message;
use crate::scene::message::Framing;
use crate::scene::world::World;
use sluice::base::reason::FailureReason;
use sluice::exchange::Disposition;
use std::collections::{BTreeMap, BTreeSet};

/// The reasons that hardly any scenario leads to: their faults are the table's of `tests/wire`, or those of who owns the
/// exchange; their limits are those of `tests/exchange.rs` and of `limits.rs`, `clients.rs`, `clusters.rs`, `loops.rs`, `tls`,
/// `haproxy` and `admin` in `tests/e2e`.
const ELSEWHERE: [FailureReason; 32] = [
    FailureReason::PlainToTls,
    FailureReason::AmbiguousLength,
    FailureReason::UnexpectedBody,
    FailureReason::ExpectationFailed,
    FailureReason::BodyTooSlow,
    FailureReason::ExtensionsTooLarge,
    FailureReason::UriTooLong,
    FailureReason::TooManyHeaders,
    FailureReason::TrailersTooLarge,
    FailureReason::TooManyInformationalResponses,
    FailureReason::BadTarget,
    FailureReason::MethodRefused,
    FailureReason::UnknownCoding,
    FailureReason::UnknownVersion,
    FailureReason::NameNotResolved,
    FailureReason::TlsFailed,
    FailureReason::RouteSourceDown,
    FailureReason::BufferLimit,
    FailureReason::BadRoute,
    FailureReason::BackendRemoved,
    FailureReason::ClusterDisabled,
    FailureReason::LoopDetected,
    FailureReason::NamedBackendDown,
    FailureReason::ServiceTimeout,
    FailureReason::TunnelLimit,
    FailureReason::DeniedByRule,
    FailureReason::ClosedByRule,
    FailureReason::NoBackendRule,
    FailureReason::ClientLimit,
    FailureReason::ClientRate,
    FailureReason::FrontendRate,
    FailureReason::MisdirectedRequest,
];

/// How often each thing has been met.
#[derive(Debug, Default)]
pub(crate) struct Coverage {
    counts: BTreeMap<&'static str, u32>,
}

impl Coverage {
    /// Notes what has been met in a scenario that has ended.
    pub(crate) fn add(&mut self, world: &World) {
        for (name, met) in list(world) {
            *self.counts.entry(name).or_default() += u32::from(met);
        }
        if let Some(reason) = world.exchange.stats().reason {
            *self.counts.entry(reason.name()).or_default() += 1;
        }
    }

    /// Adds what another part of the scenarios has met.
    pub(crate) fn merge(&mut self, other: Self) {
        for (name, count) in other.counts {
            *self.counts.entry(name).or_default() += count;
        }
    }

    /// Fails if there is anything that hardly any scenario has met.
    pub(crate) fn check(&self) {
        let elsewhere = ELSEWHERE.map(FailureReason::name);
        let reasons = FailureReason::ALL.iter().map(|reason| reason.name());
        let names: BTreeSet<_> =
            reasons.chain(self.counts.keys().copied()).filter(|name| !elsewhere.contains(name)).collect();
        let rare: Vec<_> = names.iter().filter(|name| self.counts.get(*name).is_none_or(|count| *count < 5)).collect();
        assert!(rare.is_empty(), "hardly met by any scenario: {rare:?}, of {:#?}", self.counts);
    }
}

fn list(world: &World) -> [(&'static str, bool); 21] {
    let (client, seen) = (&world.plan.client, &world.client.seen);
    let response: &Message = &seen.last;
    let end = world.end.expect("the end");
    let attempt = world.attempts.last();
    let request = attempt.and_then(|attempt| attempt.seen.as_ref()).map(|seen| &seen.last);
    let plan = world.attempts.len().checked_sub(1).map(|place| &world.plan.attempts[place].response);
    let is_whole = response.is_complete && response.one("X-Answer").is_some();
    let is_early = is_whole && request.is_none_or(|request| !request.is_complete);
    let has_body = is_whole && !response.data.is_empty();
    let framing = plan.map(|plan| plan.body.framing);
    let sent_before = world.attempts.iter().rev().skip(1).any(|attempt| attempt.connected);
    let is_large = client.body.data.len() > 64 * 1024;
    [
        ("a whole answer", is_whole),
        ("a page", response.is_complete && response.one("X-Answer").is_none()),
        ("interim answers", !seen.informational.is_empty()),
        ("an answer to HTTP/1.0", is_whole && !client.is_http11),
        ("an answer to HEAD", is_whole && client.method == "HEAD"),
        ("a chunked answer", has_body && framing == Some(Framing::Chunked)),
        ("an answer until the end of the connection", has_body && framing == Some(Framing::UntilClose)),
        ("trailers of an answer", is_whole && !response.trailers.is_empty()),
        ("trailers of a request", request.is_some_and(|request| !request.trailers.is_empty())),
        ("an answer before the end of the request", is_early),
        ("a large upload", is_large && request.is_some_and(|request| request.is_complete)),
        ("a large answer", is_whole && response.data.len() > 64 * 1024),
        ("another backend", is_whole && world.retries > 0),
        ("another backend after something was sent", is_whole && sent_before && world.retries > 0),
        ("a stale connection", is_whole && world.attempts.iter().any(|attempt| attempt.fresh)),
        ("a second look-up", is_whole && world.resolves > 1),
        ("a tunnel to its end", world.is_tunnel && world.exchange.stats().reason.is_none()),
        ("a client that has left and is served", is_whole && world.client_left),
        ("a lingering close", matches!(end.connection, Disposition::Linger { .. })),
        ("a reset", end.reset),
        (
            "kept on both sides",
            end.connection == Disposition::KeepAlive && attempt.is_some_and(|attempt| attempt.released == Some(true)),
        ),
    ]
}
