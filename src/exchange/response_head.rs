//! Forwarding of the head of a backend's response, and its meaning for the rest.

use super::body_forwarder::BodyForwarder;
use super::compressor::Compressor;
use super::events::Effect;
use super::output_queue::ByteSink;
use super::request_context::RequestContext;
use super::step_context::StepContext;
use super::transition::{Failure, ResponseCourse, Transition};
use super::{affinity, classes, local_reply, rules};
use crate::haproxy::serve::Outcome;
use crate::health::Observation;
use crate::wire::body::BodyLength;
use crate::wire::response::{Persistence, ResponseEncoding, ResponseHead};
use std::num::NonZeroU16;

/// Forwards the head of a response and determines the meaning of its end. `rest` stands behind it, on a connection that
/// accepts no more of the request if `write_closed`.
pub(super) fn pass(
    mut context: Box<RequestContext>,
    head: &ResponseHead<'_, '_>,
    (rest, write_closed): (&[u8], bool),
    cx: &mut StepContext<'_>,
) -> Result<Transition, Failure> {
    cx.common.stats.end_wait(cx.core.now);
    if cx.common.bucket.is_some() {
        cx.note_response();
    }
    cx.observe(Observation::Responded { status: head.status, retry_after: head.retry_after });
    context.request.drop_replay(&mut cx.core.buffers);
    // A connection that is kept for no time serves no other request.
    cx.common.upstream_idle_seconds = head.idle_seconds.and_then(NonZeroU16::new);
    let (request, upload) = (&context.request, &context.upload);
    cx.common.stats.status = head.status;

    // A client that sees a refusal may stop sending (RFC 9112 section 9.6). A client that sees a success goes on, and
    // its backend may go on reading. A client that was never told to send the body may do either (RFC 9110 section
    // 10.1.1).
    let upload_irrelevant = head.status >= 300 || write_closed;
    let upload_is_optional = context.awaits_continue();
    let upload_may_stop = !upload.is_done() && (upload_irrelevant || upload_is_optional);
    let has_no_length = matches!(head.body, BodyLength::Chunked | BodyLength::UntilClose);
    let ends_with_connection = has_no_length && !request.is_http11();
    let client_stays = cx.may_keep_alive() && request.keep_alive() && !ends_with_connection && !upload_may_stop;
    let chunked = has_no_length && request.is_http11();
    let persistence = match client_stays {
        false => Persistence::Close,
        true if request.is_http11() => Persistence::Implied,
        true => Persistence::KeepAlive,
    };
    match put(&context, head, (chunked, persistence), cx) {
        Ok(compressor) => context.compressor = compressor,
        Err(outcome) => return rules::drop_response(context, outcome, cx),
    }
    // The compressor makes its own chunks.
    let chunked = chunked && context.compressor.is_none();
    if upload_irrelevant && !context.upload.is_done() {
        cx.effect(Effect::Uploaded);
    }
    if upload_is_optional {
        context.upload_rate.restart(cx.core.now);
    }
    if head.body == BodyLength::None && !rest.is_empty() {
        context.caching.iter_mut().for_each(|caching| caching.give_up_fill());
    }
    context.download = BodyForwarder::new(head.body, chunked, &cx.core.settings.limits);
    let course = ResponseCourse {
        client_stays,
        ends_with_connection,
        has_no_length,
        upstream_stays: head.keep_alive
            && head.idle_seconds != Some(0)
            && !write_closed
            && (rest.is_empty() || head.body != BodyLength::None),
        upload_irrelevant,
        upload_is_optional,
    };
    Ok(Transition::Forward { context, course, head_len: head.len })
}

/// Writes the head of an informational response to the output.
#[cold]
pub(super) fn put_interim(head: &ResponseHead<'_, '_>, cx: &mut StepContext<'_>) {
    let via = cx.core.settings.via.as_deref().filter(|_| cx.common.rules.is_none());
    let encoding = ResponseEncoding { chunked: false, to_http11: true, persistence: Persistence::Implied, via };
    cx.core.output.client.make(|out| {
        head.write(&encoding, out);
        out.extend_from_slice(b"\r\n");
    });
}

/// Writes the head of a 101 to the output. An error is what rules make of the response instead.
#[cold]
pub(super) fn put_switch(
    context: &RequestContext,
    head: &ResponseHead<'_, '_>,
    cx: &mut StepContext<'_>,
) -> Result<(), Outcome> {
    // It has no body that could be compressed.
    put(context, head, (false, Persistence::Upgrade), cx).map(|_| ())
}

/// Writes the head of a response to the output. Rules may enable compression of its body; an error is their replacement
/// of the response.
fn put(
    context: &RequestContext,
    head: &ResponseHead<'_, '_>,
    (chunked, persistence): (bool, Persistence),
    cx: &mut StepContext<'_>,
) -> Result<Option<Box<Compressor>>, Outcome> {
    if cx.common.rules.is_some() {
        let to_http11 = context.request.is_http11();
        let encoding = ResponseEncoding { chunked, to_http11, persistence, via: None };
        return rules::put_head(context, head, &encoding, cx);
    }
    write(context, head, (chunked, persistence), cx);
    Ok(None)
}

/// Writes the final head of a response to which no rules apply, with debug fields about its origin.
fn write(
    context: &RequestContext,
    head: &ResponseHead<'_, '_>,
    (chunked, persistence): (bool, Persistence),
    cx: &mut StepContext<'_>,
) {
    let (request, to_http11) = (&context.request, context.request.is_http11());
    let via = cx.core.settings.via.as_deref();
    let encoding = ResponseEncoding { chunked, to_http11, persistence, via };
    let debug = local_reply::debug_fields(request, cx.common, cx.core);
    let session = affinity::session_cookie(context, cx.common, cx.core.now);
    let bucket = classes::bucket_field(cx.common);
    cx.core.output.client.make(|out| {
        head.write(&encoding, out);
        if let Some(debug) = debug {
            debug.put(out);
        }
        if let Some(session) = session {
            session.put(out);
        }
        if let Some(bucket) = bucket {
            bucket.put(out);
        }
        if let Some(caching) = &context.caching {
            caching.put_fields(request, out);
        }
        out.extend_from_slice(b"\r\n");
    });
}
