//! The backend that a request prefers: by a hashed part of it, by a session, or because its client names one.

use crate::clusters::{Holding, sends, write};
use crate::support::backend::Backend;
use crate::support::proxy::{Proxy, Setup};
use crate::support::tls::Authority;
use crate::support::{HOST, canned, until};
use serde_json::json;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

/// More than enough for each of three backends to have one.
const KEYS: u8 = 48;

/// Who serves requests with this target and these fields, of a client with an address of its own.
fn served_by(proxy: &Proxy, client: u8, target: &str, fields: &str) -> String {
    let mut client = proxy.client_from(IpAddr::V4(Ipv4Addr::new(127, 0, 1, client)));
    client.exchange(format!("GET {target} HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n")).text()
}

#[test]
fn each_kind_of_key_keeps_its_requests_at_a_backend() {
    let backends: Vec<_> = (0..3).map(|number| Backend::always(canned::ok(&number.to_string()))).collect();
    let urls: Vec<_> = backends.iter().map(Backend::url).collect();
    let proxy = Setup::for_backends(urls.clone()).start();
    // Two requests with the same key differ in all else.
    type Send = fn(&Proxy, u8, u8) -> String;
    let table: [(&str, Send); 7] = [
        ("client", |proxy, key, other| served_by(proxy, key, &format!("/{other}/{key}"), "")),
        ("header:X-User", |proxy, key, other| served_by(proxy, 1 + other, &format!("/{other}"), &field("X-User", key))),
        ("cookie:user", |proxy, key, other| {
            served_by(proxy, 1 + other, &format!("/{other}"), &format!("Cookie: other={other}; user={key}\r\n"))
        }),
        ("uri", |proxy, key, other| served_by(proxy, 1 + other, &format!("/a?user={key}"), &field("X-User", other))),
        ("path", |proxy, key, other| served_by(proxy, 1 + other, &format!("/{key}/a?{other}"), "")),
        ("segment", |proxy, key, other| served_by(proxy, 1 + other, &format!("/{key}/{other}"), "")),
        ("query:user", |proxy, key, other| served_by(proxy, 1 + other, &format!("/{other}?a={other}&user={key}"), "")),
    ];
    for (kind, send) in table {
        write(&proxy, &urls, &json!({"scheduler": "hash", "hash.key": kind}));
        until(&format!("{kind} decides"), || {
            let pairs: Vec<_> = (1..=KEYS).map(|key| [0, 1].map(|other| send(&proxy, key, other))).collect();
            let all: BTreeSet<&String> = pairs.iter().flatten().collect();
            pairs.iter().all(|[one, other]| one == other) && all.len() == 3
        });
    }
}

fn field(name: &str, value: u8) -> String {
    format!("{name}: {value}\r\n")
}

#[test]
fn a_cookie_of_a_trusted_client_names_its_backend() {
    let backends = [Backend::always(canned::ok("0")), Backend::always(canned::ok("1"))];
    let urls = [backends[0].url(), format!("{}#weight=0", backends[1].url())];
    let start = |networks: &[&str]| {
        let setup = Setup::for_backends(urls.clone()).option(HOST, "backend.cookie", "node");
        setup.set("trustedNetworks", json!(networks)).start()
    };
    let cookie = |node: &str| format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nCookie: a=b; node={node}\r\n\r\n");
    let second = cookie(&backends[1].address().to_string());
    let proxy = start(&["127.0.0.1"]);
    let mut client = proxy.client_from(IpAddr::V4(Ipv4Addr::LOCALHOST));
    client.exchange(&second).expect_ok("1");
    client.get(HOST, "/").expect_ok("0");
    assert_eq!(client.exchange(cookie("10.0.0.1:80")).status(), 503, "no other serves in place of an unknown one");
    // It is a word of operators: other clients have no say, and no error.
    proxy.client_from(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9))).exchange(&second).expect_ok("0");
    start(&[]).client().exchange(&second).expect_ok("0");
}

#[test]
fn the_cookie_of_a_session_over_tls_is_for_tls_alone() {
    let backend = Backend::always(canned::ok("served"));
    let authority = Authority::new();
    let setup = Setup::for_backends([backend.url()]).option(HOST, "sticky.cookie", "node").with_https();
    let proxy = setup.default_certificate(&authority.issue(&[HOST])).start();
    let set = |response: crate::support::client::Response| {
        let set = response.head.get("set-cookie").expect("a cookie").to_owned();
        set.split_once("; ").expect("attributes").1.to_owned()
    };
    let secure = set(authority.trust().client(&proxy, HOST).get(HOST, "/"));
    assert_eq!(secure, "Path=/; HttpOnly; SameSite=Lax; Secure");
    assert_eq!(set(proxy.client().get(HOST, "/")), "Path=/; HttpOnly; SameSite=Lax");
}

#[test]
fn a_session_is_honoured_by_upgrades() {
    let echo = |name: &'static str| {
        Backend::serve(move |request, conn| {
            if request.head.get("upgrade").is_none() {
                return conn.send(canned::ok(name));
            }
            conn.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
            conn.send(name);
            conn.finish();
        })
    };
    let backends = [echo("0"), echo("1"), echo("2")];
    let urls = backends.each_ref().map(Backend::url);
    let proxy = Setup::for_backends(urls).option(HOST, "sticky.cookie", "node").start();
    let mut named = BTreeSet::new();
    until("each backend has a session", || {
        let first = proxy.client().get(HOST, "/");
        let set = first.head.get("set-cookie").expect("a cookie").to_owned();
        let cookie = set.split(';').next().expect("a value");
        for _ in 0..4 {
            let mut client = proxy.client();
            let upgrade = "Connection: upgrade\r\nUpgrade: echo\r\n";
            client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{upgrade}Cookie: {cookie}\r\n\r\n"));
            assert_eq!(client.head().status(), 101);
            assert_eq!(client.bytes(1), first.text().into_bytes());
        }
        named.insert(first.text());
        named.len() == 3
    });
}

#[test]
fn a_session_whose_backend_is_full_is_served_elsewhere_and_stays() {
    let holding = [(); 2].map(|()| Holding::new());
    let urls = holding.each_ref().map(|one| one.with("capacity=1"));
    let proxy = Setup::for_backends(urls).option(HOST, "sticky.cookie", "node").start();
    let set = proxy.client().get(HOST, "/first").head.get("set-cookie").expect("a cookie").to_owned();
    let own = holding.iter().position(|one| one.backend.heads() == 1).expect("a backend that has served");
    let cookie = set.split(';').next().expect("a value");
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nCookie: {cookie}\r\n\r\n");
    let mut holder = proxy.client();
    holder.send(request("/held"));
    holding[own].backend.until_heads(2);
    let elsewhere = proxy.client().exchange(request("/elsewhere"));
    elsewhere.expect_ok("/elsewhere");
    assert_eq!(elsewhere.head.get("set-cookie"), None, "it comes back");
    assert_eq!(holding[1 - own].backend.heads(), 1);
    holding[own].turnstile.let_through(1);
    holder.response_to("GET").expect_ok("/held");
    proxy.client().exchange(request("/back")).expect_ok("/back");
    assert_eq!(holding.each_ref().map(|one| one.backend.heads()).iter().sum::<usize>(), 4);
    assert_eq!(holding[own].backend.heads(), 3);
    // Both are full: it waits as others do.
    let _held = [sends(&proxy, "/held/1"), sends(&proxy, "/held/2")];
    until("both are full", || holding.iter().all(|one| one.held() == 1));
    let mut waiting = proxy.client();
    waiting.send(request("/waiting"));
    holding.iter().for_each(|one| one.turnstile.let_through(1));
    waiting.response_to("GET").expect_ok("/waiting");
}
