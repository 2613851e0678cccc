//! Probes go the way of requests: TLS, PROXY protocol, time-outs.

use super::{Site, monitor, setup, until_said};
use crate::support::backend::Backend;
use crate::support::proxy::Setup;
use crate::support::tls::Authority;
use crate::support::{HOST, canned, until};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[test]
fn a_silent_backend_is_down_after_the_timeout() {
    let backend = Backend::serve(|request, conn| {
        if !super::is_probe(request) {
            conn.send(canned::ok("ok"));
        }
    });
    let proxy = setup([backend.url()], &monitor("paranoid", json!({"timeout": "100ms"}))).start();
    proxy.client().get(HOST, "/");
    until_said(&proxy, "is down: a health probe failed: it did not respond within health.timeout", 1);
    assert_eq!(proxy.client().get(HOST, "/").status(), 502);
}

#[test]
fn a_backend_of_https_is_probed_over_tls() {
    let site = Site::new("secret");
    let (authority, name) = (Authority::new(), "inner.test");
    let behind = Setup::for_backends([site.url()]).with_https();
    let behind = behind.default_certificate(&authority.issue(&[name])).start();
    let url = format!("https://{}#sni={name}", behind.secure_address());
    let options = monitor("paranoid", json!({"host": HOST, "method": "GET", "body": "is well"}));
    let front = |trusted: &Authority| {
        let setup = setup([url.clone()], &options).file("authority.crt", &trusted.pem());
        setup.set("backendTls", json!({"ca": "authority.crt"})).start()
    };
    let proxy = front(&authority);
    proxy.client().get(HOST, "/").expect_ok("secret");
    site.until_probes(3);
    assert_eq!(site.probes()[0].head.get("X-Forwarded-Proto"), Some("https"));
    site.respond(canned::ok("lost"));
    until_said(&proxy, "is down: a health probe failed: its response does not contain health.body", 1);
    site.recover();
    until_said(&proxy, "is up again", 1);
    let proxy = front(&Authority::new());
    proxy.client().get(HOST, "/");
    until_said(&proxy, "is down: a health probe failed: the TLS handshake failed", 1);
}

#[test]
fn a_probe_begins_with_the_proxy_header_of_a_node_that_speaks_for_itself() {
    for (version, header) in [("v1", b"PROXY UNKNOWN\r\n".to_vec()), ("v2", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec())]
    {
        let probes = Arc::new(AtomicUsize::new(0));
        let (seen, expected) = (Arc::clone(&probes), header);
        let backend = Backend::raw(move |conn| {
            if conn.bytes(expected.len() as u64) == expected
                && conn.request().is_some_and(|request| super::is_probe(&request))
            {
                seen.fetch_add(1, Ordering::SeqCst);
                conn.send(canned::ok(""));
            }
        });
        let proxy = setup([format!("{}#proxy={version}", backend.url())], &monitor("paranoid", json!({}))).start();
        proxy.client().get(HOST, "/");
        until("probes", || probes.load(Ordering::SeqCst) >= 5);
        assert!(!proxy.stderr().contains("is down"), "{}", proxy.stderr());
    }
}

#[test]
fn a_name_that_is_not_found_is_a_failed_probe_and_one_of_several_addresses_is_enough() {
    // `localhost` may have an address of IPv6 too, where nothing listens.
    let site = Site::new("named");
    let relay = Backend::raw_at("127.0.0.1:0".parse().expect("an address"), |conn| {
        while conn.request().is_some() {
            conn.send(canned::ok("named"));
        }
    });
    let named = format!("http://localhost:{}", relay.address().port());
    let lost = "http://no-such-name.invalid:80".to_owned();
    let proxy = setup([named.clone(), lost.clone(), site.url()], &monitor("paranoid", json!({}))).start();
    proxy.client().get(HOST, "/").expect_ok("named");
    until_said(&proxy, &format!("backend {lost} is down: a health probe failed: its name was not found"), 1);
    until("the name is probed", || relay.requests().iter().filter(|request| super::is_probe(request)).count() >= 5);
    assert!(!proxy.stderr().contains(&format!("backend {named} is down")), "{}", proxy.stderr());
}
