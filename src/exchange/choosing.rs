//! A member of the cluster is chosen for a request, or the request waits for one.

use super::queued::Queued;
use super::request_context::{MAX_RESOLVES, RequestContext};
use super::step_context::CommonState;
use super::{Effect, Settings, State, StepContext, affinity, classes};
use crate::balance::{self, Admit};
use crate::base::reason::FailureReason;
use crate::base::turns::Turn;
use crate::cluster::{Demand, GrantSink, Member, Options, Permit, Route, Scheduler, Service, View, Waiter};
use crate::wire::body::BodyLength;
use std::sync::Arc;

impl RequestContext {
    /// Has a member of the route's cluster serve the request, now or when one has room.
    pub(super) fn connect(self: Box<Self>, route: Arc<Route>, cx: &mut StepContext<'_>) -> State {
        let options = &route.cluster.options;
        let is_too_large = |limit| matches!(self.request.body(), BodyLength::Sized(length) if length > limit);
        let reason = match cx.max_body_bytes_of(options) {
            _ if options.is_disabled => FailureReason::ClusterDisabled,
            Some(limit) if is_too_large(limit) => FailureReason::BodyTooLarge,
            _ if options.requests_per_second > 0 && !cx.common.had_turn => return self.await_turn(route, cx),
            _ => return self.choose(route, cx),
        };
        self.refuse_at(route, reason, cx)
    }

    /// Chooses a member when the request's turn comes: there are only so many a second.
    #[cold]
    fn await_turn(self: Box<Self>, route: Arc<Route>, cx: &mut StepContext<'_>) -> State {
        cx.common.had_turn = true;
        match route.cluster.admission.take_turn(&route.cluster.options.queue, cx.core.now) {
            Turn::Now => self.choose(route, cx),
            Turn::At(moment) => {
                cx.common.held_route = Some(route);
                Queued::await_turn(self, moment, cx)
            }
            Turn::Refused => self.refuse_at(route, FailureReason::QueueFull, cx),
        }
    }

    /// Chooses a member. A cluster with buckets gives a token first.
    pub(super) fn choose(mut self: Box<Self>, route: Arc<Route>, cx: &mut StepContext<'_>) -> State {
        if let Some(place) = affinity::named(&self.request, &route.cluster, &cx.core.settings.forwarded) {
            let member = place.and_then(|place| route.cluster.members.get(place));
            let Some(member) = member else { return self.refuse_at(route, FailureReason::NamedBackendDown, cx) };
            self.named = Some(member.backend.id());
        }
        match cx.common.needs_token(&route) {
            true => self.choose_with_token(route, cx),
            false => self.choose_member(route, cx),
        }
    }

    #[inline(never)]
    fn choose_with_token(self: Box<Self>, route: Arc<Route>, cx: &mut StepContext<'_>) -> State {
        let bucket = classes::bucket_of(&self.request, &route.cluster, &cx.core.settings);
        cx.common.bucket = Some(bucket);
        cx.common.token = route.cluster.try_token(bucket, cx.core.now);
        if cx.common.token.is_some() {
            return self.choose_member(route, cx);
        }
        match route.cluster.service(&self.demand(&route), cx.core.now) {
            // A request that no member may serve is told so without a wait for a token.
            Service::Unavailable => self.unavailable(route, cx),
            Service::Open(_) | Service::Full => self.wait(route, cx),
        }
    }

    fn choose_member(self: Box<Self>, route: Arc<Route>, cx: &mut StepContext<'_>) -> State {
        let (key, session) = self.preference(&route, cx.common, &cx.core.settings);
        let mut view = View { demand: self.demand(&route), now: cx.core.now, rng: &mut cx.core.rng, key, session };
        match balance::admit(&route.cluster, &mut view) {
            Admit::Slot(slot) => self.admitted(Permit::of_route(route, slot), cx),
            Admit::Full => self.wait(route, cx),
            Admit::Unavailable => self.unavailable(route, cx),
        }
    }

    /// What the request demands of a member.
    pub(super) fn demand<'a>(&'a self, route: &'a Route) -> Demand<'a> {
        Demand { route, tried: &self.tried, named: self.named }
    }

    /// The hash of its key, and the identity of the member that it belongs to: by a rule, or by its session.
    fn preference(&self, route: &Route, common: &CommonState, settings: &Settings) -> (u64, Option<u64>) {
        let (key, session) = match &*route.cluster.options {
            options @ (Options { scheduler: Scheduler::Hash, .. } | Options { sticky_cookie: Some(_), .. }) => {
                (affinity::hash(&self.request, options, &settings.forwarded), affinity::session(&self.request, options))
            }
            _ => (0, None),
        };
        let Some(rules) = &common.rules else { return (key, session) };
        let wanted = rules.wanted().and_then(|place| route.cluster.members.get(place));
        (key, wanted.map(Member::identity).or(session))
    }

    /// The request as the queue of its cluster has it.
    pub(super) fn waiter(
        &self,
        route: &Arc<Route>,
        common: &CommonState,
        sink: Arc<dyn GrantSink>,
        exchange: u64,
        settings: &Settings,
    ) -> Waiter {
        let (key, session) = self.preference(route, common, settings);
        Waiter {
            sink,
            exchange,
            route: Arc::clone(route),
            tried: self.tried.as_slice().into(),
            named: self.named,
            pick: balance::pick,
            key,
            session,
            has_token: common.token.is_some(),
        }
    }

    fn wait(self: Box<Self>, route: Arc<Route>, cx: &mut StepContext<'_>) -> State {
        cx.common.held_route = Some(route);
        Queued::start(self, cx)
    }

    fn refuse_at(self: Box<Self>, route: Arc<Route>, reason: FailureReason, cx: &mut StepContext<'_>) -> State {
        cx.common.held_route = Some(route);
        let reason = self.failure.unwrap_or(reason);
        self.refuse(reason, cx)
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
        if let Some(failed) = cx.common.permit.replace(permit) {
            // Its request ends with another member, which alone is counted then.
            failed.member().state.history().count(true, cx.core.now);
            cx.effect(Effect::Retry { stale: false });
        }
        self.dial(false, cx)
    }

    /// No member may serve.
    #[cold]
    fn unavailable(self: Box<Self>, route: Arc<Route>, cx: &mut StepContext<'_>) -> State {
        let is_named = self.named.is_some();
        // The list was changed while the request was under way: the new one has the backends to try.
        if !is_named && self.resolves < MAX_RESOLVES && route.is_stale() {
            cx.common.held_route = Some(route);
            return self.resolve(cx);
        }
        if route.cluster.options.queue.enqueue_on_unavailable && self.failure.is_none() && !is_named {
            return self.wait(route, cx);
        }
        let reason = if is_named { FailureReason::NamedBackendDown } else { FailureReason::NoBackend };
        self.refuse_at(route, reason, cx)
    }
}
