//! The directory was asked for the host.

use super::journey::Journey;
use super::{Cx, Input, State};
use crate::base::reason::Reason;
use crate::cluster::Frontend;

#[derive(Debug)]
pub(super) struct Resolving {
    pub(super) journey: Box<Journey>,
}

impl Resolving {
    pub(super) fn step(self, input: Input<'_>, cx: &mut Cx<'_>) -> State {
        match input {
            Input::Route(Ok(frontend)) if self.has_to_move(&frontend, cx) => self.journey.redirect(cx),
            Input::Route(Ok(frontend)) => self.journey.connect(frontend, cx),
            Input::Route(Err(reason)) => self.journey.refuse(reason, cx),
            Input::Deadline => self.journey.refuse(Reason::DirectoryBusy, cx),
            _ => State::Resolving(self),
        }
    }

    /// Whether the client is to come back over an encrypted connection.
    fn has_to_move(&self, frontend: &Frontend, cx: &Cx<'_>) -> bool {
        frontend.options.https_redirect.unwrap_or(cx.core.settings.redirect.for_all)
            && !self.journey.request.is_secure()
    }
}
