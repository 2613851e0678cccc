//! The directory was asked for the host.

use super::journey::Journey;
use super::{Cx, Input, State};
use crate::base::reason::Reason;

#[derive(Debug)]
pub(super) struct Resolving {
    pub(super) journey: Journey,
}

impl Resolving {
    pub(super) fn step(self, input: Input<'_>, cx: &mut Cx<'_>) -> State {
        match input {
            Input::Route(Ok(frontend)) => self.journey.connect(frontend, cx),
            Input::Route(Err(reason)) => self.journey.refuse(reason, cx),
            Input::Deadline => self.journey.refuse(Reason::DirectoryBusy, cx),
            _ => State::Resolving(self),
        }
    }
}
