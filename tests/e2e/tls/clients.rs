//! Clients that prove who they are.

use crate::support::HOST;
use crate::support::backend::Backend;
use crate::support::canned;
use crate::support::client::Client;
use crate::support::proxy::{Proxy, Setup};
use crate::support::tls::{Authority, Trust};

const HEADER: &str = "X-SSL-Client-S-DN";

fn asking(backend: &Backend, authority: &Authority, mode: &str) -> Proxy {
    Setup::for_backends([backend.url()])
        .with_https()
        .default_certificate(&authority.issue(&[HOST]))
        .file("clients.crt", &authority.pem())
        .set_https("clientAuth", mode)
        .set_https("clientCa", "clients.crt")
        .start()
}

/// Whether a client gets an answer. With TLS 1.3 it learns after its handshake only that it was refused.
fn is_served(trust: &Trust, proxy: &Proxy) -> bool {
    let Ok(stream) = trust.try_connect(proxy.secure_address(), HOST) else { return false };
    let mut client = Client::over(Box::new(stream));
    let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{HEADER}: CN=root\r\nX_SSL_CLIENT_S_DN: CN=root\r\n\r\n");
    client.try_send(request) && client.try_answer_to("GET").is_ok_and(|answer| answer.status() == 200)
}

#[test]
fn who_has_to_prove_it_does_and_the_backend_is_told() {
    let backend = Backend::always(canned::ok("hello"));
    let authority = Authority::new();
    let alice = authority.issue(&["alice"]);
    let mallory = Authority::new().issue(&["mallory"]);
    let required = asking(&backend, &authority, "required");
    assert!(is_served(&authority.trust().with_own(&alice), &required));
    assert!(!is_served(&authority.trust().with_own(&mallory), &required));
    assert!(!is_served(&authority.trust(), &required));
    let optional = asking(&backend, &authority, "optional");
    assert!(is_served(&authority.trust().with_own(&alice), &optional));
    assert!(!is_served(&authority.trust().with_own(&mallory), &optional));
    assert!(is_served(&authority.trust(), &optional));
    let seen: Vec<_> = backend.requests().iter().map(|request| request.head.all(HEADER).join(",")).collect();
    assert_eq!(seen, ["CN=alice", "CN=alice", ""]);
    assert!(backend.requests().iter().all(|request| request.head.get("X_SSL_CLIENT_S_DN").is_none()));
}

#[test]
fn a_ticket_remembers_who_it_was_given_to() {
    let backend = Backend::always(canned::ok("hello"));
    let authority = Authority::new();
    let proxy = asking(&backend, &authority, "required");
    let alice = authority.trust().with_own(&authority.issue(&["alice"]));
    assert!(is_served(&alice, &proxy));
    let again = alice.connect(proxy.secure_address(), HOST);
    assert!(again.is_resumed());
    Client::over(Box::new(again)).get(HOST, "/").expect_ok("hello");
    assert!(backend.requests().iter().all(|request| request.head.get(HEADER) == Some("CN=alice")));
}
