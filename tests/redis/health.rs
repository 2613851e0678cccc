//! Health of backends over Redis: planb's health checks, and marks that good probes end for all nodes.

use crate::server::Server;
use crate::support::backend::{Backend, Request};
use crate::support::proxy::{Proxy, Setup};
use crate::support::{HOST, canned, until};
use sluice::base::clock::Clock;
use std::collections::HashSet;

pub(crate) fn is_probe(request: &Request) -> bool {
    request.head.get("User-Agent").is_some_and(|agent| agent.starts_with("sluice-health/"))
}

pub(crate) fn probes(backend: &Backend) -> Vec<Request> {
    backend.requests().into_iter().filter(is_probe).collect()
}

pub(crate) fn marks(redis: &Server) -> HashSet<String> {
    redis.run(&format!("SMEMBERS dead:{HOST}"))
}

/// A node with marks that last for as long as the test.
fn node(redis: &Server) -> Proxy {
    Setup::new().driver(redis.url()).set("deadBackendTTL", 3600).workers(1).start()
}

#[track_caller]
fn until_served_by(proxy: &Proxy, name: &str) {
    until(&format!("{name} serves"), || proxy.client().get(HOST, "/").text() == name);
}

#[test]
fn marks_end_for_all_nodes_when_one_finds_the_backend_good() {
    let redis = Server::start();
    let (steady, mut flaky) = (Backend::always(canned::ok("steady")), Backend::always(canned::ok("flaky")));
    redis.set(HOST, &[steady.url(), flaky.url()]);
    redis.run::<()>(&format!("HSET options:{HOST} health.mode lazy health.interval 20ms health.rise 3"));
    let (one, other) = (node(&redis), node(&redis));
    [&one, &other].iter().for_each(|proxy| until_served_by(proxy, "flaky"));
    flaky.kill();
    until("one node marks it", || {
        assert_eq!(one.client().get(HOST, "/").text(), "steady");
        marks(&redis).contains("1")
    });
    until("one node finds it down", || one.stderr().contains("is down: a health probe failed"));
    let is_barred = || (0..60).all(|_| other.client().get(HOST, "/").text() == "steady");
    until("the other node obeys", is_barred);
    flaky.start();
    until("the mark is gone", || !marks(&redis).contains("1"));
    [&one, &other].iter().for_each(|proxy| until_served_by(proxy, "flaky"));
}

#[test]
fn what_an_active_checker_marks_is_its_own() {
    let redis = Server::start();
    let backends = ["a", "b"].map(|name| Backend::always(canned::ok(name)));
    redis.set(HOST, &backends.each_ref().map(Backend::url));
    redis.run::<()>(&format!("HSET options:{HOST} health.mode paranoid health.interval 20ms"));
    let clock = Clock::new();
    let now = clock.wall(clock.now()).duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    redis.run::<()>(&format!("SET hchecker_ping {now}"));
    redis.run::<()>(&format!("SADD dead:{HOST} 1"));
    let proxy = node(&redis);
    until_served_by(&proxy, "a");
    until("its probes are good", || probes(&backends[1]).len() >= 10);
    (0..20).for_each(|_| assert_eq!(proxy.client().get(HOST, "/").text(), "a"));
    assert_eq!(marks(&redis), HashSet::from(["1".to_owned()]));
    redis.run::<()>(&format!("SREM dead:{HOST} 1"));
    until_served_by(&proxy, "b");
}

#[test]
fn planbs_health_check_is_read_and_followed() {
    let redis = Server::start();
    let steady = Backend::always(canned::ok("steady"));
    let flaky = Backend::serve(|request, conn| {
        conn.send(if is_probe(request) { canned::ok("WORKING") } else { canned::sized("502 Bad Gateway", "flaky") });
    });
    redis.set(HOST, &[steady.url(), flaky.url()]);
    redis.run::<()>(&format!("HSET healthcheck:{HOST} path ready body WORKING status 200"));
    redis.run::<()>(&format!("HSET options:{HOST} health.interval 20ms"));
    let proxy = node(&redis);
    let meet = || until("a request meets it", || proxy.client().get(HOST, "/").text() == "flaky");
    meet();
    until("it is probed", || probes(&flaky).len() >= 2);
    assert!(probes(&flaky).iter().all(|probe| probe.head.start == "GET /ready HTTP/1.1"), "{:#?}", probes(&flaky));
    until("its mark ends", || proxy.stderr().contains("so its dead marks end"));
    assert_eq!(probes(&steady).len(), 0);
    redis.run::<()>(&format!("HSET healthcheck:{HOST} body LOST"));
    until("the new text is asked for", || {
        proxy.client().get(HOST, "/");
        proxy.stderr().contains("is down: a health probe failed: its response does not contain health.body")
    });
    redis.run::<()>(&format!("DEL healthcheck:{HOST}"));
    until("probes are off", || proxy.stderr().contains("probes are off"));
}
