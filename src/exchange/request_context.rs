//! What a request carries from backend to backend until an answer begins.

use super::body_forwarder::BodyForwarder;
use super::caching::{self, Caching};
use super::min_rate::MinRateMonitor;
use super::queued::Queued;
use super::request::Request;
use super::{
    Disposition, Effect, Side, State, StepContext, WorkerContext, affinity, classes, connecting, local_reply,
    resolving_route,
};
use crate::balance::{self, Admit};
use crate::base::buffer::BufferPool;
use crate::base::clock::Moment;
use crate::base::reason::FailureReason;
use crate::cache::lookup::Cause;
use crate::cluster::{BackendId, Choice, Mark, Member, Options, Permit, Route, Scheduler, Service};
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
    /// The backend that the client names: no other serves.
    named: Option<BackendId>,
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
            waited,
            caching,
            upload_rate,
            download_rate,
        } = self;
        (*waited, *caching) = (None, None);
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

    /// Has a member of the route's cluster serve the request, now or when one has room.
    pub(super) fn connect(self: Box<Self>, route: Arc<Route>, cx: &mut StepContext<'_>) -> State {
        let max_body_bytes = cx.max_body_bytes_of(&route.cluster.options);
        let is_too_large = |limit| matches!(self.request.body(), BodyLength::Sized(length) if length > limit);
        let reason = match max_body_bytes {
            _ if route.cluster.options.is_disabled => FailureReason::ClusterDisabled,
            Some(limit) if is_too_large(limit) => FailureReason::BodyTooLarge,
            _ => return self.choose(route, cx),
        };
        cx.common.held_route = Some(route);
        self.refuse(reason, cx)
    }

    /// Chooses a member. A cluster with buckets gives a token first.
    pub(super) fn choose(self: Box<Self>, route: Arc<Route>, cx: &mut StepContext<'_>) -> State {
        match cx.common.needs_token(&route) {
            true => self.choose_with_token(route, cx),
            false => self.choose_member(route, cx),
        }
    }

    #[inline(never)]
    fn choose_with_token(self: Box<Self>, route: Arc<Route>, cx: &mut StepContext<'_>) -> State {
        let bucket = classes::bucket_of(&self.request, &route.cluster, &cx.core.settings);
        cx.common.bucket = Some(bucket);
        cx.common.token = route.cluster.try_token(bucket);
        if cx.common.token.is_some() || affinity::named(&self.request, &route.cluster).is_some() {
            return self.choose_member(route, cx);
        }
        let may_serve = |place: usize| route.allows(place, cx.core.now) && !self.has_tried(&route, place);
        match route.cluster.service(may_serve, cx.core.now) {
            // A request that no member may serve is told so without a wait for a token.
            Service::Unavailable => self.last_resort(route, cx),
            Service::Role(_) | Service::Full => self.wait(route, cx),
        }
    }

    fn choose_member(self: Box<Self>, route: Arc<Route>, cx: &mut StepContext<'_>) -> State {
        if let Some(place) = affinity::named(&self.request, &route.cluster) {
            return self.choose_named(route, place, cx);
        }
        let now = cx.core.now;
        let may_serve = |place: usize| route.allows(place, now) && !self.has_tried(&route, place);
        let (key, wanted) = match *route.cluster.options {
            Options { scheduler: Scheduler::Hash, .. } | Options { sticky_cookie: Some(_), .. } => {
                let key = affinity::hash(&self.request, &route.cluster.options);
                (key, affinity::session(&self.request, &route.cluster))
            }
            _ => (0, None),
        };
        let wanted = match &cx.common.rules {
            Some(rules) => rules.wanted().or(wanted),
            None => wanted,
        };
        let mut view = balance::View { may_serve: &may_serve, now, rng: &mut cx.core.rng, key, wanted };
        match balance::admit(&route.cluster, &mut view) {
            Admit::Slot(slot) => self.admitted(Permit::of_route(route, slot), cx),
            Admit::Full => self.wait(route, cx),
            Admit::Unavailable => self.last_resort(route, cx),
        }
    }

    fn wait(self: Box<Self>, route: Arc<Route>, cx: &mut StepContext<'_>) -> State {
        cx.common.held_route = Some(route);
        Queued::start(self, cx)
    }

    /// Takes the slot of a member that no other serves in place of, or waits for it.
    fn take_or_wait(
        self: Box<Self>,
        route: Arc<Route>,
        place: usize,
        cx: &mut StepContext<'_>,
    ) -> State {
        let needs_token = cx.common.needs_token(&route);
        match if needs_token { None } else { route.cluster.take(place, cx.core.now) } {
            Some(slot) => self.admitted(Permit::of_route(route, slot), cx),
            None => self.wait(route, cx),
        }
    }

    /// The member at `place` serves, which the client has named, and no other: it is how a change is tried before it is
    /// rolled out.
    #[cold]
    fn choose_named(mut self: Box<Self>, route: Arc<Route>, place: Option<usize>, cx: &mut StepContext<'_>) -> State {
        let serves = |place: &usize| {
            let mark = route.marks.get(*place);
            let is_marked = |mark: &Arc<Mark>| mark.is_removed() || mark.is_dead_external(cx.core.now);
            route.cluster.members.get(*place).is_some_and(Member::is_up) && !mark.is_some_and(is_marked)
        };
        let Some(place) = place.filter(|place| self.failure.is_none() && serves(place)) else {
            cx.common.held_route = Some(route);
            let reason = self.failure.unwrap_or(FailureReason::NamedBackendDown);
            return self.refuse(reason, cx);
        };
        self.named = route.cluster.members.get(place).map(|member| member.backend.id());
        self.take_or_wait(route, place, cx)
    }

    fn has_tried(&self, route: &Route, place: usize) -> bool {
        let member = route.cluster.members.get(place);
        !self.tried.is_empty() && member.is_some_and(|member| self.tried.contains(&member.backend.id()))
    }

    /// Whether a member may serve that a permit is for: one of a list that may be newer than the route.
    pub(super) fn accepts(&self, permit: &Permit, route: &Route, now: Moment) -> bool {
        let backend = permit.member().backend.id();
        if let Some(named) = self.named {
            return named == backend;
        }
        let is_marked = |mark: &Arc<Mark>| mark.is_removed() || mark.ends_at(now).is_some();
        !self.tried.contains(&backend) && !route.mark_of(backend).is_some_and(is_marked)
    }

    /// The members that may serve the request while it waits.
    pub(super) fn choice(&self, route: &Route, now: Moment) -> Choice {
        if let Some(named) = self.named {
            return Choice::Only(named);
        }
        let others = route.cluster.members.iter().enumerate();
        let marked = others.filter(|(place, _)| !route.allows(*place, now)).map(|(_, member)| member.backend.id());
        // A slot may be one of a newer list: members tried there are in no older one.
        let others: Box<[_]> = marked.chain(self.tried.iter().copied()).collect();
        if others.is_empty() { Choice::Any } else { Choice::Except(others) }
    }

    /// A member serves the request: asks for a connection to it.
    pub(super) fn admitted(self: Box<Self>, mut permit: Permit, cx: &mut StepContext<'_>) -> State {
        let may_become_tunnel = self.request.offered_protocols().is_some();
        if may_become_tunnel && !permit.reserve_tunnel() {
            cx.common.held_route = permit.route().cloned().or(cx.common.held_route.take());
            return self.refuse(FailureReason::TunnelLimit, cx);
        }
        if let Some(token) = cx.common.token.take() {
            permit.attach(token);
        }
        cx.common.stats.chose_backend(cx.core.now);
        if permit.route().is_some() {
            cx.common.held_route = None;
        }
        cx.common.permit = Some(permit);
        if !self.tried.is_empty() {
            cx.effect(Effect::Retry { stale: false });
        }
        self.dial(false, cx)
    }

    /// No member may serve. When the marks of this node alone stand in the way, the member whose mark ends first serves
    /// (Hipache): a mark of this node's own is an old guess, and to act on it when nothing else is left can only help. A
    /// member that others have marked never serves.
    #[cold]
    fn last_resort(self: Box<Self>, route: Arc<Route>, cx: &mut StepContext<'_>) -> State {
        let now = cx.core.now;
        let members = route.cluster.members.iter().zip(&route.marks).enumerate();
        let is_left = |(place, (member, mark)): &(usize, (&Member, &Arc<Mark>))| {
            let is_up = member.is_up() && !mark.is_removed() && !mark.is_dead_external(now);
            is_up && member.attributes.weight > 0 && !self.has_tried(&route, *place)
        };
        let left =
            members.filter(is_left).min_by_key(|(_, (member, mark))| (member.role() as u8, mark.dead_until(now)));
        if let Some((place, _)) = left {
            return self.take_or_wait(route, place, cx);
        }
        // The list was changed while the request was under way: the new one has the backends to try.
        if self.resolves < MAX_RESOLVES && route.is_stale() {
            cx.common.held_route = Some(route);
            return self.resolve(cx);
        }
        if route.cluster.options.queue.enqueue_on_unavailable && self.failure.is_none() {
            return self.wait(route, cx);
        }
        cx.common.held_route = Some(route);
        let reason = self.failure.unwrap_or(FailureReason::NoBackend);
        self.refuse(reason, cx)
    }

    /// Asks for the route again, if that may help.
    pub(super) fn resolve_again(self: Box<Self>, cx: &mut StepContext<'_>) -> State {
        if self.resolves < MAX_RESOLVES { self.resolve(cx) } else { self.refuse(FailureReason::NoBackend, cx) }
    }

    fn dial(self: Box<Self>, fresh: bool, cx: &mut StepContext<'_>) -> State {
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
        permit.member().state.history().count(true, cx.core.now);
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
