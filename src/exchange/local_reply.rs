//! Responses of this node, and debug fields in responses.

use super::classes;
use super::ended_by::{EndedBy, ended_by};
use super::events::Disposition;
use super::output_queue::ByteSink;
use super::request::Request;
use super::request_context::RequestContext;
use super::step_context::{CommonState, StepContext};
use super::transition::{ResponseEnd, Transition};
use super::worker_context::WorkerContext;
use crate::base::printable::printable;
use crate::base::reason::FailureReason;
use crate::cluster::{Permit, Route};
use crate::page;
use crate::wire::put_number;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

/// Responds with the error page of a failure.
#[cold]
pub(super) fn fail(
    context: Option<Box<RequestContext>>,
    uploaded: bool,
    reason: FailureReason,
    cx: &mut StepContext<'_>,
) -> Transition {
    let pages = Arc::clone(&cx.core.pages);
    let route = cx.common.route().cloned();
    let status = route.as_ref().map_or(pages.status(reason), |route| status_at(route, reason));
    debug_assert!((400..600).contains(&reason.status()) && reason.status() != 499, "{reason} cannot be told");
    let debug = context.as_ref().is_some_and(|context| context.request.may_debug());
    let ended_by = ended_by(reason, cx.common, &cx.core.settings);
    let own = route.as_ref().and_then(|route| route.cluster.options.pages.of(status));
    let body = match (own, &ended_by) {
        (Some(page), _) => Cow::Borrowed(page),
        // A comment in HTML: it is in the source of the page, and not on it.
        (None, Some(ended_by)) if pages.is_built_in(reason) => {
            let remark = format!("<!-- {reason}: {ended_by} -->\n");
            Cow::Owned([pages.body(reason), remark.as_bytes()].concat())
        }
        (None, _) => Cow::Borrowed(pages.body(reason)),
    };
    let reply = LocalReply {
        status,
        fields: page::PAGE_HEADERS.as_bytes(),
        retry_after: match (reason, status) {
            // A rate is one of whole requests a second.
            (FailureReason::ClientRate | FailureReason::FrontendRate, _) => RATE_RETRY,
            (_, 429 | 503) => cx.common.retry_after(),
            _ => Duration::ZERO,
        },
        error: debug.then_some((reason, ended_by.as_ref())),
        body: &body,
    };
    reply.give(context, uploaded, cx)
}

/// The status of a failure at this route.
fn status_at(route: &Route, reason: FailureReason) -> u16 {
    let statuses = &route.cluster.options.statuses;
    match reason {
        FailureReason::NoBackend if route.cluster.members.is_empty() => statuses.empty,
        FailureReason::ClusterDisabled => statuses.disabled,
        _ => reason.status(),
    }
}

/// `Retry-After` of a response to a request beyond a rate.
const RATE_RETRY: Duration = Duration::from_secs(1);

/// Responds with 200 and this text, for requests to the node itself.
#[cold]
pub(super) fn plain(context: Box<RequestContext>, body: &'static str, cx: &mut StepContext<'_>) -> Transition {
    let uploaded = context.upload.is_done();
    let fields = b"Content-Type: text/plain\r\n";
    let reply = LocalReply { status: 200, fields, retry_after: Duration::ZERO, error: None, body: body.as_bytes() };
    reply.give(Some(context), uploaded, cx)
}

/// Redirects the client to the same URL over TLS.
#[cold]
pub(super) fn redirect(context: Box<RequestContext>, cx: &mut StepContext<'_>) -> Transition {
    let (request, uploaded) = (&context.request, context.upload.is_done());
    let port = match cx.core.settings.redirect.port {
        443 => String::new(),
        port => format!(":{port}"),
    };
    let target = String::from_utf8_lossy(request.target());
    let target = if target.starts_with('/') { &target } else { "/" };
    let fields = format!("Location: https://{}{port}{target}\r\n", request.host());
    // 308 keeps the method; 301 lets it become GET (RFC 9110 section 15.4).
    let status = if matches!(request.method(), b"GET" | b"HEAD") { 301 } else { 308 };
    let reply = LocalReply { status, fields: fields.as_bytes(), retry_after: Duration::ZERO, error: None, body: b"" };
    reply.give(Some(context), uploaded, cx)
}

/// A response of this node.
pub(super) struct LocalReply<'a> {
    pub(super) status: u16,
    /// Header lines, each with its CRLF.
    pub(super) fields: &'a [u8],
    /// The value of `Retry-After`, rounded up to seconds; zero for none.
    pub(super) retry_after: Duration,
    /// The failure named in the debug header, and the setting whose value caused it.
    pub(super) error: Option<(FailureReason, Option<&'a EndedBy>)>,
    /// A response to HEAD leaves the body out.
    pub(super) body: &'a [u8],
}

impl LocalReply<'_> {
    /// Ends the exchange with this response.
    pub(super) fn give(
        &self,
        context: Option<Box<RequestContext>>,
        uploaded: bool,
        cx: &mut StepContext<'_>,
    ) -> Transition {
        let request = context.as_ref().map(|context| &context.request);
        let connection = self.put_head(request, uploaded, cx);
        if !request.is_some_and(Request::is_head) {
            cx.core.output.client.make(|out| out.extend_from_slice(self.content()));
        }
        Transition::Flush { context, connection, end: ResponseEnd::Framed }
    }

    /// The body; none where the status has none (RFC 9110 sections 15.3.5, 15.3.6, 15.4.5).
    fn content(&self) -> &[u8] {
        if matches!(self.status, 204 | 205 | 304) { b"" } else { self.body }
    }

    /// Writes its head to the output, and returns what happens to the client's connection behind it. A client whose
    /// body is incomplete cannot keep its connection.
    pub(super) fn put_head(&self, request: Option<&Request>, uploaded: bool, cx: &mut StepContext<'_>) -> Disposition {
        let keep_alive = uploaded && cx.may_keep_alive() && request.is_some_and(Request::keep_alive);
        let connection = match keep_alive {
            true => Disposition::KeepAlive,
            false => Disposition::Linger { client_may_send: !uploaded || request.is_none_or(Request::keep_alive) },
        };
        self.put(request, keep_alive, Some(self.content().len()), cx);
        connection
    }

    /// Writes the head of a response that ends with the client's connection.
    #[cold]
    pub(super) fn put_head_until_close(&self, request: &Request, cx: &mut StepContext<'_>) -> Disposition {
        self.put(Some(request), false, None, cx);
        Disposition::Linger { client_may_send: request.keep_alive() }
    }

    fn put(&self, request: Option<&Request>, keep_alive: bool, length: Option<usize>, cx: &mut StepContext<'_>) {
        cx.common.stats.status = self.status;
        let bucket = classes::bucket_field(cx.common);
        cx.core.output.client.make(|out| {
            out.extend_from_slice(b"HTTP/1.1 ");
            put_number(out, u64::from(self.status));
            put_all(out, &[" ", page::phrase(self.status), "\r\n"]);
            out.extend_from_slice(self.fields);
            // A 204 has no `Content-Length` (RFC 9110 section 8.6), and that of a 304 is the length of another response.
            if let Some(length) = length.filter(|_| !matches!(self.status, 204 | 304)) {
                put_all(out, &["Content-Length: "]);
                put_number(out, length as u64);
                out.extend_from_slice(b"\r\n");
            }
            if !self.retry_after.is_zero() {
                out.extend_from_slice(b"Retry-After: ");
                put_number(out, self.retry_after.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX));
                out.extend_from_slice(b"\r\n");
            }
            if let Some(bucket) = bucket {
                bucket.put(out);
            }
            if let Some((reason, ended_by)) = self.error {
                put_all(out, &["X-Debug-Error: ", reason.name(), "\r\n"]);
                if let Some(ended_by) = ended_by {
                    put_all(out, &["X-Debug-Limit: ", &ended_by.to_string(), "\r\n"]);
                }
            }
            match (keep_alive, request.is_none_or(Request::is_http11)) {
                (false, _) => out.extend_from_slice(b"Connection: close\r\n"),
                (true, false) => out.extend_from_slice(b"Connection: keep-alive\r\n"),
                (true, true) => {}
            }
            out.extend_from_slice(b"\r\n");
        });
    }
}

/// The debug fields of a backend's response, if the request asks for them and is allowed to.
pub(super) fn debug_fields<'a>(
    request: &Request,
    common: &'a CommonState,
    core: &WorkerContext,
) -> Option<DebugFields<'a>> {
    let permit = common.permit.as_ref().filter(|_| request.may_debug())?;
    Some(DebugFields {
        permit,
        total_ms: common.stats.total(core.now).as_millis(),
        backend_ms: common.stats.backend(core.now).unwrap_or_default().as_millis(),
    })
}

/// The `X-Debug` headers of a backend's response (names and meanings are Hipache's).
pub(super) struct DebugFields<'a> {
    permit: &'a Permit,
    total_ms: u128,
    backend_ms: u128,
}

impl DebugFields<'_> {
    #[cold]
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        let (cluster, member) = (self.permit.cluster(), self.permit.member());
        put_all(out, &["X-Debug-Version: ", env!("CARGO_PKG_VERSION"), "\r\n"]);
        put_all(out, &["X-Debug-Backend-Url: ", member.url.as_str(), "\r\nX-Debug-Backend-Id: "]);
        put_number(out, self.permit.place() as u64);
        // Item 0 of a list is arbitrary text.
        put_all(out, &["\r\nX-Debug-Vhost: ", &printable(&cluster.id)]);
        put_all(out, &["\r\nX-Debug-Frontend-Key: ", &printable(&cluster.key), "\r\nX-Debug-Time-Total: "]);
        put_number(out, u64::try_from(self.total_ms).unwrap_or(u64::MAX));
        out.extend_from_slice(b"\r\nX-Debug-Time-Backend: ");
        put_number(out, u64::try_from(self.backend_ms).unwrap_or(u64::MAX));
        out.extend_from_slice(b"\r\n");
    }
}

fn put_all(out: &mut Vec<u8>, texts: &[&str]) {
    texts.iter().for_each(|text| out.extend_from_slice(text.as_bytes()));
}
