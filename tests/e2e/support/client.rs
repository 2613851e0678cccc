//! A raw client: it sends exactly the bytes it is told to and reads answers strictly, never for longer than
//! [`PATIENCE`].

use super::message::{Ended, Framing, Head, How, Inlet, Trailers};
use super::{PATIENCE, canned};
use socket2::{Domain, SockRef, Socket, Type};
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// What a client talks through: a plain socket, or something on top of one.
pub(crate) trait Transport: Read + Write + Send {
    /// The socket beneath.
    fn socket(&self) -> &TcpStream;

    /// Says that nothing more will be sent.
    fn finish_writing(&mut self);
}

impl Transport for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }

    fn finish_writing(&mut self) {
        self.shutdown(Shutdown::Write).expect("shutting down the client's side");
    }
}

/// A plain connection to `address`, from `source` if given.
pub(crate) fn connect(address: SocketAddr, source: Option<IpAddr>) -> TcpStream {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a client's socket");
    if let Some(ip) = source {
        socket.bind(&SocketAddr::new(ip, 0).into()).expect("binding the client's socket");
    }
    socket.connect(&address.into()).unwrap_or_else(|error| panic!("connecting to {address}: {error}"));
    socket.set_tcp_nodelay(true).expect("setting TCP_NODELAY");
    socket.into()
}

/// A plain connection to `address` that takes about `bytes` before somebody reads.
pub(crate) fn connect_with_window(address: SocketAddr, bytes: usize) -> TcpStream {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a client's socket");
    socket.set_recv_buffer_size(bytes).expect("setting SO_RCVBUF");
    socket.connect(&address.into()).unwrap_or_else(|error| panic!("connecting to {address}: {error}"));
    socket.set_tcp_nodelay(true).expect("setting TCP_NODELAY");
    socket.into()
}

/// One connection of a client.
pub(crate) struct Client {
    transport: Box<dyn Transport>,
    inlet: Inlet,
}

/// A complete answer.
#[derive(Debug)]
pub(crate) struct Response {
    /// Its head.
    pub(crate) head: Head,
    /// The heads of the 1xx answers before it.
    pub(crate) informational: Vec<Head>,
    /// The content.
    pub(crate) body: Vec<u8>,
    /// What came after the last chunk.
    pub(crate) trailers: Trailers,
    /// How the body ended.
    pub(crate) framing: Framing,
}

impl Response {
    /// The status.
    pub(crate) fn status(&self) -> u16 {
        self.head.status()
    }

    /// The content as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Fails unless this is 200 with this body.
    #[track_caller]
    pub(crate) fn expect_ok(&self, body: &str) {
        assert_eq!((self.status(), self.text().as_str()), (200, body), "in answer {}", self.head);
    }
}

impl Client {
    /// A client on this connection.
    pub(crate) fn over(transport: Box<dyn Transport>) -> Self {
        transport.socket().set_read_timeout(Some(PATIENCE)).expect("setting the read timeout");
        transport.socket().set_write_timeout(Some(PATIENCE)).expect("setting the write timeout");
        Self { transport, inlet: Inlet::default() }
    }

    /// Sends these bytes at once.
    #[track_caller]
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.transport.write_all(bytes.as_ref()).expect("sending to the proxy");
    }

    /// Sends these bytes at once, if the proxy takes them.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.transport.write_all(bytes.as_ref()).is_ok()
    }

    /// Sends these bytes in a segment each.
    #[track_caller]
    pub(crate) fn send_bytewise(&mut self, bytes: impl AsRef<[u8]>) {
        bytes.as_ref().iter().for_each(|byte| self.send([*byte]));
    }

    /// Sends a request and reads its answer.
    #[track_caller]
    pub(crate) fn exchange(&mut self, request: impl AsRef<[u8]>) -> Response {
        let request = request.as_ref();
        self.send(request);
        let method = request.split(|byte| *byte == b' ').next().unwrap_or_default();
        self.response_to(&String::from_utf8_lossy(method))
    }

    /// Sends a GET and reads its answer.
    #[track_caller]
    pub(crate) fn get(&mut self, host: &str, path: &str) -> Response {
        self.exchange(canned::get(host, path))
    }

    /// Reads the answer to a request of this method.
    #[track_caller]
    pub(crate) fn response_to(&mut self, method: &str) -> Response {
        match self.try_response_to(method) {
            Ok(response) => response,
            Err(ended) => panic!("no complete answer to {method}: {ended}"),
        }
    }

    /// Reads the answer to a request of this method, if a complete one comes.
    pub(crate) fn try_response_to(&mut self, method: &str) -> Result<Response, Ended> {
        let mut informational = Vec::new();
        let head = loop {
            let head = self.inlet.head(&mut self.transport)?;
            match head.status() {
                100 | 102..=199 => informational.push(head),
                _ => break head,
            }
        };
        let framing = head.response_framing(method);
        let mut body = Vec::new();
        let ended = self.inlet.body(&mut self.transport, framing, &mut |piece| body.extend_from_slice(piece));
        match ended {
            Ok(trailers) => Ok(Response { head, informational, body, trailers, framing }),
            Err(how) => Err(Ended { how, received: body }),
        }
    }

    /// Reads the next head, be it interim or not.
    #[track_caller]
    pub(crate) fn head(&mut self) -> Head {
        match self.inlet.head(&mut self.transport) {
            Ok(head) => head,
            Err(ended) => panic!("no complete head: {ended}"),
        }
    }

    /// Reads a body and gives its content to `sink`.
    #[track_caller]
    pub(crate) fn body(&mut self, framing: Framing, sink: &mut dyn FnMut(&[u8])) {
        self.inlet.body(&mut self.transport, framing, sink).unwrap_or_else(|how| panic!("an incomplete body: {how:?}"));
    }

    /// Reads exactly this many bytes.
    #[track_caller]
    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let ended = self.inlet.exactly(&mut self.transport, length as u64, &mut |piece| bytes.extend_from_slice(piece));
        if let Err(how) = ended {
            panic!("expected {length} bytes: {}", Ended { how, received: bytes });
        }
        bytes
    }

    /// Reads on to the end of the connection: what came, and how it ended.
    pub(crate) fn rest(&mut self) -> (Vec<u8>, How) {
        let mut bytes = Vec::new();
        let ended = self.inlet.exactly(&mut self.transport, u64::MAX, &mut |piece| bytes.extend_from_slice(piece));
        (bytes, ended.expect_err("nobody sends 2^64 bytes"))
    }

    /// Fails unless the proxy closes the connection without another byte.
    #[track_caller]
    pub(crate) fn expect_closed(&mut self) {
        let (bytes, how) = self.rest();
        assert_eq!((bytes.escape_ascii().to_string(), how), (String::new(), How::Closed), "expected the end");
    }

    /// Says that nothing more will be sent.
    pub(crate) fn finish_writing(&mut self) {
        self.transport.finish_writing();
    }

    /// The socket beneath.
    pub(crate) fn socket(&self) -> &TcpStream {
        self.transport.socket()
    }

    /// A second handle of a plain connection, for a thread that only writes.
    pub(crate) fn writer(&self) -> TcpStream {
        self.socket().try_clone().expect("a second handle of the client's socket")
    }

    /// Ends the connection with a reset.
    pub(crate) fn abort(self) {
        SockRef::from(self.socket()).set_linger(Some(Duration::ZERO)).expect("setting SO_LINGER");
    }
}
