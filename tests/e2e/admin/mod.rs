//! The admin service: views, actions and metrics on a listener of their own.

mod actions;
mod buttons;
mod cache;
mod clients;
mod clusters;
mod dashboard;
mod events;
mod lenient;
mod promtool;
mod socket;
mod tools;
mod top;
mod views;

use crate::succession::{replaceable, upgrade};
use crate::support::backend::Backend;
use crate::support::client::{Client, Response, connect};
use crate::support::proxy::{Proxy, Setup};
use crate::support::{HOST, canned, until, unused_address};
use serde_json::{Value, json};
use std::net::SocketAddr;

/// A proxy with an admin service, and where that listens.
pub(crate) struct Admin {
    pub(crate) proxy: Proxy,
    address: SocketAddr,
}

impl Admin {
    #[track_caller]
    pub(crate) fn start(setup: Setup) -> Self {
        Self::start_with(setup, json!({}))
    }

    /// Starts the proxy with these settings of `admin`, beside the address.
    #[track_caller]
    pub(crate) fn start_with(mut setup: Setup, mut section: Value) -> Self {
        let address = unused_address();
        section["bind"] = json!(address.to_string());
        setup.launch.admin = section;
        let admin = Self { proxy: setup.start(), address };
        until("the proxy is ready", || admin.get("/readyz").status() == 200);
        admin
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn client(&self) -> Client {
        Client::over(Box::new(connect(self.address, None)))
    }

    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Response {
        self.client().get(&self.host(), path)
    }

    #[track_caller]
    pub(crate) fn json(&self, path: &str) -> Value {
        let response = self.get(path);
        assert_eq!(response.status(), 200, "{path}: {}", response.text());
        serde_json::from_slice(&response.body).unwrap_or_else(|error| panic!("{path}: {error}: {}", response.text()))
    }
}

#[test]
fn the_service_is_apart_from_the_routes() {
    let backend = Backend::always(canned::ok("of the backend"));
    let admin = Admin::start(Setup::for_backends([backend.url()]).route("*", [backend.url()]));
    admin.get("/healthz").expect_ok("ok\n");
    admin.get("/readyz").expect_ok("ready\n");
    assert_eq!(admin.get("/v1/nothing").status(), 404);
    assert_eq!(admin.client().get(HOST, "/v1/status").status(), 403, "a name that anybody can have lead here");
    assert_eq!(admin.client().get("__ping__", "/").status(), 403);
    assert_eq!(backend.heads(), 0);
    admin.proxy.client().get(HOST, "/healthz").expect_ok("of the backend");
    admin.proxy.client().get(&admin.host(), "/v1/status").expect_ok("of the backend");
}

#[test]
fn a_response_of_the_service_is_like_any_other() {
    let admin = Admin::start(Setup::new());
    let mut client = admin.client();
    let host = admin.host();
    for _ in 0..3 {
        client.get(&host, "/healthz").expect_ok("ok\n");
    }
    let head = client.exchange(format!("HEAD /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    assert_eq!((head.status(), head.head.get("Content-Length"), head.body.len()), (200, Some("3"), 0));
    client.send(canned::get(&host, "/healthz").repeat(3));
    (0..3).for_each(|_| client.response_to("GET").expect_ok("ok\n"));
    let chunked = "PUT /healthz HTTP/1.1\r\nTransfer-Encoding: chunked\r\n";
    let refused = client.exchange(format!("{chunked}Host: {host}\r\n\r\n3\r\nabc\r\n0\r\n\r\n"));
    assert_eq!((refused.status(), refused.head.get("Allow")), (405, Some("GET, HEAD")));
    client.send(format!("PUT / HTTP/1.1\r\nHost: {host}\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"));
    assert_eq!(client.head().status(), 100);
    client.send("abc");
    assert_eq!(client.response_to("PUT").status(), 405);
    let refused = client.get(&host, "/v1/actions/reload");
    assert_eq!((refused.status(), refused.head.get("Allow")), (405, Some("POST")));
    for path in ["/v1/frontends?per_page=x", "/v1/certificates?page=-1", "/v1/backends?state=well"] {
        let refused = client.get(&host, path);
        assert!(refused.status() == 400 && refused.text().contains("detail"), "{path}: {}", refused.text());
    }
    client.get(&host, "/healthz").expect_ok("ok\n");
    let large = "x".repeat(65_537);
    assert_eq!(client.exchange(canned::post(&host, "/healthz", &large)).status(), 413);
    let mut old = admin.client();
    let response = old.exchange(format!("GET /healthz HTTP/1.0\r\nHost: {host}\r\n\r\n"));
    response.expect_ok("ok\n");
    old.expect_closed();
}

#[test]
fn the_status_tells_of_workers_and_counts() {
    let backend = Backend::always(canned::ok("ok"));
    let admin = Admin::start(Setup::for_backends([backend.url()]).workers(3));
    let mut client = admin.proxy.client();
    (0..5).for_each(|_| client.get(HOST, "/").expect_ok("ok"));
    assert_eq!(admin.proxy.client().get("unknown.test", "/").status(), 400);
    // A request is counted behind its response.
    until("the requests are counted", || admin.json("/v1/status")["latency"]["total"]["count"] == 6);
    let status = admin.json("/v1/status");
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["ready"], true);
    assert_eq!(status["workers"].as_array().map(Vec::len), Some(3));
    assert_eq!(status["totals"]["requests"], 6, "requests of the service are none: {status}");
    assert_eq!(status["failures"], json!({"unknown_host": 1}));
    let connections = || {
        let status = admin.json("/v1/status");
        let workers = status["workers"].as_array().cloned().unwrap_or_default();
        workers.iter().filter_map(|worker| worker["connections"].as_u64()).sum::<u64>()
    };
    until("the open connections are counted", || connections() >= 1);
}

#[test]
fn a_token_is_asked_for() {
    let admin = Admin::start_with(Setup::new(), json!({"token": "s3cret"}));
    let refused = admin.get("/v1/status");
    assert_eq!(refused.status(), 401);
    assert!(refused.head.get("WWW-Authenticate").is_some_and(|value| value.starts_with("Basic ")));
    admin.get("/readyz").expect_ok("ready\n");
    let get = format!("GET /v1/status HTTP/1.1\r\nHost: {}\r\n", admin.host());
    for (authorization, status) in [("Bearer s3cret", 200), ("Basic Og==", 401), ("Basic OnMzY3JldA==", 200)] {
        let response = admin.client().exchange(format!("{get}Authorization: {authorization}\r\n\r\n"));
        assert_eq!(response.status(), status, "{authorization}");
    }
    let shown = admin.client().exchange(format!("{get}Authorization: Bearer s3cret\r\n\r\n"));
    assert!(!shown.text().contains("s3cret"));
}

#[test]
fn a_page_of_another_site_learns_nothing() {
    let admin = Admin::start(Setup::new());
    let host = admin.host();
    for (line, status) in [
        ("Origin: http://evil.test", 403),
        ("Origin: null", 403),
        ("Sec-Fetch-Site: cross-site", 403),
        ("Sec-Fetch-Site: same-origin", 200),
    ] {
        let request = format!("GET /v1/status HTTP/1.1\r\nHost: {host}\r\n{line}\r\n\r\n");
        assert_eq!(admin.client().exchange(request).status(), status, "{line}");
    }
}

#[test]
fn a_port_in_use_is_a_warning_and_clients_are_served() {
    let backend = Backend::always(canned::ok("ok"));
    let first = Admin::start(Setup::for_backends([backend.url()]));
    let mut setup = Setup::for_backends([backend.url()]);
    setup.launch.admin = json!({"bind": first.address.to_string()});
    let second = setup.start();
    second.client().get(HOST, "/").expect_ok("ok");
    let warning = format!("admin.bind: listening on {}: Address already in use", first.address);
    assert!(second.stderr().contains(&warning), "{}", second.stderr());
    let pid = first.json("/v1/status")["pid"].as_i64();
    assert_eq!(pid, Some(first.proxy.pid().as_raw().into()), "the service of the first proxy alone");
}

#[test]
fn a_successor_takes_the_service_over_but_no_client_of_it() {
    let mut admin = Admin::start(replaceable(Setup::new()));
    let mut client = admin.client();
    client.get(&admin.host(), "/healthz").expect_ok("ok\n");
    let successor = upgrade(&mut admin.proxy);
    client.expect_closed();
    until("the service is the successor's", || admin.json("/v1/status")["pid"] == successor);
}
