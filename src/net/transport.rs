//! The byte stream of a connection: one read and one write at a time, with or without TLS.

use super::socket::Socket;
use super::tls::{self, PortableSession, TlsClientTarget, TlsLayer, TlsScratch};
use crate::base::buffer::BufferUsage;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Registry, Token};
use rustls::ServerConfig;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

pub use super::socket::{Received, SocketOptions, usable_receive_buffer};

/// A non-blocking connection, plaintext or TLS.
#[derive(Debug)]
pub struct Transport {
    socket: Socket,
    layer: Layer,
}

/// The layer between the socket and its users.
#[derive(Debug)]
enum Layer {
    Plain,
    Tls(Box<TlsLayer>),
}

impl Transport {
    /// A plaintext connection that was accepted.
    pub fn accepted(stream: TcpStream) -> Self {
        Self { socket: Socket::new(stream), layer: Layer::Plain }
    }

    /// A connection of another process.
    pub fn arrived(stream: TcpStream, session: Option<PortableSession>) -> Self {
        let layer = match session {
            Some(session) => Layer::Tls(Box::new(session.into())),
            None => Layer::Plain,
        };
        Self { socket: Socket::new(stream), layer }
    }

    /// A TLS connection that was accepted; its client has not sent a hello yet.
    pub fn accepted_tls(stream: TcpStream) -> Self {
        Self { socket: Socket::new(stream), layer: Layer::Tls(Box::new(TlsLayer::for_client())) }
    }

    /// Begins to connect, and the TLS handshake if `tls` is set. The poll reports when [`Transport::connected`] is to
    /// be called.
    pub fn connect(address: SocketAddr, options: SocketOptions, tls: Option<&TlsClientTarget>) -> io::Result<Self> {
        let layer = match tls {
            Some(tls) => Layer::Tls(Box::new(TlsLayer::for_backend(tls)?)),
            None => Layer::Plain,
        };
        Ok(Self { socket: Socket::connect(address, options)?, layer })
    }

    /// The outcome of connecting, including the TLS handshake; `None` while pending. `preface` is sent before all other
    /// bytes, in the clear.
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

    /// Whether the connection attempt has failed.
    pub fn has_failed(&self) -> bool {
        self.socket.has_failed()
    }

    /// Whether the connection uses TLS.
    pub fn is_encrypted(&self) -> bool {
        matches!(self.layer, Layer::Tls(_))
    }

    /// The version of TLS and the cipher suite, after the handshake.
    pub fn agreed_tls(&self) -> Option<(&'static str, &'static str)> {
        match &self.layer {
            Layer::Plain => None,
            Layer::Tls(session) => session.agreed(),
        }
    }

    /// Prepares the connection for another process. Returns whether it can go there now: a TLS session between two
    /// records, if the kernel encrypts and decrypts.
    pub fn prepare_to_leave(&self) -> bool {
        match &self.layer {
            Layer::Plain => true,
            Layer::Tls(session) => session.prepare_to_leave(&self.socket),
        }
    }

    /// Hands the TLS session of a prepared connection to the kernel, if there is one. After an error the connection is
    /// of no use, and is closed.
    pub fn leave(&mut self) -> io::Result<()> {
        if let Layer::Tls(session) = std::mem::replace(&mut self.layer, Layer::Plain) {
            let session = session.into_kernel(&self.socket).inspect_err(|_| self.socket.break_off())?;
            self.layer = Layer::Tls(Box::new(session));
        }
        Ok(())
    }

    /// The descriptor, for another process; `None` if it cannot continue the connection.
    pub fn as_portable(&self) -> Option<BorrowedFd<'_>> {
        self.is_portable().then(|| self.socket.as_fd())
    }

    /// The socket, for another process; `None` if it cannot continue the connection.
    pub fn into_portable(self) -> Option<std::net::TcpStream> {
        self.is_portable().then(|| self.socket.into_stream().into())
    }

    fn is_portable(&self) -> bool {
        matches!(self.layer, Layer::Plain) || self.portable_session().is_some()
    }

    /// The state of the TLS session that goes with the socket; `None` without TLS, and before [`Transport::leave`].
    pub fn portable_session(&self) -> Option<&PortableSession> {
        match &self.layer {
            Layer::Plain => None,
            Layer::Tls(session) => session.portable(),
        }
    }

    /// Removes the connection from the poll, so another poll can watch it.
    pub fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.socket.deregister(registry)
    }

    /// Adds the connection to the poll.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.socket.register(registry, token)
    }

    /// Records an event of the poll.
    pub fn note(&mut self, event: &Event) {
        self.socket.note(event);
        if let Layer::Tls(session) = &mut self.layer
            && event.is_writable()
        {
            session.writable(&mut self.socket);
        }
    }

    /// Marks the connection readable, so the next read asks the socket.
    pub fn expect_bytes(&mut self) {
        self.socket.expect_bytes();
    }

    /// Whether a read may return bytes.
    pub fn is_readable(&self) -> bool {
        match &self.layer {
            Layer::Plain => self.socket.is_readable(),
            Layer::Tls(session) => session.is_readable(&self.socket),
        }
    }

    /// Whether the poll has reported the connection as broken. Bytes received before can still be read.
    pub fn is_broken(&self) -> bool {
        self.socket.is_broken()
    }

    /// Whether the poll has reported that the peer ended its side. Bytes received before can still be read.
    pub fn has_hung_up(&self) -> bool {
        self.socket.has_hung_up()
    }

    /// Whether the peer has sent no unread bytes and no end. This asks the socket.
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

    /// Copies the first bytes below TLS without consuming them.
    pub fn peek(&mut self, room: &mut [u8]) -> Received {
        self.socket.peek(room)
    }

    /// Consumes bytes seen by [`Transport::peek`]: as many as `room` has.
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

    /// Writes once. A short write means that the socket is full; the poll reports when it has room again. The next call
    /// must begin with the bytes that are left, since they may be encrypted already.
    pub fn send(&mut self, slices: &[IoSlice<'_>], tls_scratch: &mut TlsScratch) -> io::Result<usize> {
        match &mut self.layer {
            Layer::Plain => self.socket.send(slices),
            Layer::Tls(session) => session.send(&mut self.socket, slices, tls_scratch),
        }
    }

    /// Announces that the stream or the connection ends behind the bytes that are sent next.
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

    /// Continues the handshake of a client whose hello has arrived.
    pub fn accept(&mut self, config: Arc<ServerConfig>) {
        if let Layer::Tls(session) = &mut self.layer {
            session.accept(config);
        }
    }

    /// Refuses a client's hello, because no certificate covers its server name.
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

    /// The greatest number of bytes in one segment to the peer; `None` for TLS, where it does not relate to the bytes
    /// passed to [`Transport::send`].
    pub fn segment(&self) -> Option<u16> {
        match &self.layer {
            Layer::Plain => self.socket.segment(),
            Layer::Tls(_) => None,
        }
    }

    /// The buffer of records that the peer has not accepted yet, as of the last call of [`Transport::recount`]. Their
    /// plaintext counts as not sent, so the sender still holds it too.
    pub fn kept(&self) -> BufferUsage {
        match &self.layer {
            Layer::Plain => BufferUsage::default(),
            Layer::Tls(session) => session.kept(),
        }
    }

    /// The current usage of that buffer.
    pub fn recount(&mut self) -> BufferUsage {
        match &mut self.layer {
            Layer::Plain => BufferUsage::default(),
            Layer::Tls(session) => session.recount(),
        }
    }

    /// Number of bytes sent so far, as counted on the network.
    pub fn sent(&self) -> u64 {
        self.socket.sent()
    }

    /// Whether the peer's kernel may have acknowledged more than the first `count` bytes. The peer has not read a byte
    /// that is not acknowledged (RFC 9293 section 3.10.7.4).
    pub fn acked_beyond(&self, count: u64) -> bool {
        // The SYN counts as one byte, and a head is longer than one, so the two are never confused.
        self.socket.bytes_acknowledged().is_none_or(|acknowledged| acknowledged > count + 1)
    }

    /// Makes the close of this connection a reset, which no peer mistakes for a proper end.
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

    /// Begins a lingering close: ends the stream to the peer; from then on only [`Transport::discard`] reads. `false`
    /// if the stream cannot end properly: the connection is broken or is to be reset, or a record was cut.
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

    /// Reads once below TLS and drops the bytes; only their number and their end matter.
    pub fn discard(&mut self, room: &mut [u8]) -> Received {
        self.socket.receive(room)
    }

    /// Whether [`Transport::discard`] may return bytes, as far as known without a system call.
    pub fn has_bytes_to_discard(&self) -> bool {
        self.socket.is_readable()
    }

    /// Number of bytes that the peer's kernel has not acknowledged, the end of the stream included as one. This asks
    /// the socket.
    pub fn bytes_unacknowledged(&self) -> u32 {
        self.socket.bytes_unacknowledged()
    }

    /// Sends the announced end before the connection is closed. With TLS this includes a `close_notify`, which tells
    /// the end from a cut.
    pub fn close_gracefully(&mut self) {
        if let Layer::Tls(session) = &mut self.layer {
            session.close_gracefully(&mut self.socket);
        }
        self.socket.close_gracefully();
    }

    /// The TLS error, if any.
    pub fn fault(&self) -> Option<&tls::Fault> {
        match &self.layer {
            Layer::Plain => None,
            Layer::Tls(session) => session.fault(),
        }
    }
}

#[cfg(test)]
mod tests;
