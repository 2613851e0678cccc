//! Bytes of a frontend with a rate: a side pauses, and nobody is waited for meanwhile.

use super::*;
use sluice::cluster::{Backend, BackendId, BackendUrl, Cluster, ClusterSpec, Options, Route};
use std::time::Duration;

/// A route to one backend with these options.
fn paced_route(pairs: &[(&str, &str)]) -> Arc<Route> {
    let (options, errors) = Options::read(pairs.iter().copied(), &Options::default());
    assert_eq!(errors, []);
    let url = BackendUrl::parse("http://10.0.0.1").expect("a good URL");
    let backend = Arc::new(Backend::new(BackendId::new(1), url.endpoint().clone()));
    let spec =
        ClusterSpec { created: 0, key: "a", id: "site", entries: vec![(&url, backend)], options: &Arc::new(options) };
    Arc::new(Route::new("a", Cluster::edit(None, spec, Moment::ZERO)))
}

/// A scene in which the head of `request` has been sent to the backend of this route.
fn scene(route: &Arc<Route>, settings: Settings, request: &str) -> Scene {
    let mut scene = Scene::new(settings);
    assert_eq!(scene.tell(Input::Bytes(Side::Client, request.as_bytes())), request.len());
    scene.tell(Input::Route(Ok(Arc::clone(route))));
    scene.tell(Input::Connected { reused: false });
    assert_eq!(scene.send_all(Side::Upstream, usize::MAX), Flushed::All);
    scene
}

/// Lets time pass up to the deadline, and tells the exchange.
fn look(scene: &mut Scene) -> Duration {
    let before = scene.core.now;
    scene.core.now = scene.exchange.deadline();
    scene.tell(Input::Deadline);
    scene.core.now.since(before)
}

/// Lets time pass up to the end of a pause. The exchange looks once a second whether that comes earlier.
fn wait(scene: &mut Scene) -> Duration {
    let wanted = |scene: &Scene| [Side::Client, Side::Upstream].map(|side| scene.exchange.wants(side));
    let (before, paused) = (scene.core.now, wanted(scene));
    for _ in 0..1000 {
        assert!(look(scene) <= SECOND, "a pause");
        if wanted(scene) != paused {
            return scene.core.now.since(before);
        }
    }
    panic!("a pause without an end")
}

#[test]
fn a_download_pauses_until_its_bytes_are_paid_for() {
    let route = paced_route(&[("bytesPerSecond.out", "1024")]);
    let mut scene = scene(&route, settings(), "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(scene.exchange.wants(Side::Upstream));
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n";
    scene.tell(Input::Bytes(Side::Upstream, head.as_bytes()));
    assert_eq!(scene.send_all(Side::Client, usize::MAX), Flushed::All);
    let (mut left, mut waited) = (100_000, Duration::ZERO);
    while left > 0 {
        assert!(scene.exchange.wants(Side::Upstream), "{left} bytes are left");
        let piece = vec![b'x'; left.min(16_384)];
        // Small enough to be copied into the output.
        piece.chunks(1000).for_each(|part| _ = scene.tell(Input::Bytes(Side::Upstream, part)));
        assert_eq!(scene.send_all(Side::Client, usize::MAX), Flushed::All);
        left -= piece.len();
        if left > 0 && !scene.exchange.wants(Side::Upstream) {
            let pause = wait(&mut scene);
            // Much longer than the 10 s that a backend may be silent; those begin anew behind the pause.
            waited += pause;
            assert_eq!(scene.exchange.deadline(), scene.core.now + 10 * SECOND, "after a pause of {pause:?}");
        }
    }
    assert_eq!(scene.exchange.stats().reason, None);
    // 100,000 bytes, without the burst of 16 KiB; with what is paid in advance, and without the last read, which is not waited for.
    let expected = (100_000 - 16_384) / 1024;
    assert!((expected - 3..=expected + 5).contains(&waited.as_secs()), "{waited:?} where it is {expected} s");
    drop(scene);
    let (bytes, waits) = route.cluster.admission.rates.bytes_out.totals();
    assert_eq!(bytes, 100_000 + head.len() as u64, "the advance is given back");
    assert!(waits > 3);
}

#[test]
fn a_raise_of_the_rate_ends_a_pause() {
    let route = paced_route(&[("bytesPerSecond.out", "1024")]);
    let mut scene = scene(&route, settings(), "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    scene.tell(Input::Bytes(Side::Upstream, b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"));
    (0..60).for_each(|_| _ = scene.tell(Input::Bytes(Side::Upstream, &[b'x'; 1000])));
    assert_eq!(scene.send_all(Side::Client, usize::MAX), Flushed::All);
    for _ in 0..20 {
        assert!(
            look(&mut scene) <= SECOND && !scene.exchange.wants(Side::Upstream),
            "it lasts for more than half a minute"
        );
        assert_eq!(scene.exchange.stats().reason, None);
    }
    route.cluster.admission.rates.bytes_out.set_rate(1_000_000, scene.core.now);
    assert!(look(&mut scene) <= SECOND && scene.exchange.wants(Side::Upstream));
    assert_eq!(scene.exchange.deadline(), scene.core.now + 10 * SECOND, "and the backend has its whole time");
}

#[test]
fn an_upload_pauses_and_the_client_is_not_too_slow_for_it() {
    let route = paced_route(&[("bytesPerSecond.in", "2048")]);
    let mut scene = scene(
        &route,
        Settings { min_body_rate: 100_000, ..settings() },
        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n",
    );
    let mut pauses = 0;
    for _ in 0..60 {
        assert_eq!(scene.tell(Input::Bytes(Side::Client, &[b'x'; 1000])), 1000);
        assert_eq!(scene.send_all(Side::Upstream, usize::MAX), Flushed::All);
        if !scene.exchange.wants(Side::Client) && pauses < 60 {
            assert!(scene.exchange.wants(Side::Upstream), "an early response is heard");
            if scene.exchange.deadline() <= scene.core.now + SECOND {
                pauses += 1;
                wait(&mut scene);
            }
        }
    }
    assert!(pauses > 5, "{pauses}");
    assert_eq!(scene.exchange.stats().reason, None);
    let response = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    scene.tell(Input::Bytes(Side::Upstream, response.as_bytes()));
    assert_eq!(scene.exchange.stats().status, 200);
}

#[test]
fn a_new_request_waits_for_the_bytes_of_those_before() {
    let route = paced_route(&[("bytesPerSecond.out", "1024")]);
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut first = scene(&route, settings(), get);
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n";
    first.tell(Input::Bytes(Side::Upstream, head.as_bytes()));
    (0..50).for_each(|_| _ = first.tell(Input::Bytes(Side::Upstream, &[b'x'; 1000])));
    let mut second = scene(&route, settings(), get);
    assert!(!second.exchange.wants(Side::Upstream));
    // 50,000 bytes, less the burst: longer than the 20 s that a backend has for its response, which begin behind the pause.
    let pause = wait(&mut second);
    assert!((32..45).contains(&pause.as_secs()), "{pause:?}");
    assert!(second.exchange.wants(Side::Upstream));
    assert_eq!(second.exchange.deadline(), second.core.now + 20 * SECOND);
}

#[test]
fn a_tunnel_is_paced_in_both_directions() {
    let route = paced_route(&[("bytesPerSecond.in", "1024"), ("bytesPerSecond.out", "1024")]);
    let fields = "Connection: upgrade\r\nUpgrade: x\r\n\r\n";
    let mut scene = scene(&route, settings(), &format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}"));
    let response = format!("HTTP/1.1 101 Switching Protocols\r\n{fields}");
    scene.tell(Input::Bytes(Side::Upstream, response.as_bytes()));
    assert_eq!(scene.send_all(Side::Client, usize::MAX), Flushed::All);
    for side in [Side::Client, Side::Upstream] {
        let mut passed = 0;
        while scene.exchange.wants(side) {
            passed += scene.tell(Input::Bytes(side, &[b'x'; 1000]));
            assert_eq!(scene.send_all(side.other(), usize::MAX), Flushed::All);
        }
        assert!((12_000..25_000).contains(&passed), "{side:?}: {passed}");
        assert!(scene.exchange.wants(side.other()) || side == Side::Upstream, "the other direction has its own rate");
    }
    while !(scene.exchange.wants(Side::Client) && scene.exchange.wants(Side::Upstream)) {
        wait(&mut scene);
    }
    assert_eq!(scene.exchange.deadline(), Moment::NEVER, "an idle tunnel stays");
}

#[test]
fn a_request_beyond_the_rate_waits_for_its_turn() {
    let route = paced_route(&[("requestsPerSecond", "1"), ("queueLimit", "2")]);
    let mut scenes: Vec<_> = (0..4)
        .map(|_| {
            let mut scene = Scene::new(settings());
            scene.tell(Input::Bytes(Side::Client, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
            scene.core.output.effects.clear();
            scene.tell(Input::Route(Ok(Arc::clone(&route))));
            scene
        })
        .collect();
    let connects = |scene: &Scene| matches!(*scene.core.output.effects, [Effect::Connect { .. }]);
    assert!(connects(&scenes[0]));
    for scene in &scenes[1..3] {
        assert!(scene.core.output.effects.is_empty());
        assert_eq!(scene.exchange.deadline(), Moment::ZERO + SECOND, "its turn, or a look for an earlier one");
    }
    assert_eq!(scenes[3].exchange.stats().reason, Some(FailureReason::QueueFull));
    let waits = &mut scenes[1];
    waits.core.now = waits.exchange.deadline();
    waits.tell(Input::Deadline);
    assert!(connects(waits));
    scenes[2].core.now = scenes[2].exchange.deadline();
    scenes[2].tell(Input::Deadline);
    assert!(scenes[2].core.output.effects.is_empty());
    assert_eq!(scenes[2].exchange.deadline(), Moment::ZERO + 2 * SECOND);
    scenes[2].tell(Input::End(Side::Client));
    assert_eq!(scenes[2].exchange.stats().reason, Some(FailureReason::ClientGone));
    assert_eq!((route.cluster.admission.queued(), route.cluster.admission.dropped()), (2, 1));
}

#[test]
fn a_client_that_could_not_send_its_first_byte_is_not_too_slow() {
    let route = paced_route(&[("bytesPerSecond.in", "1024")]);
    let settings = Settings { min_body_rate: 1000, ..settings() };
    let put = |length| format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
    let mut first = scene(&route, settings.clone(), &put(50_000));
    (0..50).for_each(|_| assert_eq!(first.tell(Input::Bytes(Side::Client, &[b'x'; 1000])), 1000));
    let mut second = scene(&route, settings, &put(100));
    assert!(!second.exchange.wants(Side::Client));
    let pause = wait(&mut second);
    assert!(pause > 30 * SECOND, "{pause:?} of 10 s in which 1000 bytes a second have to come");
    assert_eq!(second.tell(Input::Bytes(Side::Client, &[b'x'; 50])), 50);
    assert_eq!(second.send_all(Side::Upstream, usize::MAX), Flushed::All);
    assert_eq!(second.exchange.stats().reason, None);
    // From then on it is as slow as ever.
    second.core.now = second.core.now + 11 * SECOND;
    second.tell(Input::Bytes(Side::Client, b"x"));
    assert_eq!(second.exchange.stats().reason, Some(FailureReason::BodyTooSlow));
}

#[test]
fn a_pause_of_a_side_that_is_done_delays_no_time_out() {
    let route = paced_route(&[("bytesPerSecond.out", "1024")]);
    let mut scene = scene(&route, settings(), "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n";
    scene.tell(Input::Bytes(Side::Upstream, head.as_bytes()));
    (0..60).for_each(|_| _ = scene.tell(Input::Bytes(Side::Upstream, &[b'x'; 1000])));
    assert_eq!(scene.send(Side::Client, 100).0, Flushed::Blocked);
    assert!(scene.exchange.deadline() <= scene.core.now + 10 * SECOND, "it is the client that is waited for");
    scene.core.now = scene.exchange.deadline();
    scene.tell(Input::Deadline);
    assert_eq!(scene.exchange.stats().reason, Some(FailureReason::ClientStalled));
}
