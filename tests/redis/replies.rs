//! Replies without end, in length or in time, and names without end: they harm their own host or client and nothing else.

use crate::changes::{clients, until_all_say};
use crate::fake::Fake;
use crate::server::Server;
use crate::support::backend::Backend;
use crate::support::proxy::{Proxy, Setup};
use crate::support::{HOST, canned, until};
use nix::sys::signal::Signal;
use std::io::Write;
use std::thread;
use std::time::Duration;

/// The memory of the proxy, in KiB.
fn resident(proxy: &Proxy) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.pid())).expect("the process is there");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a line for the peak");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

#[test]
fn a_list_that_is_too_long_is_named_takes_no_memory_and_harms_only_its_host() {
    let redis = Server::start();
    let backend = Backend::always(canned::ok("ok"));
    redis.set(HOST, &[backend.url()]);
    redis.set("later.test", &[backend.url()]);
    let proxy = Setup::new().driver(redis.url()).start();
    until_all_say(&mut clients(&proxy), HOST, "ok");
    let before = resident(&proxy);
    let item = "z".repeat(64 << 20);
    redis::cmd("RPUSH").arg("frontend:long.test").arg(item).exec(&mut redis.connect()).expect("a long item");
    assert_eq!(proxy.client().get("long.test", "/").status(), 502);
    assert_eq!(proxy.client().get("long.test", "/").status(), 502, "it is not asked for again at once");
    until_all_say(&mut clients(&proxy), "later.test", "ok");
    assert!(proxy.stderr().contains("frontend:long.test: with it the replies"), "{}", proxy.stderr());
    assert_eq!(proxy.stderr().matches("the connection is cut").count(), 1, "{}", proxy.stderr());
    assert!(!proxy.stderr().contains(" is away"), "{}", proxy.stderr());
    let grown = resident(&proxy).saturating_sub(before);
    assert!(grown < 32 << 10, "the peak has grown by {grown} KiB");
    redis.run::<()>("DEL frontend:long.test");
    until("it is known to be gone", || proxy.client().get("long.test", "/").status() == 400);
}

#[test]
fn a_wildcard_that_is_too_long_is_cut_once_and_hosts_of_their_own_are_served() {
    let redis = Server::start();
    let backend = Backend::always(canned::ok("ok"));
    redis.set(HOST, &[backend.url()]);
    let item = "z".repeat(16 << 20);
    redis::cmd("RPUSH").arg("frontend:*").arg(item).exec(&mut redis.connect()).expect("a long item");
    let proxy = Setup::new().driver(redis.url()).start();
    for number in 0..20 {
        assert_eq!(proxy.client().get(&format!("h{number}.test"), "/").status(), 502);
    }
    assert_eq!(proxy.stderr().matches("the connection is cut").count(), 1, "{}", proxy.stderr());
    until_all_say(&mut clients(&proxy), HOST, "ok");
}

#[test]
fn a_reply_that_drips_holds_up_nobody_and_the_end_comes_in_time() {
    let backend = Backend::always(canned::ok("ok"));
    let fake = Fake::start(&[(HOST, backend.url()), ("other.test", backend.url())], |command, stream| {
        if !command.iter().any(|word| word == "frontend:drip.test") {
            return false;
        }
        let mut next: &[u8] = b"*2\r\n$1\r\na\r\n$1000000\r\n";
        while stream.write_all(next).is_ok() {
            // The pace of the story, as a server far away would have it.
            thread::park_timeout(Duration::from_millis(300));
            next = b"h";
        }
        true
    });
    let mut proxy = Setup::new().set("connectTimeout", 2).driver(fake.url()).start();
    until_all_say(&mut clients(&proxy), HOST, "ok");
    assert_eq!(proxy.client().get("drip.test", "/").status(), 503);
    until_all_say(&mut clients(&proxy), "other.test", "ok");
    until("the slow host is named", || {
        proxy.stderr().contains("is away as far as drip.test goes: frontend:drip.test was not read to its end")
    });
    assert_eq!(proxy.client().get("drip.test", "/").status(), 503);
    // More connections than anything between the threads has room for, while one of them waits for a reply.
    let mut asker = proxy.client();
    let asking = thread::spawn(move || asker.get("drip.test", "/").status());
    for _ in 0..24 {
        until("there is a watching connection", || fake.cut_watchers());
    }
    assert_eq!(asking.join().expect("no panic"), 503);
    proxy.signal(Signal::SIGTERM);
    assert!(proxy.until_exit().success());
}

#[test]
fn names_made_up_below_a_wildcard_evict_no_other_host_from_what_an_outage_is_survived_with() {
    const SIZE: usize = 200;
    let mut redis = Server::start();
    let backend = Backend::always(canned::ok("ok"));
    let known: Vec<_> = (0..20).map(|number| format!("h{number}.test")).collect();
    known.iter().for_each(|host| redis.set(host, &[backend.url()]));
    redis.set("*.wild.test", &[backend.url()]);
    redis.set("*.calm.test", &[backend.url()]);
    let cache = serde_json::json!({ "size": SIZE });
    let proxy = Setup::new().driver(redis.url()).workers(1).set("lruCache", cache).start();
    let mut client = proxy.client();
    let hosts = || known.iter().map(String::as_str).chain(["a.calm.test"]);
    hosts().for_each(|host| client.get(host, "/").expect_ok("ok"));
    // More than the directory itself keeps of what no worker holds.
    for number in 0..8_000 {
        client.get(&format!("r{number}.wild.test"), "/").expect_ok("ok");
    }
    redis.kill();
    until("the loss is told", || proxy.stderr().contains(" is away: "));
    hosts().for_each(|host| client.get(host, "/").expect_ok("ok"));
}

#[test]
fn clients_that_make_up_names_keep_no_other_client_from_hosts_that_are_not_cached() {
    let redis = Server::start();
    let backend = Backend::always(canned::ok("ok"));
    let known: Vec<_> = (0..100).map(|number| format!("h{number}.test")).collect();
    known.iter().for_each(|host| redis.set(host, &[backend.url()]));
    let proxy = Setup::new().driver(redis.url()).workers(1).set("unknownHostRate", 100).start();
    let over = std::sync::atomic::AtomicBool::new(false);
    let refused = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for source in 2..8_u8 {
            let (over, refused, mut client) =
                (&over, &refused, proxy.client_from(std::net::Ipv4Addr::new(127, 0, 0, source).into()));
            scope.spawn(move || {
                for number in 0.. {
                    if over.load(std::sync::atomic::Ordering::SeqCst) {
                        return;
                    }
                    let status = client.get(&format!("f{source}-{number}.test"), "/").status();
                    assert!(status == 400 || status == 503, "{status}");
                    if status == 503 {
                        refused.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    }
                }
            });
        }
        until("more is asked for than may be", || refused.load(std::sync::atomic::Ordering::SeqCst) > 100);
        let mut client = proxy.client();
        let good = known.iter().filter(|host| client.get(host, "/").status() == 200).count();
        over.store(true, std::sync::atomic::Ordering::SeqCst);
        assert_eq!(good, known.len());
    });
}
