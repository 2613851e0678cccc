//! The beginning and the end of a refresh without a client ([`super::background_refresh`]).

use super::body_forwarder::BodyForwarder;
use super::caching::Caching;
use super::events::{Disposition, Effect};
use super::refresh_seed::RefreshSeed;
use super::request::Request;
use super::request_context::RequestContext;
use super::step_context::StepContext;
use super::transition::Transition;
use crate::cluster::Route;
use crate::wire::body::BodyLength;
use std::sync::Arc;

/// Whether a refresh may begin now. If not, the client that finds the stale response waits for it.
pub(super) fn may_start(cx: &StepContext<'_>) -> bool {
    // The rules of a HAProxy frontend belong to its client's request.
    cx.core.refreshes.len() < cx.core.most_refreshes && cx.common.rules.is_none() && !cx.common.is_background()
}

/// Begins a refresh by a request that gets the stale response.
#[cold]
pub(super) fn start(request: &Request, mut caching: Caching, route: &Arc<Route>, cx: &mut StepContext<'_>) {
    let mut context = cx.core.request_pool.take();
    context.request = request.copy(&mut cx.core.buffers);
    context.upload = BodyForwarder::new(BodyLength::None, false, &cx.core.settings.limits);
    caching.keep_conditions();
    cx.core.refreshes.push(RefreshSeed { context, caching: Box::new(caching), route: Arc::clone(route) });
}

/// The transition of a refresh in place of one that would begin a response, or look further for a route.
#[cold]
pub(super) fn without_client(transition: Transition, cx: &mut StepContext<'_>) -> Transition {
    match transition {
        Transition::ServeCached(context, ..)
        | Transition::ServeLive { context, .. }
        | Transition::Serve(context, ..)
        | Transition::Tunnel { context, .. }
        | Transition::AskDisk(context, ..)
        | Transition::JoinFill(context, ..)
        | Transition::Resolve(context)
        | Transition::ResolveAgain(context) => end(Some(context), cx),
        Transition::Flush { context, .. } => end(context, cx),
        transition => transition,
    }
}

/// The end of a refresh.
#[cold]
pub(super) fn end(context: Option<Box<RequestContext>>, cx: &mut StepContext<'_>) -> Transition {
    cx.core.output.client.clear();
    cx.release(false);
    cx.effect(Effect::Finish(Disposition::Close));
    Transition::End(context)
}
