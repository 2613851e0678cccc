//! Dead marks, both ways: what others write is obeyed, what is seen here is written and published.

use crate::changes::{clients, until_all_say};
use crate::server::{Server, run};
use crate::support::backend::Backend;
use crate::support::client::Client;
use crate::support::proxy::Setup;
use crate::support::{HOST, canned, until, unused_address};
use redis::Commands;
use sluice::base::clock::Clock;
use std::collections::HashSet;
use std::time::{Duration, SystemTime};

fn three() -> Vec<Backend> {
    ["a", "b", "c"].iter().map(|name| Backend::always(canned::ok(name))).collect()
}

fn urls(backends: &[Backend]) -> Vec<String> {
    backends.iter().map(Backend::url).collect()
}

/// Who answers, in a number of requests that misses a living one of three by a chance of 1 in 10^10.
fn said(client: &mut Client) -> HashSet<String> {
    (0..60).map(|_| client.get(HOST, "/").text()).collect()
}

#[track_caller]
fn until_said(client: &mut Client, expected: &str) {
    let expected: HashSet<String> = expected.chars().map(String::from).collect();
    until(&format!("{expected:?} serve"), || said(client) == expected);
}

#[test]
fn marks_of_others_are_obeyed_and_their_end_too() {
    let redis = Server::start();
    let backends = three();
    redis.set(HOST, &urls(&backends));
    let proxy = Setup::new().driver(redis.url()).workers(1).start();
    let mut client = proxy.client();
    until_said(&mut client, "abc");
    let dead = format!("dead:{HOST}");
    redis.run::<()>(&format!("SADD {dead} 1"));
    until_said(&mut client, "ac");
    redis.run::<()>(&format!("SADD {dead} 0"));
    until_said(&mut client, "c");
    redis.run::<()>(&format!("SREM {dead} 1"));
    until_said(&mut client, "bc");
    redis.run::<()>(&format!("DEL {dead}"));
    until_said(&mut client, "abc");
    redis.run::<()>(&format!("SADD {dead} 0 1 2"));
    until("nobody serves", || client.get(HOST, "/").status() == 502);
    let clock = Clock::new();
    let set = clock.now();
    redis.run::<()>(&format!("PEXPIRE {dead} 400"));
    until("the mark's end", || client.get(HOST, "/").status() == 200);
    let lasted = clock.now().since(set);
    // It has its own deadline: Redis tells of the end up to 100 ms late, and a busy machine later still.
    assert!(lasted >= Duration::from_millis(350), "{lasted:?}");
    until_said(&mut client, "abc");
}

#[test]
fn a_mark_that_stands_is_found_at_the_first_look_and_belongs_to_the_host_that_was_asked_for() {
    let redis = Server::start();
    let backends = three();
    redis.set("*.example.com", &urls(&backends));
    redis.run::<()>(&format!("SADD dead:{HOST} 0 2"));
    redis.run::<()>("SADD dead:*.example.com 1");
    let proxy = Setup::new().driver(redis.url()).start();
    let mut client = proxy.client();
    assert_eq!(said(&mut client), HashSet::from(["b".to_owned()]));
    let others: HashSet<_> = (0..60).map(|_| client.get("other.example.com", "/").text()).collect();
    assert_eq!(others.len(), 3);
}

#[test]
fn a_mark_never_hurts_the_url_that_takes_the_place() {
    let redis = Server::start();
    let backends = three();
    let [a, b, c] = [0, 1, 2].map(|number| backends[number].url());
    redis.set(HOST, &[a.clone(), b.clone()]);
    let proxy = Setup::new().driver(redis.url()).workers(1).start();
    let mut client = proxy.client();
    until_said(&mut client, "ab");
    redis.run::<()>(&format!("SADD dead:{HOST} 1"));
    until_said(&mut client, "a");
    redis.set(HOST, &[a.clone(), c.clone()]);
    until_said(&mut client, "ac");
    // Moved to another place, the marked one is still marked.
    redis.set(HOST, &[b, c, a]);
    until_said(&mut client, "ac");
    redis.run::<()>(&format!("SREM dead:{HOST} 1"));
    until_said(&mut client, "abc");
}

#[test]
fn own_marks_are_written_and_published_and_can_be_taken_back() {
    let redis = Server::start();
    let backends = three();
    let down = format!("http://{}", unused_address());
    let list = [backends[0].url(), down.clone(), backends[1].url()];
    redis.set(HOST, &list);
    let mut listener = redis.connect();
    let mut heard = listener.as_pubsub();
    heard.subscribe("dead").expect("subscribing");
    heard.set_read_timeout(Some(crate::support::PATIENCE)).expect("setting a timeout");
    let proxy = Setup::new().driver(redis.url()).set("deadBackendTTL", 7).workers(1).start();
    let mut client = proxy.client();
    assert_eq!(said(&mut client), HashSet::from(["a".to_owned(), "b".to_owned()]), "retries hide the dead one");
    let message: String = heard.get_message().expect("a message").get_payload().expect("a text");
    assert_eq!(message, format!("{HOST};{down};1;3"));
    let mut connection = redis.connect();
    let dead = format!("dead:{HOST}");
    until("the mark is written", || run::<HashSet<String>>(&mut connection, &format!("SMEMBERS {dead}")).contains("1"));
    let ttl: i64 = run(&mut connection, &format!("TTL {dead}"));
    assert!((5..=7).contains(&ttl), "{ttl}");
    // Somebody who knows better takes it back, and the backend is up.
    let address = down.strip_prefix("http://").and_then(|address| address.parse().ok()).expect("an address");
    let revived = Backend::raw_at(address, |conn| {
        while conn.request().is_some() {
            conn.send(canned::ok("c"));
        }
    });
    run::<()>(&mut connection, &format!("SREM {dead} 1"));
    until_said(&mut client, "abc");
    drop(revived);
}

#[test]
fn while_an_active_checker_is_at_work_marks_are_left_to_it() {
    let redis = Server::start();
    let mut connection = redis.connect();
    let ping = SystemTime::UNIX_EPOCH.elapsed().expect("a time after 1970").as_secs();
    run::<()>(&mut connection, &format!("SET hchecker_ping {ping}"));
    let well = Backend::always(canned::ok("a"));
    let ill = Backend::always(canned::sized("500 Ill", "ill"));
    let down = format!("http://{}", unused_address());
    redis.set(HOST, &[well.url(), ill.url(), down.clone()]);
    let mut listener = redis.connect();
    let mut heard = listener.as_pubsub();
    heard.subscribe("dead").expect("subscribing");
    heard.set_read_timeout(Some(crate::support::PATIENCE)).expect("setting a timeout");
    let proxy = Setup::new().driver(redis.url()).workers(1).start();
    until("the checker is known", || proxy.stderr().is_empty() || proxy.stderr().contains("active checker is at work"));
    let mut client = proxy.client();
    // A 500 marks nothing now.
    until("a 500", || client.get(HOST, "/").status() == 500);
    until("the one that is down was tried", || {
        client.get(HOST, "/");
        proxy.stderr().contains(&format!("{down} is marked dead"))
    });
    assert!(!proxy.stderr().contains(&format!("{} is marked dead", ill.url())), "{}", proxy.stderr());
    let message: String = heard.get_message().expect("a message").get_payload().expect("a text");
    assert_eq!(message, format!("{HOST};{down};2;3"));
    assert!(!connection.exists::<_, bool>(format!("dead:{HOST}")).expect("an answer"));
    // It marks as it does, and takes back as it does.
    run::<()>(&mut connection, &format!("SADD dead:{HOST} 1 2"));
    run::<()>(&mut connection, &format!("EXPIRE dead:{HOST} 60"));
    until_said(&mut client, "a");
    run::<()>(&mut connection, &format!("SREM dead:{HOST} 1"));
    until("the ill one serves again", || client.get(HOST, "/").status() == 500);
    // Its life ends: now marks are written here again.
    run::<()>(&mut connection, &format!("SET hchecker_ping {}", ping - 31));
    until("a 500 marks", || {
        connection.sismember::<_, _, bool>(format!("dead:{HOST}"), 1).expect("an answer") || {
            client.get(HOST, "/");
            false
        }
    });
}

#[test]
fn a_checker_that_takes_its_mark_back_brings_a_backend_back_at_once() {
    let redis = Server::start();
    let mut connection = redis.connect();
    let ping = SystemTime::UNIX_EPOCH.elapsed().expect("a time after 1970").as_secs();
    run::<()>(&mut connection, &format!("SET hchecker_ping {ping}"));
    let well = Backend::always(canned::ok("a"));
    let address = unused_address();
    let down = format!("http://{address}");
    redis.set(HOST, &[well.url(), down.clone()]);
    let proxy = Setup::new().driver(redis.url()).workers(1).start();
    let mut client = proxy.client();
    until("it is marked, as beside a checker", || {
        client.get(HOST, "/").expect_ok("a");
        proxy.stderr().contains(&format!("{down} is marked dead for 5 s"))
    });
    run::<()>(&mut connection, &format!("SADD dead:{HOST} 1"));
    run::<()>(&mut connection, &format!("EXPIRE dead:{HOST} 60"));
    let _back = Backend::raw_at(address, |conn| {
        while conn.request().is_some() {
            conn.send(canned::ok("b"));
        }
    });
    until_said(&mut client, "a");
    run::<()>(&mut connection, &format!("SREM dead:{HOST} 1"));
    // The mark would last a minute, and the node's own half of that without a checker.
    until("it serves", || client.get(HOST, "/").text() == "b");
}

#[test]
fn a_mark_and_its_end_are_one_step_and_one_without_an_end_has_one_here() {
    let redis = Server::start();
    let backends = three();
    redis.set(HOST, &urls(&backends[..2]));
    let proxy = Setup::new().driver(redis.url()).workers(1).set("deadBackendTTL", 1).start();
    let mut client = proxy.client();
    // Somebody died between two commands.
    redis.run::<()>(&format!("SADD dead:{HOST} 0"));
    until_said(&mut client, "b");
    until_said(&mut client, "ab");
    assert_eq!(redis.run::<i64>(&format!("TTL dead:{HOST}")), -1, "it stands in Redis all the same");
    let transactions = |redis: &Server| {
        let stats: String = redis.run("INFO commandstats");
        stats.lines().filter(|line| line.starts_with("cmdstat_exec:")).count()
    };
    let before = transactions(&redis);
    redis.set("second.test", &[backends[0].url(), format!("http://{}", unused_address())]);
    until("the mark is written with its end", || {
        client.get("second.test", "/");
        redis.run::<i64>("PTTL dead:second.test") > 0
    });
    assert!(transactions(&redis) >= before.max(1));
}

#[test]
fn marks_reach_the_other_node() {
    let redis = Server::start();
    let backends = three();
    let mut list = urls(&backends[..2]);
    let down = format!("http://{}", unused_address());
    list.push(down);
    redis.set(HOST, &list);
    let setup = || Setup::new().driver(redis.url()).workers(1);
    let (one, other) = (setup().start(), setup().start());
    let mut idle = other.client();
    idle.get("__ping__", "/");
    said(&mut one.client());
    until("the other node has heard", || redis.run::<HashSet<String>>(&format!("SMEMBERS dead:{HOST}")).len() == 1);
    // Whatever it is asked, it never tries the dead one: it marks nothing itself.
    said(&mut idle);
    assert!(!other.stderr().contains("is marked dead"), "{}", other.stderr());
    until_all_say(&mut clients(&other)[..1], "__ping__", "ok");
}

/// Has one backend of `HOST` and one of `second.test` marked, and returns how often the first was published.
fn publishes(redis: &Server, who: &str) -> usize {
    let backends = three();
    for host in [HOST, "second.test"] {
        redis.set(host, &[backends[0].url(), format!("http://{}", unused_address())]);
    }
    let mut listener = redis.connect();
    let mut heard = listener.as_pubsub();
    heard.subscribe("dead").expect("subscribing");
    let proxy = Setup::new().driver(format!("redis://{who}{}", redis.address())).workers(1).start();
    let mut client = proxy.client();
    said(&mut client);
    until("the mark is given up", || proxy.stderr().contains("it is dropped"));
    (0..60).for_each(|_| client.get("second.test", "/").expect_ok("a"));
    heard.set_read_timeout(Some(Duration::from_secs(1))).expect("setting a timeout");
    let messages: Vec<String> =
        std::iter::from_fn(|| heard.get_message().ok()?.get_payload().ok()).take(10_000).collect();
    messages.iter().filter(|message| message.starts_with(HOST)).count()
}

#[test]
fn a_mark_that_cannot_be_written_is_given_up_and_holds_up_no_other() {
    let redis = Server::start();
    redis.run::<()>(&format!("SET dead:{HOST} nonsense"));
    assert_eq!(publishes(&redis, ""), 1);
    assert_eq!(redis.run::<HashSet<String>>("SMEMBERS dead:second.test").len(), 1);

    let redis = Server::start();
    redis.run::<()>("ACL SETUSER edge on nopass ~* &* +@all -sadd");
    assert_eq!(publishes(&redis, "edge:x@"), 1);

    let redis = Server::start();
    redis.run::<()>("ACL SETUSER edge on nopass ~* &* +@all -publish");
    assert_eq!(publishes(&redis, "edge:x@"), 0);
    assert_eq!(redis.run::<HashSet<String>>("SMEMBERS dead:second.test").len(), 1);
}

#[test]
fn a_replica_as_the_only_server_is_asked_with_pauses() {
    let redis = Server::start();
    let backends = three();
    redis.set(HOST, &[backends[0].url(), format!("http://{}", unused_address())]);
    let proxy = Setup::new().driver(redis.url()).workers(1).set("deadBackendTTL", 5).start();
    let mut client = proxy.client();
    redis.run::<()>("REPLICAOF 127.0.0.1 1");
    assert_eq!(said(&mut client), HashSet::from(["a".to_owned()]));
    until("the refusal is told", || proxy.stderr().contains("trying until they are out of date"));
    let clock = Clock::new();
    let told = clock.now();
    until("a second is over", || clock.now().since(told) > Duration::from_secs(1));
    let stats: String = redis.run("INFO commandstats");
    let calls = |command: &str| -> usize {
        let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
        let line = line.and_then(|line| line.split(',').next()).map(str::parse);
        line.map_or(0, |calls| calls.expect("a number"))
    };
    assert_eq!(calls("publish"), 1);
    let rejected = stats.lines().find(|line| line.starts_with("cmdstat_sadd")).unwrap_or_default();
    let rejected = rejected.split("rejected_calls=").nth(1).and_then(|rest| rest.split(',').next());
    assert!(rejected.is_some_and(|calls| (1..20).contains(&calls.parse().expect("a number"))), "{stats}");
}

#[test]
fn a_set_of_a_million_harms_only_its_host() {
    let redis = Server::start();
    let backends = three();
    redis.set(HOST, &urls(&backends));
    let mut connection = redis.connect();
    let script = "for index = 1, 1000000 do redis.call('SADD', KEYS[1], index + 9) end";
    redis::cmd("EVAL").arg(script).arg(1).arg(format!("dead:{HOST}")).exec(&mut connection).expect("a large set");
    let proxy = Setup::new().driver(redis.url()).workers(1).start();
    let mut client = proxy.client();
    assert_eq!(said(&mut client).len(), 3);
    redis.set("new.test", &[backends[0].url()]);
    client.get("new.test", "/").expect_ok("a");
    assert!(!proxy.stderr().contains(" is away: "), "{}", proxy.stderr());
}
