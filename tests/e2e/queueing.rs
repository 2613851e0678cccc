//! `maxSockets`: requests wait in turn for a connection to their backend.

use crate::support::backend::Backend;
use crate::support::proxy::Setup;
use crate::support::{Gate, HOST, canned, worker_has_caught_up};
use std::sync::Arc;

#[test]
fn requests_are_served_in_turn_by_one_socket() {
    let gate = Arc::new(Gate::default());
    let backend = Backend::holding(&gate);
    let proxy = Setup::for_backends([backend.url()]).workers(1).set("maxSockets", 1).start();
    let mut first = proxy.client();
    first.send(canned::get(HOST, "/held"));
    backend.until_heads(1);
    let mut waiting: Vec<_> = (0..4).map(|_| proxy.client()).collect();
    for (number, client) in waiting.iter_mut().enumerate() {
        client.send(canned::get(HOST, &format!("/{number}")));
        worker_has_caught_up(&proxy);
    }
    assert_eq!(backend.heads(), 1, "only one request at a time may be at the backend");
    gate.open();
    first.response_to("GET").expect_ok("/held");
    for (number, client) in waiting.iter_mut().enumerate() {
        client.response_to("GET").expect_ok(&format!("/{number}"));
    }
    assert_eq!(backend.connections(), 1);
    let order: Vec<String> = backend.requests().iter().map(|request| request.head.target().to_owned()).collect();
    assert_eq!(order, ["/held", "/0", "/1", "/2", "/3"]);
}

#[test]
fn who_waits_too_long_is_told_503() {
    let gate = Arc::new(Gate::default());
    let backend = Backend::holding(&gate);
    let proxy = Setup::for_backends([backend.url()]).workers(1).set("maxSockets", 1).set("connectTimeout", 0.2).start();
    let mut first = proxy.client();
    first.send(canned::get(HOST, "/held"));
    backend.until_heads(1);
    let mut second = proxy.client();
    let response = second.exchange(format!("GET /late HTTP/1.1\r\nHost: {HOST}\r\nX-Debug: 1\r\n\r\n"));
    assert_eq!((response.status(), response.head.get("x-debug-error")), (503, Some("queue_timeout")));
    gate.open();
    first.response_to("GET").expect_ok("/held");
    second.get(HOST, "/again").expect_ok("/again");
}

#[test]
fn who_leaves_the_queue_holds_nobody_up() {
    let gate = Arc::new(Gate::default());
    let backend = Backend::holding(&gate);
    let proxy = Setup::for_backends([backend.url()]).workers(1).set("maxSockets", 1).start();
    let mut first = proxy.client();
    first.send(canned::get(HOST, "/held"));
    backend.until_heads(1);
    let (mut leaving, mut staying) = (proxy.client(), proxy.client());
    leaving.send(canned::get(HOST, "/leaving"));
    worker_has_caught_up(&proxy);
    staying.send(canned::get(HOST, "/staying"));
    worker_has_caught_up(&proxy);
    leaving.abort();
    worker_has_caught_up(&proxy);
    gate.open();
    first.response_to("GET").expect_ok("/held");
    staying.response_to("GET").expect_ok("/staying");
}

#[test]
fn a_backend_that_closes_after_each_response_serves_the_queue_all_the_same() {
    let backend = Backend::closing("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
    let proxy = Setup::for_backends([backend.url()]).workers(1).set("maxSockets", 1).start();
    let mut clients: Vec<_> = (0..6).map(|_| proxy.client()).collect();
    clients.iter_mut().for_each(|client| client.send(canned::get(HOST, "/")));
    clients.iter_mut().for_each(|client| client.response_to("GET").expect_ok("ok"));
    assert_eq!(backend.connections(), 6);
}

/// Whoever sends bodies slowly holds connections: they do not get all of them.
#[test]
fn slow_uploads_leave_connections_to_others() {
    let backend = Backend::serve(|request, conn| conn.send(canned::ok(request.head.target())));
    let proxy = Setup::for_backends([backend.url()]).workers(1).set("maxSockets", 4).start();
    let head = |target: &str| format!("POST {target} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 5\r\n\r\n");
    let mut slow: Vec<_> = (0..3).map(|_| proxy.client()).collect();
    for (number, client) in slow.iter_mut().enumerate() {
        client.send(head(&format!("/{number}")));
        backend.until_heads(number + 1);
    }
    let mut late = proxy.client();
    late.send(head("/late"));
    worker_has_caught_up(&proxy);
    assert_eq!(backend.heads(), 3, "a fourth slow one has to wait");
    for target in ["/one", "/two"] {
        proxy.client().get(HOST, target).expect_ok(target);
        proxy.client().exchange(head(target) + "whole").expect_ok(target);
    }
    // When one of the slow ones has left, the next has its turn.
    let gone = slow.pop().expect("a client");
    drop(gone);
    backend.until_heads(8);
    late.send("hello");
    late.response_to("POST").expect_ok("/late");
    for (number, client) in slow.iter_mut().enumerate() {
        client.send("hello");
        client.response_to("POST").expect_ok(&format!("/{number}"));
    }
}

/// A request that has come whole is no longer slow, however long its answer takes.
#[test]
fn an_upload_that_is_complete_makes_room_for_another() {
    let gate = Arc::new(Gate::default());
    let backend = Backend::holding(&gate);
    let proxy = Setup::for_backends([backend.url()]).workers(1).set("maxSockets", 2).start();
    let head = |target: &str| format!("POST {target} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 5\r\n\r\n");
    let (mut first, mut second) = (proxy.client(), proxy.client());
    first.send(head("/held"));
    backend.until_heads(1);
    second.send(head("/second"));
    worker_has_caught_up(&proxy);
    assert_eq!(backend.heads(), 1, "the second has to wait");
    first.send("hello");
    backend.until_heads(2);
    second.send("hello");
    second.response_to("POST").expect_ok("/second");
    gate.open();
    first.response_to("POST").expect_ok("/held");
}
