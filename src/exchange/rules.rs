//! Rules of HAProxy files: at their listeners the rules decide in place of the host.

use super::choosing;
use super::compressor::Compressor;
use super::local_reply::{self, LocalReply};
use super::local_service;
use super::output_queue::ByteSink;
use super::request_context::RequestContext;
use super::service::RuledPage;
use super::step_context::StepContext;
use super::transition::{Failure, Transition};
use super::worker_context::WorkerContext;
use crate::base::reason::FailureReason;
use crate::cluster::Permit;
use crate::haproxy::serve::{Dice, Outcome};
use crate::wire::body::BodyLength;
use crate::wire::response::{ResponseEncoding, ResponseHead};
use std::time::{Duration, UNIX_EPOCH};

/// Applies the rules of the frontend to a request whose head is complete.
#[cold]
pub(super) fn decide(mut context: Box<RequestContext>, cx: &mut StepContext<'_>) -> Result<Transition, Failure> {
    let dice = dice(cx.core);
    let Some(evaluation) = &mut cx.common.rules else { return Ok(Transition::Resolve(context)) };
    let WorkerContext { rules: work, buffers, .. } = &mut *cx.core;
    let outcome = evaluation.decide(context.request.head(), !context.request.is_http11(), dice, work);
    if let Some(head) = work.changed_request() {
        context.request.replace_head(head, buffers);
    }
    let route = evaluation.route().cloned();
    match (outcome, route) {
        (Outcome::Forward, Some(route)) => choosing::connect(context, route, cx),
        (Outcome::Forward | Outcome::NoBackend, _) => Err(Failure::new(context, FailureReason::NoBackendRule)),
        (Outcome::Close, _) => Err(Failure::silent(Some(context), FailureReason::ClosedByRule)),
        (Outcome::Statistics, _) => statistics(context, cx),
        (Outcome::Metrics, _) => Ok(local_service::show(context, RuledPage::Metrics)),
        (Outcome::Respond, _) => Ok(respond(context, None, cx)),
        (Outcome::Deny, _) => Ok(respond(context, Some(FailureReason::DeniedByRule), cx)),
    }
}

/// Requests the statistics page from this node's service.
#[cold]
fn statistics(context: Box<RequestContext>, cx: &mut StepContext<'_>) -> Result<Transition, Failure> {
    let page = cx.common.rules.as_ref().and_then(|rules| rules.statistics_page(context.request.target()));
    match page {
        Some(page) => Ok(local_service::show(context, RuledPage::Statistics(page))),
        None => Err(Failure::new(context, FailureReason::NoBackendRule)),
    }
}

/// Ends the exchange with the response of the rules.
#[cold]
fn respond(context: Box<RequestContext>, reason: Option<FailureReason>, cx: &mut StepContext<'_>) -> Transition {
    if let Some(reason) = reason {
        cx.common.stats.fail(reason);
    }
    let uploaded = context.upload.is_done();
    give(Some(context), uploaded, reason, cx)
}

/// Ends the exchange with the error page of the frontend for a failure.
#[cold]
pub(super) fn fail(
    context: Option<Box<RequestContext>>,
    uploaded: bool,
    reason: FailureReason,
    cx: &mut StepContext<'_>,
) -> Transition {
    let dice = dice(cx.core);
    if let Some(evaluation) = &mut cx.common.rules {
        let head = context.as_ref().map_or(&[][..], |context| context.request.head());
        evaluation.fail(head, (status_of(reason), reason.sentence()), dice, &mut cx.core.rules);
    }
    give(context, uploaded, Some(reason), cx)
}

/// Whether the client gets no response for a failure: the error file of its status is empty.
pub(super) fn is_silent(reason: FailureReason, cx: &StepContext<'_>) -> bool {
    cx.common.rules.as_ref().is_some_and(|evaluation| evaluation.is_silent(status_of(reason)))
}

/// The status of a failure at a HAProxy frontend: a server that cannot be reached is a 503 there.
fn status_of(reason: FailureReason) -> u16 {
    match reason {
        FailureReason::ConnectFailed
        | FailureReason::ConnectTimeout
        | FailureReason::NameNotResolved
        | FailureReason::NoBackend
        | FailureReason::TlsFailed => 503,
        reason => reason.status(),
    }
}

fn give(
    context: Option<Box<RequestContext>>,
    uploaded: bool,
    reason: Option<FailureReason>,
    cx: &mut StepContext<'_>,
) -> Transition {
    let made = cx.core.rules.take_reply();
    let debug = context.as_ref().is_some_and(|context| context.request.may_debug());
    let reply = LocalReply {
        status: made.status(),
        fields: made.fields(),
        retry_after: Duration::ZERO,
        error: reason.filter(|_| debug).map(|reason| (reason, None)),
        body: made.body(),
    };
    let transition = reply.give(context, uploaded, cx);
    cx.core.rules.put_reply(made);
    transition
}

/// Writes the head of a response to the output, as modified by the rules, and returns the compression of its body. An
/// error replaces the response.
#[cold]
pub(super) fn put_head(
    context: &RequestContext,
    head: &ResponseHead<'_, '_>,
    encoding: &ResponseEncoding<'_>,
    cx: &mut StepContext<'_>,
) -> Result<Option<Box<Compressor>>, Outcome> {
    let dice = dice(cx.core);
    let place = cx.common.permit.as_ref().map(Permit::place);
    if let Some(evaluation) = &mut cx.common.rules {
        evaluation.note_response(head.status, place, dice);
    }
    let debug = local_reply::debug_fields(&context.request, cx.common, cx.core);
    let mut bytes = cx.core.buffers.take();
    let capacity = bytes.capacity();
    head.write(encoding, &mut bytes);
    if let Some(debug) = debug {
        debug.put(&mut bytes);
    }
    bytes.extend_from_slice(b"\r\n");
    let can_compress = head.is_http11()
        && head.status != 101
        && !matches!(head.body, BodyLength::None | BodyLength::UntilClose | BodyLength::Sized(0))
        && cx.core.compressors.has_room();
    let WorkerContext { rules: work, output, buffers, compressors, .. } = &mut *cx.core;
    buffers.note_growth(&bytes, capacity);
    let (outcome, coding) = match &mut cx.common.rules {
        Some(evaluation) if evaluation.sees_response() => {
            evaluation.respond((context.request.head(), &bytes), place, can_compress, dice, work)
        }
        _ => {
            work.pass_response(&bytes);
            (Outcome::Forward, None)
        }
    };
    buffers.give(bytes);
    if outcome != Outcome::Forward {
        return Err(outcome);
    }
    output.client.make(|out| out.extend_from_slice(work.response()));
    cx.common.stats.status = work.response_status();
    Ok(coding.map(|coding| compressors.take(coding)))
}

/// Ends an exchange whose response must not reach the client.
#[cold]
pub(super) fn drop_response(
    context: Box<RequestContext>,
    outcome: Outcome,
    cx: &mut StepContext<'_>,
) -> Result<Transition, Failure> {
    cx.release(false);
    match outcome {
        Outcome::Respond => Ok(respond(context, None, cx)),
        Outcome::Close => Err(Failure::silent(Some(context), FailureReason::ClosedByRule)),
        _ => Ok(respond(context, Some(FailureReason::DeniedByRule), cx)),
    }
}

fn dice(core: &mut WorkerContext) -> Dice {
    let since = core.wall_time().duration_since(UNIX_EPOCH).unwrap_or_default();
    Dice {
        unix_seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        subsec_millis: u16::try_from(since.subsec_millis()).unwrap_or(0),
        random: core.rng.u32(..),
        now: core.now.as_micros() / 1000,
    }
}
