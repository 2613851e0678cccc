//! The state in which the head of the response was sent, so it cannot be replaced.

use super::caching::Caching;
use super::events::{Input, Side};
use super::output_queue::{ByteSink, OutputQueue};
use super::request_context::RequestContext;
use super::settings::Settings;
use super::step_context::{CommonState, StepContext};
use super::transition::{Failure, Next, Remains, ResponseCourse, ResponseEnd, Step, Transition};
use crate::base::clock::Moment;
use crate::base::counters::Counter;
use crate::base::reason::FailureReason;
use crate::base::slice_ext::SliceExt;
use crate::wire::chunked::ChunkFault;
use std::ops::Range;
use std::time::Duration;

#[derive(Debug)]
pub(super) struct ForwardingResponse {
    pub(super) context: Box<RequestContext>,
    pub(super) course: ResponseCourse,
    /// The client is gone, and other requests read its response.
    is_for_readers: bool,
}

impl ForwardingResponse {
    /// Forwards the part of the body that stands behind the forwarded head of this length.
    pub(super) fn start(
        context: Box<RequestContext>,
        course: ResponseCourse,
        (rest, head_len): (&[u8], usize),
        cx: &mut StepContext<'_>,
    ) -> Step<Self> {
        let state = Self { context, course, is_for_readers: cx.common.is_background() };
        if rest.is_empty() || state.context.download.is_done() {
            return Ok(state.settle(cx));
        }
        cx.core.output.client.advance(head_len);
        cx.consumed = 0;
        let step = state.receive(rest, cx);
        cx.consumed += head_len;
        step
    }

    /// A response that another process has begun. Its connection to the backend does not belong to the pool.
    pub(super) fn moved(context: Box<RequestContext>, course: ResponseCourse) -> Self {
        let course = ResponseCourse { upstream_stays: false, ..course };
        Self { context, course, is_for_readers: false }
    }

    /// Whether another worker could continue it.
    pub(super) fn is_movable(&self) -> bool {
        let RequestContext { upload, download, caching, .. } = &*self.context;
        let fills = caching.as_ref().is_some_and(|caching| caching.is_filling());
        upload.is_done() && !download.is_done() && !fills && !self.is_for_readers
    }

    /// Whether another process could continue it.
    pub(super) fn is_portable(&self) -> bool {
        self.is_movable() && self.context.compressor.is_none()
    }

    /// Forwards bytes that belong to the response.
    fn receive(mut self, bytes: &[u8], cx: &mut StepContext<'_>) -> Step<Self> {
        let RequestContext { download, caching, compressor, .. } = &mut *self.context;
        if let Some(compressor) = compressor {
            let fed = compressor.feed(download, bytes, &mut cx.core.output.client);
            return self.received(bytes, fed, cx);
        }
        let fed = match caching.as_deref_mut().filter(|caching| caching.is_filling()) {
            Some(caching) => {
                let now = cx.core.now;
                download.feed(bytes, &mut Tee { queue: &mut cx.core.output.client, caching, now })
            }
            None => download.feed(bytes, &mut cx.core.output.client),
        };
        if self.is_for_readers {
            cx.core.output.client.clear();
        }
        self.received(bytes, fed, cx)
    }

    /// Continues after bytes of the response; `fed` is the number of them that belong to it.
    fn received(mut self, bytes: &[u8], fed: Result<usize, ChunkFault>, cx: &mut StepContext<'_>) -> Step<Self> {
        match fed {
            Ok(consumed) => {
                cx.consumed = consumed;
                // Bytes behind the response would be read as the next one.
                if self.context.download.is_done() && consumed < bytes.len() {
                    self.course.upstream_stays = false;
                    // The end of this response is uncertain too.
                    self.context.caching.iter_mut().for_each(|caching| caching.give_up_fill());
                }
                Ok(self.settle(cx))
            }
            Err(_) => Err(self.cut(FailureReason::UpstreamTruncated)),
        }
    }

    /// Forwards bytes that belong to the request.
    #[inline(never)]
    fn send(mut self, bytes: &[u8], cx: &mut StepContext<'_>) -> Step<Self> {
        let fed = self.context.upload.feed(bytes, &mut cx.core.output.upstream);
        if let Err(reason) = cx.judge_upload(&mut self.context, fed) {
            return Err(self.cut(reason));
        }
        Ok(self.settle(cx))
    }

    pub(super) fn step(mut self, input: Input<'_>, cx: &mut StepContext<'_>) -> Step<Self> {
        match input {
            Input::Bytes(Side::Upstream, bytes) => self.receive(bytes, cx),
            Input::Bytes(Side::Client, bytes) => self.send(bytes, cx),
            Input::End(Side::Client) if self.wants(Side::Client) => Err(self.silent(FailureReason::ClientTruncated)),
            Input::End(Side::Upstream) => {
                self.upstream_gone();
                match self.context.download.end_of_input(&mut cx.core.output.client) {
                    true => Ok(self.settle(cx)),
                    false => Err(self.cut(FailureReason::UpstreamTruncated)),
                }
            }
            Input::Broken(Side::Upstream) => {
                self.upstream_gone();
                match self.context.download.is_done() {
                    true => Ok(self.settle(cx)),
                    false => Err(self.cut(FailureReason::UpstreamTruncated)),
                }
            }
            Input::UpstreamWriteClosed => {
                self.upstream_gone();
                Ok(self.settle(cx))
            }
            Input::Drained(Side::Upstream) => Ok(self.settle(cx)),
            Input::Drained(Side::Client) if !self.context.download_keeps_up(cx.core.now, &cx.core.settings) => {
                self.client_stalled(cx)
            }
            // The readers have caught up.
            Input::FillEnded(_) => {
                self.context.caching.iter_mut().for_each(|caching| caching.look_at_readers());
                Ok(self.settle(cx))
            }
            Input::Deadline => self.stalled(cx),
            _ => Ok(Next::Stay(self)),
        }
    }

    pub(super) fn wants(&self, side: Side) -> bool {
        match side {
            Side::Client => !self.context.upload.is_done() && !self.course.upload_irrelevant,
            Side::Upstream => !self.context.download.is_done() && !self.is_held(),
        }
    }

    /// The greatest number of bytes of the request's body that may still arrive.
    pub(super) fn upload_left(&self) -> usize {
        self.context.upload.share_of(usize::MAX)
    }

    /// The limit of the backend's silence in the middle of the response.
    pub(super) fn patience(&self, common: &CommonState, settings: &Settings) -> Duration {
        match self.course.has_no_length {
            true => common.stream_timeout(settings).unwrap_or(Duration::MAX),
            false => common.body_timeout(settings),
        }
    }

    /// Whether the client is gone and other requests read its response.
    pub(super) fn is_for_readers(&self) -> bool {
        self.is_for_readers
    }

    /// Whether other requests read the response.
    pub(super) fn has_readers(&self) -> bool {
        self.context.caching.as_ref().is_some_and(|caching| caching.has_readers())
    }

    /// Whether readers have yet to catch up.
    fn is_held(&self) -> bool {
        self.context.caching.as_ref().is_some_and(|caching| caching.is_held())
    }

    /// Continues without the client, whose response other requests read. The client is not waited for any more; its
    /// connection is reset once the exchange is over.
    #[cold]
    pub(super) fn lose_client(mut self, reason: FailureReason, cx: &mut StepContext<'_>) -> Next<Self> {
        if !std::mem::replace(&mut cx.common.client_left, true) {
            cx.common.stats.fail(reason);
            self.is_for_readers = true;
            (self.course.client_stays, self.course.upload_irrelevant) = (false, true);
        }
        cx.core.output.client.clear();
        cx.common.to_client.discard(&mut cx.core.buffers);
        self.settle(cx)
    }

    /// The client does not read its response, which other requests may read.
    #[cold]
    fn client_stalled(self, cx: &mut StepContext<'_>) -> Step<Self> {
        match self.has_readers() {
            true => Ok(self.lose_client(FailureReason::ClientStalled, cx)),
            false => Err(self.silent(FailureReason::ClientStalled)),
        }
    }

    fn upstream_gone(&mut self) {
        self.course.upstream_stays = false;
        self.course.upload_irrelevant = true;
    }

    /// Ends the exchange once both bodies are complete and sent.
    fn settle(mut self, cx: &mut StepContext<'_>) -> Next<Self> {
        if !self.context.download.is_done() {
            let now = cx.core.now;
            self.context.caching.iter_mut().for_each(|caching| caching.publish(now));
            // Slow readers have a limit of their own.
            cx.common.deadline = match self.is_held() {
                true => Moment::NEVER,
                false => now + self.patience(cx.common, &cx.core.settings),
            };
            return Next::Stay(self);
        }
        cx.common.stats.backend_done(cx.core.now);
        let is_heard =
            !self.wants(Side::Client) || (self.course.upload_is_optional && self.context.upload.received() == 0);
        // An early response does not withhold the end of the body from a backend that still reads it.
        let is_sent = self.course.upload_irrelevant || cx.is_drained(Side::Upstream);
        if !(is_heard && is_sent) {
            cx.deadline_in(cx.body_timeout());
            return Next::Stay(self);
        }
        self.finish(cx).into()
    }

    fn finish(mut self, cx: &mut StepContext<'_>) -> Transition {
        if let Some(caching) = self.context.caching.take()
            && let (Some(store), Some(route)) = (&cx.core.cache, cx.common.route())
            && caching.complete(store, &route.cluster.options.cache, cx.core.now)
        {
            cx.common.stats.cache = Some(Counter::CacheFills);
        }
        if let Some(mut compressor) = self.context.compressor.take() {
            cx.core.compressors.give(&mut compressor);
        }
        let uploaded = self.context.upload.is_done() && cx.is_drained(Side::Upstream);
        cx.release(self.course.upstream_stays && uploaded);
        let connection = self.context.disposition(self.course.client_stays);
        let end = self.response_end();
        Transition::Flush { context: Some(self.context), connection, end }
    }

    /// Ends the response in its present state.
    #[cold]
    fn cut(mut self, reason: FailureReason) -> Failure {
        // Requests that wait for the fill, or read it, do not wait for its client.
        self.context.caching = None;
        let end = self.response_end();
        Failure::new(self.context, reason).leaving(Remains::Response(end))
    }

    #[cold]
    fn silent(self, reason: FailureReason) -> Failure {
        let end = self.response_end();
        Failure::new(self.context, reason).leaving(Remains::Silence(end))
    }

    /// How the client would recognise the end of the response now.
    pub(super) fn response_end(&self) -> ResponseEnd {
        if self.is_for_readers {
            return ResponseEnd::Truncated;
        }
        match (self.course.ends_with_connection, self.context.download.is_done()) {
            (false, _) => ResponseEnd::Framed,
            (true, true) => ResponseEnd::UntilClose,
            (true, false) => ResponseEnd::Truncated,
        }
    }

    #[cold]
    fn stalled(self, cx: &mut StepContext<'_>) -> Step<Self> {
        if !cx.is_drained(Side::Client) {
            self.client_stalled(cx)
        } else if self.context.download.is_done() && self.context.upload.is_done() {
            // The backend has responded and does not accept the rest of the request.
            Ok(self.finish(cx).into())
        } else if self.context.download.is_done() {
            Err(self.silent(FailureReason::BodyTimeout))
        } else {
            cx.common.is_silent_stream = self.course.has_no_length;
            Err(self.cut(FailureReason::UpstreamStalled))
        }
    }
}

/// Passes a body on and collects it.
struct Tee<'a> {
    queue: &'a mut OutputQueue,
    caching: &'a mut Caching,
    now: Moment,
}

impl ByteSink for Tee<'_> {
    /// These are chunk sizes and trailers, not the body.
    fn make(&mut self, maker: impl FnOnce(&mut Vec<u8>)) {
        self.queue.make(maker);
    }

    fn pass(&mut self, input: &[u8], part: Range<usize>) {
        self.caching.collect(input.slice(part.clone()), self.now);
        self.queue.pass(input, part);
    }
}
