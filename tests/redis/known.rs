//! Nothing known is forgotten: at a restart, when Redis comes back with other or older data, and where it is a replica.

use crate::changes::{clients, until_all_say};
use crate::server::Server;
use crate::support::backend::Backend;
use crate::support::client::{Client, connect};
use crate::support::proxy::{Proxy, Setup};
use crate::support::tls::Authority;
use crate::support::{HOST, canned, until, unused_address};
use nix::sys::signal::Signal;
use std::path::Path;

const HOSTS: usize = 100;

fn host(number: usize) -> String {
    format!("h{number}.test")
}

/// A Redis with a route for each of [`HOSTS`] hosts, and a proxy that keeps a snapshot.
fn many(backend: &Backend) -> (Server, Setup, std::path::PathBuf) {
    let redis = Server::start();
    let mut pipe = redis::pipe();
    (0..HOSTS).for_each(|number| {
        pipe.rpush(format!("frontend:{}", host(number)), &["site".to_owned(), backend.url()]).ignore();
    });
    pipe.exec(&mut redis.connect()).expect("writing routes");
    let setup = Setup::new();
    let path = setup.dir().join("known.snapshot");
    let setup = setup.set("snapshot", path.to_str().expect("a plain path")).driver(redis.url()).workers(1);
    (redis, setup, path)
}

fn served(proxy: &Proxy, hosts: std::ops::Range<usize>) -> usize {
    let mut client = proxy.client();
    hosts.filter(|number| client.get(&host(*number), "/").status() == 200).count()
}

fn stop(proxy: &mut Proxy) {
    proxy.signal(Signal::SIGTERM);
    assert!(proxy.until_exit().success());
}

fn kept(path: &Path) -> usize {
    // The first line, the histories and the last line are no routes.
    std::fs::read_to_string(path).expect("a snapshot").lines().count() - 3
}

#[test]
fn a_restart_makes_the_next_snapshot_no_smaller_and_redis_alone_can() {
    let backend = Backend::always(canned::ok("ok"));
    let (mut redis, setup, path) = many(&backend);
    let mut proxy = setup.start();
    assert_eq!(served(&proxy, 0..HOSTS), HOSTS);
    stop(&mut proxy);
    assert_eq!(kept(&path), HOSTS);
    // One host is asked for, and one was deleted meanwhile: nobody asks for that.
    redis.run::<()>(&format!("DEL frontend:{}", host(1)));
    proxy.restart();
    assert_eq!(served(&proxy, 0..1), 1);
    until("what Redis denies has left the snapshot", || kept(&path) == HOSTS - 1);
    // One more while Redis can tell of it.
    redis.run::<()>(&format!("DEL frontend:{}", host(2)));
    until("what Redis has told of has left the snapshot", || kept(&path) == HOSTS - 2);
    stop(&mut proxy);
    assert_eq!(kept(&path), HOSTS - 2);
    redis.kill();
    proxy.restart();
    until("Redis is away", || proxy.stderr().contains(" is away: "));
    assert_eq!(served(&proxy, 0..HOSTS), HOSTS - 2);
}

#[test]
fn what_is_in_use_is_written_when_redis_is_lost_and_at_the_end() {
    let backend = Backend::always(canned::ok("ok"));
    let (mut redis, setup, path) = many(&backend);
    let mut proxy = setup.start();
    assert_eq!(served(&proxy, 0..10), 10);
    redis.kill();
    until("the loss writes it", || path.exists() && kept(&path) == 10);
    stop(&mut proxy);

    redis.revive();
    redis.set(HOST, &[backend.url()]);
    proxy.restart();
    until_all_say(&mut clients(&proxy), HOST, "ok");
    redis.kill();
    stop(&mut proxy);
    proxy.restart();
    until("Redis is away", || proxy.stderr().contains(" is away: "));
    assert_eq!(proxy.client().get(HOST, "/").status(), 200, "learned a moment before the end");
    assert_eq!(served(&proxy, 0..10), 10, "and nobody has denied these");
}

#[test]
fn a_host_that_is_gone_is_held_no_longer_than_is_set() {
    let mut redis = Server::start();
    let backend = Backend::always(canned::ok("ok"));
    redis.set("gone.test", &[backend.url()]);
    let mut setup = Setup::new().driver(redis.url()).workers(1).set("resyncHold", 2);
    let admin = unused_address();
    setup.launch.admin = serde_json::json!({"bind": admin.to_string()});
    let proxy = setup.start();
    let mut client = proxy.client();
    assert_eq!(client.get("gone.test", "/").status(), 200);
    redis.kill();
    until("Redis is away", || proxy.stderr().contains(" is away: "));
    redis.revive();
    until("connected again", || proxy.stderr().contains("its data is not what it was"));
    until("it is held", || proxy.stderr().contains("gone.test is not in Redis"));
    assert_eq!(client.get("gone.test", "/").status(), 200);
    let view = Client::over(Box::new(connect(admin, None))).get(&admin.to_string(), "/v1/redis").text();
    assert!(view.contains("\"held_hosts\":1"), "{view}");
    let mut number = 0;
    until("it is held no longer, whatever is written", || {
        number += 1;
        redis.set(&format!("other{number}.test"), &[backend.url()]);
        client.get("gone.test", "/").status() == 400
    });
    assert_eq!(proxy.stderr().matches("gone.test is not in Redis").count(), 1, "{}", proxy.stderr());
}

/// A master and a replica that follows it.
fn pair() -> (Server, Server) {
    let (master, replica) = (Server::start(), Server::start());
    follow(&replica, &master);
    (master, replica)
}

/// The same, both with a route of [`HOST`] to this backend.
fn pair_with(backend: &Backend) -> (Server, Server) {
    let (master, replica) = pair();
    master.set(HOST, &[backend.url()]);
    until("it is copied", || replica.run::<usize>(&format!("EXISTS frontend:{HOST}")) == 1);
    (master, replica)
}

fn follow(replica: &Server, master: &Server) {
    let at = master.address();
    replica.run::<()>(&format!("REPLICAOF {} {}", at.ip(), at.port()));
    until("the replica follows", || replica.run::<String>("INFO replication").contains("master_link_status:up"));
}

#[test]
fn a_fail_over_to_a_replica_that_lacks_the_last_writes_drops_no_host() {
    let (mut master, replica) = pair();
    let backend = Backend::always(canned::ok("ok"));
    master.set("old.test", &[backend.url()]);
    until("it is copied", || replica.run::<usize>("EXISTS frontend:old.test") == 1);
    let proxy = Setup::new().driver(master.url()).workers(1).start();
    let mut client = proxy.client();
    assert_eq!(client.get("old.test", "/").status(), 200);
    // What is written from now on does not reach the replica.
    replica.signal(Signal::SIGSTOP);
    master.run::<()>("CLIENT KILL TYPE replica");
    master.set("new.test", &[backend.url()]);
    assert_eq!(client.get("new.test", "/").status(), 200);
    master.kill();
    replica.signal(Signal::SIGCONT);
    until("Redis is away", || proxy.stderr().contains(" is away: "));
    replica.run::<()>("REPLICAOF NO ONE");
    // It takes the place of the master.
    let at = master.address();
    replica.run::<()>(&format!("CONFIG SET bind {} port {}", at.ip(), at.port()));
    until("connected to the replica", || proxy.stderr().contains("its data lacks the last"));
    until("the host is held", || proxy.stderr().contains("new.test is not in Redis"));
    for host in ["old.test", "new.test"] {
        assert_eq!(client.get(host, "/").status(), 200, "{host}");
    }
    until("what nobody knew is unknown", || client.get("nobody.test", "/").status() == 400);
}

#[test]
fn a_replica_that_takes_the_data_of_an_emptied_master_drops_no_host() {
    let backend = Backend::always(canned::ok("ok"));
    let (mut master, replica) = pair_with(&backend);
    let proxy = Setup::new().driver(replica.url()).workers(1).start();
    let mut client = proxy.client();
    client.get(HOST, "/").expect_ok("ok");
    master.kill();
    master.revive();
    follow(&replica, &master);
    until("the replica is empty", || replica.run::<usize>("DBSIZE") == 0);
    until("that is seen", || proxy.stderr().contains("its data is not what it was"));
    until("the host is held", || proxy.stderr().contains(&format!("{HOST} is not in Redis")));
    client.get(HOST, "/").expect_ok("ok");
    // An order to empty it is one.
    let empty = Server::start();
    empty.set(HOST, &[backend.url()]);
    let proxy = Setup::new().driver(empty.url()).workers(1).start();
    let mut client = proxy.client();
    client.get(HOST, "/").expect_ok("ok");
    empty.run::<()>("FLUSHALL");
    until("it is gone", || client.get(HOST, "/").status() == 400);
}

/// A master begins another history when its first replica connects, with the same data.
#[test]
fn the_first_replica_of_a_master_delays_no_removal() {
    let (master, replica) = (Server::start(), Server::start());
    let backend = Backend::always(canned::ok("ok"));
    for host in [HOST, "other.test"] {
        master.set(host, &[backend.url()]);
    }
    let proxy = Setup::new().driver(master.url()).workers(1).start();
    let mut client = proxy.client();
    for host in [HOST, "other.test"] {
        client.get(host, "/").expect_ok("ok");
    }
    let history = || {
        let info: String = master.run("INFO replication");
        info.lines().find(|line| line.starts_with("master_replid:")).map(str::to_owned)
    };
    let before = history();
    follow(&replica, &master);
    assert_ne!(history(), before);
    master.run::<()>(&format!("DEL frontend:{HOST}"));
    until("it is gone", || client.get(HOST, "/").status() == 400);
    assert!(!proxy.stderr().contains("not what it was"), "{}", proxy.stderr());
    client.get("other.test", "/").expect_ok("ok");
}

/// Without reports of writes, the change of data shows in the identity of the server alone.
#[test]
fn a_replica_that_reports_nothing_and_loads_other_data_drops_no_host() {
    let backend = Backend::always(canned::ok("ok"));
    let (mut master, replica) = pair_with(&backend);
    replica.run::<()>("ACL SETUSER edge on nopass ~* &* +@all -client|tracking");
    let driver = replica.url().replace("redis://", "redis://edge:any@");
    let proxy = Setup::new().driver(driver).workers(1).set("lruCache", serde_json::json!({ "ttl": 1 })).start();
    let mut client = proxy.client();
    client.get(HOST, "/").expect_ok("ok");
    assert!(proxy.stderr().contains("changes are known by reading again"), "{}", proxy.stderr());
    // The data is exchanged at one moment, without a state of loading.
    replica.run::<()>("CONFIG SET repl-diskless-load swapdb");
    master.run::<()>("CONFIG SET repl-diskless-sync-delay 0");
    master.kill();
    master.revive();
    follow(&replica, &master);
    until("that is seen", || proxy.stderr().contains("its data is not what it was"));
    until("the host is held", || proxy.stderr().contains(&format!("{HOST} is not in Redis")));
    client.get(HOST, "/").expect_ok("ok");
}

#[test]
fn a_replica_without_its_master_is_named_and_where_the_master_is_configured_it_is_read() {
    let backends = ["one", "other"].map(|name| Backend::always(canned::ok(name)));
    let (master, replica) = pair_with(&backends[0]);
    let alone = Setup::new().driver(replica.url()).workers(1).start();
    let both = Setup::new().driver(vec![replica.url(), master.url()]).workers(1).start();
    for proxy in [&alone, &both] {
        proxy.client().get(HOST, "/").expect_ok("one");
    }
    replica.run::<()>(&format!("REPLICAOF 127.0.0.1 {}", unused_address().port()));
    master.set(HOST, &[backends[1].url()]);
    until("it is told", || alone.stderr().contains("has lost its master"));
    until("the master is read", || both.stderr().contains("reading from"));
    until_all_say(&mut clients(&both), HOST, "other");
    alone.client().get(HOST, "/").expect_ok("one");
    follow(&replica, &master);
    until("it is told", || alone.stderr().contains("has its master again"));
    until("the replica is read", || both.stderr().contains("follows its master again"));
    until("it is connected to", || both.stderr().matches(&format!("connected to {}", replica.address())).count() == 2);
    master.set(HOST, &[backends[0].url()]);
    for proxy in [&alone, &both] {
        until_all_say(&mut clients(proxy), HOST, "one");
        assert_eq!(proxy.stderr().matches("has lost its master").count(), 1, "{}", proxy.stderr());
    }
}

#[test]
fn an_upgrade_while_redis_is_away_forgets_nothing() {
    let mut redis = Server::start();
    let backends = ["one", "other", "third"].map(|name| Backend::always(canned::ok(name)));
    let authority = Authority::new();
    let pair = authority.issue(&["tls.test"]);
    let trust = authority.trust();
    redis.set(HOST, &[backends[0].url()]);
    redis.set("a.test", &[backends[0].url()]);
    redis.set("marked.test", &[backends[0].url(), backends[1].url()]);
    crate::certificates::put(&mut redis.connect(), "tls.test", &pair);
    // Without a snapshot: all of it goes from process to process.
    let setup = Setup::new();
    let pid_file = setup.dir().join("pid");
    let setup = setup.set("pidFile", pid_file.to_str().expect("a plain path")).set("drainTimeout", 1);
    let mut proxy = setup.driver(redis.url()).with_https().workers(1).start();
    until_all_say(&mut clients(&proxy), HOST, "one");
    proxy.client().get("a.test", "/").expect_ok("one");
    until("the certificate is shown", || trust.shown(&proxy, "tls.test") == Some(pair.der()));
    // What others have marked dead, and what was moved a moment before the end.
    redis.run::<()>("SADD dead:marked.test 0");
    redis.run::<()>("EXPIRE dead:marked.test 600");
    let marked = |proxy: &Proxy| {
        let mut client = proxy.client();
        (0..20).all(|_| client.get("marked.test", "/").text() == "other")
    };
    until("the mark is obeyed", || marked(&proxy));
    redis.set(HOST, &[backends[2].url()]);
    until_all_say(&mut clients(&proxy), HOST, "third");
    redis.kill();
    until("Redis is away", || proxy.stderr().contains(" is away: "));
    for _ in 0..2 {
        let before = std::fs::read_to_string(&pid_file).expect("a number");
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_sluice"));
        let output = command.args(["upgrade", "--pid", before.trim()]).output().expect("the command");
        assert!(output.status.success(), "{output:?} {}", proxy.stderr());
        let pid = std::fs::read_to_string(&pid_file).expect("a number").trim().parse().expect("a number");
        proxy.follow(pid);
        assert_eq!(proxy.client().get(HOST, "/").text(), "third", "{}", proxy.stderr());
        proxy.client().get("a.test", "/").expect_ok("one");
        assert!(marked(&proxy), "{}", proxy.stderr());
        assert_eq!(trust.shown(&proxy, "tls.test"), Some(pair.der()));
        assert_eq!(proxy.client().get("nobody.test", "/").status(), 503);
    }
    // Redis comes back with what it has: that counts.
    redis.revive();
    redis.set(HOST, &[backends[1].url()]);
    until_all_say(&mut clients(&proxy), HOST, "other");
}

#[test]
fn a_second_process_leaves_the_snapshot_to_the_first() {
    let backend = Backend::always(canned::ok("ok"));
    let (redis, setup, path) = many(&backend);
    let mut first = setup.start();
    assert_eq!(served(&first, 0..10), 10);
    until("it is written", || path.exists() && kept(&path) == 10);
    let setup = Setup::new().set("snapshot", path.to_str().expect("a plain path")).workers(1);
    let second = setup.driver(redis.url()).start();
    assert_eq!(served(&second, 0..20), 20);
    until("that is told", || second.stderr().contains("another process writes it"));
    assert_eq!(kept(&path), 10);
    stop(&mut first);
    redis.set(HOST, &[backend.url()]);
    until_all_say(&mut clients(&second), HOST, "ok");
    until("the second writes it", || kept(&path) == 21);
}
