//! A set of servers with sentinels: the master dies, and another takes over.

use crate::changes::{clients, until_all_say};
use crate::fake::Fake;
use crate::server::{Server, run, set};
use crate::support::backend::Backend;
use crate::support::proxy::{Proxy, Setup};
use crate::support::secrets::assert_hidden;
use crate::support::{HOST, PATIENCE, canned, holds_within, until, unused_address};
use redis::{Client, Connection};
use serde_json::json;
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

struct Sentinel {
    address: SocketAddr,
    dir: PathBuf,
    child: Child,
}

impl Sentinel {
    fn start(number: usize, master: SocketAddr) -> Self {
        Self::with(number, master, "")
    }

    /// A sentinel with more lines in its configuration.
    fn with(number: usize, master: SocketAddr, more: &str) -> Self {
        let address = unused_address();
        let dir = std::env::temp_dir().join(format!("sluice-sentinel-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir).expect("a folder");
        let config = format!(
            "port {}\nbind {}\nsentinel announce-ip {}\nsentinel monitor main {} {} 2\n\
             sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 2000\n{more}",
            address.port(),
            address.ip(),
            address.ip(),
            master.ip(),
            master.port()
        );
        fs::write(dir.join("sentinel.conf"), config).expect("writing");
        let child = Command::new("redis-server")
            .arg(dir.join("sentinel.conf"))
            .arg("--sentinel")
            .stdin(Stdio::null())
            .stdout(fs::File::create(dir.join("log")).expect("a log"))
            .stderr(Stdio::null())
            .spawn()
            .expect("starting a sentinel");
        until("the sentinel listens", || std::net::TcpStream::connect(address).is_ok());
        Self { address, dir, child }
    }

    fn connect(&self) -> Connection {
        Client::open(format!("redis://{}", self.address))
            .and_then(|client| client.get_connection())
            .expect("a connection")
    }

    fn knows(&self, replicas: usize, sentinels: usize) -> bool {
        let mut connection = self.connect();
        let count = |kind: &str, connection: &mut Connection| match run::<redis::Value>(
            connection,
            &format!("SENTINEL {kind} main"),
        ) {
            redis::Value::Array(all) => all.len(),
            _ => 0,
        };
        count("REPLICAS", &mut connection) == replicas && count("SENTINELS", &mut connection) == sentinels
    }

    fn master(&self) -> SocketAddr {
        let (host, port): (String, u16) = run(&mut self.connect(), "SENTINEL GET-MASTER-ADDR-BY-NAME main");
        format!("{host}:{port}").parse().expect("an address")
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- sentinel:\n{}", fs::read_to_string(self.dir.join("log")).unwrap_or_default());
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

#[test]
fn when_the_master_dies_no_request_fails_and_edits_go_on_at_the_new_one() {
    let mut master = Server::start();
    let follow = |master: &Server| {
        let at = master.address();
        let replica = Server::start();
        replica.run::<()>(&format!("REPLICAOF {} {}", at.ip(), at.port()));
        replica
    };
    let replicas = [follow(&master), follow(&master)];
    for replica in &replicas {
        until("the replica follows", || replica.run::<String>("INFO replication").contains("master_link_status:up"));
    }
    let sentinels: Vec<_> = (0..3).map(|number| Sentinel::start(number, master.address())).collect();
    until("the sentinels know each other", || sentinels.iter().all(|sentinel| sentinel.knows(2, 2)));

    let backends = ["one", "other"].map(|name| Backend::always(canned::ok(name)));
    master.set(HOST, &[backends[0].url()]);
    let addresses: Vec<_> = sentinels.iter().map(|sentinel| sentinel.address.to_string()).collect();
    let driver = format!("redis+sentinel://{}/main/0", addresses.join(","));
    let nodes: Vec<Proxy> = (0..3).map(|_| Setup::new().driver(driver.clone()).workers(1).start()).collect();
    nodes.iter().for_each(|node| until_all_say(&mut clients(node), HOST, "one"));

    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for node in &nodes {
            let over = &over;
            scope.spawn(move || {
                let mut client = node.client();
                while !over.load(Ordering::SeqCst) {
                    let response = client.get(HOST, "/");
                    assert_eq!(response.status(), 200, "{}", response.head);
                }
            });
        }
        let story = || {
            let old = master.address();
            master.kill();
            // Where the sentinels' votes are split they wait for twice their timeout and vote anew, as often as that happens.
            let is_elected = || sentinels.iter().all(|sentinel| sentinel.master() != old);
            assert!(holds_within(6 * PATIENCE, is_elected), "waited in vain: a new master");
            let new = sentinels[0].master();
            let promoted = replicas.iter().find(|replica| replica.address() == new).expect("one of the replicas");
            until("it is the master", || promoted.run::<String>("INFO replication").contains("role:master"));
            set(&mut promoted.connect(), &format!("frontend:{HOST}"), &[backends[1].url()]);
            nodes.iter().for_each(|node| until_all_say(&mut clients(node), HOST, "other"));
            set(&mut promoted.connect(), &format!("frontend:{HOST}"), &[backends[0].url()]);
            nodes.iter().for_each(|node| until_all_say(&mut clients(node), HOST, "one"));
        };
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(story));
        over.store(true, Ordering::SeqCst);
        told.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    for node in &nodes {
        assert!(
            !node.stderr().contains("its data is not what it was"),
            "the replica's data goes on where the master's was"
        );
    }
}

/// Sentinels with a password, and one of the servers that is another one: by the URL, a file, and the environment.
#[test]
fn sentinels_are_asked_with_their_own_password() {
    const PASSWORD: &str = "Kb3/q9Z@wX7";
    let master = Server::with(&["--requirepass", "of-servers"]);
    let of_servers = "sentinel auth-pass main of-servers\n";
    let sentinel = Sentinel::with(9, master.address(), &format!("requirepass {PASSWORD}\n{of_servers}"));
    let backend = Backend::always(canned::ok("ok"));
    set(&mut master.connect_as(":of-servers@"), &format!("frontend:{HOST}"), &[backend.url()]);
    let url = format!("redis+sentinel://:of-servers@{}/main/0", sentinel.address);
    let in_url = format!("{url}?sentinel-pass=Kb3%2Fq9Z%40wX7");
    for (driver, environment) in [
        (json!(in_url), ""),
        (json!({"url": url, "sentinelPasswordFile": "password"}), "another"),
        (json!([url]), PASSWORD),
    ] {
        let setup = Setup::new().driver(driver).secret("password", &format!("{PASSWORD}\n")).workers(1);
        let proxy = setup.env("SLUICE_SENTINEL_PASSWORD", environment).env("RUST_LOG", "trace").start();
        until_all_say(&mut clients(&proxy), HOST, "ok");
        assert_hidden("a log", PASSWORD, &proxy.stderr());
        assert_hidden("a log", "Kb3%2Fq9Z%40wX7", &proxy.stderr());
    }
    // Without it the log says what is missing.
    let proxy = Setup::new().driver(url).workers(1).start();
    until("the log tells", || proxy.stderr().contains("NOAUTH"));
}

/// Sentinels that name whatever these places hold.
fn fakes(named: &[Arc<Mutex<SocketAddr>>]) -> String {
    let start = |named: &Arc<Mutex<SocketAddr>>| {
        let named = Arc::clone(named);
        let fake = Fake::start(&[], move |command, stream| {
            if command[0] != "SENTINEL" {
                return false;
            }
            let address = *named.lock().expect("no panic");
            let (host, port) = (address.ip().to_string(), address.port());
            let port = port.to_string();
            let reply = format!("*2\r\n${}\r\n{host}\r\n${}\r\n{port}\r\n", host.len(), port.len());
            stream.write_all(reply.as_bytes()).is_ok()
        });
        fake.url().strip_prefix("redis://").expect("a URL").to_owned()
    };
    format!("redis+sentinel://{}/main/0", named.iter().map(start).collect::<Vec<_>>().join(","))
}

#[test]
fn a_sentinel_that_names_an_old_master_is_outvoted_and_one_that_names_a_replica_is_not_believed() {
    let (old, new) = (Server::start(), Server::start());
    let backends = ["old", "new"].map(|name| Backend::always(canned::ok(name)));
    old.set(HOST, &[backends[0].url()]);
    new.set(HOST, &[backends[1].url()]);
    let place = |server: &Server| Arc::new(Mutex::new(server.address()));
    // The first to be asked is cut off from the others.
    let proxy = Setup::new().driver(fakes(&[place(&old), place(&new), place(&new)])).workers(1).start();
    until_all_say(&mut clients(&proxy), HOST, "new");
    assert!(proxy.stderr().contains(&format!("connected to {}", new.address())), "{}", proxy.stderr());
    // Of two, one names a replica of the other's master, for good.
    let replica = Server::start();
    replica.run::<()>(&format!("REPLICAOF {} {}", new.address().ip(), new.address().port()));
    until("it follows", || replica.run::<String>("INFO replication").contains("master_link_status:up"));
    let proxy = Setup::new().driver(fakes(&[place(&replica), place(&new)])).workers(1).start();
    until_all_say(&mut clients(&proxy), HOST, "new");
    new.set(HOST, &[backends[0].url()]);
    until_all_say(&mut clients(&proxy), HOST, "old");
    // All of them name a server that is not there: what is known serves on until they know better.
    let named = [place(&new), place(&new), place(&new)];
    let proxy = Setup::new().driver(fakes(&named)).workers(1).start();
    until_all_say(&mut clients(&proxy), HOST, "old");
    named.iter().for_each(|named| *named.lock().expect("no panic") = unused_address());
    new.run::<()>("CLIENT KILL TYPE normal SKIPME yes");
    until("Redis is away", || proxy.stderr().contains(" is away: "));
    assert_eq!(proxy.client().get(HOST, "/").text(), "old");
    named.iter().for_each(|named| *named.lock().expect("no panic") = new.address());
    until("it is found again", || proxy.stderr().matches("connected to").count() == 2);
    assert_eq!(proxy.client().get(HOST, "/").text(), "old");
}
