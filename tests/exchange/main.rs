//! Single scenes of the exchange, where its patience and its memory are what counts. Everything else is played by
//! `tests/sim`.

mod cache;
mod moving;
mod pacing;
mod phases;
mod service;
mod support;
mod tunnel;
mod waiting;

use sluice::base::clock::Moment;
use sluice::base::reason::FailureReason;
use sluice::exchange::{Disposition, Effect, Exchange, Flushed, Input, KeepAlive, Settings, Side, WorkerContext};
use sluice::page::{self, Pages};
use sluice::wire::limits::Limits;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use support::{SECOND, peer, route, settings};

struct Scene {
    core: WorkerContext,
    exchange: Exchange,
}

impl Scene {
    fn new(settings: Settings) -> Self {
        let exchange = Exchange::new(peer(), Moment::ZERO, &settings);
        let pages = Arc::new(Pages::load(&page::Settings::default()));
        Self { core: WorkerContext::new(Moment::ZERO, settings, pages, fastrand::Rng::with_seed(1)), exchange }
    }

    /// A scene in which the head of `request` has been sent to a backend.
    fn with_backend(settings: Settings, request: &str) -> Self {
        let mut scene = Self::new(settings);
        assert_eq!(scene.tell(Input::Bytes(Side::Client, request.as_bytes())), request.len());
        scene.tell(Input::Route(Ok(route(1, 2))));
        scene.tell(Input::Connected { reused: false });
        assert_eq!(scene.send(Side::Upstream, usize::MAX).0, Flushed::All);
        scene.tell(Input::Drained(Side::Upstream));
        scene.core.output.effects.clear();
        scene
    }

    /// A tunnel of this protocol whose 101 has left.
    fn with_tunnel(protocol: &str) -> Self {
        let fields = format!("Connection: upgrade\r\nUpgrade: {protocol}\r\n\r\n");
        let mut scene = Self::with_backend(settings(), &format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}"));
        let response = format!("HTTP/1.1 101 Switching Protocols\r\n{fields}");
        assert_eq!(scene.tell(Input::Bytes(Side::Upstream, response.as_bytes())), response.len());
        assert_eq!(scene.send_all(Side::Client, usize::MAX), Flushed::All);
        scene
    }

    fn tell(&mut self, input: Input<'_>) -> usize {
        self.exchange.step(input, 0, &mut self.core)
    }

    /// Lets the socket of `side` take up to `room` bytes, of the backlog first; the bytes it took. No scene offers as
    /// much at once as would be passed on in place.
    fn send(&mut self, side: Side, mut room: usize) -> (Flushed, Vec<u8>) {
        let mut taken = Vec::new();
        let mut write = |slices: &[io::IoSlice<'_>]| {
            let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
            let len = all.len().min(room);
            room -= len;
            taken.extend_from_slice(&all[..len]);
            if len == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(len) }
        };
        let Self { core, exchange } = self;
        let mut flushed = exchange.flush_pending_write(side, core, &mut write);
        if flushed == Flushed::Nothing {
            flushed = exchange.flush(side, &[], core, &mut write);
        }
        (flushed, taken)
    }
}

impl Scene {
    /// The same, and tells the exchange when all has left.
    fn send_all(&mut self, side: Side, room: usize) -> Flushed {
        let (flushed, _) = self.send(side, room);
        if flushed == Flushed::All && self.exchange.waits_for_drain(side) {
            self.tell(Input::Drained(side));
        }
        flushed
    }
}

#[test]
fn a_head_that_trickles_in_has_the_time_of_one_head() {
    let mut scene = Scene::new(settings());
    let head = b"GET / HTTP/1.1\r\n";
    for len in 1..=head.len() {
        scene.core.now = scene.core.now + SECOND / 2;
        scene.tell(Input::Bytes(Side::Client, &head[..len]));
        assert_eq!(scene.exchange.deadline(), Moment::ZERO + 10 * SECOND);
    }
}

#[test]
fn a_backend_that_takes_the_body_slowly_is_not_late_with_its_response() {
    let mut scene = Scene::with_backend(settings(), "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 900\r\n\r\n");
    scene.tell(Input::Bytes(Side::Client, &[b'x'; 900]));
    assert_eq!(scene.send(Side::Upstream, 10).0, Flushed::Blocked);
    for _ in 0..10 {
        scene.core.now = scene.core.now + 15 * SECOND;
        assert!(scene.core.now < scene.exchange.deadline(), "the backend has taken bytes since");
        assert_eq!(scene.send(Side::Upstream, 10).0, Flushed::Blocked);
    }
    assert_eq!(scene.send(Side::Upstream, usize::MAX).0, Flushed::All);
    assert_eq!(scene.exchange.deadline(), scene.core.now + 20 * SECOND, "the wait for the answer begins now");
}

#[test]
fn the_client_is_waited_for_while_it_has_to_go_on_and_the_backend_then() {
    let mut scene = Scene::with_backend(settings(), "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n");
    assert_eq!(scene.exchange.deadline(), scene.core.now + 10 * SECOND);
    scene.core.now = scene.core.now + 9 * SECOND;
    scene.tell(Input::Bytes(Side::Client, b"x"));
    assert_eq!(scene.exchange.deadline(), scene.core.now + 10 * SECOND);
    scene.send(Side::Upstream, usize::MAX);
    scene.tell(Input::Bytes(Side::Client, b"y"));
    assert_eq!(scene.exchange.deadline(), scene.core.now + 20 * SECOND);
}

#[test]
fn a_slow_reader_that_takes_bytes_has_not_stalled() {
    let mut scene = Scene::with_backend(settings(), "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let response = format!("HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{}", "x".repeat(900));
    let head_len = scene.tell(Input::Bytes(Side::Upstream, response.as_bytes()));
    assert_eq!(
        scene.exchange.deadline(),
        scene.core.now + 10 * SECOND,
        "an answer that has begun has a body's patience"
    );
    scene.tell(Input::Bytes(Side::Upstream, &response.as_bytes()[head_len..]));
    assert_eq!(scene.send(Side::Client, 10).0, Flushed::Blocked);
    for _ in 0..50 {
        scene.core.now = scene.core.now + 9 * SECOND;
        assert!(scene.core.now < scene.exchange.deadline(), "the client has taken bytes since");
        assert_eq!(scene.send(Side::Client, 10).0, Flushed::Blocked);
    }
    scene.core.now = scene.core.now + 10 * SECOND;
    scene.core.output.effects.clear();
    scene.tell(Input::Deadline);
    assert_eq!(scene.exchange.stats().reason, Some(FailureReason::ClientStalled));
    assert!(matches!(*scene.core.output.effects, [Effect::Finish(Disposition::Close)]));
}

/// RFC 9112 section 9.6: a client that may still send has to be read from behind its response.
#[test]
fn a_connection_that_is_not_kept_lingers_behind_a_response() {
    let get = |fields: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let put = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 900\r\n\r\n".to_owned();
    let linger = |client_may_send| Disposition::Linger { client_may_send };
    let table = [
        (get(""), KeepAlive::Always, "200 OK", Disposition::KeepAlive),
        (get(""), KeepAlive::Never, "200 OK", linger(true)),
        (get("Connection: close\r\n"), KeepAlive::Always, "200 OK", linger(false)),
        (put, KeepAlive::Always, "413 No", linger(true)),
    ];
    for (request, keep_alive, status, expected) in table {
        let mut scene = Scene::with_backend(Settings { keep_alive, ..settings() }, &request);
        let response = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        scene.tell(Input::Bytes(Side::Upstream, response.as_bytes()));
        scene.send(Side::Client, usize::MAX);
        scene.tell(Input::Drained(Side::Client));
        let last = scene.core.output.effects.last().copied();
        assert!(matches!(last, Some(Effect::Finish(found)) if found == expected), "{request}: {last:?}");
        assert_eq!(scene.exchange.stats().reason, None);
    }
}

#[test]
fn a_backend_that_ignores_an_expectation_gets_the_body_all_the_same() {
    let request = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";
    let mut scene = Scene::with_backend(settings(), request);
    scene.tell(Input::Bytes(Side::Upstream, b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"));
    let (_, head) = scene.send(Side::Client, usize::MAX);
    assert!(String::from_utf8_lossy(&head).contains("Connection: close\r\n"), "who was not told may send nothing");
    assert!(scene.exchange.wants(Side::Client));
    assert_eq!(scene.tell(Input::Bytes(Side::Client, b"body")), 4);
    assert_eq!(scene.send(Side::Upstream, usize::MAX).1, b"body");
}

#[test]
fn a_large_request_is_not_kept_and_not_sent_again() {
    let mut scene = Scene::with_backend(settings(), "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n");
    for _ in 0..100 {
        scene.tell(Input::Bytes(Side::Client, &[b'x'; 1000]));
        assert_eq!(scene.send(Side::Upstream, usize::MAX).0, Flushed::All);
    }
    scene.tell(Input::End(Side::Upstream));
    assert_eq!(scene.exchange.stats().reason, Some(FailureReason::UpstreamClosed));
    assert!(scene.core.output.effects.iter().all(|effect| !matches!(effect, Effect::Retry { .. })));
}

/// The answer to a PUT of which the client sends `bytes` each second, while the backend takes all of it.
fn trickled(rate: u64, bytes: usize, seconds: u32) -> Option<FailureReason> {
    let settings = Settings { min_body_rate: rate, ..settings() };
    let mut scene = Scene::with_backend(settings, "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n");
    for _ in 0..seconds {
        scene.core.now = scene.core.now + SECOND;
        scene.tell(Input::Bytes(Side::Client, &vec![b'x'; bytes]));
        scene.send(Side::Upstream, usize::MAX);
        scene.tell(Input::Drained(Side::Upstream));
    }
    scene.exchange.stats().reason
}

#[test]
fn a_body_that_trickles_in_is_given_up_after_the_patience_with_one() {
    assert_eq!(trickled(100, 99, 9), None, "the time is not over");
    assert_eq!(trickled(100, 99, 10), Some(FailureReason::BodyTooSlow));
    assert_eq!(trickled(100, 100, 60), None);
    assert_eq!(trickled(0, 1, 60), None, "any rate will do");
}

#[test]
fn a_client_does_not_pay_for_a_slow_backend() {
    let settings = Settings { min_body_rate: 100, ..settings() };
    let mut scene = Scene::with_backend(settings, "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n");
    for _ in 0..30 {
        scene.tell(Input::Bytes(Side::Client, &[b'x'; 200]));
        assert_eq!(scene.send(Side::Upstream, 1).0, Flushed::Blocked);
        scene.core.now = scene.core.now + 9 * SECOND;
        assert_eq!(scene.send(Side::Upstream, usize::MAX).0, Flushed::All);
        scene.tell(Input::Drained(Side::Upstream));
        scene.core.now = scene.core.now + SECOND;
    }
    assert_eq!(scene.exchange.stats().reason, None);
}

#[test]
fn a_response_that_is_taken_too_slowly_is_given_up() {
    for (taken, reason) in [(9, Some(FailureReason::ClientStalled)), (10, None)] {
        let settings = Settings { min_body_rate: 10, ..settings() };
        let mut scene = Scene::with_backend(settings, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let response = format!("HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{}", "x".repeat(900));
        let head_len = scene.tell(Input::Bytes(Side::Upstream, response.as_bytes()));
        scene.tell(Input::Bytes(Side::Upstream, &response.as_bytes()[head_len..]));
        scene.send(Side::Client, 0);
        for _ in 0..30 {
            scene.core.now = scene.core.now + SECOND;
            scene.send(Side::Client, taken);
            if scene.exchange.deadline() <= scene.core.now {
                scene.tell(Input::Deadline);
            }
        }
        assert_eq!(scene.exchange.stats().reason, reason, "{taken} bytes a second");
    }
}

/// A scene in which an answer with a long body has begun, and its head has left.
fn with_long_response(rate: u64) -> Scene {
    let settings = Settings { min_body_rate: rate, ..settings() };
    let mut scene = Scene::with_backend(settings, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    scene.tell(Input::Bytes(Side::Upstream, b"HTTP/1.1 200 OK\r\nContent-Length: 900000\r\n\r\n"));
    scene.send_all(Side::Client, usize::MAX);
    scene
}

#[test]
fn a_client_that_catches_up_again_and_again_is_fast_enough() {
    let mut scene = with_long_response(1000);
    for _ in 0..60 {
        scene.tell(Input::Bytes(Side::Upstream, &[b'x'; 1000]));
        assert_eq!(scene.send_all(Side::Client, 900), Flushed::Blocked);
        scene.core.now = scene.core.now + SECOND / 2;
        assert_eq!(scene.send_all(Side::Client, usize::MAX), Flushed::All);
    }
    scene.tell(Input::Bytes(Side::Upstream, &[b'x'; 1000]));
    assert_eq!(scene.send_all(Side::Client, 0), Flushed::Blocked);
    scene.core.now = scene.core.now + SECOND / 10;
    assert_eq!(scene.send_all(Side::Client, 1), Flushed::Blocked);
    assert!(scene.exchange.deadline() > scene.core.now);
    assert_eq!(scene.exchange.stats().reason, None);
}

#[test]
fn a_client_that_catches_up_too_slowly_is_given_up() {
    for (bytes, reason) in [(899, Some(FailureReason::ClientStalled)), (900, None)] {
        let mut scene = with_long_response(100);
        // What left at once makes up for one count at the most.
        for _ in 0..6 {
            scene.tell(Input::Bytes(Side::Upstream, &vec![b'x'; bytes]));
            scene.send_all(Side::Client, 0);
            scene.core.now = scene.core.now + 9 * SECOND;
            scene.send_all(Side::Client, usize::MAX);
        }
        assert_eq!(scene.exchange.stats().reason, reason, "{bytes} bytes in 9 seconds");
    }
}

const EXPECTS: &str = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 90000\r\nExpect: 100-continue\r\n\r\n";

#[test]
fn while_a_client_waits_for_a_100_it_is_the_backend_that_is_waited_for() {
    let mut scene = Scene::with_backend(Settings { retry_limit: 0, ..settings() }, EXPECTS);
    let route = Arc::clone(scene.exchange.route().expect("a route"));
    assert_eq!(scene.exchange.deadline(), scene.core.now + 20 * SECOND);
    scene.core.now = scene.exchange.deadline();
    scene.tell(Input::Deadline);
    assert_eq!(
        (scene.exchange.stats().status, scene.exchange.stats().reason),
        (504, Some(FailureReason::ResponseTimeout))
    );
    // It may have waited for the body, which a client can keep back as long as it likes.
    assert!(route.marks.iter().all(|mark| mark.ends_at(scene.core.now).is_none()), "nobody is marked dead");
}

#[test]
fn a_client_does_not_pay_for_its_wait_for_a_100() {
    for told in [true, false] {
        let mut scene = Scene::with_backend(Settings { min_body_rate: 100, ..settings() }, EXPECTS);
        scene.core.now = scene.core.now + 19 * SECOND;
        if told {
            scene.tell(Input::Bytes(Side::Upstream, b"HTTP/1.1 100 Continue\r\n\r\n"));
            scene.send_all(Side::Client, usize::MAX);
            assert_eq!(scene.exchange.deadline(), scene.core.now + 10 * SECOND, "now it is the client's turn");
        }
        for (bytes, seconds, reason) in [(100, 20, None), (99, 20, Some(FailureReason::BodyTooSlow))] {
            for _ in 0..seconds {
                scene.tell(Input::Bytes(Side::Client, &vec![b'x'; bytes]));
                scene.send_all(Side::Upstream, usize::MAX);
                scene.core.now = scene.core.now + SECOND;
            }
            assert_eq!(scene.exchange.stats().reason, reason, "{bytes} bytes a second, told: {told}");
        }
    }
}

#[test]
fn informational_responses_are_counted_for_the_request_and_not_for_each_backend() {
    let limits = Limits { informational_responses: 3, ..Limits::default() };
    let mut scene = Scene::with_backend(Settings { limits, ..settings() }, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    for _ in 0..2 {
        for _ in 0..2 {
            scene.tell(Input::Bytes(Side::Upstream, b"HTTP/1.1 102 Wait\r\n\r\n"));
            scene.send_all(Side::Client, usize::MAX);
        }
        scene.tell(Input::End(Side::Upstream));
        scene.tell(Input::Connected { reused: false });
        scene.send_all(Side::Upstream, usize::MAX);
    }
    assert_eq!(scene.exchange.stats().reason, Some(FailureReason::TooManyInformationalResponses));
}

/// Where all members are marked, one is tried all the same: the mark that it gets is no news.
#[test]
fn a_mark_is_told_once_until_half_of_its_time_is_over() {
    let route = route(1, 2);
    let mut told = Vec::new();
    for second in 0..40 {
        let mut scene = Scene::new(settings());
        scene.core.now = Moment::ZERO + second * SECOND;
        scene.tell(Input::Bytes(Side::Client, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
        scene.tell(Input::Route(Ok(Arc::clone(&route))));
        scene.tell(Input::Connected { reused: false });
        scene.tell(Input::Bytes(Side::Upstream, b"HTTP/1.1 501 No\r\nContent-Length: 0\r\n\r\n"));
        let marks = scene.core.output.effects.iter().filter(|effect| matches!(effect, Effect::MarkedDead { .. }));
        told.extend(marks.map(|_| second));
    }
    assert_eq!(told[..2], [0, 1], "both are marked");
    assert!(told[2..].iter().all(|second| *second >= 15), "{told:?}");
    assert!((4..=6).contains(&told.len()), "{told:?}");
}

/// A dial after a wait in the queue has the time of a dial, and what becomes of it is not called a wait.
#[test]
fn a_dial_behind_a_wait_is_a_dial() {
    let mut scene = Scene::new(settings());
    scene.tell(Input::Bytes(Side::Client, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    scene.tell(Input::Route(Ok(route(1, 2))));
    scene.tell(Input::Queued);
    scene.core.now = scene.core.now + 9 * SECOND;
    scene.tell(Input::Dialling);
    assert_eq!(scene.exchange.deadline(), scene.core.now + 10 * SECOND);
    for _ in 0..2 {
        scene.core.now = scene.exchange.deadline();
        scene.tell(Input::Deadline);
    }
    assert_eq!(scene.exchange.stats().reason, Some(FailureReason::ConnectTimeout));
}

/// The ports to one backend may be taken while those to another are free; that is no fault of the backend's.
#[test]
fn where_no_port_leads_to_one_backend_another_is_tried() {
    let mut scene = Scene::new(settings());
    scene.tell(Input::Bytes(Side::Client, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    let route = route(1, 2);
    scene.tell(Input::Route(Ok(Arc::clone(&route))));
    let first = scene.exchange.permit().expect("a member").place();
    scene.tell(Input::ConnectFailed(FailureReason::PortsExhausted));
    let second = scene.exchange.permit().expect("a member").place();
    assert_ne!(first, second);
    assert!(route.marks.iter().all(|mark| mark.ends_at(scene.core.now).is_none()), "nobody is marked dead");
    scene.tell(Input::ConnectFailed(FailureReason::PortsExhausted));
    assert_eq!(
        (scene.exchange.stats().status, scene.exchange.stats().reason),
        (503, Some(FailureReason::PortsExhausted))
    );
}

/// An answer of unknown length becomes chunks, as an upload does; a side whose bytes stay as they are grows by nothing.
#[test]
fn what_a_body_grows_by_is_known_before() {
    let upload = "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let scene = Scene::with_backend(settings(), upload);
    assert_eq!([Side::Client, Side::Upstream].map(|side| scene.exchange.framing(side, 255)), [6, 0]);

    let mut scene = Scene::with_backend(settings(), "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    scene.tell(Input::Bytes(Side::Upstream, b"HTTP/1.1 200 OK\r\n\r\n"));
    scene.send(Side::Client, usize::MAX);
    for size in [1, 15, 16, 255, 256] {
        let framing = scene.exchange.framing(Side::Upstream, size);
        scene.tell(Input::Bytes(Side::Upstream, &vec![b'x'; size]));
        assert_eq!(scene.send(Side::Client, usize::MAX).1.len(), size + framing, "{size}");
        assert!(framing > 4, "{size}");
        assert_eq!(scene.exchange.framing(Side::Client, size), 0);
    }
}

/// A silent backend ends a response by the limit that applies to it, and that one is named.
#[test]
fn a_stalled_response_names_the_limit_that_has_ended_it() {
    for (fields, expected) in [
        ("Transfer-Encoding: chunked", "server.streamTimeout (3600s)"),
        ("Content-Length: 9", "server.bodyTimeout (10s)"),
    ] {
        let mut scene = Scene::with_backend(settings(), "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        scene.tell(Input::Bytes(Side::Upstream, format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n").as_bytes()));
        scene.send_all(Side::Client, usize::MAX);
        scene.core.now = scene.exchange.deadline();
        scene.tell(Input::Deadline);
        assert_eq!(scene.exchange.stats().reason, Some(FailureReason::UpstreamStalled), "{fields}");
        let ended_by = scene.exchange.ended_by(&scene.core.settings).map(|limit| limit.to_string());
        assert_eq!(ended_by.as_deref(), Some(expected));
    }
}
