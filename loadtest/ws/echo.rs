//! The backend: sends every message back.

use super::frame::{self, CLOSE, PING, PONG};
use super::socket::Buffered;
use super::{ACCEPT, KEY};
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Registry, Token};
use slab::Slab;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;

const LISTENER: Token = Token(usize::MAX);
const MAX_CONNECTIONS: usize = 20_000;
const SCRATCH_BYTES: usize = 256 * 1024;

struct Peer {
    connection: Buffered,
    upgraded: bool,
}

/// Serves for ever.
pub(crate) fn run(listen: SocketAddr) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(listen)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut peers: Slab<Peer> = Slab::new();
    let mut events = Events::with_capacity(1024);
    let mut scratch = vec![0; SCRATCH_BYTES];
    let mut gone = Vec::new();
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            outcome => outcome?,
        }
        for event in &events {
            if event.token() == LISTENER {
                accept_all(&listener, poll.registry(), &mut peers)?;
            } else if let Some(peer) = peers.get_mut(event.token().0)
                && peer.serve(&mut scratch).is_err()
            {
                gone.push(event.token().0);
            }
        }
        for index in gone.drain(..) {
            peers.try_remove(index);
        }
    }
}

fn accept_all(listener: &TcpListener, registry: &Registry, peers: &mut Slab<Peer>) -> io::Result<()> {
    loop {
        let mut socket = match listener.accept() {
            Ok((socket, _)) => socket,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
            Err(error) => return Err(error),
        };
        if peers.len() < MAX_CONNECTIONS {
            socket.set_nodelay(true)?;
            let slot = peers.vacant_entry();
            registry.register(&mut socket, Token(slot.key()), Interest::READABLE | Interest::WRITABLE)?;
            slot.insert(Peer { connection: Buffered::new(socket), upgraded: false });
        }
    }
}

impl Peer {
    fn serve(&mut self, scratch: &mut [u8]) -> io::Result<()> {
        self.connection.flush()?;
        // The end of the input ends the connection, but only after what came before it has been answered.
        let filled = self.connection.fill(scratch);
        if !self.upgraded {
            match self.connection.take_head()? {
                Some(head) => self.upgrade(&head)?,
                None => return filled,
            }
        }
        self.echo()?;
        filled
    }

    fn upgrade(&mut self, head: &[u8]) -> io::Result<()> {
        let head = String::from_utf8_lossy(head);
        let has = |name: &str, value: &str| {
            head.lines()
                .filter_map(|line| line.split_once(':'))
                .any(|(found, text)| found.eq_ignore_ascii_case(name) && text.trim().eq_ignore_ascii_case(value))
        };
        if !has("upgrade", "websocket") || !has("connection", "upgrade") || !has("sec-websocket-key", KEY) {
            self.connection.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
            return Err(io::Error::new(ErrorKind::InvalidData, "reading a handshake: it is not one"));
        }
        self.upgraded = true;
        let response = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
        );
        self.connection.send(response.as_bytes())
    }

    /// Answers every whole frame of the input.
    fn echo(&mut self) -> io::Result<()> {
        let mut reply = Vec::new();
        let mut done = 0;
        loop {
            let input = &mut self.connection.input[done..];
            let parsed = frame::parse(input).map_err(|what| io::Error::new(ErrorKind::InvalidData, what))?;
            let Some(frame) = parsed else { break };
            let payload = &mut input[frame.payload.clone()];
            let mask = frame.mask.ok_or(io::Error::new(ErrorKind::InvalidData, "a client's frame without a mask"))?;
            frame::apply_mask(payload, mask);
            match frame.opcode {
                CLOSE => {
                    frame::append(&mut reply, CLOSE, None, payload);
                    self.connection.send(&reply)?;
                    return Err(ErrorKind::ConnectionReset.into());
                }
                PING => frame::append(&mut reply, PONG, None, payload),
                PONG => {}
                opcode => frame::append(&mut reply, opcode, None, payload),
            }
            done += frame.payload.end;
        }
        self.connection.input.drain(..done);
        self.connection.send(&reply)
    }
}
