//! Refreshes without a client: the client gets the stale response at once, and the cache is filled behind it.

use super::*;
use std::time::Duration;

const WINDOW: &str = "Cache-Control: max-age=1, stale-while-revalidate=60\r\nETag: \"a\"\r\n";

/// A stage with an object that is stale and within its window, and an owner that refreshes.
fn stage() -> Stage {
    let mut stage = Stage::new();
    stage.get(&response(WINDOW, "old"));
    stage.now = Moment::ZERO + Duration::from_secs(2);
    stage
}

/// A request, and the refresh that it has left behind.
fn begin(stage: &Stage, request: &str) -> (String, Option<Scene>) {
    let mut scene = Scene::new(stage.settings.clone());
    (scene.core.cache, scene.core.now) = (Some(Arc::clone(&stage.store)), stage.now);
    scene.core.most_refreshes = 1;
    scene.tell(Input::Bytes(Side::Client, request.as_bytes()));
    scene.tell(Input::Route(Ok(Stage::route("a", "site"))));
    let got = text(scene.send(Side::Client, usize::MAX).1);
    let refresh = scene.core.refreshes.pop().map(|seed| {
        scene.exchange = Exchange::refresh(seed, &scene.core);
        scene.core.output.effects.clear();
        scene
    });
    (got, refresh)
}

/// The same, and the refresh has joined the fill.
fn ask(stage: &Stage, request: &str) -> (String, Option<Scene>) {
    let (got, mut refresh) = begin(stage, request);
    refresh.iter_mut().for_each(|refresh| stage.join(refresh));
    (got, refresh)
}

fn is_over(scene: &Scene) -> bool {
    scene.core.output.effects.iter().any(|effect| matches!(effect, Effect::Finish(_)))
}

#[test]
fn the_client_gets_the_stale_response_and_the_cache_the_new_one() {
    for (answer, expected) in [
        (format!("HTTP/1.1 304 Not Modified\r\n{FRESH}ETag: \"a\"\r\n\r\n"), "old"),
        (response(FRESH, "new"), "new"),
        (response(&format!("{FRESH}ETag: \"own\"\r\n"), "new"), "new"),
    ] {
        let stage = stage();
        let request = "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nIf-None-Match: \"own\"\r\n\r\n";
        let (got, refresh) = ask(&stage, request);
        assert!(got.contains("X-Cache-Lookup: stale-updating\r\n") && got.ends_with("\r\n\r\nold"), "{got}");
        // Others get it too, and refresh nothing.
        let (got, second) = ask(&stage, GET);
        assert!(got.ends_with("old") && second.is_none(), "{got}");
        let mut refresh = refresh.expect("a refresh");
        let head = sent(&mut refresh);
        assert!(
            head.contains("X-A: 1\r\n") && head.contains("If-None-Match: \"a\"") && !head.contains("own"),
            "{head}"
        );
        assert_eq!(respond(&mut refresh, &answer), "", "there is no client");
        assert!(is_over(&refresh), "{:?}", refresh.core.output.effects);
        let hit = stage.get("");
        assert!(hit.contains("X-Cache-Lookup: hit\r\n") && hit.ends_with(expected), "{hit}");
    }
}

/// Whatever becomes of a refresh, no response begins, nothing is left, and the next request tries again.
#[test]
fn a_refresh_that_fails_ends_in_silence() {
    let failures: [fn(&mut Scene); 6] = [
        |refresh| {
            sent(refresh);
            refresh.tell(Input::End(Side::Upstream));
        },
        |refresh| {
            sent(refresh);
            refresh.tell(Input::Deadline);
        },
        |refresh| {
            sent(refresh);
            respond(refresh, "HTTP/1.1 200 OK\r\nCache-Control: max-age=9\r\nContent-Length: 9\r\n\r\nabc");
            refresh.tell(Input::End(Side::Upstream));
        },
        |refresh| {
            refresh.tell(Input::ConnectFailed(FailureReason::ConnectFailed));
        },
        |refresh| {
            refresh.tell(Input::Abort(FailureReason::Stopped));
        },
        |refresh| {
            sent(refresh);
            respond(refresh, "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 3\r\n\r\nbad");
        },
    ];
    for (number, fail) in failures.iter().enumerate() {
        let mut stage = stage();
        let (_, refresh) = ask(&stage, GET);
        let mut refresh = refresh.expect("a refresh");
        fail(&mut refresh);
        assert!(is_over(&refresh), "{number}: {:?}", refresh.core.output.effects);
        assert!(!refresh.core.output.has_bytes(), "{number}");
        let Scene { core, exchange } = &mut refresh;
        exchange.recycle(&mut core.buffers, &mut core.request_pool);
        drop(refresh);
        assert_eq!(stage.store.fills().under_way(), 0, "{number}");
        let (got, again) = ask(&stage, GET);
        assert!(got.ends_with("old") && again.is_none(), "{number}: {got}");
        stage.now = stage.now + Duration::from_secs(11);
        let (got, again) = ask(&stage, GET);
        assert!(got.ends_with("old") && again.is_some(), "{number}: {got}");
    }
}

/// A refresh needs a request that fills for all.
#[test]
fn some_requests_wait_for_their_own_refresh() {
    for request in [
        "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1\r\n\r\n",
        "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        let (got, refresh) = ask(&stage(), request);
        assert!(got.is_empty() && refresh.is_none(), "{request}: {got}");
    }
    // So does one of an owner that has no more exchanges.
    let stage = stage();
    let (_, head) = stage.forward(GET);
    assert!(head.contains("If-None-Match: \"a\""), "{head}");
}

/// Nobody waits for the response of an object that has to be validated each time. It is refreshed all the same.
#[test]
fn an_object_that_is_never_fresh_is_refreshed_too() {
    for fields in ["", "ETag: \"a\"\r\n"] {
        let stage = Stage::new();
        stage.get(&response(&format!("Cache-Control: max-age=0, stale-while-revalidate=60\r\n{fields}"), "old"));
        let (got, refresh) = ask(&stage, "GET / HTTP/1.1\r\nHost: a\r\nIf-None-Match: \"own\"\r\n\r\n");
        assert!(got.ends_with("old"), "{got}");
        let mut refresh = refresh.expect("a refresh");
        let head = sent(&mut refresh);
        assert!(!head.contains("own") && head.contains("If-None-Match") != fields.is_empty(), "{head}");
        respond(&mut refresh, &response(FRESH, "new"));
        assert!(is_over(&refresh) && stage.get("").ends_with("new"));
    }
}

/// A refresh that cannot join a fill in time ends.
#[test]
fn a_refresh_has_a_deadline() {
    let (_, refresh) = begin(&stage(), GET);
    let mut refresh = refresh.expect("a refresh");
    refresh.tell(Input::Deadline);
    assert!(is_over(&refresh) && !refresh.core.output.has_bytes());
}
