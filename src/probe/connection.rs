//! The connection of one probe: opened as workers open theirs, and closed after the outcome.

use super::check::{Check, Outcome};
use crate::base::clock::Moment;
use crate::cluster::{Addresses, Backend, Options};
use crate::health::ProbeFault;
use crate::net::tls::{BackendTls, TlsClientTarget, TlsScratch};
use crate::net::transport::{Received, SocketOptions, Transport};
use crate::wire::proxy_protocol;
use mio::event::Event;
use mio::{Registry, Token};
use nix::errno::Errno;
use std::io::{self, IoSlice};
use std::sync::Arc;

/// The greatest number of addresses of one name that are tried at once. The first one that accepts is probed.
const MAX_ADDRESSES: usize = 4;

/// Bytes of one read.
pub(super) const READ_BYTES: usize = 16 * 1024;

/// Data shared by all connections of the thread.
pub(super) struct Shared<'a> {
    pub(super) registry: &'a Registry,
    pub(super) options: SocketOptions,
    pub(super) tls: Option<&'a BackendTls>,
    pub(super) scratch: &'a mut TlsScratch,
    pub(super) room: &'a mut [u8],
}

/// How a probe ended. `None`: this node could not make it, which says nothing about the backend.
pub(super) type End = Option<Outcome>;

/// The connection of one probe.
#[derive(Debug)]
pub(super) struct Connection {
    check: Check,
    /// The first bytes of the connection, sent in the clear.
    preface: Vec<u8>,
    /// Several until one of them is established.
    transports: Vec<Transport>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Dialling,
    Handshake,
    /// This many bytes of the request were sent.
    Exchange(usize),
}

impl Connection {
    /// Begins to connect.
    pub(super) fn open(
        backend: &Backend,
        (options, host): (&Arc<Options>, Option<&str>),
        token: Token,
        now: Moment,
        shared: &mut Shared<'_>,
    ) -> Result<Self, End> {
        let addresses = match backend.next_addresses(now) {
            Addresses::Known(addresses) => addresses,
            // The name is being resolved.
            Addresses::Pending => return Err(None),
            Addresses::NotFound => return Err(Some(Err(ProbeFault::NameNotResolved))),
        };
        let endpoint = backend.endpoint();
        let tls = match endpoint.is_secure() {
            true => {
                let trust = backend.trust().ok_or(Some(Err(ProbeFault::TlsFailed)))?;
                Some(shared.tls.and_then(|tls| tls.to(endpoint.server_name(), trust)).ok_or(None)?)
            }
            false => None,
        };
        let mut preface = Vec::new();
        if let Some(version) = endpoint.proxy_header() {
            // A probe has no client.
            proxy_protocol::write(version, None, &mut preface);
        }
        let mut transports = Vec::new();
        let mut last_error = None;
        for address in addresses.iter().take(MAX_ADDRESSES) {
            match connect(*address, tls.as_ref(), token, shared) {
                Ok(transport) => transports.push(transport),
                Err(error) => last_error = Some(error),
            }
        }
        match last_error {
            Some(error) if transports.is_empty() => Err(end_of(&error)),
            _ => Ok(Self { check: Check::new(Arc::clone(options), host), preface, transports, stage: Stage::Dialling }),
        }
    }

    /// Handles an event of the poll. Returns the end of the probe, if it has ended.
    pub(super) fn on_event(&mut self, event: &Event, shared: &mut Shared<'_>) -> Option<End> {
        self.transports.iter_mut().for_each(|transport| transport.note(event));
        if self.stage == Stage::Dialling {
            self.transports.retain(|transport| !transport.has_failed());
            if self.transports.is_empty() {
                return Some(Some(Err(ProbeFault::ConnectFailed)));
            }
            let first = self.transports.iter().position(Transport::is_there)?;
            let mut transport = self.transports.swap_remove(first);
            transport.expect_bytes();
            self.transports = vec![transport];
            self.stage = Stage::Handshake;
        }
        let transport = self.transports.first_mut()?;
        if self.stage == Stage::Handshake {
            match transport.connected(&self.preface, shared.scratch)? {
                Ok(()) => self.stage = Stage::Exchange(0),
                Err(error) => return Some(end_of(&error)),
            }
        }
        self.exchange(shared)
    }

    fn exchange(&mut self, shared: &mut Shared<'_>) -> Option<End> {
        let (Stage::Exchange(sent), Some(transport)) = (&mut self.stage, self.transports.first_mut()) else {
            return None;
        };
        while let Some(rest) = self.check.request().get(*sent..).filter(|rest| !rest.is_empty()) {
            match transport.send(&[IoSlice::new(rest)], shared.scratch) {
                Ok(0) => break,
                Ok(count) => *sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // A response may have arrived all the same; otherwise the read below fails.
                Err(_) => break,
            }
        }
        while transport.is_readable() {
            match transport.receive(shared.room, shared.scratch) {
                Received::Nothing => break,
                Received::End | Received::Broken => return Some(Some(self.check.end())),
                received => {
                    let bytes = shared.room.get(..received.count()).unwrap_or_default();
                    if let Some(outcome) = self.check.receive(bytes) {
                        transport.close_gracefully();
                        return Some(Some(outcome));
                    }
                }
            }
        }
        None
    }

    /// The fault of a probe that has timed out.
    pub(super) fn expire(&self) -> ProbeFault {
        match self.stage {
            Stage::Dialling | Stage::Handshake => ProbeFault::ConnectTimeout,
            Stage::Exchange(_) => ProbeFault::ResponseTimeout,
        }
    }
}

fn connect(
    address: std::net::SocketAddr,
    tls: Option<&TlsClientTarget>,
    token: Token,
    shared: &Shared<'_>,
) -> io::Result<Transport> {
    let mut transport = Transport::connect(address, shared.options, tls)?;
    transport.register(shared.registry, token)?;
    Ok(transport)
}

/// The meaning of a failed connect: a fault of the backend, or of this node.
fn end_of(error: &io::Error) -> End {
    if error.kind() == io::ErrorKind::InvalidData {
        return Some(Err(ProbeFault::TlsFailed));
    }
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM | Errno::EADDRNOTAVAIL | Errno::ENOSPC) => {
            None
        }
        Some(Errno::ETIMEDOUT) => Some(Err(ProbeFault::ConnectTimeout)),
        _ => Some(Err(ProbeFault::ConnectFailed)),
    }
}
