//! Retry after a response (`retryOn`): another member may do better.

use super::choosing;
use super::request_context::RequestContext;
use super::step_context::StepContext;
use super::transition::{Failure, Transition};
use crate::cluster::RetryCause;
use crate::health::Observation;
use crate::wire::response::ResponseHead;

/// Sends the request to another member in place of forwarding this response, if the frontend's options allow it and a
/// member has room now. Otherwise it returns the request: the response at hand is better than a wait.
#[cold]
pub(super) fn go(
    mut context: Box<RequestContext>,
    head: &ResponseHead<'_, '_>,
    cx: &mut StepContext<'_>,
) -> Result<Result<Transition, Failure>, Box<RequestContext>> {
    let Some(cause) = RetryCause::of_response(head.status, head.retry_after).filter(|cause| cx.retries_on(*cause))
    else {
        return Err(context);
    };
    // A backend that reports itself busy has not processed the request.
    let may_send = match cause {
        RetryCause::Busy => context.request.is_whole(),
        _ => context.may_send_again(),
    };
    let is_allowed = may_send && !cx.common.client_left && context.tried.len() < cx.retry_limit();
    let (true, Some(failed), Some(route)) = (is_allowed, &cx.common.permit, cx.common.route().cloned()) else {
        return Err(context);
    };
    context.tried.push(failed.member().backend.id());
    let Some(mut permit) = choosing::another(&context, route, cx) else {
        context.tried.pop();
        return Err(context);
    };
    cx.common.stats.end_wait(cx.core.now);
    if cx.common.bucket.is_some() {
        cx.note_response();
    }
    cx.observe(Observation::Responded { status: head.status, retry_after: head.retry_after });
    cx.release_connection(false);
    if let Some(failed) = &mut cx.common.permit {
        // It keeps what it has waited for. It waits for nothing while it has two slots.
        permit.stay_in_node(failed);
        cx.common.token = failed.detach();
        failed.give_back(false, cx.core.now);
    }
    Ok(choosing::admitted(context, permit, cx))
}
