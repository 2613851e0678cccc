//! Redis goes and comes back, in every way: what is known serves on.

use crate::changes::{clients, until_all_say};
use crate::server::Server;
use crate::support::backend::Backend;
use crate::support::proxy::{Proxy, Setup};
use crate::support::{HOST, canned, until};
use nix::sys::signal::Signal;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Keeps asking while `story` goes on; every answer must be good.
fn under_load(proxy: &Proxy, hosts: &[&str], story: impl FnOnce()) -> usize {
    let (over, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let ask = || {
            let mut client = proxy.client();
            while !over.load(Ordering::SeqCst) {
                for host in hosts {
                    let response = client.get(host, "/");
                    assert_eq!(response.status(), 200, "{host}: {} {}", response.head, response.text());
                    served.fetch_add(1, Ordering::SeqCst);
                }
            }
        };
        let clients: Vec<_> = (0..3).map(|_| scope.spawn(ask)).collect();
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(story));
        over.store(true, Ordering::SeqCst);
        clients.into_iter().for_each(|client| client.join().expect("every request was answered"));
        told.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    served.into_inner()
}

fn until_away(proxy: &Proxy) {
    until("the loss is told", || proxy.stderr().contains(" is away: "));
    until("an unknown host gets a 503", || {
        let response = proxy.client().get("nobody.test", "/");
        let retry = response.head.get("retry-after").map(str::to_owned);
        assert!(response.status() != 503 || retry.is_some(), "{}", response.head);
        response.status() == 503
    });
    assert_eq!(proxy.client().get("__ping__", "/").text(), "ok");
}

#[test]
fn a_redis_that_hangs_or_is_killed_and_refilled_costs_no_request() {
    let mut redis = Server::start();
    let backends = ["one", "other"].map(|name| Backend::always(canned::ok(name)));
    let hosts = [HOST, "a.wild.test", "b.wild.test"];
    let fill = |redis: &Server| {
        redis.set("*.wild.test", &[backends[0].url()]);
        redis.set(HOST, &[backends[0].url()]);
    };
    fill(&redis);
    let proxy = Setup::new().driver(redis.url()).start();
    hosts.iter().for_each(|host| until_all_say(&mut clients(&proxy), host, "one"));
    assert_eq!(proxy.client().get("nobody.test", "/").status(), 400);
    let served = under_load(&proxy, &hosts, || {
        redis.signal(Signal::SIGSTOP);
        until_away(&proxy);
        redis.signal(Signal::SIGCONT);
        redis.set(HOST, &[backends[1].url()]);
        until_all_say(&mut clients(&proxy), HOST, "other");
        redis.kill();
        until_away(&proxy);
        redis.revive();
        until("connected again", || proxy.stderr().contains("its data is not what it was"));
        until("an unknown host gets a 400", || proxy.client().get("nobody.test", "/").status() == 400);
        // Item by item, as scripts do.
        redis.run::<()>("RPUSH frontend:*.wild.test site");
        redis.run::<()>(&format!("RPUSH frontend:*.wild.test {}", backends[1].url()));
        for host in &hosts[1..] {
            until_all_say(&mut clients(&proxy), host, "other");
        }
        until_all_say(&mut clients(&proxy), HOST, "other");
        fill(&redis);
        hosts.iter().for_each(|host| until_all_say(&mut clients(&proxy), host, "one"));
    });
    assert!(served > 100, "{served}");
}

#[test]
fn a_connection_that_is_cut_is_made_anew_and_what_was_deleted_meanwhile_is_gone() {
    let redis = Server::start();
    let backends = ["one", "other"].map(|name| Backend::always(canned::ok(name)));
    redis.set(HOST, &[backends[0].url()]);
    redis.set("gone.test", &[backends[0].url()]);
    let proxy = Setup::new().driver(redis.url()).start();
    let mut clients = clients(&proxy);
    until_all_say(&mut clients, HOST, "one");
    until_all_say(&mut clients, "gone.test", "one");
    let mut connection = redis.connect();
    for turn in 1..10 {
        let (name, backend) = [("one", &backends[0]), ("other", &backends[1])][turn % 2];
        // In one step: the write comes while nobody hears.
        let key = format!("frontend:{HOST}");
        redis::pipe()
            .cmd("CLIENT")
            .arg("KILL")
            .arg("TYPE")
            .arg("normal")
            .arg("SKIPME")
            .arg("yes")
            .cmd("DEL")
            .arg("frontend:gone.test")
            .cmd("DEL")
            .arg(&key)
            .cmd("RPUSH")
            .arg(&key)
            .arg("site")
            .arg(backend.url())
            .exec(&mut connection)
            .expect("a cut and an edit");
        until_all_say(&mut clients, HOST, name);
        until("the deleted one is gone", || {
            clients.iter_mut().all(|client| client.get("gone.test", "/").status() == 400)
        });
    }
}

#[test]
fn sluice_starts_without_redis_and_finds_it_when_it_comes() {
    let mut redis = Server::start();
    redis.kill();
    let backend = Backend::always(canned::ok("ok"));
    let proxy = Setup::new().driver(redis.url()).start();
    until_away(&proxy);
    assert_eq!(proxy.client().get(HOST, "/").status(), 503);
    redis.revive();
    redis.set(HOST, &[backend.url()]);
    until_all_say(&mut clients(&proxy), HOST, "ok");
}

#[test]
fn a_redis_that_loads_or_has_lost_its_master_is_away() {
    let mut redis = Server::with(&["--replica-serve-stale-data", "no"]);
    let backend = Backend::always(canned::ok("ok"));
    redis.set(HOST, &[backend.url()]);
    let proxy = Setup::new().driver(redis.url()).start();
    until_all_say(&mut clients(&proxy), HOST, "ok");
    let served = under_load(&proxy, &[HOST], || {
        redis.run::<()>("REPLICAOF 127.0.0.1 1");
        until_away(&proxy);
        redis.run::<()>("REPLICAOF NO ONE");
        until("it is back", || proxy.client().get("nobody.test", "/").status() == 400);
    });
    assert!(served > 0);
    redis.kill();
}

#[test]
fn a_restart_without_redis_serves_from_the_snapshot_and_a_bad_snapshot_is_refused_and_left() {
    let mut redis = Server::start();
    let backends = ["one", "other"].map(|name| Backend::always(canned::ok(name)));
    redis.set(HOST, &[backends[0].url()]);
    redis.set("*.wild.test", &[backends[0].url()]);
    let setup = Setup::new();
    let path = setup.dir().join("known.snapshot");
    let mut proxy = setup.set("snapshot", path.to_str().expect("a plain path")).driver(redis.url()).start();
    until_all_say(&mut clients(&proxy), HOST, "one");
    until_all_say(&mut clients(&proxy), "a.wild.test", "one");
    let stop = |proxy: &mut Proxy| {
        proxy.signal(Signal::SIGTERM);
        assert!(proxy.until_exit().success());
    };
    stop(&mut proxy);
    redis.kill();
    proxy.restart();
    until_away(&proxy);
    until_all_say(&mut clients(&proxy), HOST, "one");
    until_all_say(&mut clients(&proxy), "a.wild.test", "one");
    assert_eq!(proxy.client().get("b.wild.test", "/").status(), 503, "it was not known");
    // Redis is back, empty at first: what worked goes on to work.
    let served = under_load(&proxy, &[HOST, "a.wild.test"], || {
        redis.revive();
        until("connected", || proxy.stderr().contains("redis: connected"));
        redis.set(HOST, &[backends[1].url()]);
        until_all_say(&mut clients(&proxy), HOST, "other");
    });
    assert!(served > 0);
    redis.kill();
    until_away(&proxy);
    stop(&mut proxy);

    let good = fs::read(&path).expect("a snapshot");
    let edited = String::from_utf8_lossy(&good).replace("127.", "126.").into_bytes();
    let older = String::from_utf8_lossy(&good).replace("snapshot 1", "snapshot 9").into_bytes();
    for (bytes, problem) in [
        (&good[..good.len() - 5], "its end is missing"),
        (&good[..20], "its end is missing"),
        (&edited, "its checksum does not fit"),
        (&older, "this version reads"),
        (&b"{}"[..], "does not begin with"),
    ] {
        fs::write(&path, bytes).expect("writing");
        proxy.restart();
        until_away(&proxy);
        assert_eq!(proxy.client().get(HOST, "/").status(), 503, "{problem}");
        assert!(proxy.stderr().contains(problem), "{problem}: {}", proxy.stderr());
        stop(&mut proxy);
        assert_eq!(fs::read(&path).expect("the snapshot"), bytes, "it is left as it was");
    }
    fs::write(&path, &good).expect("writing");
    proxy.restart();
    until_all_say(&mut clients(&proxy), "a.wild.test", "one");
}

#[test]
fn a_user_who_may_not_read_is_told_once_and_tried_again_with_pauses() {
    let redis = Server::start();
    let backend = Backend::always(canned::ok("ok"));
    redis.set(HOST, &[backend.url()]);
    redis.run::<()>("ACL SETUSER edge on nopass ~* &* +@all -lrange");
    let proxy = Setup::new().driver(format!("redis://edge:x@{}", redis.address())).start();
    until_away(&proxy);
    assert_eq!(proxy.stderr().matches(" is away: ").count(), 1, "{}", proxy.stderr());
    assert!(proxy.stderr().contains("permission"), "{}", proxy.stderr());
    redis.run::<()>("ACL SETUSER edge +lrange");
    until_all_say(&mut clients(&proxy), HOST, "ok");
}

#[test]
fn a_user_who_may_read_nothing_but_lists_has_routes_and_no_marks() {
    let redis = Server::start();
    let backend = Backend::always(canned::ok("ok"));
    redis.set(HOST, &[backend.url()]);
    redis.run::<()>("ACL SETUSER edge on nopass ~frontend:* &* +@all");
    let proxy = Setup::new().driver(format!("redis://edge:x@{}", redis.address())).start();
    until_all_say(&mut clients(&proxy), HOST, "ok");
    let log = proxy.stderr();
    assert!(log.contains("dead marks may not be read") && log.contains("hchecker_ping may not be read"), "{log}");
    assert!(!log.contains(" is away: "), "{log}");
}

#[test]
fn a_host_that_may_not_be_read_harms_only_itself() {
    let redis = Server::start();
    let backend = Backend::always(canned::ok("ok"));
    redis.set("*", &[backend.url()]);
    redis.run::<()>("ACL SETUSER edge on nopass ~frontend:[*]* ~frontend:a.test ~dead:* ~hchecker_ping &* +@all");
    let proxy = Setup::new().driver(format!("redis://edge:x@{}", redis.address())).start();
    until_all_say(&mut clients(&proxy), "a.test", "ok");
    assert_eq!(proxy.client().get(HOST, "/").status(), 502);
    until_all_say(&mut clients(&proxy), "a.test", "ok");
    assert!(!proxy.stderr().contains(" is away: "), "{}", proxy.stderr());
}
