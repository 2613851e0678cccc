//! Options of frontends that stand in Redis: `options:<pattern>`, beside the list of the same pattern.

use crate::changes::clients;
use crate::server::{Server, run, set};
use crate::support::backend::Backend;
use crate::support::client::Client;
use crate::support::proxy::Setup;
use crate::support::tls::Authority;
use crate::support::{HOST, canned, until};
use nix::sys::signal::Signal;
use serde_json::json;

/// A proxy that has an encrypted door to send clients to.
fn setup(driver: String) -> Setup {
    let setup = Setup::new().driver(driver).with_https();
    setup.default_certificate(&Authority::new().issue(&[HOST]))
}

/// Waits until every worker answers like this: 301 is a redirect, 200 the backend.
#[track_caller]
fn until_all_respond(clients: &mut [Client], host: &str, status: u16) {
    until(&format!("{host} answers {status}"), || {
        clients.iter_mut().all(|client| client.get(host, "/").status() == status)
    });
}

#[test]
fn redirects_are_switched_for_what_the_pattern_serves_and_nobody_else() {
    let redis = Server::start();
    let backend = Backend::always(canned::ok("hello"));
    for pattern in [HOST, "*.wild.test", "own.wild.test", "*"] {
        redis.set(pattern, &[backend.url()]);
    }
    let proxy = setup(redis.url()).start();
    let mut clients = clients(&proxy);
    let all = [HOST, "a.wild.test", "own.wild.test", "other.test"];
    for (line, expected) in [
        (String::new(), [200, 200, 200, 200]),
        (format!("HSET options:{HOST} httpsRedirect true"), [301, 200, 200, 200]),
        ("HSET options:*.wild.test httpsRedirect true".to_owned(), [301, 301, 200, 200]),
        ("HSET options:own.wild.test httpsRedirect false".to_owned(), [301, 301, 200, 200]),
        ("HSET options:* httpsRedirect true".to_owned(), [301, 301, 200, 301]),
        (format!("HSET options:{HOST} httpsRedirect false"), [200, 301, 200, 301]),
        ("DEL options:*.wild.test".to_owned(), [200, 200, 200, 301]),
        // The options are those of the rung that serves, and of no other.
        ("DEL frontend:own.wild.test".to_owned(), [200, 200, 200, 301]),
        ("DEL frontend:*.wild.test".to_owned(), [200, 301, 301, 301]),
        ("HDEL options:* httpsRedirect".to_owned(), [200, 200, 200, 200]),
    ] {
        if !line.is_empty() {
            redis.run::<()>(&line);
        }
        for (host, status) in all.into_iter().zip(expected) {
            until_all_respond(&mut clients, host, status);
        }
    }
    assert!(!proxy.stderr().contains("options:"), "nothing was wrong: {}", proxy.stderr());
}

#[test]
fn a_frontend_may_be_taken_out_of_the_redirect_of_all() {
    let redis = Server::start();
    let backend = Backend::always(canned::ok("hello"));
    redis.set(HOST, &[backend.url()]);
    redis.set("*.plain.test", &[backend.url()]);
    redis.run::<()>("HSET options:*.plain.test httpsRedirect false");
    let proxy = setup(redis.url()).set_https("redirect", true).start();
    let mut clients = clients(&proxy);
    until_all_respond(&mut clients, HOST, 301);
    until_all_respond(&mut clients, "a.plain.test", 200);
}

#[test]
fn options_stand_behind_the_prefix_and_who_may_not_read_them_serves_without() {
    let redis = Server::start();
    let mut connection = redis.connect();
    run::<()>(&mut connection, "ACL SETUSER all on nopass ~live:* ~hchecker_ping +@all &*");
    run::<()>(&mut connection, "ACL SETUSER some on nopass ~live:frontend:* ~live:dead:* ~hchecker_ping +@all &*");
    let backend = Backend::always(canned::ok("hello"));
    set(&mut connection, &format!("live:frontend:{HOST}"), &[backend.url()]);
    for key in ["live:options:", "options:"] {
        run::<()>(&mut connection, &format!("HSET {key}{HOST} httpsRedirect {}", key == "live:options:"));
    }
    let [all, some] = ["all", "some"].map(|user| setup(format!("redis://{user}:x@{}#live:", redis.address())).start());
    let (mut served, mut unread) = (clients(&all), clients(&some));
    until_all_respond(&mut served, HOST, 301);
    until_all_respond(&mut unread, HOST, 200);
    run::<()>(&mut connection, &format!("HSET options:{HOST} httpsRedirect true"));
    run::<()>(&mut connection, &format!("HSET live:options:{HOST} httpsRedirect false"));
    until_all_respond(&mut served, HOST, 200);
    assert!(some.stderr().contains("options may not be read, and count as absent"), "{}", some.stderr());
    assert!(!some.stderr().contains("the earlier values stay"), "it is told once: {}", some.stderr());
}

#[test]
fn what_cannot_be_read_is_named_and_changes_nothing() {
    let redis = Server::start();
    let backend = Backend::always(canned::ok("hello"));
    let bad = ["value.test", "type.test", "many.test"];
    for host in bad.into_iter().chain([HOST, "extra.test"]) {
        redis.set(host, &[backend.url()]);
        redis.run::<()>(&format!("HSET options:{host} httpsRedirect true"));
    }
    redis.set("new.test", &[backend.url()]);
    redis.run::<()>("SET options:new.test true");
    redis.run::<()>("HSET options:extra.test httpRedirect true");
    let proxy = setup(redis.url()).start();
    let mut clients = clients(&proxy);
    for host in bad.into_iter().chain([HOST, "extra.test"]) {
        until_all_respond(&mut clients, host, 301);
    }
    until("it is told", || {
        proxy.stderr().contains("extra.test: options:extra.test: \"httpRedirect\" is unknown and ignored")
    });
    // A host that was never good has its route, and no options.
    until_all_respond(&mut clients, "new.test", 200);
    redis.run::<()>("HSET options:value.test httpsRedirect yes");
    // One command: between two of them the host would have no options, and that would be read.
    redis.run::<()>("SET options:type.test true");
    let fields: Vec<_> = (0..200).map(|number| format!("field{number} x")).collect();
    redis.run::<()>(&format!("HSET options:many.test {}", fields.join(" ")));
    for (host, problem) in [
        ("value.test", "httpsRedirect is \"yes\", expected true or false; the earlier values stay"),
        ("type.test", "WRONGTYPE"),
        ("many.test", "the hash has more than 64 fields; the earlier values stay"),
        ("new.test", "expected a hash; the earlier values stay"),
    ] {
        until(&format!("{host} is told of"), || {
            proxy.stderr().lines().any(|line| line.contains(&format!("options:{host}: ")) && line.contains(problem))
        });
    }
    for (host, status) in bad.map(|host| (host, 301)).into_iter().chain([("new.test", 200), (HOST, 301)]) {
        until_all_respond(&mut clients, host, status);
        assert!(clients.iter_mut().all(|client| client.get(host, "/").status() == status), "{host}");
    }
    redis.run::<()>("HSET options:value.test httpsRedirect false");
    redis.run::<()>("DEL options:type.test");
    until_all_respond(&mut clients, "value.test", 200);
    until_all_respond(&mut clients, "type.test", 200);
}

#[test]
fn without_tracking_a_change_is_seen_too() {
    let backend = Backend::always(canned::ok("hello"));
    for (events, means) in [("KA", "keyspace notifications"), ("", "reading again"), ("Kglsx$", "reading again")] {
        let redis = Server::with(&["--notify-keyspace-events", events]);
        run::<()>(&mut redis.connect(), "ACL SETUSER edge on nopass ~* &* +@all -client|tracking");
        for pattern in [HOST, "*.wild.test"] {
            redis.set(pattern, &[backend.url()]);
        }
        let setup = setup(format!("redis://edge:x@{}#", redis.address())).set("lruCache", json!({"ttl": 0.2}));
        let proxy = setup.start();
        let mut clients = clients(&proxy);
        for (value, status) in [("true", 301), ("false", 200)] {
            for (pattern, host) in [(HOST, HOST), ("*.wild.test", "a.wild.test")] {
                redis.run::<()>(&format!("HSET options:{pattern} httpsRedirect {value}"));
                until_all_respond(&mut clients, host, status);
            }
        }
        assert!(proxy.stderr().contains(means), "{}", proxy.stderr());
    }
}

#[test]
fn keyspace_notifications_of_lists_and_hashes_alone_will_do() {
    let backend = Backend::always(canned::ok("hello"));
    let redis = Server::with(&["--notify-keyspace-events", "Kglshx$"]);
    run::<()>(&mut redis.connect(), "ACL SETUSER default -hello -client");
    redis.set(HOST, &[backend.url()]);
    let proxy = setup(redis.url()).start();
    let mut clients = clients(&proxy);
    until_all_respond(&mut clients, HOST, 200);
    redis.run::<()>(&format!("HSET options:{HOST} httpsRedirect true"));
    until_all_respond(&mut clients, HOST, 301);
    assert!(proxy.stderr().contains("keyspace notifications"), "{}", proxy.stderr());
}

#[test]
fn a_start_without_redis_has_the_options_that_were_kept() {
    let mut redis = Server::start();
    let backend = Backend::always(canned::ok("hello"));
    for (host, value) in [(HOST, "true"), ("plain.test", "false")] {
        redis.set(host, &[backend.url()]);
        redis.run::<()>(&format!("HSET options:{host} httpsRedirect {value}"));
    }
    redis.set("silent.test", &[backend.url()]);
    let setup = setup(redis.url()).set_https("redirect", true);
    let path = setup.dir().join("known");
    let mut proxy = setup.set("snapshot", path.to_str().expect("a plain path")).start();
    for _ in 0..2 {
        let mut clients = clients(&proxy);
        for (host, status) in [(HOST, 301), ("plain.test", 200), ("silent.test", 301)] {
            until_all_respond(&mut clients, host, status);
        }
        drop(clients);
        proxy.signal(Signal::SIGTERM);
        assert!(proxy.until_exit().success());
        redis.kill();
        proxy.restart();
    }
}
