//! Connections and the order of messages: keep-alive, pools, pipelines, interim answers, closing.
//!
//! What becomes of the bytes of a message is in `matrix`; large bodies are in `bulk`.

use crate::support::backend::Backend;
use crate::support::client::Client;
use crate::support::message::{Framing, How};
use crate::support::proxy::Setup;
use crate::support::{Gate, HOST, canned, until, worker_has_caught_up};
use std::sync::Arc;

/// A backend that answers each request with its target.
fn echo_of_target() -> Backend {
    Backend::serve(|request, conn| conn.send(canned::ok(request.head.target())))
}

#[test]
fn connections_are_kept_on_both_sides() {
    let backend = echo_of_target();
    let proxy = Setup::for_backends([backend.url()]).workers(1).start();
    let mut client = proxy.client();
    for turn in 0..20 {
        client.get(HOST, &format!("/{turn}")).expect_ok(&format!("/{turn}"));
    }
    assert_eq!((backend.requests().len(), backend.connections()), (20, 1));
}

#[test]
fn clients_one_after_the_other_share_an_upstream_connection() {
    let backend = echo_of_target();
    let proxy = Setup::for_backends([backend.url()]).workers(1).start();
    for turn in 0..5 {
        proxy.client().get(HOST, &format!("/{turn}")).expect_ok(&format!("/{turn}"));
    }
    assert_eq!(backend.connections(), 1);
}

#[test]
fn clients_at_the_same_time_have_upstream_connections_of_their_own() {
    let gate = Arc::new(Gate::default());
    let inner = Arc::clone(&gate);
    let backend = Backend::serve(move |request, conn| {
        inner.pass();
        conn.send(canned::ok(request.head.target()));
    });
    let proxy = Setup::for_backends([backend.url()]).workers(1).start();
    let mut clients: Vec<Client> = (0..5).map(|_| proxy.client()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(canned::get(HOST, &format!("/{number}")));
    }
    backend.until_heads(5);
    assert_eq!(backend.connections(), 5);
    gate.open();
    for (number, client) in clients.iter_mut().enumerate() {
        client.response_to("GET").expect_ok(&format!("/{number}"));
    }
}

#[test]
fn idle_upstream_connections_are_closed_in_time() {
    let backend = echo_of_target();
    let proxy = Setup::for_backends([backend.url()]).set("upstreamIdleTimeout", 0.1).start();
    let mut client = proxy.client();
    client.get(HOST, "/1").expect_ok("/1");
    until("the idle upstream connection is closed", || backend.open_connections() == 0);
    client.get(HOST, "/2").expect_ok("/2");
    assert_eq!(backend.connections(), 2);
}

#[test]
fn pipelined_requests_are_served_in_order() {
    let backend = echo_of_target();
    let proxy = Setup::for_backends([backend.url()]).start();
    let targets: Vec<String> = (0..10).map(|turn| format!("/{turn}")).collect();
    let whole: String = targets.iter().map(|target| canned::get(HOST, target)).collect();
    let mut client = proxy.client();
    client.send(whole);
    targets.iter().for_each(|target| client.response_to("GET").expect_ok(target));
}

#[test]
fn pipelined_requests_with_bodies_are_told_apart() {
    let backend = Backend::serve(|request, conn| conn.send(canned::ok(&String::from_utf8_lossy(&request.body))));
    let proxy = Setup::for_backends([backend.url()]).start();
    let chunked = format!("PUT / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n");
    let head_only = format!("HEAD / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let parts = [canned::post(HOST, "/", "one"), chunked, head_only, canned::post(HOST, "/", "four")];
    for bytewise in [false, true] {
        let mut client = proxy.client();
        if bytewise {
            client.send_bytewise(parts.concat());
        } else {
            client.send(parts.concat());
        }
        client.response_to("POST").expect_ok("one");
        client.response_to("PUT").expect_ok("two");
        assert_eq!(client.response_to("HEAD").status(), 200);
        client.response_to("POST").expect_ok("four");
    }
}

#[test]
fn pipelined_requests_go_to_the_hosts_they_name() {
    let (left, right) = (Backend::always(canned::ok("left")), Backend::always(canned::ok("right")));
    let proxy = Setup::new().route("left.test", [left.url()]).route("right.test", [right.url()]).start();
    let mut client = proxy.client();
    client
        .send([canned::get("left.test", "/"), canned::get("right.test", "/"), canned::get("left.test", "/")].concat());
    for expected in ["left", "right", "left"] {
        client.response_to("GET").expect_ok(expected);
    }
}

#[test]
fn a_request_that_ends_the_connection_is_the_last_of_its_pipeline() {
    let backend = echo_of_target();
    let proxy = Setup::for_backends([backend.url()]).start();
    let mut client = proxy.client();
    let last = format!("GET /last HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    client.send([canned::get(HOST, "/first"), last, canned::get(HOST, "/never")].concat());
    client.response_to("GET").expect_ok("/first");
    let response = client.response_to("GET");
    response.expect_ok("/last");
    assert!(response.head.lists("connection", "close"), "in {}", response.head);
    client.expect_closed();
    assert_eq!(backend.requests().len(), 2);
}

#[test]
fn keep_alive_can_be_switched_off() {
    let backend = echo_of_target();
    let proxy = Setup::for_backends([backend.url()]).set("httpKeepAlive", false).start();
    let mut client = proxy.client();
    let response = client.get(HOST, "/");
    response.expect_ok("/");
    assert!(response.head.lists("connection", "close"), "in {}", response.head);
    client.expect_closed();
}

#[test]
fn a_backend_that_closes_does_not_close_the_client() {
    let backend = Backend::closing("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
    let proxy = Setup::for_backends([backend.url()]).start();
    let mut client = proxy.client();
    for _ in 0..5 {
        let response = client.get(HOST, "/");
        response.expect_ok("ok");
        assert!(!response.head.lists("connection", "close"), "in {}", response.head);
    }
    assert_eq!(backend.connections(), 5);
}

#[test]
fn http_1_0_clients_are_closed_unless_they_ask() {
    let backend = echo_of_target();
    let proxy = Setup::for_backends([backend.url()]).start();
    let mut client = proxy.client();
    let asking = format!("GET /a HTTP/1.0\r\nHost: {HOST}\r\nConnection: keep-alive\r\n\r\n");
    for _ in 0..2 {
        let response = client.exchange(&asking);
        response.expect_ok("/a");
        assert!(response.head.lists("connection", "keep-alive"), "in {}", response.head);
    }
    client.exchange(format!("GET /b HTTP/1.0\r\nHost: {HOST}\r\n\r\n")).expect_ok("/b");
    client.expect_closed();
    let versions: Vec<bool> = backend.requests().iter().map(|it| it.head.start.ends_with(" HTTP/1.1")).collect();
    assert_eq!(versions, [true; 3], "the proxy speaks 1.1 to its backends");
}

#[test]
fn chunks_are_undone_for_http_1_0_clients() {
    let backend = Backend::always(canned::chunked(&["Wi", "ki", "pedia"]));
    let proxy = Setup::for_backends([backend.url()]).start();
    let mut client = proxy.client();
    let response = client.exchange(format!("GET / HTTP/1.0\r\nHost: {HOST}\r\nConnection: keep-alive\r\n\r\n"));
    response.expect_ok("Wikipedia");
    assert_eq!(response.framing, Framing::UntilClose, "in {}", response.head);
    assert!(!response.head.lists("connection", "keep-alive"), "in {}", response.head);
}

#[test]
fn informational_responses_pass_before_the_final_one() {
    let backend = Backend::always(
        [b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n".to_vec(), canned::ok("done")].concat(),
    );
    let proxy = Setup::for_backends([backend.url()]).start();
    let mut client = proxy.client();
    for _ in 0..2 {
        let response = client.get(HOST, "/");
        response.expect_ok("done");
        assert_eq!(response.informational.len(), 1, "interim answers: {:?}", response.informational);
        assert_eq!(response.informational[0].status(), 103);
        assert_eq!(response.informational[0].get("link"), Some("</style.css>; rel=preload"));
    }
    let response = client.exchange(format!("GET / HTTP/1.0\r\nHost: {HOST}\r\n\r\n"));
    response.expect_ok("done");
    assert!(response.informational.is_empty(), "HTTP/1.0 knows no interim answers: {:?}", response.informational);
}

#[test]
fn a_client_that_expects_100_sends_its_body_after_it() {
    let backend = Backend::raw(|conn| {
        while let Some(head) = conn.head() {
            assert!(head.lists("expect", "100-continue"), "in {head}");
            conn.send("HTTP/1.1 100 Continue\r\n\r\n");
            let mut body = Vec::new();
            let ended = conn.body(&head, &mut |piece| body.extend_from_slice(piece));
            ended.expect("the body after the 100");
            conn.send(canned::ok(&String::from_utf8_lossy(&body)));
        }
    });
    let proxy = Setup::for_backends([backend.url()]).start();
    let mut client = proxy.client();
    for _ in 0..2 {
        client.send(format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"));
        assert_eq!(client.head().status(), 100);
        client.send("hello");
        client.response_to("POST").expect_ok("hello");
    }
}

#[test]
fn a_refused_expectation_is_a_response_without_a_body_sent() {
    let backend = Backend::raw(|conn| {
        if conn.head().is_some() {
            conn.send("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
        }
    });
    let proxy = Setup::for_backends([backend.url()]).start();
    let mut client = proxy.client();
    let response = client
        .exchange(format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"));
    assert_eq!((response.status(), response.text().as_str()), (417, "no"));
}

#[test]
fn a_half_closed_client_still_gets_its_response_where_that_is_set() {
    for request in [canned::get(HOST, "/"), canned::post(HOST, "/", "body")] {
        let gate = Arc::new(Gate::default());
        let inner = Arc::clone(&gate);
        let backend = Backend::serve(move |_, conn| {
            inner.pass();
            conn.send(canned::ok("late"));
        });
        let setup = Setup::for_backends([backend.url()]).set("onClientAbort", "ignore");
        let proxy = setup.workers(1).start();
        let mut client = proxy.client();
        client.send(request);
        client.finish_writing();
        worker_has_caught_up(&proxy);
        gate.open();
        client.response_to("GET").expect_ok("late");
        client.expect_closed();
    }
}

#[test]
fn a_client_that_closes_in_the_middle_of_its_body_completes_no_request() {
    let (heard, hearing) = std::sync::mpsc::channel();
    let heard = std::sync::Mutex::new(heard);
    let backend = Backend::raw(move |conn| {
        let Some(head) = conn.head() else { return };
        let ended = conn.body(&head, &mut |_| ());
        // The test may be over by then.
        let _ = heard.lock().expect("no panic").send(ended);
    });
    let proxy = Setup::for_backends([backend.url()]).start();
    let mut client = proxy.client();
    client.send(format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 10\r\n\r\nhalf"));
    backend.until_heads(1);
    client.finish_writing();
    let ended = hearing.recv_timeout(crate::support::PATIENCE).expect("the backend sees the end");
    assert!(matches!(ended, Err(How::Closed | How::Reset)), "the body must not seem complete: {ended:?}");
}

#[test]
fn an_idle_client_is_closed_in_time() {
    let backend = echo_of_target();
    let proxy = Setup::for_backends([backend.url()]).set("idleTimeout", 0.1).start();
    let mut client = proxy.client();
    client.get(HOST, "/").expect_ok("/");
    client.expect_closed();
}

#[test]
fn a_client_that_is_gone_frees_its_upstream_connection() {
    let gate = Arc::new(Gate::default());
    let inner = Arc::clone(&gate);
    let backend = Backend::serve(move |request, conn| {
        if request.head.target() == "/slow" {
            inner.pass();
        }
        conn.send(canned::ok("ok"));
    });
    let proxy = Setup::for_backends([backend.url()]).workers(1).set("maxSockets", 1).start();
    let mut client = proxy.client();
    client.send(canned::get(HOST, "/slow"));
    backend.until_heads(1);
    client.abort();
    proxy.client().get(HOST, "/quick").expect_ok("ok");
    gate.open();
}

/// The backend answers before it has the whole body; the client sends the rest of it and the next request at once.
#[test]
fn a_request_behind_a_body_that_was_served_early_is_served() {
    let backend = Backend::raw(|conn| {
        let mut requests = 0;
        while let Some(head) = conn.head() {
            requests += 1;
            conn.send(canned::ok(head.target()));
            if conn.body(&head, &mut |_| {}).is_err() || requests == 2 {
                return;
            }
        }
    });
    let proxy = Setup::for_backends([backend.url()]).workers(1).start();
    let mut client = proxy.client();
    client.send(format!("POST /early HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 10\r\n\r\n12345"));
    client.response_to("POST").expect_ok("/early");
    client.send(format!("67890{}", canned::get(HOST, "/next")));
    client.response_to("GET").expect_ok("/next");
}
