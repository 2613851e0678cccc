//! What an operator has a node do, beside what stands in Redis.

use crate::server::Server;
use crate::support::backend::Backend;
use crate::support::client::{Client, connect};
use crate::support::proxy::{Proxy, Setup};
use crate::support::{HOST, canned, until, unused_address};
use serde_json::{Value, json};
use std::net::SocketAddr;

/// A node with two backends and an admin service.
struct Node {
    redis: Server,
    backends: [Backend; 2],
    proxy: Proxy,
    admin: SocketAddr,
}

impl Node {
    fn start() -> Self {
        let redis = Server::start();
        let backends = ["a", "b"].map(|name| Backend::always(canned::ok(name)));
        redis.set(HOST, &backends.each_ref().map(Backend::url));
        let admin = unused_address();
        let mut setup = Setup::new().driver(redis.url()).workers(1);
        setup.launch.admin = json!({"bind": admin.to_string()});
        let proxy = setup.start();
        let node = Self { redis, backends, proxy, admin };
        until("the node is ready", || node.client().get(&admin.to_string(), "/readyz").status() == 200);
        node.proxy.client().get(HOST, "/");
        node
    }

    fn client(&self) -> Client {
        Client::over(Box::new(connect(self.admin, None)))
    }

    fn post(&self, verb: &str, backend: usize) -> (u16, String) {
        let path = format!("/v1/frontends/{HOST}/{verb}?backend={}", self.backends[backend].url());
        let response = self.client().exchange(canned::post(&self.admin.to_string(), &path, ""));
        (response.status(), response.text())
    }

    /// The first backend, as the view has it.
    fn first(&self) -> Value {
        let view = self.client().get(&self.admin.to_string(), &format!("/v1/frontends/{HOST}"));
        let view: Value = serde_json::from_slice(&view.body).expect("JSON");
        view["backends"][0].clone()
    }

    fn until_reason(&self, reason: &str) {
        until(reason, || self.first()["reason"] == reason);
    }
}

#[test]
fn the_mark_of_an_operator_stays_whatever_is_written_to_redis() {
    let node = Node::start();
    let dead = format!("dead:{HOST}");
    assert_eq!(node.post("dead", 0).0, 202);
    let mut client = node.proxy.client();
    for command in ["SADD DEAD 1", "SREM DEAD 1", "SADD DEAD 0", "SREM DEAD 0"] {
        node.redis.run::<()>(&command.replace("DEAD", &dead));
        // The node has heard of it when the other backend is what it was written to be.
        let expected = if command == "SADD DEAD 1" { 502 } else { 200 };
        until(command, || client.get(HOST, "/").status() == expected);
        (0..10).for_each(|_| assert_ne!(client.get(HOST, "/").text(), "a", "behind {command}"));
        assert_eq!(node.first()["state"], "dead", "behind {command}");
    }
    node.until_reason("marked dead by an operator of this node");
    assert_eq!(node.post("alive", 0).0, 202);
    until("it serves again", || client.get(HOST, "/").text() == "a");
}

#[test]
fn a_mark_that_stands_in_redis_is_not_taken_back_here() {
    let node = Node::start();
    node.redis.run::<()>(&format!("SADD dead:{HOST} 0"));
    node.until_reason("marked dead by a checker or another node");
    let (status, why) = node.post("alive", 0);
    assert!(status == 409 && why.contains(&format!("remove it there, from dead:{HOST}")), "{status} {why}");
    assert_eq!(node.first()["state"], "dead");
    node.redis.run::<()>(&format!("SREM dead:{HOST} 0"));
    until("it is alive", || node.first()["state"] == "up");
}
