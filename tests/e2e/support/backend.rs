//! A backend that does what a script says, and remembers what it was sent.

use super::message::{Head, How, Inlet};
use super::{Gate, PATIENCE, canned, holds_within, until, unused_address};
use socket2::SockRef;
use std::collections::HashMap;
use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// The number of its connection, from 0.
    pub(crate) connection: usize,
    /// The number of the request on this connection, from 0.
    pub(crate) turn: usize,
    /// The head.
    pub(crate) head: Head,
    /// The content of the body.
    pub(crate) body: Vec<u8>,
    /// What came after the last chunk.
    pub(crate) trailers: Vec<(String, String)>,
    /// All bytes of it.
    pub(crate) wire: Vec<u8>,
}

/// A backend on a port of its own, a thread a connection.
pub(crate) struct Backend {
    address: SocketAddr,
    shared: Arc<Shared>,
    running: Option<Running>,
}

struct Running {
    listener: TcpListener,
    acceptor: JoinHandle<()>,
}

struct Shared {
    script: Box<dyn Fn(&mut Conn) + Send + Sync>,
    up: AtomicBool,
    connections: AtomicUsize,
    heads: AtomicUsize,
    requests: Mutex<Vec<Request>>,
    open: Mutex<HashMap<usize, TcpStream>>,
}

impl Shared {
    fn open(&self) -> MutexGuard<'_, HashMap<usize, TcpStream>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn requests(&self) -> MutexGuard<'_, Vec<Request>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend {
    /// A backend that reads whole requests and runs the script for each.
    pub(crate) fn serve(script: impl Fn(&Request, &mut Conn) + Send + Sync + 'static) -> Self {
        Self::raw(move |conn| {
            while let Some(request) = conn.request() {
                script(&request, conn);
                if conn.finished {
                    break;
                }
            }
        })
    }

    /// A backend whose response is the path, for `/held` only once the gate is open.
    pub(crate) fn holding(gate: &Arc<Gate>) -> Self {
        let gate = Arc::clone(gate);
        Self::serve(move |request, conn| {
            if request.head.target() == "/held" {
                gate.pass();
            }
            conn.send(canned::ok(request.head.target()));
        })
    }

    /// A backend that gives the same answer to every request and keeps its connections.
    pub(crate) fn always(response: impl Into<Vec<u8>>) -> Self {
        let response = response.into();
        Self::serve(move |_, conn| conn.send(&response))
    }

    /// A backend that gives the same answer to every request and closes the connection after it.
    pub(crate) fn closing(response: impl Into<Vec<u8>>) -> Self {
        let response = response.into();
        Self::serve(move |_, conn| {
            conn.send(&response);
            conn.finish();
        })
    }

    /// A backend that runs the script for each connection.
    pub(crate) fn raw(script: impl Fn(&mut Conn) + Send + Sync + 'static) -> Self {
        Self::raw_at(unused_address(), script)
    }

    /// The same at a given address; port 0 for any.
    pub(crate) fn raw_at(address: SocketAddr, script: impl Fn(&mut Conn) + Send + Sync + 'static) -> Self {
        let shared = Shared {
            script: Box::new(script),
            up: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            heads: AtomicUsize::new(0),
            requests: Mutex::default(),
            open: Mutex::default(),
        };
        let mut backend = Self { address, shared: Arc::new(shared), running: None };
        backend.start();
        backend
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL for a route.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many connections it has accepted.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// How many connections are open now.
    pub(crate) fn open_connections(&self) -> usize {
        self.shared.open().len()
    }

    /// How many heads of requests it has read.
    pub(crate) fn heads(&self) -> usize {
        self.shared.heads.load(Ordering::SeqCst)
    }

    /// All complete requests it has read.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.shared.requests().clone()
    }

    /// The one request it has read; there must be no other.
    #[track_caller]
    pub(crate) fn only_request(&self) -> Request {
        let mut requests = self.requests();
        assert_eq!(requests.len(), 1, "requests at the backend: {requests:#?}");
        requests.remove(0)
    }

    /// Waits until this many heads have come since the start.
    #[track_caller]
    pub(crate) fn until_heads(&self, count: usize) {
        until(&format!("{count} requests at the backend"), || self.heads() >= count);
    }

    /// Begins to listen, on the port it had before.
    pub(crate) fn start(&mut self) {
        assert!(self.running.is_none(), "the backend listens already");
        // Another program on this machine may hold the port of all addresses for a moment.
        let mut bound = TcpListener::bind(self.address);
        holds_within(PATIENCE, || {
            if bound.is_err() {
                bound = TcpListener::bind(self.address);
            }
            bound.is_ok()
        });
        let listener = bound.expect("binding a backend's port");
        self.address = listener.local_addr().expect("the address of a listener");
        let accepting = listener.try_clone().expect("a second handle of the listener");
        self.shared.up.store(true, Ordering::SeqCst);
        let shared = Arc::clone(&self.shared);
        let acceptor = thread::spawn(move || accept_all(&accepting, &shared));
        self.running = Some(Running { listener, acceptor });
    }

    /// Dies as a process does: the port is closed, and so is every connection, whatever it was at.
    pub(crate) fn kill(&mut self) {
        let Some(Running { listener, acceptor }) = self.running.take() else { return };
        self.shared.up.store(false, Ordering::SeqCst);
        // On Linux this wakes the thread that waits in accept.
        SockRef::from(&listener).shutdown(Shutdown::Both).expect("shutting a listener down");
        acceptor.join().expect("the accepting thread");
        self.close_connections();
    }

    /// Closes every connection, but stays up.
    pub(crate) fn close_connections(&self) {
        for (_, stream) in self.shared.open().drain() {
            // The proxy may have closed it already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.kill();
    }
}

fn accept_all(listener: &TcpListener, shared: &Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept() {
        if !shared.up.load(Ordering::SeqCst) {
            return;
        }
        let number = shared.connections.fetch_add(1, Ordering::SeqCst);
        let Ok(handle) = stream.try_clone() else { continue };
        shared.open().insert(number, handle);
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            let mut conn = Conn::new(stream, number, Arc::clone(&shared));
            (shared.script)(&mut conn);
            drop(conn);
            shared.open().remove(&number);
        });
    }
}

/// One connection of a backend, as a script sees it.
pub(crate) struct Conn {
    stream: TcpStream,
    inlet: Inlet,
    number: usize,
    turn: usize,
    finished: bool,
    shared: Arc<Shared>,
}

impl Conn {
    fn new(stream: TcpStream, number: usize, shared: Arc<Shared>) -> Self {
        stream.set_nodelay(true).expect("setting TCP_NODELAY");
        // A pooled connection may be idle for as long as the test lasts; it must only not outlive it by much.
        stream.set_read_timeout(Some(2 * PATIENCE)).expect("setting the read timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("setting the write timeout");
        Self { stream, inlet: Inlet::default(), number, turn: 0, finished: false, shared }
    }

    /// Reads a head; `None` when the connection is over.
    pub(crate) fn head(&mut self) -> Option<Head> {
        let head = self.inlet.head(&mut self.stream).ok()?;
        self.shared.heads.fetch_add(1, Ordering::SeqCst);
        Some(head)
    }

    /// Reads the body that belongs to this head; says how it ended if that was too early.
    pub(crate) fn body(&mut self, head: &Head, sink: &mut dyn FnMut(&[u8])) -> Result<(), How> {
        self.inlet.body(&mut self.stream, head.request_framing(), sink).map(|_| ())
    }

    /// Reads a whole request and remembers it; `None` when the connection is over.
    pub(crate) fn request(&mut self) -> Option<Request> {
        self.inlet.start_tape();
        let head = self.head()?;
        let mut body = Vec::new();
        let framing = head.request_framing();
        let trailers = self.inlet.body(&mut self.stream, framing, &mut |piece| body.extend_from_slice(piece)).ok()?;
        let request =
            Request { connection: self.number, turn: self.turn, head, body, trailers, wire: self.inlet.end_tape() };
        self.turn += 1;
        self.shared.requests().push(request.clone());
        Some(request)
    }

    /// Reads whatever comes until this many bytes are there; fewer if the connection ends.
    pub(crate) fn bytes(&mut self, length: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _ = self.inlet.exactly(&mut self.stream, length, &mut |piece| bytes.extend_from_slice(piece));
        bytes
    }

    /// Sends these bytes. That the proxy is gone is no fault of the backend's: then the test shows what is missing.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.try_send(bytes.as_ref());
    }

    /// Sends these bytes, if the proxy takes them.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends these bytes in a segment each.
    pub(crate) fn send_bytewise(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.send([*byte]));
    }

    /// Closes the connection when the script returns.
    pub(crate) fn finish(&mut self) {
        self.finished = true;
    }

    /// Resets the connection when the script returns.
    pub(crate) fn reset(&mut self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).expect("setting SO_LINGER");
        self.shared.open().remove(&self.number);
        self.finished = true;
    }

    /// The socket beneath. What was read with a head is not in it any more.
    pub(crate) fn socket(&mut self) -> &mut TcpStream {
        &mut self.stream
    }
}
