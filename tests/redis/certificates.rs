//! Certificates that stand in Redis: found by name, changed without a reload, served while Redis is away.

use crate::server::Server;
use crate::support::backend::Backend;
use crate::support::proxy::{Proxy, Setup};
use crate::support::tls::{Authority, Pair, Trust};
use crate::support::{HOST, canned, until};
use redis::{Connection, cmd};
use rustls::pki_types::CertificateDer;

fn put(connection: &mut Connection, pattern: &str, pair: &Pair) {
    let mut command = cmd("HSET");
    command.arg(format!("tls:{pattern}")).arg("certificate").arg(&pair.certificate).arg("key").arg(&pair.key);
    command.query::<()>(connection).expect("writing to Redis");
}

fn start(server: &Server, workers: usize) -> Proxy {
    Setup::new().driver(server.url()).with_https().workers(workers).start()
}

/// Waits until the next handshake of every core shows this certificate, or none.
#[track_caller]
fn until_shown(trust: &Trust, proxy: &Proxy, name: &str, expected: Option<CertificateDer<'static>>) {
    until("every core shows what it should", || (0..8).all(|_| trust.shown(proxy, name) == expected));
}

#[test]
fn names_are_found_exact_before_wildcard_and_changes_are_seen_in_the_next_handshake() {
    let server = Server::start();
    let mut redis = server.connect();
    let authority = Authority::new();
    let trust = authority.trust();
    let [own, wild, renewed] =
        [&["a.example.com"][..], &["*.example.com"], &["a.example.com"]].map(|names| authority.issue(names));
    put(&mut redis, "*.example.com", &wild);
    let proxy = start(&server, 2);
    until_shown(&trust, &proxy, "a.example.com", Some(wild.der()));
    assert_eq!(trust.shown(&proxy, "unknown.test"), None);
    put(&mut redis, "a.example.com", &own);
    until_shown(&trust, &proxy, "a.example.com", Some(own.der()));
    put(&mut redis, "a.example.com", &renewed);
    until_shown(&trust, &proxy, "a.example.com", Some(renewed.der()));
    server.run::<()>("DEL tls:a.example.com");
    until_shown(&trust, &proxy, "a.example.com", Some(wild.der()));
    // A name that was unknown is not for ever.
    let late = authority.issue(&["unknown.test"]);
    put(&mut redis, "unknown.test", &late);
    until_shown(&trust, &proxy, "unknown.test", Some(late.der()));
    server.run::<()>("FLUSHALL");
    until_shown(&trust, &proxy, "unknown.test", None);
}

#[test]
fn bad_records_harm_only_their_names_and_what_was_good_stays() {
    let server = Server::start();
    let mut redis = server.connect();
    let authority = Authority::new();
    let trust = authority.trust();
    let [good, other] = [&["good.test"], &["other.test"]].map(|names| authority.issue(names));
    put(&mut redis, "good.test", &good);
    put(&mut redis, "mismatched.test", &Pair { key: good.key.clone(), ..other.clone() });
    server.run::<()>("SET tls:text.test x");
    server.run::<()>("HSET tls:half.test certificate x");
    let proxy = start(&server, 2);
    for (name, problem) in [
        ("mismatched.test", "tls:mismatched.test: certificate and key do not go together"),
        ("text.test", "tls:text.test: "),
        ("half.test", "tls:half.test: it has no field \"key\""),
    ] {
        assert_eq!(trust.shown(&proxy, name), None, "{name}");
        until("it is told", || proxy.stderr().contains(problem));
    }
    until_shown(&trust, &proxy, "good.test", Some(good.der()));
    put(&mut redis, "good.test", &Pair { key: good.key.clone(), ..other });
    until("it is told", || {
        trust.shown(&proxy, "good.test");
        proxy.stderr().contains("; the one before stays in use")
    });
    until_shown(&trust, &proxy, "good.test", Some(good.der()));
    assert!(!proxy.stderr().contains("PRIVATE KEY"));
}

#[test]
fn while_redis_is_away_what_was_known_is_shown_and_then_what_was_written() {
    let mut server = Server::start();
    let backend = Backend::always(canned::ok("hello"));
    let authority = Authority::new();
    let trust = authority.trust();
    let [first, second] = [(); 2].map(|()| authority.issue(&[HOST]));
    server.set(HOST, &[backend.url()]);
    put(&mut server.connect(), HOST, &first);
    let proxy = start(&server, 2);
    until_shown(&trust, &proxy, HOST, Some(first.der()));
    trust.client(&proxy, HOST).get(HOST, "/").expect_ok("hello");
    server.kill();
    for _ in 0..20 {
        trust.client(&proxy, HOST).get(HOST, "/").expect_ok("hello");
    }
    assert_eq!(trust.shown(&proxy, "never.asked.test"), None);
    server.revive();
    put(&mut server.connect(), HOST, &second);
    until_shown(&trust, &proxy, HOST, Some(second.der()));
}
