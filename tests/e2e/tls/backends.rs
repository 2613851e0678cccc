//! Backends of `https://`. The backend of most tests is a second proxy in front of an ordinary one.

use crate::support::backend::Backend;
use crate::support::proxy::{Proxy, Setup};
use crate::support::tls::{Authority, End, serve};
use crate::support::{HOST, canned, until, worker_has_caught_up};
use serde_json::json;
use std::net::TcpListener;
use std::sync::atomic::Ordering;

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
    let setup = Setup::for_backends([backend.url()]).with_https();
    let outdated = authority.issue_until(&[&setup.secure_ip()], 2021);
    let outdated = setup.default_certificate(&outdated).start();
    let refused = [
        front(&behind, &ip, &authority, &json!({})).start(),
        front(&behind, &ip, &Authority::new(), &json!({})).start(),
        front(&outdated, &address(&outdated), &authority, &json!({})).start(),
    ];
    for proxy in &refused {
        let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX-Debug: 1\r\n\r\n");
        let response = proxy.client().exchange(request);
        assert_eq!((response.status(), response.head.get("X-Debug-Error")), (502, Some("tls_failed")));
        until("it is told", || proxy.stderr().contains("TLS handshake: invalid peer certificate"));
    }
    assert_eq!(backend.heads(), 0);
    let proxy = front(&behind, &ip, &authority, &json!({"insecure": true, "ca": null})).start();
    proxy.client().get(HOST, "/").expect_ok("hello");
}

#[test]
fn a_self_signed_certificate_may_be_named_itself() {
    let backend = Backend::always(canned::ok("hello"));
    let setup = Setup::for_backends([backend.url()]).with_https();
    let own = Authority::self_signed(&[&setup.secure_ip()]);
    let behind = setup.default_certificate(&own).start();
    let in_front = |ca: &str| {
        let url = format!("https://{}:{}", address(&behind), behind.secure_address().port());
        let setup = Setup::for_backends([url]).file("backend.crt", ca);
        setup.set("backendTls", json!({"ca": "backend.crt"})).set("deadBackendTTL", 0.001).start()
    };
    in_front(&own.certificate).client().get(HOST, "/").expect_ok("hello");
    // The name is looked at all the same, and one that is not named is no better than before.
    let other = Authority::self_signed(&[&address(&behind)]).certificate;
    assert_eq!(in_front(&other).client().get(HOST, "/").status(), 502);
    let misnamed = Authority::self_signed(&["somebody.else.test"]);
    let elsewhere = encrypted(&backend, &Authority::new(), "x").default_certificate(&misnamed).start();
    let url = format!("https://{}:{}", address(&elsewhere), elsewhere.secure_address().port());
    let setup = Setup::for_backends([url]).file("backend.crt", &misnamed.certificate);
    let proxy = setup.set("backendTls", json!({"ca": "backend.crt"})).start();
    assert_eq!(proxy.client().get(HOST, "/").status(), 502);
    until("it is told", || proxy.stderr().contains("TLS handshake: invalid peer certificate"));
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
fn a_response_that_was_cut_is_no_whole_one() {
    let authority = Authority::new();
    for (end, is_whole) in [(End::Goodbye, true), (End::Cut, false)] {
        let pair = authority.issue(&["127.0.0.1"]);
        let (address, _) = serve(&pair, b"HTTP/1.1 200 OK\r\n\r\nuntil the end", end);
        let proxy = Setup::for_backends([format!("https://{address}")])
            .file("authority.crt", &authority.pem())
            .set("backendTls", json!({"ca": "authority.crt"}))
            .start();
        let mut client = proxy.client();
        client.send(canned::get(HOST, "/"));
        let response = client.try_response_to("GET");
        assert_eq!(response.is_ok(), is_whole, "{response:?}");
    }
}

#[test]
fn a_backend_that_speaks_no_tls_is_told_apart() {
    let backend = Backend::raw(|conn| conn.send(canned::sized("400 Bad Request", "what is that?")));
    let url = backend.url().replace("http://", "https://");
    let proxy = Setup::for_backends([url]).set("backendTls", json!({"insecure": true})).start();
    let response = proxy.client().exchange(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX-Debug: 1\r\n\r\n"));
    assert_eq!((response.status(), response.head.get("X-Debug-Error")), (502, Some("tls_failed")));
}

#[test]
fn a_backend_of_the_older_version_will_do() {
    let backend = Backend::always(canned::ok("hello"));
    let authority = Authority::new();
    let setup = Setup::for_backends([backend.url()]).with_https().set_https("secureProtocol", "TLSv1_2_method");
    let ip = setup.secure_ip();
    let behind = setup.default_certificate(&authority.issue(&[&ip])).start();
    let proxy = front(&behind, &ip, &authority, &json!({})).workers(1).start();
    for _ in 0..3 {
        proxy.client().get(HOST, "/").expect_ok("hello");
    }
}

#[test]
fn where_hands_cannot_be_shaken_another_backend_is_tried() {
    let backend = Backend::always(canned::ok("hello"));
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let deaf = Backend::raw(|conn| drop(conn.head()));
    let mut urls = vec![deaf.url().replace("http://", "https://"), backend.url()];
    urls.push(format!("https://{}", silent.local_addr().expect("an address")));
    let proxy = Setup::for_backends(urls)
        .set("backendTls", json!({"insecure": true}))
        .set("tcpTimeout", 0.3)
        .set("deadBackendTTL", 0.001)
        .start();
    for _ in 0..8 {
        proxy.client().get(HOST, "/").expect_ok("hello");
    }
}

#[test]
fn a_kept_connection_with_a_goodbye_or_stray_bytes_in_it_is_used_no_more() {
    let authority = Authority::new();
    for end in [End::Goodbye, End::Cut, End::Stray] {
        let pair = authority.issue(&["127.0.0.1"]);
        let (address, requests) = serve(&pair, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", end);
        let proxy = Setup::for_backends([format!("https://{address}")])
            .file("authority.crt", &authority.pem())
            .set("backendTls", json!({"ca": "authority.crt"}))
            .workers(1)
            .start();
        let mut client = proxy.client();
        for count in 1..5 {
            client.get(HOST, "/").expect_ok("hello");
            until("the backend is done", || requests.load(Ordering::Relaxed) == count);
            worker_has_caught_up(&proxy);
        }
    }
}

#[test]
fn other_authorities_of_backends_are_believed_as_soon_as_their_file_says_so() {
    let backend = Backend::always(canned::ok("hello"));
    let [authority, other] = [(); 2].map(|()| Authority::new());
    let setup = Setup::for_backends([backend.url()]).with_https();
    let ip = setup.secure_ip();
    let behind = setup.default_certificate(&authority.issue(&[&ip])).start();
    let proxy = front(&behind, &ip, &other, &json!({})).start();
    assert_eq!(proxy.client().get(HOST, "/").status(), 502);
    proxy.replace("authority.crt", &authority.pem());
    until("the backend is believed", || proxy.client().get(HOST, "/").status() == 200);
}

#[test]
fn a_backend_may_have_authorities_of_its_own() {
    let backend = Backend::always(canned::ok("hello"));
    let authority = Authority::new();
    let setup = Setup::for_backends([backend.url()]).with_https();
    let ip = setup.secure_ip();
    let behind = setup.default_certificate(&authority.issue(&[&ip])).start();
    let url = format!("https://{ip}:{}", behind.secure_address().port());
    let start = |attributes: &str, authority: &Authority| {
        let setup = Setup::for_backends([]).file("own.crt", &authority.pem());
        let path = setup.dir().join("own.crt");
        let url = format!("{url}#{}", attributes.replace("FILE", path.to_str().expect("a plain path")));
        let health = json!({"mode": "paranoid", "interval": "20ms", "host": HOST, "method": "GET"});
        let setup = setup.route(HOST, [url]).option(HOST, "health", health);
        setup.set("deadBackendTTL", 0.001).workers(1).start()
    };
    for (attributes, trusted) in [("ca=FILE", &authority), ("insecure", &Authority::new())] {
        let proxy = start(attributes, trusted);
        proxy.client().get(HOST, "/").expect_ok("hello");
        let probes = || backend.requests().iter().filter(|request| request.head.get("User-Agent").is_some()).count();
        let before = probes();
        until("it is probed", || probes() >= before + 3);
        assert!(!proxy.stderr().contains("is down"), "{}", proxy.stderr());
    }
    for (attributes, said) in [
        ("ca=FILE", "TLS handshake: invalid peer certificate"),
        ("ca=/no/such/file.crt", "#ca=/no/such/file.crt: No such file or directory"),
    ] {
        let proxy = start(attributes, &Authority::new());
        assert_eq!(proxy.client().get(HOST, "/").status(), 502, "{attributes}");
        until("it is told", || proxy.stderr().contains(said));
        until("probes know", || proxy.stderr().contains("is down: a health probe failed: the TLS handshake failed"));
    }
}
