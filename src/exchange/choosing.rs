//! The choice of a member for a request, or its wait for one.

use super::events::Effect;
use super::request_context::RequestContext;
use super::settings::Settings;
use super::step_context::{CommonState, RatesPassed, StepContext, WaitsFor};
use super::transition::{Failure, Transition};
use super::worker_context::WorkerContext;
use super::{affinity, classes};
use crate::balance::{self, Admit};
use crate::base::client_rates::ClientRates;
use crate::base::rate_limiter::Turn;
use crate::base::reason::FailureReason;
use crate::cluster::{GrantSink, Options, Permit, Route, Scheduler, Service, View, Waiter};
use crate::wire::body::BodyLength;
use std::sync::Arc;

/// The number of times that the route is resolved again because every backend of its list was just removed. A list that
/// is removed that often is stale in its cache, and further attempts would loop.
const MAX_RESOLVES: u32 = 32;

/// Whether the route may be resolved again.
pub(super) fn may_resolve(context: &RequestContext) -> bool {
    context.resolves < MAX_RESOLVES
}

/// Assigns the request to a member of the route's cluster, now or once one has room.
pub(super) fn connect(
    context: Box<RequestContext>,
    route: Arc<Route>,
    cx: &mut StepContext<'_>,
) -> Result<Transition, Failure> {
    let options = &route.cluster.options;
    let is_too_large = |limit| matches!(context.request.body(), BodyLength::Sized(length) if length > limit);
    let reason = match cx.max_body_bytes_of(options) {
        _ if options.is_disabled && !options.holds() => FailureReason::ClusterDisabled,
        Some(limit) if is_too_large(limit) => FailureReason::BodyTooLarge,
        _ if options.max_requests_per_client.is_some() && !has_client_slot(&context, &route, cx) => {
            FailureReason::ClientLimit
        }
        _ if options.requests_per_second_per_client > 0 && !is_within_rate(&context, &route, cx) => {
            FailureReason::ClientRate
        }
        _ if options.requests_per_second > 0 && !cx.common.rates_passed.has(RatesPassed::TURN) => {
            return await_turn(context, route, cx);
        }
        _ => return choose(context, route, cx),
    };
    Err(failure_at(context, route, reason, cx))
}

/// Takes one of the client's slots (`maxRequestsPerClient`), unless the request has one. Returns whether it has one
/// now.
#[cold]
fn has_client_slot(context: &RequestContext, route: &Route, cx: &mut StepContext<'_>) -> bool {
    if let (None, Some(limit)) = (&cx.common.client_slot, route.cluster.options.max_requests_per_client) {
        let client = context.request.forwarded_client(&cx.core.settings.forwarded);
        cx.common.client_slot = route.cluster.admission.take_client(client, limit).map(Box::new);
    }
    cx.common.client_slot.is_some()
}

/// Whether the client's rate allows this request, which is counted once.
#[cold]
fn is_within_rate(context: &RequestContext, route: &Route, cx: &mut StepContext<'_>) -> bool {
    if cx.common.rates_passed.pass(RatesPassed::CLIENT) {
        return true;
    }
    let client = context.request.forwarded_client(&cx.core.settings.forwarded);
    let frontend = Arc::as_ptr(&route.cluster.admission).addr();
    let rate = route.cluster.options.requests_per_second_per_client;
    ClientRates::of_process().take(frontend, client, rate, cx.core.now)
}

/// Chooses a member when the turn of the request comes, given a limit of requests a second.
#[cold]
fn await_turn(
    context: Box<RequestContext>,
    route: Arc<Route>,
    cx: &mut StepContext<'_>,
) -> Result<Transition, Failure> {
    cx.common.rates_passed.pass(RatesPassed::TURN);
    match route.cluster.admission.take_turn(&route.cluster.options, cx.core.now) {
        Turn::Now => choose(context, route, cx),
        Turn::At(moment) => {
            cx.common.held_route = Some(route);
            Ok(Transition::AwaitTurn(context, moment))
        }
        Turn::Refused => {
            let waits = route.cluster.options.requests_per_second_waits.0;
            cx.common.waits_for = WaitsFor::Turn;
            let reason = if waits { FailureReason::QueueFull } else { FailureReason::FrontendRate };
            Err(failure_at(context, route, reason, cx))
        }
    }
}

/// Chooses a member. In a cluster with buckets the request needs a token first.
pub(super) fn choose(
    mut context: Box<RequestContext>,
    route: Arc<Route>,
    cx: &mut StepContext<'_>,
) -> Result<Transition, Failure> {
    context.arrived.get_or_insert(cx.core.now);
    if let Some(place) = affinity::named(&context.request, &route.cluster, &cx.core.settings.forwarded) {
        let member = place.and_then(|place| route.cluster.members.get(place));
        let Some(member) = member else {
            return Err(failure_at(context, route, FailureReason::NamedBackendDown, cx));
        };
        context.named = Some(member.backend.id());
    }
    let wanted = cx.common.rules.as_ref().and_then(|rules| rules.wanted());
    let wanted = wanted.or_else(|| affinity::session_of_selected(&context.request, &route.cluster));
    context.wanted = wanted.and_then(|place| route.cluster.members.get(place)).map(|member| member.backend.id());
    match cx.common.needs_token(&route) {
        _ if route.cluster.options.holds() => Ok(hold(context, route, cx)),
        true => choose_with_token(context, route, cx),
        false => choose_member(context, route, cx),
    }
}

#[inline(never)]
fn choose_with_token(
    context: Box<RequestContext>,
    route: Arc<Route>,
    cx: &mut StepContext<'_>,
) -> Result<Transition, Failure> {
    let bucket = classes::bucket_of(&context.request, &route.cluster, &cx.core.settings);
    cx.common.bucket = Some(bucket);
    cx.common.token = route.cluster.try_token(bucket, cx.core.now);
    if cx.common.token.is_some() {
        return choose_member(context, route, cx);
    }
    match route.cluster.service(&context.demand(&route), cx.core.now) {
        // A request that no member may serve fails at once, without a wait for a token.
        Service::Unavailable => unavailable(context, route, cx),
        Service::Open(_) | Service::Full => Ok(wait(context, route, cx)),
    }
}

fn choose_member(
    context: Box<RequestContext>,
    route: Arc<Route>,
    cx: &mut StepContext<'_>,
) -> Result<Transition, Failure> {
    match admit(&context, &route, cx) {
        Admit::Slot(slot) => admitted(context, Permit::of_route(route, slot), cx),
        Admit::Full => Ok(wait(context, route, cx)),
        Admit::Unavailable => unavailable(context, route, cx),
    }
}

/// A permit of another member that has room now. The request keeps its present permit.
pub(super) fn another(context: &RequestContext, route: Arc<Route>, cx: &mut StepContext<'_>) -> Option<Permit> {
    match admit(context, &route, cx) {
        Admit::Slot(slot) => Some(Permit::of_route(route, slot)),
        Admit::Full | Admit::Unavailable => None,
    }
}

/// Takes a slot of a member that may serve the request, if one has room.
fn admit(context: &RequestContext, route: &Route, cx: &mut StepContext<'_>) -> Admit {
    let (key, session) = preference(context, route, &cx.core.settings);
    let mut view = View { demand: context.demand(route), now: cx.core.now, rng: &mut cx.core.rng, key, session };
    balance::admit(&route.cluster, &mut view)
}

/// The hash of the request's key, and the member of its session.
fn preference(context: &RequestContext, route: &Route, settings: &Settings) -> (u64, Option<u64>) {
    let request = &context.request;
    match &*route.cluster.options {
        options @ (Options { scheduler: Scheduler::Hash, .. } | Options { sticky_cookie: Some(_), .. }) => {
            (affinity::hash(request, options, &settings.forwarded), affinity::session(request, options))
        }
        _ => (0, None),
    }
}

/// The request's entry in the queue of its cluster; `exchange` and `sink` identify it.
pub(super) fn waiter(
    context: &RequestContext,
    route: &Arc<Route>,
    common: &CommonState,
    (sink, exchange): (Arc<dyn GrantSink>, u64),
    core: &WorkerContext,
) -> Waiter {
    let (key, session) = preference(context, route, &core.settings);
    Waiter {
        sink,
        exchange,
        arrived: context.arrived.unwrap_or(core.now),
        route: Arc::clone(route),
        tried: context.tried.as_slice().into(),
        named: context.named,
        wanted: context.wanted,
        pick: balance::pick,
        key,
        session,
        has_token: common.token.is_some(),
    }
}

fn wait(context: Box<RequestContext>, route: Arc<Route>, cx: &mut StepContext<'_>) -> Transition {
    cx.common.held_route = Some(route);
    Transition::Wait(context)
}

/// The request waits for the frontend to be enabled. An application that sleeps is to be woken.
#[cold]
fn hold(context: Box<RequestContext>, route: Arc<Route>, cx: &mut StepContext<'_>) -> Transition {
    if route.cluster.options.wake {
        cx.effect(Effect::Wake);
    }
    wait(context, route, cx)
}

/// Whether a request that has failed for this reason waits for its application to be woken, whatever the limit of retries is.
#[cold]
pub(super) fn is_to_wake(context: &RequestContext, reason: FailureReason, common: &CommonState) -> bool {
    let wakes = common.options().is_some_and(|options| options.wake);
    wakes && context.named.is_none() && is_of_sleep(reason)
}

/// How a backend fails that sleeps.
fn is_of_sleep(reason: FailureReason) -> bool {
    matches!(reason, FailureReason::ConnectFailed | FailureReason::ConnectTimeout | FailureReason::NameNotResolved)
}

/// No backend takes the request: it waits for one that does, and the application is to be woken. Where a backend has just
/// taken no connection, a probe is about to find it down; until then the request stays away from it.
#[cold]
pub(super) fn await_wake(mut context: Box<RequestContext>, route: Arc<Route>, cx: &mut StepContext<'_>) -> Transition {
    // It keeps no token from those that a backend may serve meanwhile, and comes back to its place.
    cx.common.held_route = Some(route);
    cx.common.give_back_token();
    cx.effect(Effect::Wake);
    let has_failed = context.failure.take().is_some();
    (context.resolves, context.tried) = (0, Default::default());
    match has_failed {
        true => Transition::WaitToRetry(context),
        false => Transition::Wait(context),
    }
}

/// A failure at this route. An earlier failure of a member takes precedence.
fn failure_at(
    context: Box<RequestContext>,
    route: Arc<Route>,
    reason: FailureReason,
    cx: &mut StepContext<'_>,
) -> Failure {
    cx.common.held_route = Some(route);
    let reason = context.failure.unwrap_or(reason);
    Failure::new(context, reason)
}

/// Continues with the member that serves the request.
pub(super) fn admitted(
    context: Box<RequestContext>,
    mut permit: Permit,
    cx: &mut StepContext<'_>,
) -> Result<Transition, Failure> {
    let may_become_tunnel = context.request.offered_protocols().is_some();
    if may_become_tunnel && !permit.reserve_tunnel() {
        cx.common.held_route = permit.route().cloned().or(cx.common.held_route.take());
        return Err(Failure::new(context, FailureReason::TunnelLimit));
    }
    if let Some(token) = cx.common.token.take() {
        permit.attach(token);
    }
    cx.common.stats.chose_backend(cx.core.now);
    if permit.route().is_some() {
        cx.common.held_route = None;
    }
    if let Some(failed) = &mut cx.common.permit {
        permit.stay_in_node(failed);
    }
    if let Some(failed) = cx.common.permit.replace(permit) {
        // The request ends with another member, which alone counts it then.
        failed.member().state.history().count(true, cx.core.now);
        cx.effect(Effect::Retry { stale: false });
    }
    match has_node_token(cx) {
        true => Ok(Transition::Dial(context)),
        false => Ok(Transition::WaitForNode(context)),
    }
}

/// Whether the request may be in flight at this node: there is room among those of all tenants, or none is needed.
#[inline]
fn has_node_token(cx: &mut StepContext<'_>) -> bool {
    match (&cx.core.tenants, &mut cx.common.permit) {
        (Some(tenants), Some(permit)) => tenants.enter(permit, cx.core.now),
        _ => true,
    }
}

/// Handles a request that no member may serve.
#[cold]
fn unavailable(
    context: Box<RequestContext>,
    route: Arc<Route>,
    cx: &mut StepContext<'_>,
) -> Result<Transition, Failure> {
    let is_named = context.named.is_some();
    // The list was changed meanwhile: the new list has the backends to try.
    if !is_named && may_resolve(&context) && route.is_stale() {
        cx.common.held_route = Some(route);
        return Ok(Transition::Resolve(context));
    }
    if route.cluster.options.wake && !is_named && context.failure.is_none_or(is_of_sleep) {
        return Ok(await_wake(context, route, cx));
    }
    if route.cluster.options.queue.enqueue_on_unavailable && context.failure.is_none() && !is_named {
        return Ok(wait(context, route, cx));
    }
    let reason = if is_named { FailureReason::NamedBackendDown } else { FailureReason::NoBackend };
    Err(failure_at(context, route, reason, cx))
}
