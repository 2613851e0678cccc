//! The state in which a backend is chosen and its connection is not yet established.

use super::events::Input;
use super::request_context::RequestContext;
use super::step_context::{StepContext, WaitsFor};
use super::transition::{Failure, Next, Remains, Step, Transition};
use crate::base::reason::FailureReason;
use crate::health::Observation;

#[derive(Debug)]
pub(super) struct Connecting {
    pub(super) context: Box<RequestContext>,
    /// The request waits for a free socket to the backend.
    pub(super) queued: bool,
}

impl Connecting {
    pub(super) fn step(mut self, input: Input<'_>, cx: &mut StepContext<'_>) -> Step<Self> {
        match input {
            Input::Connected { reused } => {
                let now = cx.core.now;
                match (self.queued, reused) {
                    (true, _) => cx.common.stats.end_queue(now),
                    (false, false) => cx.common.stats.end_connect(now),
                    (false, true) => cx.common.stats.begin_phase(now),
                }
                Ok(Transition::Send { context: self.context, reused }.into())
            }
            Input::Queued if cx.common.client_left => {
                Err(Failure::silent(Some(self.context), FailureReason::ClientGone))
            }
            Input::Queued => {
                self.queued = true;
                Ok(Next::Stay(self))
            }
            Input::Dialling => {
                self.queued = false;
                cx.common.stats.end_queue(cx.core.now);
                cx.deadline_in(cx.connect_timeout());
                Ok(Next::Stay(self))
            }
            Input::ConnectFailed(reason) => Err(self.failed(reason, cx)),
            Input::Deadline if self.queued => Err(self.failed(FailureReason::QueueTimeout, cx)),
            Input::Deadline => Err(self.failed(FailureReason::ConnectTimeout, cx)),
            _ => Ok(Next::Stay(self)),
        }
    }

    #[cold]
    fn failed(self, reason: FailureReason, cx: &mut StepContext<'_>) -> Failure {
        // A failed wait is recorded too: such waits are the longest.
        match self.queued {
            true => cx.common.stats.end_queue(cx.core.now),
            false => cx.common.stats.end_connect(cx.core.now),
        }
        match reason {
            // Another backend cannot provide what this node lacks.
            FailureReason::SocketsExhausted => return Failure::new(self.context, reason),
            // A full queue of this node says nothing about the health of the backend. Nor does a lack of local ports;
            // ports towards other backends may be free.
            FailureReason::QueueFull | FailureReason::QueueTimeout => cx.common.waits_for = WaitsFor::Connection,
            FailureReason::PortsExhausted => {}
            _ => cx.observe(Observation::Unreachable),
        }
        Failure::new(self.context, reason).leaving(Remains::NothingSent)
    }
}
