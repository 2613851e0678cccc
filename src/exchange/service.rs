//! What the service of this node is asked, and what it responds.

use crate::haproxy::serve::StatisticsPage;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A request for this node itself, as the service is told of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceRequest {
    /// The method, in the case in which it came.
    pub method: String,
    /// The target in origin form.
    pub target: String,
    /// The value of `Host`.
    pub host: Option<Vec<u8>>,
    /// The value of `Origin`.
    pub origin: Option<Vec<u8>>,
    /// The value of `Accept`.
    pub accept: Option<Vec<u8>>,
    /// The value of `Authorization`.
    pub authorization: Option<Vec<u8>>,
    /// The value of `Sec-Fetch-Site`, with which a browser tells whose page asks.
    pub fetch_site: Option<Vec<u8>>,
    /// The value of `Sec-Fetch-Mode`, with which it tells what for.
    pub fetch_mode: Option<Vec<u8>>,
    /// The address of the client.
    pub peer: Option<IpAddr>,
    /// The user id of a client that came to a socket of the file system, and so has no address.
    pub uid: Option<u32>,
    /// The body, of at most 64 KiB.
    pub body: Vec<u8>,
    /// What rules have decided to show, whatever the other fields say.
    pub ruled: Option<RuledPage>,
}

/// A page that rules of HAProxy's files let a client see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuledPage {
    /// `stats`.
    Statistics(StatisticsPage),
    /// `use-service prometheus-exporter`.
    Metrics,
}

/// The response of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceResponse {
    /// The status, final and with a body.
    pub status: u16,
    /// Header lines, each with its CRLF. `Content-Length` and `Connection` are not among them.
    pub fields: String,
    /// The body. A response to HEAD has one too, which is measured and not sent.
    pub body: ServiceBody,
}

/// Bytes that many responses may share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceBody(Arc<Bytes>);

#[derive(Debug)]
struct Bytes {
    bytes: Vec<u8>,
    /// Where they count for as long as they are held.
    held: Option<Arc<AtomicUsize>>,
}

impl ServiceBody {
    /// Bytes that count among those `held` until the last response with them has left.
    pub fn counted(bytes: Vec<u8>, held: &Arc<AtomicUsize>) -> Self {
        held.fetch_add(bytes.len(), Ordering::Relaxed);
        Self(Arc::new(Bytes { bytes, held: Some(Arc::clone(held)) }))
    }
}

impl From<Vec<u8>> for ServiceBody {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Bytes { bytes, held: None }))
    }
}

impl Deref for ServiceBody {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0.bytes
    }
}

impl PartialEq for Bytes {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Bytes {}

impl Drop for Bytes {
    fn drop(&mut self) {
        if let Some(held) = &self.held {
            held.fetch_sub(self.bytes.len(), Ordering::Relaxed);
        }
    }
}
