//! A non-blocking socket and its readiness: one read and one write at a time.

use super::liveness::Liveness;
use super::sys;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};
use socket2::{Domain, Protocol, Socket as RawSocket, Type};
use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// The poll reports changes only (edge-triggered), so readiness is kept here until a read clears it.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    /// A read may return bytes.
    readable: bool,
    /// The peer has closed or reset the connection: a short read does not mean that nothing follows.
    hung_up: bool,
    /// The connection is broken: received bytes can still be read, and nothing more can be sent.
    broken: bool,
    /// The end of the stream follows directly behind the next bytes to be sent.
    ends: bool,
    /// Number of bytes sent.
    sent: u64,
}

/// A receive buffer of `bytes`, if the system grants that much. A buffer fixed below the system's own maximum is worse
/// than none, since it turns automatic growth off.
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
    /// Limits after which it ends because its peer does not respond.
    pub liveness: Liveness,
}

/// The outcome of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// This many bytes, at least one.
    Bytes(usize),
    /// No bytes for now.
    Nothing,
    /// The peer has sent its last byte.
    End,
    /// The connection is broken.
    Broken,
    /// The client's hello is complete and its server name is known. The handshake waits for
    /// [`super::transport::Transport::accept`] or [`super::transport::Transport::refuse`]. A plaintext connection never
    /// returns this.
    Hello,
    /// This many first bytes of a client that sends plain HTTP instead of a TLS handshake. The connection is a
    /// plaintext one from now on.
    Plain(usize),
}

impl Received {
    /// Number of bytes.
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

    /// The buffer is set before the handshake of TCP, which limits how large the window may become.
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

    /// Whether the connection is established.
    pub(super) fn is_there(&self) -> bool {
        self.stream.peer_addr().is_ok()
    }

    /// Whether the connection attempt has failed.
    pub(super) fn has_failed(&self) -> bool {
        !matches!(self.stream.take_error(), Ok(None))
    }

    /// The outcome of the connection attempt, or `None` while it is pending. On success `preface` is sent first.
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

    /// The send buffer of a new connection has room for a few hundred bytes.
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

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
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

    /// Whether the peer has neither sent unread bytes nor ended the connection. This asks the socket.
    pub(super) fn is_silent(&self) -> bool {
        self.stream.peek(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Reads once. A short read means that the socket is empty.
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

    /// Copies readable bytes without consuming them. The poll keeps reporting the socket while more bytes arrive.
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

    /// Writes once. A short write means that the socket is full; the poll reports when it has room again.
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

    /// Announces that the stream or the connection ends behind the bytes that are sent next, so the last bytes and the
    /// end leave in one segment.
    pub(super) fn announce_end(&mut self) {
        self.ends = true;
    }

    /// Sends the announced end with the bytes that wait for it, before the connection is closed. A close alone would
    /// drop both if the peer has sent bytes that were not read.
    pub(super) fn close_gracefully(&mut self) {
        if std::mem::take(&mut self.ends) {
            self.close_write();
        }
    }

    /// The addresses of the peer and of this end.
    pub(super) fn ends(&self) -> io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.stream.peer_addr()?, self.stream.local_addr()?))
    }

    /// The greatest number of stream bytes in one segment. It changes with the path, so it is read each time.
    pub(super) fn segment(&self) -> Option<u16> {
        socket2::SockRef::from(&self.stream).tcp_mss().ok()?.try_into().ok()
    }

    /// Whether the socket has room for bytes. This asks it.
    pub(super) fn is_writable(&self) -> bool {
        let mut asked = [PollFd::new(self.as_fd(), PollFlags::POLLOUT)];
        poll(&mut asked, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
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

    /// Ends both directions, so that bytes that may follow are not taken for a part of the stream.
    pub(super) fn break_off(&mut self) {
        self.reset_at_close();
        // It fails if the connection is gone.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    pub(super) fn close_write(&mut self) {
        self.ends = false;
        // It fails if the connection is gone, and then there is no stream to end.
        let _ = self.stream.shutdown(Shutdown::Write);
    }
}
