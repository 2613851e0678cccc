//! The state in which another request fills the cache with the requested object.

use super::cache_lookup;
use super::cache_view::with_view;
use super::caching::Caching;
use super::events::{Effect, Input};
use super::refreshing;
use super::request_context::RequestContext;
use super::step_context::StepContext;
use super::store_request::StoreRequest;
use super::transition::{Next, Step, Transition};
use crate::cache::fill::{FillEnd, FillStart, FillWait};
use crate::cache::live::{LiveFill, LiveReader, Sleeper};
use crate::cluster::Route;
use std::sync::Arc;

/// The number of times that a request joins a fill that fails before any of its response has been sent.
const MOST_JOINS: u32 = 3;

#[derive(Debug)]
pub(super) struct AwaitingFill {
    pub(super) context: Box<RequestContext>,
    caching: Box<Caching>,
    route: Arc<Route>,
    wait: Option<FillWait>,
    joins: u32,
}

impl AwaitingFill {
    /// A request that is to join the fill.
    pub(super) fn new(context: Box<RequestContext>, caching: Box<Caching>, route: Arc<Route>) -> Self {
        Self { context, caching, route, wait: None, joins: 1 }
    }

    /// Makes the request join the fill.
    pub(super) fn start(
        context: Box<RequestContext>,
        caching: Box<Caching>,
        route: Arc<Route>,
        cx: &mut StepContext<'_>,
    ) -> Self {
        cx.effect(Effect::AskStore);
        cx.deadline_in(route.cluster.options.cache.update_lock_timeout);
        Self::new(context, caching, route)
    }

    pub(super) fn step(mut self: Box<Self>, input: Input<'_>, cx: &mut StepContext<'_>) -> Step<Box<Self>> {
        match input {
            // Another request refreshes the object.
            Input::Fill(FillStart::Wait(..) | FillStart::Stream(..)) | Input::Deadline if cx.common.is_background() => {
                Ok(refreshing::end(Some(self.context), cx).into())
            }
            Input::Fill(FillStart::Wait(wait, until)) => {
                self.wait = Some(wait);
                cx.common.deadline = until;
                Ok(Next::Stay(self))
            }
            Input::Fill(FillStart::Lead(lead)) | Input::FillEnded(FillEnd::Lead(lead)) => {
                self.caching.set_lead(lead, cx.core.now);
                self.forward(cx)
            }
            Input::Fill(FillStart::Pass) | Input::FillEnded(FillEnd::Released) | Input::Deadline => self.forward(cx),
            Input::Fill(FillStart::Stream(live, sleeper)) => self.read(live, sleeper, cx),
            Input::FillEnded(FillEnd::Streams(live)) => match self.wait.take() {
                Some(wait) => self.read(live, wait.sleeper(), cx),
                None => Ok(Next::Stay(self)),
            },
            Input::FillEnded(FillEnd::Stored) => {
                let Self { mut context, caching, route, .. } = *self;
                // An object of another variant is no reason to wait again.
                context.waited = Some(caching.cause());
                Ok(cache_lookup::start(context, route, cx)?.into())
            }
            _ => Ok(Next::Stay(self)),
        }
    }

    /// Reads the response with which another request fills the cache, if it suits this request. If that response has
    /// failed meanwhile, the request joins the next fill.
    fn read(mut self: Box<Self>, live: Arc<LiveFill>, sleeper: Sleeper, cx: &mut StepContext<'_>) -> Step<Box<Self>> {
        let Some(store) = cx.core.cache.clone() else { return self.forward(cx) };
        let steady = cx.core.steady_time();
        let (caching, route) = (&self.caching, &self.route);
        let may_read = with_view(&self.context.request, route, |view| {
            caching.may_read(view, &live, &route.cluster.options.cache, steady)
        });
        if may_read != Some(true) || store.is_outdated(caching.key(), &live.head, live.ticket) {
            return self.forward(cx);
        }
        match LiveReader::new(live, sleeper) {
            Some(reader) => {
                let Self { context, caching, .. } = *self;
                Ok(Transition::ServeLive { context, cause: caching.cause(), reader }.into())
            }
            None if self.joins < MOST_JOINS => {
                self.joins += 1;
                cx.effect(Effect::AskStore);
                cx.deadline_in(self.route.cluster.options.cache.update_lock_timeout);
                Ok(Next::Stay(self))
            }
            None => self.forward(cx),
        }
    }

    fn forward(self, cx: &mut StepContext<'_>) -> Step<Box<Self>> {
        let Self { context, caching, route, wait, joins: _ } = self;
        drop(wait);
        Ok(cache_lookup::forward(context, caching, route, cx)?.into())
    }

    pub(super) fn request(&self) -> StoreRequest {
        let timeout = self.route.cluster.options.cache.update_lock_timeout;
        StoreRequest::Join { key: self.caching.selection(), may_lead: self.caching.may_lead(), timeout }
    }
}
