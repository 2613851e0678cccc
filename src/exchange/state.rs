//! Where an exchange stands, and what holds in every state.

use super::flushing_response::ResponseEnd;
use super::request_context::RequestContext;
use super::{
    Disposition, Effect, Input, OnClientAbort, Side, StepContext, awaiting_fill, awaiting_response, connecting,
    flushing_response, forwarding_response, local_service, queued, reading_head, resolving_route, serving_cached,
    serving_live, tunnel,
};
use crate::base::buffer::BufferPool;
use crate::base::reason::FailureReason;

/// Where an exchange stands. A state owns its data alone and is consumed by the step that leaves it.
#[derive(Debug)]
pub(super) enum State {
    /// The head of the request is not complete.
    ReadingHead(reading_head::ReadingHead),
    /// The directory was asked for the host.
    ResolvingRoute(resolving_route::ResolvingRoute),
    /// No member has room: the request waits for a slot.
    Queued(queued::Queued),
    /// A backend is chosen, the connection not yet there.
    Connecting(connecting::Connecting),
    /// The request is on its way, the head of the answer has not come.
    AwaitingResponse(awaiting_response::AwaitingResponse),
    /// The head of the answer has left; it cannot be taken back.
    ForwardingResponse(forwarding_response::ForwardingResponse),
    /// Bytes of another protocol go both ways.
    Tunnel(tunnel::Tunnel),
    /// The request is for this node: its response is made by another thread, and leaves from memory.
    LocalService(local_service::LocalService),
    /// Another request fills the cache.
    AwaitingFill(Box<awaiting_fill::AwaitingFill>),
    /// A stored response leaves.
    ServingCached(serving_cached::ServingCached),
    /// A response leaves while another request receives it.
    ServingLive(Box<serving_live::ServingLive>),
    /// The answer is complete but has not left.
    FlushingResponse(flushing_response::FlushingResponse),
    /// Nothing is left to do.
    Done(Option<Box<RequestContext>>),
}

impl State {
    pub(super) fn step(self, input: Input<'_>, cx: &mut StepContext<'_>) -> Self {
        match self {
            Self::Done(context) => Self::Done(context),
            state => match input {
                Input::End(Side::Client) | Input::Broken(Side::Client) if state.awaits_backend() => {
                    state.client_left(cx)
                }
                Input::Broken(Side::Client) if state.has_readers() => state.lose_client(FailureReason::ClientGone, cx),
                Input::Broken(Side::Client) => state.abort_silently(FailureReason::ClientGone, cx),
                Input::Abort(reason) => state.abort(reason, cx),
                input => state.step_within(input, cx),
            },
        }
    }

    /// What is nobody's end.
    fn step_within(self, input: Input<'_>, cx: &mut StepContext<'_>) -> Self {
        match self {
            Self::ReadingHead(state) => state.step(input, cx),
            Self::ResolvingRoute(state) => state.step(input, cx),
            Self::Queued(state) => state.step(input, cx),
            Self::Connecting(state) => state.step(input, cx),
            Self::AwaitingResponse(state) => state.step(input, cx),
            Self::ForwardingResponse(state) => state.step(input, cx),
            Self::Tunnel(state) => state.step(input, cx),
            Self::LocalService(state) => state.step(input, cx),
            Self::AwaitingFill(state) => state.step(input, cx),
            Self::ServingCached(state) => state.step(input, cx),
            Self::ServingLive(state) => state.step(input, cx),
            Self::FlushingResponse(state) => state.step(input, cx),
            Self::Done(_) => self,
        }
    }

    /// Whether only a backend, or the way to one, is waited for: no bytes of the client are of use.
    pub(super) fn awaits_backend(&self) -> bool {
        match self {
            Self::ResolvingRoute(_) | Self::Queued(_) | Self::AwaitingFill(_) | Self::Connecting(_) => true,
            Self::AwaitingResponse(state) => !state.wants(Side::Client),
            _ => false,
        }
    }

    /// The client has ended its side, or the connection, while a backend is waited for. A place among those who wait is given up in any
    /// case: nothing is begun for a client that has left.
    #[cold]
    fn client_left(self, cx: &mut StepContext<'_>) -> Self {
        let is_queued = match &self {
            Self::Queued(_) | Self::AwaitingFill(_) => true,
            Self::Connecting(state) => state.queued,
            _ => false,
        };
        let closes = match &cx.common.rules {
            Some(rules) => !rules.ignores_client_abort(),
            None => cx.core.settings.on_client_abort == OnClientAbort::Close,
        };
        if is_queued || closes {
            return self.abort_silently(FailureReason::ClientGone, cx);
        }
        cx.common.client_left = true;
        self
    }

    /// Whether other requests read the response that is being forwarded.
    pub(super) fn has_readers(&self) -> bool {
        match self {
            Self::ForwardingResponse(state) => {
                state.context.caching.as_ref().is_some_and(|caching| caching.has_readers())
            }
            _ => false,
        }
    }

    /// Goes on without the client, whose response others read. Its connection is reset once the exchange is over.
    #[cold]
    pub(super) fn lose_client(self, reason: FailureReason, cx: &mut StepContext<'_>) -> Self {
        match self {
            Self::ForwardingResponse(mut state) => {
                if !std::mem::replace(&mut cx.common.client_left, true) {
                    cx.common.stats.fail(reason);
                    state.lose_client();
                }
                cx.core.output.client.clear();
                cx.common.to_client.discard(&mut cx.core.buffers);
                state.settle(cx)
            }
            state => state.abort_silently(reason, cx),
        }
    }

    /// Ends the exchange without another word to the client.
    #[cold]
    pub(super) fn abort_silently(self, reason: FailureReason, cx: &mut StepContext<'_>) -> Self {
        cx.common.stats.fail(reason);
        cx.release(false);
        // Where a part of the response is left, it is cut all the same.
        let is_gone = matches!(reason, FailureReason::ClientGone | FailureReason::ClientTruncated)
            || !cx.is_drained(Side::Client);
        let is_reset = reason != FailureReason::ClientGone && self.would_look_whole(cx);
        if is_reset {
            cx.effect(Effect::Reset);
        }
        cx.effect(Effect::Finish(match is_gone || is_reset {
            true => Disposition::Close,
            false => Disposition::Linger { client_may_send: true },
        }));
        Self::Done(self.into_context(&mut cx.core.buffers))
    }

    /// Ends the exchange with an answer of this node's own, where none has begun.
    #[cold]
    fn abort(self, reason: FailureReason, cx: &mut StepContext<'_>) -> Self {
        match self {
            Self::ResolvingRoute(state) => state.context.refuse(reason, cx),
            Self::Queued(state) => state.context.refuse(reason, cx),
            Self::AwaitingFill(state) => state.context.refuse(reason, cx),
            Self::Connecting(state) => state.context.refuse(reason, cx),
            Self::AwaitingResponse(state) => state.context.refuse(reason, cx),
            Self::LocalService(state) if !state.is_sending() => state.context.refuse(reason, cx),
            Self::Tunnel(state) if reason == FailureReason::BackendRemoved => state.retire(cx),
            state => state.abort_silently(reason, cx),
        }
    }

    /// Whether a client would take the end of its connection for that of an answer which has not left as a whole.
    fn would_look_whole(&self, cx: &StepContext<'_>) -> bool {
        let end = match self {
            Self::ForwardingResponse(state) => state.response_end(),
            Self::ServingLive(state) => state.response_end(),
            Self::FlushingResponse(state) => state.end,
            _ => ResponseEnd::Framed,
        };
        end == ResponseEnd::Truncated || (end == ResponseEnd::UntilClose && !cx.is_drained(Side::Client))
    }

    /// What the request carries, where there is one and it is no tunnel.
    pub(super) fn context(&self) -> Option<&RequestContext> {
        match self {
            Self::ReadingHead(_) | Self::Tunnel(_) => None,
            Self::ResolvingRoute(state) => Some(&state.context),
            Self::Queued(state) => Some(&state.context),
            Self::Connecting(state) => Some(&state.context),
            Self::AwaitingResponse(state) => Some(&state.context),
            Self::ForwardingResponse(state) => Some(&state.context),
            Self::LocalService(state) => Some(&state.context),
            Self::AwaitingFill(state) => Some(&state.context),
            Self::ServingCached(state) => Some(&state.context),
            Self::ServingLive(state) => Some(&state.context),
            Self::FlushingResponse(state) => state.context.as_deref(),
            Self::Done(context) => context.as_deref(),
        }
    }

    /// The same, to be changed.
    pub(super) fn context_mut(&mut self) -> Option<&mut RequestContext> {
        match self {
            Self::ReadingHead(_) | Self::Tunnel(_) => None,
            Self::ResolvingRoute(state) => Some(&mut state.context),
            Self::Queued(state) => Some(&mut state.context),
            Self::Connecting(state) => Some(&mut state.context),
            Self::AwaitingResponse(state) => Some(&mut state.context),
            Self::ForwardingResponse(state) => Some(&mut state.context),
            Self::LocalService(state) => Some(&mut state.context),
            Self::AwaitingFill(state) => Some(&mut state.context),
            Self::ServingCached(state) => Some(&mut state.context),
            Self::ServingLive(state) => Some(&mut state.context),
            Self::FlushingResponse(state) => state.context.as_deref_mut(),
            Self::Done(context) => context.as_deref_mut(),
        }
    }

    pub(super) fn into_context(self, buffers: &mut BufferPool) -> Option<Box<RequestContext>> {
        match self {
            Self::ReadingHead(_) => None,
            Self::ResolvingRoute(state) => Some(state.context),
            Self::Queued(state) => Some(state.context),
            Self::Connecting(state) => Some(state.context),
            Self::AwaitingResponse(state) => Some(state.context),
            Self::ForwardingResponse(state) => Some(state.context),
            Self::Tunnel(state) => Some(state.to_context(buffers)),
            Self::LocalService(state) => Some(state.context),
            Self::AwaitingFill(state) => Some(state.context),
            Self::ServingCached(state) => Some(state.context),
            Self::ServingLive(state) => Some(state.context),
            Self::FlushingResponse(state) => state.context,
            Self::Done(context) => context,
        }
    }
}
