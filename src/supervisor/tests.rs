//! Workers that fail: a house in this process, whose workers a test can have panic or hang.

use super::*;
use crate::config;
use crate::worker::Deed;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);

/// A house that the test looks after by hand; its workers have threads of their own.
struct Scene {
    house: Option<House>,
    events: Receiver<Event>,
    address: SocketAddr,
    folder: PathBuf,
    clock: Clock,
}

/// A client with a connection of its own.
struct Client(BufReader<TcpStream>);

impl Scene {
    fn new(test: &str, workers: usize) -> Self {
        let folder = std::env::temp_dir().join(format!("sluice-house-{test}-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let backend = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", backend.local_addr().expect("its address"));
        thread::spawn(move || backend.incoming().flatten().for_each(|stream| drop(thread::spawn(|| serve(stream)))));
        let routes = folder.join("routes.json");
        fs::write(&routes, format!(r#"{{"frontends": {{"a": ["x", "{url}"]}}}}"#)).expect("a file");
        let text = format!(r#"{{"driver": "file:{}", "server": {{"watchdog": 0.2}}}}"#, routes.display());
        let file = folder.join("config.json");
        let (mut settings, _) = config::from_text(&text, &file, &config::Overrides::default()).expect("settings");
        let first = Listener::open(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
        let address = first.local_address().expect("an address");
        settings.listeners = vec![address];
        let (events_out, events) = crossbeam_channel::unbounded();
        let (doors, _) = Doors::open(&settings, workers, vec![first]).expect("doors");
        doors.listen().expect("queues");
        let cpus = vec![affinity::Place::Anywhere; workers];
        let mut house = House::furnish(&settings, &cpus, doors, &events_out).expect("a house");
        house.loops.start().expect("workers");
        Self { house: Some(house), events, address, folder, clock: Clock::new() }
    }

    fn loops(&mut self) -> &mut Loops {
        &mut self.house.as_mut().expect("a house").loops
    }

    /// Looks after the house until this holds. Returns how long that took.
    #[track_caller]
    fn until(&mut self, what: &str, condition: impl Fn(&mut Self) -> bool) -> Duration {
        let began = self.clock.now();
        while !condition(self) {
            let waited = self.clock.now().since(began);
            assert!(waited < PATIENCE, "waited in vain: {what}");
            match self.events.recv_timeout(Duration::from_millis(5)) {
                Ok(event) => self.house.as_mut().expect("a house").handle(event),
                Err(_) => self.loops().look(),
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
        self.loops().tell(number, Order::Do(Deed(Box::new(deed))));
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.loops().stop();
            self.until("the end", |scene| scene.loops().have_ended());
            self.house.take().expect("a house").tear_down();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Client {
    fn send(&mut self) {
        // Fails where the proxy has closed, which the answer tells too.
        let _ = self.0.get_mut().write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }

    /// Whether the answer is a good one.
    fn is_answered(&mut self) -> bool {
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
        self.is_answered()
    }
}

/// A backend that answers each request.
fn serve(stream: TcpStream) {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while matches!(reader.read_line(&mut line), Ok(1..)) {
        if line == "\r\n" && reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_err() {
            return;
        }
        line.clear();
    }
}

#[test]
fn a_panic_costs_its_worker_and_no_other() {
    let mut scene = Scene::new("panic", 2);
    let mut clients: Vec<Client> = (0..16).map(|_| scene.client()).collect();
    assert!(clients.iter_mut().all(Client::is_served));
    let mut quickest = PATIENCE;
    for round in 0..3 {
        scene.have(0, || panic!("a test's order"));
        let began = scene.clock.now();
        scene.until("a successor", |scene| scene.loops().begun() == 3 + round);
        // At both places somebody serves: of so many connections some come to each.
        assert!((0..16).map(|_| scene.client()).all(|mut client| client.is_served()));
        quickest = quickest.min(scene.clock.now().since(began));
    }
    assert!(quickest < Duration::from_millis(100), "served again after {quickest:?}");
    let alive = clients.iter_mut().map(Client::is_served).filter(|served| *served).count();
    assert!((1..16).contains(&alive), "{alive} of 16 connections are left");
}

#[test]
fn who_does_not_turn_is_replaced_and_hands_over_when_it_comes_to_itself() {
    let mut scene = Scene::new("stuck", 2);
    let mut clients: Vec<Client> = (0..16).map(|_| scene.client()).collect();
    assert!(clients.iter_mut().all(Client::is_served));
    let (gate, closed) = mpsc::channel::<()>();
    scene.have(0, move || assert!(closed.recv().is_err(), "the gate opens by being dropped"));
    let took = scene.until("a successor", |scene| scene.loops().begun() == 3);
    assert!(took >= Duration::from_millis(150), "found after {took:?}, which is too soon");
    assert!((0..16).map(|_| scene.client()).all(|mut client| client.is_served()), "the successor accepts");
    assert_eq!(scene.loops().leaving(), 1);
    clients.iter_mut().for_each(Client::send);
    drop(gate);
    scene.until("the stuck one's end", |scene| scene.loops().leaving() == 0);
    assert!(clients.iter_mut().all(Client::is_answered), "who waited is answered");
    assert!(clients.iter_mut().all(Client::is_served), "and served on");
}

/// One that never comes to itself does not keep the process from its end.
#[test]
fn nobody_waits_for_who_is_stuck_for_good() {
    let mut scene = Scene::new("for-good", 1);
    let (gate, closed) = mpsc::channel::<()>();
    scene.have(0, move || assert!(closed.recv().is_err(), "the gate opens by being dropped"));
    scene.until("a successor", |scene| scene.loops().begun() == 2);
    assert!(scene.client().is_served());
    scene.loops().stop();
    scene.until("the end", |scene| scene.loops().have_ended());
    drop(gate);
}

#[test]
fn who_fails_again_and_again_is_replaced_ever_more_slowly() {
    let mut scene = Scene::new("storm", 1);
    for failure in 0..watchdog::Pace::AT_ONCE as u64 {
        scene.have(0, || panic!("a test's order"));
        scene.until("a successor", |scene| scene.loops().begun() == 2 + failure);
    }
    let begun = scene.loops().begun();
    scene.have(0, || panic!("a test's order"));
    let took = scene.until("one more successor", |scene| scene.loops().begun() > begun);
    assert!(took >= Duration::from_millis(900), "after {took:?}");
    assert!(scene.client().is_served());
}
