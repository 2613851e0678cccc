//! A non-blocking socket and what is known of its readiness: one read and one write, with nothing on top.

use super::liveness::Liveness;
use super::sys;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};
use socket2::{Domain, Protocol, Socket as RawSocket, Type};
use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

/// The poll tells of changes only (edge-triggered), so what it told is kept here until a read proves it outdated.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    /// There may be something to read.
    readable: bool,
    /// The peer has closed or reset: a read that brings less than was asked for does not mean that nothing follows.
    hung_up: bool,
    /// The connection is broken: what has come can still be read, and nothing more leaves.
    broken: bool,
    /// The stream is ended right behind what is sent from now on.
    ends: bool,
    /// How many bytes were sent.
    sent: u64,
}

/// A receive buffer of `bytes` where the system grants that many. One that is fixed below what the system would let it
/// grow to is worse than none: it turns the growing off.
pub fn usable_receive_buffer(bytes: usize) -> Option<usize> {
    let limit = std::fs::read_to_string("/proc/sys/net/core/rmem_max").ok()?;
    let limit: usize = limit.trim().parse().ok()?;
    (bytes > 0 && bytes <= limit).then_some(bytes)
}

/// Options of a connection that this node opens.
#[derive(Clone, Copy, Debug)]
pub struct SocketOptions {
    /// Bytes of the receive buffer; `None` for the system's choice.
    pub receive_buffer: Option<usize>,
    /// When it is given up because its peer does not reply.
    pub liveness: Liveness,
}

/// The outcome of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// This many bytes, more than none.
    Bytes(usize),
    /// Nothing for now.
    Nothing,
    /// The peer has sent its last byte.
    End,
    /// The connection is broken.
    Broken,
    /// The client's hello is complete and names its server. The handshake waits for
    /// [`super::transport::Transport::accept`] or [`super::transport::Transport::refuse`]. A plain connection never
    /// returns this.
    Hello,
    /// The first bytes, this many, of a client that speaks plain HTTP where a TLS handshake is due. From now on the
    /// connection is a plain one.
    Plain(usize),
}

impl Received {
    /// How many bytes there are.
    pub fn count(self) -> usize {
        match self {
            Self::Bytes(count) | Self::Plain(count) => count,
            Self::Nothing | Self::End | Self::Broken | Self::Hello => 0,
        }
    }
}

impl Socket {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, readable: false, hung_up: false, broken: false, ends: false, sent: 0 }
    }

    /// The buffer has to be set before the handshake of TCP, which tells the peer how large a window may become.
    pub(super) fn connect(address: SocketAddr, options: SocketOptions) -> io::Result<Self> {
        let socket = RawSocket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        if let Some(bytes) = options.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        options.liveness.set(&socket)?;
        match socket.connect(&address.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
            _ => {}
        }
        Ok(Self::new(TcpStream::from_std(socket.into())))
    }

    /// Whether the connection that was begun is there.
    pub(super) fn is_there(&self) -> bool {
        self.stream.peer_addr().is_ok()
    }

    /// Whether it has failed.
    pub(super) fn has_failed(&self) -> bool {
        !matches!(self.stream.take_error(), Ok(None))
    }

    /// Whether the connection is there, with `preface` sent ahead of everything.
    pub(super) fn connected(&mut self, preface: &[u8]) -> Option<io::Result<()>> {
        match self.stream.take_error() {
            Ok(Some(error)) | Err(error) => return Some(Err(error)),
            Ok(None) => {}
        }
        match self.stream.peer_addr() {
            Ok(_) => Some(self.stream.set_nodelay(true).and_then(|()| self.send_preface(preface))),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// A new connection has room for a few hundred bytes.
    fn send_preface(&mut self, preface: &[u8]) -> io::Result<()> {
        if preface.is_empty() || self.send(&[IoSlice::new(preface)])? == preface.len() {
            return Ok(());
        }
        Err(io::ErrorKind::WriteZero.into())
    }

    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut self.stream, token, Interest::READABLE | Interest::WRITABLE)
    }

    pub(super) fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        registry.deregister(&mut self.stream)
    }

    pub(super) fn into_stream(self) -> TcpStream {
        self.stream
    }

    pub(super) fn note(&mut self, event: &Event) {
        let closed = event.is_read_closed() || event.is_error();
        self.readable |= event.is_readable() || closed;
        self.hung_up |= closed;
        self.broken |= event.is_error();
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    pub(super) fn has_hung_up(&self) -> bool {
        self.hung_up
    }

    pub(super) fn expect_bytes(&mut self) {
        self.readable = true;
    }

    pub(super) fn is_readable(&self) -> bool {
        self.readable
    }

    /// Whether the peer has neither sent anything that was not read nor ended the connection, whatever was noted.
    pub(super) fn is_silent(&self) -> bool {
        self.stream.peek(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Reads once. A short read is trusted to have emptied the socket.
    pub(super) fn receive(&mut self, room: &mut [u8]) -> Received {
        loop {
            return match rustix::net::recv(&self.stream, &mut *room, RecvFlags::empty()).map(|(count, _)| count) {
                Ok(0) => Received::End,
                Ok(count) => {
                    self.readable = count == room.len() || self.hung_up;
                    Received::Bytes(count)
                }
                Err(Errno::AGAIN) => {
                    self.readable = false;
                    Received::Nothing
                }
                Err(Errno::INTR) => continue,
                Err(_) => Received::Broken,
            };
        }
    }

    /// Looks at what can be read, and leaves it there. As long as there is more to come, the poll tells of it.
    pub(super) fn peek(&mut self, room: &mut [u8]) -> Received {
        loop {
            return match self.stream.peek(room) {
                Ok(0) => Received::End,
                Ok(count) => {
                    self.readable = count == room.len() || self.hung_up;
                    Received::Bytes(count)
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable = false;
                    Received::Nothing
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => Received::Broken,
            };
        }
    }

    /// Writes once; less than all means that the socket is full, and the poll will tell when it is not.
    pub(super) fn send(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let flags = if self.ends { SendFlags::NOSIGNAL | SendFlags::MORE } else { SendFlags::NOSIGNAL };
        loop {
            let result = match slices {
                [slice] => rustix::net::send(&self.stream, slice, flags),
                slices => rustix::net::sendmsg(&self.stream, slices, &mut SendAncillaryBuffer::default(), flags),
            };
            match result {
                Err(Errno::INTR) => {}
                result => {
                    self.sent += result.map_or(0, |count| count as u64);
                    return result.map_err(Into::into);
                }
            }
        }
    }

    /// Says that the stream is ended, or the connection closed, as soon as what is sent next has left: so the last bytes
    /// wait for their end, and leave in one segment with it.
    pub(super) fn announce_end(&mut self) {
        self.ends = true;
    }

    /// Before the connection is closed: sends the end that was announced, with what waits for it. Closing alone would drop
    /// both where the peer has sent something that was not read.
    pub(super) fn close_gracefully(&mut self) {
        if std::mem::take(&mut self.ends) {
            self.close_write();
        }
    }

    /// The addresses of the peer and of this end.
    pub(super) fn ends(&self) -> io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.stream.peer_addr()?, self.stream.local_addr()?))
    }

    /// How many bytes of the stream one segment has at the most. It changes with the path, so it is asked for anew.
    pub(super) fn segment(&self) -> Option<u16> {
        socket2::SockRef::from(&self.stream).tcp_mss().ok()?.try_into().ok()
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    pub(super) fn bytes_acknowledged(&self) -> Option<u64> {
        sys::bytes_acknowledged(&self.stream)
    }

    pub(super) fn bytes_unacknowledged(&self) -> u32 {
        sys::bytes_unacknowledged(&self.stream).unwrap_or(0)
    }

    pub(super) fn reset_at_close(&mut self) {
        self.ends = false;
        if let Err(error) = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)) {
            log::debug!("preparing the reset of a connection: {error}");
        }
    }

    pub(super) fn close_write(&mut self) {
        self.ends = false;
        // It fails where the connection is gone already, and then there is nothing to end.
        let _ = self.stream.shutdown(Shutdown::Write);
    }
}
