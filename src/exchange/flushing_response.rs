//! The state in which the response is complete and has to be sent.

use super::events::{Disposition, Effect, Input, Side};
use super::request_context::RequestContext;
use super::step_context::StepContext;
use super::transition::{Failure, Next, Remains, ResponseEnd, Step, Transition};
use crate::base::reason::FailureReason;

#[derive(Debug)]
pub(super) struct FlushingResponse {
    pub(super) context: Option<Box<RequestContext>>,
    /// What happens to the client's connection once all of the response is sent.
    connection: Disposition,
    pub(super) end: ResponseEnd,
}

impl FlushingResponse {
    /// The end of a response.
    pub(super) fn new(context: Option<Box<RequestContext>>, connection: Disposition, end: ResponseEnd) -> Self {
        Self { context, connection, end }
    }

    /// Whether the client's connection may carry the next request.
    pub(super) fn is_kept(&self) -> bool {
        self.connection == Disposition::KeepAlive
    }

    /// Waits until the response is sent.
    pub(super) fn start(self, cx: &mut StepContext<'_>) -> Step<Self> {
        cx.deadline_in(cx.body_timeout());
        Ok(if cx.is_drained(Side::Client) { self.over(cx).into() } else { Next::Stay(self) })
    }

    pub(super) fn step(self, input: Input<'_>, cx: &mut StepContext<'_>) -> Step<Self> {
        match input {
            Input::Drained(Side::Client) => Ok(self.over(cx).into()),
            Input::Deadline => {
                let remains = Remains::Silence(self.end);
                Err(Failure { context: self.context, reason: FailureReason::ClientStalled, remains })
            }
            _ => Ok(Next::Stay(self)),
        }
    }

    /// Ends the exchange.
    fn over(self, cx: &mut StepContext<'_>) -> Transition {
        let is_missing = self.end == ResponseEnd::Truncated;
        if is_missing {
            cx.effect(Effect::Reset);
        }
        cx.effect(Effect::Finish(if is_missing { Disposition::Close } else { self.connection }));
        Transition::End(self.context)
    }
}
