//! `maxRequestsPerClient`, and session cookies that nobody can make.

use crate::clusters::{Holding, expect_own, sends};
use crate::support::backend::Backend;
use crate::support::proxy::Setup;
use crate::support::{HOST, canned, worker_has_caught_up};
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr};

#[test]
fn a_client_has_so_many_requests_at_a_time_and_no_more() {
    let holding = Holding::new();
    let setup = Setup::for_backends([holding.backend.url()]).option(HOST, "maxRequestsPerClient", 2);
    let proxy = setup.set("trustedNetworks", json!(["127.0.0.9/32"])).option(HOST, "retryAfter", 3).start();
    let mut held: Vec<_> = (0..2).map(|number| sends(&proxy, &format!("/held/{number}"))).collect();
    holding.backend.until_heads(2);
    let mut refused = sends(&proxy, "/");
    expect_own(&mut refused, 429, "client_limit", Some("3"));
    let other = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
    proxy.client_from(other).get(HOST, "/other").expect_ok("/other");
    // The clients of a trusted proxy are those that it tells of.
    let mut behind = proxy.client_from(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9)));
    let told = |client: &str| format!("GET /told HTTP/1.1\r\nHost: {HOST}\r\nX-Forwarded-For: {client}\r\n\r\n");
    behind.exchange(told("192.0.2.7")).expect_ok("/told");
    assert_eq!(behind.exchange(told("127.0.0.1")).status(), 429);
    holding.turnstile.let_through(2);
    for (number, client) in held.iter_mut().enumerate() {
        client.response_to("GET").expect_ok(&format!("/held/{number}"));
    }
    worker_has_caught_up(&proxy);
    // Its connection is idle, and counts for nothing.
    refused.get(HOST, "/again").expect_ok("/again");
    held[0].get(HOST, "/more").expect_ok("/more");
    sends(&proxy, "/last").response_to("GET").expect_ok("/last");
}

#[test]
fn a_session_cookie_is_keyed_by_the_secret_of_the_node() {
    let backend = Backend::always(canned::ok("only"));
    let cookie = |secret: Option<&str>| {
        let mut setup = Setup::for_backends([backend.url()]).option(HOST, "sticky.cookie", "node");
        if let Some(secret) = secret {
            setup = setup.set("cookieSecret", secret);
        }
        let response = setup.start().client().get(HOST, "/");
        response.head.get("set-cookie").expect("a cookie").to_owned()
    };
    let keyed = cookie(Some("a secret of all nodes"));
    assert_eq!(keyed, cookie(Some("a secret of all nodes")), "all nodes agree");
    assert_ne!(keyed, cookie(Some("another secret")));
    assert_ne!(keyed, cookie(None));
}
