//! Requests whose `Host` is not covered by the certificate of their connection.

use crate::support::backend::Backend;
use crate::support::canned;
use crate::support::proxy::Setup;
use crate::support::tls::Authority;

const HOSTS: [&str; 4] = ["a.test", "b.test", "plain.test", "x.wild.test"];

#[test]
fn a_host_with_a_certificate_of_its_own_is_served_on_its_own_connections_alone() {
    let backend = Backend::always(canned::ok("hello"));
    let authority = Authority::new();
    let [a, b, wild, other] = [&["a.test", "alias.test"][..], &["b.test"], &["*.wild.test"], &["default.test"]]
        .map(|names| authority.issue(names));
    let setup =
        HOSTS.into_iter().chain(["alias.test"]).fold(Setup::new(), |setup, host| setup.route(host, [backend.url()]));
    let certified = |setup: Setup| {
        let setup = setup.with_https().default_certificate(&other);
        setup
            .certificate("a.test", &a)
            .certificate("alias.test", &b)
            .certificate("b.test", &b)
            .certificate("*.wild.test", &wild)
    };
    let proxy = certified(setup).start();
    let trust = authority.trust();
    let table = [
        ("a.test", "a.test", 200),
        ("a.test", "b.test", 421),
        ("a.test", "x.wild.test", 421),
        // Its certificate covers this one too, whatever else there is for it.
        ("a.test", "alias.test", 200),
        // No certificate of its own is at stake.
        ("a.test", "plain.test", 200),
        // The certificate of the address was shown for a name without one.
        ("default.test", "plain.test", 200),
        ("default.test", "b.test", 421),
        ("x.wild.test", "x.wild.test", 200),
        ("x.wild.test", "a.test", 421),
    ];
    for (name, host, status) in table {
        let mut client = trust.client(&proxy, name);
        // The second time the directory is not asked, and the connection is kept in any case.
        for _ in 0..2 {
            assert_eq!(client.get(host, "/").status(), status, "{host} on a connection to {name}");
        }
    }
    assert_eq!(proxy.client().get("b.test", "/").status(), 200, "without encryption there is no certificate");
}

#[test]
fn a_trusted_proxy_opens_connections_for_all_hosts() {
    let backend = Backend::always(canned::ok("hello"));
    let authority = Authority::new();
    let [a, b] = [&["a.test"], &["b.test"]].map(|names| authority.issue(names));
    let setup = Setup::new().route("a.test", [backend.url()]).route("b.test", [backend.url()]);
    let setup = setup.with_https().certificate("a.test", &a).certificate("b.test", &b);
    let proxy = setup.set("trustedNetworks", serde_json::json!(["127.0.0.1"])).start();
    authority.trust().client(&proxy, "a.test").get("b.test", "/").expect_ok("hello");
}
