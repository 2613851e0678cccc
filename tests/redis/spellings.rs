//! Keys in other letters than hosts are looked up in.

use crate::certificates::put;
use crate::changes::until_all_say;
use crate::fake::Fake;
use crate::server::Server;
use crate::support::backend::Backend;
use crate::support::proxy::{Proxy, Setup};
use crate::support::tls::Authority;
use crate::support::{canned, until};
use std::io::Write;
use std::net::Shutdown;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// A key that differs from its host in case or by a dot at its end serves it, before the start of the proxy and later,
/// with its options; a key of the exact name comes first, and of two spellings none is used.
#[test]
fn a_key_of_another_spelling_serves_where_it_is_the_only_one() {
    let redis = Server::start();
    let [shop, wild, exact] = ["shop", "wild", "exact"].map(|name| Backend::always(canned::ok(name)));
    redis.run::<()>(&format!("RPUSH frontend:Shop.Test x {}", shop.url()));
    redis.run::<()>("HSET options:Shop.Test responseTimeout 7");
    let mut proxy = Setup::new().driver(redis.url()).start();
    let mut client = proxy.client();
    // The keys are looked through while it serves.
    until("it is served", || client.get("SHOP.test", "/").status() == 200);
    client.get("shop.test", "/").expect_ok("shop");
    assert_eq!(client.get("a.wild.test", "/").status(), 400);
    redis.run::<()>(&format!("RPUSH frontend:*.Wild.test. x {}", wild.url()));
    until_all_say(&mut [proxy.client()], "a.wild.test", "wild");
    let told = |proxy: &Proxy, line: &str| proxy.stderr().contains(line);
    let line =
        "the key frontend:Shop.Test serves shop.test as long as there is no frontend:shop.test; rename it to that";
    assert!(told(&proxy, line), "{}", proxy.stderr());

    let tool = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
        let output = command.arg("routes").args(arguments).args(["--driver", &redis.url()]).output().expect("it runs");
        (output.status.success(), String::from_utf8(output.stdout).expect("text"))
    };
    let (is_served, text) = tool(&["shop.test"]);
    assert!(is_served && text.contains("frontend:Shop.Test  serves: \"x\", 1 backends"), "{text}");
    assert!(text.contains("responseTimeout: 7"), "{text}");
    assert!(tool(&[]).1.contains("Shop.Test  \"x\"  1 backends  serves shop.test; rename it to that"));

    // The next process knows the route before it knows the keys.
    proxy.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(proxy.until_exit().success());
    proxy.restart();
    let mut client = proxy.client();
    until("it is served after a restart", || client.get("shop.test", "/").status() == 200);

    redis.run::<()>(&format!("RPUSH frontend:shop.test x {}", exact.url()));
    until_all_say(&mut [proxy.client()], "shop.test", "exact");
    redis.run::<()>("DEL frontend:shop.test");
    until_all_say(&mut [proxy.client()], "shop.test", "shop");
    redis.run::<()>(&format!("RPUSH frontend:SHOP.TEST x {}", exact.url()));
    until("none is used", || proxy.client().get("shop.test", "/").status() == 400);
    assert!(told(&proxy, "are spellings of frontend:shop.test: neither is used; remove one"), "{}", proxy.stderr());
    assert!(!tool(&["shop.test"]).0);
    redis.run::<()>("DEL frontend:Shop.Test");
    until_all_say(&mut [proxy.client()], "shop.test", "exact");
}

#[test]
fn a_certificate_of_another_spelling_is_shown() {
    let redis = Server::start();
    let authority = Authority::new();
    let pair = authority.issue(&["shop.test"]);
    let mut connection = redis.connect();
    put(&mut connection, "Shop.test", &pair);
    let proxy = Setup::new().with_https().driver(redis.url()).start();
    let trust = authority.trust();
    until("it is shown", || trust.shown(&proxy, "shop.test") == Some(pair.der()));
    let wild = authority.issue(&["*.later.test"]);
    assert_eq!(trust.shown(&proxy, "a.later.test"), None);
    put(&mut connection, "*.Later.test", &wild);
    until("it is shown", || trust.shown(&proxy, "a.later.test") == Some(wild.der()));
}

/// Redis goes away while its keys are looked through: they are looked through again.
#[test]
fn keys_of_other_spellings_are_found_though_redis_goes_away_meanwhile() {
    let backend = Backend::always(canned::ok("shop"));
    let scans = AtomicU32::new(0);
    let redis = Fake::start(&[("Shop.Test", backend.url())], move |command, stream| {
        if command[0] != "SCAN" {
            return false;
        }
        if scans.fetch_add(1, Ordering::Relaxed) == 0 {
            return stream.shutdown(Shutdown::Both).is_ok();
        }
        let keys = if command[3] == "frontend:*" { "*1\r\n$18\r\nfrontend:Shop.Test\r\n" } else { "*0\r\n" };
        stream.write_all(format!("*2\r\n$1\r\n0\r\n{keys}").as_bytes()).is_ok()
    });
    let proxy = Setup::new().driver(redis.url()).start();
    until("it is served", || proxy.client().get("shop.test", "/").status() == 200);
}
