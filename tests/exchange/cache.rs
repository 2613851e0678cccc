//! The object cache in one request, and in those that wait for it.

mod background;
mod conditions;
mod fills;

use super::*;
use sluice::cache::fill::{FillEnd, FillSink, FillWaiter};
use sluice::cache::live::Wake;
use sluice::cache::store::Store;
use sluice::cluster::{Backend, BackendId, BackendUrl, Cluster, ClusterSpec, Options, Route};
use sluice::exchange::drive::{self, Driver};
use sluice::exchange::{Output, StoreRequest};
use std::sync::Mutex;

/// A worker that remembers what it is told.
#[derive(Debug, Default)]
struct Mail(Mutex<Vec<FillEnd>>);

impl Wake for Mail {
    fn wake(&self, exchange: u64) {
        self.tell(exchange, FillEnd::More);
    }
}

impl FillSink for Mail {
    fn tell(&self, _: u64, end: FillEnd) {
        self.0.lock().expect("no panic").push(end);
    }
}

impl Mail {
    fn take(&self) -> Vec<FillEnd> {
        std::mem::take(&mut *self.0.lock().expect("no panic"))
    }
}

/// Scenes that share a store and the time.
struct Stage {
    store: Arc<Store>,
    mail: Arc<Mail>,
    settings: Settings,
    now: Moment,
}

impl Stage {
    fn new() -> Self {
        let store = Arc::new(Store::new(64 << 20));
        Self { store, mail: Arc::default(), settings: settings(), now: Moment::ZERO }
    }

    fn route(key: &str, id: &str) -> Arc<Route> {
        Self::route_to(1, key, id)
    }

    fn route_to(number: u64, key: &str, id: &str) -> Arc<Route> {
        let url = BackendUrl::parse(&format!("http://10.0.0.{number}:8000")).expect("a good URL");
        let backend = Arc::new(Backend::new(BackendId::new(number), url.endpoint().clone()));
        let mut options = Options::clone(&Options::none());
        options.cache.is_enabled = true;
        options.backend_header = Some("X-Backend".into());
        let spec = ClusterSpec { created: 0, key, id, entries: vec![(&url, backend)], options: &Arc::new(options) };
        Arc::new(Route::new("a", Cluster::edit(None, spec, Moment::ZERO)))
    }

    /// A request at this route, which has joined the fill where it was to.
    fn ask(&self, request: &str, route: &Arc<Route>) -> Scene {
        let mut scene = Scene::new(self.settings.clone());
        (scene.core.cache, scene.core.now) = (Some(Arc::clone(&self.store)), self.now);
        assert_eq!(scene.tell(Input::Bytes(Side::Client, request.as_bytes())), request.len());
        scene.tell(Input::Route(Ok(Arc::clone(route))));
        self.join(&mut scene);
        scene
    }

    fn join(&self, scene: &mut Scene) {
        if let Some(StoreRequest::Join { key, may_lead, timeout }) = scene.exchange.store_request() {
            let waiter = FillWaiter { sink: Arc::clone(&self.mail) as Arc<dyn FillSink>, exchange: 0 };
            let start = self.store.fills().join(&key, waiter, may_lead, timeout, scene.core.now);
            scene.tell(Input::Fill(start));
        }
    }

    /// The same, with the head sent to a backend; and the head.
    fn forward(&self, request: &str) -> (Scene, String) {
        let mut scene = self.ask(request, &Self::route("a", "site"));
        let head = sent(&mut scene);
        (scene, head)
    }

    /// A request of its own, and the response that it gets at once or from this backend.
    fn get(&self, response: &str) -> String {
        let mut scene = self.ask(GET, &Self::route("a", "site"));
        if !scene.core.output.has_bytes() {
            sent(&mut scene);
            return respond(&mut scene, response);
        }
        text(scene.send(Side::Client, usize::MAX).1)
    }
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// A connection to the backend is there: the head that it is sent.
fn sent(scene: &mut Scene) -> String {
    scene.tell(Input::Connected { reused: false });
    let (flushed, head) = scene.send(Side::Upstream, usize::MAX);
    assert_eq!(flushed, Flushed::All, "{:?}", scene.core.output.effects);
    scene.tell(Input::Drained(Side::Upstream));
    text(head)
}

/// What the client gets of this response.
fn respond(scene: &mut Scene, response: &str) -> String {
    scene.tell(Input::Bytes(Side::Upstream, response.as_bytes()));
    text(scene.send(Side::Client, usize::MAX).1)
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("text")
}

fn response(fields: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// The head of a response, blank line included.
fn head_of(whole: &str) -> &str {
    whole.split_inclusive("\r\n\r\n").next().expect("a head")
}

/// The backend sends bytes, and the client takes nothing.
fn give_on(scene: &mut Scene, bytes: &[u8]) {
    scene.tell(Input::Bytes(Side::Upstream, bytes));
    let Scene { core, exchange } = scene;
    exchange.flush(Side::Client, &[], core, |_| Err(ErrorKind::WouldBlock.into()));
}

const FRESH: &str = "Cache-Control: max-age=600\r\n";
const STALE: &str = "Cache-Control: max-age=0\r\nETag: \"a\"\r\n";

/// All backends have left while the request was on its way to one, so the route is asked for a second time.
fn lose_route(scene: &mut Scene) {
    let route = Arc::clone(scene.exchange.route().expect("a route"));
    route.marks.iter().for_each(|mark| mark.mark_removed());
    scene.core.output.effects.clear();
    scene.tell(Input::ConnectFailed(FailureReason::ConnectFailed));
    assert!(scene.core.output.effects.iter().any(|effect| matches!(effect, Effect::Resolve)), "asked again");
}

#[test]
fn a_route_that_is_asked_for_again_starts_no_second_fill() {
    let stage = Stage::new();
    stage.get(&response(STALE, "old"));
    let mut scene = stage.ask(GET, &Stage::route("a", "site"));
    lose_route(&mut scene);
    scene.tell(Input::Route(Ok(Stage::route_to(2, "a", "site"))));
    assert!(scene.exchange.store_request().is_none(), "it would wait for itself");
    assert!(sent(&mut scene).contains("If-None-Match: \"a\"\r\n"));
    // The validators were this node's, so the client gets the whole.
    let got = respond(&mut scene, "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n");
    assert!(got.starts_with("HTTP/1.1 200 ") && got.ends_with("\r\n\r\nold"), "{got}");
}

#[test]
fn a_request_that_moves_to_another_frontend_leaves_its_object_behind() {
    for (key, id) in [("*", "site"), ("a", "other")] {
        let stage = Stage::new();
        stage.get(&response(STALE, "old"));
        let request = "GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: me\r\nIf-None-Match: \"own\"\r\nX-A: 1\r\n\r\n";
        let mut scene = stage.ask(request, &Stage::route("a", "site"));
        lose_route(&mut scene);
        scene.tell(Input::Route(Ok(Stage::route_to(2, key, id))));
        stage.join(&mut scene);
        let head = sent(&mut scene);
        assert!(head.contains("X-A: 1\r\n") && !head.contains("If-None-Match"), "{key} {id}: {head}");
        assert_eq!(scene.exchange.request().and_then(|request| request.user_agent()), Some(&b"me"[..]));
        let got = respond(&mut scene, &response("Cache-Control: max-age=600\r\nETag: \"own\"\r\n", "own"));
        assert!(got.starts_with("HTTP/1.1 304 "), "{got}");
    }
}

/// A response that depends on a client's credentials says nothing about the responses for others.
#[test]
fn a_response_that_is_the_clients_doing_keeps_nobody_from_waiting() {
    let stage = Stage::new();
    let (mut scene, _) = stage.forward("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: x\r\n\r\n");
    let got = respond(&mut scene, "HTTP/1.1 401 Unauthorized\r\nETag: \"b\"\r\nContent-Length: 0\r\n\r\n");
    assert!(got.starts_with("HTTP/1.1 401 "), "{got}");
    let (mut leader, _) = stage.forward(GET);
    let waiter = stage.ask(GET, &Stage::route("a", "site"));
    assert!(waiter.exchange.store_request().is_some(), "it waits");
    respond(&mut leader, &response(FRESH, "x"));
    assert!(matches!(*stage.mail.take(), [FillEnd::Stored]));
}

/// A status that says nothing about the target has another request try.
#[test]
fn a_refusal_of_the_leader_hands_over() {
    for status in ["401 Unauthorized", "403 Forbidden", "429 Too Many", "503 Busy"] {
        let stage = Stage::new();
        let (mut leader, _) = stage.forward(GET);
        let _waiter = stage.ask(GET, &Stage::route("a", "site"));
        respond(&mut leader, &format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"));
        assert!(matches!(*stage.mail.take(), [FillEnd::Lead(_)]), "{status}");
    }
}

/// Who waits for an object that has to be validated each time would wait in vain.
#[test]
fn an_object_that_cannot_be_fresh_lets_all_go_at_its_head() {
    for fields in [STALE, "Cache-Control: no-cache\r\nETag: \"a\"\r\n"] {
        let stage = Stage::new();
        let (mut leader, _) = stage.forward(GET);
        let _waiter = stage.ask(GET, &Stage::route("a", "site"));
        leader.tell(Input::Bytes(Side::Upstream, head_of(&response(fields, "0123456789")).as_bytes()));
        assert!(matches!(*stage.mail.take(), [FillEnd::Released]), "{fields}");
        let next = stage.ask(GET, &Stage::route("a", "site"));
        assert!(next.exchange.store_request().is_none(), "{fields}: nobody waits for a while");
    }
}

#[test]
fn a_client_that_leaves_gives_its_place_among_those_who_wait_up() {
    let stage = Stage::new();
    let (mut leader, _) = stage.forward(GET);
    let mut waiter = stage.ask(GET, &Stage::route("a", "site"));
    assert!(waiter.exchange.heeds_client_end());
    waiter.tell(Input::End(Side::Client));
    assert_eq!(waiter.exchange.stats().reason, Some(FailureReason::ClientGone));
    respond(&mut leader, &response(FRESH, "x"));
    assert!(stage.mail.take().is_empty(), "nobody waits");
}

/// Neither the wait for a fill nor that in a queue makes a response old.
#[test]
fn the_age_of_an_object_counts_from_when_its_request_was_sent() {
    let stage = Stage::new();
    let mut scene = stage.ask(GET, &Stage::route("a", "site"));
    scene.core.now = scene.core.now + 9 * SECOND;
    sent(&mut scene);
    scene.core.now = scene.core.now + 2 * SECOND;
    respond(&mut scene, &response("Cache-Control: max-age=600\r\nAge: 1\r\n", "x"));
    let later = Stage { now: scene.core.now, ..stage };
    let got = later.get("");
    assert!(got.contains("\r\nAge: 3\r\n"), "{got}");
}

/// Early hints pass while a response fills the cache, and are no part of what is stored (RFC 8297).
#[test]
fn early_hints_pass_and_are_not_stored() {
    let stage = Stage::new();
    let (mut leader, _) = stage.forward(GET);
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n";
    let got = respond(&mut leader, hints);
    assert!(got.starts_with("HTTP/1.1 103 Early Hints\r\n") && got.contains("rel=preload"), "{got}");
    assert!(respond(&mut leader, &response(FRESH, "ab")).ends_with("\r\n\r\nab"));
    let got = stage.get("");
    assert!(got.starts_with("HTTP/1.1 200 OK\r\n") && got.ends_with("\r\n\r\nab") && !got.contains("Link"), "{got}");
}

#[test]
fn bytes_behind_a_response_keep_it_out_of_the_cache() {
    for (whole, is_stored) in [(response(FRESH, "ab"), true), (response(FRESH, "ab") + "c", false)] {
        let stage = Stage::new();
        stage.get(&whole);
        let got = stage.get(&response(FRESH, "new"));
        assert_eq!(got.ends_with("\r\n\r\nab"), is_stored, "{whole} {got}");
    }
}

#[test]
fn a_response_of_a_named_backend_is_for_nobody_else() {
    let mut stage = Stage::new();
    stage.settings.forwarded.trusted = vec!["192.0.2.0/24".parse().expect("a network")];
    let named = "GET / HTTP/1.1\r\nHost: a\r\nX-Backend: 10.0.0.1:8000\r\n\r\n";
    let (mut scene, _) = stage.forward(named);
    respond(&mut scene, &response(FRESH, "trial"));
    assert!(stage.get(&response(FRESH, "all")).ends_with("\r\n\r\nall"));
    // Nor is it served what is stored.
    let (mut scene, _) = stage.forward(named);
    assert!(respond(&mut scene, &response(FRESH, "trial")).ends_with("\r\n\r\ntrial"));
}

/// A 304 that is about another representation has the request sent again, and its response is stored for all who wait.
#[test]
fn a_validation_that_fails_goes_on_as_a_fill() {
    let stage = Stage::new();
    stage.get(&response(STALE, "old"));
    let mut leader = stage.ask(GET, &Stage::route("a", "site"));
    sent(&mut leader);
    respond(&mut leader, "HTTP/1.1 304 Not Modified\r\nETag: \"b\"\r\n\r\n");
    let head = sent(&mut leader);
    assert!(!head.contains("If-None-Match"), "{head}");
    respond(&mut leader, &response(FRESH, "new"));
    assert!(stage.get("").ends_with("\r\n\r\nnew"));
}

/// What one client is refused, or gets a part of, says nothing about the object.
/// An owner whose pool has a connection at once.
struct Pooling<'a>(&'a mut Scene);

impl Driver for Pooling<'_> {
    fn exchange(&mut self) -> Option<(&mut Exchange, &mut WorkerContext)> {
        Some((&mut self.0.exchange, &mut self.0.core))
    }

    fn output(&mut self) -> &mut Output {
        &mut self.0.core.output
    }

    fn perform(&mut self, effect: Effect) {
        if let Effect::Connect { .. } = effect {
            self.take_step(Input::Connected { reused: true }, 0);
        }
    }

    fn send(&mut self, _: Side, _: &[u8]) -> Option<Flushed> {
        None
    }

    fn note_flushed(&mut self, _: Side, _: Flushed) {}
}

/// The request goes to another connection behind a response that is dropped: what the first one has sent behind that is no
/// response of the second one.
#[test]
fn bytes_of_one_connection_are_not_offered_as_those_of_the_next() {
    let stage = Stage::new();
    stage.get(&response(STALE, "old"));
    let (mut scene, _) = stage.forward(GET);
    scene.core.output.effects.clear();
    let dropped = "HTTP/1.1 304 Not Modified\r\nETag: \"b\"\r\n\r\n";
    let bytes = dropped.to_owned() + &response(FRESH, "evil");
    let (used, is_starved) = drive::offer(&mut Pooling(&mut scene), Side::Upstream, bytes.as_bytes());
    assert_eq!((used, is_starved), (dropped.len(), false));
    assert!(scene.exchange.wants(Side::Upstream), "the second connection is there");
    assert_eq!(scene.exchange.stats().status, 0, "no response has begun");
}

#[test]
fn a_client_cannot_have_a_stale_object_dropped() {
    let cases = [
        ("Range: bytes=0-0\r\n", "206 Partial Content"),
        ("Range: bytes=9-\r\n", "416 Range Not Satisfiable"),
        ("If-Match: \"x\"\r\nRange: bytes=0-\r\n", "412 Precondition Failed"),
        ("Cookie: bad\r\n", "401 Unauthorized"),
        ("Cookie: bad\r\n", "403 Forbidden"),
        ("Accept: x/y\r\n", "406 Not Acceptable"),
        ("X: y\r\n", "429 Too Many Requests"),
    ];
    for (fields, status) in cases {
        let stage = Stage::new();
        stage.get(&response(STALE, "old"));
        let (mut scene, _) = stage.forward(&format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        respond(&mut scene, &format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"));
        let (mut next, head) = stage.forward(GET);
        assert!(head.contains("If-None-Match: \"a\""), "{fields} {status}: {head}");
        assert!(respond(&mut next, "HTTP/1.1 304 Not Modified\r\n\r\n").ends_with("old"));
    }
    // What says that the target has changed does.
    let stage = Stage::new();
    stage.get(&response(STALE, "old"));
    let (mut scene, _) = stage.forward(GET);
    respond(&mut scene, "HTTP/1.1 410 Gone\r\nCache-Control: no-store\r\nContent-Length: 0\r\n\r\n");
    let (_, head) = stage.forward(GET);
    assert!(!head.contains("If-None-Match"), "{head}");
}

#[test]
fn a_purge_of_a_stranger_through_a_trusted_proxy_is_the_backends() {
    let mut stage = Stage::new();
    stage.settings.forwarded.trusted = vec!["192.0.2.0/24".parse().expect("a network")];
    stage.get(&response(FRESH, "x"));
    for (chain, may) in [
        ("", true),
        ("X-Forwarded-For: 192.0.2.9\r\n", true),
        ("X-Forwarded-For: 198.51.100.1\r\n", false),
        ("X-Forwarded-For: 192.0.2.9\r\nX-Forwarded-For: 198.51.100.1\r\n", false),
        ("X-Forwarded-For: 198.51.100.1, 192.0.2.9\r\n", false),
        ("X-Forwarded-For: unknown\r\n", false),
    ] {
        let request = format!("PURGE / HTTP/1.1\r\nHost: a\r\n{chain}\r\n");
        let mut scene = stage.ask(&request, &Stage::route("a", "site"));
        assert_eq!(scene.core.output.has_bytes(), may, "{chain}");
        if may {
            assert!(text(scene.send(Side::Client, usize::MAX).1).starts_with("HTTP/1.1 200 "));
        }
    }
}

#[test]
fn a_response_that_was_waited_for_says_so() {
    let stage = Stage::new();
    let (mut leader, _) = stage.forward(GET);
    let mut waiter = stage.ask(GET, &Stage::route("a", "site"));
    respond(&mut leader, &response(FRESH, "x"));
    for end in stage.mail.take() {
        waiter.tell(Input::FillEnded(end));
    }
    let got = text(waiter.send(Side::Client, usize::MAX).1);
    assert!(got.contains("Cache-Status: sluice; fwd=uri-miss; collapsed; ttl=600\r\n"), "{got}");
    assert_eq!(stage.store.fills().under_way(), 0);
}

#[test]
fn a_stored_response_keeps_to_the_rate_of_its_frontend() {
    let stage = Stage::new();
    let (mut leader, _) = stage.forward(GET);
    let body = "x".repeat(60_000);
    let whole = response(FRESH, &body);
    leader.tell(Input::Bytes(Side::Upstream, head_of(&whole).as_bytes()));
    for part in body.as_bytes().chunks(1000) {
        leader.tell(Input::Bytes(Side::Upstream, part));
        leader.send_all(Side::Client, usize::MAX);
    }
    assert!(matches!(*stage.mail.take(), []), "nothing else waited");
    let mut scene = stage.ask(GET, &paced_route());
    expect_paced(&mut scene, &body);
}

/// The route of the stage's frontend, with 1 KiB a second to clients.
fn paced_route() -> Arc<Route> {
    let url = BackendUrl::parse("http://10.0.0.1:8000").expect("a good URL");
    let backend = Arc::new(Backend::new(BackendId::new(1), url.endpoint().clone()));
    let mut options = Options::clone(&Options::none());
    (options.cache.is_enabled, options.bytes_per_second_out) = (true, 1024);
    let spec =
        ClusterSpec { created: 0, key: "a", id: "site", entries: vec![(&url, backend)], options: &Arc::new(options) };
    Arc::new(Route::new("a", Cluster::edit(None, spec, Moment::ZERO)))
}

/// Has the client take a response with this body of 60,000 bytes, in pauses.
fn expect_paced(scene: &mut Scene, body: &str) {
    let (mut got, mut pauses) = (Vec::new(), 0);
    while got.len() < body.len() {
        let (flushed, bytes) = scene.send(Side::Client, usize::MAX);
        got.extend(bytes);
        if flushed == Flushed::All && scene.exchange.waits_for_drain(Side::Client) {
            scene.tell(Input::Drained(Side::Client));
        } else if flushed == Flushed::Nothing {
            pauses += 1;
            assert!(pauses < 100, "{} bytes", got.len());
            scene.core.now = scene.exchange.deadline();
            scene.tell(Input::Deadline);
        }
    }
    assert!(text(got).ends_with(body));
    let seconds = scene.core.now.since(Moment::ZERO).as_secs();
    // 60,000 bytes, without the burst of 16 KiB and the last piece of as much.
    assert!((25..50).contains(&seconds) && pauses > 1, "{seconds} s, {pauses} pauses");
    assert_eq!(scene.exchange.stats().reason, None);
}
