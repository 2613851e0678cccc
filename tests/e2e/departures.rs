//! Clients that leave before their response: `server.onClientAbort`.

use crate::support::backend::Backend;
use crate::support::client::Client;
use crate::support::message::How;
use crate::support::proxy::{Proxy, Setup};
use crate::support::{Gate, HOST, canned, until};
use std::sync::Arc;

/// A backend that responds to `/slow` when the gate is open, and to anything else at once.
fn slow(gate: &Arc<Gate>) -> Backend {
    let gate = Arc::clone(gate);
    Backend::serve(move |request, conn| {
        if request.head.target() == "/slow" {
            gate.pass();
        }
        // Whoever asked may have left.
        let _ = conn.try_send(&canned::ok("finished"));
    })
}

fn asking(proxy: &Proxy, target: &str) -> Client {
    let mut client = proxy.client();
    client.send(canned::get(HOST, target));
    client
}

fn count_499(proxy: &Proxy, count: usize) {
    let lines = proxy.log_lines("access.log", count);
    assert!(lines.iter().all(|line| line.contains("\" 499 ")), "{lines:?}");
}

/// Two requests are at the backend, and four wait for its connections. All six clients leave.
#[test]
fn a_client_that_leaves_gives_up_its_connection_and_its_place() {
    let gate = Arc::new(Gate::default());
    let backend = slow(&gate);
    let setup = Setup::for_backends([backend.url()]).with_access_log().workers(1);
    let proxy = setup.set("maxSockets", 2).set("maxQueue", 4).start();
    let first: Vec<_> = (0..2).map(|_| asking(&proxy, "/slow")).collect();
    backend.until_heads(2);
    let queued: Vec<_> = (0..4).map(|_| asking(&proxy, "/slow")).collect();
    assert_eq!(asking(&proxy, "/").response_to("GET").status(), 503, "the queue is full");
    drop(queued);
    until("four have left the queue", || proxy.read("access.log").matches("\" 499 ").count() == 4);
    assert_eq!(backend.heads(), 2, "nothing is started for clients that have left");
    drop(first);
    let mut client = asking(&proxy, "/");
    client.response_to("GET").expect_ok("finished");
    until("all are logged", || proxy.read("access.log").matches("\" 499 ").count() == 6);
    assert_eq!(backend.heads(), 3);
    gate.open();
}

/// nginx, HAProxy and x0 do the same: the backend that is waited for in vain has done nothing wrong.
#[test]
fn a_client_that_leaves_is_no_fault_of_its_backends() {
    let gate = Arc::new(Gate::default());
    let backends = [(); 3].map(|()| slow(&gate));
    let urls = backends.iter().map(Backend::url).collect::<Vec<_>>();
    let proxy = Setup::for_backends(urls).with_access_log().set("responseTimeout", 1).start();
    let heads = || backends.iter().map(Backend::heads).sum::<usize>();
    let client = asking(&proxy, "/slow");
    until("a backend is waited for", || heads() == 1);
    drop(client);
    count_499(&proxy, 1);
    assert_eq!(heads(), 1, "nobody else is asked");
    assert!(!proxy.stderr().contains("marked dead"), "{}", proxy.stderr());
    gate.open();
}

/// What has begun is delivered, even to a client that has ended its side.
#[test]
fn a_response_that_has_begun_goes_on_for_a_client_that_has_ended_its_side() {
    let gate = Arc::new(Gate::default());
    let inner = Arc::clone(&gate);
    let backend = Backend::serve(move |_, conn| {
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst");
        inner.pass();
        conn.send("-last");
    });
    let proxy = Setup::for_backends([backend.url()]).start();
    let mut client = asking(&proxy, "/");
    let head = client.head();
    assert_eq!(head.status(), 200);
    client.finish_writing();
    gate.open();
    assert_eq!(client.bytes(10), b"first-last");
}

#[test]
fn where_it_is_ignored_a_client_that_has_ended_its_side_is_served() {
    let gate = Arc::new(Gate::default());
    let backend = slow(&gate);
    let proxy = Setup::for_backends([backend.url()]).set("onClientAbort", "ignore").start();
    let mut client = asking(&proxy, "/slow");
    client.finish_writing();
    backend.until_heads(1);
    gate.open();
    client.response_to("GET").expect_ok("finished");
}

#[test]
fn where_it_is_ignored_a_place_in_the_queue_is_given_up_all_the_same() {
    let gate = Arc::new(Gate::default());
    let backend = slow(&gate);
    let setup = Setup::for_backends([backend.url()]).set("onClientAbort", "ignore");
    let proxy = setup.set("maxSockets", 1).workers(1).start();
    let mut first = asking(&proxy, "/slow");
    backend.until_heads(1);
    let mut queued = asking(&proxy, "/slow");
    queued.finish_writing();
    assert_eq!(queued.rest(), (Vec::new(), How::Closed));
    gate.open();
    first.response_to("GET").expect_ok("finished");
    assert_eq!(backend.heads(), 1, "nothing is started for a client that has left");
}

#[test]
fn where_it_is_ignored_nothing_is_tried_again_and_nobody_is_marked_all_the_same() {
    let gate = Arc::new(Gate::default());
    let failing = [(); 2].map(|()| {
        let gate = Arc::clone(&gate);
        Backend::raw(move |conn| {
            if conn.head().is_some() {
                gate.pass();
                conn.send(canned::sized("500 Broken", "broken"));
            }
        })
    });
    let heads = || failing.iter().map(Backend::heads).sum::<usize>();
    let setup = Setup::for_backends(failing.iter().map(Backend::url).collect::<Vec<_>>()).with_access_log();
    let proxy = setup.set("onClientAbort", "ignore").set("responseTimeout", 1).workers(1).start();
    let mut client = asking(&proxy, "/");
    until("a backend is waited for", || heads() == 1);
    client.finish_writing();
    assert_eq!(client.response_to("GET").status(), 504);
    assert_eq!(heads(), 1, "nobody else is asked");
    assert!(!proxy.stderr().contains("marked dead"), "{}", proxy.stderr());
    gate.open();
}

/// A backend tells an idle connection that its time is over, as some servers do, and the next request crosses with that.
#[test]
fn a_408_of_an_idle_connection_is_not_the_response_of_the_next_request() {
    const TIMEOUT: &str = "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    let backend = Backend::serve(|request, conn| match (request.turn, request.head.target()) {
        (_, "/own") => conn.send(TIMEOUT),
        (0, _) => conn.send(canned::ok("served")),
        _ => {
            conn.send(TIMEOUT);
            conn.finish();
        }
    });
    let proxy = Setup::for_backends([backend.url()]).workers(1).start();
    let mut client = proxy.client();
    client.get(HOST, "/").expect_ok("served");
    client.get(HOST, "/").expect_ok("served");
    assert_eq!((backend.heads(), backend.connections()), (3, 2), "the second request went to a new connection");
    assert_eq!(client.get(HOST, "/own").status(), 408, "on a new connection it is the request's own");
    client.get(HOST, "/").expect_ok("served");
    assert_eq!(client.exchange(canned::post(HOST, "/", "body")).status(), 408, "it must not arrive twice");
}
