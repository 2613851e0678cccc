//! A backend is chosen, the connection not yet there.

use super::awaiting::Awaiting;
use super::journey::Journey;
use super::{Cx, Input, State};
use crate::base::reason::Reason;
use crate::health::Observation;

#[derive(Debug)]
pub(super) struct Connecting {
    pub(super) journey: Box<Journey>,
    /// The request waits for one of the sockets to the backend to become free.
    pub(super) queued: bool,
}

impl Connecting {
    pub(super) fn step(mut self, input: Input<'_>, cx: &mut Cx<'_>) -> State {
        match input {
            Input::Connected { reused } => Awaiting::start(self.journey, reused, cx),
            Input::Queued => {
                self.queued = true;
                State::Connecting(self)
            }
            Input::Dialling => {
                self.queued = false;
                cx.deadline_in(cx.core.settings.connect_timeout);
                State::Connecting(self)
            }
            Input::ConnectFailed(reason) => self.failed(reason, cx),
            Input::Deadline if self.queued => self.failed(Reason::QueueTimeout, cx),
            Input::Deadline => self.failed(Reason::ConnectTimeout, cx),
            _ => State::Connecting(self),
        }
    }

    #[cold]
    fn failed(self, reason: Reason, cx: &mut Cx<'_>) -> State {
        match reason {
            // What this node is short of, another backend cannot give.
            Reason::NoSocket => return self.journey.refuse(reason, cx),
            // A queue of our own says nothing about the life of the backend.
            // So does a want of ports, and those to other backends may be free.
            Reason::QueueFull | Reason::QueueTimeout | Reason::NoPort => {}
            _ => cx.observe(Observation::Unreachable),
        }
        self.journey.try_another(reason, cx)
    }
}
