//! SIGTERM and SIGINT: what is under way comes to its end, nothing new begins, exit 0.

use crate::support::backend::Backend;
use crate::support::client::Client;
use crate::support::message::How;
use crate::support::proxy::{Proxy, Setup};
use crate::support::{Gate, HOST, canned, until};
use nix::sys::signal::Signal;
use sluice::base::clock::{Clock, Moment};
use std::sync::Arc;
use std::time::Duration;

/// A backend that answers when the gate is open, and the gate.
fn held() -> (Backend, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let inner = Arc::clone(&gate);
    let backend = Backend::serve(move |_, conn| {
        inner.pass();
        conn.send(canned::ok("finished"));
    });
    (backend, gate)
}

#[track_caller]
fn stop(proxy: &Proxy, signal: Signal) {
    proxy.signal(signal);
    until("the proxy takes no new connections", || !proxy.accepts());
}

#[test]
fn a_proxy_with_nothing_to_do_ends_at_once() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut proxy = Setup::new().set("drainTimeout", 60).start();
        stop(&proxy, signal);
        assert_eq!(proxy.until_exit().code(), Some(0), "after {signal}");
    }
}

#[test]
fn requests_finish() {
    let (backend, gate) = held();
    let mut proxy = Setup::for_backends([backend.url()]).set("drainTimeout", 60).start();
    let mut client = proxy.client();
    client.send(canned::get(HOST, "/"));
    backend.until_heads(1);
    stop(&proxy, Signal::SIGTERM);
    gate.open();
    let response = client.response_to("GET");
    response.expect_ok("finished");
    assert!(response.head.lists("connection", "close"), "in {}", response.head);
    client.expect_closed();
    assert_eq!(proxy.until_exit().code(), Some(0));
}

#[test]
fn a_body_that_is_on_its_way_finishes() {
    let backend = Backend::serve(|request, conn| conn.send(canned::ok(&String::from_utf8_lossy(&request.body))));
    let mut proxy = Setup::for_backends([backend.url()]).set("drainTimeout", 60).start();
    let mut client = proxy.client();
    client.send(format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 10\r\n\r\nfirst"));
    backend.until_heads(1);
    stop(&proxy, Signal::SIGTERM);
    client.send("-last");
    client.response_to("POST").expect_ok("first-last");
    assert_eq!(proxy.until_exit().code(), Some(0));
}

#[test]
fn idle_connections_are_closed() {
    let backend = Backend::always(canned::ok("ok"));
    let mut proxy = Setup::for_backends([backend.url()]).set("drainTimeout", 60).start();
    let mut client = proxy.client();
    client.get(HOST, "/").expect_ok("ok");
    stop(&proxy, Signal::SIGTERM);
    client.expect_closed();
    assert_eq!(proxy.until_exit().code(), Some(0));
}

#[test]
fn what_does_not_finish_is_ended() {
    let (backend, gate) = held();
    let mut proxy = Setup::for_backends([backend.url()]).set("drainTimeout", 0.3).start();
    let mut client = proxy.client();
    client.send(canned::get(HOST, "/"));
    backend.until_heads(1);
    let clock = Clock::new();
    let ordered = clock.now();
    proxy.signal(Signal::SIGTERM);
    assert_eq!(proxy.until_exit().code(), Some(0));
    let took = clock.now().since(ordered);
    assert!(took >= Duration::from_millis(300), "ended after {took:?}, before its time");
    match client.try_response_to("GET") {
        Ok(response) => assert_eq!(response.status(), 503, "in {}", response.head),
        Err(ended) => assert!(matches!(ended.how, How::Closed | How::Reset), "{ended}"),
    }
    gate.open();
}

#[test]
fn a_request_that_is_ended_has_its_line_in_the_log() {
    let (backend, gate) = held();
    let setup = Setup::for_backends([backend.url()]).set("drainTimeout", 0).with_access_log();
    let mut proxy = setup.start();
    let mut whole = proxy.client();
    whole.send(canned::get(HOST, "/whole"));
    let mut half = proxy.client();
    half.send(format!("POST /half HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 9\r\n\r\nhalf"));
    backend.until_heads(2);
    proxy.signal(Signal::SIGTERM);
    assert_eq!(whole.response_to("GET").status(), 503);
    assert_eq!(half.response_to("POST").status(), 503);
    assert_eq!(proxy.until_exit().code(), Some(0));
    let log = proxy.read("access.log");
    for request in ["GET /whole", "POST /half"] {
        assert!(log.contains(&format!("\"{request} HTTP/1.1\" 503 ")), "{request} in {log:?}");
    }
    gate.open();
}

const ASKING: &str = "GET / HTTP/1.1\r\nHost: www.example.com\r\nConnection: Upgrade\r\nUpgrade: lines\r\n\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: lines\r\n\r\n";

/// A backend that switches protocols, says back the first byte it hears and then waits for the end.
fn tunnelling() -> Backend {
    Backend::raw(|conn| {
        if conn.head().is_some() {
            conn.send(SWITCHED);
            let heard = conn.bytes(1);
            conn.send(heard);
            conn.bytes(u64::MAX);
        }
    })
}

#[test]
fn tunnels_finish() {
    let backend = tunnelling();
    let mut proxy = Setup::for_backends([backend.url()]).set("drainTimeout", 60).start();
    let mut client = proxy.client();
    client.send(ASKING);
    assert_eq!(client.head().status(), 101);
    stop(&proxy, Signal::SIGTERM);
    client.send("x");
    assert_eq!(client.bytes(1), b"x");
    client.finish_writing();
    client.expect_closed();
    assert_eq!(proxy.until_exit().code(), Some(0));
}

#[test]
fn a_tunnel_that_does_not_finish_is_ended() {
    let backend = tunnelling();
    let mut proxy = Setup::for_backends([backend.url()]).set("drainTimeout", 0.3).start();
    let mut client = proxy.client();
    client.send(ASKING);
    assert_eq!(client.head().status(), 101);
    proxy.signal(Signal::SIGTERM);
    assert_eq!(proxy.until_exit().code(), Some(0));
    let (bytes, how) = client.rest();
    assert!(bytes.is_empty() && matches!(how, How::Closed | How::Reset), "{how:?} after {bytes:?}");
}

/// A WebSocket client is told that the node goes away, and a tunnel of another protocol just ends.
#[test]
fn clients_of_websocket_are_told_of_a_stop_one_by_one() {
    const TUNNELS: usize = 40;
    let backend = Backend::raw(|conn| {
        if conn.head().is_some() {
            conn.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\x01\x01a");
            conn.bytes(u64::MAX);
        }
    });
    let mut proxy = Setup::for_backends([backend.url()]).set("drainTimeout", 2).start();
    let mut clients: Vec<_> = (0..TUNNELS)
        .map(|_| {
            let mut client = proxy.client();
            client.send(ASKING.replace("lines", "websocket"));
            assert_eq!(client.head().status(), 101);
            assert_eq!(client.bytes(3), b"\x01\x01a");
            client
        })
        .collect();
    let clock = Clock::new();
    proxy.signal(Signal::SIGTERM);
    let mut moments: Vec<Moment> = std::thread::scope(|scope| {
        let told = |client: &mut Client| {
            assert_eq!(client.bytes(4), [0x88, 2, 0x03, 0xe9]);
            clock.now()
        };
        let threads: Vec<_> = clients.iter_mut().map(|client| scope.spawn(move || told(client))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a moment")).collect()
    });
    moments.sort_unstable();
    let (first, last) = (moments[0], moments[TUNNELS - 1]);
    assert!(first.since(Moment::ZERO) >= Duration::from_millis(1400), "{first:?}: not before three quarters");
    assert!(last.since(first) > Duration::from_millis(200), "from {first:?} to {last:?}: over the last quarter");
    drop(clients);
    assert_eq!(proxy.until_exit().code(), Some(0));
}
