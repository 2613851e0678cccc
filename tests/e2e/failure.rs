//! Backends that fail: who is marked dead, what is tried again and what is not.

use crate::support::backend::Backend;
use crate::support::message::How;
use crate::support::proxy::{Proxy, Setup};
use crate::support::{Gate, HOST, canned, until, unused_address, worker_has_caught_up};
use std::sync::Arc;
use std::thread;

fn refusing() -> String {
    format!("http://{}", unused_address())
}

/// Sends GETs until this backend has answered one.
#[track_caller]
fn get_until_heads(proxy: &Proxy, backend: &Backend, count: usize) {
    until("the random choice falls on the backend", || {
        proxy.client().get(HOST, "/");
        backend.heads() >= count
    });
}

/// Fails unless the next requests, over connections to all workers, spare this backend.
#[track_caller]
fn expect_spared(proxy: &Proxy, backend: &Backend) {
    let before = backend.heads();
    for _ in 0..50 {
        proxy.client().get(HOST, "/").expect_ok("well");
    }
    assert_eq!(backend.heads(), before, "requests to a backend that is marked dead");
}

#[test]
fn requests_avoid_a_backend_that_refuses() {
    let backend = Backend::always(canned::ok("well"));
    let proxy = Setup::for_backends([refusing(), backend.url(), refusing()]).start();
    for _ in 0..50 {
        proxy.client().get(HOST, "/").expect_ok("well");
    }
    assert_eq!(backend.requests().len(), 50);
}

#[test]
fn a_response_that_tells_of_trouble_passes_and_marks_its_backend() {
    for status in ["500 Internal Server Error", "501 Not Implemented", "502 Bad Gateway", "503 Service Unavailable"] {
        let (ill, well) = (Backend::always(canned::sized(status, "ill")), Backend::always(canned::ok("well")));
        let proxy = Setup::for_backends([ill.url(), well.url()]).start();
        get_until_heads(&proxy, &ill, 1);
        assert_eq!(ill.heads(), 1, "the answer {status} must mark its backend at once");
        expect_spared(&proxy, &ill);
    }
}

#[test]
fn a_response_that_does_not_mark_its_backend() {
    let table = [
        ("404 Not Found", true),
        ("500 Internal Server Error", false),
        ("503 Service Unavailable\r\nRetry-After: 5", true),
        ("529 Site Overloaded", true),
    ];
    for (status, dead_on_500) in table {
        let (ill, well) = (Backend::always(canned::sized(status, "ill")), Backend::always(canned::ok("well")));
        let proxy = Setup::for_backends([ill.url(), well.url()]).set("deadBackendOn500", dead_on_500).start();
        get_until_heads(&proxy, &ill, 3);
    }
}

#[test]
fn a_mark_ends_in_time() {
    let ill = Backend::serve(|request, conn| match request.connection {
        0 => conn.send(canned::sized("502 Bad Gateway", "ill")),
        _ => conn.send(canned::ok("better")),
    });
    let well = Backend::always(canned::ok("well"));
    let proxy = Setup::for_backends([ill.url(), well.url()]).set("deadBackendTTL", 0.2).start();
    get_until_heads(&proxy, &ill, 1);
    get_until_heads(&proxy, &ill, 2);
}

#[test]
fn a_backend_that_closes_without_a_response_is_marked_after_a_few_in_a_row() {
    let (ill, well) = (Backend::raw(|conn| conn.finish()), Backend::always(canned::ok("well")));
    let proxy = Setup::for_backends([ill.url(), well.url()]).workers(1).start();
    until("it is marked", || {
        proxy.client().get(HOST, "/").expect_ok("well");
        proxy.stderr().contains(&format!("{} is marked dead for 30 s", ill.url()))
    });
    assert!(proxy.stderr().contains("it closed 3 connections in a row without a response"), "{}", proxy.stderr());
    let before = ill.connections();
    assert_eq!(before, 3);
    (0..50).for_each(|_| proxy.client().get(HOST, "/").expect_ok("well"));
    assert_eq!(ill.connections(), before);
}

#[test]
fn closes_that_are_not_in_a_row_mark_nothing() {
    let ill = Backend::serve(|request, conn| {
        if request.connection % 3 != 2 {
            return conn.finish();
        }
        conn.send(canned::ok("better"));
        conn.finish();
    });
    let well = Backend::always(canned::ok("well"));
    let proxy = Setup::for_backends([ill.url(), well.url()]).workers(1).start();
    get_until_heads(&proxy, &ill, 12);
    assert!(!proxy.stderr().contains("is marked dead"), "{}", proxy.stderr());
}

#[test]
fn the_log_says_why_a_backend_is_dead_and_when_it_is_back() {
    let ill = Backend::serve(|request, conn| match request.connection {
        0 => conn.send(canned::sized("502 Bad Gateway", "ill")),
        _ => conn.send(canned::ok("better")),
    });
    let well = Backend::always(canned::ok("well"));
    let proxy = Setup::for_backends([ill.url(), well.url()]).set("deadBackendTTL", 0.5).workers(1).start();
    until("it is back", || {
        // A connection that was kept would be the ill one.
        ill.close_connections();
        proxy.client().get(HOST, "/");
        proxy.stderr().contains(&format!("backend {} is alive again", ill.url()))
    });
    let marked = format!("{HOST}: backend {} is marked dead for 0.5 s: it responded with 502", ill.url());
    assert!(proxy.stderr().contains(&marked), "{}", proxy.stderr());
}

#[test]
fn a_connection_is_closed_before_its_backend_closes_it() {
    let response = |timeout: &str| {
        format!("HTTP/1.1 200 OK\r\nKeep-Alive: max=9, timeout={timeout}\r\nContent-Length: 2\r\n\r\nok")
    };
    for (timeout, is_kept) in [("1", false), ("0", false), ("60", true)] {
        let backend = Backend::always(response(timeout));
        let proxy = Setup::for_backends([backend.url()]).workers(1).start();
        proxy.client().get(HOST, "/").expect_ok("ok");
        if is_kept {
            proxy.client().get(HOST, "/").expect_ok("ok");
            assert_eq!((backend.connections(), backend.open_connections()), (1, 1));
        } else {
            until("it is closed", || backend.open_connections() == 0);
            proxy.client().get(HOST, "/").expect_ok("ok");
        }
    }
}

#[test]
fn the_only_backend_is_never_marked() {
    let mut backend = Backend::always(canned::sized("503 Service Unavailable", "ill"));
    let proxy = Setup::for_backends([backend.url()]).start();
    let mut client = proxy.client();
    for _ in 0..5 {
        assert_eq!(client.get(HOST, "/").text(), "ill");
    }
    backend.kill();
    assert_eq!(client.get(HOST, "/").status(), 502);
    backend.start();
    assert_eq!(client.get(HOST, "/").text(), "ill");
}

#[test]
fn when_all_are_dead_the_response_is_502() {
    let proxy = Setup::for_backends([refusing(), refusing()]).start();
    let mut client = proxy.client();
    for _ in 0..3 {
        assert_eq!(client.get(HOST, "/").status(), 502);
    }
}

#[test]
fn tries_are_limited() {
    let backends: Vec<Backend> = (0..6).map(|_| Backend::serve(|_, conn| conn.finish())).collect();
    let urls: Vec<String> = backends.iter().map(Backend::url).collect();
    let proxy = Setup::for_backends(urls).set("retryOnError", 2).start();
    assert_eq!(proxy.client().get(HOST, "/").status(), 502);
    let tries: Vec<usize> = backends.iter().map(Backend::heads).collect();
    assert_eq!(tries.iter().sum::<usize>(), 3, "one try and two more: {tries:?}");
    assert!(tries.iter().all(|tries| *tries <= 1), "each on a different backend: {tries:?}");
}

#[test]
fn a_get_without_a_response_is_tried_again_elsewhere() {
    let (ill, well) = (Backend::serve(|_, conn| conn.finish()), Backend::always(canned::ok("well")));
    let proxy = Setup::for_backends([ill.url(), well.url()]).set("deadBackendTTL", 0.05).start();
    until("the random choice falls on the backend", || {
        proxy.client().get(HOST, "/").expect_ok("well");
        ill.heads() >= 3
    });
}

#[test]
fn a_post_that_was_sent_is_not_tried_again() {
    let (one, other) = (Backend::serve(|_, conn| conn.finish()), Backend::serve(|_, conn| conn.finish()));
    let proxy = Setup::for_backends([one.url(), other.url()]).start();
    let response = proxy.client().exchange(canned::post(HOST, "/", "body"));
    assert_eq!((response.status(), one.heads() + other.heads()), (502, 1));
}

/// The backend closes an idle connection in the very moment in which a POST takes it: nobody has read the POST, so it is
/// sent again. The proxy is held still meanwhile, so that it sees the POST before the end.
#[test]
fn a_post_that_crosses_with_the_end_of_its_connection_is_sent_again() {
    let backend = Backend::always(canned::ok("well"));
    let proxy = Setup::for_backends([backend.url()]).workers(1).set("retryOnError", 0).start();
    let mut client = proxy.client();
    for turn in 1..=10 {
        client.exchange(canned::post(HOST, "/", "body")).expect_ok("well");
        proxy.while_stopped(|| {
            client.send(canned::post(HOST, "/", "body"));
            backend.close_connections();
            until("the backend has closed", || backend.open_connections() == 0);
        });
        client.response_to("POST").expect_ok("well");
        assert_eq!(backend.heads(), 2 * turn, "each POST arrives once");
    }
}

/// The backend reads a POST off a kept connection and closes without a word: it may have acted on it.
#[test]
fn a_post_that_was_read_is_not_sent_again_whatever_its_connection() {
    let backend = Backend::serve(|request, conn| match request.turn {
        0 => conn.send(canned::ok("well")),
        _ => conn.finish(),
    });
    let proxy = Setup::for_backends([backend.url()]).workers(1).start();
    let mut client = proxy.client();
    client.exchange(canned::post(HOST, "/", "body")).expect_ok("well");
    let response = client.exchange(canned::post(HOST, "/", "body"));
    assert_eq!((response.status(), backend.heads()), (502, 2));
}

#[test]
fn a_post_is_tried_again_where_nothing_was_sent() {
    let backend = Backend::serve(|request, conn| conn.send(canned::ok(&String::from_utf8_lossy(&request.body))));
    for turn in 0..10 {
        // A new proxy each time, which knows of no dead backend.
        let proxy = Setup::for_backends([refusing(), backend.url(), refusing()]).start();
        let body = format!("body {turn}");
        proxy.client().exchange(canned::post(HOST, "/", &body)).expect_ok(&body);
    }
    assert_eq!(backend.requests().len(), 10);
}

#[test]
fn a_pooled_connection_that_was_closed_is_not_used() {
    let backend = Backend::always(canned::ok("well"));
    let proxy = Setup::for_backends([backend.url()]).workers(1).start();
    let mut client = proxy.client();
    for turn in 1..=5 {
        client.exchange(canned::post(HOST, "/", "body")).expect_ok("well");
        assert_eq!(backend.connections(), turn);
        backend.close_connections();
        until("the connection is over", || backend.open_connections() == 0);
        worker_has_caught_up(&proxy);
    }
}

#[test]
fn a_pooled_connection_that_closes_on_the_next_request_costs_nothing() {
    for reset in [false, true] {
        let backend = Backend::serve(move |request, conn| match request.turn {
            0 => conn.send(canned::ok("well")),
            _ if reset => conn.reset(),
            _ => conn.finish(),
        });
        let proxy = Setup::for_backends([backend.url()]).workers(1).set("retryOnError", 0).start();
        let mut client = proxy.client();
        for _ in 0..10 {
            client.get(HOST, "/").expect_ok("well");
        }
    }
}

#[test]
fn bytes_nobody_asked_for_end_a_pooled_connection() {
    let gate = Arc::new(Gate::default());
    let inner = Arc::clone(&gate);
    let backend = Backend::serve(move |request, conn| {
        conn.send(canned::ok("well"));
        if request.connection == 0 {
            inner.pass();
            conn.send(canned::ok("forged"));
        }
    });
    let proxy = Setup::for_backends([backend.url()]).workers(1).start();
    let mut client = proxy.client();
    client.get(HOST, "/").expect_ok("well");
    gate.open();
    until("the proxy gives the connection up", || backend.open_connections() == 0);
    client.get(HOST, "/").expect_ok("well");
    assert_eq!(backend.connections(), 2);
}

#[test]
fn a_slow_backend_is_marked_and_its_get_tried_again() {
    let gate = Arc::new(Gate::default());
    let inner = Arc::clone(&gate);
    let slow = Backend::serve(move |_, _| inner.pass());
    let well = Backend::always(canned::ok("well"));
    let proxy = Setup::for_backends([slow.url(), well.url()]).set("responseTimeout", 0.1).start();
    until("the random choice falls on the backend", || {
        // 504 is an answer for it too: RFC 9110 allows, but does not demand, that it is tried again.
        let status = proxy.client().get(HOST, "/").status();
        assert!(status == 200 || status == 504, "status {status}");
        slow.heads() >= 1
    });
    expect_spared(&proxy, &slow);
    gate.open();
}

#[test]
fn a_truncated_response_ends_the_connection_visibly() {
    for rest in ["Content-Length: 100\r\n\r\nhalf", "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"] {
        let backend = Backend::closing(format!("HTTP/1.1 200 OK\r\n{rest}"));
        let proxy = Setup::for_backends([backend.url()]).start();
        let mut client = proxy.client();
        client.send(canned::get(HOST, "/"));
        let ended = client.try_response_to("GET").expect_err("a truncated answer must not seem complete");
        assert!(matches!(ended.how, How::Closed | How::Reset), "{ended}");
        assert_eq!(ended.received, b"half", "what came must be passed on");
    }
}

#[test]
fn a_response_with_a_malformed_chunk_ends_the_connection_visibly() {
    let backend = Backend::always("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nz\r\n");
    let proxy = Setup::for_backends([backend.url()]).start();
    let mut client = proxy.client();
    client.send(canned::get(HOST, "/"));
    match client.try_response_to("GET") {
        // The fault was found before the head had been passed on.
        Ok(response) => assert_eq!(response.status(), 502, "a broken answer must not seem complete"),
        Err(ended) => assert!(matches!(ended.how, How::Closed | How::Reset), "{ended}"),
    }
}

#[test]
fn a_response_that_does_not_go_on_ends_the_connection() {
    let gate = Arc::new(Gate::default());
    let inner = Arc::clone(&gate);
    let backend = Backend::serve(move |_, conn| {
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
        inner.pass();
    });
    let proxy = Setup::for_backends([backend.url()]).set("bodyTimeout", 0.1).start();
    let mut client = proxy.client();
    client.send(canned::get(HOST, "/"));
    let ended = client.try_response_to("GET").expect_err("an answer that stalls");
    assert!(matches!(ended.how, How::Closed | How::Reset), "{ended}");
    assert_eq!(ended.received, b"half");
    gate.open();
}

#[test]
fn a_failure_harms_no_other_request() {
    let ill = Backend::serve(|_, conn| conn.reset());
    let well = Backend::always(canned::ok("well"));
    let proxy = Setup::new().route("ill.test", [ill.url()]).route("well.test", [well.url()]).start();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..50 {
                    assert_eq!(proxy.client().get("ill.test", "/").status(), 502);
                }
            });
            scope.spawn(|| {
                let mut client = proxy.client();
                for _ in 0..200 {
                    client.get("well.test", "/").expect_ok("well");
                }
            });
        }
    });
}
