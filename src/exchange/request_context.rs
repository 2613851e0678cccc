//! What a request carries from backend to backend until an answer begins.

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

/// How many boxes are kept for requests to come.
const MOST_SPARES: usize = 1024;

/// It goes from state to state, so it is boxed, and as boxes are used again ([`RequestPool`]), that costs no allocation.
#[derive(Debug, Default)]
pub(super) struct RequestContext {
    pub(super) request: Request,
    pub(super) upload: BodyForwarder,
    /// The body of the answer, once its head has come.
    pub(super) download: BodyForwarder,
    /// All of the body came together with the head.
    pub(super) is_here: bool,
    /// The backends that failed this request.
    pub(super) tried: Vec<BackendId>,
    pub(super) resolves: u32,
    /// How many connections to backends were asked for, from 0 again behind the last number.
    pub(super) connections: u8,
    /// The bytes that came from the client, with the head.
    pub(super) received_bytes: u64,
    /// The client was told to go on with the body, or does so unasked.
    pub(super) continued: bool,
    /// Interim answers of all backends that were tried.
    pub(super) informational_responses: u32,
    /// The last failure.
    pub(super) failure: Option<FailureReason>,
    /// The backend that the client names: no other serves.
    pub(super) named: Option<BackendId>,
    /// The backend that rules of HAProxy's lead to: it serves before all others.
    pub(super) wanted: Option<BackendId>,
    /// Its place in the queue of its cluster, from the first wait on.
    pub(super) ticket: Option<Ticket>,
    /// How long it may wait yet, from the first wait on.
    pub(super) wait_left: Option<Duration>,
    /// Why it was to be forwarded, where it has waited for the fill of the cache by another request.
    pub(super) waited: Option<Cause>,
    /// The part of the cache in it, where it has one.
    pub(super) caching: Option<Box<Caching>>,
    /// What compresses the body of the response, where rules have it so.
    pub(super) compressor: Option<Box<Compressor>>,
    /// How the client sends its body, and how it takes its answer.
    pub(super) upload_rate: MinRateMonitor,
    pub(super) download_rate: MinRateMonitor,
}

/// The boxes of requests that are over: a core has one stock and uses it again and again.
#[derive(Debug, Default)]
#[expect(clippy::vec_box, reason = "it is the boxes that are used again")]
pub struct RequestPool(Vec<Box<RequestContext>>);

impl RequestPool {
    /// A box with nothing of an earlier request in it but memory.
    pub(super) fn take(&mut self) -> Box<RequestContext> {
        self.0.pop().unwrap_or_default()
    }

    /// Takes back a box, and what is in it.
    pub(super) fn take_back(&mut self, mut context: Box<RequestContext>, buffers: &mut BufferPool) {
        context.request.recycle(buffers);
        if self.0.len() < MOST_SPARES {
            context.forget();
            self.0.push(context);
        }
    }
}

impl RequestContext {
    /// Makes a used box as good as new. The request and the bodies are made anew with the next head.
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
            ticket,
            wait_left,
            waited,
            caching,
            compressor,
            upload_rate,
            download_rate,
        } = self;
        (*waited, *caching, *compressor, *ticket, *wait_left) = (None, None, None, None, None);
        tried.clear();
        (*connections, *received_bytes) = (0, 0);
        (*resolves, *continued, *informational_responses, *failure) = (0, false, 0, None);
        (*named, *wanted) = (None, None);
        (*upload_rate, *download_rate) = (MinRateMonitor::default(), MinRateMonitor::default());
    }

    /// That of a request which has been where it was to go, or goes nowhere.
    pub(super) fn past(request: Request) -> Self {
        Self { request, ..Self::default() }
    }

    /// Whether a part of the body has yet to come from the client.
    pub(super) fn is_uploading(&self) -> bool {
        !self.is_here && !self.upload.is_done()
    }

    /// The body that comes from a side.
    pub(super) fn body_from(&self, side: Side) -> &BodyForwarder {
        match side {
            Side::Client => &self.upload,
            Side::Upstream => &self.download,
        }
    }

    /// Whether the client takes its answer as fast as it has to.
    pub(super) fn download_keeps_up(&mut self, now: Moment, settings: &Settings) -> bool {
        self.download_rate.keeps_up(now, settings)
    }

    /// Whether the client waits for the backend's 100 with the body (RFC 9110 section 10.1.1): it is the backend that is
    /// waited for then.
    pub(super) fn awaits_continue(&self) -> bool {
        self.request.expects_continue() && !self.continued
    }

    /// The client goes on with the body: from now on it is waited for.
    pub(super) fn on_continue(&mut self, now: Moment) {
        if self.awaits_continue() {
            self.upload_rate = MinRateMonitor::default();
            self.upload_rate.restart(now);
        }
        self.continued = true;
    }

    /// The future of the client's connection behind a response, if `client_stays` as far as that is concerned.
    pub(super) fn disposition(&self, client_stays: bool) -> Disposition {
        let is_uploaded = self.upload.is_done();
        match client_stays && is_uploaded {
            true => Disposition::KeepAlive,
            false => Disposition::Linger { client_may_send: !is_uploaded || self.request.keep_alive() },
        }
    }

    /// What the request demands of a member.
    pub(super) fn demand<'a>(&'a self, route: &'a Route) -> Demand<'a> {
        Demand { route, tried: &self.tried, named: self.named, wanted: self.wanted }
    }

    /// Whether the request may be sent to a backend again that may have it already: only if its method says that twice is as
    /// good as once (RFC 9110 section 9.2.2), and only while all of it is still here.
    pub(super) fn may_send_again(&self) -> bool {
        self.request.is_idempotent() && self.request.is_whole()
    }
}
