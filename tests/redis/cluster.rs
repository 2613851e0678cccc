//! Routes from a real Redis Cluster of six processes.

use crate::certificates::{command, until_shown};
use crate::changes::{clients, make_certificates, until_all_say};
use crate::cluster_servers::Cluster;
use crate::fleet::{sluice, text};
use crate::ondemand::{Node, arguments, nodes_at};
use crate::support::backend::Backend;
use crate::support::client::Client;
use crate::support::proxy::Setup;
use crate::support::tls::Authority;
use crate::support::{HOST, PATIENCE, canned, holds_within, until};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn named(names: &[&str]) -> Vec<Backend> {
    names.iter().map(|name| Backend::always(canned::ok(name))).collect()
}

/// A host whose list is at none of these places, but where `key` is.
fn host_beside(cluster: &Cluster, key: &str) -> String {
    let place = cluster.owner(key);
    let names = (0..1000).map(|number| format!("h{number}.test"));
    names.into_iter().find(|name| cluster.owner(&format!("frontend:{name}")) == place).expect("a host")
}

/// A host whose list, options and marks are at other servers than this one.
fn host_elsewhere(cluster: &Cluster, place: usize) -> String {
    let names = (0..1000).map(|number| format!("e{number}.test"));
    let is_elsewhere = |name: &String| {
        let keys = ["frontend", "options", "dead", "healthcheck"].map(|start| format!("{start}:{name}"));
        keys.iter().all(|key| cluster.owner(key) != place)
    };
    names.into_iter().find(is_elsewhere).expect("a host")
}

/// Requests of all these hosts at all nodes, until it is told to end. Every response is a 200.
fn traffic<'s>(scope: &'s std::thread::Scope<'s, '_>, nodes: &'s [Node], hosts: &'s [&str], over: &'s AtomicBool) {
    for node in nodes {
        scope.spawn(move || {
            let mut client = node.proxy.client();
            while !over.load(Ordering::SeqCst) {
                for host in hosts {
                    let response = client.get(host, "/");
                    assert_eq!(response.status(), 200, "{host}: {}", response.head);
                }
                // Leaves time to the others.
                std::thread::park_timeout(Duration::from_millis(1));
            }
        });
    }
}

/// Runs a story while requests are made.
fn during(nodes: &[Node], hosts: &[&str], story: impl FnOnce()) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        traffic(scope, nodes, hosts, &over);
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(story));
        over.store(true, Ordering::SeqCst);
        told.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// Edits a host, and has a receipt for it; then no connection meets the earlier list.
#[track_caller]
fn edit(cluster: &Cluster, nodes: &[Node], clients: &mut [Client], host: &str, backend: &Backend, name: &str) {
    cluster.set(host, &[backend.url()]);
    let mut told = (0, String::new());
    let is_served = holds_within(PATIENCE, || {
        told = nodes[0].receipt(&format!("host={host}"));
        told.0 == 200
    });
    assert!(is_served, "{host}: {told:?}\n{}", nodes[0].proxy.stderr());
    for client in clients {
        client.get(host, "/").expect_ok(name);
    }
}

#[test]
fn everything_of_redis_works_in_a_cluster() {
    let cluster = Cluster::start();
    let backends = named(&["one", "other", "any"]);
    cluster.set(HOST, &[backends[0].url()]);
    let nodes: [Node; 2] = nodes_at(&cluster.url());
    let mut clients: Vec<_> = nodes.iter().flat_map(|node| clients(&node.proxy)).collect();
    until("both are there", || nodes[0].fleet().len() == 2);
    until_all_say(&mut clients, HOST, "one");
    // Edits, along the candidate patterns, whose slots are at different servers.
    edit(&cluster, &nodes, &mut clients, HOST, &backends[1], "other");
    cluster.set("*", &[backends[2].url()]);
    cluster.run::<()>(&format!("DEL frontend:{HOST}"));
    until_all_say(&mut clients, HOST, "any");
    until_all_say(&mut clients, "b.example", "any");
    cluster.set("*.example", &[backends[0].url()]);
    until_all_say(&mut clients, "b.example", "one");
    cluster.run::<()>("DEL frontend:*");
    until("the host is unknown", || clients.iter_mut().all(|client| client.get(HOST, "/").status() == 400));
    cluster.set(HOST, &backends.iter().map(Backend::url).collect::<Vec<_>>());
    cluster.set("Odd.Test", &[backends[0].url()]);
    until_all_say(&mut clients, "odd.test", "one");
    // Options and marks.
    cluster.run::<()>(&format!("SADD dead:{HOST} 0 2"));
    until_all_say(&mut clients, HOST, "other");
    cluster.run::<()>(&format!("DEL dead:{HOST}"));
    cluster.run::<()>(&format!("HSET options:{HOST} httpsRedirect true"));
    until("it is redirected", || clients.iter_mut().all(|client| client.get(HOST, "/").status() == 301));
    cluster.run::<()>(&format!("DEL options:{HOST}"));
    // A mark of this node.
    let dead = unused_backend();
    cluster.set("half.test", &[dead, backends[0].url()]);
    until("the dead one is found", || {
        let _ = clients[0].get("half.test", "/");
        cluster.run::<Vec<String>>("SMEMBERS dead:half.test") == ["0"]
    });
    assert!(cluster.run::<i64>("TTL dead:half.test") > 0);
    // Clusters on demand, at any node.
    nodes[0].expect("PUT", "/app?hostname=app.test", "", 201);
    nodes[1].expect("PUT", "/app/backends/one", &arguments(&backends[0]), 201);
    assert_eq!(nodes[0].receipt("host=app.test").0, 200);
    assert_eq!((nodes[0].status("app.test"), nodes[1].status("app.test")), (200, 200));
    nodes[1].expect("DELETE", "/app", "", 204);
    until("it is gone", || !nodes[0].has("app"));
    purge(&nodes);
    certificates(&cluster);
    tools(&cluster);
}

fn unused_backend() -> String {
    format!("http://{}", crate::support::unused_address())
}

/// A purge reaches all nodes, wherever they are connected.
fn purge(nodes: &[Node]) {
    let told = || {
        let mut client = nodes[0].client();
        let response =
            client.exchange(canned::post(&nodes[0].admin.to_string(), "/v1/cache/purge?all=1&nodes=all", ""));
        serde_json::from_str::<Value>(&response.text()).unwrap_or_default()["nodes"].as_array().map(Vec::len)
    };
    until("both purge", || told() == Some(2));
}

fn certificates(cluster: &Cluster) {
    let authority = Authority::new();
    let trust = authority.trust();
    let [wild, own] = [&["*.example.com"][..], &["a.example.com"]].map(|names| authority.issue(names));
    let proxy = Setup::new().driver(cluster.url()).with_https().workers(1).start();
    for (pattern, pair) in [("*.example.com", &wild), ("a.example.com", &own)] {
        cluster.execute::<()>(&command(pattern, pair), pattern);
        until_shown(&trust, &proxy, "a.example.com", Some(pair.der()));
    }
    cluster.run::<()>("DEL tls:a.example.com");
    until_shown(&trust, &proxy, "a.example.com", Some(wild.der()));
}

fn tools(cluster: &Cluster) {
    let dir = std::env::temp_dir().join(format!("sluice-cluster-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a folder");
    let file = dir.join("routes.json");
    let routes = r#"{"frontends": {"a.test": ["x", "http://10.0.0.1"], "b.test": ["y", "http://10.0.0.2"]},
        "options": {"b.test": {"httpsRedirect": false}}}"#;
    std::fs::write(&file, routes).expect("writing");
    let driver = format!("{}#edge:", cluster.url());
    let carry = |more: &[&str]| {
        let path = file.to_str().expect("a plain path");
        let output = sluice(&[&["provision", path, "--driver", &driver], more].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout).split_once("#edge:: ").expect("the target first").1.trim_end().to_owned()
    };
    assert_eq!(carry(&[]), "2 lists written, 0 removed, 0 as they were");
    cluster.run::<()>("RPUSH edge:frontend:old z http://10.0.0.9");
    assert_eq!(carry(&["--prune"]), "0 lists written, 1 removed, 2 as they were");
    let listed = text(&sluice(&["routes", "--driver", &driver]).stdout);
    assert_eq!(listed.lines().count(), 2, "{listed}");
    let explained = text(&sluice(&["routes", "b.test", "--driver", &driver]).stdout);
    assert!(
        explained.contains("serves: \"y\", 1 backends") && explained.contains("httpsRedirect: false"),
        "{explained}"
    );
    let listed = text(&sluice(&["nodes", "--driver", &cluster.url()]).stdout);
    assert!(listed.contains(": 2 nodes\n"), "{listed}");
    let waited = sluice(&["wait", HOST, "--driver", &cluster.url()]);
    assert!(text(&waited.stdout).contains("2 nodes serve what stands in Redis"), "{}", text(&waited.stderr));
    let _ = std::fs::remove_dir_all(dir);
}

/// A slot is moved by hand, with edits at every stage; then many slots by the tool, to a server that joins meanwhile.
#[test]
fn slots_move_and_no_route_is_stale() {
    let mut cluster = Cluster::start();
    let backends = named(&["one", "two"]);
    let nodes: [Node; 2] = nodes_at(&cluster.url());
    let mut clients: Vec<_> = nodes.iter().flat_map(|node| clients(&node.proxy)).collect();
    until("both are there", || nodes[0].fleet().len() == 2);
    cluster.set(HOST, &[backends[0].url()]);
    cluster.set("still.test", &[backends[0].url()]);
    until_all_say(&mut clients, HOST, "one");
    until_all_say(&mut clients, "still.test", "one");
    let key = format!("frontend:{HOST}");
    let (from, slot) = (cluster.owner(&key), cluster.slot(&key));
    let to = (0..3).find(|place| *place != from).expect("another master");
    during(&nodes, &[HOST, "still.test"], || {
        let (from_id, to_id) = (cluster.id(from), cluster.id(to));
        let [source, target] = [&cluster.servers[from], &cluster.servers[to]];
        target.run::<()>(&format!("CLUSTER SETSLOT {slot} IMPORTING {from_id}"));
        source.run::<()>(&format!("CLUSTER SETSLOT {slot} MIGRATING {to_id}"));
        edit(&cluster, &nodes, &mut clients, HOST, &backends[1], "two");
        let at = target.address();
        source.run::<()>(&format!("MIGRATE {} {} {key} 0 5000", at.ip(), at.port()));
        // The key is at the importing server, which owns the slot in no map.
        edit(&cluster, &nodes, &mut clients, HOST, &backends[0], "one");
        target.run::<()>(&format!("CLUSTER SETSLOT {slot} NODE {to_id}"));
        edit(&cluster, &nodes, &mut clients, HOST, &backends[1], "two");
        source.run::<()>(&format!("CLUSTER SETSLOT {slot} NODE {to_id}"));
        edit(&cluster, &nodes, &mut clients, HOST, &backends[0], "one");
    });
    let place = cluster.add_server();
    let joined = cluster.servers[place].address().to_string();
    let hosts: Vec<String> = (0..40).map(|number| format!("many{number}.test")).collect();
    for host in &hosts {
        cluster.set(host, &[backends[0].url()]);
        until_all_say(&mut clients, host, "one");
    }
    let names: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let cluster = &cluster;
    during(&nodes, &names, || {
        std::thread::scope(|scope| {
            let resharding = scope.spawn(|| {
                let known = cluster.servers[0].address().to_string();
                cluster.manage(&["add-node", &joined, &known]);
                until("all servers agree", || cluster.agrees_on(7));
                let id = cluster.id(place);
                let slots = ["--cluster-from", "all", "--cluster-to", &id, "--cluster-slots", "1200"];
                cluster.manage(&[&["reshard", known.as_str()][..], &slots].concat());
            });
            let mut round = 0;
            while !resharding.is_finished() || round < 40 {
                let (name, backend) = [("two", &backends[1]), ("one", &backends[0])][round / 40 % 2];
                edit(cluster, &nodes, &mut clients, &hosts[round % 40], backend, name);
                round += 1;
            }
        });
    });
    let moved = names.iter().filter(|name| cluster.owner(&format!("frontend:{name}")) == place);
    assert!(moved.count() > 0, "no key has moved");
}

/// A master dies: its hosts are held, and no others. Its heir hangs in turn, and wakes up as a master of the past.
#[test]
fn a_master_dies_or_hangs_and_its_heir_serves_the_edits() {
    let mut cluster = Cluster::start();
    let backends = named(&["one", "two"]);
    let nodes: [Node; 2] = nodes_at(&cluster.url());
    let mut clients: Vec<_> = nodes.iter().flat_map(|node| clients(&node.proxy)).collect();
    let key = format!("frontend:{HOST}");
    let first = cluster.owner(&key);
    let (unknown, other) = (host_beside(&cluster, &key), host_elsewhere(&cluster, first));
    cluster.set(HOST, &[backends[0].url()]);
    cluster.set(&other, &[backends[0].url()]);
    until_all_say(&mut clients, HOST, "one");
    until_all_say(&mut clients, &other, "one");
    cluster.servers[first].kill();
    during(&nodes, &[HOST, &other], || {
        // Edits of other hosts are live at once.
        cluster.set(&other, &[backends[1].url()]);
        until_all_say(&mut clients, &other, "two");
        let until_heir = until_there(&cluster, &key);
        for (name, backend) in [("two", &backends[1]), ("one", &backends[0])] {
            edit_live(&cluster, &mut clients, backend, name);
        }
        assert_ne!(until_heir, first);
    });
    // The one of before is back, as a replica of its heir.
    cluster.servers[first].revive();
    let back = &cluster.servers[first];
    until("it follows", || back.run::<String>("INFO replication").contains("master_link_status:up"));
    let second = cluster.owner(&key);
    cluster.servers[second].set_stopped(true);
    until("no one knows a host there", || clients[0].get(&unknown, "/").status() == 503);
    during(&nodes, &[HOST, &other], || {
        assert_eq!(until_there(&cluster, &key), first);
        edit_live(&cluster, &mut clients, &backends[1], "two");
    });
    cluster.servers[second].set_stopped(false);
    // It wakes up as a master: what it says is of the past.
    let (deposed, over) = (&cluster.servers[second], AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                clients.iter_mut().for_each(|client| client.get(HOST, "/").expect_ok("two"));
            }
        });
        let is_replica = holds_within(PATIENCE, || deposed.run::<String>("INFO replication").contains("role:slave"));
        over.store(true, Ordering::SeqCst);
        assert!(is_replica);
    });
    edit_live(&cluster, &mut clients, &backends[0], "one");
    until("hosts there are looked up again", || clients[0].get(&unknown, "/").status() == 400);
    let stderr = nodes[0].proxy.stderr();
    assert!(!stderr.contains("its data is not what it was"), "{stderr}");
}

/// Waits until a key has a master.
fn until_there(cluster: &Cluster, key: &str) -> usize {
    let mut place = None;
    let is_there = holds_within(3 * PATIENCE, || {
        place = cluster.claimant(key);
        place.is_some()
    });
    assert!(is_there, "no heir");
    place.expect("just seen")
}

fn edit_live(cluster: &Cluster, clients: &mut [Client], backend: &Backend, name: &str) {
    cluster.set(HOST, &[backend.url()]);
    until_all_say(clients, HOST, name);
}

#[test]
fn a_cluster_that_is_away_is_found_again_and_a_start_without_it_serves_the_snapshot() {
    let mut cluster = Cluster::with(&["--user", "edge", "on", ">secret", "~*", "&*", "+@all"]);
    let backends = named(&["one", "two"]);
    cluster.set(HOST, &[backends[0].url()]);
    let driver = cluster.url().replace("//", "//edge:secret@");
    let setup = Setup::new().driver(driver).workers(1);
    let snapshot = setup.dir().join("snapshot").display().to_string();
    let mut proxy = setup.set("snapshot", snapshot).start();
    until_all_say(&mut clients(&proxy), HOST, "one");
    (0..6).for_each(|place| cluster.servers[place].kill());
    until("it is said", || proxy.stderr().contains("known routes stay in use"));
    proxy.client().get(HOST, "/").expect_ok("one");
    proxy.signal(Signal::SIGTERM);
    proxy.until_exit();
    proxy.restart();
    until("it serves", || proxy.accepts() && proxy.client().get(HOST, "/").status() == 200);
    assert_eq!(proxy.client().get("other.test", "/").status(), 503);
    // The cluster is back, without its data.
    (0..6).for_each(|place| cluster.servers[place].revive());
    until("it is told", || proxy.stderr().contains("its data is not what it was"));
    proxy.client().get(HOST, "/").expect_ok("one");
    cluster.set(HOST, &[backends[1].url()]);
    until_all_say(&mut clients(&proxy), HOST, "two");
    assert!(!proxy.stderr().contains("secret"));
}

/// Every connection of the driver is encrypted, to each server of the cluster, and a server that cannot prove itself is none.
#[test]
fn a_cluster_with_tls_is_served_from_and_only_if_its_servers_prove_themselves() {
    const TLS_PORT: u16 = 17_001;
    let dir = std::env::temp_dir().join(format!("sluice-cluster-tls-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a folder");
    let addresses = Cluster::addresses();
    make_certificates(&dir, &addresses.map(|address| address.ip()));
    let path = |name: &str| dir.join(name).to_str().expect("a plain path").to_owned();
    let (certificate, key, authority, port) =
        (path("leaf.pem"), path("leaf.key"), path("ca.pem"), TLS_PORT.to_string());
    let options = [
        ["--tls-port", &port, "--cluster-port", "27000", "--tls-auth-clients", "no"],
        ["--tls-cluster", "yes", "--tls-replication", "yes", "--tls-cert-file", &certificate],
        ["--tls-key-file", &key, "--tls-ca-cert-file", &authority, "--loglevel", "notice"],
    ];
    let cluster = Cluster::at(&addresses, options.as_flattened());
    let backends = named(&["one", "other"]);
    let hosts: Vec<String> = (0..8).map(|number| format!("t{number}.example")).collect();
    hosts.iter().for_each(|host| cluster.set(host, &[backends[0].url()]));
    let owners: std::collections::BTreeSet<usize> =
        hosts.iter().map(|host| cluster.owner(&format!("frontend:{host}"))).collect();
    assert_eq!(owners.len(), 3, "the lists are at all masters");
    let url = format!("rediss+cluster://{}:{TLS_PORT}", addresses[0].ip());
    let setup = || Setup::new().driver(url.as_str());
    let node = Node::start(setup().env("SSL_CERT_FILE", &authority));
    let mut clients = clients(&node.proxy);
    for host in &hosts {
        until_all_say(&mut clients, host, "one");
    }
    // Changes are seen at every master.
    for host in &hosts {
        cluster.set(host, &[backends[1].url()]);
        until_all_say(&mut clients, host, "other");
    }
    node.until_editable();
    node.expect("PUT", "/app?hostname=app.test", "", 201);
    node.expect("PUT", "/app/backends/one", &arguments(&backends[0]), 201);
    until_all_say(&mut clients, "app.test", "one");
    let stranger = setup().env("SSL_CERT_FILE", "/dev/null").start();
    until("the loss is told", || stranger.stderr().contains(" is away: "));
    assert_eq!(stranger.client().get(&hosts[0], "/").status(), 503);
    let _ = std::fs::remove_dir_all(dir);
}
