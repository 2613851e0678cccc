//! Purges of the object cache on all nodes that share a Redis.

use crate::server::Server;
use crate::support::backend::Backend;
use crate::support::client::{Client, connect};
use crate::support::proxy::{Proxy, Setup};
use crate::support::{HOST, canned, until, unused_address};
use serde_json::{Value, json};
use std::net::SocketAddr;

/// A node with an admin service.
struct Node {
    proxy: Proxy,
    admin: SocketAddr,
}

impl Node {
    fn start(driver: &str) -> Self {
        let admin = unused_address();
        let mut setup = Setup::new().driver(driver);
        setup.launch.admin = json!({"bind": admin.to_string()});
        Self { proxy: setup.start(), admin }
    }

    fn lookup(&self, path: &str) -> String {
        self.proxy.client().get(HOST, path).head.get("X-Cache-Lookup").unwrap_or("none").to_owned()
    }

    fn purge(&self, query: &str) -> (u16, Value) {
        let mut client = Client::over(Box::new(connect(self.admin, None)));
        let request = canned::post(&self.admin.to_string(), &format!("/v1/cache/purge?{query}"), "");
        let response = client.exchange(request);
        (response.status(), serde_json::from_str(&response.text()).unwrap_or_default())
    }
}

fn backend() -> Backend {
    Backend::always("HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nCache-Tag: red\r\nContent-Length: 1\r\n\r\nx")
}

#[test]
fn a_purge_reaches_all_nodes_and_tells_what_it_came_to() {
    let redis = Server::start();
    let backend = backend();
    redis.run::<()>(&format!("RPUSH edge:frontend:{HOST} site {}", backend.url()));
    redis.run::<()>(&format!("HSET edge:options:{HOST} cache.enabled true"));
    let driver = format!("{}#edge:", redis.url());
    let nodes = [Node::start(&driver), Node::start(&driver)];
    // Of another prefix: another installation.
    let other = Node::start(&redis.url());
    let subscribed = |channel: &str| redis.run::<(String, usize)>(&format!("PUBSUB NUMSUB {channel}")).1;
    until("the nodes hear of purges", || subscribed("edge:sluice:purge") == 2 && subscribed("sluice:purge") == 1);
    for node in &nodes {
        assert_eq!(["/1", "/2", "/1", "/2"].map(|path| node.lookup(path)), ["miss", "miss", "hit", "hit"]);
    }
    let (status, told) = nodes[0].purge("tag=red&mode=hard&nodes=all");
    assert_eq!(status, 200, "{told}");
    assert_eq!(
        (&told["purged"], &told["nodes_told"], &told["nodes_silent"]),
        (&json!(4), &json!(2), &json!(0)),
        "{told}"
    );
    let results = told["nodes"].as_array().expect("a list");
    assert!(results.iter().all(|node| node["purged"] == 2) && results[0]["node"] != results[1]["node"], "{told}");
    nodes.iter().for_each(|node| assert_eq!(node.lookup("/1"), "miss"));
    // A soft one keeps shadows.
    let (status, told) = nodes[1].purge(&format!("host={HOST}&prefix=/1&nodes=all"));
    assert_eq!((status, &told["purged"]), (200, &json!(2)), "{told}");
    nodes.iter().for_each(|node| assert_eq!(node.lookup("/1"), "stale"));
    assert_eq!(other.purge("all=1&nodes=all").1["nodes_told"], json!(1));
    assert_eq!(nodes[0].purge("all=1&nodes=some").0, 400);
}

#[test]
fn a_purge_without_redis_purges_nothing_and_says_so() {
    let mut redis = Server::start();
    let backend = backend();
    redis.set(HOST, &[backend.url()]);
    redis.run::<()>(&format!("HSET options:{HOST} cache.enabled true"));
    let node = Node::start(&redis.url());
    assert_eq!(["/1", "/1"].map(|path| node.lookup(path)), ["miss", "hit"]);
    redis.kill();
    let (status, told) = node.purge("all=1&mode=hard&nodes=all");
    assert_eq!(status, 503, "{told}");
    assert_eq!(node.lookup("/1"), "hit");
    assert_eq!(node.purge("all=1&mode=hard").1, json!({"purged": 1}));
    redis.revive();
    redis.set(HOST, &[backend.url()]);
    until("the node hears of purges again", || node.purge("all=1&nodes=all").1["nodes_told"] == 1);
}
