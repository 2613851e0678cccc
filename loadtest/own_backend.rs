//! A backend inside a load generator, in its thread and on its poll.
//!
//! Where generator and backend share a core, each waits for the scheduler to have the other run: for milliseconds, now and
//! then, and no proxy can do anything about it. Of one thread there is nothing to wait for.

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use slab::Slab;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;

/// Its tokens begin here: those of the generator's own connections are below.
pub(crate) const FIRST_TOKEN: usize = 1 << 32;
const HEAD_END: &[u8] = b"\r\n\r\n";
const BODY_BYTES: usize = 140;

/// Answers every request with 140 bytes. Requests have no bodies.
pub(crate) struct OwnBackend {
    listener: TcpListener,
    connections: Slab<Connection>,
    response: Vec<u8>,
}

struct Connection {
    socket: TcpStream,
    /// The beginning of a head whose end has yet to come.
    head: Vec<u8>,
}

impl OwnBackend {
    pub(crate) fn open(address: SocketAddr, registry: &Registry) -> io::Result<Self> {
        let mut listener = TcpListener::bind(address)?;
        registry.register(&mut listener, Token(FIRST_TOKEN), Interest::READABLE)?;
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {BODY_BYTES}\r\n\r\n");
        let response = [head.as_bytes(), &[b'x'; BODY_BYTES]].concat();
        Ok(Self { listener, connections: Slab::new(), response })
    }

    /// Does what the poll has told of one of its tokens.
    pub(crate) fn ready(&mut self, token: Token, registry: &Registry, scratch: &mut [u8]) -> io::Result<()> {
        match token.0.checked_sub(FIRST_TOKEN + 1) {
            None => self.accept(registry),
            Some(key) => {
                // A proxy may close whenever it likes; what it lacks it will say.
                let is_over =
                    self.connections.get_mut(key).is_some_and(|it| it.serve(&self.response, scratch).is_err());
                if is_over {
                    self.connections.remove(key);
                }
                Ok(())
            }
        }
    }

    fn accept(&mut self, registry: &Registry) -> io::Result<()> {
        loop {
            let mut socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // Of one that has left again the proxy will say so.
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => continue,
                Err(error) => return Err(error),
            };
            socket.set_nodelay(true)?;
            let entry = self.connections.vacant_entry();
            registry.register(&mut socket, Token(FIRST_TOKEN + 1 + entry.key()), Interest::READABLE)?;
            entry.insert(Connection { socket, head: Vec::new() });
        }
    }
}

impl Connection {
    /// Answers what has come. An error is the end of the connection.
    fn serve(&mut self, response: &[u8], scratch: &mut [u8]) -> io::Result<()> {
        loop {
            let count = match self.socket.read(scratch) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.head.extend_from_slice(&scratch[..count]);
            while let Some(at) = self.head.windows(HEAD_END.len()).position(|bytes| bytes == HEAD_END) {
                self.head.drain(..at + HEAD_END.len());
                // It is small: a socket without room for it has a proxy that does not read.
                if self.socket.write(response)? < response.len() {
                    return Err(ErrorKind::WriteZero.into());
                }
            }
            // A read that has not filled the room has emptied the socket.
            if count < scratch.len() {
                return Ok(());
            }
        }
    }
}
