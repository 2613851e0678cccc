//! Scenes of tunnels, and of what is left of them.

use super::*;

/// The backend of a tunnel has gone in the middle of a frame. Whatever else passes, the frame has one patience to end.
#[test]
fn a_tunnel_that_retires_has_its_time_whatever_the_client_sends() {
    let mut scene = Scene::with_tunnel("websocket");
    scene.tell(Input::Bytes(Side::Upstream, &[0x81, 9, b'h']));
    assert_eq!(scene.send_all(Side::Client, usize::MAX), Flushed::All);
    assert_eq!(scene.exchange.deadline(), Moment::NEVER);
    for _ in 0..3 {
        scene.tell(Input::Abort(FailureReason::BackendRemoved));
        scene.tell(Input::Bytes(Side::Client, b"anything"));
        assert_eq!(scene.send_all(Side::Upstream, usize::MAX), Flushed::All);
        scene.tell(Input::Bytes(Side::Upstream, b"e"));
        assert_eq!(scene.send_all(Side::Client, usize::MAX), Flushed::All);
        assert_eq!(scene.exchange.deadline(), Moment::ZERO + 10 * SECOND);
        scene.core.now = scene.core.now + 3 * SECOND;
    }
    scene.tell(Input::Deadline);
    assert_eq!(scene.exchange.stats().reason, Some(FailureReason::BackendRemoved));
}

/// The stream of a tunnel's backend was cut, and it takes what is left for it slowly: that is no tunnel any more.
#[test]
fn what_is_left_of_a_broken_tunnel_has_the_time_of_a_body() {
    let mut scene = Scene::with_tunnel("lines");
    scene.tell(Input::Bytes(Side::Client, b"much"));
    assert_eq!(scene.send_all(Side::Upstream, 1), Flushed::Blocked);
    scene.tell(Input::Broken(Side::Upstream));
    scene.core.now = scene.core.now + SECOND;
    assert_eq!(scene.send_all(Side::Upstream, 1), Flushed::Blocked);
    assert_eq!(scene.exchange.deadline(), Moment::ZERO + 11 * SECOND);
    assert_eq!(scene.send_all(Side::Upstream, usize::MAX), Flushed::All);
    assert!(scene.core.output.effects.iter().any(|effect| matches!(effect, Effect::Release { .. })), "it is over");
}

#[test]
fn a_tunnel_without_a_timeout_waits_for_ever() {
    let mut scene = Scene::with_tunnel("websocket");
    assert_eq!(scene.exchange.deadline(), Moment::NEVER);
    scene.core.settings.tunnel_timeout = Some(60 * SECOND);
    scene.tell(Input::Bytes(Side::Client, b"hello"));
    assert_eq!(scene.exchange.deadline(), scene.core.now + 60 * SECOND);
    assert_eq!(scene.send(Side::Upstream, 2), (Flushed::Blocked, b"he".to_vec()));
    scene.core.now = scene.core.now + 30 * SECOND;
    assert_eq!(scene.send(Side::Upstream, usize::MAX), (Flushed::All, b"llo".to_vec()));
    assert_eq!(scene.exchange.deadline(), scene.core.now + 60 * SECOND, "bytes that leave count too");
}

/// Both sides have said their last word, and the client does not take the backend's: that ends, however long a tunnel may be
/// idle.
#[test]
fn what_is_left_of_a_tunnel_does_not_wait_for_ever() {
    let mut scene = Scene::with_tunnel("websocket");
    scene.tell(Input::End(Side::Client));
    scene.tell(Input::Bytes(Side::Upstream, b"farewell"));
    assert_eq!(scene.send(Side::Client, 4).0, Flushed::Blocked);
    assert_eq!(scene.exchange.deadline(), Moment::NEVER, "the backend may go on");
    scene.tell(Input::End(Side::Upstream));
    assert_eq!(scene.exchange.deadline(), scene.core.now + scene.core.settings.body_timeout);
    scene.core.now = scene.core.now + SECOND;
    assert_eq!(scene.send(Side::Client, 1).0, Flushed::Blocked);
    assert_eq!(scene.exchange.deadline(), scene.core.now + scene.core.settings.body_timeout, "it takes some");
    scene.core.now = scene.exchange.deadline();
    scene.tell(Input::Deadline);
    assert!(matches!(scene.core.output.effects.last(), Some(Effect::Finish(Disposition::Close))));
}

#[test]
fn a_tunnel_may_be_as_slow_as_it_likes() {
    let settings = Settings { min_body_rate: 100, ..settings() };
    let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let mut scene = Scene::with_backend(settings, request);
    scene.tell(Input::Bytes(Side::Upstream, b"HTTP/1.1 101 OK\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"));
    scene.send(Side::Client, 0);
    for _ in 0..30 {
        scene.core.now = scene.core.now + SECOND;
        assert_eq!(scene.send(Side::Client, 1).0, Flushed::Blocked);
        assert_eq!(scene.exchange.deadline(), Moment::NEVER);
    }
}

/// The memory of a request that has become a tunnel is used again by a later request of the same core.
#[test]
fn a_request_after_a_tunnel_has_its_own_client() {
    let mut scene = Scene::with_tunnel("x");
    let long = "y".repeat(200);
    for _ in 0..2 {
        let Scene { core, exchange } = &mut scene;
        exchange.step(Input::Broken(Side::Client), 0, core);
        exchange.recycle(&mut core.buffers, &mut core.request_pool);
        *exchange = Exchange::new(peer(), core.now, &core.settings);
        scene.tell(Input::Bytes(Side::Client, format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()));
        let chain = scene.exchange.request().map(|request| request.forwarded_for().to_vec());
        assert_eq!(chain.as_deref(), Some(&b"192.0.2.7"[..]));
    }
}
