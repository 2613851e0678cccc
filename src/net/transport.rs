//! A connection's bytes: one read and one write, whatever lies under them.

use super::socket::Socket;
use super::tls::{self, Session, TlsClientTarget, TlsScratch, agreed};
use crate::base::buffer::BufferUsage;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Registry, Token};
use rustls::ServerConfig;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::Arc;

pub use super::socket::{Received, SocketOptions, usable_receive_buffer};

/// A non-blocking connection, encrypted or not.
#[derive(Debug)]
pub struct Transport {
    socket: Socket,
    layer: Layer,
}

/// The layer between the socket and its users.
#[derive(Debug)]
enum Layer {
    Plain,
    Tls(Box<Session>),
}

impl Transport {
    /// A connection that was accepted.
    pub fn accepted(stream: TcpStream) -> Self {
        Self { socket: Socket::new(stream), layer: Layer::Plain }
    }

    /// An encrypted one that was accepted: its client has yet to say hello.
    pub fn accepted_tls(stream: TcpStream) -> Self {
        Self { socket: Socket::new(stream), layer: Layer::Tls(Box::new(Session::for_client())) }
    }

    /// Begins to connect, and the TLS handshake if `tls` is set. The poll reports when [`Transport::connected`] is to
    /// be called.
    pub fn connect(address: SocketAddr, options: SocketOptions, tls: Option<&TlsClientTarget>) -> io::Result<Self> {
        let layer = match tls {
            Some(tls) => Layer::Tls(Box::new(Session::for_backend(tls)?)),
            None => Layer::Plain,
        };
        Ok(Self { socket: Socket::connect(address, options)?, layer })
    }

    /// Whether the new connection is established, including its TLS handshake; `None` while that is open. `preface` is
    /// sent before everything else, in clear.
    pub fn connected(&mut self, preface: &[u8], tls_scratch: &mut TlsScratch) -> Option<io::Result<()>> {
        match &mut self.layer {
            Layer::Tls(session) if session.has_begun() => session.shake_hands(&mut self.socket, tls_scratch),
            Layer::Plain => self.socket.connected(preface),
            Layer::Tls(session) => match self.socket.connected(preface) {
                Some(Ok(())) => session.shake_hands(&mut self.socket, tls_scratch),
                other => other,
            },
        }
    }

    /// Whether the new connection is established, with or without its TLS handshake.
    pub fn is_there(&self) -> bool {
        match &self.layer {
            Layer::Tls(session) if session.has_begun() => true,
            _ => self.socket.is_there(),
        }
    }

    /// Whether a connection that was begun has failed.
    pub fn has_failed(&self) -> bool {
        self.socket.has_failed()
    }

    /// Whether it is encrypted.
    pub fn is_encrypted(&self) -> bool {
        matches!(self.layer, Layer::Tls(_))
    }

    /// The version of TLS and the cipher suite, where it is encrypted and the handshake is over.
    pub fn agreed_tls(&self) -> Option<(&'static str, &'static str)> {
        match &self.layer {
            Layer::Plain => None,
            Layer::Tls(session) => agreed(session),
        }
    }

    /// The connection alone, where nothing lies above it.
    pub fn into_plain(self) -> Option<std::net::TcpStream> {
        match self.layer {
            Layer::Plain => Some(self.socket.into_stream().into()),
            Layer::Tls(_) => None,
        }
    }

    /// Has the poll no longer watch this connection, so that another one can.
    pub fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.socket.deregister(registry)
    }

    /// Has the poll watch this connection.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.socket.register(registry, token)
    }

    /// Notes what the poll told.
    pub fn note(&mut self, event: &Event) {
        self.socket.note(event);
        if let Layer::Tls(session) = &mut self.layer
            && event.is_writable()
        {
            session.writable(&mut self.socket);
        }
    }

    /// Says that a read may tell something new.
    pub fn expect_bytes(&mut self) {
        self.socket.expect_bytes();
    }

    /// Whether there may be something to read.
    pub fn is_readable(&self) -> bool {
        match &self.layer {
            Layer::Plain => self.socket.is_readable(),
            Layer::Tls(session) => session.is_readable(&self.socket),
        }
    }

    /// Whether the poll has told that the connection is broken. What came before can still be read.
    pub fn is_broken(&self) -> bool {
        self.socket.is_broken()
    }

    /// Whether the poll has told that the peer has ended its side. What came before can still be read.
    pub fn has_hung_up(&self) -> bool {
        self.socket.has_hung_up()
    }

    /// Whether the peer's system has sent nothing that was not read, not even the end. This asks the socket.
    pub fn is_silent(&self) -> bool {
        !self.is_readable() && self.socket.is_silent()
    }

    /// Whether the TLS handshake is still in progress.
    pub fn is_handshaking(&self) -> bool {
        match &self.layer {
            Layer::Plain => false,
            Layer::Tls(session) => session.is_handshaking(),
        }
    }

    /// Looks at the first bytes beneath any encryption, and leaves them there.
    pub fn peek(&mut self, room: &mut [u8]) -> Received {
        self.socket.peek(room)
    }

    /// Takes what was seen by [`Transport::peek`] out of the way: as many bytes as `room` has.
    pub fn skip(&mut self, room: &mut [u8]) -> bool {
        let mut taken = 0;
        while let Some(rest) = room.get_mut(taken..).filter(|rest| !rest.is_empty()) {
            match self.socket.receive(rest) {
                Received::Bytes(count) => taken += count,
                _ => return false,
            }
        }
        self.socket.expect_bytes();
        true
    }

    /// The addresses of the peer and of this end.
    pub fn ends(&self) -> io::Result<(SocketAddr, SocketAddr)> {
        self.socket.ends()
    }

    /// Reads once.
    pub fn receive(&mut self, room: &mut [u8], tls_scratch: &mut TlsScratch) -> Received {
        match &mut self.layer {
            Layer::Plain => self.socket.receive(room),
            Layer::Tls(session) => {
                let received = session.receive(&mut self.socket, room, tls_scratch);
                if matches!(received, Received::Plain(_)) {
                    self.layer = Layer::Plain;
                }
                received
            }
        }
    }

    /// Writes once; less than all means that the socket is full, and the poll will tell when it is not. Then the bytes
    /// that are left must be the first of the next call: they may be encrypted already.
    pub fn send(&mut self, slices: &[IoSlice<'_>], tls_scratch: &mut TlsScratch) -> io::Result<usize> {
        match &mut self.layer {
            Layer::Plain => self.socket.send(slices),
            Layer::Tls(session) => session.send(&mut self.socket, slices, tls_scratch),
        }
    }

    /// Says that the stream is ended, or the connection closed, as soon as what is sent next has left.
    pub fn announce_end(&mut self) {
        self.socket.announce_end();
    }

    /// The server name in the client's hello, in lower case; `None` if there was none.
    pub fn wanted_name(&self) -> Option<&str> {
        match &self.layer {
            Layer::Plain => None,
            Layer::Tls(session) => session.wanted_name(),
        }
    }

    /// Goes on with a client that has said hello.
    pub fn accept(&mut self, config: Arc<ServerConfig>) {
        if let Layer::Tls(session) = &mut self.layer {
            session.accept(config);
        }
    }

    /// Refuses a client's hello: there is no certificate for its name.
    pub fn refuse(&mut self) {
        if let Layer::Tls(session) = &mut self.layer {
            session.refuse(&mut self.socket);
        }
    }

    /// The subject of the client's certificate, once the handshake is complete.
    pub fn client_subject(&self) -> Option<Arc<String>> {
        match &self.layer {
            Layer::Plain => None,
            Layer::Tls(session) => session.client_subject(),
        }
    }

    /// Whether a ticket of an earlier connection resumed the session; `None` before the end of the handshake, and
    /// without TLS.
    pub fn is_resumed(&self) -> Option<bool> {
        match &self.layer {
            Layer::Plain => None,
            Layer::Tls(session) => session.is_resumed(),
        }
    }

    /// How many bytes one segment to the peer has at the most; `None` where that says nothing of what [`Transport::send`] is
    /// given, because it is encrypted on its way.
    pub fn segment(&self) -> Option<u16> {
        match &self.layer {
            Layer::Plain => self.socket.segment(),
            Layer::Tls(_) => None,
        }
    }

    /// The buffer with records that the peer has not accepted yet, as at the last call of [`Transport::recount`]. Their
    /// plaintext counts as not sent, so the sender still holds it too.
    pub fn kept(&self) -> BufferUsage {
        match &self.layer {
            Layer::Plain => BufferUsage::default(),
            Layer::Tls(session) => session.kept(),
        }
    }

    /// The same, as it is now.
    pub fn recount(&mut self) -> BufferUsage {
        match &mut self.layer {
            Layer::Plain => BufferUsage::default(),
            Layer::Tls(session) => session.recount(),
        }
    }

    /// How many bytes were sent so far, as the network counts them.
    pub fn sent(&self) -> u64 {
        self.socket.sent()
    }

    /// Whether the peer's system may have acknowledged more than the first `count` bytes sent. A byte that is not
    /// acknowledged was not read by the peer (RFC 9293 section 3.10.7.4).
    pub fn acked_beyond(&self, count: u64) -> bool {
        // The SYN counts as a byte. A head is longer than one, so it is never mistaken for it.
        self.socket.bytes_acknowledged().is_none_or(|acknowledged| acknowledged > count + 1)
    }

    /// Has the closing of this connection be a reset, which no peer takes for a proper end.
    pub fn reset_at_close(&mut self) {
        self.socket.reset_at_close();
        if let Layer::Tls(session) = &mut self.layer {
            session.skip_close_notify();
        }
    }

    /// Ends the stream to the peer.
    pub fn close_write(&mut self) {
        match &mut self.layer {
            Layer::Plain => self.socket.close_write(),
            Layer::Tls(session) => session.close_write(&mut self.socket),
        }
    }

    /// Begins a lingering close: ends the stream to the peer, and from then on only [`Transport::discard`] reads. `false` where
    /// the stream cannot be ended in good order: the connection is broken, or to be reset, or a record is under way that
    /// will not be whole.
    pub fn start_lingering(&mut self) -> bool {
        let may_end = match &mut self.layer {
            Layer::Plain => true,
            Layer::Tls(session) => session.may_end(),
        };
        let may_linger = may_end && !self.socket.is_broken();
        if may_linger {
            self.close_write();
        }
        may_linger
    }

    /// Reads once beneath any encryption, for nothing: the bytes are of no interest, only their number and their end.
    pub fn discard(&mut self, room: &mut [u8]) -> Received {
        self.socket.receive(room)
    }

    /// Whether [`Transport::discard`] may bring something, as far as is known without a system call.
    pub fn has_bytes_to_discard(&self) -> bool {
        self.socket.is_readable()
    }

    /// How many bytes the peer's system has yet to acknowledge, the end of the stream included as one. This asks the socket.
    pub fn bytes_unacknowledged(&self) -> u32 {
        self.socket.bytes_unacknowledged()
    }

    /// Before the connection is closed: sends the end that was announced, and where it is encrypted, tells the peer that this
    /// is the end and not a cut.
    pub fn close_gracefully(&mut self) {
        if let Layer::Tls(session) = &mut self.layer {
            session.close_gracefully(&mut self.socket);
        }
        self.socket.close_gracefully();
    }

    /// The fault of the encryption.
    pub fn fault(&self) -> Option<&tls::Fault> {
        match &self.layer {
            Layer::Plain => None,
            Layer::Tls(session) => session.fault(),
        }
    }
}
