//! What the scenarios of a run have met: a simulation that no longer gets anywhere would find nothing wrong either.

use crate::scene::decoder::Message;
use crate::scene::message::Framing;
use crate::scene::world::World;
use sluice::base::reason::Reason;
use sluice::exchange::Disposition;
use std::collections::{BTreeMap, BTreeSet};

/// The reasons that hardly any scenario leads to: their faults are the table's of `tests/wire`, or those of who owns the
/// exchange; their limits are those of `tests/exchange.rs` and `tests/e2e/limits.rs`.
const ELSEWHERE: [Reason; 20] = [
    Reason::PlainToTls,
    Reason::AmbiguousLength,
    Reason::UnexpectedBody,
    Reason::ExpectationFailed,
    Reason::BodyTooSlow,
    Reason::ExtensionsTooLarge,
    Reason::UriTooLong,
    Reason::TooManyFields,
    Reason::TrailersTooLarge,
    Reason::TooManyInterimAnswers,
    Reason::BadTarget,
    Reason::MethodRefused,
    Reason::UnknownCoding,
    Reason::UnknownVersion,
    Reason::NameNotResolved,
    Reason::TlsFailed,
    Reason::DirectoryAway,
    Reason::NoBuffer,
    Reason::BadRoute,
    Reason::BackendRemoved,
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
        if let Some(reason) = world.exchange.ledger().reason {
            *self.counts.entry(reason.name()).or_default() += 1;
        }
    }

    /// Fails if there is anything that hardly any scenario has met.
    pub(crate) fn check(&self) {
        let elsewhere = ELSEWHERE.map(Reason::name);
        let reasons = Reason::ALL.iter().map(|reason| reason.name());
        let names: BTreeSet<_> =
            reasons.chain(self.counts.keys().copied()).filter(|name| !elsewhere.contains(name)).collect();
        let rare: Vec<_> = names.iter().filter(|name| self.counts.get(*name).is_none_or(|count| *count < 5)).collect();
        assert!(rare.is_empty(), "hardly met by any scenario: {rare:?}, of {:#?}", self.counts);
    }
}

fn list(world: &World) -> [(&'static str, bool); 20] {
    let (client, seen) = (&world.plan.client, &world.client.seen);
    let answer: &Message = &seen.last;
    let end = world.end.expect("the end");
    let attempt = world.attempts.last();
    let request = attempt.and_then(|attempt| attempt.seen.as_ref()).map(|seen| &seen.last);
    let plan = world.attempts.len().checked_sub(1).map(|place| &world.plan.attempts[place].answer);
    let is_whole = answer.is_complete && answer.one("X-Answer").is_some();
    let is_early = is_whole && request.is_none_or(|request| !request.is_complete);
    let has_body = is_whole && !answer.data.is_empty();
    let framing = plan.map(|plan| plan.body.framing);
    let sent_before = world.attempts.iter().rev().skip(1).any(|attempt| attempt.connected);
    let is_large = client.body.data.len() > 64 * 1024;
    [
        ("a whole answer", is_whole),
        ("a page", answer.is_complete && answer.one("X-Answer").is_none()),
        ("interim answers", !seen.interim.is_empty()),
        ("an answer to HTTP/1.0", is_whole && !client.is_http11),
        ("an answer to HEAD", is_whole && client.method == "HEAD"),
        ("a chunked answer", has_body && framing == Some(Framing::Chunked)),
        ("an answer until the end of the connection", has_body && framing == Some(Framing::UntilClose)),
        ("trailers of an answer", is_whole && !answer.trailers.is_empty()),
        ("trailers of a request", request.is_some_and(|request| !request.trailers.is_empty())),
        ("an answer before the end of the request", is_early),
        ("a large upload", is_large && request.is_some_and(|request| request.is_complete)),
        ("a large answer", is_whole && answer.data.len() > 64 * 1024),
        ("another backend", is_whole && world.retries > 0),
        ("another backend after something was sent", is_whole && sent_before && world.retries > 0),
        ("a stale connection", is_whole && world.attempts.iter().any(|attempt| attempt.fresh)),
        ("a second look-up", is_whole && world.resolves > 1),
        ("a tunnel to its end", world.is_tunnel && world.exchange.ledger().reason.is_none()),
        ("a lingering close", matches!(end.connection, Disposition::Linger { .. })),
        ("a reset", end.reset),
        (
            "kept on both sides",
            end.connection == Disposition::KeepAlive && attempt.is_some_and(|attempt| attempt.released == Some(true)),
        ),
    ]
}
