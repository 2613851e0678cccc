//! Several nodes on one Redis: each backend is probed by one of them, and a checker that is no sluice is respected.

use crate::health::{is_probe, marks, probes};
use crate::server::Server;
use crate::support::backend::{Backend, Request};
use crate::support::proxy::{Proxy, Setup};
use crate::support::{HOST, canned, until};
use sluice::base::clock::Clock;
use std::collections::HashMap;
use std::time::{Duration, SystemTime};

const INTERVAL: Duration = Duration::from_millis(100);

/// A node of this name; real ones draw theirs.
fn node(redis: &Server, name: &str) -> Proxy {
    Setup::new().driver(redis.url()).set("deadBackendTTL", 3600).env("SLUICE_NODE_MARK", name).workers(1).start()
}

/// The node that has the lock of this backend.
fn holder(redis: &Server, url: &str) -> Option<String> {
    let locks: HashMap<String, String> = redis.run("HGETALL hchecker");
    let start = format!("{url};{HOST};");
    let lock = locks.into_iter().find(|(field, _)| field.starts_with(&start))?.1;
    lock.split(';').next().map(str::to_owned)
}

fn serves(proxy: &Proxy, name: &str) -> bool {
    proxy.client().get(HOST, "/").text() == name
}

/// How long the backend takes to see so many more probes.
fn time_of_probes(backend: &Backend, count: usize) -> Duration {
    let clock = Clock::new();
    let (before, start) = (probes(backend).len(), clock.now());
    until("it is probed", || probes(backend).len() >= before + count);
    clock.now().since(start)
}

#[test]
fn one_of_three_nodes_probes_a_backend_and_all_know_what_it_finds() {
    const NAMES: [&str; 3] = ["00000000000a", "00000000000b", "00000000000c"];
    let redis = Server::start();
    let (steady, mut flaky) = (Backend::always(canned::ok("steady")), Backend::always(canned::ok("flaky")));
    let url = flaky.url();
    redis.set(HOST, &[steady.url(), url.clone()]);
    redis.run::<()>(&format!("HSET options:{HOST} health.mode paranoid health.interval {}ms", INTERVAL.as_millis()));
    let mut nodes: Vec<_> = NAMES.iter().map(|name| (*name, node(&redis, name))).collect();
    nodes.iter().for_each(|(_, proxy)| until("it serves", || serves(proxy, "flaky")));
    until("one has the lock", || holder(&redis, &url).is_some());
    // Three nodes that each probed would take a third of the time.
    let time = time_of_probes(&flaky, 16);
    assert!(time > INTERVAL * 10, "16 probes within {time:?}");

    flaky.kill();
    let spare = |proxy: &Proxy| (0..30).all(|_| serves(proxy, "steady"));
    nodes.iter().for_each(|(_, proxy)| until("every node spares it", || spare(proxy)));
    for (name, proxy) in &nodes {
        until(&format!("{name} knows why"), || proxy.stderr().contains("is down: a health probe failed"));
    }
    until("those who read marks alone know it", || marks(&redis).contains("1"));
    flaky.start();
    nodes.iter().for_each(|(_, proxy)| until("it serves again", || serves(proxy, "flaky")));
    until("its mark is gone", || !marks(&redis).contains("1"));

    // The node that probes ends without a word.
    let holder_now = || holder(&redis, &url).expect("a lock");
    let place = nodes.iter().position(|(name, _)| *name == holder_now()).expect("one of the nodes");
    let (gone, proxy) = nodes.swap_remove(place);
    proxy.signal(nix::sys::signal::Signal::SIGKILL);
    until("another node takes over", || holder_now() != gone);
    time_of_probes(&flaky, 3);
    flaky.kill();
    nodes.iter().for_each(|(_, proxy)| until("every node spares it", || spare(proxy)));

    // One that ends in order gives up its locks at once.
    let place = nodes.iter().position(|(name, _)| *name == holder_now()).expect("one of the nodes");
    let (gone, mut proxy) = nodes.swap_remove(place);
    proxy.signal(nix::sys::signal::Signal::SIGTERM);
    proxy.until_exit();
    assert_eq!(redis.run::<usize>(&format!("EXISTS hchecker:{gone}")), 0);
    until("the last one takes over", || holder(&redis, &url).is_some_and(|holder| holder == nodes[0].0));
}

#[test]
fn a_foreign_checker_that_has_locked_a_backend_decides_alone() {
    let redis = Server::start();
    let backends = ["a", "b"].map(|name| Backend::always(canned::ok(name)));
    redis.set(HOST, &backends.each_ref().map(Backend::url));
    redis.run::<()>(&format!("HSET options:{HOST} health.mode paranoid health.interval 50ms"));
    let proxy = node(&redis, "00000000000a");
    until("it serves", || serves(&proxy, "b"));
    until("it is probed", || probes(&backends[1]).len() >= 3);
    let ping = || {
        let now = SystemTime::UNIX_EPOCH.elapsed().expect("a time after 1970").as_secs();
        redis.run::<()>(&format!("SET hchecker_ping {now}"));
    };
    // As hipache-hchecker locks it.
    ping();
    redis.run::<()>(&format!("HSET hchecker {0} node#42;1.1 {0};node#42 1", backends[1].url()));
    until("sluice gives up its lock", || holder(&redis, &backends[1].url()).is_none());
    let count = probes(&backends[1]).len();
    let others = |backend: &Backend| probes(backend).len();
    let before = others(&backends[0]);
    until("the other one is probed on", || others(&backends[0]) >= before + 10);
    assert!(probes(&backends[1]).len() <= count + 1, "one may have been under way");
    // Its marks count, for as long as they stand.
    redis.run::<()>(&format!("SADD dead:{HOST} 1"));
    until("it is spared", || (0..30).all(|_| serves(&proxy, "a")));
    redis.run::<()>(&format!("SREM dead:{HOST} 1"));
    until("it serves again", || serves(&proxy, "b"));
    // It ends, and sluice goes on. Its locks stay until another one is started.
    redis.run::<()>("SET hchecker_ping 1");
    let before = probes(&backends[1]).len();
    until("it is probed again", || probes(&backends[1]).len() >= before + 3);
    // The next one begins with an empty hash.
    redis.run::<()>("DEL hchecker");
    until("sluice locks again", || holder(&redis, &backends[1].url()).is_some());
    let is_sluice = |request: &Request| !is_probe(request) || request.head.start.starts_with("OPTIONS / ");
    assert!(backends[1].requests().iter().all(is_sluice));
}
