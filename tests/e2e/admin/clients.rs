//! Who may come to the service, and that it neither takes places of others nor goes without.

use super::Admin;
use crate::support::backend::Backend;
use crate::support::client::{Client, connect};
use crate::support::proxy::Setup;
use crate::support::{HOST, canned, until};
use serde_json::json;

/// More than one worker takes for the service.
const MANY: usize = 70;

#[test]
fn the_service_is_there_when_there_are_as_many_clients_as_may_be() {
    let backend = Backend::always(canned::ok("ok"));
    let setup = Setup::for_backends([backend.url()]).workers(1).set("maxConnections", 3);
    let admin = Admin::start(setup);
    // A request that is under way keeps its place.
    let mut clients: Vec<Client> = (0..3).map(|_| admin.proxy.client()).collect();
    for client in &mut clients {
        client.send(format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 2\r\n\r\nx"));
    }
    until("all places are taken", || admin.json("/v1/status")["workers"][0]["requests_in_flight"] == 3);
    let mut waiting = admin.proxy.client();
    waiting.send(canned::get(HOST, "/"));
    until("a client waits", || admin.json("/v1/status")["totals"]["accept_pauses"].as_u64() > Some(0));
    admin.get("/readyz").expect_ok("ready\n");
    clients[0].send("x");
    clients[0].response_to("POST").expect_ok("ok");
    drop(clients.remove(0));
    waiting.response_to("GET").expect_ok("ok");
}

#[test]
fn clients_of_the_service_take_no_places_and_idle_ones_make_room() {
    let backend = Backend::always(canned::ok("ok"));
    let setup = Setup::for_backends([backend.url()]).workers(1).set("maxConnections", 4);
    let admin = Admin::start(setup);
    let mut client = admin.proxy.client();
    client.get(HOST, "/").expect_ok("ok");
    let mut held: Vec<Client> = (0..MANY)
        .map(|_| {
            let mut client = admin.client();
            client.get(&admin.host(), "/healthz").expect_ok("ok\n");
            client
        })
        .collect();
    client.get(HOST, "/").expect_ok("ok");
    let status = admin.json("/v1/status");
    assert_eq!(status["totals"]["accept_pauses"], 0, "{status}");
    assert_eq!(status["totals"]["idle_clients_closed"], 0, "{status}");
    let own = |status: &serde_json::Value| {
        let worker = &status["workers"][0];
        (worker["accepted_connections"].clone(), worker["connections"].clone())
    };
    // Beside the client there is the one that has looked whether the proxy listens.
    until("no client of the service counts as one of traffic", || {
        own(&admin.json("/v1/status")) == (json!(2), json!(1))
    });
    held[0].expect_closed();
    held[MANY - 1].get(&admin.host(), "/healthz").expect_ok("ok\n");
}

#[test]
fn probes_of_load_balancers_need_no_name() {
    let admin = Admin::start_with(Setup::new(), json!({"token": "s3cret"}));
    for (request, status) in [
        ("GET /healthz HTTP/1.0\r\n\r\n", 200),
        ("GET /readyz HTTP/1.0\r\n\r\n", 200),
        ("GET /readyz HTTP/1.1\r\nHost: lb-target.example.com\r\n\r\n", 200),
        ("GET /readyz HTTP/1.1\r\n\r\n", 400),
        ("GET /v1/status HTTP/1.0\r\n\r\n", 403),
    ] {
        let response = Client::over(Box::new(connect(admin.address, None))).exchange(request);
        assert_eq!(response.status(), status, "{request:?}: {}", response.text());
    }
    // On the addresses of traffic a request has a host.
    let response = admin.proxy.client().exchange("GET /healthz HTTP/1.0\r\n\r\n");
    assert_eq!(response.status(), 400);
}

#[test]
fn refusals_are_counted_and_the_log_says_who_asked() {
    let admin = Admin::start_with(Setup::new(), json!({"token": "s3cret"}));
    let host = admin.host();
    let ask = |method: &str, path: &str, authorization: &str| {
        let fields = format!("Host: {host}\r\nAuthorization: {authorization}\r\nContent-Length: 0\r\n");
        admin.client().exchange(format!("{method} {path} HTTP/1.1\r\n{fields}\r\n"))
    };
    assert_eq!(ask("POST", "/v1/actions/reload", "Basic b3BzOndyb25n").status(), 401);
    assert_eq!(ask("POST", "/v1/actions/reload", "Basic b3BzOnMzY3JldA==").status(), 202);
    assert_eq!(ask("POST", "/v1/actions/dance", "Bearer s3cret").status(), 404);
    for line in [
        "admin: POST /v1/actions/reload: 202 for ops at 127.0.0.1",
        "admin: POST /v1/actions/dance: 404 for 127.0.0.1",
        "admin: POST /v1/actions/reload was refused: 401 for 127.0.0.1",
    ] {
        until(line, || admin.proxy.stderr().contains(line));
    }
    let metrics = ask("GET", "/metrics", "Bearer s3cret").text();
    assert!(metrics.contains("\nsluice_admin_refusals_total 1\n"), "{metrics}");
    assert!(!admin.proxy.stderr().contains("s3cret") && !admin.proxy.stderr().contains("wrong"));
}
