//! Which certificate is shown to whom, and from when on.

use super::openssl::{encrypt, encrypt_by, s_client_alone};
use crate::support::backend::Backend;
use crate::support::proxy::Setup;
use crate::support::tls::{Authority, Pair};
use crate::support::{HOST, canned, until, unused_address};
use nix::sys::signal::Signal;
use nix::unistd::getuid;
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
    assert!(is_good && output.contains("any user of this system can read ") && output.contains("chmod o="));
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

#[test]
fn names_of_every_writing_are_understood_and_none_is_needed() {
    let authority = Authority::new();
    let [own, other] = [&["a.test"], &["default.test"]].map(|names| authority.issue(names));
    let proxy = Setup::new().with_https().default_certificate(&other).certificate("A.Test", &own).start();
    for (arguments, expected) in [
        (&["-servername", "a.test"][..], "CN = a.test"),
        (&["-servername", "A.TEST"], "CN = a.test"),
        (&["-servername", "a.test."], "CN = a.test"),
        (&["-servername", "b.test"], "CN = default.test"),
        (&["-servername", "with_line.test"], "CN = default.test"),
        (&["-servername", "127.0.0.1"], "CN = default.test"),
        (&["-noservername"], "CN = default.test"),
        (&["-servername", "no name!"], "alert illegal parameter"),
    ] {
        let said = s_client_alone(&proxy, arguments);
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
}

#[test]
fn what_is_wrong_with_a_pair_is_said_so_that_it_can_be_mended() {
    let authority = Authority::new();
    let pair = authority.issue(&[HOST]);
    let stranger = authority.issue(&[HOST]);
    let setup = Setup::new().with_https().default_certificate(&pair);
    let key = setup.dir().join("default.key");
    let triple_des = encrypt_by(&key, "x", &["-v2", "des3"]);
    let swapped = format!("{}{}", authority.pem(), pair.certificate);
    for (certificate, key, expected) in [
        (&*swapped, &*pair.key, "the key is that of certificate 2, which has to be the first"),
        (&pair.certificate, &stranger.key, "the key is another certificate's"),
        (&pair.certificate, &triple_des, "the key is encrypted in an old way; encrypt it with AES"),
        (&pair.key, &pair.key, "there is a key in it and no certificate; are the two swapped?"),
        (&pair.certificate, &pair.certificate, "the key has no part that begins with -----BEGIN PRIVATE KEY-----"),
        (&pair.certificate, "", "the key has no part"),
    ] {
        let setup = Setup::new().with_https().default_certificate(&pair).file("default.crt", certificate);
        let setup = setup.secret("default.key", key).set_https("passphrase", "x");
        let (is_good, output) = setup.dry();
        assert!(!is_good && output.contains(expected) && !output.contains("PRIVATE KEY-----\nM"), "{output}");
    }
}

#[test]
fn certificates_that_are_soon_too_old_are_named() {
    let authority = Authority::new();
    let [old, own, fresh] = [2021, 2022, 4096].map(|year| authority.issue_until(&[HOST], year));
    let proxy = Setup::new()
        .with_https()
        .default_certificate(&old)
        .certificate("old.test", &own)
        .certificate("fresh.test", &fresh)
        .start();
    let told = |name: &str| proxy.stderr().contains(&format!("certificates to be renewed: {name} (has expired)"));
    until("that of the address is named", || told("default.crt") || told(&proxy.path("default.crt").to_string_lossy()));
    let trust = authority.trust();
    assert_eq!(trust.shown(&proxy, "old.test"), None, "no client believes it");
    assert_eq!(trust.shown(&proxy, "fresh.test"), None, "it is for another name");
    until("that of the name is named", || told("old.test"));
    assert!(!told("fresh.test"));
}

#[test]
fn pairs_of_the_routes_may_be_encrypted_and_have_the_authoritys_word() {
    let authority = Authority::new();
    let pair = authority.issue(&["a.test"]);
    let setup = Setup::new().with_https().secret("plain.key", &pair.key).file("a.crt", &pair.certificate);
    let encrypted = encrypt(&setup.dir().join("plain.key"), "it's a secret");
    let proxy = setup.file("a.key", &encrypted).file("word.der", "good until tomorrow").start();
    let routes = json!({"frontends": {}, "certificates": {"a.test": {
        "certificate": "a.crt", "key": "a.key", "passphrase": "it's a secret", "ocsp": "word.der"}}});
    proxy.write_routes_text(&routes.to_string());
    let trust = authority.trust();
    until("it is shown", || trust.shown(&proxy, "a.test") == Some(pair.der()));
    let (trust, words) = trust.noting_staples();
    trust.connect(proxy.secure_address(), "a.test");
    assert_eq!(words.lock().expect("no panic").as_slice(), [b"good until tomorrow".to_vec()]);
    until("the open key is warned of", || proxy.stderr().contains("any user of this system can read the key"));
    // A key that can no longer be read, as where only root could at the start.
    std::fs::remove_file(proxy.path("a.key")).expect("removing the key");
    until("it is told", || proxy.stderr().contains("the certificate of a.test that was there before stays in use"));
    proxy.signal(Signal::SIGHUP);
    assert_eq!(authority.trust().shown(&proxy, "a.test"), Some(pair.der()));
}

#[test]
fn a_key_that_only_root_could_read_stays_in_use() {
    // Nobody else can become another user.
    if !getuid().is_root() {
        return;
    }
    let authority = Authority::new();
    let pair = authority.issue(&[HOST]);
    let proxy = Setup::new().with_https().default_certificate(&pair).with_default_user().start();
    proxy.signal(Signal::SIGHUP);
    until("it is told", || proxy.stderr().contains("default.key: Permission denied"));
    until("so is what is in use", || proxy.stderr().contains("the certificate that was there before stays in use"));
    assert_eq!(authority.trust().shown(&proxy, HOST), Some(pair.der()));
}
