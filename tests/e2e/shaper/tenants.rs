//! Tenants that share a node: its requests in flight, and the turns of its workers.

use super::Doors;
use crate::admin::Admin;
use crate::support::backend::Backend;
use crate::support::client::Client;
use crate::support::proxy::Setup;
use crate::support::{HOST, canned, until};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Frontends that name no tenant are noisy.test and HOST; gold.test is the tenant `gold`'s.
struct Node {
    admin: Admin,
    backend: Backend,
    doors: Arc<Doors>,
    clients: BTreeMap<String, Client>,
}

impl Node {
    fn start(tenants: Value) -> Self {
        let doors = Arc::new(Doors::default());
        let inner = Arc::clone(&doors);
        let backend = Backend::serve(move |request, conn| {
            inner.pass(request.head.target());
            conn.send(canned::ok(request.head.target()));
        });
        let mut setup = Setup::for_backends([backend.url()]).set("tenants", tenants).workers(2);
        for host in ["noisy.test", "gold.test"] {
            setup = setup.route(host, [backend.url()]);
        }
        let admin = Admin::start(setup.option("gold.test", "tenant", "gold"));
        Self { admin, backend, doors, clients: BTreeMap::new() }
    }

    fn send(&mut self, host: &str, name: &str) {
        let mut client = self.admin.proxy.client();
        client.send(format!("GET /{name} HTTP/1.1\r\nHost: {host}\r\nX-Debug: 1\r\n\r\n"));
        self.clients.insert(name.to_owned(), client);
    }

    /// Sends a request that is let through.
    fn get(&mut self, host: &str, name: &str) {
        let before = self.backend.heads();
        self.send(host, name);
        self.backend.until_heads(before + 1);
    }

    /// Sends a request that has to wait.
    fn enqueue(&mut self, host: &str, name: &str) {
        let waiting = |node: &Self| node.number("root", "waiting") + node.number("gold", "waiting");
        let before = waiting(self);
        self.send(host, name);
        until(&format!("{name} waits"), || waiting(self) == before + 1);
    }

    /// Lets a request end.
    fn put(&mut self, name: &str) {
        self.doors.open(&format!("/{name}"));
        let mut client = self.clients.remove(name).unwrap_or_else(|| panic!("no request {name}"));
        client.response_to("GET").expect_ok(&format!("/{name}"));
    }

    /// Lets a request end, upon which this one is let through.
    fn put_for(&mut self, name: &str, next: &str) {
        let before = self.backend.requests().len();
        self.put(name);
        until(&format!("{next} follows {name}"), || self.backend.requests().len() > before);
        let last = self.backend.requests().last().map(|request| request.head.target().to_owned());
        assert_eq!(last.as_deref(), Some(&*format!("/{next}")));
    }

    fn tenants(&self) -> Value {
        self.admin.json("/v1/status")["tenants"].clone()
    }

    fn number(&self, tenant: &str, key: &str) -> u64 {
        let root = self.tenants();
        let of_root = (root["name"] == tenant).then(|| root[key].as_u64());
        let below = || root["buckets"].as_array()?.iter().find(|bucket| bucket["name"] == tenant)?[key].as_u64();
        of_root.unwrap_or_else(below).unwrap_or_default()
    }
}

fn gold(requests: u32) -> Value {
    json!({"enabled": true, "requests": requests, "buckets": {"gold": "50..75 %"}, "queueLimit": 4})
}

#[test]
fn requests_in_flight_are_shared_by_tenants_and_frontends() {
    let mut node = Node::start(gold(4));
    for name in ["n1", "n2", "n3", "n4"] {
        node.get("noisy.test", name);
    }
    assert_eq!((node.number("root", "actual"), node.number("gold", "rate")), (4, 2), "idle shares are lent");
    for name in ["n5", "n6", "n7"] {
        node.enqueue("noisy.test", name);
    }
    node.enqueue(HOST, "h1");
    node.enqueue("gold.test", "g1");
    node.put_for("n1", "g1");
    node.enqueue("gold.test", "g2");
    node.put_for("n2", "g2");
    // The tenant has what it is assured. Of the frontends that name none, one holds two tokens and the other one none.
    node.put_for("n3", "h1");
    node.put_for("n4", "n5");
    assert_eq!((node.number("gold", "actual"), node.number("root", "actual")), (2, 4));
    for name in ["g1", "g2", "h1", "n5", "n6", "n7"] {
        node.put(name);
    }
    until("nothing is in flight", || node.number("root", "actual") == 0);
    assert_eq!((node.number("root", "waits"), node.number("gold", "waits")), (4, 2));
    let metrics = node.admin.get("/metrics").text();
    assert!(metrics.contains("sluice_tenant_tokens_total{tenant=\"gold\"} 2"), "{metrics}");
}

#[test]
fn each_frontend_has_a_queue_of_its_own_and_a_client_that_leaves_gives_up_its_place() {
    let mut node = Node::start(gold(1));
    node.get("noisy.test", "n1");
    for name in ["n2", "n3", "n4", "n5"] {
        node.enqueue("noisy.test", name);
    }
    node.send("noisy.test", "n6");
    let response = node.clients.remove("n6").expect("a client").response_to("GET");
    assert_eq!((response.status(), response.head.get("X-Debug-Error")), (503, Some("queue_full")));
    node.enqueue(HOST, "h1");
    drop(node.clients.remove("n2"));
    until("the place is given up", || node.number("root", "waiting") == 4);
    node.put_for("n1", "n3");
    node.put_for("n3", "h1");
    for name in ["h1", "n4", "n5"] {
        node.put(name);
    }
    until("nothing is in flight", || node.number("root", "actual") == 0);
    assert_eq!((node.number("root", "left"), node.number("root", "refused")), (1, 1));
}

#[test]
fn a_wait_for_the_node_ends_in_time_and_an_unknown_tenant_is_none() {
    let mut tenants = gold(1);
    tenants["queueTimeout"] = json!(0.2);
    let mut node = Node::start(tenants);
    node.get("gold.test", "g1");
    node.enqueue("noisy.test", "n1");
    let response = node.clients.remove("n1").expect("a client").response_to("GET");
    assert_eq!((response.status(), response.head.get("X-Debug-Error")), (503, Some("queue_timeout")));
    assert_eq!(response.head.get("X-Debug-Limit"), Some("server.tenants.queueTimeout"));
    assert_eq!(node.number("root", "timed_out"), 1);
    node.put("g1");
    until("nothing is in flight", || node.number("root", "actual") == 0);
}

/// A few hundred connections of several tenants are ready at once, again and again, some with bodies: every response comes.
#[test]
fn every_request_of_a_crowd_is_served_by_turns() {
    let backend = Backend::always(canned::ok("ok"));
    let large = Backend::always(canned::ok(&"x".repeat(300_000)));
    let setup =
        Setup::for_backends([backend.url()]).set("tenants", json!({"enabled": true, "buckets": {"gold": "50 %"}}));
    let setup = setup.route("noisy.test", [large.url()]).route("gold.test", [backend.url()]).workers(1);
    let admin = Admin::start(setup.option("gold.test", "tenant", "gold"));
    let hosts = [HOST, "noisy.test", "gold.test"];
    let mut clients: Vec<_> = hosts.iter().cycle().take(90).map(|host| (*host, admin.proxy.client())).collect();
    for round in 0..3 {
        // Two requests at once on each connection.
        for (host, client) in &mut clients {
            client.send(canned::get(host, "/1"));
            client.send(canned::get(host, "/2"));
        }
        for (host, client) in &mut clients {
            for _ in 0..2 {
                let response = client.response_to("GET");
                let length = if *host == "noisy.test" { 300_000 } else { 2 };
                assert_eq!((response.status(), response.body.len()), (200, length), "round {round}: {host}");
            }
        }
    }
    assert_eq!(admin.json("/v1/status")["tenants"], Value::Null, "requests in flight are not limited");
}
