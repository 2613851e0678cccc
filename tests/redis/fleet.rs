//! Nodes that know of each other, and receipts.

use crate::ondemand::{Node, arguments, nodes};
use crate::server::Server;
use crate::support::backend::Backend;
use crate::support::browser::Browser;
use crate::support::proxy::Setup;
use crate::support::{HOST, canned, until};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::process::{Command, Output, Stdio};

pub(crate) fn sluice(arguments: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_sluice")).args(arguments).stdin(Stdio::null()).output();
    output.expect("the program runs")
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Node {
    /// The nodes, as this one sees them.
    pub(crate) fn fleet(&self) -> Vec<Value> {
        let view = self.client().get(&self.admin.to_string(), "/v1/nodes");
        let view: Value = serde_json::from_slice(&view.body).expect("JSON");
        view["nodes"].as_array().cloned().unwrap_or_default()
    }

    pub(crate) fn receipt(&self, query: &str) -> (u16, String) {
        let response =
            self.client().exchange(canned::post(&self.admin.to_string(), &format!("/v1/receipts?{query}"), ""));
        (response.status(), response.text())
    }
}

#[test]
fn nodes_come_and_go() {
    let redis = Server::start();
    let [a, mut b] = nodes(&redis);
    until("both are there", || a.fleet().len() == 2 && b.fleet().len() == 2);
    let address = a.proxy.address().to_string();
    let of_a = a.fleet().into_iter().find(|node| node["address"] == address.as_str()).expect("the node");
    assert_eq!((&of_a["version"], of_a["load"].as_u64()), (&Value::from(env!("CARGO_PKG_VERSION")), Some(0)));
    let listed = sluice(&["nodes", "--driver", &redis.url()]);
    let listed = (listed.status.success(), text(&listed.stdout));
    assert!(listed.0 && listed.1.contains(": 2 nodes\n") && listed.1.contains(&address), "{listed:?}");
    b.proxy.signal(Signal::SIGTERM);
    b.proxy.until_exit();
    assert_eq!(a.fleet().len(), 1, "one that ends says so");
}

/// Behind a receipt, no request at any connection of any node meets the list of before.
#[test]
fn behind_a_receipt_all_cores_of_all_nodes_serve_the_new_list() {
    const ROUNDS: usize = 40;
    let redis = Server::start();
    let backends = ["one", "two"].map(|name| Backend::always(canned::ok(name)));
    redis.set(HOST, &[backends[0].url()]);
    let nodes: [Node; 3] = nodes(&redis);
    until("all are there", || nodes[0].fleet().len() == 3);
    let clients = |node: &Node| (0..4).map(|_| node.proxy.client()).collect::<Vec<_>>();
    let mut clients: Vec<_> = nodes.iter().flat_map(clients).collect();
    for round in 0..ROUNDS {
        let (name, backend) = [("two", &backends[1]), ("one", &backends[0])][round % 2];
        redis.set(HOST, &[backend.url()]);
        let (status, body) = nodes[round % 3].receipt(&format!("host={HOST}"));
        assert_eq!(status, 200, "{body}");
        assert_eq!(body.matches(',').count(), 3, "all nodes are named: {body}");
        for client in &mut clients {
            client.get(HOST, "/").expect_ok(name);
        }
    }
    // Edits of clusters on demand, too.
    for round in 0..ROUNDS {
        let path = format!("/c{round}");
        nodes[round % 3].expect("PUT", &format!("{path}?hostname=c{round}.test"), "", 201);
        nodes[round % 3].expect("PUT", &format!("{path}/backends/one"), &arguments(&backends[0]), 201);
        assert_eq!(nodes[(round + 1) % 3].receipt(&format!("host=c{round}.test")).0, 200);
        for client in &mut clients {
            client.get(&format!("c{round}.test"), "/").expect_ok("one");
        }
    }
    let waited = sluice(&["wait", HOST, "--driver", &redis.url()]);
    assert!(text(&waited.stdout).contains("3 nodes serve what stands in Redis"), "{}", text(&waited.stderr));
    assert_eq!(nodes[0].receipt("host=").0, 400);
    assert_eq!(nodes[0].receipt(&format!("host={HOST}&timeout=soon")).0, 400);
}

/// At the dashboard, too, an operator learns when all nodes serve an edit.
#[test]
fn an_edit_is_confirmed_on_all_nodes_at_the_page() {
    let redis = Server::start();
    let backend = Backend::always(canned::ok("one"));
    redis.set(HOST, &[backend.url()]);
    let nodes: [Node; 2] = nodes(&redis);
    until("both are there", || nodes[0].fleet().len() == 2);
    nodes[0].proxy.client().get(HOST, "/").expect_ok("one");
    let mut page = Browser::open(&format!("http://{}/", nodes[0].admin), (1280, 900));
    page.until("document.querySelectorAll('tr.host').length === 1");
    page.value("document.querySelector('tr.host').click()");
    page.confirm(".about", "Confirm on all nodes");
    page.until_said(&format!("✓ every core of 2 nodes serves the present state of {HOST}"));
    assert!(page.complaints().is_empty(), "{:?}", page.complaints());
}

/// Neither a worker that is replaced nor a Redis that has lost everything makes a receipt that is not true.
#[test]
fn receipts_are_true_while_workers_are_replaced_and_behind_an_empty_redis() {
    let mut redis = Server::start();
    let backends = ["one", "two"].map(|name| Backend::always(canned::ok(name)));
    redis.set(HOST, &[backends[0].url()]);
    let nodes: [Node; 2] = nodes(&redis);
    until("both are there", || nodes[0].fleet().len() == 2);
    for node in &nodes {
        node.proxy.client().get(HOST, "/").expect_ok("one");
    }
    for round in 0..20 {
        let (name, backend) = [("two", &backends[1]), ("one", &backends[0])][round % 2];
        if round == 4 {
            redis.kill();
            redis.revive();
        }
        if round % 5 == 1 {
            let drain = canned::post(&nodes[0].admin.to_string(), &format!("/v1/workers/{}/drain", round / 10), "");
            assert_eq!(nodes[0].client().exchange(drain).status(), 202);
        }
        redis.set(HOST, &[backend.url()]);
        let (status, body) = nodes[1].receipt(&format!("host={HOST}"));
        assert!(status == 200 && body.matches(',').count() == 2, "{status} {body}");
        for node in &nodes {
            for _ in 0..4 {
                node.proxy.client().get(HOST, "/").expect_ok(name);
            }
        }
    }
}

#[test]
fn a_node_that_hangs_is_missing_until_it_has_died() {
    let redis = Server::start();
    let backend = Backend::always(canned::ok("one"));
    redis.set(HOST, &[backend.url()]);
    let [a, b] = nodes(&redis);
    until("both are there", || a.fleet().len() == 2);
    assert_eq!(a.receipt(&format!("host={HOST}")).0, 200);
    b.proxy.signal(Signal::SIGSTOP);
    let (status, body) = a.receipt(&format!("host={HOST}&timeout=1"));
    assert!(status == 504 && body.contains("no acknowledgement from"), "{status} {body}");
    assert!(body.contains(&b.proxy.address().to_string()), "{body}");
    let (status, body) = a.receipt(&format!("host={HOST}&timeout=10"));
    assert_eq!(status, 200, "it is no node that lives by then: {body}");
    b.proxy.signal(Signal::SIGCONT);
    let alone = Node::start(Setup::new());
    assert_eq!(alone.receipt(&format!("host={HOST}")).0, 409);
}
