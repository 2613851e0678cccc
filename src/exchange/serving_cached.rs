//! The state in which a stored response is sent from the memory shared by all cores, as fast as the client reads it.

use super::cache_view::with_view;
use super::events::{Disposition, Input, Side};
use super::output_queue::ByteSink;
use super::request::Request;
use super::request_context::RequestContext;
use super::step_context::StepContext;
use super::transition::{Failure, Next, ResponseEnd, Step, Transition};
use crate::base::reason::FailureReason;
use crate::cache::object::Object;
use crate::cache::reply::Reply;
use crate::cache::status::Served;
use std::ops::Range;
use std::sync::Arc;

/// Bytes of a body in the output at once. The part that the socket does not accept is copied, so a slow client holds up
/// to this much.
const PIECE_BYTES: u64 = 256 * 1024;

/// The same for a frontend with a bandwidth limit.
const PACED_PIECE_BYTES: u64 = 16 * 1024;

/// A body up to this size is copied behind its head: one plain write is faster than a gathering one.
pub(super) const COPY_BYTES: u64 = 16 * 1024;

#[derive(Debug)]
pub(super) struct ServingCached {
    pub(super) context: Box<RequestContext>,
    object: Arc<Object>,
    left: Range<u64>,
    disposition: Disposition,
}

impl ServingCached {
    /// Evaluates the client's conditions and sends the head.
    pub(super) fn start(
        context: Box<RequestContext>,
        object: Arc<Object>,
        served: Served,
        cx: &mut StepContext<'_>,
    ) -> Step<Self> {
        let request = &context.request;
        let client_stays = cx.may_keep_alive() && request.keep_alive();
        let disposition = context.disposition(client_stays);
        let Some(route) = cx.common.route().cloned() else {
            return Err(Failure::new(context, FailureReason::NoBackend));
        };
        if route.cluster.options.has_byte_rates() {
            cx.common.start_pacing(request.head().len(), cx.core.now);
        }
        let steady = cx.core.steady_time();
        let (output, via) = (&mut cx.core.output.client, cx.core.settings.via.as_deref());
        let reply = with_view(request, &route, |view| {
            let reply = Reply::new(view, &object, served);
            output.make(|out| {
                reply.write_head(steady, out);
                put_own_fields(request, via, disposition, out);
            });
            (reply.status(), reply.body())
        });
        let Some((status, left)) = reply else { return Err(Failure::new(context, FailureReason::MalformedHead)) };
        (cx.common.stats.status, cx.common.stats.cache) = (status, Some(served.counter()));
        Ok(Self { context, object, left, disposition }.send_on(cx))
    }

    pub(super) fn step(mut self, input: Input<'_>, cx: &mut StepContext<'_>) -> Step<Self> {
        match input {
            Input::Drained(Side::Client) if self.context.download_keeps_up(cx.core.now, &cx.core.settings) => {
                Ok(self.send_on(cx))
            }
            Input::Drained(Side::Client) | Input::Deadline => {
                Err(Failure::silent(Some(self.context), FailureReason::ClientStalled))
            }
            _ => Ok(Next::Stay(self)),
        }
    }

    /// Puts the next piece of the body into the output; behind the last one only the sending is left.
    fn send_on(mut self, cx: &mut StepContext<'_>) -> Next<Self> {
        let is_paced = cx.common.pacing.is_some();
        if is_paced && !self.left.is_empty() && cx.common.is_paused(Side::Upstream) {
            cx.deadline_in(cx.body_timeout());
            return Next::Stay(self);
        }
        let piece = self.left.start..self.left.end.min(self.left.start.saturating_add(piece_bytes(is_paced)));
        self.left.start = piece.end;
        if is_paced {
            let len = usize::try_from(piece.end - piece.start).unwrap_or(usize::MAX);
            cx.common.count_paced(Side::Upstream, len, cx.core.now);
        }
        let (body, output) = (&self.object.body, &mut cx.core.output.client);
        if piece.end - piece.start <= COPY_BYTES {
            output.make(|out| body.slices(piece).for_each(|slice| out.extend_from_slice(slice)));
        } else {
            output.share(body, piece);
        }
        if self.left.is_empty() {
            let (context, connection) = (Some(self.context), self.disposition);
            return Transition::Flush { context, connection, end: ResponseEnd::Framed }.into();
        }
        cx.deadline_in(cx.body_timeout());
        Next::Stay(self)
    }
}

/// Bytes of a body that go into the output at once.
pub(super) fn piece_bytes(is_paced: bool) -> u64 {
    if is_paced { PACED_PIECE_BYTES } else { PIECE_BYTES }
}

/// Writes the fields of this node, and the end of the head.
pub(super) fn put_own_fields(request: &Request, via: Option<&str>, disposition: Disposition, out: &mut Vec<u8>) {
    if let Some(via) = via {
        out.extend_from_slice(b"Via: 1.1 ");
        out.extend_from_slice(via.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    match (disposition == Disposition::KeepAlive, request.is_http11()) {
        (false, _) => out.extend_from_slice(b"Connection: close\r\n"),
        (true, false) => out.extend_from_slice(b"Connection: keep-alive\r\n"),
        (true, true) => {}
    }
    out.extend_from_slice(b"\r\n");
}
