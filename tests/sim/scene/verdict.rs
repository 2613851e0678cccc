//! What must hold at the end of a scenario: what each end has seen, against what the other has sent.

use super::backend::{AttemptPlan, BackendFault, EXTRA, Start};
use super::check::client_is_good;
use super::client::ClientPlan;
use super::decoder::{Decoder, Message};
use super::message::Framing;
use super::world::{Attempt, CLIENT_ADDRESS, End, World, pages};
use sluice::base::reason::FailureReason;
use sluice::exchange::{Disposition, Input, KeepAlive, Side};
use sluice::wire::websocket::GOING_AWAY;

/// Judges the scenario, whose exchange has ended.
pub(crate) fn at_end(mut world: World) -> World {
    let end = world.end.expect("the end");
    assert_eq!(world.retry, None, "a retry was told, and did not happen");
    nothing_follows(&mut world);
    if world.client.closed || !(world.client_broken || end.reset) {
        world.client.seen.close();
    }
    for (place, attempt) in world.attempts.iter().enumerate() {
        request_is_right(&world, &world.plan.attempts[place], attempt);
    }
    response_is_right(&world);
    informational_responses_are_right(&world);
    connection_is_right(&world, end);
    if world.plan.is_faultless {
        all_went_well(&world);
    }
    world
}

/// The end of the exchange.
pub(crate) fn all_is_given_back(world: World) {
    let World { mut exchange, mut core, .. } = world;
    exchange.recycle(&mut core.buffers, &mut core.request_pool);
    assert_eq!(core.buffers.lent(), 0, "buffers were not given back");
}

fn nothing_follows(world: &mut World) {
    let inputs = [
        Input::Bytes(Side::Client, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        Input::Bytes(Side::Upstream, b"HTTP/1.1 200 Fine\r\n\r\n"),
        Input::Drained(Side::Client),
        Input::End(Side::Upstream),
        Input::Broken(Side::Client),
        Input::UpstreamWriteClosed,
        Input::Connected { reused: true },
        Input::Deadline,
        Input::Abort(FailureReason::Stopped),
    ];
    for input in inputs {
        let (exchange, core) = world.turn();
        assert_eq!(exchange.step(input, 0, core), 0, "consumed behind the end");
        let output = &mut world.core.output;
        let is_silent = [Side::Client, Side::Upstream].iter().all(|side| output.queue(*side).is_empty());
        assert!(is_silent && output.effects.is_empty(), "something follows the end");
    }
    assert!([Side::Client, Side::Upstream].iter().all(|side| !world.exchange.wants(*side)), "wanted behind the end");
}

/// What a backend saw is the request, or a part of it that does not look like the whole.
fn request_is_right(world: &World, plan: &AttemptPlan, attempt: &Attempt) {
    assert!(attempt.released.is_some(), "a connection was not given back");
    let Some(seen) = &attempt.seen else { return };
    let client = &world.plan.client;
    if !seen.has_head {
        return;
    }
    let request = &seen.last;
    assert_eq!(request.first, format!("{} {} HTTP/1.1", client.method, client.target));
    assert_eq!(request.beginning("X-E2E"), client.fields, "the fields");
    assert!(request.beginning("X-Hop").is_empty() && request.beginning("Keep-Alive").is_empty(), "a hop's fields");
    let host: Vec<_> = request.all("Host").collect();
    assert_eq!(host, ["www.example.com"]);
    let forwarded: Vec<_> = request.all("X-Forwarded-For").collect();
    assert_eq!(forwarded, [CLIENT_ADDRESS.to_string()]);
    assert_eq!(request.one("Expect").is_some(), client.expects, "Expect");
    assert_eq!(request.one("Upgrade"), client.upgrade, "Upgrade");
    assert!(client.body.data.starts_with(&request.data), "the request's body is another");
    if request.is_complete {
        assert!(world.consumed >= client.bytes.len(), "a whole request was made of a part");
        assert_eq!(request.data, client.body.data, "a part of the request's body looks like the whole");
        assert_eq!(request.trailers, client.body.trailers, "the request's trailers");
        assert_eq!(client.body.flaw, None, "a body that never ends was ended");
    }
    let is_tunnel = world.is_tunnel && plan.response.id == world.plan.attempts[world.attempts.len() - 1].response.id;
    assert!(is_tunnel || seen.behind.is_empty(), "the backend saw more than the request");
    assert!(client.behind.starts_with(&seen.behind), "the tunnel's bytes are others");
}

/// What the client saw is the answer of the last attempt, or a page of this node's own, or a part of either that does
/// not look like the whole.
fn response_is_right(world: &World) {
    let (client, seen, stats) = (&world.plan.client, &world.client.seen, world.exchange.stats());
    let response = &seen.last;
    if !seen.has_head {
        assert!(stats.reason.is_some() || world.aborted, "no answer, and no reason");
        return;
    }
    assert!(client.is_http11 || response.one("Transfer-Encoding").is_none(), "HTTP/1.0 has no codings");
    let Some(id) = response.one("X-Answer") else { return page_is_right(world, response) };
    let place = world.attempts.len() - 1;
    let plan = &world.plan.attempts[place].response;
    assert_eq!(id, plan.id, "the answer of another attempt");
    assert_eq!(response.status(), plan.status, "the status");
    assert!(!plan.is_malformed, "an answer that could not be read was passed on");
    assert_eq!(response.beginning("X-E2E"), plan.fields, "the fields");
    assert!(response.beginning("X-Hop").is_empty() && response.beginning("Keep-Alive").is_empty(), "a hop's fields");
    assert!(plan.data().starts_with(&response.data), "the answer's body is another");
    assert!(is_of_tunnel(&seen.behind, &plan.tunnel, stats.reason), "the tunnel's bytes are others");
    if response.is_complete {
        let extra = if plan.has_extra { EXTRA.len() } else { 0 };
        let response_len = plan.bytes.len() - plan.tunnel.len() - extra;
        assert!(world.attempts[place].served >= response_len, "a whole answer was made of a part");
        assert_eq!(response.data, plan.data(), "a part of the answer looks like the whole");
        let has_trailers = plan.has_body() && client.is_http11;
        assert!(response.trailers == plan.body.trailers || !has_trailers, "the answer's trailers");
        assert!(plan.body.flaw.is_none() || !plan.has_body(), "a body that never ends was ended");
    }
    if stats.reason.is_none() {
        assert!(response.is_complete, "the answer is not whole, and there is no reason");
    }
}

/// Whether a client saw a part of what its backend sent; at the end of a stop, a close frame or a part of it may follow.
fn is_of_tunnel(seen: &[u8], sent: &[u8], reason: Option<FailureReason>) -> bool {
    let own = if reason == Some(FailureReason::Stopped) { &GOING_AWAY[..] } else { &[] };
    (0..=own.len()).any(|len| seen.strip_suffix(&own[..len]).is_some_and(|rest| sent.starts_with(rest)))
}

fn page_is_right(world: &World, response: &Message) {
    let reason = world.exchange.stats().reason.expect("the reason of a page");
    assert!(!world.plan.is_faultless, "a page of this node's own: {reason}");
    assert!(world.exchange.stats().status >= 400, "the status of a page");
    // What broke while the page was on its way does not change the reason.
    assert_eq!(response.status(), reason.status(), "the page of another reason");
    if response.is_complete && world.plan.client.method != "HEAD" {
        // Behind the page, a comment names the setting or the option that ended the request.
        let rest = response.data.strip_prefix(pages().body(reason)).expect("the page of another reason");
        let names_limit = rest.starts_with(format!("<!-- {reason}: ").as_bytes()) && rest.ends_with(b" -->\n");
        assert!(rest.is_empty() || names_limit, "behind the page: {}", String::from_utf8_lossy(rest));
    }
}

/// Each attempt's interim answers were passed on in order, none twice, and all of them before its last one.
fn informational_responses_are_right(world: &World) {
    let seen: Vec<_> = world.client.seen.informational.iter().map(|it| (it.status(), it.one("X-Answer"))).collect();
    if !world.plan.client.is_http11 {
        assert!(seen.is_empty(), "HTTP/1.0 has no interim answers");
    }
    let mut rest = seen.as_slice();
    for plan in &world.plan.attempts[..world.attempts.len()] {
        let sent: Vec<_> =
            plan.response.informational.iter().map(|(status, id)| (*status, Some(id.as_str()))).collect();
        let count = sent.iter().zip(rest).take_while(|(sent, seen)| sent == seen).count();
        rest = &rest[count..];
        let is_last = world.client.seen.last.one("X-Answer") == Some(&plan.response.id);
        let must_have_all = is_last && world.plan.client.is_http11;
        assert!(!must_have_all || count == sent.len(), "interim answers are missing");
    }
    assert!(rest.is_empty(), "interim answers that nobody sent: {rest:?}");
}

/// The client's connection does what the answer has announced.
fn connection_is_right(world: &World, end: End) {
    let (client, response) = (&world.plan.client, &world.client.seen.last);
    let is_kept = end.connection == Disposition::KeepAlive;
    if !world.is_tunnel {
        assert!(world.consumed <= client.bytes.len(), "bytes of the next request were consumed");
    }
    let announced = match client.is_http11 {
        true => !response.connection_has("close"),
        false => response.connection_has("keep-alive"),
    };
    no_reset_follows(world, end);
    if is_kept {
        let may_keep = world.plan.settings.keep_alive == KeepAlive::Always && !world.is_tunnel;
        assert!(may_keep, "this connection cannot be kept");
        assert!(response.is_complete && announced, "the client does not know that the connection is kept");
        assert_eq!(world.consumed, client.bytes.len(), "the next request does not begin where this one ends");
    } else if world.plan.is_faultless
        && !world.is_tunnel
        && world.plan.attempts[world.attempts.len() - 1].response.keeps_open
    {
        assert!(!announced, "the client thinks that it may go on sending");
    } else if response.is_complete && client_is_good(world) && world.has_no_reason() && !world.is_tunnel {
        let is_read = world.consumed >= client.bytes.len();
        assert!(!announced || !is_read, "the client thinks that the connection is kept");
    }
}

/// A client that may still send gets a lingering close behind a complete response: closing at once would meet its next byte
/// with a reset, and that takes away what has not been acknowledged (RFC 9112 section 9.6). Nobody in this world has
/// acknowledged anything by the end of the exchange.
fn no_reset_follows(world: &World, end: End) {
    let client = &world.client;
    let is_complete = client.seen.last.is_complete && world.exchange.pending_write(Side::Client).is_empty();
    let may_send = !(client.told_end || world.client_broken || world.client_left);
    if is_complete && may_send {
        assert_ne!(end.connection, Disposition::Close, "a reset may follow a complete response");
    }
    if let Disposition::Linger { client_may_send: false } = end.connection {
        let has_said = !world.plan.client.keeps_alive && world.consumed >= world.plan.client.bytes.len();
        assert!(has_said, "the client has not said that nothing follows");
    }
}

/// Nothing went wrong, or nothing that was not mended: all bytes are where they belong.
fn all_went_well(world: &World) {
    let (seen, reason) = (&world.client.seen, world.exchange.stats().reason);
    assert_eq!(reason, None, "something went wrong");
    assert!(seen.has_head && seen.last.is_complete, "the answer is not whole");
    let place = world.attempts.len() - 1;
    let (plan, attempt) = (&world.plan.attempts[place], &world.attempts[place]);
    assert_eq!(plan.fault, BackendFault::None);
    let request = attempt.seen.as_ref().expect("what the backend saw");
    if world.is_tunnel {
        assert_eq!(seen.behind, plan.response.tunnel, "the tunnel's bytes to the client");
        assert_eq!(request.behind, world.plan.client.behind, "the tunnel's bytes to the backend");
        return;
    }
    if plan.response.keeps_open && may_read_all(&world.plan.client, plan, request) {
        assert!(request.last.is_complete, "the backend waits for the rest of the request");
        assert_eq!(attempt.released, Some(true), "a good connection was closed");
    }
}

/// Whether nothing excuses the proxy from sending the whole request.
fn may_read_all(client: &ClientPlan, plan: &AttemptPlan, request: &Decoder) -> bool {
    let is_moot = plan.response.status >= 300 && plan.start != Start::All;
    let was_told = !client.expects || plan.response.informational.iter().any(|it| it.0 == 100);
    let was_heard = was_told || client.body.framing == Framing::None || !request.last.data.is_empty();
    !is_moot && was_heard
}
