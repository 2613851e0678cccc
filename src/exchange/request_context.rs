//! The state of a request across its backends, until a response begins.

use super::body_forwarder::BodyForwarder;
use super::caching::Caching;
use super::compressor::Compressor;
use super::events::{Disposition, Side};
use super::min_rate::MinRateMonitor;
use super::request::Request;
use super::settings::Settings;
use crate::base::buffer::BufferPool;
use crate::base::clock::Moment;
use crate::base::reason::FailureReason;
use crate::cache::lookup::Cause;
use crate::cluster::{BackendId, Demand, Route, Ticket};
use std::time::Duration;

/// Number of boxes kept for later requests.
const MOST_SPARES: usize = 1024;

/// It moves from state to state, so it is boxed. Boxes are reused ([`RequestPool`]), so that costs no allocation.
#[derive(Debug, Default)]
pub(super) struct RequestContext {
    pub(super) request: Request,
    pub(super) upload: BodyForwarder,
    /// The body of the response, once its head has arrived.
    pub(super) download: BodyForwarder,
    /// The whole body arrived with the head.
    pub(super) is_here: bool,
    /// The backends that failed this request.
    pub(super) tried: Vec<BackendId>,
    pub(super) resolves: u32,
    /// Number of upstream connections requested; it wraps.
    pub(super) connections: u8,
    /// Bytes received from the client, the head included.
    pub(super) received_bytes: u64,
    /// The client was told to send the body, or sends it unasked.
    pub(super) continued: bool,
    /// Number of informational responses of all backends so far.
    pub(super) informational_responses: u32,
    /// The last failure.
    pub(super) failure: Option<FailureReason>,
    /// The backend that the client names: no other may serve.
    pub(super) named: Option<BackendId>,
    /// The backend that rules of a HAProxy file select: it serves before all others.
    pub(super) wanted: Option<BackendId>,
    /// The moment at which it first asked for a member: its place among requests that wait.
    pub(super) arrived: Option<Moment>,
    /// Its ticket in the queue of its cluster, from the first wait on.
    pub(super) ticket: Option<Ticket>,
    /// The time that it may still wait, from the first wait on.
    pub(super) wait_left: Option<Duration>,
    /// The cause for forwarding it, if it has waited for a cache fill of another request.
    pub(super) waited: Option<Cause>,
    /// The disk tier of the cache was asked for what it wants.
    pub(super) asked_disk: bool,
    /// The cache's part of it, if any.
    pub(super) caching: Option<Box<Caching>>,
    /// The compressor of the response's body, if rules set one.
    pub(super) compressor: Option<Box<Compressor>>,
    /// The rate at which the client sends its body, and at which it reads its response.
    pub(super) upload_rate: MinRateMonitor,
    pub(super) download_rate: MinRateMonitor,
}

/// Boxes of requests that are over, reused within a core.
#[derive(Debug, Default)]
#[expect(clippy::vec_box, reason = "it is the boxes that are used again")]
pub struct RequestPool(Vec<Box<RequestContext>>);

impl RequestPool {
    /// A box without data of an earlier request, but with its memory.
    pub(super) fn take(&mut self) -> Box<RequestContext> {
        self.0.pop().unwrap_or_default()
    }

    /// Takes back a box and its contents.
    pub(super) fn take_back(&mut self, mut context: Box<RequestContext>, buffers: &mut BufferPool) {
        context.request.recycle(buffers);
        if self.0.len() < MOST_SPARES {
            context.forget();
            self.0.push(context);
        }
    }
}

impl RequestContext {
    /// Resets a used box. The request and the bodies are set with the next head.
    fn forget(&mut self) {
        let Self {
            request: _,
            upload: _,
            download: _,
            is_here: _,
            tried,
            resolves,
            connections,
            received_bytes,
            continued,
            informational_responses,
            failure,
            named,
            wanted,
            arrived,
            ticket,
            wait_left,
            waited,
            asked_disk,
            caching,
            compressor,
            upload_rate,
            download_rate,
        } = self;
        (*waited, *caching, *compressor, *ticket, *wait_left) = (None, None, None, None, None);
        tried.clear();
        (*connections, *received_bytes) = (0, 0);
        (*resolves, *continued, *informational_responses, *failure) = (0, false, 0, None);
        (*named, *wanted, *arrived, *asked_disk) = (None, None, None, false);
        (*upload_rate, *download_rate) = (MinRateMonitor::default(), MinRateMonitor::default());
    }

    /// The context of a request that is over or goes to no backend.
    pub(super) fn past(request: Request) -> Self {
        Self { request, ..Self::default() }
    }

    /// Whether part of the body is still to arrive.
    pub(super) fn is_uploading(&self) -> bool {
        !self.is_here && !self.upload.is_done()
    }

    /// The body that arrives from a side.
    pub(super) fn body_from(&self, side: Side) -> &BodyForwarder {
        match side {
            Side::Client => &self.upload,
            Side::Upstream => &self.download,
        }
    }

    /// Whether the client reads its response fast enough.
    pub(super) fn download_keeps_up(&mut self, now: Moment, settings: &Settings) -> bool {
        self.download_rate.keeps_up(now, settings)
    }

    /// Whether the client withholds the body until the backend's 100 (RFC 9110 section 10.1.1): the backend is waited
    /// for then.
    pub(super) fn awaits_continue(&self) -> bool {
        self.request.expects_continue() && !self.continued
    }

    /// The client may send the body: it is waited for from now on.
    pub(super) fn on_continue(&mut self, now: Moment) {
        if self.awaits_continue() {
            self.upload_rate = MinRateMonitor::default();
            self.upload_rate.restart(now);
        }
        self.continued = true;
    }

    /// What happens to the client's connection behind a response; `client_stays`: the response allows to keep it.
    pub(super) fn disposition(&self, client_stays: bool) -> Disposition {
        let is_uploaded = self.upload.is_done();
        match client_stays && is_uploaded {
            true => Disposition::KeepAlive,
            false => Disposition::Linger { client_may_send: !is_uploaded || self.request.keep_alive() },
        }
    }

    /// The request's requirements for a member.
    pub(super) fn demand<'a>(&'a self, route: &'a Route) -> Demand<'a> {
        Demand { route, tried: &self.tried, named: self.named, wanted: self.wanted }
    }

    /// Whether the request may be sent again although a backend may have received it: its method is idempotent (RFC
    /// 9110 section 9.2.2), and all of it is still kept.
    pub(super) fn may_send_again(&self) -> bool {
        self.request.is_idempotent() && self.request.is_whole()
    }
}
