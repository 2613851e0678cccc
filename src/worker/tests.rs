//! A worker that the test turns by hand: so what happens between two of its turns is no accident.

mod addresses;
mod batch;
mod buffers;
mod crowd;
mod departures;
mod end;
mod migration;
mod records;
mod turns;

use super::*;
use crate::base::counters::Counter;
use crate::base::reason::FailureReason;
use crate::cluster::{Addresses, Backend, BackendId, BackendUrl, Cluster, ClusterSpec, Options, Route};
use crate::directory::{self, Source};
use crate::net::listener::Listener;
use crate::net::tls::{BackendSettings, Verification};
use crate::wire::forwarded::{Mode, Policy};
use crate::wire::limits::Limits;
use crate::{health, page};
use socket2::{Domain, SockRef, Socket, Type};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;

const PATIENCE: Duration = Duration::from_secs(10);
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A worker with one backend, which the test plays too. All sockets block for [`PATIENCE`] at most.
struct Stage {
    worker: Worker,
    /// Workers that hand their clients over to it.
    old: Vec<Worker>,
    commands: MailboxSender<WorkerCommand>,
    handoff: HandoffQueue,
    listener: Listener,
    directory: Directory,
    clock: Clock,
    max_sockets: usize,
    /// The greatest number of events of a turn.
    events: usize,
    drain_timeout: Duration,
    address: SocketAddr,
    backend: TcpListener,
    folder: PathBuf,
}

impl Stage {
    fn new(test: &str, max_sockets: usize) -> Self {
        Self::with_backend("http", test, max_sockets)
    }

    fn with_backend(scheme: &str, test: &str, max_sockets: usize) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let backend = TcpListener::bind(any).expect("a backend's port");
        backend.set_nonblocking(true).expect("a backend that can be asked");
        let folder = std::env::temp_dir().join(format!("sluice-worker-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let routes = folder.join("routes.json");
        let url = format!("{scheme}://{}", backend.local_addr().expect("its address"));
        std::fs::write(&routes, format!(r#"{{"frontends": {{"a": ["x", "{url}"]}}}}"#)).expect("a routes file");

        let listener = Listener::open(any).expect("a port");
        let (clock, source) = (Clock::new(), Source::File(routes));
        let source = directory::Settings { source, dns_refresh: PATIENCE, dns_servers: None, state_dir: None };
        let directory = directory::start(&source, clock).expect("a directory");
        let address = listener.local_address().expect("its address");
        let handoff = HandoffQueue::default();
        let (worker, commands) = worker(&listener, &handoff, &directory, clock, max_sockets, PATIENCE);
        let (old, drain_timeout) = (Vec::new(), PATIENCE);
        Self {
            worker,
            old,
            commands,
            handoff,
            listener,
            directory,
            clock,
            max_sockets,
            events: EVENTS,
            drain_timeout,
            address,
            backend,
            folder,
        }
    }

    /// Turns the worker until this returns a value.
    #[track_caller]
    fn until<T>(&mut self, what: &str, mut condition: impl FnMut(&mut Self) -> Option<T>) -> T {
        let deadline = self.clock.now() + PATIENCE;
        loop {
            if let Some(found) = condition(self) {
                return found;
            }
            assert!(self.clock.now() < deadline, "waited in vain: {what}");
            self.turn();
        }
    }

    /// Waits until the kernel has this ready for the worker's next turn.
    #[track_caller]
    fn until_there(&self, what: &str, condition: impl Fn(&Worker) -> bool) {
        let deadline = self.clock.now() + PATIENCE;
        while !condition(&self.worker) {
            assert!(self.clock.now() < deadline, "waited in vain: {what}");
            std::thread::yield_now();
        }
    }

    /// A backend's response, and behind it the reset of a client, both for the worker's next turn.
    #[track_caller]
    fn response_and_reset(&self, connection: &mut TcpStream, client: TcpStream) {
        connection.write_all(OK).expect("a response");
        self.until_there("the response", |worker| {
            worker.upstreams.values().any(|upstream| !upstream.stream.transport.is_silent())
        });
        reset(client);
        self.until_there("the reset", |worker| {
            worker.clients.values().any(|client| client.stream.transport.ends().is_err())
        });
    }

    /// One turn, which does not wait for long if there is no work.
    fn turn(&mut self) {
        for worker in self.old.iter_mut().chain([&mut self.worker]) {
            // The time of its sleep counts from its last turn.
            worker.core.now = self.clock.now();
            let soon = worker.core.now + Duration::from_micros(200);
            worker.listeners.iter_mut().for_each(|listener| _ = listener.paused_until.get_or_insert(soon));
            // Without a listener it would sleep until the next event.
            if worker.listeners.is_empty() {
                worker.deferred.push(Deferred::AcceptAll);
            }
            worker.turn(&mut Events::with_capacity(self.events)).expect("a turn");
        }
        self.old.retain(|worker| !worker.has_drained());
    }

    /// A client whose request the worker has read.
    #[track_caller]
    fn client(&mut self, request: &str) -> TcpStream {
        let jobs = self.worker.jobs.len();
        let mut client = patient(TcpStream::connect(self.address).expect("a connection"));
        client.write_all(request.as_bytes()).expect("a request");
        self.until("the request is read", |stage| (stage.worker.jobs.len() > jobs).then_some(()));
        client
    }

    /// Registers all clients with the poll.
    #[track_caller]
    fn watch(&mut self) {
        self.until("all are watched", |stage| {
            (stage.worker.pending_registration.next() == Moment::NEVER).then_some(())
        });
    }

    /// The backend's next connection, with a request to read.
    #[track_caller]
    fn accepted(&mut self) -> TcpStream {
        let (connection, _) = self.until("a dial", |stage| stage.backend.accept().ok());
        connection.set_nonblocking(true).expect("a connection that can be asked");
        self.until("a request", |_| connection.peek(&mut [0]).ok());
        let mut connection = patient(connection);
        let read = connection.read(&mut [0; 4096]).expect("a request");
        assert!(read > 0, "a request");
        connection
    }

    /// Expects the next response to this client to begin so.
    #[track_caller]
    fn expect_response(&mut self, client: &mut TcpStream, start: &str) {
        client.set_nonblocking(true).expect("a client that can be asked");
        self.until("a response", |_| client.peek(&mut [0]).ok());
        let mut bytes = [0; 4096];
        let len = client.read(&mut bytes).expect("a response");
        let response = String::from_utf8_lossy(&bytes[..len]);
        assert!(response.starts_with(start), "{response}");
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.directory.stop();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn worker(
    listener: &Listener,
    handoff: &HandoffQueue,
    directory: &Directory,
    clock: Clock,
    max_sockets: usize,
    drain_timeout: Duration,
) -> (Worker, MailboxSender<WorkerCommand>) {
    let config = WorkerConfig {
        limiter: None,
        tls: None,
        backend_tls: BackendTls::new(&BackendSettings { verification: Verification::Nothing, credentials: None }).ok(),
        number: 0,
        listeners: vec![batch::listener_socket(listener)],
        frontends: Arc::default(),
        handoff: handoff.clone(),
        settings: Settings {
            idle_timeout: PATIENCE,
            max_connections: 100,
            max_buffer_bytes: 128 << 20,
            max_requests: None,
            unknown_host_limit: None,
            drain_timeout,
            tunnel_drain: None,
            proxies: Default::default(),
            liveness: Default::default(),
        },
        exchange: exchange_settings(),
        upstream: upstream::Settings { max_sockets, max_queue: 10, idle_timeout: PATIENCE, receive_buffer: 0 },
        route: route::Settings { capacity: 10, ttl: PATIENCE, unknown_capacity: 10 },
        directory: directory.clone(),
        log: Log::off(),
        pages: Arc::new(Pages::load(&page::Settings::default())),
        counters: Arc::default(),
        stats: Arc::default(),
        tenants: None,
        cache: None,
        service: None,
        clock,
    };
    Worker::new(config).expect("a worker")
}

fn patient(stream: TcpStream) -> TcpStream {
    stream.set_nonblocking(false).expect("a stream that waits");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a reset at its end");
}

fn exchange_settings() -> exchange::Settings {
    exchange::Settings {
        head_timeout: PATIENCE,
        connect_timeout: PATIENCE,
        response_timeout: PATIENCE,
        body_timeout: PATIENCE,
        stream_timeout: None,
        tunnel_timeout: None,
        max_head_bytes: 4096,
        max_body_bytes: None,
        limits: Limits::default(),
        min_body_rate: 0,
        keep_alive: exchange::KeepAlive::Always,
        retry_limit: 3,
        on_client_abort: exchange::OnClientAbort::Close,
        via: None,
        node_via: None,
        request_id: false,
        request_start: false,
        forwarded: Policy { trusted: Vec::new(), mode: Mode::Append },
        debug_networks: Vec::new(),
        redirect: exchange::Redirect { for_all: false, port: 443 },
        health: health::Settings { dead_ttl: PATIENCE, dead_on_500: true, checker_until: Moment::ZERO },
    }
}

fn request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
}

/// A connection comes free and is promised to a client that leaves; at the end of the turn it is promised to the waiting
/// one, for the next turn. Also returns the client with the response, the connection, and the waiting client.
#[track_caller]
fn promised(test: &str) -> (Stage, TcpStream, TcpStream, TcpStream) {
    for _ in 0..20 {
        let mut stage = Stage::new(test, 1);
        let first = stage.client(&request("/first"));
        let mut connection = stage.accepted();
        let leaving = stage.client(&request("/leaving"));
        let waiting = stage.client(&request("/waiting"));
        stage.watch();
        stage.response_and_reset(&mut connection, leaving);
        stage.turn();
        // On a busy machine the kernel may report the reset first, or in another turn.
        if matches!(stage.worker.deferred[..], [Deferred::AssignConnection { .. }]) {
            return (stage, first, connection, waiting);
        }
    }
    panic!("a promise is to be kept in the next turn");
}

/// A returned connection is promised to an exchange of the queue, and then its backend closes it.
#[test]
fn a_connection_that_ends_after_its_assignment_is_replaced() {
    let (mut stage, mut first, connection, mut waiting) = promised("promised");
    drop(connection);

    let mut another = stage.accepted();
    another.write_all(OK).expect("a response");
    stage.expect_response(&mut first, "HTTP/1.1 200 ");
    stage.expect_response(&mut waiting, "HTTP/1.1 200 ");
    assert_eq!(stage.worker.upstreams.len(), 1);
}

/// The same, but the client that was promised the connection leaves as well.
#[test]
fn a_connection_that_ends_after_its_client_left_frees_its_place() {
    let (mut stage, mut first, connection, leaving_too) = promised("idle");
    drop(connection);
    reset(leaving_too);
    stage.expect_response(&mut first, "HTTP/1.1 200 ");
    stage.until("nothing is left", |stage| stage.worker.upstreams.is_empty().then_some(()));

    let mut next = stage.client(&request("/next"));
    stage.accepted().write_all(OK).expect("a response");
    stage.expect_response(&mut next, "HTTP/1.1 200 ");
}

/// A client sends a request and resets its connection before the worker has read it: the reset in the same event as the
/// request is noticed before the backend responds.
#[test]
fn a_reset_behind_a_request_is_noticed() {
    let mut stage = Stage::new("behind-it", 10);
    let upload = format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 400000\r\n\r\n{}", "x".repeat(400_000));
    for (number, last) in [request("/"), upload].into_iter().enumerate() {
        let mut client = stage.client(&request("/first"));
        let mut backend = stage.accepted();
        stage.watch();
        backend.write_all(OK).expect("a response");
        stage.expect_response(&mut client, "HTTP/1.1 200 ");
        stage.until("it is over", |stage| stage.worker.jobs.is_empty().then_some(()));
        client.set_nonblocking(false).expect("a client that waits");
        client.write_all(last.as_bytes()).expect("a request");
        reset(client);
        stage.until("it has left", |stage| stage.worker.clients.is_empty().then_some(()));
        assert!(stage.worker.jobs.is_empty());
        assert_eq!(stage.worker.counters.get(Counter::Requests), 2 * number as u64 + 2, "both requests were read");
        assert_eq!(stage.worker.counters.get_reason(FailureReason::ClientGone), number as u64 + 1);
        stage.until("idle connections are gone", |stage| {
            drop(backend.read(&mut [0; 65_536]));
            stage.worker.upstreams.is_empty().then_some(())
        });
    }
}

/// A message that did not fit is lost: its request is sent again.
#[test]
fn lost_messages_are_requested_again() {
    let mut stage = Stage::new("overflow", 1);
    // The response may come in the very turn that asks; then there is nothing to lose yet.
    for number in 0.. {
        let mut client = stage.client(&format!("GET / HTTP/1.1\r\nHost: h{number}\r\n\r\n"));
        if !stage.worker.lookups.is_empty() {
            let deadline = stage.clock.now() + PATIENCE;
            while stage.worker.route_events.receive().is_none() {
                assert!(stage.clock.now() < deadline, "no message arrived");
                std::thread::yield_now();
            }
            stage.worker.route_events.note_overflow();
            stage.expect_response(&mut client, "HTTP/1.1 400 ");
            assert_eq!(stage.worker.counters.get(Counter::MailboxOverflows), 1);
            assert!(stage.worker.lookups.is_empty());
            return;
        }
    }
}

/// The route of the host `a` to this backend alone.
fn route_to(url: &BackendUrl, backend: Arc<Backend>) -> Arc<Route> {
    let spec =
        ClusterSpec { created: 0, key: "a", id: "site", entries: vec![(url, backend)], options: &Options::none() };
    Arc::new(Route::new("a", Cluster::edit(None, spec, Moment::ZERO)))
}

/// A client that leaves while the name of a backend is being resolved leaves no state behind.
#[test]
fn a_client_that_left_a_dns_look_up_leaves_no_state() {
    let mut stage = Stage::new("naming", 1);
    let url = BackendUrl::parse("http://app.internal").expect("a good URL");
    // The directory resolves only names of backends that it has made.
    let backend = Arc::new(Backend::new(BackendId::new(u64::MAX), url.endpoint().clone()));
    stage.worker.routes.put_found(Arc::from("a"), route_to(&url, backend));
    let leaving = stage.client(&request("/leaving"));
    stage.until("it waits for the name", |stage| (!stage.worker.awaiting_dns.is_empty()).then_some(()));
    reset(leaving);
    stage.until("it has left", |stage| stage.worker.jobs.is_empty().then_some(()));
    assert!(stage.worker.awaiting_dns.is_empty());
}
