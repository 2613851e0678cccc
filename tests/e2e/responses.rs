//! Answers of the proxy's own: their status, their reason, their page.

use crate::support::backend::Backend;
use crate::support::client::Response;
use crate::support::proxy::{Proxy, Setup};
use crate::support::{Gate, HOST, canned, unused_address};
use socket2::{Domain, Socket, Type};
use std::net::SocketAddr;
use std::sync::Arc;

/// Fails unless this is a page of the proxy with this status, made for this reason.
#[track_caller]
fn expect_own(response: &Response, status: u16, reason: &str) {
    let found = (response.status(), response.head.get("x-debug-error"));
    assert_eq!(found, (status, Some(reason)), "in {}{}", response.head, response.text());
    assert!(response.head.get("content-type").is_some_and(|it| it.starts_with("text/html")), "in {}", response.head);
    assert_eq!(response.head.get("cache-control"), Some("no-cache"), "in {}", response.head);
    assert_eq!(response.head.get("pragma"), Some("no-cache"), "in {}", response.head);
    assert_eq!(response.head.get("expires"), Some("-1"), "in {}", response.head);
    assert!(response.text().contains(&status.to_string()), "the page should name its status: {}", response.text());
}

/// A request to the one host with these fields; it asks for debug fields.
fn request(start: &str, fields: &str) -> String {
    format!("{start}\r\nHost: {HOST}\r\nX-Debug: 1\r\n{fields}\r\n")
}

/// The answer of a new connection to these bytes.
#[track_caller]
fn response(proxy: &Proxy, request: &str) -> Response {
    proxy.client().exchange(request)
}

fn in_front_of(backend: &Backend) -> Setup {
    Setup::for_backends([backend.url()])
}

#[test]
fn an_unknown_host_is_400_and_keeps_the_connection() {
    let backend = Backend::always(canned::ok("ok"));
    let proxy = in_front_of(&backend).start();
    let mut client = proxy.client();
    let response = client.exchange("GET / HTTP/1.1\r\nHost: nobody.test\r\nX-Debug: 1\r\n\r\n");
    expect_own(&response, 400, "unknown_host");
    client.get(HOST, "/").expect_ok("ok");
}

#[test]
fn an_unknown_host_gets_the_status_that_is_set() {
    let setup = Setup::new().file("static/error_404.html", "<p>nothing at 404</p>");
    let static_dir = setup.dir().join("static").display().to_string();
    let proxy = setup.set("unknownHostStatus", 404).set("staticDir", static_dir).start();
    let found = proxy.client().get("nobody.test", "/");
    assert_eq!((found.status(), found.text().as_str()), (404, "<p>nothing at 404</p>"));
    for status in [421, 503] {
        let proxy = Setup::new().set("unknownHostStatus", status).start();
        let request = "GET / HTTP/1.1\r\nHost: nobody.test\r\nX-Debug: 1\r\n\r\n";
        expect_own(&response(&proxy, request), status, "unknown_host");
    }
}

#[test]
fn a_page_for_head_has_no_body() {
    let proxy = Setup::new().start();
    let mut client = proxy.client();
    let response = client.exchange("HEAD / HTTP/1.1\r\nHost: nobody.test\r\n\r\n");
    assert_eq!((response.status(), response.body.len()), (400, 0));
    assert_eq!(client.get("__ping__", "/").status(), 200);
}

#[test]
fn a_missing_host_is_400_in_http_1_0_too() {
    let proxy = Setup::new().start();
    assert_eq!(response(&proxy, "GET / HTTP/1.0\r\n\r\n").status(), 400);
}

#[test]
fn ping_is_served_without_routes() {
    let proxy = Setup::new().start();
    let mut client = proxy.client();
    client.get("__ping__", "/").expect_ok("ok");
    client.get("__ping__", "/whatever").expect_ok("ok");
}

#[test]
fn a_head_that_does_not_come_is_408() {
    let backend = Backend::always(canned::ok("ok"));
    let proxy = in_front_of(&backend).set("headTimeout", 0.1).start();
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nX-Debug: 1\r\n");
    assert_eq!(client.response_to("GET").status(), 408);
    client.expect_closed();
    assert_eq!(backend.heads(), 0);
}

#[test]
fn a_body_that_does_not_come_is_408() {
    let backend = Backend::always(canned::ok("ok"));
    let proxy = in_front_of(&backend).set("bodyTimeout", 0.1).start();
    let mut client = proxy.client();
    client.send(request("POST / HTTP/1.1", "Content-Length: 10\r\n") + "half");
    expect_own(&client.response_to("POST"), 408, "body_timeout");
    client.expect_closed();
    assert_eq!(backend.requests().len(), 0);
}

/// A chunk that is none, behind the head and in the same segment: no backend hears of the request.
#[test]
fn a_body_that_is_broken_at_its_start_reaches_no_backend() {
    let backend = Backend::always(canned::ok("ok"));
    let proxy = in_front_of(&backend).start();
    for body in ["xyz\r\n", "-1\r\n", "5 5\r\nhello\r\n", "5\r\nhelloX\r\n0\r\n\r\n", "0\r\nno field\r\n\r\n"] {
        let request = request("POST / HTTP/1.1", "Transfer-Encoding: chunked\r\n") + body;
        expect_own(&response(&proxy, &request), 400, "malformed_chunk");
        assert_eq!(backend.heads(), 0, "{body:?}");
    }
}

#[test]
fn a_body_over_the_limit_is_413() {
    let backend = Backend::always(canned::ok("ok"));
    let proxy = in_front_of(&backend).set("maxBodyBytes", 10).start();
    let post = |fields: &str, body: &str| request("POST / HTTP/1.1", fields) + body;
    assert_eq!(response(&proxy, &post("Content-Length: 10\r\n", "0123456789")).status(), 200);
    expect_own(&response(&proxy, &post("Content-Length: 11\r\n", "")), 413, "body_too_large");
    let chunked = "Transfer-Encoding: chunked\r\n";
    assert_eq!(response(&proxy, &post(chunked, "a\r\n0123456789\r\n0\r\n\r\n")).status(), 200);
    expect_own(&response(&proxy, &post(chunked, "6\r\n012345\r\n5\r\n67890\r\n0\r\n\r\n")), 413, "body_too_large");
    assert_eq!(backend.requests().len(), 2);
}

#[test]
fn a_head_over_the_limit_is_431() {
    let backend = Backend::always(canned::ok("ok"));
    let proxy = in_front_of(&backend).set("maxHeadBytes", 4096).start();
    let field = |length: usize| format!("X-Long: {}\r\n", "x".repeat(length));
    assert_eq!(response(&proxy, &request("GET / HTTP/1.1", &field(3000))).status(), 200);
    let mut client = proxy.client();
    client.send(request("GET / HTTP/1.1", &field(5000)));
    assert_eq!(client.response_to("GET").status(), 431);
    client.expect_closed();
    assert_eq!(backend.requests().len(), 1);
}

#[test]
fn a_backend_that_refuses_is_502() {
    let proxy = Setup::for_backends([format!("http://{}", unused_address())]).start();
    let mut client = proxy.client();
    expect_own(&client.exchange(request("GET / HTTP/1.1", "")), 502, "connect_failed");
    expect_own(&client.exchange(request("GET / HTTP/1.1", "")), 502, "connect_failed");
}

#[test]
fn a_frontend_without_backends_is_502() {
    let proxy = Setup::for_backends([]).start();
    expect_own(&response(&proxy, &request("GET / HTTP/1.1", "")), 502, "no_backend_alive");
}

#[test]
fn responses_that_are_no_http_are_502() {
    let large = format!("HTTP/1.1 200 OK\r\nX-Long: {}\r\n\r\n", "x".repeat(5000));
    let table = [
        ("upstream_closed", ""),
        ("upstream_closed", "HTTP/1.1 200 OK\r\nContent-Le"),
        ("upstream_malformed", "SSH-2.0-OpenSSH_9.2p1\r\n\r\n"),
        ("upstream_malformed", "HTTP/1.1 OK\r\n\r\n"),
        ("upstream_malformed", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"),
        ("upstream_malformed", "HTTP/1.1 200 OK\r\nContent-Length: 2x\r\n\r\nok"),
        ("upstream_malformed", "HTTP/1.1 200 OK\r\nX Y: 1\r\nContent-Length: 2\r\n\r\nok"),
        ("upstream_head_too_large", &large),
    ];
    for (reason, bytes) in table {
        let backend = Backend::closing(bytes);
        let proxy = in_front_of(&backend).set("maxHeadBytes", 4096).start();
        // POST, so that it is not tried again.
        let mut client = proxy.client();
        let response = client.exchange(request("POST / HTTP/1.1", "Content-Length: 0\r\n"));
        let found = (response.status(), response.head.get("x-debug-error"));
        assert_eq!(found, (502, Some(reason)), "for the backend's \"{}\"", bytes.escape_debug());
    }
}

#[test]
fn a_backend_that_does_not_respond_is_504() {
    let gate = Arc::new(Gate::default());
    let inner = Arc::clone(&gate);
    let backend = Backend::serve(move |_, _| inner.pass());
    let proxy = in_front_of(&backend).set("responseTimeout", 0.1).set("retryOnError", 0).start();
    expect_own(&response(&proxy, &request("GET / HTTP/1.1", "")), 504, "response_timeout");
    gate.open();
}

#[test]
fn a_backend_that_cannot_be_reached_in_time_is_504() {
    let full = Full::new();
    let url = format!("http://{}", full.address);
    let proxy = Setup::for_backends([url]).set("connectTimeout", 0.2).set("retryOnError", 0).start();
    expect_own(&response(&proxy, &request("GET / HTTP/1.1", "")), 504, "connect_timeout");
}

/// A listener whose queue is full, so that connecting to it comes to no end.
pub(crate) struct Full {
    pub(crate) address: SocketAddr,
    _listener: Socket,
    _queued: Vec<Socket>,
}

impl Full {
    pub(crate) fn new() -> Self {
        let address = unused_address();
        let tcp = || Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let listener = tcp();
        listener.bind(&address.into()).expect("binding a backend's port");
        listener.listen(0).expect("listening");
        let queued = std::iter::repeat_with(|| {
            let socket = tcp();
            socket.set_nonblocking(true).expect("a socket that does not block");
            // It is under way, which is an error here.
            let _ = socket.connect(&address.into());
            socket
        });
        Self { address, _queued: queued.take(4).collect(), _listener: listener }
    }
}

#[test]
fn pages_of_the_operator_are_used() {
    let setup = Setup::for_backends([format!("http://{}", unused_address())])
        .file("static/error_400.html", "<p>our own 400</p>")
        .file("static/error_default.html", "<p>our own default</p>");
    let static_dir = setup.dir().join("static").display().to_string();
    let proxy = setup.set("staticDir", static_dir).start();
    let response = proxy.client().get("nobody.test", "/");
    assert_eq!((response.status(), response.text().as_str()), (400, "<p>our own 400</p>"));
    assert_eq!(response.head.get("expires"), Some("-1"), "in {}", response.head);
    let response = proxy.client().get(HOST, "/");
    assert_eq!((response.status(), response.text().as_str()), (502, "<p>our own default</p>"));
}

#[test]
fn a_directory_without_pages_leaves_the_built_in_ones() {
    let setup = Setup::new();
    let static_dir = setup.dir().display().to_string();
    let proxy = setup.set("staticDir", static_dir).start();
    let response = response(&proxy, "GET / HTTP/1.1\r\nHost: nobody.test\r\nX-Debug: 1\r\n\r\n");
    expect_own(&response, 400, "unknown_host");
}
