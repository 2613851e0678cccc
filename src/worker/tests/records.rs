//! TLS records buffered for a slow peer.

use super::migration::{SWITCH, UPGRADE};
use super::*;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};

const BODY_BYTES: usize = 16 << 20;

/// A client whose bytes the backend does not read, so that records are buffered.
struct Flood {
    stage: Stage,
    client: TcpStream,
    sent: usize,
    kept: usize,
    /// A message lets the backend read on; dropping the sender makes it leave.
    go: Sender<()>,
    backend: JoinHandle<()>,
}

impl Flood {
    /// `reply` is the backend's response to the head of the request.
    #[track_caller]
    fn new(test: &str, request: &str, reply: &'static [u8]) -> Self {
        let mut stage = Stage::with_backend("https", test, 10);
        let client = stage.client(request);
        let (connection, _) = stage.until("a dial", |stage| stage.backend.accept().ok());
        SockRef::from(&connection).set_recv_buffer_size(65_536).expect("a small buffer");
        let (go, backend) = slow_backend(patient(connection), reply);
        client.set_nonblocking(true).expect("a client that can be asked");
        Self { stage, client, sent: 0, kept: 0, go, backend }
    }

    #[track_caller]
    fn rise(&mut self) {
        let (client, sent) = (&mut self.client, &mut self.sent);
        self.kept = self.stage.until("records are kept", |stage| {
            send(client, sent);
            let upstream = stage.worker.upstreams.values().next()?;
            Some(upstream.stream.transport.kept().grown).filter(|kept| *kept > 0)
        });
        self.expect_counted();
    }

    /// All buffers in use are counted, plaintext and records.
    #[track_caller]
    fn expect_counted(&self) {
        let worker = &self.stage.worker;
        let clients = worker.clients.values().map(|client| client.stream.lent());
        let upstreams = worker.upstreams.values().map(|upstream| upstream.stream.lent());
        let jobs = worker.jobs.values().map(|job| job.exchange.buffer_usage());
        let lent: usize = clients.chain(upstreams).chain(jobs).map(|lent| lent.grown).sum();
        assert_eq!(worker.core.buffers.grown(), lent);
        assert!(lent > self.kept, "{lent} bytes, {} of them records", self.kept);
    }

    /// The backend reads everything and confirms it.
    #[track_caller]
    fn fall(mut self) {
        self.go.send(()).expect("a backend that waits");
        let (client, sent) = (&mut self.client, &mut self.sent);
        self.stage.until("all is sent", |_| {
            send(client, sent);
            (*sent == BODY_BYTES).then_some(())
        });
        self.stage.expect_response(client, "HTTP/1.1 200 ");
        self.end();
    }

    /// Nothing is buffered any more.
    #[track_caller]
    fn end(self) {
        let Self { mut stage, backend, .. } = self;
        stage.until("nothing is kept", |stage| (stage.worker.core.buffers.lent() == 0).then_some(()));
        assert_eq!(stage.worker.core.buffers.grown(), 0);
        backend.join().expect("a backend that ends well");
    }
}

fn send(client: &mut TcpStream, sent: &mut usize) {
    static BODY: [u8; 1 << 20] = [b'x'; 1 << 20];
    *sent += client.write(&BODY[..BODY.len().min(BODY_BYTES - *sent)]).unwrap_or(0);
}

/// A backend that completes the TLS handshake, reads a request's head and replies, reads on when it may, and responds
/// at the end.
fn slow_backend(mut socket: TcpStream, reply: &'static [u8]) -> (Sender<()>, JoinHandle<()>) {
    let pair = rcgen::generate_simple_self_signed(["a".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::try_from(pair.signing_key.serialize_der()).expect("a key");
    let config = ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![pair.cert.der().clone()], key).expect("a pair");
    let (go, may_read) = channel();
    let backend = thread::spawn(move || {
        let mut session = ServerConnection::new(Arc::new(config)).expect("a session");
        session.complete_io(&mut socket).expect("a TLS handshake");
        let mut stream = StreamOwned::new(session, socket);
        let mut room = vec![0; 65_536];
        let mut got = stream.read(&mut room).expect("a head");
        let head = room.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a whole head") + 4;
        stream.write_all(reply).expect("a reply");
        // No message comes where the client leaves.
        if may_read.recv().is_ok() {
            while got < head + BODY_BYTES {
                got += stream.read(&mut room).expect("the body");
            }
            stream.write_all(OK).expect("a response");
        }
    });
    (go, backend)
}

fn upload() -> String {
    format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {BODY_BYTES}\r\n\r\n")
}

/// Plaintext and the TLS records made of it are buffered; both count until they are sent.
#[test]
fn records_for_a_slow_peer_count_among_the_buffers() {
    let mut flood = Flood::new("records", &upload(), b"");
    flood.rise();
    let worker = &flood.stage.worker;
    let (buffered_bytes, job) =
        (worker.buffered_bytes(worker.jobs.keys().next().expect("a job")), worker.jobs.values().next());
    let plain = job.map_or(0, |job| job.exchange.buffered_bytes());
    // Their time counts too, from the first millisecond on.
    assert!(
        buffered_bytes.is_some_and(|buffered_bytes| buffered_bytes >= (plain + flood.kept) as u128),
        "{buffered_bytes:?} of {plain}"
    );
    flood.fall();
}

#[test]
fn records_for_a_peer_that_leaves_are_dropped() {
    let mut flood = Flood::new("dropped", &upload(), b"");
    flood.rise();
    reset(std::mem::replace(&mut flood.client, TcpStream::connect(flood.stage.address).expect("a connection")));
    flood.go = channel().0;
    flood.end();
}

#[test]
fn records_move_to_another_worker_with_their_tunnel() {
    let mut flood = Flood::new("moved", UPGRADE, SWITCH);
    flood.stage.expect_response(&mut flood.client, "HTTP/1.1 101 ");
    flood.rise();
    flood.stage.replace(None);
    flood.stage.until_left();
    flood.expect_counted();
    flood.fall();
}
