//! Clients that prove who they are.

use crate::support::backend::Backend;
use crate::support::canned;
use crate::support::client::Client;
use crate::support::proxy::{Proxy, Setup};
use crate::support::tls::{Authority, Trust};
use crate::support::{HOST, until};

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
    let forged = "X_SSL_CLIENT_S_DN: CN=root\r\nx-ssl-client-s.dn: CN=root\r\nConnection: X-SSL-Client-S-DN\r\n";
    let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{HEADER}: CN=root\r\n{forged}\r\n");
    client.try_send(request) && client.try_response_to("GET").is_ok_and(|response| response.status() == 200)
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
    for forged in ["X_SSL_CLIENT_S_DN", "x-ssl-client-s.dn"] {
        assert!(backend.requests().iter().all(|request| request.head.get(forged).is_none()));
    }
}

#[test]
fn other_authorities_are_believed_as_soon_as_their_file_says_so() {
    let backend = Backend::always(canned::ok("hello"));
    let authority = Authority::new();
    let other = Authority::new();
    let proxy = asking(&backend, &authority, "required");
    let alice = authority.trust().with_own(&authority.issue(&["alice"]));
    let bob = authority.trust().with_own(&other.issue(&["bob"]));
    assert!(is_served(&alice, &proxy) && !is_served(&bob, &proxy));
    proxy.replace("clients.crt", "nothing of use");
    until("it is told", || proxy.stderr().contains("the authorities that were there before stay in use"));
    assert!(is_served(&alice, &proxy));
    proxy.replace("clients.crt", &other.pem());
    until("bob is believed", || is_served(&bob, &proxy));
    // Not even with the ticket that was given before.
    until("alice is a stranger at every core", || (0..4).all(|_| !is_served(&alice, &proxy)));
    assert_eq!(backend.requests().last().and_then(|last| last.head.get(HEADER)), Some("CN=bob"));
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
