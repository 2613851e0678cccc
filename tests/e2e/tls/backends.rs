//! Backends of `https://`. The backend of most tests is a second proxy in front of an ordinary one.

use crate::support::backend::Backend;
use crate::support::proxy::{Proxy, Setup};
use crate::support::tls::{Authority, provider, serve_once};
use crate::support::{HOST, canned, until};
use serde_json::json;

/// A proxy that does the encryption for `backend`, with a certificate for this name.
fn encrypted(backend: &Backend, authority: &Authority, name: &str) -> Setup {
    let setup = Setup::for_backends([backend.url()]).with_https();
    setup.default_certificate(&authority.issue(&[name]))
}

/// A proxy in front of it that trusts this authority and is told more of `server.backendTls`.
fn front(behind: &Proxy, host: &str, authority: &Authority, more: &serde_json::Value) -> Setup {
    let url = format!("https://{host}:{}", behind.secure_address().port());
    let mut settings = json!({"ca": "authority.crt"});
    for (key, value) in more.as_object().into_iter().flatten() {
        settings[key] = value.clone();
    }
    let setup = Setup::for_backends([url]).file("authority.crt", &authority.pem());
    setup.set("backendTls", settings).set("deadBackendTTL", 0.001)
}

fn address(proxy: &Proxy) -> String {
    proxy.secure_address().ip().to_string()
}

#[test]
fn a_backend_that_proves_who_it_is_is_talked_to_and_its_connection_kept() {
    let backend = Backend::always(canned::ok("hello"));
    let authority = Authority::new();
    let setup = Setup::for_backends([backend.url()]).with_https();
    let ip = setup.secure_ip();
    let behind = setup.default_certificate(&authority.issue(&[&ip])).start();
    let proxy = front(&behind, &address(&behind), &authority, &json!({})).workers(1).start();
    for _ in 0..5 {
        proxy.client().get(HOST, "/").expect_ok("hello");
    }
    assert!(backend.requests().iter().all(|request| request.head.get("X-Forwarded-Proto") == Some("https")));
    assert_eq!(backend.requests().len(), 5);
}

#[test]
fn a_backend_that_is_somebody_else_gets_no_request_unless_that_is_no_matter() {
    let backend = Backend::always(canned::ok("hello"));
    let authority = Authority::new();
    let behind = encrypted(&backend, &authority, "somebody.else.test").start();
    let ip = address(&behind);
    let refused = [
        front(&behind, &ip, &authority, &json!({})).start(),
        front(&behind, &ip, &Authority::new(), &json!({})).start(),
    ];
    for proxy in &refused {
        let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX-Debug: 1\r\n\r\n");
        let answer = proxy.client().exchange(request);
        assert_eq!((answer.status(), answer.head.get("X-Debug-Error")), (502, Some("tls_failed")));
        until("it is told", || proxy.stderr().contains("shaking hands: invalid peer certificate"));
    }
    assert_eq!(backend.heads(), 0);
    let proxy = front(&behind, &ip, &authority, &json!({"insecure": true, "ca": null})).start();
    proxy.client().get(HOST, "/").expect_ok("hello");
}

#[test]
fn a_backend_may_want_to_know_who_asks() {
    let backend = Backend::always(canned::ok("hello"));
    let authority = Authority::new();
    let setup = Setup::for_backends([backend.url()]).with_https();
    let ip = setup.secure_ip();
    let behind = setup
        .default_certificate(&authority.issue(&[&ip]))
        .file("clients.crt", &authority.pem())
        .set_https("clientAuth", "required")
        .set_https("clientCa", "clients.crt")
        .start();
    let own = authority.issue(&["edge-1.test"]);
    let proxy = front(&behind, &ip, &authority, &json!({"cert": "own.crt", "key": "own.key"}))
        .file("own.crt", &own.certificate)
        .secret("own.key", &own.key)
        .start();
    proxy.client().get(HOST, "/").expect_ok("hello");
    assert_eq!(backend.only_request().head.get("X-SSL-Client-S-DN"), Some("CN=edge-1.test"));
    let stranger = front(&behind, &ip, &authority, &json!({})).start();
    assert_eq!(stranger.client().get(HOST, "/").status(), 502);
}

#[test]
fn an_answer_that_was_cut_is_no_whole_one() {
    let authority = Authority::new();
    for (says_goodbye, is_whole) in [(true, true), (false, false)] {
        let pair = authority.issue(&["127.0.0.1"]);
        let address = serve_once(&provider(), &pair, b"HTTP/1.1 200 OK\r\n\r\nuntil the end", says_goodbye);
        let proxy = Setup::for_backends([format!("https://{address}")])
            .file("authority.crt", &authority.pem())
            .set("backendTls", json!({"ca": "authority.crt"}))
            .start();
        let mut client = proxy.client();
        client.send(canned::get(HOST, "/"));
        let answer = client.try_answer_to("GET");
        assert_eq!(answer.is_ok(), is_whole, "{answer:?}");
    }
}

#[test]
fn a_backend_that_speaks_no_tls_is_told_apart() {
    let backend = Backend::raw(|conn| conn.send(canned::sized("400 Bad Request", "what is that?")));
    let url = backend.url().replace("http://", "https://");
    let proxy = Setup::for_backends([url]).set("backendTls", json!({"insecure": true})).start();
    let answer = proxy.client().exchange(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX-Debug: 1\r\n\r\n"));
    assert_eq!((answer.status(), answer.head.get("X-Debug-Error")), (502, Some("tls_failed")));
}
