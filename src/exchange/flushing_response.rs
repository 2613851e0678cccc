//! The answer is complete: it has to leave.

use super::request_context::RequestContext;
use super::{Disposition, Effect, Input, Side, State, StepContext};
use crate::base::reason::FailureReason;

#[derive(Debug)]
pub(super) struct FlushingResponse {
    pub(super) context: Option<Box<RequestContext>>,
    /// The future of the client's connection, if all of the answer leaves.
    connection: Disposition,
    pub(super) end: ResponseEnd,
}

/// How the client knows that the answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResponseEnd {
    /// By what the answer says; so it sees as well if the end is missing.
    Framed,
    /// By the end of the connection.
    UntilClose,
    /// By the end of the connection too, but the answer is not whole.
    Truncated,
}

impl FlushingResponse {
    /// The end of an answer.
    pub(super) fn new(context: Option<Box<RequestContext>>, connection: Disposition, end: ResponseEnd) -> Self {
        Self { context, connection, end }
    }

    /// Whether the client's connection may carry the next request.
    pub(super) fn is_kept(&self) -> bool {
        self.connection == Disposition::KeepAlive
    }

    /// Waits until the answer has left.
    pub(super) fn start(self, cx: &mut StepContext<'_>) -> State {
        cx.deadline_in(cx.body_timeout());
        if cx.is_drained(Side::Client) { self.over(cx) } else { State::FlushingResponse(self) }
    }

    pub(super) fn step(self, input: Input<'_>, cx: &mut StepContext<'_>) -> State {
        match input {
            Input::Drained(Side::Client) => self.over(cx),
            Input::Deadline => State::FlushingResponse(self).abort_silently(FailureReason::ClientStalled, cx),
            _ => State::FlushingResponse(self),
        }
    }

    /// Nothing is left to do.
    pub(super) fn over(self, cx: &mut StepContext<'_>) -> State {
        let is_missing = self.end == ResponseEnd::Truncated;
        if is_missing {
            cx.effect(Effect::Reset);
        }
        cx.effect(Effect::Finish(if is_missing { Disposition::Close } else { self.connection }));
        State::Done(self.context)
    }
}
