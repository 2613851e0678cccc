//! The directory was asked for the host.

use super::request_context::RequestContext;
use super::{Input, State, StepContext, cache_lookup};
use crate::base::reason::FailureReason;
use crate::cluster::Route;

#[derive(Debug)]
pub(super) struct ResolvingRoute {
    pub(super) context: Box<RequestContext>,
}

impl ResolvingRoute {
    pub(super) fn step(self, input: Input<'_>, cx: &mut StepContext<'_>) -> State {
        match input {
            Input::Route(Ok(route)) if self.has_to_move(&route, cx) => self.context.redirect(cx),
            Input::Route(Ok(route)) if cache_lookup::takes_part(&self.context, &route, cx) => {
                cache_lookup::start(self.context, route, cx)
            }
            Input::Route(Ok(route)) => self.context.connect(route, cx),
            Input::Route(Err(reason)) => self.context.refuse(reason, cx),
            Input::Deadline => self.context.refuse(FailureReason::RouteLookupOverloaded, cx),
            _ => State::ResolvingRoute(self),
        }
    }

    /// Whether the client is to come back over an encrypted connection.
    fn has_to_move(&self, route: &Route, cx: &StepContext<'_>) -> bool {
        route.cluster.options.https_redirect.unwrap_or(cx.core.settings.redirect.for_all)
            && !self.context.request.is_secure()
    }
}

/// Ends an exchange without a response: a rule wants it so.
#[cold]
pub(super) fn close(context: Box<RequestContext>, cx: &mut StepContext<'_>) -> State {
    State::ResolvingRoute(ResolvingRoute { context }).abort_silently(FailureReason::ClosedByRule, cx)
}
