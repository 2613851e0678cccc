//! Refreshes of the object cache in the background.

use crate::support::backend::Backend;
use crate::support::client::Response;
use crate::support::proxy::{Proxy, Setup};
use crate::support::{Gate, HOST, until};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

fn proxy_of(backend: &Backend, mut cache: Value) -> Setup {
    cache["enabled"] = json!(true);
    Setup::for_backends([backend.url()]).option(HOST, "cache", cache)
}

fn lookup(response: &Response) -> (u16, Option<&str>, String) {
    (response.status(), response.head.get("X-Cache-Lookup"), response.text())
}

fn ask(proxy: &Proxy) -> Response {
    proxy.client().get(HOST, "/")
}

/// A backend whose first response is stale at once, and whose later ones wait for the gate.
fn backend(gate: &Arc<Gate>, window: &'static str) -> Backend {
    let (held, turn) = (Arc::clone(gate), AtomicUsize::new(0));
    Backend::serve(move |_, conn| {
        let head = |fields: &str, len: usize| {
            format!("HTTP/1.1 200 OK\r\nCache-Control: {fields}\r\nContent-Length: {len}\r\n\r\n")
        };
        match turn.fetch_add(1, Ordering::SeqCst) {
            0 => conn.send(head(&format!("max-age=0{window}"), 3) + "old"),
            _ => {
                held.pass();
                // It comes in many reads.
                conn.send(head("max-age=600", 300_000) + &"new".repeat(100_000));
            }
        }
    })
}

#[test]
fn no_client_waits_for_a_refresh() {
    let window = ", stale-while-revalidate=600";
    for (window, options, tenants) in [
        (window, json!({}), None),
        ("", json!({"lockOnUpdate": false}), None),
        // A refresh has no client of a tenant.
        (window, json!({}), Some(json!({"enabled": true, "requests": 100}))),
    ] {
        let gate = Arc::new(Gate::default());
        let backend = backend(&gate, window);
        let setup = proxy_of(&backend, options).workers(2);
        let proxy = tenants.into_iter().fold(setup, |setup, tenants| setup.set("tenants", tenants)).start();
        assert_eq!(lookup(&ask(&proxy)), (200, Some("miss"), "old".to_owned()));
        // The backend does not respond, and one request is with it.
        let mut kept = proxy.client();
        for _ in 0..10 {
            assert_eq!(lookup(&kept.get(HOST, "/")), (200, Some("stale-updating"), "old".to_owned()));
            assert_eq!(lookup(&ask(&proxy)), (200, Some("stale-updating"), "old".to_owned()));
        }
        backend.until_heads(2);
        gate.open();
        until("it is refreshed", || lookup(&ask(&proxy)) == (200, Some("hit"), "new".repeat(100_000)));
        assert_eq!(backend.heads(), 2);
    }
}

/// A backend that never responds costs no client anything, and is asked again after the timeout of the refresh.
#[test]
fn a_refresh_without_a_response_is_tried_again() {
    let gate = Arc::new(Gate::default());
    let backend = backend(&gate, ", stale-while-revalidate=600");
    let setup = proxy_of(&backend, json!({"updateLockTimeout": "300ms"}));
    let mut proxy = setup.option(HOST, "responseTimeout", json!("200ms")).start();
    assert_eq!(ask(&proxy).text(), "old");
    until("it is asked again and again", || {
        assert_eq!(lookup(&ask(&proxy)), (200, Some("stale-updating"), "old".to_owned()));
        backend.heads() >= 4
    });
    // A stop waits for no refresh.
    proxy.signal(nix::sys::signal::Signal::SIGTERM);
    proxy.until_exit();
    gate.open();
}
