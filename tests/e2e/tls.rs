//! TLS: certificates by name, changed while they are in use; sessions from the hello to the goodbye.

use crate::support::HOST;
use crate::support::backend::Backend;
use crate::support::canned;
use crate::support::proxy::Setup;
use crate::support::tls::Authority;
use crate::support::until;

#[test]
fn a_certificate_for_all_serves_http_and_keeps_the_connection() {
    let backend = Backend::always(canned::ok("hello"));
    let authority = Authority::new();
    let proxy =
        Setup::for_backends([backend.url()]).with_https().default_certificate(&authority.issue(&[HOST])).start();
    let mut client = authority.trust().client(&proxy, HOST);
    for _ in 0..3 {
        client.get(HOST, "/").expect_ok("hello");
    }
    let request = backend.requests().remove(0);
    assert_eq!(request.head.get("X-Forwarded-Proto"), Some("https"));
    assert_eq!(request.head.get("X-Forwarded-Port"), Some(proxy.secure_address().port().to_string().as_str()));
}

#[test]
fn each_name_has_its_certificate_exact_before_wildcard() {
    let authority = Authority::new();
    let [own, wild, other] =
        [&["a.example.com"][..], &["*.example.com"], &["default.test"]].map(|names| authority.issue(names));
    let mut proxy = Setup::new()
        .with_https()
        .default_certificate(&other)
        .certificate("a.example.com", &own)
        .certificate("*.example.com", &wild)
        .start();
    let trust = authority.trust();
    for _ in 0..2 {
        assert_eq!(trust.shown(&proxy, "a.example.com"), Some(own.der()));
        assert_eq!(trust.shown(&proxy, "b.example.com"), Some(wild.der()));
        assert_eq!(trust.shown(&proxy, "default.test"), Some(other.der()));
        assert_eq!(trust.shown(&proxy, "unknown.test"), None, "the certificate of another name is no proof");
    }
    let renewed = authority.issue(&["a.example.com"]);
    proxy.write_certificates(&[("a.example.com", &renewed)]);
    until("the new certificate is shown", || trust.shown(&proxy, "a.example.com") == Some(renewed.der()));
    until("the wildcard is gone", || trust.shown(&proxy, "b.example.com").is_none());
}
