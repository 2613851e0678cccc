//! Another request fills the cache with what this one asks for.

use super::cache_lookup;
use super::caching::Caching;
use super::request_context::RequestContext;
use super::{Effect, Input, State, StepContext};
use crate::cache::fill::{FillEnd, FillStart, FillWait};
use crate::cluster::Route;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug)]
pub(super) struct AwaitingFill {
    pub(super) context: Box<RequestContext>,
    caching: Caching,
    route: Arc<Route>,
    wait: Option<FillWait>,
}

/// What a worker needs to have a request join a fill.
#[derive(Debug)]
pub struct FillRequest {
    /// The key of the object, and the selection by the `Vary` of the one stored last.
    pub key: Box<[u8]>,
    /// Whether the request may be the one that fills.
    pub may_lead: bool,
    /// How long a fill is waited for.
    pub timeout: Duration,
}

impl AwaitingFill {
    /// Has the request join the fill.
    pub(super) fn start(
        context: Box<RequestContext>,
        caching: Caching,
        route: Arc<Route>,
        cx: &mut StepContext<'_>,
    ) -> State {
        cx.effect(Effect::JoinFill);
        cx.deadline_in(route.cluster.options.cache.update_lock_timeout);
        State::AwaitingFill(Box::new(Self { context, caching, route, wait: None }))
    }

    pub(super) fn step(mut self: Box<Self>, input: Input<'_>, cx: &mut StepContext<'_>) -> State {
        match input {
            Input::Fill(FillStart::Wait(wait, until)) => {
                self.wait = Some(wait);
                cx.common.deadline = until;
                State::AwaitingFill(self)
            }
            Input::Fill(FillStart::Lead(lead)) | Input::FillEnded(FillEnd::Lead(lead)) => {
                self.caching.set_lead(lead, cx.core.now);
                self.forward(cx)
            }
            Input::Fill(FillStart::Pass) | Input::FillEnded(FillEnd::Released) | Input::Deadline => self.forward(cx),
            Input::FillEnded(FillEnd::Stored) => {
                let Self { mut context, caching, route, .. } = *self;
                // An object of another variant is no reason to wait again.
                context.waited = Some(caching.cause());
                cache_lookup::start(context, route, cx)
            }
            _ => State::AwaitingFill(self),
        }
    }

    fn forward(self: Box<Self>, cx: &mut StepContext<'_>) -> State {
        let Self { context, caching, route, wait } = *self;
        drop(wait);
        caching.forward(context, route, cx)
    }

    pub(super) fn request(&self) -> FillRequest {
        let timeout = self.route.cluster.options.cache.update_lock_timeout;
        FillRequest { key: self.caching.selection(), may_lead: self.caching.may_lead(), timeout }
    }
}
