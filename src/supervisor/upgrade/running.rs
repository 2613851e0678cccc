//! Clients with a tunnel or a response under way that arrive from the predecessor: batch by batch, and each followed by its
//! bytes.

use super::message::{Client, Running};
use crate::exchange::PORTABLE_VERSION;
use crate::wire::forwarded::Peer;
use crate::wire::proxy_protocol::ProxyAddresses;
use crate::worker::{ForeignExchange, PortableClient, RunningBytes};
use std::env;
use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// The environment variable with the version of the exchanges of a predecessor.
pub(super) const VARIABLE: &str = "SLUICE_EXCHANGES";

/// The limit of the bytes of one client.
const MOST_BYTES: usize = 64 << 20;

/// Whether the exchanges of the predecessor have the version of this process.
pub(super) fn are_known() -> bool {
    env::var(VARIABLE).is_ok_and(|version| version.parse() == Ok(PORTABLE_VERSION))
}

/// The clients of a batch that have arrived so far.
#[derive(Debug, Default)]
pub(super) struct ArrivingBatch {
    complete: Vec<(u32, PortableClient)>,
    /// The client whose bytes follow.
    last: Option<Arriving>,
}

#[derive(Debug)]
struct Arriving {
    running: Box<Running>,
    files: Vec<OwnedFd>,
    bytes: Vec<u8>,
}

impl Arriving {
    fn length(&self) -> usize {
        self.running.lengths.iter().fold(0, |sum, length| sum.saturating_add(*length))
    }

    fn complete(self) -> io::Result<(u32, PortableClient)> {
        let Self { running, files, bytes } = self;
        let Running { place, client, upstream_session, closing, lengths, state } = *running;
        let [stream, upstream] = <[OwnedFd; 2]>::try_from(files).map_err(|_| io::ErrorKind::InvalidData)?;
        let mut rest = &bytes[..];
        let parts = lengths.map(|length| {
            let (part, behind) = rest.split_at_checked(length).unwrap_or((rest, &[]));
            rest = behind;
            part.to_vec()
        });
        let upstream = connection(upstream)?;
        let exchange =
            ForeignExchange { upstream, upstream_session, state, closing, bytes: RunningBytes::from_parts(parts) };
        Ok((place, PortableClient { exchange: Some(Box::new(exchange)), ..arrived(client, stream)? }))
    }
}

impl ArrivingBatch {
    /// Adds a client, whose bytes follow. A client whose bytes stay incomplete is dropped.
    pub(super) fn begin(&mut self, running: Box<Running>, files: Vec<OwnedFd>) -> io::Result<()> {
        self.last = Some(Arriving { running, files, bytes: Vec::new() });
        self.add_bytes(&[])
    }

    /// Adds bytes of the last client.
    pub(super) fn add_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        // The client of these bytes was lost.
        let Some(mut last) = self.last.take() else { return Ok(()) };
        last.bytes.extend_from_slice(bytes);
        let length = last.length();
        if last.bytes.len() > length || length > MOST_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if last.bytes.len() < length {
            self.last = Some(last);
        } else {
            self.complete.push(last.complete()?);
        }
        Ok(())
    }

    /// Ends the batch. Returns the places of the clients that have arrived, and the clients.
    pub(super) fn finish(&mut self) -> (Vec<u32>, Vec<PortableClient>) {
        let Self { complete, .. } = std::mem::take(self);
        complete.into_iter().unzip()
    }
}

/// The client of a message.
pub(super) fn arrived(client: Client, file: OwnedFd) -> io::Result<PortableClient> {
    let stream = connection(file)?;
    let Client { address, local_port, served, told, tls } = client;
    let facts = tls.as_ref().map(|tls| Arc::new(tls.peer()));
    let peer = Peer { address, local_port, secure: tls.is_some(), tls: facts };
    let told = told.map(|(source, destination)| ProxyAddresses::new(source, destination));
    Ok(PortableClient { stream, session: tls.map(|tls| tls.session), peer, served, told, exchange: None })
}

fn connection(file: OwnedFd) -> io::Result<TcpStream> {
    let stream = TcpStream::from(file);
    stream.set_nonblocking(true)?;
    // The call fails if it is not a socket.
    stream.nodelay()?;
    Ok(stream)
}
