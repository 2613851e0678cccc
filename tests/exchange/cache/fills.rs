//! Requests that read the response that another one fills the cache with.

use super::*;
use sluice::cache::purge::{PurgeMode, Selector};

/// Tells a request what has come by mail for those who wait.
fn deliver(stage: &Stage, scene: &mut Scene) {
    for end in stage.mail.take() {
        scene.tell(Input::FillEnded(end));
    }
}

/// All that the client takes, for as long as there is more.
fn take_all(scene: &mut Scene) -> String {
    let mut all = Vec::new();
    loop {
        let (flushed, bytes) = scene.send(Side::Client, usize::MAX);
        all.extend(bytes);
        match flushed {
            Flushed::All if scene.exchange.waits_for_drain(Side::Client) => scene.tell(Input::Drained(Side::Client)),
            _ => return text(all),
        };
    }
}

/// A client that takes its response slowly, or not at all, keeps nobody from it.
#[test]
fn a_fill_goes_as_fast_as_its_backend() {
    let stage = Stage::new();
    let (mut leader, _) = stage.forward(GET);
    let mut waiter = stage.ask(GET, &Stage::route("a", "site"));
    assert!(waiter.exchange.store_request().is_some());
    let body = "x".repeat(200_000);
    let whole = response(FRESH, &body);
    leader.tell(Input::Bytes(Side::Upstream, head_of(&whole).as_bytes()));
    assert_eq!(leader.send(Side::Client, 10).0, Flushed::Blocked);
    deliver(&stage, &mut waiter);
    let mut got = take_all(&mut waiter);
    assert!(got.ends_with("\r\n\r\n") && got.contains("Content-Length: 200000\r\n"), "{got}");
    for (number, part) in body.as_bytes().chunks(1000).enumerate() {
        assert!(leader.exchange.wants(Side::Upstream), "the backend is read on");
        give_on(&mut leader, part);
        deliver(&stage, &mut waiter);
        got += &take_all(&mut waiter);
        assert!(got.ends_with("x") && got.len() > 1000 * number, "it is read as it comes");
    }
    assert!(got.ends_with(&format!("\r\n\r\n{body}")));
    assert!(stage.get("").ends_with(&body), "it is stored");
    // The slow client gets all of it all the same.
    let (_, got) = leader.send(Side::Client, usize::MAX);
    assert!(text(got).ends_with(&format!("\r\n\r\n{body}")));
}

#[test]
fn a_response_under_way_keeps_to_the_rate_of_its_frontend() {
    let stage = Stage::new();
    let (mut leader, _) = stage.forward(GET);
    let mut waiter = stage.ask(GET, &paced_route());
    assert!(waiter.exchange.store_request().is_some());
    let body = "x".repeat(60_000);
    leader.tell(Input::Bytes(Side::Upstream, head_of(&response(FRESH, &body)).as_bytes()));
    deliver(&stage, &mut waiter);
    for part in body.as_bytes().chunks(1000) {
        give_on(&mut leader, part);
        leader.send_all(Side::Client, usize::MAX);
    }
    deliver(&stage, &mut waiter);
    expect_paced(&mut waiter, &body);
}

#[test]
fn a_slow_client_that_would_cost_too_much_memory_has_another_request_fill() {
    let stage = Stage::new();
    let (mut leader, _) = stage.forward(GET);
    leader.core.most_read_ahead = 50_000;
    let mut waiter = stage.ask(GET, &Stage::route("a", "site"));
    let body = "x".repeat(200_000);
    let whole = response(FRESH, &body);
    give_on(&mut leader, head_of(&whole).as_bytes());
    let mut parts = 0;
    while leader.exchange.wants(Side::Upstream) {
        give_on(&mut leader, &[b'x'; 1000]);
        parts += 1;
        assert!(parts < 150, "it is read without end");
    }
    assert!(parts > 20, "{parts}");
    deliver(&stage, &mut waiter);
    assert!(take_all(&mut waiter).ends_with("x"));
    assert!(stage.ask(GET, &Stage::route("a", "site")).exchange.store_request().is_none(), "it fills");
    assert!(leader.exchange.stats().reason.is_none() && waiter.exchange.stats().reason.is_none());
    // Who reads already gets the rest as the slow client takes it.
    for _ in parts..200 {
        leader.send_all(Side::Client, usize::MAX);
        give_on(&mut leader, &[b'x'; 1000]);
    }
    deliver(&stage, &mut waiter);
    take_all(&mut waiter);
    assert!(waiter.exchange.stats().reason.is_none() && !waiter.exchange.heeds_fill(), "it has all");
}

/// A fill that others read goes on without its own client; its connection is reset at the end, as its response is not whole.
#[test]
fn a_fill_that_is_read_outlives_its_client() {
    for is_gone in [true, false] {
        let stage = Stage::new();
        let (mut leader, _) = stage.forward(GET);
        let mut waiter = stage.ask(GET, &Stage::route("a", "site"));
        let whole = response(FRESH, "0123456789");
        leader.tell(Input::Bytes(Side::Upstream, head_of(&whole).as_bytes()));
        leader.send(Side::Client, if is_gone { usize::MAX } else { 5 });
        deliver(&stage, &mut waiter);
        leader.core.output.effects.clear();
        if is_gone {
            leader.tell(Input::Broken(Side::Client));
        } else {
            leader.core.now = leader.core.now + 60 * SECOND;
            leader.tell(Input::Deadline);
        }
        assert!(leader.core.output.effects.is_empty() && leader.exchange.wants(Side::Upstream));
        assert!(!leader.exchange.heeds_client_break());
        leader.tell(Input::Bytes(Side::Upstream, b"0123456789"));
        assert!(!leader.core.output.has_bytes(), "nobody is there to take them");
        assert!(
            matches!(*leader.core.output.effects, [.., Effect::Reset, Effect::Finish(Disposition::Close)]),
            "{:?}",
            leader.core.output.effects
        );
        let reason = if is_gone { FailureReason::ClientGone } else { FailureReason::ClientStalled };
        assert_eq!(leader.exchange.stats().reason, Some(reason));
        deliver(&stage, &mut waiter);
        assert!(take_all(&mut waiter).ends_with("\r\n\r\n0123456789"));
        assert!(stage.get("").ends_with("0123456789"));
    }
}

/// A fill that dies cuts those who have begun to read; what is left of them says so.
#[test]
fn a_fill_that_dies_cuts_those_who_read() {
    for (request, version) in [(GET, "1.1"), ("GET / HTTP/1.0\r\nHost: a\r\n\r\n", "1.0")] {
        let stage = Stage::new();
        let (mut leader, _) = stage.forward(GET);
        let mut waiter = stage.ask(request, &Stage::route("a", "site"));
        let head = format!("HTTP/1.1 200 OK\r\n{FRESH}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
        leader.tell(Input::Bytes(Side::Upstream, head.as_bytes()));
        deliver(&stage, &mut waiter);
        let got = take_all(&mut waiter);
        let expected = if version == "1.1" { "\r\n\r\n3\r\nabc\r\n" } else { "\r\n\r\nabc" };
        assert!(got.ends_with(expected), "{got}");
        leader.tell(Input::End(Side::Upstream));
        waiter.core.output.effects.clear();
        deliver(&stage, &mut waiter);
        assert!(!waiter.core.output.has_bytes(), "no end is made up");
        assert_eq!(waiter.exchange.stats().reason, Some(FailureReason::UpstreamTruncated));
        let effects = &*waiter.core.output.effects;
        match version {
            "1.1" => assert!(matches!(effects, [Effect::Finish(Disposition::Linger { .. })]), "{effects:?}"),
            _ => assert!(matches!(effects, [Effect::Reset, Effect::Finish(Disposition::Close)]), "{effects:?}"),
        }
    }
}

/// Who was told of a response that has died before anything of it left joins the next fill.
#[test]
fn nobody_is_cut_who_has_nothing_yet() {
    let stage = Stage::new();
    let (mut leader, _) = stage.forward(GET);
    let mut waiter = stage.ask(GET, &Stage::route("a", "site"));
    leader.tell(Input::Bytes(Side::Upstream, head_of(&response(FRESH, "ab")).as_bytes()));
    leader.tell(Input::Broken(Side::Client));
    leader.exchange.recycle(&mut leader.core.buffers, &mut leader.core.request_pool);
    waiter.core.output.effects.clear();
    deliver(&stage, &mut waiter);
    assert!(matches!(*waiter.core.output.effects, [Effect::AskStore]));
    stage.join(&mut waiter);
    sent(&mut waiter);
    assert!(respond(&mut waiter, &response(FRESH, "ab")).ends_with("\r\n\r\nab"));
}

/// What was purged since the fill began is not served to those who come later.
#[test]
fn a_response_under_way_that_was_purged_is_not_read() {
    let stage = Stage::new();
    let (mut leader, _) = stage.forward(GET);
    leader.tell(Input::Bytes(Side::Upstream, head_of(&response(FRESH, "ab")).as_bytes()));
    stage.store.purge(&Selector::All, PurgeMode::Soft);
    let mut late = stage.ask(GET, &Stage::route("a", "site"));
    sent(&mut late);
    assert!(respond(&mut late, &response(FRESH, "new")).ends_with("\r\n\r\nnew"));
}

/// Who asks with conditions gets what they lead to, from the head alone; another variant is no response for this request.
#[test]
fn a_response_under_way_is_judged_as_a_stored_one() {
    // Long after the start: a head alone is enough for a response to be under way.
    let stage = Stage { now: Moment::ZERO + 1000 * SECOND, ..Stage::new() };
    let (mut leader, _) = stage.forward(GET);
    let fields = format!("{FRESH}ETag: \"a\"\r\nVary: X-A\r\n");
    leader.tell(Input::Bytes(Side::Upstream, head_of(&response(&fields, "ab")).as_bytes()));
    let ask =
        |fields: &str| stage.ask(&format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"), &Stage::route("a", "site"));
    let got = take_all(&mut ask("If-None-Match: \"a\"\r\n"));
    assert!(got.starts_with("HTTP/1.1 304 ") && got.contains("; collapsed"), "{got}");
    let mut other = ask("X-A: 1\r\n");
    assert!(!other.core.output.has_bytes());
    sent(&mut other);
}

/// What turns out too large to be stored reaches those who read it; the backend is read on as they take it.
#[test]
fn a_body_that_is_not_stored_waits_for_those_who_read_it() {
    let stage = Stage::new();
    let (mut leader, _) = stage.forward(GET);
    let mut waiter = stage.ask(GET, &Stage::route("a", "site"));
    let head = format!("HTTP/1.1 200 OK\r\n{FRESH}Transfer-Encoding: chunked\r\n\r\n");
    leader.tell(Input::Bytes(Side::Upstream, head.as_bytes()));
    deliver(&stage, &mut waiter);
    let mut got = take_all(&mut waiter);
    let part = format!("3e8\r\n{}\r\n", "x".repeat(1000));
    let (mut given, mut holds) = (0, 0);
    while given < 10_000 {
        if !leader.exchange.wants(Side::Upstream) {
            assert_eq!(leader.exchange.deadline(), Moment::NEVER);
            holds += 1;
            // The mail wakes whichever of the two it is for: the other one has no use for it.
            let news = stage.mail.take();
            got += &take_all(&mut waiter);
            for end in news.into_iter().chain(stage.mail.take()) {
                leader.tell(Input::FillEnded(end));
            }
            waiter.tell(Input::FillEnded(FillEnd::More));
            continue;
        }
        leader.tell(Input::Bytes(Side::Upstream, part.as_bytes()));
        leader.send_all(Side::Client, usize::MAX);
        given += 1;
    }
    assert!(holds > 4, "{holds}");
    leader.tell(Input::Bytes(Side::Upstream, b"0\r\n\r\n"));
    deliver(&stage, &mut waiter);
    got += &take_all(&mut waiter);
    assert_eq!(got.matches('x').count(), 10_000_000 + 1, "and one of the head");
    assert!(got.ends_with("\r\n0\r\n\r\n"));
    assert!(stage.ask(GET, &Stage::route("a", "site")).exchange.store_request().is_none(), "nothing is stored");
}
