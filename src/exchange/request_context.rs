//! What a request carries from backend to backend until an answer begins.

use super::body_forwarder::BodyForwarder;
use super::caching::{self, Caching};
use super::min_rate::MinRateMonitor;
use super::request::Request;
use super::{Disposition, Effect, Side, State, StepContext, WorkerContext, connecting, local_reply, resolving_route};
use crate::base::buffer::BufferPool;
use crate::base::reason::FailureReason;
use crate::cache::lookup::Cause;
use crate::cluster::{BackendId, Ticket};
use crate::wire::body::BodyLength;
use crate::wire::chunked::ChunkFault;
use crate::wire::forwarded::Peer;
use crate::wire::request::RequestHead;
use std::time::Duration;

/// How often the route is asked for again because every backend of the list found had just been retired. A list that
/// comes back retired so often is stale where it is kept, and to ask on would be a loop without end.
pub(super) const MAX_RESOLVES: u32 = 32;

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
    /// The client was told to go on with the body, or does so unasked.
    pub(super) continued: bool,
    /// Interim answers of all backends that were tried.
    pub(super) informational_responses: u32,
    /// The last failure.
    pub(super) failure: Option<FailureReason>,
    /// The backend that the client names: no other serves.
    pub(super) named: Option<BackendId>,
    /// Its place in the queue of its cluster, from the first wait on.
    pub(super) ticket: Option<Ticket>,
    /// How long it may wait yet, from the first wait on.
    pub(super) wait_left: Option<Duration>,
    /// Why it was to be forwarded, where it has waited for the fill of the cache by another request.
    pub(super) waited: Option<Cause>,
    /// The part of the cache in it, where it has one.
    pub(super) caching: Option<Box<Caching>>,
    /// How the client sends its body, and how it takes its answer.
    pub(super) upload_rate: MinRateMonitor,
    pub(super) download_rate: MinRateMonitor,
}

/// The boxes of requests that are over: a core has one stock and uses it again and again.
#[derive(Debug, Default)]
#[expect(clippy::vec_box, reason = "it is the boxes that are used again")]
pub struct RequestPool(Vec<Box<RequestContext>>);

impl RequestPool {
    fn take(&mut self) -> Box<RequestContext> {
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
    /// That of the request with this head, of whose body `behind` bytes have come with it.
    pub(super) fn begin(
        head: &RequestHead<'_, '_>,
        behind: u64,
        peer: &Peer,
        cx: &mut StepContext<'_>,
    ) -> Result<Box<Self>, FailureReason> {
        let mut context = cx.core.request_pool.take();
        match context.request.take(head, peer, cx) {
            Ok(()) => {
                let body = context.request.body();
                context.upload = BodyForwarder::new(body, body == BodyLength::Chunked, &cx.core.settings.limits);
                context.is_here = matches!(body, BodyLength::Sized(length) if length <= behind);
                Ok(context)
            }
            Err(reason) => {
                cx.core.request_pool.take_back(context, &mut cx.core.buffers);
                Err(reason)
            }
        }
    }

    /// Makes a used box as good as new. The request and the bodies are made anew with the next head.
    fn forget(&mut self) {
        let Self {
            request: _,
            upload: _,
            download: _,
            is_here: _,
            tried,
            resolves,
            continued,
            informational_responses,
            failure,
            named,
            ticket,
            wait_left,
            waited,
            caching,
            upload_rate,
            download_rate,
        } = self;
        (*waited, *caching, *ticket, *wait_left) = (None, None, None, None);
        tried.clear();
        (*resolves, *continued, *informational_responses, *failure, *named) = (0, false, 0, None, None);
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

    /// Notes how much of the input was of the body, and says what there is against it.
    pub(super) fn judge_upload(
        &mut self,
        fed: Result<usize, ChunkFault>,
        cx: &mut StepContext<'_>,
    ) -> Result<(), FailureReason> {
        cx.consumed = fed?;
        self.upload_rate.count(cx.consumed);
        if !self.upload_rate.keeps_up(cx.core.now, &cx.core.settings) {
            return Err(FailureReason::BodyTooSlow);
        }
        if cx.max_body_bytes().is_some_and(|limit| self.upload.received() > limit) {
            return Err(FailureReason::BodyTooLarge);
        }
        if self.upload.is_done() {
            cx.effect(Effect::Uploaded);
        }
        Ok(())
    }

    /// Whether the client takes its answer as fast as it has to.
    pub(super) fn download_keeps_up(&mut self, core: &WorkerContext) -> bool {
        self.download_rate.keeps_up(core.now, &core.settings)
    }

    /// Whether the client waits for the backend's 100 with the body (RFC 9110 section 10.1.1): it is the backend that is
    /// waited for then.
    pub(super) fn awaits_continue(&self) -> bool {
        self.request.expects_continue() && !self.continued
    }

    /// The client goes on with the body: from now on it is waited for.
    pub(super) fn on_continue(&mut self, cx: &mut StepContext<'_>) {
        if self.awaits_continue() {
            self.upload_rate = MinRateMonitor::default();
            self.upload_rate.restart(cx.core.now);
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

    /// Asks for the route. It may lead to another cluster: a token of this one is given back.
    pub(super) fn resolve(mut self: Box<Self>, cx: &mut StepContext<'_>) -> State {
        self.resolves += 1;
        cx.common.give_back_token();
        cx.effect(Effect::Resolve);
        cx.deadline_in(cx.core.settings.connect_timeout);
        State::ResolvingRoute(resolving_route::ResolvingRoute { context: self })
    }

    /// Asks for the route again, if that may help.
    pub(super) fn resolve_again(self: Box<Self>, cx: &mut StepContext<'_>) -> State {
        if self.resolves < MAX_RESOLVES { self.resolve(cx) } else { self.refuse(FailureReason::NoBackend, cx) }
    }

    pub(super) fn dial(self: Box<Self>, fresh: bool, cx: &mut StepContext<'_>) -> State {
        cx.connect(fresh);
        cx.deadline_in(cx.connect_timeout());
        State::Connecting(connecting::Connecting { context: self, queued: false })
    }

    /// The target failed before anything of its answer was passed on: tries another backend, if there is one and
    /// `server.retryOnError` allows.
    #[cold]
    pub(super) fn try_another(mut self: Box<Self>, failure: FailureReason, cx: &mut StepContext<'_>) -> State {
        self.failure = Some(failure);
        cx.release(false);
        let (Some(permit), Some(route)) = (&cx.common.permit, cx.common.route().cloned()) else {
            return self.refuse(failure, cx);
        };
        self.tried.push(permit.member().backend.id());
        if cx.common.client_left || self.tried.len() > cx.retry_limit() {
            return self.refuse(failure, cx);
        }
        self.choose(route, cx)
    }

    /// A connection of the pool turned out to be closed: that says nothing about the backend, so the request goes
    /// there again, by a new connection.
    #[cold]
    pub(super) fn try_fresh(self: Box<Self>, cx: &mut StepContext<'_>) -> State {
        cx.release_connection(false);
        cx.effect(Effect::Retry { stale: true });
        self.dial(true, cx)
    }

    /// The request goes to its member again, without the validators of a stored response.
    #[cold]
    pub(super) fn send_again(self: Box<Self>, reuse: bool, cx: &mut StepContext<'_>) -> State {
        cx.release_connection(reuse);
        self.dial(false, cx)
    }

    /// Sends the client to where connections are encrypted.
    pub(super) fn redirect(self: Box<Self>, cx: &mut StepContext<'_>) -> State {
        local_reply::redirect(self, cx)
    }

    /// Ends the journey with an answer of this node's own.
    #[cold]
    pub(super) fn refuse(mut self: Box<Self>, reason: FailureReason, cx: &mut StepContext<'_>) -> State {
        cx.release(false);
        if let Some(shadow) = caching::stand_in(&mut self, reason.status(), cx) {
            return caching::serve_shadow(self, shadow, cx);
        }
        let uploaded = self.upload.is_done();
        local_reply::refuse(Some((self, uploaded)), reason, cx)
    }
}
