//! The state in which a response is sent while another request receives it from a backend, as fast as this client reads
//! it.

use super::cache_view::with_view;
use super::events::{Disposition, Input, Side};
use super::output_queue::ByteSink;
use super::request_context::RequestContext;
use super::serving_cached::{COPY_BYTES, piece_bytes, put_own_fields};
use super::step_context::StepContext;
use super::transition::{Failure, Next, Remains, ResponseEnd, Step, Transition};
use crate::base::reason::FailureReason;
use crate::cache::live::{LiveEnd, LiveReader};
use crate::cache::lookup::Cause;
use crate::cache::reply::Reply;
use crate::cache::status::{self, Served};
use crate::wire::chunked;

#[derive(Debug)]
pub(super) struct ServingLive {
    pub(super) context: Box<RequestContext>,
    reader: LiveReader,
    framing: Framing,
    disposition: Disposition,
    /// The whole body has arrived.
    is_whole: bool,
}

/// How the client recognises the end of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Sized,
    Chunked,
    UntilClose,
}

impl ServingLive {
    /// Evaluates the client's conditions against the head and sends it.
    pub(super) fn start(
        context: Box<RequestContext>,
        cause: Cause,
        reader: LiveReader,
        cx: &mut StepContext<'_>,
    ) -> Step<Box<Self>> {
        let request = &context.request;
        let live = reader.fill();
        let framing = match live.len {
            Some(_) => Framing::Sized,
            None if request.is_http11() => Framing::Chunked,
            None => Framing::UntilClose,
        };
        let client_stays = cx.may_keep_alive() && request.keep_alive() && framing != Framing::UntilClose;
        let disposition = context.disposition(client_stays);
        let Some(route) = cx.common.route().cloned() else {
            return Err(Failure::new(context, FailureReason::NoBackend));
        };
        if route.cluster.options.has_byte_rates() {
            cx.common.start_pacing(request.head().len(), cx.core.now);
        }
        let (steady, hits) = (cx.core.steady_time(), live.head.count_hit());
        let served =
            Served { state: status::State::Hit, is_shadow: false, backend_status: None, waited: Some(cause), hits };
        let (output, via) = (&mut cx.core.output.client, cx.core.settings.via.as_deref());
        let sent = with_view(request, &route, |view| {
            let reply = Reply::live(view, &live.head, live.len, served);
            output.make(|out| {
                reply.write_head(steady, out);
                if reply.is_full() && framing == Framing::Chunked {
                    out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
                }
                put_own_fields(request, via, disposition, out);
            });
            (reply.status(), reply.is_full())
        });
        let Some((status, has_body)) = sent else {
            return Err(Failure::new(context, FailureReason::MalformedHead));
        };
        (cx.common.stats.status, cx.common.stats.cache) = (status, Some(served.counter()));
        match has_body {
            true => Ok(Box::new(Self { context, reader, framing, disposition, is_whole: false }).send_on(cx)),
            false => {
                let (context, connection) = (Some(context), disposition);
                Ok(Transition::Flush { context, connection, end: ResponseEnd::Framed }.into())
            }
        }
    }

    pub(super) fn step(mut self: Box<Self>, input: Input<'_>, cx: &mut StepContext<'_>) -> Step<Box<Self>> {
        match input {
            Input::Drained(Side::Client) if !self.context.download_keeps_up(cx.core.now, &cx.core.settings) => {
                Err(self.stalled())
            }
            Input::Drained(Side::Client) => Ok(self.send_on(cx)),
            Input::FillEnded(_) if cx.is_drained(Side::Client) => Ok(self.send_on(cx)),
            Input::Deadline if !cx.is_drained(Side::Client) => Err(self.stalled()),
            // The request that receives the response has deadlines of its own.
            Input::Deadline => Ok(self.send_on(cx)),
            _ => Ok(Next::Stay(self)),
        }
    }

    #[cold]
    fn stalled(self) -> Failure {
        let end = self.response_end();
        Failure::new(self.context, FailureReason::ClientStalled).leaving(Remains::Silence(end))
    }

    /// Puts received bytes into the output, a piece at a time.
    fn send_on(mut self: Box<Self>, cx: &mut StepContext<'_>) -> Next<Box<Self>> {
        let is_paced = cx.common.pacing.is_some();
        if is_paced && cx.common.is_paused(Side::Upstream) {
            cx.deadline_in(cx.body_timeout());
            return Next::Stay(self);
        }
        let read = self.reader.read(piece_bytes(is_paced));
        if is_paced {
            cx.common.count_paced(Side::Upstream, usize::try_from(read.bytes.len()).unwrap_or(usize::MAX), cx.core.now);
        }
        let (body, output) = (&read.bytes, &mut cx.core.output.client);
        if !body.is_empty() {
            if self.framing == Framing::Chunked {
                output.make(|out| chunked::put_size(out, usize::try_from(body.len()).unwrap_or(usize::MAX)));
            }
            if body.len() <= COPY_BYTES {
                output.make(|out| body.slices(0..body.len()).for_each(|slice| out.extend_from_slice(slice)));
            } else {
                output.share(body, 0..body.len());
            }
            if self.framing == Framing::Chunked {
                output.make(|out| out.extend_from_slice(b"\r\n"));
            }
        }
        match read.end {
            None => {
                cx.deadline_in(cx.body_timeout());
                Next::Stay(self)
            }
            Some(LiveEnd::Whole) => {
                self.is_whole = true;
                if self.framing == Framing::Chunked {
                    // Without trailers it cannot fail.
                    cx.core.output.client.make(|out| {
                        let _ = chunked::put_end(out, &[]);
                    });
                }
                let end = self.response_end();
                Transition::Flush { context: Some(self.context), connection: self.disposition, end }.into()
            }
            Some(LiveEnd::Cut) => {
                cx.common.stats.fail(FailureReason::UpstreamTruncated);
                let (end, connection) = (self.response_end(), self.context.disposition(false));
                Transition::Flush { context: Some(self.context), connection, end }.into()
            }
        }
    }

    /// How the client would recognise the end of the response now.
    pub(super) fn response_end(&self) -> ResponseEnd {
        match (self.framing, self.is_whole) {
            (Framing::Sized | Framing::Chunked, _) => ResponseEnd::Framed,
            (Framing::UntilClose, true) => ResponseEnd::UntilClose,
            (Framing::UntilClose, false) => ResponseEnd::Truncated,
        }
    }
}
