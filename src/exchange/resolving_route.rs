//! The state in which the directory looks up the host.

use super::events::Input;
use super::request_context::RequestContext;
use super::step_context::StepContext;
use super::transition::{Failure, Next, Step};
use super::{cache_lookup, choosing, local_reply};
use crate::base::reason::FailureReason;
use crate::cluster::Route;

#[derive(Debug)]
pub(super) struct ResolvingRoute {
    pub(super) context: Box<RequestContext>,
}

impl ResolvingRoute {
    pub(super) fn step(self, input: Input<'_>, cx: &mut StepContext<'_>) -> Step<Self> {
        match input {
            Input::Route(Ok(route)) if self.has_to_move(&route, cx) => {
                Ok(local_reply::redirect(self.context, cx).into())
            }
            Input::Route(Ok(route)) if cache_lookup::takes_part(&self.context, &route, cx) => {
                Ok(cache_lookup::start(self.context, route, cx)?.into())
            }
            Input::Route(Ok(route)) => Ok(choosing::connect(self.context, route, cx)?.into()),
            Input::Route(Err(reason)) => Err(Failure::new(self.context, reason)),
            Input::Deadline => Err(Failure::new(self.context, FailureReason::RouteLookupOverloaded)),
            _ => Ok(Next::Stay(self)),
        }
    }

    /// Whether the client is to be redirected to TLS.
    fn has_to_move(&self, route: &Route, cx: &StepContext<'_>) -> bool {
        route.cluster.options.https_redirect.unwrap_or(cx.core.settings.redirect.for_all)
            && !self.context.request.is_secure()
    }
}
