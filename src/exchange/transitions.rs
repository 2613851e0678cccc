//! The transitions between states: the only file that constructs states, and the retry policy.

use super::awaiting_disk::AwaitingDisk;
use super::awaiting_fill::AwaitingFill;
use super::awaiting_response::AwaitingResponse;
use super::connecting::Connecting;
use super::events::{Disposition, Effect, Input, Side};
use super::flushing_response::FlushingResponse;
use super::forwarding_response::ForwardingResponse;
use super::gathering_part::GatheringPart;
use super::local_service::LocalService;
use super::queued::Queued;
use super::request_context::RequestContext;
use super::resolving_route::ResolvingRoute;
use super::serving_cached::ServingCached;
use super::serving_live::ServingLive;
use super::settings::OnClientAbort;
use super::state::State;
use super::step_context::StepContext;
use super::transition::{Failure, Next, Remains, ResponseEnd, Step, Transition};
use super::tunnel::Tunnel;
use super::{cache_response, choosing, local_reply, refreshing, rules};
use crate::base::reason::FailureReason;
use crate::base::slice_ext::SliceExt;
use crate::cluster::RetryCause;

impl State {
    /// Processes an input.
    pub(super) fn step(self, input: Input<'_>, cx: &mut StepContext<'_>) -> Self {
        match self {
            Self::Done(context) => Self::Done(context),
            state => match input {
                Input::End(Side::Client) | Input::Broken(Side::Client) if state.awaits_backend() => {
                    state.client_left(cx)
                }
                Input::Broken(Side::Client) => state.client_broken(cx),
                Input::Abort(reason) => state.abort(reason, cx),
                input => state.step_within(input, cx),
            },
        }
    }

    /// Processes an input that ends neither side.
    fn step_within(self, input: Input<'_>, cx: &mut StepContext<'_>) -> Self {
        let bytes = if let Input::Bytes(_, bytes) = &input { *bytes } else { &[] };
        match self {
            Self::ReadingHead(state) => settle(state.step(input, cx), Self::ReadingHead, bytes, cx),
            Self::ResolvingRoute(state) => settle(state.step(input, cx), Self::ResolvingRoute, bytes, cx),
            Self::Queued(state) => settle(state.step(input, cx), Self::Queued, bytes, cx),
            Self::Connecting(state) => settle(state.step(input, cx), Self::Connecting, bytes, cx),
            Self::AwaitingResponse(state) => settle(state.step(input, cx), Self::AwaitingResponse, bytes, cx),
            Self::ForwardingResponse(state) => settle(state.step(input, cx), Self::ForwardingResponse, bytes, cx),
            Self::GatheringPart(state) => settle(state.step(input, cx), Self::GatheringPart, bytes, cx),
            Self::Tunnel(state) => settle(state.step(input, cx), Self::Tunnel, bytes, cx),
            Self::LocalService(state) => settle(state.step(input, cx), Self::LocalService, bytes, cx),
            Self::AwaitingDisk(state) => settle(state.step(input, cx), Self::AwaitingDisk, bytes, cx),
            Self::AwaitingFill(state) => settle(state.step(input, cx), Self::AwaitingFill, bytes, cx),
            Self::ServingCached(state) => settle(state.step(input, cx), Self::ServingCached, bytes, cx),
            Self::ServingLive(state) => settle(state.step(input, cx), Self::ServingLive, bytes, cx),
            Self::FlushingResponse(state) => settle(state.step(input, cx), Self::FlushingResponse, bytes, cx),
            Self::Done(_) => self,
        }
    }

    /// The client has ended its side, or the connection, during the wait for a backend. It loses its place in a queue
    /// in any case: no request is started for a client that has left.
    #[cold]
    fn client_left(self, cx: &mut StepContext<'_>) -> Self {
        let is_queued = match &self {
            Self::Queued(_) | Self::AwaitingDisk(_) | Self::AwaitingFill(_) => true,
            Self::Connecting(state) => state.queued,
            _ => false,
        };
        let closes = match &cx.common.rules {
            Some(rules) => !rules.ignores_client_abort(),
            None => {
                let own = cx.common.options().and_then(|options| options.on_client_abort);
                own.unwrap_or(cx.core.settings.on_client_abort) == OnClientAbort::Close
            }
        };
        if is_queued || closes {
            return self.abort_silently(FailureReason::ClientGone, cx);
        }
        cx.common.client_left = true;
        self
    }

    /// The client's connection is broken. A response with other readers continues.
    #[cold]
    fn client_broken(self, cx: &mut StepContext<'_>) -> Self {
        match self {
            Self::ForwardingResponse(state) if state.has_readers() => {
                let next = state.lose_client(FailureReason::ClientGone, cx);
                settle(Ok(next), Self::ForwardingResponse, &[], cx)
            }
            state => state.abort_silently(FailureReason::ClientGone, cx),
        }
    }

    /// Ends the exchange with a local reply, if no response has begun.
    #[cold]
    fn abort(self, reason: FailureReason, cx: &mut StepContext<'_>) -> Self {
        match self {
            Self::Tunnel(state) if matches!(reason, FailureReason::BackendRemoved | FailureReason::Stopped) => {
                settle(state.retire(reason, cx), Self::Tunnel, &[], cx)
            }
            state if state.may_refuse() => {
                let context = state.into_context(&mut cx.core.buffers);
                recover(Failure { context, reason, remains: Remains::NoResponse }, cx)
            }
            state => state.abort_silently(reason, cx),
        }
    }

    /// Ends the exchange without a further byte to the client.
    #[cold]
    fn abort_silently(self, reason: FailureReason, cx: &mut StepContext<'_>) -> Self {
        let end = self.response_end();
        end_silently(self.into_context(&mut cx.core.buffers), reason, end, cx)
    }
}

/// Makes the state after a step. `bytes` are the input of the step.
#[inline]
fn settle<S>(step: Step<S>, stay: impl FnOnce(S) -> State, bytes: &[u8], cx: &mut StepContext<'_>) -> State {
    match step {
        Ok(Next::Stay(state)) => stay(state),
        Ok(Next::Leave(transition)) => perform(transition, bytes, cx),
        Err(failure) => recover(failure, cx),
    }
}

fn perform(mut transition: Transition, bytes: &[u8], cx: &mut StepContext<'_>) -> State {
    if cx.common.is_background() {
        transition = refreshing::without_client(transition, cx);
    }
    match transition {
        Transition::Resolve(context) => resolve(context, cx),
        Transition::ResolveAgain(context) => resolve_again(context, cx),
        Transition::Wait(context) => settle(Queued::start(context, cx), State::Queued, bytes, cx),
        Transition::WaitToRetry(context) => settle(Queued::start_later(context, cx), State::Queued, bytes, cx),
        Transition::WaitForNode(context) => settle(Queued::start_for_node(context, cx), State::Queued, bytes, cx),
        Transition::AwaitTurn(context, turn) => settle(Queued::await_turn(context, turn, cx), State::Queued, bytes, cx),
        Transition::Dial(context) => dial(context, false, cx),
        Transition::SendAgain { context, reuse } => {
            cx.release_connection(reuse);
            dial(context, false, cx)
        }
        Transition::Send { context, reused } => {
            settle(AwaitingResponse::start(context, reused, cx), State::AwaitingResponse, bytes, cx)
        }
        Transition::Forward { context, course, head_len } => {
            let rest = (bytes.suffix(head_len.min(bytes.len())), head_len);
            settle(ForwardingResponse::start(context, course, rest, cx), State::ForwardingResponse, bytes, cx)
        }
        Transition::Gather { context, body, upstream_stays, head_len } => {
            let rest = (bytes.suffix(head_len.min(bytes.len())), head_len);
            settle(GatheringPart::start(context, (body, upstream_stays), rest, cx), State::GatheringPart, bytes, cx)
        }
        Transition::Tunnel { context, is_websocket } => {
            settle(Tunnel::start(context, is_websocket, cx), State::Tunnel, bytes, cx)
        }
        Transition::Serve(context, request, body) => {
            settle(LocalService::start(context, request, body, cx), State::LocalService, bytes, cx)
        }
        Transition::AskDisk(context, route, wish) => {
            State::AwaitingDisk(Box::new(AwaitingDisk::start(context, route, wish, cx)))
        }
        Transition::JoinFill(context, caching, route) => {
            State::AwaitingFill(Box::new(AwaitingFill::start(context, caching, route, cx)))
        }
        Transition::ServeCached(context, object, served) => {
            settle(ServingCached::start(context, object, served, cx), State::ServingCached, bytes, cx)
        }
        Transition::ServeLive { context, cause, reader } => {
            settle(ServingLive::start(context, cause, reader, cx), State::ServingLive, bytes, cx)
        }
        Transition::Flush { context, connection, end } => {
            let state = FlushingResponse::new(context, connection, end);
            settle(state.start(cx), State::FlushingResponse, bytes, cx)
        }
        Transition::End(context) => State::Done(context),
    }
}

/// Asks for the route. It may lead to another cluster, so a token of the present one is returned.
fn resolve(mut context: Box<RequestContext>, cx: &mut StepContext<'_>) -> State {
    context.resolves += 1;
    cx.common.give_back_token();
    cx.leave_node();
    cx.effect(Effect::Resolve);
    cx.deadline_in(cx.core.settings.connect_timeout);
    State::ResolvingRoute(ResolvingRoute { context })
}

#[cold]
fn resolve_again(context: Box<RequestContext>, cx: &mut StepContext<'_>) -> State {
    match choosing::may_resolve(&context) {
        true => resolve(context, cx),
        false => recover(Failure::new(context, FailureReason::NoBackend), cx),
    }
}

fn dial(mut context: Box<RequestContext>, fresh: bool, cx: &mut StepContext<'_>) -> State {
    context.connections = context.connections.wrapping_add(1);
    cx.connect(fresh);
    cx.deadline_in(cx.connect_timeout());
    State::Connecting(Connecting { context, queued: false })
}

/// Reacts to a failure: retries, or reports it to the client as far as possible.
#[cold]
fn recover(failure: Failure, cx: &mut StepContext<'_>) -> State {
    let Failure { context, reason, remains } = failure;
    match (remains, context) {
        (Remains::NothingSent, Some(context))
            if cx.retries_on(RetryCause::Connect) || choosing::is_to_wake(&context, reason, cx.common) =>
        {
            try_another(context, reason, cx)
        }
        (Remains::Sent, Some(context)) if context.may_send_again() && cx.retries_on(cause_of(reason)) => {
            try_another(context, reason, cx)
        }
        (Remains::SentToStale, Some(context)) if context.may_send_again() => try_fresh(context, cx),
        (Remains::SentUnread, Some(context)) if context.request.is_whole() => try_fresh(context, cx),
        (Remains::Response(end), Some(context)) => cut(context, reason, end, cx),
        (Remains::Silence(end), context) => end_silently(context, reason, end, cx),
        (remains, context) => refuse(context, reason, remains != Remains::NoHead, cx),
    }
}

/// The kind of failure of a member that received the request.
fn cause_of(reason: FailureReason) -> RetryCause {
    if reason == FailureReason::ResponseTimeout { RetryCause::Timeout } else { RetryCause::Close }
}

/// The member failed before any of its response was forwarded: tries another one, if there is one and
/// `server.retryOnError` allows it.
fn try_another(mut context: Box<RequestContext>, reason: FailureReason, cx: &mut StepContext<'_>) -> State {
    context.failure = Some(reason);
    let (Some(route), Some(failed)) = (cx.common.route().cloned(), cx.leave_member()) else {
        return refuse(Some(context), reason, true, cx);
    };
    context.tried.push(failed);
    if cx.common.client_left {
        return refuse(Some(context), reason, true, cx);
    }
    if context.tried.len() > cx.retry_limit() {
        return match choosing::is_to_wake(&context, reason, cx.common) {
            true => perform(choosing::await_wake(context, route, cx), &[], cx),
            false => refuse(Some(context), reason, true, cx),
        };
    }
    match choosing::choose(context, route, cx) {
        Ok(transition) => perform(transition, &[], cx),
        Err(failure) => recover(failure, cx),
    }
}

/// A pooled connection turned out to be closed. That says nothing about the backend, so the request is sent there again
/// on a new connection.
fn try_fresh(context: Box<RequestContext>, cx: &mut StepContext<'_>) -> State {
    cx.release_connection(false);
    cx.effect(Effect::Retry { stale: true });
    dial(context, true, cx)
}

/// Ends the exchange with the error page of a failure, or with a stored response in its place. If the head could not be
/// read, no later bytes are read.
fn refuse(
    mut context: Option<Box<RequestContext>>,
    reason: FailureReason,
    has_head: bool,
    cx: &mut StepContext<'_>,
) -> State {
    cx.release(false);
    if cx.common.is_background() {
        return perform(refreshing::end(context, cx), &[], cx);
    }
    let shadow = context.as_mut().and_then(|context| cache_response::stand_in(context, reason.status(), cx));
    let transition = match (context, shadow) {
        (Some(context), Some((object, served))) => Transition::ServeCached(context, object, served),
        (context, _) if rules::is_silent(reason, cx) => return end_silently(context, reason, ResponseEnd::Framed, cx),
        (context, _) => {
            let uploaded = has_head && context.as_ref().is_some_and(|context| context.upload.is_done());
            cx.common.stats.fail(reason);
            match cx.common.rules.is_some() {
                true => rules::fail(context, uploaded, reason, cx),
                false => local_reply::fail(context, uploaded, reason, cx),
            }
        }
    };
    perform(transition, &[], cx)
}

/// Ends the response early: received bytes are still sent, and the missing end shows the failure.
fn cut(context: Box<RequestContext>, reason: FailureReason, end: ResponseEnd, cx: &mut StepContext<'_>) -> State {
    cx.common.stats.fail(reason);
    cx.release(false);
    let connection = context.disposition(false);
    perform(Transition::Flush { context: Some(context), connection, end }, &[], cx)
}

/// Ends the exchange without a further byte to the client. If the client would take the end of its connection for the
/// end of an incomplete response, the connection is reset.
fn end_silently(
    context: Option<Box<RequestContext>>,
    reason: FailureReason,
    end: ResponseEnd,
    cx: &mut StepContext<'_>,
) -> State {
    cx.common.stats.fail(reason);
    cx.release(false);
    let is_drained = cx.is_drained(Side::Client);
    // A response that is partly unsent is cut all the same.
    let is_gone = matches!(reason, FailureReason::ClientGone | FailureReason::ClientTruncated) || !is_drained;
    let would_look_whole = end == ResponseEnd::Truncated || (end == ResponseEnd::UntilClose && !is_drained);
    let is_reset = reason != FailureReason::ClientGone && would_look_whole;
    if is_reset {
        cx.effect(Effect::Reset);
    }
    cx.effect(Effect::Finish(match is_gone || is_reset {
        true => Disposition::Close,
        false => Disposition::Linger { client_may_send: true },
    }));
    State::Done(context)
}
