//! Requests to the service of this node, and its responses.

use crate::haproxy::serve::StatisticsPage;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

/// A request to this node itself, in the form that the service gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceRequest {
    /// The method, case-sensitive.
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
    /// The value of `Sec-Fetch-Site`: the relation of the requesting page to this site.
    pub fetch_site: Option<Vec<u8>>,
    /// The value of `Sec-Fetch-Mode`: the kind of the browser's request.
    pub fetch_mode: Option<Vec<u8>>,
    /// The address of the client.
    pub peer: Option<IpAddr>,
    /// The user id of a client on a UNIX socket, which has no address.
    pub uid: Option<u32>,
    /// The body, of at most 64 KiB.
    pub body: Vec<u8>,
    /// The page that rules have selected, whatever the other fields say.
    pub ruled: Option<RuledPage>,
}

/// A page that rules of a HAProxy file let a client see.
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
    /// Header lines, each with its CRLF, without `Content-Length` and `Connection`.
    pub fields: String,
    /// The body. A response to HEAD has one too, which only determines the length.
    pub body: ServiceBody,
    /// The body is the first part of a stream: others follow ([`Input::ServicePart`](super::Input::ServicePart)).
    pub stream: Option<ServiceStream>,
}

/// The client's end of a stream whose parts the service sends one by one. It is dropped when the client has left.
#[derive(Clone, Debug)]
pub struct ServiceStream(Arc<()>);

/// The service's end, which shows whether the client is still connected.
#[derive(Clone, Debug)]
pub struct StreamWatch(Weak<()>);

impl ServiceStream {
    /// Both ends.
    pub fn new() -> (Self, StreamWatch) {
        let stream = Arc::new(());
        let watch = StreamWatch(Arc::downgrade(&stream));
        (Self(stream), watch)
    }
}

impl PartialEq for ServiceStream {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for ServiceStream {}

impl StreamWatch {
    /// Whether the response can continue.
    pub fn is_open(&self) -> bool {
        self.0.strong_count() > 0
    }
}

/// Bytes that many responses may share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceBody(Arc<Bytes>);

#[derive(Debug)]
struct Bytes {
    bytes: Vec<u8>,
    /// The counter of bytes held.
    held: Option<Arc<AtomicUsize>>,
}

impl ServiceBody {
    /// Bytes that count in `held` until the last response with them is sent.
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
