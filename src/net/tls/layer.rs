//! TLS between a socket and its users: by rustls or, for a connection that moves between processes, by the kernel.

use super::super::socket::{Received, Socket};
use super::agreed::agreed;
use super::client::TlsClientTarget;
use super::fault::Fault;
use super::kernel::{self, KernelSession, PortableSession};
use super::records::TlsScratch;
use super::session::Session;
use crate::base::buffer::BufferUsage;
use rustls::ServerConfig;
use std::io::{self, IoSlice};
use std::sync::Arc;

/// The TLS session of a connection.
#[derive(Debug)]
pub enum TlsLayer {
    /// A session of this process.
    Own(Session),
    /// A session that the kernel continues.
    Kernel(KernelSession),
}

impl From<PortableSession> for TlsLayer {
    fn from(session: PortableSession) -> Self {
        Self::Kernel(session.into())
    }
}

impl TlsLayer {
    pub(in crate::net) fn for_client() -> Self {
        Self::Own(Session::for_client())
    }

    pub(in crate::net) fn for_backend(to: &TlsClientTarget) -> io::Result<Self> {
        Session::for_backend(to).map(Self::Own)
    }

    /// Whether the kernel can take the session over now. The socket is prepared for that, and nothing else changes.
    pub(in crate::net) fn prepare_to_leave(&self, socket: &Socket) -> bool {
        match self {
            Self::Own(session) => portable(session).is_some() && kernel::prepare(socket),
            Self::Kernel(_) => true,
        }
    }

    /// Hands the session to the kernel, after [`TlsLayer::prepare_to_leave`].
    pub(in crate::net) fn into_kernel(self, socket: &Socket) -> io::Result<Self> {
        let Self::Own(session) = self else { return Ok(self) };
        let state = portable(&session).ok_or(io::ErrorKind::InvalidInput)?;
        KernelSession::install(socket, state, session.into_secrets()?).map(Self::Kernel)
    }

    /// The state beside the socket of a session that the kernel has.
    pub(in crate::net) fn portable(&self) -> Option<&PortableSession> {
        match self {
            Self::Own(_) => None,
            Self::Kernel(session) => Some(session.state()),
        }
    }

    /// The session, as long as it is this process' own.
    pub(in crate::net) fn own(&self) -> Option<&Session> {
        match self {
            Self::Own(session) => Some(session),
            Self::Kernel(_) => None,
        }
    }

    pub(in crate::net) fn has_begun(&self) -> bool {
        self.own().is_none_or(Session::has_begun)
    }

    pub(in crate::net) fn is_handshaking(&self) -> bool {
        self.own().is_some_and(Session::is_handshaking)
    }

    /// Advances the handshake with a backend as far as possible.
    pub(in crate::net) fn shake_hands(
        &mut self,
        socket: &mut Socket,
        tls_scratch: &mut TlsScratch,
    ) -> Option<io::Result<()>> {
        match self {
            Self::Own(session) => session.shake_hands(socket, tls_scratch),
            Self::Kernel(_) => Some(Ok(())),
        }
    }

    /// Continues after a client's hello, with the settings for its server name.
    pub(in crate::net) fn accept(&mut self, config: Arc<ServerConfig>) {
        if let Self::Own(session) = self {
            session.accept(config);
        }
    }

    pub(in crate::net) fn refuse(&mut self, socket: &mut Socket) {
        if let Self::Own(session) = self {
            session.refuse(socket);
        }
    }

    pub(in crate::net) fn agreed(&self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Own(session) => agreed(session),
            Self::Kernel(session) => session.agreed(),
        }
    }

    pub(in crate::net) fn wanted_name(&self) -> Option<&str> {
        self.own().and_then(Session::wanted_name)
    }

    pub(in crate::net) fn client_subject(&self) -> Option<Arc<String>> {
        self.own().and_then(Session::client_subject)
    }

    pub(in crate::net) fn is_resumed(&self) -> Option<bool> {
        self.own().and_then(Session::is_resumed)
    }

    pub(in crate::net) fn fault(&self) -> Option<&Fault> {
        match self {
            Self::Own(session) => session.fault(),
            Self::Kernel(session) => session.fault(),
        }
    }

    pub(in crate::net) fn kept(&self) -> BufferUsage {
        self.own().map_or_else(BufferUsage::default, Session::kept)
    }

    pub(in crate::net) fn recount(&mut self) -> BufferUsage {
        match self {
            Self::Own(session) => session.recount(),
            Self::Kernel(_) => BufferUsage::default(),
        }
    }

    pub(in crate::net) fn is_readable(&self, socket: &Socket) -> bool {
        match self {
            Self::Own(session) => session.is_readable(socket),
            Self::Kernel(_) => socket.is_readable(),
        }
    }

    /// Reads once.
    pub(in crate::net) fn receive(
        &mut self,
        socket: &mut Socket,
        room: &mut [u8],
        tls_scratch: &mut TlsScratch,
    ) -> Received {
        match self {
            Self::Own(session) => session.receive(socket, room, tls_scratch),
            Self::Kernel(session) => session.receive(socket, room, tls_scratch),
        }
    }

    /// Writes once.
    pub(in crate::net) fn send(
        &mut self,
        socket: &mut Socket,
        slices: &[IoSlice<'_>],
        tls_scratch: &mut TlsScratch,
    ) -> io::Result<usize> {
        match self {
            Self::Own(session) => session.send(socket, slices, tls_scratch),
            Self::Kernel(session) => session.send(socket, slices),
        }
    }

    /// The socket accepts bytes again.
    pub(in crate::net) fn writable(&mut self, socket: &mut Socket) {
        match self {
            Self::Own(session) => session.writable(socket),
            Self::Kernel(session) => session.writable(socket),
        }
    }

    pub(in crate::net) fn close_write(&mut self, socket: &mut Socket) {
        match self {
            Self::Own(session) => session.close_write(socket),
            Self::Kernel(session) => session.close_write(socket),
        }
    }

    /// Whether the stream can end properly now.
    pub(in crate::net) fn may_end(&self) -> bool {
        match self {
            Self::Own(session) => session.may_end(),
            Self::Kernel(session) => session.may_end(),
        }
    }

    /// Sends `close_notify`, as far as possible now.
    pub(in crate::net) fn close_gracefully(&mut self, socket: &mut Socket) {
        match self {
            Self::Own(session) => session.close_gracefully(socket),
            Self::Kernel(session) => session.close_gracefully(socket),
        }
    }

    pub(in crate::net) fn skip_close_notify(&mut self) {
        match self {
            Self::Own(session) => session.skip_close_notify(),
            Self::Kernel(session) => session.skip_close_notify(),
        }
    }
}

/// The state of a session that the kernel can take over now.
fn portable(session: &Session) -> Option<PortableSession> {
    let state = session.common().filter(|_| session.is_between_records())?;
    PortableSession::of(state, session.is_client())
}
