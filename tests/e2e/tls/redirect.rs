//! Clients that come without encryption are sent to where there is some.

use crate::support::backend::Backend;
use crate::support::proxy::Setup;
use crate::support::tls::Authority;
use crate::support::{HOST, canned};

#[test]
fn all_are_sent_but_those_of_frontends_that_say_otherwise() {
    let backend = Backend::always(canned::ok("hello"));
    let authority = Authority::new();
    let proxy = Setup::for_backends([backend.url()])
        .route("plain.test", [backend.url()])
        .option("plain.test", "httpsRedirect", false)
        .with_https()
        .default_certificate(&authority.issue(&[HOST]))
        .set_https("redirect", true)
        .set("trustedNetworks", "127.0.0.2")
        .start();
    let port = proxy.secure_address().port();
    let mut client = proxy.client();
    let response = client.get("WWW.Example.com:8080", "/a?b=c");
    assert_eq!(response.status(), 301);
    assert_eq!(response.head.get("Location"), Some(format!("https://{HOST}:{port}/a?b=c").as_str()));
    let response = client.exchange(canned::post(HOST, "/form", "x=1"));
    assert_eq!((response.status(), response.head.get("Connection")), (308, Some("close")));
    proxy.client().get("plain.test", "/").expect_ok("hello");
    authority.trust().client(&proxy, HOST).get(HOST, "/").expect_ok("hello");
    // A proxy in front has done the encryption, and is believed.
    let mut behind = proxy.client_from([127, 0, 0, 2].into());
    let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX-Forwarded-Proto: https\r\n\r\n");
    behind.exchange(&request).expect_ok("hello");
    assert_eq!(proxy.client().exchange(request).status(), 301, "a stranger is not");
}

#[test]
fn only_those_of_frontends_that_say_so_to_another_port() {
    let backend = Backend::always(canned::ok("hello"));
    let authority = Authority::new();
    let proxy = Setup::for_backends([backend.url()])
        .route("*.secure.test", [backend.url()])
        .option("*.secure.test", "httpsRedirect", true)
        .with_https()
        .default_certificate(&authority.issue(&[HOST]))
        .start();
    proxy.client().get(HOST, "/").expect_ok("hello");
    let response = proxy.client().get("a.secure.test", "/");
    let expected = format!("https://a.secure.test:{}/", proxy.secure_address().port());
    assert_eq!((response.status(), response.head.get("Location")), (301, Some(expected.as_str())));
}
