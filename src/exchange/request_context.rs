//! What a request carries from backend to backend until an answer begins.

use super::body_forwarder::BodyForwarder;
use super::min_rate::MinRateMonitor;
use super::request::Request;
use super::{Disposition, Effect, Side, State, StepContext, WorkerContext, connecting, local_reply, resolving_route};
use crate::balance;
use crate::base::buffer::BufferPool;
use crate::base::clock::Moment;
use crate::base::reason::FailureReason;
use crate::cluster::{BackendId, Frontend, Member};
use crate::health::{self, Observation};
use crate::wire::body::BodyLength;
use crate::wire::chunked::ChunkFault;
use crate::wire::forwarded::Peer;
use crate::wire::request::RequestHead;
use std::sync::Arc;

/// How often the route is asked for again because every backend of the list found had just been retired. A list that
/// comes back retired so often is stale where it is kept, and to ask on would be a loop without end.
const MAX_RESOLVES: u32 = 32;

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
    tried: Vec<BackendId>,
    resolves: u32,
    /// The client was told to go on with the body, or does so unasked.
    pub(super) continued: bool,
    /// Interim answers of all backends that were tried.
    pub(super) informational_responses: u32,
    /// The last failure.
    failure: Option<FailureReason>,
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

/// The member of a frontend that the request goes to.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) frontend: Arc<Frontend>,
    /// Its place in the list.
    pub(super) place: usize,
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
            upload_rate,
            download_rate,
        } = self;
        tried.clear();
        (*resolves, *continued, *informational_responses, *failure) = (0, false, 0, None);
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
        let settings = &cx.core.settings;
        if !self.upload_rate.keeps_up(cx.core.now, settings) {
            return Err(FailureReason::BodyTooSlow);
        }
        if settings.max_body_bytes.is_some_and(|limit| self.upload.received() > limit) {
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

    /// Asks for the route.
    pub(super) fn resolve(mut self: Box<Self>, cx: &mut StepContext<'_>) -> State {
        self.resolves += 1;
        cx.effect(Effect::Resolve);
        cx.deadline_in(cx.core.settings.connect_timeout);
        State::ResolvingRoute(resolving_route::ResolvingRoute { context: self })
    }

    /// Chooses a backend and asks for a connection to it.
    pub(super) fn connect(self: Box<Self>, frontend: Arc<Frontend>, cx: &mut StepContext<'_>) -> State {
        match balance::pick(&frontend, &self.tried, cx.core.now, &mut cx.core.rng) {
            Some(place) => {
                cx.common.stats.chose_backend(cx.core.now);
                cx.common.target = Some(Target { frontend, place });
                if !self.tried.is_empty() {
                    cx.effect(Effect::Retry { stale: false });
                }
                self.dial(false, cx)
            }
            // The list was changed while the request was under way: the new one has the backends to try.
            None if self.resolves < MAX_RESOLVES && frontend.is_stale() => self.resolve(cx),
            None => {
                let reason = self.failure.unwrap_or(FailureReason::NoBackend);
                self.refuse(reason, cx)
            }
        }
    }

    fn dial(self: Box<Self>, fresh: bool, cx: &mut StepContext<'_>) -> State {
        cx.connect(fresh);
        cx.deadline_in(cx.core.settings.connect_timeout);
        State::Connecting(connecting::Connecting { context: self, queued: false })
    }

    /// The target failed before anything of its answer was passed on: tries another backend, if there is one and
    /// `server.retryOnError` allows.
    #[cold]
    pub(super) fn try_another(mut self: Box<Self>, failure: FailureReason, cx: &mut StepContext<'_>) -> State {
        self.failure = Some(failure);
        cx.release(false);
        let Some(target) = &cx.common.target else { return self.refuse(failure, cx) };
        self.tried.push(target.member().backend.id());
        if cx.common.client_left || self.tried.len() > cx.core.settings.retry_limit as usize {
            return self.refuse(failure, cx);
        }
        let frontend = Arc::clone(&target.frontend);
        self.connect(frontend, cx)
    }

    /// A connection of the pool turned out to be closed: that says nothing about the backend, so the request goes
    /// there again, by a new connection.
    #[cold]
    pub(super) fn try_fresh(self: Box<Self>, cx: &mut StepContext<'_>) -> State {
        cx.release(false);
        cx.effect(Effect::Retry { stale: true });
        self.dial(true, cx)
    }

    /// Sends the client to where connections are encrypted.
    pub(super) fn redirect(self: Box<Self>, cx: &mut StepContext<'_>) -> State {
        local_reply::redirect(self, cx)
    }

    /// Ends the journey with an answer of this node's own.
    #[cold]
    pub(super) fn refuse(self: Box<Self>, reason: FailureReason, cx: &mut StepContext<'_>) -> State {
        cx.release(false);
        let uploaded = self.upload.is_done();
        local_reply::refuse(Some((self, uploaded)), reason, cx)
    }
}

impl Target {
    #[expect(clippy::indexing_slicing, reason = "the place is the one that `balance` picked in this list")]
    pub(super) fn member(&self) -> &Member {
        &self.frontend.members[self.place]
    }

    /// Marks the member dead if what was seen of it says so; whether that is so, and to be told. An only member never is:
    /// there is nothing to go to instead. A mark is made, and told, anew when half of its time is over: where all members
    /// are marked, each request meets one.
    pub(super) fn is_marked_by(&self, seen: Observation, now: Moment, settings: &health::Settings) -> bool {
        if self.frontend.members.len() < 2 || !health::is_dead(seen, settings, now) {
            return false;
        }
        let ttl = settings.mark_ttl(now);
        let is_fresh = |until: Moment| until.since(now) > ttl / 2;
        if self.member().dead_until(now).is_some_and(is_fresh) {
            return false;
        }
        self.member().mark_dead(now + ttl);
        self.member().note_marked();
        true
    }
}
