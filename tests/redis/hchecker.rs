//! The external checker of Hipache, hipache-hchecker 0.2.4, played command by command (`cache.go`, `check.go`,
//! `hchecker.go`), beside a proxy.

use crate::server::{Server, run};
use crate::support::backend::Backend;
use crate::support::proxy::Setup;
use crate::support::{HOST, canned, until, unused_address};
use redis::{Commands, Connection, Value};
use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

/// hchecker has 3 seconds, and `-interval` for others.
const INTERVAL: Duration = Duration::from_millis(200);
const IO_TIMEOUT: Duration = Duration::from_secs(3);
const ID: &str = "node#42";

/// A backend that is checked.
struct Check {
    url: String,
    /// `backendsMapping`: the places of the backend, by frontend.
    places: HashMap<String, usize>,
    is_alive: bool,
    is_first: bool,
}

/// A running checker, until it is dropped.
struct Checker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Checker {
    fn start(redis: &Server) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (mut commands, mut listener) = (redis.connect(), redis.connect());
        // `NewCache` and the first `PingAlive`.
        run::<Value>(&mut commands, "DEL hchecker");
        let now = SystemTime::UNIX_EPOCH.elapsed().expect("a time after 1970").as_secs();
        run::<Value>(&mut commands, &format!("SET hchecker_ping {now}"));
        let is_over = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut heard = listener.as_pubsub();
            heard.subscribe("dead").expect("subscribing");
            heard.set_read_timeout(Some(INTERVAL)).expect("setting a timeout");
            let mut checks: Vec<Check> = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                if let Ok(message) = heard.get_message() {
                    add(&mut commands, &mut checks, &message.get_payload::<String>().expect("a text"));
                }
                checks.retain_mut(|check| check.run(&mut commands) || check.unlock(&mut commands));
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Checker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "the checker has failed");
        }
    }
}

/// `addCheck` and `LockBackend`.
fn add(commands: &mut Connection, checks: &mut Vec<Check>, line: &str) {
    let [frontend, url, place, length] = line.trim().split(';').collect::<Vec<_>>()[..] else {
        panic!("not a line of four parts: {line}");
    };
    let (place, length): (usize, usize) = (place.parse().expect("a place"), length.parse().expect("a length"));
    if length <= 1 {
        return;
    }
    let key = format!("{url};{ID}");
    let mut lock = redis::pipe();
    lock.atomic().cmd("HSETNX").arg("hchecker").arg(url).arg(1).cmd("HEXISTS").arg("hchecker").arg(&key);
    let (is_locked, is_mine): (bool, bool) = lock.query(commands).expect("a lock");
    assert!(is_locked || is_mine, "no other checker is at work");
    if is_locked {
        run::<Value>(commands, &format!("HSET hchecker {url} {ID};1.1"));
        run::<Value>(commands, &format!("HSET hchecker {key} 1"));
        checks.push(Check { url: url.to_owned(), places: HashMap::new(), is_alive: false, is_first: true });
    }
    if let Some(check) = checks.iter_mut().find(|check| check.url == url) {
        check.places.insert(frontend.to_owned(), place);
        check.is_first = true;
    }
}

impl Check {
    /// One turn of `PingUrl`. Whether the check goes on.
    fn run(&mut self, commands: &mut Connection) -> bool {
        let is_alive = is_alive(&self.url);
        let has_changed = is_alive != self.is_alive || self.is_first;
        (self.is_alive, self.is_first) = (is_alive, false);
        !has_changed || self.mark(commands)
    }

    /// `MarkBackendDead` and `MarkBackendAlive`. Whether a frontend still has the backend.
    fn mark(&mut self, commands: &mut Connection) -> bool {
        let url = &self.url;
        self.places.retain(|frontend, place| {
            let listed: Option<String> = commands
                .lindex(format!("frontend:{frontend}"), isize::try_from(*place + 1).expect("a place"))
                .expect("an item");
            listed.as_ref() == Some(url)
        });
        let mut marks = redis::pipe();
        marks.atomic();
        for (frontend, place) in &self.places {
            let key = format!("dead:{frontend}");
            if self.is_alive {
                marks.cmd("SREM").arg(&key).arg(*place);
            } else {
                marks.cmd("SADD").arg(&key).arg(*place).cmd("EXPIRE").arg(&key).arg(60);
            }
        }
        if !self.places.is_empty() {
            marks.query::<Value>(commands).expect("marks");
        }
        !self.places.is_empty()
    }

    /// `UnlockBackend`. Always `false`.
    fn unlock(&self, commands: &mut Connection) -> bool {
        run::<Value>(commands, &format!("HDEL hchecker {0} {0};{ID}", self.url));
        false
    }
}

/// `doHttpRequest`: whether there is a response, and one below 500 or of 503.
fn is_alive(url: &str) -> bool {
    let address: SocketAddr = url.strip_prefix("http://").expect("http").parse().expect("an address");
    let respond = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, IO_TIMEOUT)?;
        stream.set_read_timeout(Some(IO_TIMEOUT))?;
        let user_agent = "dotCloud-HealthCheck/0.2.4 go1.3";
        write!(
            stream,
            "HEAD /CloudHealthCheck HTTP/1.1\r\nHost: ping\r\nUser-Agent: {user_agent}\r\nConnection: close\r\n\r\n"
        )?;
        let mut response = [0; 12];
        stream.read_exact(&mut response)?;
        Ok(String::from_utf8_lossy(&response).into_owned())
    };
    respond().is_ok_and(|response| !response.starts_with("HTTP/1.1 5") || response.ends_with("503"))
}

/// A backend at this address. It gives every GET the text, and every check the head.
fn backend_at(address: SocketAddr, text: &'static str, check: &'static str) -> Backend {
    Backend::raw_at(address, move |conn| {
        while let Some(request) = conn.request() {
            let is_check = request.head.start.starts_with("HEAD /CloudHealthCheck ");
            if is_check {
                assert_eq!(request.head.get("Host"), Some("ping"));
            }
            conn.send(if is_check { check.as_bytes().to_vec() } else { canned::ok(text) });
        }
    })
}

#[test]
fn the_checker_of_hipache_takes_backends_out_and_brings_them_back() {
    const GOOD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    const BUSY: &str = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n";
    let redis = Server::start();
    let mut connection = redis.connect();
    let _checker = Checker::start(&redis);
    let [first, second] = [unused_address(), unused_address()];
    let _well = backend_at(first, "a", GOOD);
    let urls = [first, second].map(|address| format!("http://{address}"));
    redis.set(HOST, &urls);
    let proxy = Setup::new().driver(redis.url()).workers(1).start();
    let mut client = proxy.client();
    let dead = format!("dead:{HOST}");
    let mut said = || (0..40).map(|_| client.get(HOST, "/").text()).collect::<HashSet<_>>();

    // The proxy reports the one that is down, and the checker marks it.
    until("the checker has marked it", || {
        said();
        connection.sismember::<_, _, bool>(&dead, 1).expect("a set")
    });
    assert_eq!(said(), HashSet::from(["a".to_owned()]));
    assert!(connection.hexists::<_, _, bool>("hchecker", &urls[1]).expect("a hash"), "it is locked");
    assert!(proxy.stderr().contains("active checker is at work"), "{}", proxy.stderr());

    // It is back: a 503 counts as alive. The mark goes long before its 60 seconds are over.
    let busy = backend_at(second, "b", BUSY);
    until("the backend serves again", || said().contains("b"));
    until("its mark is gone", || !connection.sismember::<_, _, bool>(&dead, 1).expect("a set"));

    // It goes again, and its mark comes again without a word of the proxy.
    drop(busy);
    until("the checker has marked it again", || connection.sismember::<_, _, bool>(&dead, 1).expect("a set"));
    until("it is spared", || said() == HashSet::from(["a".to_owned()]));

    // It leaves the list: the checker finds nothing at its place at its next change, and lets it go.
    redis.set(HOST, &urls[..1]);
    let _third = backend_at(second, "b", GOOD);
    until("it is unlocked", || !connection.hexists::<_, _, bool>("hchecker", &urls[1]).expect("a hash"));
    until("one serves", || said() == HashSet::from(["a".to_owned()]));
}
