//! Where an exchange stands, and what holds in every state.

use super::finishing::AnswerEnd;
use super::journey::Journey;
use super::{
    Cx, Disposition, Effect, Input, Side, awaiting, connecting, finishing, reading, relaying, resolving, tunnel,
};
use crate::base::buffer::BufferPool;
use crate::base::reason::Reason;

/// Where an exchange stands. A state owns its data alone and is consumed by the step that leaves it.
#[derive(Debug)]
pub(super) enum State {
    /// The head of the request is not complete.
    Reading(reading::Reading),
    /// The directory was asked for the host.
    Resolving(resolving::Resolving),
    /// A backend is chosen, the connection not yet there.
    Connecting(connecting::Connecting),
    /// The request is on its way, the head of the answer has not come.
    Awaiting(awaiting::Awaiting),
    /// The head of the answer has left; it cannot be taken back.
    Relaying(relaying::Relaying),
    /// Bytes of another protocol go both ways.
    Tunnel(tunnel::Tunnel),
    /// The answer is complete but has not left.
    Finishing(finishing::Finishing),
    /// Nothing is left to do.
    Over(Option<Box<Journey>>),
}

impl State {
    pub(super) fn step(self, input: Input<'_>, cx: &mut Cx<'_>) -> Self {
        match self {
            Self::Over(journey) => Self::Over(journey),
            state => match input {
                Input::Broken(Side::Client) => state.leave(Reason::ClientGone, cx),
                Input::Abort(reason) => state.abort(reason, cx),
                input => state.go_on(input, cx),
            },
        }
    }

    /// What is nobody's end.
    fn go_on(self, input: Input<'_>, cx: &mut Cx<'_>) -> Self {
        match self {
            Self::Reading(state) => state.step(input, cx),
            Self::Resolving(state) => state.step(input, cx),
            Self::Connecting(state) => state.step(input, cx),
            Self::Awaiting(state) => state.step(input, cx),
            Self::Relaying(state) => state.step(input, cx),
            Self::Tunnel(state) => state.step(input, cx),
            Self::Finishing(state) => state.step(input, cx),
            Self::Over(_) => self,
        }
    }

    /// Ends the exchange without another word to the client.
    #[cold]
    pub(super) fn leave(self, reason: Reason, cx: &mut Cx<'_>) -> Self {
        cx.own.ledger.fail(reason);
        cx.release(false);
        // Where a part of the response is left, it is cut all the same.
        let is_gone = matches!(reason, Reason::ClientGone | Reason::ClientTruncated) || !cx.is_drained(Side::Client);
        let is_reset = reason != Reason::ClientGone && self.would_look_whole(cx);
        if is_reset {
            cx.effect(Effect::Reset);
        }
        cx.effect(Effect::Finish(match is_gone || is_reset {
            true => Disposition::Close,
            false => Disposition::Linger { client_may_send: true },
        }));
        Self::Over(self.into_journey(&mut cx.core.buffers))
    }

    /// Ends the exchange with an answer of this node's own, where none has begun.
    #[cold]
    fn abort(self, reason: Reason, cx: &mut Cx<'_>) -> Self {
        match self {
            Self::Resolving(state) => state.journey.refuse(reason, cx),
            Self::Connecting(state) => state.journey.refuse(reason, cx),
            Self::Awaiting(state) => state.journey.refuse(reason, cx),
            Self::Tunnel(state) if reason == Reason::BackendRemoved => state.retire(cx),
            state => state.leave(reason, cx),
        }
    }

    /// Whether a client would take the end of its connection for that of an answer which has not left as a whole.
    fn would_look_whole(&self, cx: &Cx<'_>) -> bool {
        let end = match self {
            Self::Relaying(state) => state.answer_end(),
            Self::Finishing(state) => state.end,
            _ => AnswerEnd::Told,
        };
        end == AnswerEnd::Missing || (end == AnswerEnd::Connection && !cx.is_drained(Side::Client))
    }

    /// What the request carries, where there is one and it is no tunnel.
    pub(super) fn journey(&self) -> Option<&Journey> {
        match self {
            Self::Reading(_) | Self::Tunnel(_) => None,
            Self::Resolving(state) => Some(&state.journey),
            Self::Connecting(state) => Some(&state.journey),
            Self::Awaiting(state) => Some(&state.journey),
            Self::Relaying(state) => Some(&state.journey),
            Self::Finishing(state) => state.journey.as_deref(),
            Self::Over(journey) => journey.as_deref(),
        }
    }

    /// The same, to be changed.
    pub(super) fn journey_mut(&mut self) -> Option<&mut Journey> {
        match self {
            Self::Reading(_) | Self::Tunnel(_) => None,
            Self::Resolving(state) => Some(&mut state.journey),
            Self::Connecting(state) => Some(&mut state.journey),
            Self::Awaiting(state) => Some(&mut state.journey),
            Self::Relaying(state) => Some(&mut state.journey),
            Self::Finishing(state) => state.journey.as_deref_mut(),
            Self::Over(journey) => journey.as_deref_mut(),
        }
    }

    pub(super) fn into_journey(self, buffers: &mut BufferPool) -> Option<Box<Journey>> {
        match self {
            Self::Reading(_) => None,
            Self::Resolving(state) => Some(state.journey),
            Self::Connecting(state) => Some(state.journey),
            Self::Awaiting(state) => Some(state.journey),
            Self::Relaying(state) => Some(state.journey),
            Self::Tunnel(state) => Some(state.to_journey(buffers)),
            Self::Finishing(state) => state.journey,
            Self::Over(journey) => journey,
        }
    }
}
