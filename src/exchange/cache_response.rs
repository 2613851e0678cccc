//! The part of the object cache in a backend's response, or in the lack of one.

use super::cache_view::{view_without_fields, with_view};
use super::fetch::Verdict;
use super::request_context::RequestContext;
use super::step_context::StepContext;
use super::transition::Transition;
use crate::cache::fields::Fields;
use crate::cache::freshness::Times;
use crate::cache::lookup::{self, Failure};
use crate::cache::object::Object;
use crate::cache::request::CacheRequest;
use crate::cache::status::{self, Served};
use crate::cache::storability::CacheResponse;
use crate::health::Observation;
use crate::wire::body::BodyLength;
use crate::wire::response::ResponseHead;
use std::sync::Arc;

/// Judges a response whose head has arrived with `rest` behind it, on a connection that accepts more of the request or
/// not. Returns the request if the response is to be forwarded, and otherwise the transition that replaces it.
#[inline(never)]
pub(super) fn take(
    mut context: Box<RequestContext>,
    head: &ResponseHead<'_, '_>,
    (rest, write_closed): (&[u8], bool),
    cx: &mut StepContext<'_>,
) -> Result<Box<RequestContext>, Transition> {
    let (store, route) = (cx.core.cache.clone(), cx.common.route().cloned());
    let (Some(mut caching), Some(store), Some(route)) = (context.caching.take(), store, route) else {
        return Ok(context);
    };
    let (now, steady) = (cx.core.now, cx.core.steady_time());
    let response = CacheResponse {
        status: head.status,
        phrase: head.phrase(),
        fields: Fields(head.headers()),
        body: head.body,
        times: Times {
            requested_at: caching.requested_at(),
            received_at: steady,
            received_at_wall: cx.core.wall_time(),
        },
    };
    let options = &route.cluster.options.cache;
    let judges_without_fields = caching.judges_without_fields(&response);
    let mut judge = |view: &CacheRequest<'_>| caching.judge(view, &response, options, &store, (now, steady));
    let verdict = match judges_without_fields {
        true => Some(judge(&view_without_fields(&context.request, &route))),
        false => with_view(&context.request, &route, judge),
    };
    match verdict {
        None | Some(Verdict::Forward) => {
            context.caching = Some(caching);
            Ok(context)
        }
        Some(Verdict::Serve(object, served)) => {
            cx.observe(Observation::Responded { status: head.status, retry_after: head.retry_after });
            cx.common.stats.backend_done(cx.core.now);
            // The body of an error is not waited for.
            let stays = head.keep_alive && head.body == BodyLength::None && rest.is_empty() && !write_closed;
            cx.release(stays);
            Err(Transition::ServeCached(context, object, served))
        }
        Some(Verdict::Again) => {
            // What follows the head of another response than a 304 is not waited for.
            let has_body = head.body != BodyLength::None || !rest.is_empty();
            context.caching = Some(caching);
            Err(Transition::SendAgain { context, reuse: head.keep_alive && !has_body && !write_closed })
        }
        Some(Verdict::Gather) => {
            cx.common.stats.end_wait(cx.core.now);
            cx.observe(Observation::Responded { status: head.status, retry_after: head.retry_after });
            context.caching = Some(caching);
            let upstream_stays = head.keep_alive && head.idle_seconds != Some(0) && !write_closed;
            Err(Transition::Gather { context, body: head.body, upstream_stays, head_len: head.len })
        }
    }
}

/// The stored response to serve in place of this node's own error, if one is allowed.
#[cold]
pub(super) fn stand_in(
    context: &mut RequestContext,
    status: u16,
    cx: &StepContext<'_>,
) -> Option<(Arc<Object>, Served)> {
    let caching = context.caching.take().filter(|_| matches!(status, 502..=504))?;
    let (object, route) = (caching.into_stale()?, cx.common.route()?);
    let options = &route.cluster.options.cache;
    let steady = cx.core.steady_time();
    let may_serve = with_view(&context.request, route, |view| {
        view.is_retrieval() && lookup::may_replace_error(view, &object, Failure::NoResponse, options, steady)
    });
    if may_serve != Some(true) {
        return None;
    }
    let hits = object.count_hit();
    Some((object, Served { state: status::State::Stale, is_shadow: true, backend_status: None, waited: None, hits }))
}
