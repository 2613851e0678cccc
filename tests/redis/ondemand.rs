//! Clusters on demand in Redis: several nodes, one API.

use crate::server::Server;
use crate::support::backend::Backend;
use crate::support::client::{Client, Response, connect};
use crate::support::proxy::{Proxy, Setup};
use crate::support::{canned, until, unused_address};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A way to a server that can be cut: open connections are closed, and new ones are too.
struct Way {
    address: SocketAddr,
    state: Arc<Mutex<(bool, Vec<TcpStream>)>>,
}

impl Way {
    fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind(unused_address()).expect("a listener");
        let way = Self { address: listener.local_addr().expect("its address"), state: Arc::default() };
        let state = Arc::clone(&way.state);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let mut state = state.lock().expect("no panic");
                let Some(server) = TcpStream::connect(server).ok().filter(|_| !state.0) else { continue };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let [mut from, mut to] = [from, to].map(|stream| stream.try_clone().expect("a second handle"));
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
                state.1.extend([client, server]);
            }
        });
        way
    }

    fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    fn cut(&self, is_cut: bool) {
        let mut state = self.state.lock().expect("no panic");
        state.0 = is_cut;
        state.1.drain(..).for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
    }
}

/// A node with an admin service.
pub(crate) struct Node {
    pub(crate) proxy: Proxy,
    pub(crate) admin: SocketAddr,
}

impl Node {
    pub(crate) fn start(setup: Setup) -> Self {
        let node = Self::start_unready(setup);
        until("the node is ready", || node.client().get(&node.admin.to_string(), "/readyz").status() == 200);
        node
    }

    fn start_unready(mut setup: Setup) -> Self {
        let admin = unused_address();
        setup.launch.admin = json!({"bind": admin.to_string()});
        Self { proxy: setup.workers(2).start(), admin }
    }

    pub(crate) fn client(&self) -> Client {
        Client::over(Box::new(connect(self.admin, None)))
    }

    fn request(&self, method: &str, path: &str, body: &str) -> String {
        let (admin, length) = (self.admin, body.len());
        format!("{method} /director{path} HTTP/1.1\r\nHost: {admin}\r\nContent-Length: {length}\r\n\r\n{body}")
    }

    fn call(&self, method: &str, path: &str, body: &str) -> Response {
        self.client().exchange(self.request(method, path, body))
    }

    #[track_caller]
    pub(crate) fn expect(&self, method: &str, path: &str, body: &str, status: u16) -> Response {
        let response = self.call(method, path, body);
        assert_eq!(response.status(), status, "{method} {path} {body}: {}{}", response.text(), self.proxy.stderr());
        response
    }

    /// The clusters on demand; `None` where the response is another one.
    fn all(&self) -> Value {
        serde_json::from_slice(&self.expect("GET", "/", "", 200).body).expect("JSON")
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.call("GET", &format!("/{name}"), "").status() == 200
    }

    pub(crate) fn status(&self, host: &str) -> u16 {
        self.proxy.client().get(host, "/").status()
    }

    /// Waits until it follows Redis.
    #[track_caller]
    pub(crate) fn until_editable(&self) {
        until("edits are taken", || self.call("POST", "/no-such-cluster", "port=1").status() == 404);
    }

    fn restart(&mut self) {
        self.proxy.signal(Signal::SIGTERM);
        self.proxy.until_exit();
        self.proxy.restart();
        until("the node is ready", || self.client().get(&self.admin.to_string(), "/readyz").status() == 200);
    }
}

pub(crate) fn nodes<const N: usize>(redis: &Server) -> [Node; N] {
    nodes_at(&redis.url())
}

/// Nodes with this driver.
pub(crate) fn nodes_at<const N: usize>(driver: &str) -> [Node; N] {
    let nodes = [(); N].map(|()| Node::start(Setup::new().driver(driver)));
    nodes.iter().for_each(Node::until_editable);
    nodes
}

pub(crate) fn arguments(backend: &Backend) -> String {
    format!("hostname={}&port={}", backend.address().ip(), backend.address().port())
}

#[test]
fn an_edit_at_one_node_is_one_of_all_nodes() {
    let redis = Server::start();
    let backends = ["one", "two"].map(|name| Backend::always(canned::ok(name)));
    let [a, b] = nodes(&redis);
    a.expect("PUT", "/app?hostname=app.test", "", 201);
    // An edit knows all edits before it, wherever they were made.
    b.expect("PUT", "/app/backends/one", &arguments(&backends[0]), 201);
    b.expect("PUT", "/app/buckets/main", "rate=.5&ceil=.7", 204);
    for node in [&a, &b] {
        until("the backend serves", || node.proxy.client().get("app.test", "/").text() == "one");
    }
    a.expect("PUT", "/other?hostname=app.test", "", 409);
    b.expect("PUT", "/other?hostname=app.test", "", 409);
    a.expect("PUT", "/app/backends/two", &arguments(&backends[1]), 201);
    b.expect("DELETE", "/app/backends/one", "", 202);
    until("the other backend serves", || a.proxy.client().get("app.test", "/").text() == "two");
    let bucket: Value = serde_json::from_slice(&a.expect("GET", "/app/buckets/main", "", 200).body).expect("JSON");
    assert_eq!(bucket["ceil"], 0.7);
    b.expect("POST", "/app", "hostname=new.test", 202);
    until("the host is another one", || a.status("new.test") == 200 && a.status("app.test") == 400);
    a.expect("PUT", "/other?hostname=app.test", "", 201);
    b.expect("DELETE", "/other", "", 204);
    b.expect("DELETE", "/app", "", 204);
    until("the cluster is gone", || a.status("new.test") == 400 && !a.has("app"));
    a.expect("DELETE", "/app", "", 404);
    assert_eq!(redis.run::<u32>("HLEN ondemand") + redis.run::<u32>("HLEN ondemand:matches"), 0);
}

/// Two nodes edit one cluster, and make clusters for the same hosts, as fast as they can.
#[test]
fn concurrent_edits_lose_nothing() {
    const EDITS: usize = 60;
    let redis = Server::start();
    let nodes: [Node; 2] = nodes(&redis);
    nodes[0].expect("PUT", "/app?hostname=app.test", "", 201);
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for (side, node) in nodes.iter().enumerate() {
            threads.push(scope.spawn(move || {
                let (mut client, mut made) = (node.client(), Vec::new());
                for number in 0..EDITS {
                    let path = format!("/app/backends/n{side}-{number}");
                    let put = node.request("PUT", &path, &format!("hostname=10.{side}.0.{number}&port=80"));
                    let response = client.exchange(put);
                    assert_eq!(response.status(), 201, "{}", response.text());
                    let put = node.request("PUT", &format!("/c{side}-{number}?hostname=h{number}.test"), "");
                    let status = client.exchange(put).status();
                    assert!(matches!(status, 201 | 409), "{status}");
                    made.push(status == 201);
                }
                made
            }));
        }
        let made: Vec<Vec<bool>> = threads.into_iter().map(|thread| thread.join().expect("a thread")).collect();
        let is_once = |number: usize| made.iter().filter(|made| made[number]).count() == 1;
        assert!((0..EDITS).all(is_once), "each host has one cluster");
    });
    for node in &nodes {
        until("all clusters are there", || node.all().as_object().map(serde_json::Map::len) == Some(EDITS + 1));
        until("all backends are there", || node.all()["app"]["members"].as_array().map(Vec::len) == Some(2 * EDITS));
    }
    assert_eq!(nodes[0].all()["app"]["members"].as_array(), nodes[1].all()["app"]["members"].as_array());
}

#[test]
fn clusters_serve_while_redis_is_away_and_are_there_again_behind_an_empty_one() {
    let mut redis = Server::start();
    let backend = Backend::always(canned::ok("ok"));
    let [a, b] = nodes(&redis);
    a.expect("PUT", "/app?hostname=app.test", "", 201);
    b.expect("PUT", "/app/backends/one", &arguments(&backend), 201);
    until("it serves at both", || a.status("app.test") == 200 && b.status("app.test") == 200);
    a.expect("PUT", "/gone?hostname=gone.test", "", 201);
    until("both have it", || b.has("gone"));
    redis.kill();
    let refused = || a.call("POST", "/app", "queue-limit=5");
    until("edits are refused", || refused().status() == 503);
    until("it is said why", || refused().text().contains("they serve on, and cannot be edited"));
    for node in [&a, &b] {
        for _ in 0..10 {
            node.proxy.client().get("app.test", "/").expect_ok("ok");
        }
    }
    // It has nothing left of what was written to it.
    redis.revive();
    [&a, &b].into_iter().for_each(Node::until_editable);
    assert_eq!(redis.run::<Vec<String>>("HKEYS ondemand").len(), 2);
    b.expect("DELETE", "/gone", "", 204);
    until("it is gone", || !a.has("gone"));
    a.expect("POST", "/app", "queue-limit=5", 202);
    until("the edit is known", || b.all()["app"]["queue-limit"] == 5);
    // Redis tells nobody of this; the next look at its log does.
    redis.run::<()>("FLUSHALL");
    until("it is written again", || redis.run::<u32>("HLEN ondemand") == 1);
    assert_eq!((a.status("app.test"), b.status("app.test")), (200, 200));
    let [c] = nodes(&redis);
    assert_eq!(c.status("app.test"), 200);
}

#[test]
fn a_start_has_the_clusters_of_redis_and_those_of_its_folder_while_that_is_away() {
    let mut redis = Server::start();
    let backend = Backend::always(canned::ok("ok"));
    let setup = Setup::new().driver(redis.url());
    let state = setup.dir().join("state").display().to_string();
    // A cluster of a time without Redis goes there.
    let file = format!(
        "[director]\nenabled=true\nscheduler=rr\n[ondemand]\nhostname=old.test\n[backend=one]\nrole=active\nenabled=true\n\
         host={}\nport={}\n",
        backend.address().ip(),
        backend.address().port()
    );
    let mut a = Node::start(setup.set("stateDir", state).file("state/old.db", &file));
    let [b] = nodes(&redis);
    until("the cluster is everywhere", || b.status("old.test") == 200);
    for name in ["kept", "removed"] {
        b.expect("PUT", &format!("/{name}?hostname={name}.test"), "", 201);
        b.expect("PUT", &format!("/{name}/backends/one"), &arguments(&backend), 201);
        until("it serves", || a.status(&format!("{name}.test")) == 200);
        until("its file is written", || a.proxy.path(&format!("state/{name}.db")).exists());
    }
    a.proxy.signal(Signal::SIGTERM);
    a.proxy.until_exit();
    b.expect("DELETE", "/removed", "", 204);
    a.proxy.restart();
    until("the node is ready", || a.client().get(&a.admin.to_string(), "/readyz").status() == 200);
    assert_eq!((a.status("kept.test"), a.status("removed.test")), (200, 400), "{}", a.proxy.stderr());
    until("the file is removed", || !a.proxy.path("state/removed.db").exists());
    redis.kill();
    a.proxy.signal(Signal::SIGTERM);
    a.proxy.until_exit();
    a.proxy.restart();
    until("it serves without Redis", || a.status("kept.test") == 200 && a.status("old.test") == 200);
    redis.revive();
    until("Redis has them again", || redis.run::<u32>("HLEN ondemand") == 2);
    a.restart();
    assert_eq!(a.status("kept.test"), 200);
}

#[test]
fn a_port_is_opened_at_all_nodes() {
    let redis = Server::start();
    let backend = Backend::always(canned::ok("ok"));
    let [a, b] = nodes(&redis);
    let at = |node: &Node, port: u16| TcpStream::connect((node.proxy.address().ip(), port));
    let port = unused_address().port();
    // At the other node, another process has the port for a while.
    let listener = TcpListener::bind((b.proxy.address().ip(), port));
    a.expect("PUT", &format!("/any?port={port}"), "", 201);
    a.expect("PUT", "/any/backends/one", &arguments(&backend), 201);
    if listener.is_ok() {
        until("it is said", || b.proxy.stderr().contains("a cluster on demand that another node has made is for it"));
    }
    drop(listener);
    for node in [&a, &b] {
        let serves = || {
            let Ok(stream) = at(node, port) else { return false };
            Client::over(Box::new(stream)).get("any.test", "/").status() == 200
        };
        until("the port serves", serves);
    }
    b.expect("DELETE", "/any", "", 204);
    until("the port is closed at both", || at(&a, port).is_err() && at(&b, port).is_err());
}

#[test]
fn a_bad_record_harms_no_cluster() {
    let redis = Server::start();
    let [a] = nodes(&redis);
    a.expect("PUT", "/app?hostname=app.test", "", 201);
    redis.run::<()>("HSET ondemand app nonsense");
    redis.run::<()>("HSET ondemand a/b 7\n[director]");
    redis.run::<()>("XADD ondemand:log 50-0 name app");
    redis.run::<()>("XADD ondemand:log 51-0 name a/b");
    until("the record is named", || a.proxy.stderr().contains("the record of app: no revision stands before its text"));
    until("so is the other", || a.proxy.stderr().contains("the record of a/b: a cluster's name has"));
    assert_eq!(a.status("app.test"), 502, "it has no backend");
    let [b] = nodes(&redis);
    assert!(!b.has("app"));
}

/// The objects of a cluster go with it at all nodes, also where the next one of its name is there before the others look.
#[test]
fn a_cluster_that_another_node_removes_takes_its_objects_along() {
    let response = |text: &str| {
        let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=86400\r\n";
        format!("{head}Content-Length: {}\r\n\r\n{text}", text.len())
    };
    let redis = Server::start();
    let [old, new] = ["old", "new"].map(|text| Backend::always(response(text)));
    let [a, b] = nodes(&redis);
    let make = |backend: &Backend| {
        let mut client = a.client();
        for (path, body) in
            [("/web?hostname=a.test&cache-enabled=true", String::new()), ("/web/backends/one", arguments(backend))]
        {
            assert_eq!(client.exchange(a.request("PUT", path, &body)).status(), 201);
        }
    };
    make(&old);
    until("it is cached", || {
        let got = b.proxy.client().get("a.test", "/");
        (got.text().as_str(), got.head.get("X-Cache-Lookup")) == ("old", Some("hit"))
    });
    a.expect("DELETE", "/web", "", 204);
    make(&new);
    until("the new one serves", || b.proxy.client().get("a.test", "/").text() == "new");
    assert_eq!(b.proxy.client().get("a.test", "/").text(), "new");
}

/// A node that misses the removal of a cluster, and the creation of the next one of its name, has none of its objects.
#[test]
fn a_node_that_was_cut_off_does_not_take_a_new_cluster_for_an_earlier_one() {
    let response = |text: &str| {
        let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=86400\r\n";
        format!("{head}Content-Length: {}\r\n\r\n{text}", text.len())
    };
    let redis = Server::start();
    let [old, new] = ["old", "new"].map(|text| Backend::always(response(text)));
    // The way of the second node to Redis can be cut.
    let way = Way::to(redis.address());
    let [a] = nodes(&redis);
    let [b] = nodes_at(&way.url());
    let make = |backend: &Backend| {
        a.expect("PUT", "/web?hostname=a.test&cache-enabled=true", "", 201);
        a.expect("PUT", "/web/backends/one", &arguments(backend), 201);
    };
    make(&old);
    until("it is cached", || {
        let got = b.proxy.client().get("a.test", "/");
        (got.text().as_str(), got.head.get("X-Cache-Lookup")) == ("old", Some("hit"))
    });
    way.cut(true);
    until("it is cut off", || b.call("POST", "/web", "queue-limit=5").status() == 503);
    a.expect("DELETE", "/web", "", 204);
    make(&new);
    assert_eq!(b.proxy.client().get("a.test", "/").text(), "old", "it serves on");
    // An edit in place keeps the objects of a cluster; this is another cluster.
    way.cut(false);
    until("the new one serves", || b.proxy.client().get("a.test", "/").text() == "new");
    a.expect("POST", "/web", "queue-limit=5", 202);
    until("the edit is known", || b.all()["web"]["queue-limit"] == 5);
    assert_eq!(b.proxy.client().get("a.test", "/").head.get("X-Cache-Lookup"), Some("hit"), "an edit purges nothing");
}

/// While a node is down, another one removes a cluster and makes another of its name: the node has none of its objects then.
#[test]
fn a_cluster_made_again_while_a_node_was_down_gets_no_object_of_its_disk() {
    let redis = Server::start();
    let backend = |name: &'static str| {
        Backend::serve(move |_, conn| {
            let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length:";
            conn.send(format!("{head} {}\r\n\r\n{name}", name.len()));
        })
    };
    let backends = [backend("old"), backend("new")];
    let setup = Setup::new().driver(redis.url());
    let objects = setup.dir().join("objects");
    let mut a = Node::start(setup.set("cacheDisk", json!({"path": objects.to_str(), "bytes": "64MB"})));
    let [b] = nodes(&redis);
    a.until_editable();
    let make = |node: &Node, name: &str, backend: &Backend| {
        node.expect("PUT", &format!("/{name}?hostname={name}.test&cache-enabled=true"), "", 201);
        node.expect("PUT", &format!("/{name}/backends/one"), &arguments(backend), 201);
    };
    for name in ["again", "stays"] {
        make(&a, name, &backends[0]);
        assert_eq!(a.proxy.client().get(&format!("{name}.test"), "/").text(), "old");
    }
    let status = |node: &Node| node.client().get(&node.admin.to_string(), "/v1/status").text();
    until("the objects are on the disk", || status(&a).contains("\"written\":2"));
    a.proxy.signal(Signal::SIGTERM);
    a.proxy.until_exit();
    b.expect("DELETE", "/again", "", 204);
    make(&b, "again", &backends[1]);
    a.proxy.restart();
    until("the objects are read", || a.proxy.stderr().contains("server.cacheDisk: 2 files"));
    until("the cluster is there", || a.has("again"));
    assert_eq!(a.proxy.client().get("again.test", "/").text(), "new");
    let kept = a.proxy.client().get("stays.test", "/");
    assert_eq!((kept.head.get("X-Cache-Lookup"), kept.text()), (Some("hit"), "old".to_owned()));
}
