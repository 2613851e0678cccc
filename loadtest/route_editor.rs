//! Edits of routes in Redis under load: how soon each is live on every worker, and whether any request fails.
//!
//! Two works: `fresh` edits and measures, `load` only asks and counts. Each has backends of its own, and prints one
//! line of JSON. Host `n` is `h<n>.test`.

use clap::{Parser, ValueEnum};
use sluice::base::clock::{Clock, Moment};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

const BACKENDS: usize = 4;
/// So many connections that every worker has some of them.
const PROBES: usize = 8;
const LOADERS: usize = 2;

#[derive(Parser)]
struct Arguments {
    work: Work,
    /// The proxy.
    #[arg(long)]
    proxy: SocketAddr,
    /// The Redis to edit.
    #[arg(long, default_value = "redis://127.0.0.1")]
    redis: String,
    #[arg(long, default_value_t = 200)]
    hosts: usize,
    /// Edits a second, or requests a second.
    #[arg(long, default_value_t = 1000)]
    rate: u64,
    #[arg(long, default_value_t = 30)]
    seconds: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum Work {
    Fresh,
    Load,
}

fn main() {
    let arguments = Arguments::parse();
    let line = match arguments.work {
        Work::Fresh => fresh(&arguments),
        Work::Load => load(&arguments),
    };
    println!("{line}");
}

/// A connection that asks and is answered; made anew only after a failure.
struct Asker {
    proxy: SocketAddr,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

impl Asker {
    fn new(proxy: SocketAddr) -> Self {
        Self { proxy, stream: None, buffer: vec![0; 8192] }
    }

    /// The body of a 200; otherwise what came instead.
    fn ask(&mut self, host: usize) -> Result<String, String> {
        let result = self.try_ask(host);
        if result.is_err() {
            self.stream = None;
        }
        result
    }

    fn try_ask(&mut self, host: usize) -> Result<String, String> {
        let text = |error: std::io::Error| error.to_string();
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(self.proxy).map_err(text)?;
                stream.set_nodelay(true).map_err(text)?;
                stream.set_read_timeout(Some(Duration::from_secs(10))).map_err(text)?;
                self.stream.insert(stream)
            }
        };
        write!(stream, "GET / HTTP/1.1\r\nHost: h{host}.test\r\n\r\n").map_err(text)?;
        let mut len = 0;
        loop {
            let count = stream.read(&mut self.buffer[len..]).map_err(text)?;
            if count == 0 {
                return Err("the connection was closed".to_owned());
            }
            len += count;
            let response = String::from_utf8_lossy(&self.buffer[..len]);
            if !response.starts_with("HTTP/1.1 200") && len > 12 {
                return Err(response.lines().next().unwrap_or_default().to_owned());
            }
            if let Some((_, body)) = response.split_once("\r\n\r\n").filter(|(_, body)| !body.is_empty()) {
                return Ok(body.to_owned());
            }
        }
    }
}

/// A server whose answer is its number.
struct Backend {
    url: String,
    asked: Arc<AtomicU64>,
}

impl Backend {
    fn start(number: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let asked = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&asked);
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let counter = Arc::clone(&counter);
                thread::spawn(move || {
                    let _ = stream.set_nodelay(true);
                    let response = format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{number}");
                    let (mut buffer, mut len) = ([0; 8192], 0);
                    while let Ok(count @ 1..) = stream.read(&mut buffer[len..]) {
                        len += count;
                        if buffer[..len].ends_with(b"\r\n\r\n") {
                            counter.fetch_add(1, Ordering::Relaxed);
                            len = 0;
                            if stream.write_all(response.as_bytes()).is_err() {
                                return;
                            }
                        }
                    }
                });
            }
        });
        Self { url, asked }
    }
}

fn set(connection: &mut redis::Connection, host: usize, url: &str) {
    let key = format!("frontend:h{host}.test");
    redis::pipe().atomic().del(&key).rpush(&key, &["site", url]).exec(connection).expect("writing a list");
}

struct Edit {
    host: usize,
    number: usize,
    version: usize,
    at: Moment,
}

/// Asks for any host, on and on; what failed goes to the list.
fn ask_on(asker: &mut Asker, hosts: usize, over: &AtomicBool, failures: &mpsc::Sender<String>, pause: Duration) -> u64 {
    let (mut rng, mut count) = (fastrand::Rng::new(), 0);
    while !over.load(Ordering::Relaxed) {
        let host = rng.usize(..hosts);
        if let Err(problem) = asker.ask(host) {
            let _ = failures.send(format!("h{host}.test: {problem}"));
        }
        count += 1;
        if !pause.is_zero() {
            thread::park_timeout(pause);
        }
    }
    count
}

fn fresh(arguments: &Arguments) -> serde_json::Value {
    let backends: Vec<_> = (0..BACKENDS).map(Backend::start).collect();
    let mut connection =
        redis::Client::open(arguments.redis.as_str()).and_then(|client| client.get_connection()).expect("Redis");
    (0..arguments.hosts).for_each(|host| set(&mut connection, host, &backends[0].url));
    let versions: Vec<AtomicUsize> = (0..arguments.hosts).map(|_| AtomicUsize::new(0)).collect();
    let (over, clock) = (AtomicBool::new(false), Clock::new());
    let (failures_in, failures) = mpsc::channel();
    let (edits_in, edits) = mpsc::channel();
    let (times, requests, made) = thread::scope(|scope| {
        let prober = scope.spawn(|| probe(arguments.proxy, edits, &versions, clock));
        let loaders: Vec<_> = (0..LOADERS)
            .map(|_| {
                let (failures, over) = (failures_in.clone(), &over);
                let pause = Duration::from_micros(500);
                scope.spawn(move || ask_on(&mut Asker::new(arguments.proxy), arguments.hosts, over, &failures, pause))
            })
            .collect();
        let made = edit_on(arguments, &mut connection, &backends, &versions, &edits_in, clock);
        drop(edits_in);
        let times = prober.join().expect("the prober");
        over.store(true, Ordering::Relaxed);
        let requests = loaders.into_iter().map(|loader| loader.join().expect("a loader")).sum::<u64>();
        (times, requests, made)
    });
    // Now nothing may go to any but the last.
    let last = BACKENDS - 1;
    (0..arguments.hosts).for_each(|host| set(&mut connection, host, &backends[last].url));
    thread::park_timeout(Duration::from_millis(500));
    backends.iter().for_each(|backend| backend.asked.store(0, Ordering::Relaxed));
    let mut askers: Vec<_> = (0..PROBES).map(|_| Asker::new(arguments.proxy)).collect();
    for asker in &mut askers {
        for host in 0..arguments.hosts {
            if let Err(problem) = asker.ask(host) {
                let _ = failures_in.send(problem);
            }
        }
    }
    drop(failures_in);
    let stale = backends[..last].iter().map(|backend| backend.asked.load(Ordering::Relaxed)).sum::<u64>();
    summary(times, requests, made, stale, &failures.iter().collect::<Vec<_>>())
}

fn edit_on(
    arguments: &Arguments,
    connection: &mut redis::Connection,
    backends: &[Backend],
    versions: &[AtomicUsize],
    edits: &mpsc::Sender<Edit>,
    clock: Clock,
) -> u64 {
    let begun = clock.now();
    let end = begun + Duration::from_secs(arguments.seconds);
    let mut made = 0_u64;
    let mut numbers = vec![0; arguments.hosts];
    while clock.now() < end {
        let due = begun + Duration::from_micros(made * 1_000_000 / arguments.rate);
        let early = due.since(clock.now());
        if !early.is_zero() {
            thread::park_timeout(early);
            continue;
        }
        let host = usize::try_from(made).unwrap_or_default() % arguments.hosts;
        numbers[host] = (numbers[host] + 1) % BACKENDS;
        let version = versions[host].fetch_add(1, Ordering::SeqCst) + 1;
        set(connection, host, &backends[numbers[host]].url);
        let _ = edits.send(Edit { host, number: numbers[host], version, at: clock.now() });
        made += 1;
    }
    made
}

/// Measures the newest edit, again and again: the time until every connection is served by the new list.
fn probe(proxy: SocketAddr, edits: mpsc::Receiver<Edit>, versions: &[AtomicUsize], clock: Clock) -> Vec<Duration> {
    let mut askers: Vec<_> = (0..PROBES).map(|_| Asker::new(proxy)).collect();
    let mut times = Vec::new();
    while let Ok(first) = edits.recv() {
        let edit = edits.try_iter().last().unwrap_or(first);
        let expected = edit.number.to_string();
        let is_current = || versions[edit.host].load(Ordering::SeqCst) == edit.version;
        let is_live = |asker: &mut Asker| loop {
            match asker.ask(edit.host) {
                Ok(response) if response == expected => return true,
                _ if !is_current() => return false,
                _ => {}
            }
        };
        if askers.iter_mut().all(is_live) {
            times.push(clock.now().since(edit.at));
        }
    }
    times
}

fn summary(mut times: Vec<Duration>, requests: u64, edits: u64, stale: u64, failures: &[String]) -> serde_json::Value {
    times.sort();
    let at = |share: f64| {
        let place = ((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1));
        times.get(place).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
    };
    serde_json::json!({
        "edits": edits, "measured": times.len(), "requests": requests,
        "p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": at(1.0),
        "stale": stale, "failed": failures.len(), "first_failure": failures.first(),
    })
}

/// Asks for `seconds`, at a rate, with two connections; the backends are somebody else's.
fn load(arguments: &Arguments) -> serde_json::Value {
    let (over, clock) = (AtomicBool::new(false), Clock::new());
    let (failures_in, failures) = mpsc::channel();
    let pause = Duration::from_micros(1_000_000 * LOADERS as u64 / arguments.rate.max(1));
    let requests = thread::scope(|scope| {
        let loaders: Vec<_> = (0..LOADERS)
            .map(|_| {
                let (failures, over) = (failures_in.clone(), &over);
                scope.spawn(move || ask_on(&mut Asker::new(arguments.proxy), arguments.hosts, over, &failures, pause))
            })
            .collect();
        let end = clock.now() + Duration::from_secs(arguments.seconds);
        while clock.now() < end {
            thread::park_timeout(end.since(clock.now()));
        }
        over.store(true, Ordering::Relaxed);
        loaders.into_iter().map(|loader| loader.join().expect("a loader")).sum::<u64>()
    });
    drop(failures_in);
    summary(Vec::new(), requests, 0, 0, &failures.iter().collect::<Vec<_>>())
}
