//! Which certificate is shown to whom, and from when on.

use super::openssl::encrypt;
use crate::support::backend::Backend;
use crate::support::proxy::Setup;
use crate::support::tls::{Authority, Pair};
use crate::support::{HOST, canned, until, unused_address};
use nix::sys::signal::Signal;
use serde_json::json;
use std::net::{Ipv6Addr, SocketAddr, TcpListener};

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

#[test]
fn a_bad_pair_harms_only_its_name() {
    let authority = Authority::new();
    let [good, other] = [&["good.test"], &["mismatched.test"]].map(|names| authority.issue(names));
    let mismatched = Pair { key: good.key.clone(), ..other.clone() };
    let torn = Pair { certificate: good.certificate[..200].to_owned() + "\n", ..good.clone() };
    let mut proxy = Setup::new()
        .with_https()
        .certificate("good.test", &good)
        .certificate("mismatched.test", &mismatched)
        .certificate("torn.test", &torn)
        .start();
    let trust = authority.trust();
    for name in ["mismatched.test", "torn.test", "unknown.test"] {
        assert_eq!(trust.shown(&proxy, name), None, "{name}");
    }
    assert_eq!(trust.shown(&proxy, "good.test"), Some(good.der()));
    until("it is told", || {
        proxy.stderr().contains("the certificate of mismatched.test: certificate and key do not go together")
    });
    until("it is told", || proxy.stderr().contains("the certificate of torn.test: "));
    // What was good stays in use where what comes after it is not.
    proxy.write_certificates(&[("good.test", &mismatched), ("mismatched.test", &other)]);
    until("the repaired one is shown", || trust.shown(&proxy, "mismatched.test") == Some(other.der()));
    assert_eq!(trust.shown(&proxy, "good.test"), Some(good.der()));
    until("it is told", || proxy.stderr().contains("the certificate of good.test that was there before stays in use"));
    assert!(!proxy.stderr().contains("PRIVATE KEY"), "keys are never logged");
}

#[test]
fn changed_files_are_read_again() {
    let authority = Authority::new();
    let [first, second, third] = [(); 3].map(|()| authority.issue(&["a.test", HOST]));
    let by_path = Pair { certificate: "certs/a.crt".into(), key: "certs/a.key".into() };
    let proxy = Setup::new()
        .with_https()
        .default_certificate(&first)
        .file("certs/a.crt", &first.certificate)
        .secret("certs/a.key", &first.key)
        .certificate("a.test", &by_path)
        .start();
    let trust = authority.trust();
    for (name, certificate, key) in [("a.test", "certs/a.crt", "certs/a.key"), (HOST, "default.crt", "default.key")] {
        assert_eq!(trust.shown(&proxy, name), Some(first.der()));
        proxy.replace(key, &second.key);
        proxy.replace(certificate, &second.certificate);
        until("the second is shown", || trust.shown(&proxy, name) == Some(second.der()));
        proxy.replace(certificate, &third.certificate);
        until("the mismatch is told", || proxy.stderr().matches("stays in use").count() > usize::from(name == HOST));
        assert_eq!(trust.shown(&proxy, name), Some(second.der()));
        proxy.replace(key, &third.key);
        proxy.signal(Signal::SIGHUP);
        until("the third is shown", || trust.shown(&proxy, name) == Some(third.der()));
    }
}

#[test]
fn an_encrypted_key_needs_its_passphrase() {
    let authority = Authority::new();
    let pair = authority.issue(&[HOST]);
    let setup = Setup::new().with_https().default_certificate(&pair);
    let encrypted = encrypt(&setup.dir().join("default.key"), "it's a secret");
    let setup = setup.secret("default.key", &encrypted).set_https("passphrase", "it's a secret");
    let proxy = setup.start();
    assert_eq!(authority.trust().shown(&proxy, HOST), Some(pair.der()));
    assert!(!proxy.stderr().contains("a secret"));

    let wrong = Setup::new().with_https().default_certificate(&pair).secret("default.key", &encrypted);
    let faults = [
        (wrong.set_https("passphrase", "guessed"), "default.key: the passphrase does not open the key"),
        (
            Setup::new().with_https().default_certificate(&pair).secret("default.key", &encrypted),
            "default.key: the key is encrypted and there is no passphrase; give one, or decrypt it",
        ),
    ];
    for (setup, expected) in faults {
        let (is_good, output) = setup.dry();
        assert!(!is_good && output.contains(expected), "{output}");
        assert!(!output.contains("guessed") && !output.contains("PRIVATE"), "{output}");
    }
}

#[test]
fn a_key_that_all_can_read_is_warned_of() {
    let pair = Authority::new().issue(&[HOST]);
    let setup = Setup::new().with_https().default_certificate(&pair);
    assert!(!setup.dry().1.contains("warning"));
    let setup = setup.file("open.key", &pair.key).set_https("key", "open.key");
    let (is_good, output) = setup.dry();
    assert!(is_good && output.contains("any user of this system can read the key") && output.contains("chmod o="));
}

#[test]
fn the_authoritys_word_is_handed_on() {
    let authority = Authority::new();
    let pair = authority.issue(&[HOST]);
    let setup = Setup::new().with_https().default_certificate(&pair).file("word.der", "good until tomorrow");
    let proxy = setup.set_https("ocsp", "word.der").start();
    let (trust, words) = authority.trust().noting_staples();
    trust.connect(proxy.secure_address(), HOST);
    assert_eq!(words.lock().expect("no panic").as_slice(), [b"good until tomorrow".to_vec()]);
}

#[test]
fn every_address_may_have_its_own_certificate() {
    let authority = Authority::new();
    let [common, own] = [&["common.test"], &["own.test"]].map(|names| authority.issue(names));
    let addresses = [unused_address(), unused_address(), SocketAddr::from((Ipv6Addr::LOCALHOST, free_v6_port()))];
    let bind = json!([
        {"address": addresses[0].ip(), "port": addresses[0].port()},
        {"address": addresses[1].ip(), "port": addresses[1].port(), "cert": "own.crt", "key": "own.key"},
        {"address": addresses[2].ip(), "port": addresses[2].port()},
    ]);
    let setup = Setup::new().with_https().default_certificate(&common);
    let setup = setup.file("own.crt", &own.certificate).secret("own.key", &own.key);
    let _proxy = setup.set_https("bind", bind).start();
    let trust = authority.trust();
    for (address, name) in addresses.into_iter().zip(["common.test", "own.test", "common.test"]) {
        trust.connect(address, name);
    }
    assert!(trust.try_connect(addresses[1], "common.test").is_err());
}

fn free_v6_port() -> u16 {
    let probe = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).expect("IPv6 on the loopback");
    probe.local_addr().expect("an address").port()
}
