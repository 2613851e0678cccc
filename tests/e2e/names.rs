//! Backends that are given by name.

use crate::support::backend::Backend;
use crate::support::proxy::Setup;
use crate::support::{HOST, canned};

fn on_localhost() -> Backend {
    let any_port = "127.0.0.1:0".parse().expect("an address");
    Backend::raw_at(any_port, |conn| {
        while conn.request().is_some() {
            conn.send(canned::ok("ok"));
        }
    })
}

#[test]
fn a_name_is_resolved() {
    let backend = on_localhost();
    let url = format!("http://localhost:{}", backend.address().port());
    let proxy = Setup::for_backends([url]).start();
    let mut clients: Vec<_> = (0..4).map(|_| proxy.client()).collect();
    // All at once, so that some have to wait for the name.
    clients.iter_mut().for_each(|client| client.send(canned::get(HOST, "/")));
    clients.iter_mut().for_each(|client| client.response_to("GET").expect_ok("ok"));
    // What the backend sees is the host that was asked for, not its own name.
    assert!(backend.requests().iter().all(|request| request.head.get("host") == Some(HOST)));
}

#[test]
fn a_name_that_does_not_exist_is_502() {
    // A label of more than 63 letters needs no name server to be refused.
    let url = format!("http://{}.invalid", "x".repeat(64));
    let proxy = Setup::for_backends([url]).start();
    let response = proxy.client().exchange(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX-Debug: 1\r\n\r\n"));
    assert_eq!((response.status(), response.head.get("x-debug-error")), (502, Some("name_not_resolved")));
}

#[test]
fn a_name_that_does_not_exist_is_no_hindrance_beside_one_that_does() {
    let backend = on_localhost();
    let lost = format!("http://{}.invalid", "x".repeat(64));
    for _ in 0..5 {
        let proxy = Setup::for_backends([lost.clone(), backend.url()]).start();
        proxy.client().get(HOST, "/").expect_ok("ok");
    }
}
