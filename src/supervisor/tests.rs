//! Workers that fail: a supervisor in this process, whose workers a test can make panic or hang.

use super::*;
use crate::config;
use crate::net::listener::Listener;
use crate::wire::forwarded::Peer;
use crate::worker::TestCommand;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, RwLock, mpsc};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);

/// A supervisor driven by the test; its workers have their own threads.
struct Scene {
    supervisor: Option<Supervisor>,
    events: Receiver<Event>,
    address: SocketAddr,
    folder: PathBuf,
    clock: Clock,
    backend: Arc<Backend>,
}

/// The backend of all requests.
#[derive(Default)]
struct Backend {
    /// Number of requests read.
    heard: AtomicUsize,
    /// A writer of this lock blocks all responses.
    gate: RwLock<()>,
}

/// A client with its own connection.
struct Client(BufReader<TcpStream>);

impl Scene {
    fn new(test: &str, workers: usize) -> Self {
        let folder = std::env::temp_dir().join(format!("sluice-supervisor-{test}-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let backend = Arc::<Backend>::default();
        let serving = Arc::clone(&backend);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let backend = Arc::clone(&serving);
                thread::spawn(move || backend.serve(stream));
            }
        });
        let routes = folder.join("routes.json");
        fs::write(&routes, format!(r#"{{"frontends": {{"a": ["x", "{url}"]}}}}"#)).expect("a file");
        let text =
            format!(r#"{{"driver": "file:{}", "admin": false, "server": {{"watchdog": 0.2}}}}"#, routes.display());
        let file = folder.join("config.json");
        let (mut settings, _) = config::from_text(&text, &file, &config::Overrides::default()).expect("settings");
        let first = Listener::open(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
        let address = first.local_address().expect("an address");
        settings.listeners = vec![address];
        let (events_out, events) = crossbeam_channel::unbounded();
        let (listeners, _) =
            Listeners::open(&settings, (&[], std::iter::empty(), 64), workers, vec![first]).expect("doors");
        listeners.listen().expect("queues");
        let cpus = vec![affinity::CpuPlacement::Anywhere; workers];
        let mut supervisor =
            Supervisor::assemble(&settings, &cpus, (listeners, None, Vec::new()), Inherited::default(), &events_out)
                .expect("a supervisor");
        supervisor.pool.start().expect("workers");
        Self { supervisor: Some(supervisor), events, address, folder, clock: Clock::new(), backend }
    }

    fn pool(&mut self) -> &mut WorkerPool {
        &mut self.supervisor.as_mut().expect("a supervisor").pool
    }

    /// Runs the supervisor until the condition holds. Returns how long that took.
    #[track_caller]
    fn until(&mut self, what: &str, condition: impl Fn(&mut Self) -> bool) -> Duration {
        let began = self.clock.now();
        while !condition(self) {
            let waited = self.clock.now().since(began);
            assert!(waited < PATIENCE, "waited in vain: {what}");
            match self.events.recv_timeout(Duration::from_millis(5)) {
                Ok(event) => self.supervisor.as_mut().expect("a supervisor").handle(event),
                Err(_) => self.pool().look(),
            }
        }
        self.clock.now().since(began)
    }

    fn client(&self) -> Client {
        let stream = TcpStream::connect(self.address).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Client(BufReader::new(stream))
    }

    fn have(&mut self, number: usize, deed: impl FnOnce() + Send + 'static) {
        self.pool().tell(number, WorkerCommand::Do(TestCommand(Box::new(deed))));
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.pool().stop();
            self.until("the end", |scene| scene.pool().have_ended());
            self.supervisor.take().expect("a supervisor").shutdown();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Client {
    fn send(&mut self) {
        // It fails if the proxy has closed the connection, which the response shows too.
        let _ = self.0.get_mut().write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }

    /// Whether a good response arrives.
    fn gets_response(&mut self) -> bool {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if !matches!(self.0.read_line(&mut head), Ok(1..)) {
                return false;
            }
        }
        head.starts_with("HTTP/1.1 200 ") && self.0.read_exact(&mut [0; 2]).is_ok()
    }

    fn is_served(&mut self) -> bool {
        self.send();
        self.gets_response()
    }
}

impl Backend {
    /// Responds to each request of a connection.
    fn serve(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        while matches!(reader.read_line(&mut line), Ok(1..)) {
            if line == "\r\n" {
                self.heard.fetch_add(1, Ordering::SeqCst);
                drop(self.gate.read());
                if reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_err() {
                    return;
                }
            }
            line.clear();
        }
    }
}

/// Collects log lines.
struct Logged;

static LOGGED: Mutex<String> = Mutex::new(String::new());

impl log::Log for Logged {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        // The message of a failing test is logged here too.
        eprintln!("{}", record.args());
        let mut logged = LOGGED.lock().expect("no thread panics here");
        let trace = record.key_values().get("backtrace".into());
        let trace = trace.map(|trace| trace.to_string()).unwrap_or_default();
        logged.push_str(&format!("{}\n{trace}", record.args()));
    }

    fn flush(&self) {}
}

fn logged() -> String {
    LOGGED.lock().expect("no thread panics here").clone()
}

/// The program's own hook is installed, so its cost is included in the time.
#[test]
fn a_panic_costs_its_worker_and_no_other() {
    log::set_logger(&Logged).expect("the only logger");
    log::set_max_level(log::LevelFilter::Error);
    panics::log_them();
    let mut scene = Scene::new("panic", 2);
    let (mut times, mut costs) = (Vec::new(), Vec::new());
    for round in 0..7 {
        let before = scene.pool().accepted();
        let began = scene.clock.now();
        let mut clients: Vec<Client> = (0..16).map(|_| scene.client()).collect();
        assert!(clients.iter_mut().all(Client::is_served));
        costs.push(scene.clock.now().since(began));
        let of_other = scene.pool().accepted()[1] - before[1];
        let backend = Arc::clone(&scene.backend);
        let closed = backend.gate.write();
        let heard = backend.heard.load(Ordering::SeqCst);
        clients.iter_mut().for_each(Client::send);
        scene.until("the requests are under way", |_| backend.heard.load(Ordering::SeqCst) == heard + 16);
        let began = scene.clock.now();
        scene.have(0, || panic!("a test's order"));
        scene.until("a successor", |scene| scene.pool().begun() == 3 + round);
        drop(closed);
        // Both workers serve: with this many connections, each gets some.
        assert!((0..16).map(|_| scene.client()).all(|mut client| client.is_served()));
        times.push(scene.clock.now().since(began));
        let replied = clients.iter_mut().map(Client::gets_response).filter(|replied| *replied).count();
        assert_eq!(replied as u64, of_other, "requests of the other worker go on");
    }
    // The time that the machine needs for as many clients without a panic shows how busy it is; when idle, some
    // milliseconds.
    let limit = |cost: Duration| Duration::from_millis(100).max(cost * 8);
    let slowest = costs.iter().copied().max().unwrap_or_default();
    let all = format!("served again after {times:?}, beside {costs:?} with no panic");
    // The first panic pays one-time costs.
    assert!(times[0] < limit(slowest), "{all}");
    let in_time = times.iter().zip(&costs).filter(|(time, cost)| **time < limit(**cost)).count();
    assert!(in_time > times.len() / 2, "{all}");
    assert_eq!(scene.pool().deps.roster.seen().1, ["failed"; 7]);
    scene.until("the panic is told", |_| logged().contains("worker-0: panicked at src/supervisor/tests.rs"));
    assert!(logged().contains("a test's order"), "{}", logged());
    scene.until("how it came to it", |_| {
        let logged = logged();
        logged
            .split_once("worker-0: backtrace of the panic")
            .is_some_and(|(_, trace)| trace.contains("supervisor::tests::"))
    });
}

/// While a slot is empty, its neighbour accepts there, and gets the clients of the worker that leaves it.
#[test]
fn a_neighbour_stands_in_where_a_worker_fails_again_and_again() {
    let mut scene = Scene::new("gap", 2);
    for failure in 0..watchdog::RestartBackoff::AT_ONCE as u64 {
        scene.have(0, || panic!("a test's order"));
        scene.until("a successor", |scene| scene.pool().begun() == 3 + failure);
    }
    let mut clients: Vec<Client> = (0..16).map(|_| scene.client()).collect();
    assert!(clients.iter_mut().all(Client::is_served));
    let (gate, closed) = mpsc::channel::<()>();
    scene.have(0, move || assert!(closed.recv().is_err(), "the gate opens by being dropped"));
    scene.until("it is found stuck", |scene| scene.pool().leaving() == 1);
    let (begun, before) = (scene.pool().begun(), scene.pool().accepted());
    let began = scene.clock.now();
    assert!((0..32).map(|_| scene.client()).all(|mut client| client.is_served()));
    let took = scene.clock.now().since(began);
    assert!(took < Duration::from_millis(500), "served after {took:?}");
    assert_eq!(scene.pool().accepted()[1], before[1] + 32, "the neighbour has accepted them all");
    clients.iter_mut().for_each(Client::send);
    drop(gate);
    assert!(clients.iter_mut().all(Client::gets_response), "waiting clients get their responses");
    scene.until("the stuck one's end", |scene| scene.pool().leaving() == 0);
    assert!(clients.iter_mut().all(Client::is_served), "and served on by the neighbour");
    assert_eq!(scene.pool().begun(), begun, "the slot was empty all this while");
    scene.until("a worker starts there", |scene| scene.pool().begun() > begun);
    let before = scene.pool().accepted();
    assert!((0..32).map(|_| scene.client()).all(|mut client| client.is_served()));
    assert!((1..32).contains(&(scene.pool().accepted()[0] - before[0])), "each accepts at its own place");
}

/// The system has no thread, file or memory for the successor of a stuck worker: the start is repeated until it
/// succeeds.
#[test]
fn a_successor_that_cannot_be_begun_is_tried_again() {
    let mut scene = Scene::new("starved", 2);
    let (gate, closed) = mpsc::channel::<()>();
    scene.pool().is_starved = true;
    scene.have(0, move || assert!(closed.recv().is_err(), "the gate opens by being dropped"));
    scene.until("it is found stuck", |scene| scene.pool().leaving() == 1);
    assert_eq!(scene.pool().begun(), 2);
    assert!((0..32).map(|_| scene.client()).all(|mut client| client.is_served()), "the neighbour accepts");
    scene.pool().is_starved = false;
    scene.until("a successor", |scene| scene.pool().begun() == 3);
    drop(gate);
}

/// A port at which not all workers accept would block a part of its connections, so it is closed.
#[test]
fn a_port_without_sockets_for_a_worker_is_closed_again() {
    let mut scene = Scene::new("untold", 2);
    let free = || TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let on_demand = free();
    scene.pool().starved_worker = Some(1);
    let refused = scene.pool().open_port(on_demand.port()).expect_err("one worker knows nothing of it");
    assert_eq!(refused.status(), 503, "{refused}");
    assert!(TcpStream::connect(on_demand).is_err(), "nothing listens there");
    // An address of a file stays open: the worker is notified as soon as possible.
    let ruled = free();
    scene.pool().serve_at(&[ruled]);
    scene.pool().starved_worker = None;
    scene.pool().retry_listeners();
    scene.pool().open_port(on_demand.port()).expect("both workers are told");
    for address in [on_demand, ruled] {
        let before = scene.pool().accepted();
        scene.address = address;
        assert!((0..32).map(|_| scene.client()).all(|mut client| client.is_served()), "{address}");
        let after = scene.pool().accepted();
        assert!((0..2).all(|number| after[number] > before[number]), "{address}: {before:?} {after:?}");
    }
    scene.pool().close_port(on_demand.port());
    assert!(TcpStream::connect(on_demand).is_err(), "closed");
}

/// Connections in the queue of an empty slot are accepted at the end.
#[test]
fn clients_of_a_starved_pool_are_served_at_the_end() {
    let mut scene = Scene::new("queue", 1);
    scene.pool().is_starved = true;
    scene.have(0, || panic!("a test's order"));
    scene.until("the worker's end", |scene| scene.pool().running() == 0);
    let mut client = scene.client();
    client.send();
    scene.pool().is_starved = false;
    scene.pool().stop();
    scene.until("the end", |scene| scene.pool().have_ended());
    assert!(client.gets_response());
}

/// A client of another process, which has sent a request.
fn client_from_outside() -> (PortableClient, Client) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let stream = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let (accepted, _) = listener.accept().expect("a connection");
    accepted.set_nonblocking(true).expect("a socket");
    let peer = Peer { address: [127, 0, 0, 1].into(), local_port: 80, secure: false, tls: None };
    let mut client = Client(BufReader::new(stream));
    client.send();
    (PortableClient { stream: accepted, session: None, peer, served: 1, told: None, exchange: None }, client)
}

/// A client arrives after the last worker has ended, and before the supervisor notices that.
#[test]
fn who_arrives_last_of_all_is_served() {
    let mut scene = Scene::new("last", 1);
    let (arriving, mut client) = client_from_outside();
    scene.pool().stop();
    let end = scene.events.recv_timeout(PATIENCE).expect("the worker's end");
    scene.pool().import(arriving);
    scene.supervisor.as_mut().expect("a supervisor").handle(end);
    scene.until("the end", |scene| scene.pool().have_ended());
    assert!(client.gets_response());
}

/// A client comes back from another process after its worker has ended, which nothing tells.
#[test]
fn who_returns_to_a_worker_that_has_ended_is_served() {
    let mut scene = Scene::new("returns", 1);
    let (returning, mut client) = client_from_outside();
    scene.pool().stop();
    scene.until("the worker's end", |scene| scene.pool().running() == 0);
    scene.pool().handoff(0).put(vec![returning.into()]);
    scene.pool().look();
    assert_eq!(scene.pool().running(), 1);
    scene.until("the end", |scene| scene.pool().have_ended());
    assert!(client.gets_response());
}

#[test]
fn a_stuck_worker_is_replaced_and_hands_over_when_it_recovers() {
    let mut scene = Scene::new("stuck", 2);
    let mut clients: Vec<Client> = (0..16).map(|_| scene.client()).collect();
    assert!(clients.iter_mut().all(Client::is_served));
    let (gate, closed) = mpsc::channel::<()>();
    scene.have(0, move || assert!(closed.recv().is_err(), "the gate opens by being dropped"));
    let took = scene.until("a successor", |scene| scene.pool().begun() == 3);
    assert!(took >= Duration::from_millis(150), "found after {took:?}, which is too soon");
    assert!((0..16).map(|_| scene.client()).all(|mut client| client.is_served()), "the successor accepts");
    assert_eq!(scene.pool().leaving(), 1);
    // A replaced worker leaves its label in the metrics to its successor.
    let (mut labels, replaced) = scene.pool().deps.roster.seen();
    labels.sort_unstable();
    assert_eq!(labels, ["0", "1", "draining"]);
    assert_eq!(replaced, ["stuck"]);
    clients.iter_mut().for_each(Client::send);
    drop(gate);
    scene.until("the stuck one's end", |scene| scene.pool().leaving() == 0);
    assert_eq!(scene.pool().deps.roster.seen().1, ["stuck"], "it is counted once");
    assert!(clients.iter_mut().all(Client::gets_response), "waiting clients get their responses");
    assert!(clients.iter_mut().all(Client::is_served), "and served on");
}

/// A worker that stays stuck does not keep the process from ending.
#[test]
fn the_process_does_not_wait_for_a_worker_that_stays_stuck() {
    let mut scene = Scene::new("for-good", 1);
    let (gate, closed) = mpsc::channel::<()>();
    scene.have(0, move || assert!(closed.recv().is_err(), "the gate opens by being dropped"));
    scene.until("a successor", |scene| scene.pool().begun() == 2);
    assert!(scene.client().is_served());
    scene.pool().stop();
    scene.until("the end", |scene| scene.pool().have_ended());
    drop(gate);
}

#[test]
fn who_fails_again_and_again_is_replaced_ever_more_slowly() {
    let mut scene = Scene::new("storm", 1);
    for failure in 0..watchdog::RestartBackoff::AT_ONCE as u64 {
        scene.have(0, || panic!("a test's order"));
        scene.until("a successor", |scene| scene.pool().begun() == 2 + failure);
    }
    let begun = scene.pool().begun();
    scene.have(0, || panic!("a test's order"));
    let took = scene.until("one more successor", |scene| scene.pool().begun() > begun);
    assert!(took >= Duration::from_millis(900), "after {took:?}");
    assert!(scene.client().is_served());
}
