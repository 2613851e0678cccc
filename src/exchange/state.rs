//! The states of an exchange, and rules common to all.

use super::events::Side;
use super::request_context::RequestContext;
use super::transition::ResponseEnd;
use super::{
    awaiting_disk, awaiting_fill, awaiting_response, connecting, flushing_response, forwarding_response,
    gathering_part, local_service, queued, reading_head, resolving_route, serving_cached, serving_live, tunnel,
};
use crate::base::buffer::BufferPool;

/// The state of an exchange. A state owns its data and is consumed by the step that leaves it.
#[derive(Debug)]
pub(super) enum State {
    /// The head of the request is not complete.
    ReadingHead(reading_head::ReadingHead),
    /// The directory looks up the host.
    ResolvingRoute(resolving_route::ResolvingRoute),
    /// No member has room: the request waits for a slot.
    Queued(queued::Queued),
    /// A backend is chosen; its connection is not yet established.
    Connecting(connecting::Connecting),
    /// The request is being sent; the head of the response has not arrived.
    AwaitingResponse(awaiting_response::AwaitingResponse),
    /// The head of the response was sent and cannot be replaced.
    ForwardingResponse(forwarding_response::ForwardingResponse),
    /// The part comes that a stored response lacks.
    GatheringPart(gathering_part::GatheringPart),
    /// Bytes of another protocol pass in both directions.
    Tunnel(tunnel::Tunnel),
    /// A request to this node: another thread makes the response, which is sent from memory.
    LocalService(local_service::LocalService),
    /// The disk tier of the cache has something to do first.
    AwaitingDisk(Box<awaiting_disk::AwaitingDisk>),
    /// Another request fills the cache.
    AwaitingFill(Box<awaiting_fill::AwaitingFill>),
    /// A stored response is being sent.
    ServingCached(serving_cached::ServingCached),
    /// A response is being sent while another request receives it.
    ServingLive(Box<serving_live::ServingLive>),
    /// The response is complete but not sent.
    FlushingResponse(flushing_response::FlushingResponse),
    /// The exchange is over.
    Done(Option<Box<RequestContext>>),
}

impl State {
    /// Whether the exchange waits for a backend, or for a path to one, and bytes of the client are of no use.
    pub(super) fn awaits_backend(&self) -> bool {
        match self {
            Self::ResolvingRoute(_) | Self::Queued(_) | Self::AwaitingDisk(_) | Self::AwaitingFill(_) => true,
            Self::Connecting(_) | Self::GatheringPart(_) => true,
            Self::AwaitingResponse(state) => !state.wants(Side::Client),
            _ => false,
        }
    }

    /// Whether a local reply can still begin.
    pub(super) fn may_refuse(&self) -> bool {
        match self {
            Self::ResolvingRoute(_)
            | Self::Queued(_)
            | Self::AwaitingDisk(_)
            | Self::AwaitingFill(_)
            | Self::Connecting(_)
            | Self::GatheringPart(_)
            | Self::AwaitingResponse(_) => true,
            Self::LocalService(state) => !state.is_sending(),
            _ => false,
        }
    }

    /// How the client would recognise the end of a response that ends now.
    pub(super) fn response_end(&self) -> ResponseEnd {
        match self {
            Self::ForwardingResponse(state) => state.response_end(),
            Self::ServingLive(state) => state.response_end(),
            Self::FlushingResponse(state) => state.end,
            _ => ResponseEnd::Framed,
        }
    }

    /// The context of the request, if there is one and it is not a tunnel.
    pub(super) fn context(&self) -> Option<&RequestContext> {
        match self {
            Self::ReadingHead(_) | Self::Tunnel(_) => None,
            Self::ResolvingRoute(state) => Some(&state.context),
            Self::Queued(state) => Some(&state.context),
            Self::Connecting(state) => Some(&state.context),
            Self::AwaitingResponse(state) => Some(&state.context),
            Self::ForwardingResponse(state) => Some(&state.context),
            Self::GatheringPart(state) => Some(&state.context),
            Self::LocalService(state) => Some(&state.context),
            Self::AwaitingDisk(state) => Some(&state.context),
            Self::AwaitingFill(state) => Some(&state.context),
            Self::ServingCached(state) => Some(&state.context),
            Self::ServingLive(state) => Some(&state.context),
            Self::FlushingResponse(state) => state.context.as_deref(),
            Self::Done(context) => context.as_deref(),
        }
    }

    /// The same, mutable.
    pub(super) fn context_mut(&mut self) -> Option<&mut RequestContext> {
        match self {
            Self::ReadingHead(_) | Self::Tunnel(_) => None,
            Self::ResolvingRoute(state) => Some(&mut state.context),
            Self::Queued(state) => Some(&mut state.context),
            Self::Connecting(state) => Some(&mut state.context),
            Self::AwaitingResponse(state) => Some(&mut state.context),
            Self::ForwardingResponse(state) => Some(&mut state.context),
            Self::GatheringPart(state) => Some(&mut state.context),
            Self::LocalService(state) => Some(&mut state.context),
            Self::AwaitingDisk(state) => Some(&mut state.context),
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
            Self::GatheringPart(state) => Some(state.context),
            Self::Tunnel(state) => Some(state.to_context(buffers)),
            Self::LocalService(state) => Some(state.context),
            Self::AwaitingDisk(state) => Some(state.context),
            Self::AwaitingFill(state) => Some(state.context),
            Self::ServingCached(state) => Some(state.context),
            Self::ServingLive(state) => Some(state.context),
            Self::FlushingResponse(state) => state.context,
            Self::Done(context) => context,
        }
    }
}
