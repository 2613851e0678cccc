//! What the proxy adds to messages: forwarded headers, Via, X-Debug.

use crate::support::backend::Backend;
use crate::support::message::Head;
use crate::support::proxy::{Proxy, Setup};
use crate::support::{HOST, canned, unused_address};
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr};

const FORGED: &str = "X-Forwarded-For: 198.51.100.7\r\nx-forwarded-for: 198.51.100.8, 10.9.8.7\r\nX-Real-IP: 198.51.100.7\r\n\
    X-Forwarded-Proto: https\r\nX-Forwarded-Protocol: https\r\nX-Forwarded-Port: 443\r\n";

const TRUSTED: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 200, 0, 5));
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 201, 0, 5));

/// The head the backend sees of a request with these fields that comes from `source`.
fn head_at_backend(setup: Setup, backend: &Backend, source: IpAddr, fields: &str) -> (Head, Proxy) {
    let proxy = setup.route(HOST, [backend.url()]).start();
    let mut client = proxy.client_from(source);
    client.exchange(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n")).expect_ok("ok");
    (backend.only_request().head, proxy)
}

/// The elements of a list field, over all its lines.
fn elements<'a>(head: &'a Head, name: &str) -> Vec<&'a str> {
    head.all(name).into_iter().flat_map(|value| value.split(',')).map(str::trim).collect()
}

#[track_caller]
fn expect_own_view(head: &Head, proxy: &Proxy, source: IpAddr) {
    let (source, port) = (source.to_string(), proxy.address().port().to_string());
    assert_eq!(head.all("x-forwarded-for"), [source.as_str()], "in {head}");
    assert_eq!(head.all("x-real-ip"), [source.as_str()], "in {head}");
    assert_eq!(head.all("x-forwarded-proto"), ["http"], "in {head}");
    assert_eq!(head.all("x-forwarded-protocol"), ["http"], "in {head}");
    assert_eq!(head.all("x-forwarded-port"), [port.as_str()], "in {head}");
}

#[test]
fn a_backend_is_told_about_the_client() {
    let backend = Backend::always(canned::ok("ok"));
    let (head, proxy) = head_at_backend(Setup::new(), &backend, STRANGER, "");
    expect_own_view(&head, &proxy, STRANGER);
}

#[test]
fn nobody_is_believed_by_default() {
    let backend = Backend::always(canned::ok("ok"));
    let (head, proxy) = head_at_backend(Setup::new(), &backend, STRANGER, FORGED);
    expect_own_view(&head, &proxy, STRANGER);
}

#[test]
fn a_stranger_is_not_believed_where_others_are() {
    let backend = Backend::always(canned::ok("ok"));
    let setup = Setup::new().set("trustedNetworks", json!(["127.200.0.0/16"])).set("forwardedMode", "append");
    let (head, proxy) = head_at_backend(setup, &backend, STRANGER, FORGED);
    expect_own_view(&head, &proxy, STRANGER);
}

#[test]
fn a_trusted_proxy_is_believed_and_appended() {
    let backend = Backend::always(canned::ok("ok"));
    let setup = Setup::new().set("trustedNetworks", json!(["127.200.0.0/16"])).set("forwardedMode", "append");
    let (head, _proxy) = head_at_backend(setup, &backend, TRUSTED, FORGED);
    let hops = elements(&head, "x-forwarded-for");
    assert_eq!(hops, ["198.51.100.7", "198.51.100.8", "10.9.8.7", "127.200.0.5"], "in {head}");
    assert_eq!(head.all("x-real-ip"), ["198.51.100.7"], "in {head}");
    assert_eq!(head.all("x-forwarded-proto"), ["https"], "in {head}");
    assert_eq!(head.all("x-forwarded-protocol"), ["https"], "in {head}");
    assert_eq!(head.all("x-forwarded-port"), ["443"], "in {head}");
}

#[test]
fn what_a_trusted_proxy_does_not_say_is_added() {
    let backend = Backend::always(canned::ok("ok"));
    let setup = Setup::new().set("trustedNetworks", json!(["127.200.0.0/16"])).set("forwardedMode", "append");
    let (head, proxy) = head_at_backend(setup, &backend, TRUSTED, "");
    expect_own_view(&head, &proxy, TRUSTED);
}

#[test]
fn even_a_trusted_proxy_is_replaced_where_set_so() {
    let backend = Backend::always(canned::ok("ok"));
    let setup = Setup::new().set("trustedNetworks", json!(["127.200.0.0/16"])).set("forwardedMode", "replace");
    let (head, proxy) = head_at_backend(setup, &backend, TRUSTED, FORGED);
    expect_own_view(&head, &proxy, TRUSTED);
}

#[test]
fn via_names_the_proxy_in_both_directions() {
    let backend = Backend::always("HTTP/1.1 200 OK\r\nVia: 1.1 inner\r\nContent-Length: 2\r\n\r\nok");
    let proxy = Setup::for_backends([backend.url()]).start();
    let mut client = proxy.client();
    let response = client.exchange(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nVia: 1.0 outer\r\n\r\n"));
    assert_eq!(elements(&response.head, "via"), ["1.1 inner", "1.1 sluice"], "in {}", response.head);
    client.exchange(format!("GET / HTTP/1.0\r\nHost: {HOST}\r\n\r\n")).expect_ok("ok");
    let [first, second] = backend.requests().try_into().expect("two requests");
    // To backends with the mark of this node.
    let [outer, own] = elements(&first.head, "via").try_into().expect("two entries");
    assert_eq!(outer, "1.0 outer");
    let mark = own.strip_prefix("1.1 sluice-").unwrap_or_else(|| panic!("no mark in {own}"));
    assert!(mark.len() == 12 && mark.bytes().all(|byte| byte.is_ascii_hexdigit()), "{own}");
    assert_eq!(elements(&second.head, "via"), [format!("1.0 sluice-{mark}")], "in {}", second.head);
}

#[test]
fn via_may_be_another_name_or_none() {
    for (via, expected) in [(json!("edge-7"), vec!["1.1 edge-7"]), (json!(false), vec![])] {
        let backend = Backend::always(canned::ok("ok"));
        let proxy = Setup::for_backends([backend.url()]).set("via", via.clone()).start();
        let response = proxy.client().get(HOST, "/");
        assert_eq!(elements(&response.head, "via"), expected, "the answer with via {via}");
        let head = backend.only_request().head;
        let unmarked = |entry: &String| entry.rsplit_once('-').expect("a mark").0.to_owned();
        let entries: Vec<String> = elements(&head, "via").iter().map(|entry| unmarked(&entry.to_string())).collect();
        assert_eq!(entries, expected, "the request with via {via}");
    }
}

const DEBUG_FIELDS: [&str; 7] = [
    "x-debug-version",
    "x-debug-backend-url",
    "x-debug-backend-id",
    "x-debug-vhost",
    "x-debug-frontend-key",
    "x-debug-time-total",
    "x-debug-time-backend",
];

fn asking_for_debug(host: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\nX-Debug: 1\r\n\r\n")
}

#[test]
fn x_debug_shows_where_a_response_came_from() {
    let backend = Backend::always(canned::ok("ok"));
    let proxy = Setup::for_backends([backend.url()]).start();
    let mut client = proxy.client();
    let response = client.exchange(asking_for_debug(HOST));
    let shown = |name| response.head.get(name).unwrap_or_else(|| panic!("no {name} in {}", response.head));
    assert!(shown("x-debug-version").contains(env!("CARGO_PKG_VERSION")), "in {}", response.head);
    assert_eq!(shown("x-debug-backend-url").trim_end_matches('/'), backend.url());
    assert_eq!(shown("x-debug-backend-id"), "0");
    assert_eq!(shown("x-debug-vhost"), format!("site of {HOST}"));
    assert_eq!(shown("x-debug-frontend-key"), HOST);
    let total: f64 = shown("x-debug-time-total").parse().expect("milliseconds");
    let at_backend: f64 = shown("x-debug-time-backend").parse().expect("milliseconds");
    assert!(total >= at_backend && at_backend >= 0.0, "in {}", response.head);

    let response = client.get(HOST, "/");
    let unasked: Vec<_> = DEBUG_FIELDS.iter().filter(|name| response.head.get(name).is_some()).collect();
    assert!(unasked.is_empty(), "nobody asked for {unasked:?}");
}

#[test]
fn x_debug_numbers_backends_by_their_place_in_the_list() {
    let backend = Backend::always(canned::ok("ok"));
    let dead = format!("http://{}", unused_address());
    let proxy = Setup::for_backends([dead, backend.url()]).start();
    let response = proxy.client().exchange(asking_for_debug(HOST));
    response.expect_ok("ok");
    assert_eq!(response.head.get("x-debug-backend-id"), Some("1"));
}

#[test]
fn x_debug_error_names_the_reason() {
    let proxy = Setup::for_backends([format!("http://{}", unused_address())]).start();
    let mut client = proxy.client();
    let response = client.exchange(asking_for_debug("nobody.test"));
    assert_eq!((response.status(), response.head.get("x-debug-error")), (400, Some("unknown_host")));
    let response = proxy.client().exchange(asking_for_debug(HOST));
    assert_eq!((response.status(), response.head.get("x-debug-error")), (502, Some("connect_failed")));
    let response = proxy.client().get("nobody.test", "/");
    assert_eq!((response.status(), response.head.get("x-debug-error")), (400, None));
    // A head that is refused as a whole can still ask.
    let response = proxy.client().exchange("GET / HTTP/1.1\r\nX-Debug: 1\r\n\r\n");
    assert_eq!((response.status(), response.head.get("x-debug-error")), (400, Some("bad_host")));
}

#[test]
fn x_debug_shows_where_a_tunnel_leads() {
    let backend = Backend::serve(|_, conn| {
        conn.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: lines\r\n\r\n");
        conn.finish();
    });
    let proxy = Setup::for_backends([backend.url()]).start();
    let mut client = proxy.client();
    let asking = asking_for_debug(HOST).replace("\r\n\r\n", "\r\nConnection: Upgrade\r\nUpgrade: lines\r\n\r\n");
    client.send(asking);
    let head = client.head();
    assert_eq!(head.get("x-debug-backend-url"), Some(&*backend.url()), "in {head}");
}

#[test]
fn x_debug_tells_nobody_by_default() {
    let backend = Backend::always(canned::ok("ok"));
    let proxy = Setup::for_backends([backend.url()]).set("debugNetworks", json!(null)).start();
    for host in [HOST, "nobody.test"] {
        let answer = proxy.client().exchange(asking_for_debug(host));
        assert!(!answer.head.names().iter().any(|name| name.starts_with("x-debug")), "{}", answer.head);
    }
}

#[test]
fn x_debug_may_be_limited_to_networks() {
    let backend = Backend::always(canned::ok("ok"));
    let setup = Setup::for_backends([backend.url()]).set("debugNetworks", json!(["127.200.0.0/16"]));
    let proxy = setup.start();
    for (source, expected) in [(TRUSTED, true), (STRANGER, false)] {
        let response = proxy.client_from(source).exchange(asking_for_debug(HOST));
        assert_eq!(response.head.get("x-debug-backend-url").is_some(), expected, "from {source}: {}", response.head);
        let response = proxy.client_from(source).exchange(asking_for_debug("nobody.test"));
        assert_eq!(response.head.get("x-debug-error").is_some(), expected, "from {source}: {}", response.head);
    }
}
