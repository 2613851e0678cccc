//! Limits of a message: each with its answer.

use crate::support::backend::Backend;
use crate::support::proxy::Setup;
use crate::support::{HOST, canned, until};
use serde_json::{Value, json};

fn get(lines: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX-Debug: 1\r\n{lines}\r\n")
}

fn chunked(body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nX-Debug: 1\r\nTransfer-Encoding: chunked\r\n\r\n{body}")
}

#[test]
fn a_request_at_a_limit_is_passed_on_and_one_beyond_it_refused() {
    let long =
        |length: usize| format!("GET /{} HTTP/1.1\r\nHost: {HOST}\r\nX-Debug: 1\r\n\r\n", "x".repeat(length - 1));
    let table: [(&str, Value, String, String, u16, &str); 4] = [
        ("maxHeaders", json!(3), get("X: 1\r\n"), get("X: 1\r\nX: 1\r\n"), 431, "too_many_headers"),
        ("maxUriBytes", json!(100), long(100), long(101), 414, "uri_too_long"),
        (
            "maxChunkExtensionBytes",
            json!(4),
            chunked("1;123\r\nx\r\n0\r\n\r\n"),
            chunked("1;1234\r\nx\r\n0\r\n\r\n"),
            413,
            "chunk_extensions_too_large",
        ),
        (
            "maxTrailerBytes",
            json!(12),
            chunked("0\r\nX: 1\r\nX: 2\r\n\r\n"),
            chunked("0\r\nX: 1\r\nX: 22\r\n\r\n"),
            431,
            "trailers_too_large",
        ),
    ];
    for (setting, value, good, bad, status, reason) in table {
        let backend = Backend::always(canned::ok("ok"));
        let proxy = Setup::for_backends([backend.url()]).set(setting, value).start();
        assert_eq!(proxy.client().exchange(good).text(), "ok", "{setting}");
        let mut client = proxy.client();
        let response = client.exchange(bad);
        assert_eq!((response.status(), response.head.get("x-debug-error")), (status, Some(reason)), "{setting}");
        client.expect_closed();
        assert_eq!(backend.requests().len(), 1, "{setting}");
    }
}

#[test]
fn a_head_may_have_more_lines_than_most() {
    let lines: String = (0..996).map(|number| format!("X-{number}: {number}\r\n")).collect();
    let backend = Backend::always(format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{lines}\r\nok"));
    let setup = || Setup::for_backends([backend.url()]).set("maxHeaders", 1000);
    let proxy = setup().start();
    let head = |more: &str| format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: X-7\r\n{more}\r\n");
    let mut client = proxy.client();
    for _ in 0..2 {
        let response = client.exchange(head(&lines));
        assert_eq!((&*response.text(), response.head.get("X-995")), ("ok", Some("995")));
    }
    let request = backend.requests().remove(0);
    assert_eq!((request.head.get("X-995"), request.head.get("X-7")), (Some("995"), None));
    assert_eq!(client.exchange(head(&(lines + "X: 1\r\nX: 2\r\nX: 3\r\n"))).status(), 431);
    assert_eq!(backend.requests().len(), 2);
}

#[test]
fn a_target_without_end_is_refused_before_its_end() {
    let proxy = Setup::new().set("maxUriBytes", 100).start();
    let mut client = proxy.client();
    client.send(format!("GET /{}", "x".repeat(100)));
    assert_eq!(client.response_to("GET").status(), 414);
    client.expect_closed();
}

#[test]
fn a_response_beyond_a_limit_is_502() {
    let informational = "HTTP/1.1 102 Wait\r\n\r\n";
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let table = [
        ("maxHeaders", 8, format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: 1\r\n".repeat(9)), "upstream_head_too_large"),
        ("maxHeaders", 128, format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: 1\r\n".repeat(129)), "upstream_head_too_large"),
        ("maxInformationalResponses", 2, informational.repeat(3) + ok, "too_many_informational_responses"),
        ("maxHeadBytes", 1024, format!("HTTP/1.1 200 {}", "x".repeat(1100)), "upstream_head_too_large"),
    ];
    for (setting, value, response, reason) in table {
        let backend = Backend::always(response);
        let proxy = Setup::for_backends([backend.url()]).set(setting, value).start();
        let response = proxy.client().exchange(get(""));
        assert_eq!((response.status(), response.head.get("x-debug-error")), (502, Some(reason)), "{setting} {value}");
    }
}

#[test]
fn a_body_that_trickles_in_is_408() {
    let backend = Backend::always(canned::ok("ok"));
    let setup = Setup::for_backends([backend.url()]).set("bodyTimeout", 0.2).set("minBodyRate", 1_000_000);
    let proxy = setup.start();
    let mut client = proxy.client();
    client.send(canned::post(HOST, "/", "").replace("Content-Length: 0", "X-Debug: 1\r\nContent-Length: 100000000"));
    let reader = client.writer();
    reader.set_nonblocking(true).expect("a socket that can be asked");
    until("the body is too slow", || {
        client.try_send("x");
        reader.peek(&mut [0]).is_ok()
    });
    reader.set_nonblocking(false).expect("a socket that waits");
    let response = client.response_to("POST");
    assert_eq!((response.status(), response.head.get("x-debug-error")), (408, Some("body_too_slow")));
    assert_eq!(backend.requests().len(), 0);
}

#[test]
fn a_pipelined_head_has_the_time_of_one_head() {
    let backend = Backend::always(canned::ok("ok"));
    let proxy = Setup::for_backends([backend.url()]).set("headTimeout", 0.2).set("idleTimeout", 60).start();
    let mut client = proxy.client();
    client.send(canned::get(HOST, "/") + "GET / HTTP/1.1\r\nHos");
    client.response_to("GET").expect_ok("ok");
    let reader = client.writer();
    reader.set_nonblocking(true).expect("a socket that can be asked");
    // Each byte comes in time; all of them together do not.
    until("the head takes too long", || {
        client.try_send("t");
        reader.peek(&mut [0]).is_ok()
    });
    reader.set_nonblocking(false).expect("a socket that waits");
    assert_eq!(client.response_to("GET").status(), 408);
}
