//! A backend that shows the request it received, and echoes WebSocket messages.

use crate::wire::body::{BodyLength, BodyReader};
use crate::wire::limits::Limits;
use crate::wire::request::{RequestHead, fields};
use std::fmt::Write as _;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::Role;
use tungstenite::{Message, WebSocket};

/// The proxy in front refuses a head above 64 KiB, and adds little.
const LARGEST_HEAD: usize = 128 * 1024;

/// The number of body bytes that are shown.
const SHOWN_BYTES: usize = 200;

/// The pause of accepting after a failure to get a connection or a thread.
const PAUSE: Duration = Duration::from_millis(100);

/// Starts a backend on a free port, which is returned. It serves as long as the process lives.
pub(super) fn start(name: &'static str) -> io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    thread::Builder::new().name(format!("backend-{name}")).spawn(move || accept(&listener, name))?;
    Ok(port)
}

fn accept(listener: &TcpListener, name: &'static str) {
    loop {
        let serve = |(stream, _)| thread::Builder::new().spawn(move || Connection::new(stream, name).serve());
        if listener.accept().and_then(serve).is_err() {
            thread::park_timeout(PAUSE);
        }
    }
}

/// A connection, and received bytes that no request has consumed.
struct Connection {
    name: &'static str,
    stream: TcpStream,
    unread: Vec<u8>,
}

/// A request whose head is complete.
struct Request {
    head: String,
    body: BodyLength,
    is_head: bool,
    keep_alive: bool,
    expects_continue: bool,
    /// The key of a WebSocket handshake.
    key: Option<String>,
}

/// The received part of a body.
#[derive(Default)]
struct Body {
    len: usize,
    start: Vec<u8>,
}

impl Connection {
    fn new(stream: TcpStream, name: &'static str) -> Self {
        Self { name, stream, unread: Vec::new() }
    }

    /// Responds until one side ends. The proxy notices and reports each failure here.
    fn serve(mut self) {
        while let Ok(Some(request)) = self.read_head() {
            if let Some(key) = &request.key {
                return drop(self.echo(key));
            }
            if self.response(&request).is_err() || !request.keep_alive {
                return;
            }
        }
    }

    /// `None` at the end of the connection.
    fn read_head(&mut self) -> io::Result<Option<Request>> {
        loop {
            if let Some((request, len)) = Request::parse(&self.unread)? {
                self.unread.drain(..len);
                return Ok(Some(request));
            }
            if self.unread.len() > LARGEST_HEAD {
                return Err(ErrorKind::InvalidData.into());
            }
            if self.read_more()? == 0 {
                return Ok(None);
            }
        }
    }

    fn response(&mut self, request: &Request) -> io::Result<()> {
        if request.expects_continue {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let body = self.read_body(request.body)?;
        let mut text = format!("Hello from backend {}. This is what I was sent:\n\n", self.name);
        for line in request.head.lines() {
            writeln!(text, "    {line}").map_err(io::Error::other)?;
        }
        if body.len > 0 {
            let shown = String::from_utf8_lossy(&body.start);
            let dots = if body.len > body.start.len() { "..." } else { "" };
            write!(text, "\nand a body of {} bytes: {shown}{dots}\n", body.len).map_err(io::Error::other)?;
        }
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nX-Backend: {}\r\n\r\n",
            text.len(),
            self.name
        );
        let content = if request.is_head { "" } else { &text };
        self.stream.write_all([head.as_bytes(), content.as_bytes()].concat().as_slice())
    }

    fn read_body(&mut self, length: BodyLength) -> io::Result<Body> {
        let mut reader = BodyReader::new(length, &Limits::default());
        let mut body = Body::default();
        while !reader.is_done() {
            let piece = reader.read(&self.unread).map_err(|_| ErrorKind::InvalidData)?;
            let data = &self.unread[piece.data];
            body.len += data.len();
            body.start.extend(data.iter().take(SHOWN_BYTES - body.start.len()));
            self.unread.drain(..piece.consumed);
            if piece.consumed == 0 && self.read_more()? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(body)
    }

    fn read_more(&mut self) -> io::Result<usize> {
        let mut room = [0; 16 * 1024];
        let count = self.stream.read(&mut room)?;
        self.unread.extend_from_slice(&room[..count]);
        Ok(count)
    }

    /// Completes the handshake, and echoes every message until the WebSocket is closed.
    fn echo(mut self, key: &str) -> tungstenite::Result<()> {
        let accept = derive_accept_key(key.as_bytes());
        let fields = format!("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n");
        self.stream.write_all(format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n").as_bytes())?;
        let mut socket = WebSocket::from_partially_read(self.stream, self.unread, Role::Server, None);
        socket.send(Message::text(format!("Hello from backend {}. I echo your messages.", self.name)))?;
        loop {
            let message = socket.read()?;
            if message.is_text() || message.is_binary() {
                socket.send(message)?;
            }
        }
    }
}

impl Request {
    /// The request at the start of `bytes`, and the length of its head; `None` while that is not complete.
    fn parse(bytes: &[u8]) -> io::Result<Option<(Self, usize)>> {
        let mut room = fields();
        let head = RequestHead::parse(bytes, &mut room).map_err(|reason| io::Error::other(reason.sentence()))?;
        Ok(head.map(|head| {
            let text = String::from_utf8_lossy(&bytes[..head.len]).trim_end().to_owned();
            let request = Self {
                key: head.wants_upgrade.then(|| value(&text, "Sec-WebSocket-Key").map(str::to_owned)).flatten(),
                head: text,
                body: head.body,
                is_head: head.method == "HEAD",
                keep_alive: head.keep_alive,
                expects_continue: head.expects_continue,
            };
            (request, head.len)
        }))
    }
}

fn value<'t>(head: &'t str, name: &str) -> Option<&'t str> {
    let mut lines = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}
