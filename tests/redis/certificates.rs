//! Certificates that stand in Redis: found by name, changed without a reload, served while Redis is away.

use crate::server::Server;
use crate::support::backend::Backend;
use crate::support::client::connect;
use crate::support::proxy::{Proxy, Setup};
use crate::support::tls::{Authority, Pair, Trust};
use crate::support::{HOST, PATIENCE, canned, until, worker_has_caught_up};
use nix::sys::signal::Signal;
use redis::{Connection, cmd};
use rustls::pki_types::CertificateDer;
use sluice::base::clock::Clock;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;

pub(crate) fn command(pattern: &str, pair: &Pair) -> redis::Cmd {
    let mut command = cmd("HSET");
    command.arg(format!("tls:{pattern}")).arg("certificate").arg(&pair.certificate).arg("key").arg(&pair.key);
    command
}

pub(crate) fn put(connection: &mut Connection, pattern: &str, pair: &Pair) {
    command(pattern, pair).query::<()>(connection).expect("writing to Redis");
}

fn start(server: &Server, workers: usize) -> Proxy {
    Setup::new().driver(server.url()).with_https().workers(workers).start()
}

/// Waits until the next handshake of every core shows this certificate, or none.
#[track_caller]
pub(crate) fn until_shown(trust: &Trust, proxy: &Proxy, name: &str, expected: Option<CertificateDer<'static>>) {
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
fn a_flood_of_unknown_names_neither_floods_redis_nor_empties_the_cache() {
    const RATE: u32 = 20;
    const FLOOD: u64 = 400;
    /// Of the ladder of a name of two labels.
    const CANDIDATES: u64 = 3;
    let server = Server::start();
    let authority = Authority::new();
    let trust = authority.trust();
    let [known, late] = [&[HOST], &["late.test"]].map(|names| authority.issue(names));
    put(&mut server.connect(), HOST, &known);
    let proxy = Setup::new().driver(server.url()).with_https().set("unknownHostRate", RATE).start();
    until_shown(&trust, &proxy, HOST, Some(known.der()));
    let asked = || -> u64 {
        let stats: String = server.run("INFO commandstats");
        let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_hmget:calls=")?.split(',').next());
        calls.expect("Redis was asked").parse().expect("a number")
    };
    let before = asked();
    let clock = Clock::new();
    let begun = clock.now();
    for number in 0..FLOOD {
        assert_eq!(trust.shown(&proxy, &format!("nobody{number}.test")), None);
        if number % 40 == 0 {
            assert_eq!(trust.shown(&proxy, HOST), Some(known.der()), "after {number} unknown names");
        }
    }
    let (flood, took) = (asked() - before, clock.now().since(begun));
    let most = CANDIDATES * u64::from(RATE) * (took.as_secs() + 2);
    assert!((1..=most).contains(&flood), "{flood} questions for {FLOOD} names in {took:?}, and not up to {most}");
    // Who has a certificate is found as soon as Redis may be asked again.
    put(&mut server.connect(), "late.test", &late);
    until_shown(&trust, &proxy, "late.test", Some(late.der()));
    let before = asked();
    until_shown(&trust, &proxy, HOST, Some(known.der()));
    assert_eq!(asked(), before, "what was at hand still is");
}

#[test]
fn a_change_while_handshakes_are_parked_shows_the_old_or_the_new_one() {
    let server = Server::start();
    let mut redis = server.connect();
    let authority = Authority::new();
    let trust = authority.trust();
    let proxy = start(&server, 1);
    for round in 0..6 {
        let name = format!("parked{round}.test");
        let [old, new] = [(); 2].map(|()| authority.issue(&[&name]));
        put(&mut redis, &name, &old);
        let change = command(&name, &new).get_packed_command();
        server.signal(Signal::SIGSTOP);
        // The change stands before the question or behind it.
        if round % 2 == 0 {
            redis.send_packed_command(&change).expect("sending the change");
        }
        let parked = (0..8).map(|_| {
            let (mut socket, mut session) = (connect(proxy.secure_address(), None), trust.session(&name));
            session.write_tls(&mut socket).expect("sending a hello");
            (socket, session)
        });
        let parked: Vec<_> = parked.collect();
        worker_has_caught_up(&proxy);
        for (socket, _) in &parked {
            socket.set_nonblocking(true).expect("setting the mode");
            assert_eq!(socket.peek(&mut [0]).expect_err("nothing to read").kind(), ErrorKind::WouldBlock);
            socket.set_nonblocking(false).expect("setting the mode");
        }
        if round % 2 == 1 {
            redis.send_packed_command(&change).expect("sending the change");
        }
        server.signal(Signal::SIGCONT);
        for (mut socket, mut session) in parked {
            socket.set_read_timeout(Some(PATIENCE)).expect("setting the read timeout");
            while session.is_handshaking() {
                session.complete_io(&mut socket).expect("a TLS handshake");
            }
            let shown = session.peer_certificates().and_then(|chain| chain.first()).expect("a certificate");
            assert!([old.der(), new.der()].contains(shown), "round {round}");
        }
        redis.recv_response().expect("the change is made");
        until_shown(&trust, &proxy, &name, Some(new.der()));
    }
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

#[test]
fn a_restart_without_redis_shows_the_certificates_that_were_kept() {
    let mut server = Server::start();
    let backend = Backend::always(canned::ok("hello"));
    let authority = Authority::new();
    let trust = authority.trust();
    let [own, wild, gone, renewed] =
        [&[HOST][..], &["*.wild.test"], &["gone.test"], &[HOST]].map(|names| authority.issue(names));
    server.set(HOST, &[backend.url()]);
    let mut redis = server.connect();
    put(&mut redis, HOST, &own);
    put(&mut redis, "*.wild.test", &wild);
    put(&mut redis, "gone.test", &gone);
    let setup = Setup::new().driver(server.url()).with_https();
    let path = setup.dir().join("known");
    let mut proxy = setup.set("snapshot", path.to_str().expect("a plain path")).start();
    for (name, pair) in [(HOST, &own), ("a.wild.test", &wild), ("gone.test", &gone)] {
        until_shown(&trust, &proxy, name, Some(pair.der()));
    }
    trust.client(&proxy, HOST).get(HOST, "/").expect_ok("hello");
    server.run::<()>("DEL tls:gone.test");
    until_shown(&trust, &proxy, "gone.test", None);
    // What is bad now does not take the place of what was good, not even over a restart.
    put(&mut redis, "*.wild.test", &Pair { key: own.key.clone(), ..wild.clone() });
    until("it is told", || {
        trust.shown(&proxy, "b.wild.test");
        proxy.stderr().contains("; the one before stays in use")
    });
    let file = proxy.path("known.certificates");
    for _ in 0..2 {
        proxy.signal(Signal::SIGTERM);
        assert!(proxy.until_exit().success());
        let mode = fs::metadata(&file).expect("the file of certificates").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "there are keys in it");
        server.kill();
        proxy.restart();
        trust.client(&proxy, HOST).get(HOST, "/").expect_ok("hello");
        for (name, expected) in [
            (HOST, Some(own.der())),
            ("a.wild.test", Some(wild.der())),
            ("never.wild.test", Some(wild.der())),
            ("gone.test", None),
        ] {
            assert_eq!(trust.shown(&proxy, name), expected, "{name}");
        }
    }
    server.revive();
    server.set(HOST, &[backend.url()]);
    put(&mut server.connect(), HOST, &renewed);
    until_shown(&trust, &proxy, HOST, Some(renewed.der()));
    assert!(!proxy.stderr().contains("PRIVATE KEY") && !proxy.read("known").contains("PRIVATE KEY"));
}

#[test]
fn certificates_are_kept_only_where_that_is_wanted() {
    let server = Server::start();
    let authority = Authority::new();
    put(&mut server.connect(), HOST, &authority.issue(&[HOST]));
    server.set(HOST, &["http://127.0.0.1:1".to_owned()]);
    let setup = Setup::new().driver(server.url()).with_https();
    let path = setup.dir().join("known");
    let setup = setup.set("snapshot", path.to_str().expect("a plain path"));
    let mut proxy = setup.set("snapshotCertificates", false).start();
    assert!(authority.trust().shown(&proxy, HOST).is_some());
    assert_eq!(proxy.client().get(HOST, "/").status(), 502);
    proxy.signal(Signal::SIGTERM);
    assert!(proxy.until_exit().success());
    assert!(path.exists() && !proxy.path("known.certificates").exists());
}

#[test]
fn the_authoritys_word_is_handed_on_and_kept() {
    let mut server = Server::start();
    let authority = Authority::new();
    put(&mut server.connect(), HOST, &authority.issue(&[HOST]));
    server.run::<()>(&format!("HSET tls:{HOST} ocsp good-until-tomorrow"));
    let setup = Setup::new().driver(server.url()).with_https();
    let path = setup.dir().join("known");
    let mut proxy = setup.set("snapshot", path.to_str().expect("a plain path")).start();
    let (trust, words) = authority.trust().noting_staples();
    trust.connect(proxy.secure_address(), HOST);
    proxy.signal(Signal::SIGTERM);
    assert!(proxy.until_exit().success());
    server.kill();
    proxy.restart();
    // Who comes with a ticket is shown nothing.
    let (trust, again) = authority.trust().noting_staples();
    trust.connect(proxy.secure_address(), HOST);
    for words in [words, again] {
        assert_eq!(words.lock().expect("no panic").as_slice(), [b"good-until-tomorrow".to_vec()]);
    }
}
