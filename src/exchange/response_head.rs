//! The head of a backend's response on its way to the client.

use super::output_queue::ByteSink;
use super::request_context::RequestContext;
use super::{StepContext, affinity, classes, local_reply, rules};
use crate::haproxy::serve::Outcome;
use crate::wire::response::{Persistence, ResponseEncoding, ResponseHead};

/// Puts the head of a response into the output, and behind an interim one nothing else: the last one to a request tells of
/// where it comes from. An error is what the rules of the frontend make of the response instead.
pub(super) fn put(
    context: &RequestContext,
    head: &ResponseHead<'_, '_>,
    (chunked, persistence): (bool, Persistence),
    cx: &mut StepContext<'_>,
) -> Result<(), Outcome> {
    let (request, to_http11) = (&context.request, context.request.is_http11());
    let is_last = !head.is_informational();
    let is_ruled = cx.common.rules.is_some();
    if is_ruled && is_last && persistence != Persistence::Upgrade {
        let encoding = ResponseEncoding { chunked, to_http11, persistence, via: None };
        return rules::put_head(context, head, &encoding, cx);
    }
    let via = cx.core.settings.via.as_deref().filter(|_| !is_ruled);
    let encoding = ResponseEncoding { chunked, to_http11, persistence, via };
    if !is_last {
        put_alone(head, &encoding, &mut cx.core.output.client);
        return Ok(());
    }
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
    Ok(())
}

#[cold]
fn put_alone(head: &ResponseHead<'_, '_>, encoding: &ResponseEncoding<'_>, output: &mut impl ByteSink) {
    output.make(|out| {
        head.write(encoding, out);
        out.extend_from_slice(b"\r\n");
    });
}
