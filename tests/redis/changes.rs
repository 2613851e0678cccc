//! What is written to Redis is what is served, at once and on every worker.

use crate::server::{Server, run, set};
use crate::support::backend::Backend;
use crate::support::client::Client;
use crate::support::proxy::{Proxy, Setup};
use crate::support::{HOST, canned, until};
use serde_json::json;
use sluice::base::clock::Clock;
use std::net::IpAddr;
use std::time::Duration;

/// So many connections that every worker has some of them.
const CONNECTIONS: usize = 8;

fn named(names: &[&str]) -> Vec<Backend> {
    names.iter().map(|name| Backend::always(canned::ok(name))).collect()
}

pub(crate) fn clients(proxy: &Proxy) -> Vec<Client> {
    (0..CONNECTIONS).map(|_| proxy.client()).collect()
}

/// Waits until every worker says this.
#[track_caller]
pub(crate) fn until_all_say(clients: &mut [Client], host: &str, expected: &str) {
    until(&format!("{host} is served by {expected}"), || {
        clients.iter_mut().all(|client| client.get(host, "/").text() == expected)
    });
}

#[test]
fn an_edit_is_live_on_all_workers_within_milliseconds() {
    let redis = Server::start();
    let backends = named(&["one", "other"]);
    redis.set(HOST, &[backends[0].url()]);
    let proxy = Setup::new().driver(redis.url()).start();
    let mut clients = clients(&proxy);
    until_all_say(&mut clients, HOST, "one");
    let clock = Clock::new();
    let mut times = Vec::new();
    for turn in 1..=20 {
        let (name, backend) = [("one", &backends[0]), ("other", &backends[1])][turn % 2];
        redis.set(HOST, &[backend.url()]);
        let edited = clock.now();
        until_all_say(&mut clients, HOST, name);
        times.push(clock.now().since(edited));
    }
    // A busy machine may hold up most of them.
    assert!(times.iter().min() < Some(&Duration::from_millis(25)), "edits were live after {times:?}");
    assert!(proxy.stderr().contains("changes are known by client tracking"), "{}", proxy.stderr());
}

#[test]
fn hosts_come_go_and_move_along_the_ladder() {
    let redis = Server::start();
    let backends = named(&["exact", "narrow", "wide", "any"]);
    let proxy = Setup::new().driver(redis.url()).start();
    let mut clients = clients(&proxy);
    let host = "www.shop.example.com";
    let all_respond = |clients: &mut [Client], status: u16| {
        until(&format!("{host} answers {status}"), || {
            clients.iter_mut().all(|client| client.get(host, "/").status() == status)
        });
    };
    all_respond(&mut clients, 400);
    let candidates = ["*", "*.example.com", "*.shop.example.com", host];
    for (candidate, backend) in candidates.iter().zip(backends.iter().rev()) {
        redis.set(candidate, &[backend.url()]);
        until_all_say(&mut clients, host, &clients_text(backend, &backends));
    }
    for (candidate, expected) in candidates.iter().rev().zip(["narrow", "wide", "any"]) {
        redis.run::<()>(&format!("DEL frontend:{candidate}"));
        until_all_say(&mut clients, host, expected);
    }
    redis.run::<()>("FLUSHALL");
    all_respond(&mut clients, 400);
    redis.run::<()>(&format!("RPUSH frontend:{host} site {}", backends[0].url()));
    until_all_say(&mut clients, host, "exact");
    redis.run::<()>(&format!("EXPIRE frontend:{host} 1"));
    all_respond(&mut clients, 400);
}

fn clients_text(backend: &Backend, backends: &[Backend]) -> String {
    let names = ["exact", "narrow", "wide", "any"];
    let place = backends.iter().position(|other| other.url() == backend.url()).expect("one of them");
    names[place].to_owned()
}

#[test]
fn prefix_database_password_and_user_are_used() {
    let redis = Server::with(&["--requirepass", "se/cret"]);
    let mut connection = redis.connect_as(":se%2Fcret@");
    run::<()>(&mut connection, "ACL SETUSER edge on >p&w ~live:* ~hchecker_ping +@all &*");
    run::<()>(&mut connection, "SELECT 3");
    let backends = named(&["right", "wrong"]);
    set(&mut connection, "live:frontend:www.example.com", &[backends[0].url()]);
    set(&mut connection, "frontend:www.example.com", &[backends[1].url()]);
    for who in [":se%2Fcret@", "edge:p%26w@"] {
        let proxy = Setup::new().driver(format!("redis://{who}{}/3#live:", redis.address())).start();
        let mut clients = clients(&proxy);
        until_all_say(&mut clients, HOST, "right");
        set(&mut connection, "live:frontend:www.example.com", &[backends[1].url()]);
        until_all_say(&mut clients, HOST, "wrong");
        set(&mut connection, "live:frontend:www.example.com", &[backends[0].url()]);
        assert!(!proxy.stderr().contains("cret"), "{}", proxy.stderr());
    }
}

#[test]
fn a_socket_in_the_file_system() {
    let dir = std::env::temp_dir().join(format!("sluice-unix-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a folder");
    let socket = dir.join("r.sock");
    let redis = Server::with(&["--unixsocket", socket.to_str().expect("a plain path"), "--unixsocketperm", "777"]);
    let backends = named(&["ok"]);
    redis.set(HOST, &[backends[0].url()]);
    let proxy = Setup::new().driver(format!("unix:{}", socket.display())).start();
    until_all_say(&mut clients(&proxy), HOST, "ok");
    let _ = std::fs::remove_dir_all(dir);
}

#[test]
fn bad_records_harm_only_themselves() {
    let redis = Server::start();
    let backends = named(&["ok", "other"]);
    let mut connection = redis.connect();
    redis.set(HOST, &[backends[0].url()]);
    run::<()>(&mut connection, "SET frontend:string.test nonsense");
    run::<()>(&mut connection, "RPUSH frontend:url.test site nonsense");
    run::<()>(&mut connection, &format!("RPUSH frontend:half.test site nonsense {}", backends[0].url()));
    run::<()>(&mut connection, "RPUSH frontend:id.test site");
    run::<()>(&mut connection, &format!("RPUSH frontend:huge.test site {}", "x".repeat(10 << 20)));
    run::<()>(&mut connection, "SADD frontend:set.test a b");
    let proxy = Setup::new().driver(redis.url()).start();
    let mut client = proxy.client();
    for host in ["string.test", "url.test", "huge.test", "set.test"] {
        let response = client.get(host, "/");
        assert_eq!(response.status(), 502, "{host}: {}", response.head);
        assert!(response.text().contains("configuration of this website"), "{}", response.text());
        until("the log names it", || proxy.stderr().contains(&format!("frontend:{host}: ")));
    }
    assert_eq!(client.get("id.test", "/").status(), 502, "a host without backends");
    client.get("half.test", "/").expect_ok("ok");
    client.get(HOST, "/").expect_ok("ok");
    // A record that turns bad does not take down the route that worked.
    redis.run::<()>(&format!("LSET frontend:{HOST} 1 nonsense"));
    until("the log names it", || proxy.stderr().contains("its route stays as it was"));
    client.get(HOST, "/").expect_ok("ok");
    redis.run::<()>("DEL frontend:string.test");
    redis.set("string.test", &[backends[1].url()]);
    until("the mended one is served", || client.get("string.test", "/").status() == 200);
}

#[test]
fn cached_hosts_cost_redis_nothing() {
    let redis = Server::start();
    let backends = named(&["ok"]);
    redis.set(HOST, &[backends[0].url()]);
    let proxy = Setup::new().driver(redis.url()).start();
    let mut clients = clients(&proxy);
    until_all_say(&mut clients, HOST, "ok");
    assert!(clients.iter_mut().all(|client| client.get("nobody.test", "/").status() == 400));
    let count = || -> Vec<String> {
        let stats: String = redis.run("INFO commandstats");
        let is_read = |line: &&str| line.starts_with("cmdstat_lrange") || line.starts_with("cmdstat_srandmember");
        stats.lines().filter(is_read).map(|line| line.split(',').next().unwrap_or_default().to_owned()).collect()
    };
    let before = count();
    for _ in 0..50 {
        until_all_say(&mut clients, HOST, "ok");
        assert_eq!(clients[0].get("nobody.test", "/").status(), 400);
    }
    assert_eq!(count(), before);
}

#[test]
fn without_tracking_keyspace_notifications_do_and_without_these_reading_again() {
    let backends = named(&["one", "other"]);
    for (events, means) in [("KA", "keyspace notifications"), ("", "reading again")] {
        let redis = Server::with(&["--notify-keyspace-events", events]);
        let mut connection = redis.connect();
        run::<()>(&mut connection, "ACL SETUSER edge on nopass ~* &* +@all -client|tracking");
        redis.set(HOST, &[backends[0].url()]);
        let setup = Setup::new().driver(format!("redis://edge:x@{}", redis.address()));
        let proxy = setup.set("lruCache", json!({"ttl": 0.2})).start();
        let mut clients = clients(&proxy);
        until_all_say(&mut clients, HOST, "one");
        assert!(proxy.stderr().contains(means), "{}", proxy.stderr());
        assert_eq!(clients[0].get("new.test", "/").status(), 400);
        redis.set(HOST, &[backends[1].url()]);
        redis.set("new.test", &[backends[1].url()]);
        until_all_say(&mut clients, HOST, "other");
        until_all_say(&mut clients, "new.test", "other");
    }
}

#[test]
fn a_server_that_knows_only_the_old_protocol_will_do() {
    let backends = named(&["one", "other"]);
    let redis = Server::with(&["--notify-keyspace-events", "KA"]);
    run::<()>(&mut redis.connect(), "ACL SETUSER default -hello -client");
    redis.set(HOST, &[backends[0].url()]);
    let proxy = Setup::new().driver(redis.url()).start();
    let mut clients = clients(&proxy);
    until_all_say(&mut clients, HOST, "one");
    until("the log names the means", || proxy.stderr().contains("keyspace notifications"));
    redis.set(HOST, &[backends[1].url()]);
    until_all_say(&mut clients, HOST, "other");
}

#[test]
fn an_encrypted_connection_is_made_only_to_who_can_prove_itself() {
    let dir = std::env::temp_dir().join(format!("sluice-redis-tls-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a folder");
    let path = |name: &str| dir.join(name).to_str().expect("a plain path").to_owned();
    let (address, tls_port) = (crate::support::unused_address(), crate::support::unused_address().port());
    make_certificates(&dir, &[address.ip()]);
    let files = [("--tls-cert-file", "leaf.pem"), ("--tls-key-file", "leaf.key"), ("--tls-ca-cert-file", "ca.pem")];
    let mut options =
        vec!["--tls-auth-clients".to_owned(), "no".to_owned(), "--tls-port".to_owned(), tls_port.to_string()];
    options.extend(files.iter().flat_map(|(option, file)| [(*option).to_owned(), path(file)]));
    let redis = Server::at(address, options);
    let backends = named(&["ok", "other"]);
    redis.set(HOST, &[backends[0].url()]);
    let url = format!("rediss://{}:{tls_port}", address.ip());
    let proxy = Setup::new().driver(url.as_str()).env("SSL_CERT_FILE", &path("ca.pem")).start();
    until_all_say(&mut clients(&proxy), HOST, "ok");
    redis.set(HOST, &[backends[1].url()]);
    until_all_say(&mut clients(&proxy), HOST, "other");
    // One who knows nobody who signed it does not talk to it.
    let stranger = Setup::new().driver(url.as_str()).env("SSL_CERT_FILE", "/dev/null").start();
    until("the loss is told", || stranger.stderr().contains(" is away: "));
    assert_eq!(stranger.client().get(HOST, "/").status(), 503);
    let _ = std::fs::remove_dir_all(dir);
}

/// `ca.pem`, and `leaf.pem` with `leaf.key` for these addresses.
pub(crate) fn make_certificates(dir: &std::path::Path, addresses: &[IpAddr]) {
    let openssl = |line: &str| {
        let output = std::process::Command::new("openssl").args(line.split(' ')).current_dir(dir).output();
        let output = output.expect("openssl (Debian's package of that name)");
        assert!(output.status.success(), "openssl {line}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(&format!("req -x509 {key} -keyout ca.key -out ca.pem -days 30 -subj /CN=test-ca"));
    openssl(&format!("req {key} -keyout leaf.key -out leaf.csr -subj /CN=redis"));
    let names: Vec<String> = addresses.iter().map(|address| format!("IP:{address}")).collect();
    std::fs::write(dir.join("ext"), format!("subjectAltName={}\nbasicConstraints=CA:FALSE\n", names.join(",")))
        .expect("writing");
    openssl("x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out leaf.pem -days 30 -extfile ext");
}

#[test]
fn who_guesses_hosts_does_not_keep_others_from_theirs() {
    const RATE: usize = 20;
    let redis = Server::start();
    let backend = Backend::always(canned::ok("found"));
    let known: Vec<_> = (0..10).map(|number| format!("known{number}.test")).collect();
    known.iter().for_each(|host| redis.set(host, &[backend.url()]));
    let proxy = Setup::new().driver(redis.url()).workers(1).set("unknownHostRate", RATE).start();
    let mut guesser = proxy.client_from("127.0.0.9".parse().expect("an address"));
    let mut guess = |number: usize| guesser.get(&format!("nobody{number}.test"), "/").status();
    let statuses: Vec<_> = (0..2 * RATE).map(&mut guess).collect();
    assert!(statuses.iter().filter(|status| **status == 400).count() <= RATE, "{statuses:?}");
    assert_eq!(statuses.last(), Some(&503));
    let mut other = proxy.client();
    until("what it has used up comes back", || other.get(&known[0], "/").status() == 200);
    for (number, host) in known.iter().enumerate() {
        for guessed in 0..2 * RATE {
            assert_eq!(guess((number + 1) * 1000 + guessed), 503, "it has had its share");
        }
        other.get(host, "/").expect_ok("found");
    }
}
