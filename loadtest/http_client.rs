//! One keep-alive connection of a load generator: a request out, an answer in, and again.

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use sluice::base::clock::Moment;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// What reading from a connection came to.
pub(crate) enum Outcome {
    /// The answer is not complete, or none was awaited.
    Waiting,
    /// The answer is complete.
    Responded {
        /// Its status.
        status: u16,
        /// When its request should have been sent.
        intended: Moment,
        /// Whether the connection may not be used again.
        close: bool,
    },
    /// The other side closed the connection, which it may do between two requests.
    ClosedWhileIdle,
    /// The connection ended, or sent what is no answer, while one was awaited.
    Failed(String),
}

enum State {
    Idle,
    Head { intended: Moment, head: Vec<u8> },
    Body { intended: Moment, status: u16, close: bool, left: u64 },
}

/// A connection and the one request that it sends.
pub(crate) struct Connection {
    socket: TcpStream,
    request: Vec<u8>,
    state: State,
}

impl Connection {
    pub(crate) fn open(target: SocketAddr, request: &[u8], registry: &Registry, token: Token) -> io::Result<Self> {
        Ok(Self { socket: connect(target, registry, token)?, request: request.to_vec(), state: State::Idle })
    }

    /// Replaces the connection by a new one.
    pub(crate) fn reopen(&mut self, target: SocketAddr, registry: &Registry, token: Token) -> io::Result<()> {
        registry.deregister(&mut self.socket)?;
        self.socket = connect(target, registry, token)?;
        self.state = State::Idle;
        Ok(())
    }

    /// Sends the request. It is small: a socket without room for it is a failure.
    pub(crate) fn send(&mut self, intended: Moment) -> io::Result<()> {
        self.state = State::Head { intended, head: Vec::new() };
        let sent = self.socket.write(&self.request)?;
        if sent < self.request.len() {
            return Err(io::Error::new(ErrorKind::WriteZero, "the socket took half a request"));
        }
        Ok(())
    }

    /// Reads what is there.
    pub(crate) fn receive(&mut self, scratch: &mut [u8]) -> Outcome {
        loop {
            let length = match self.socket.read(scratch) {
                Ok(0) if matches!(self.state, State::Idle) => return Outcome::ClosedWhileIdle,
                Ok(0) => return Outcome::Failed("closed before the answer was complete".to_owned()),
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Outcome::Waiting,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) if matches!(self.state, State::Idle) => return Outcome::ClosedWhileIdle,
                Err(error) => return Outcome::Failed(error.to_string()),
            };
            match self.take(&scratch[..length]) {
                Ok(Outcome::Waiting) => {}
                Ok(outcome) => return outcome,
                Err(what) => return Outcome::Failed(what),
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<Outcome, String> {
        let state = std::mem::replace(&mut self.state, State::Idle);
        match state {
            State::Idle => Err("bytes came that nobody asked for".to_owned()),
            State::Body { intended, status, close, left } => self.take_body(intended, status, close, left, bytes),
            State::Head { intended, mut head } => {
                head.extend_from_slice(bytes);
                match parse_head(&head)? {
                    Some((length, status, close, left)) => {
                        let body = head.split_off(length);
                        self.take_body(intended, status, close, left, &body)
                    }
                    None => {
                        self.state = State::Head { intended, head };
                        Ok(Outcome::Waiting)
                    }
                }
            }
        }
    }

    fn take_body(
        &mut self,
        intended: Moment,
        status: u16,
        close: bool,
        left: u64,
        bytes: &[u8],
    ) -> Result<Outcome, String> {
        match left.checked_sub(bytes.len() as u64) {
            None => Err("more bytes came than the answer has".to_owned()),
            Some(0) => Ok(Outcome::Responded { status, intended, close }),
            Some(left) => {
                self.state = State::Body { intended, status, close, left };
                Ok(Outcome::Waiting)
            }
        }
    }
}

fn connect(target: SocketAddr, registry: &Registry, token: Token) -> io::Result<TcpStream> {
    let socket = std::net::TcpStream::connect_timeout(&target, CONNECT_TIMEOUT)?;
    socket.set_nodelay(true)?;
    socket.set_nonblocking(true)?;
    let mut socket = TcpStream::from_std(socket);
    registry.register(&mut socket, token, Interest::READABLE)?;
    Ok(socket)
}

/// Length of the head, status, whether the connection ends, and length of the body; `None` while it is incomplete.
fn parse_head(head: &[u8]) -> Result<Option<(usize, u16, bool, u64)>, String> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let status = response.parse(head).map_err(|error| format!("the answer is no HTTP: {error}"))?;
    let httparse::Status::Complete(length) = status else {
        return if head.len() > MAX_HEAD_BYTES { Err("the answer's head does not end".to_owned()) } else { Ok(None) };
    };
    let mut close = response.version == Some(0);
    let mut body_length = None;
    for header in response.headers.iter() {
        let value = str::from_utf8(header.value).unwrap_or("").trim();
        if header.name.eq_ignore_ascii_case("content-length") {
            body_length = value.parse().ok();
        } else if header.name.eq_ignore_ascii_case("connection") {
            close |= value.eq_ignore_ascii_case("close");
        }
    }
    let body_length = body_length.ok_or("the answer has no Content-Length; this client knows nothing else")?;
    Ok(Some((length, response.code.unwrap_or(0), close, body_length)))
}
