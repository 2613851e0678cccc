//! The head of the answer has left; it cannot be taken back.

use super::awaiting_response::AwaitingResponse;
use super::body_forwarder::BodyForwarder;
use super::caching::Tee;
use super::flushing_response::{FlushingResponse, ResponseEnd};
use super::request_context::RequestContext;
use super::{CommonState, Effect, Input, Settings, Side, State, StepContext, response_head, rules};
use crate::base::clock::Moment;
use crate::base::reason::FailureReason;
use crate::health::Observation;
use crate::wire::body::BodyLength;
use crate::wire::response::{Persistence, ResponseHead};
use std::time::Duration;

#[derive(Debug)]
pub(super) struct ForwardingResponse {
    pub(super) context: Box<RequestContext>,
    /// The client's connection may carry the next request.
    client_stays: bool,
    /// The client knows the end of the answer by the end of its connection.
    ends_with_connection: bool,
    /// The response does not say where it ends: it may be a stream of events, which is silent at times.
    has_no_length: bool,
    /// The backend's connection may.
    upstream_stays: bool,
    /// The answer, or the backend's end, makes the rest of the request's body useless: it is not waited for.
    upload_irrelevant: bool,
    /// The client is gone, and others read its response.
    is_for_readers: bool,
    /// The client waits to be told to send the body, and may take this answer for the end of that.
    upload_is_optional: bool,
}

impl ForwardingResponse {
    /// Passes on the head of the answer and decides what its end will mean, and passes on what of the body stands behind
    /// the head.
    pub(super) fn start(
        awaiting: AwaitingResponse,
        head: &ResponseHead<'_, '_>,
        rest: &[u8],
        cx: &mut StepContext<'_>,
    ) -> State {
        let AwaitingResponse { mut context, write_closed, .. } = awaiting;
        cx.common.stats.end_wait(cx.core.now);
        if cx.common.bucket.is_some() {
            cx.note_response();
        }
        cx.observe(Observation::Responded { status: head.status, retry_after: head.retry_after });
        context.request.drop_replay(&mut cx.core.buffers);
        cx.common.upstream_idle_seconds = head.idle_seconds;
        let (request, upload) = (&context.request, &context.upload);
        cx.common.stats.status = head.status;

        // A client that sees a refusal may stop sending (RFC 9112 section 9.6); one that sees a success goes on, and
        // its backend may well go on reading. One that was never told to send the body may do either (RFC 9110
        // section 10.1.1).
        let upload_irrelevant = head.status >= 300 || write_closed;
        let upload_is_optional = context.awaits_continue();
        if upload_is_optional {
            context.upload_rate.restart(cx.core.now);
        }
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
        if let Err(outcome) = response_head::put(&context, head, (chunked, persistence), cx) {
            return rules::drop_response(context, outcome, cx);
        }
        if upload_irrelevant && !upload.is_done() {
            cx.effect(Effect::Uploaded);
        }
        context.download = BodyForwarder::new(head.body, chunked, &cx.core.settings.limits);
        if head.body == BodyLength::None && !rest.is_empty() {
            context.caching.iter_mut().for_each(|caching| caching.give_up_fill());
        }
        let state = Self {
            context,
            client_stays,
            ends_with_connection,
            has_no_length,
            upstream_stays: head.keep_alive
                && head.idle_seconds != Some(0)
                && !write_closed
                && (rest.is_empty() || head.body != BodyLength::None),
            upload_irrelevant,
            is_for_readers: false,
            upload_is_optional,
        };
        if rest.is_empty() || state.context.download.is_done() {
            return state.settle(cx);
        }
        cx.core.output.client.advance(head.len);
        cx.consumed = 0;
        let state = state.receive(rest, cx);
        cx.consumed += head.len;
        state
    }

    /// Passes on what belongs to the answer.
    fn receive(mut self, bytes: &[u8], cx: &mut StepContext<'_>) -> State {
        let RequestContext { download, caching, .. } = &mut *self.context;
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
        match fed {
            Ok(consumed) => {
                cx.consumed = consumed;
                // Bytes behind the answer would be read as the next one.
                if self.context.download.is_done() && consumed < bytes.len() {
                    self.upstream_stays = false;
                    // Nor is it certain where this one ends.
                    self.context.caching.iter_mut().for_each(|caching| caching.give_up_fill());
                }
                self.settle(cx)
            }
            Err(_) => self.cut(FailureReason::UpstreamTruncated, cx),
        }
    }

    /// Passes on what belongs to the request.
    #[inline(never)]
    fn send(mut self, bytes: &[u8], cx: &mut StepContext<'_>) -> State {
        let fed = self.context.upload.feed(bytes, &mut cx.core.output.upstream);
        if let Err(reason) = self.context.judge_upload(fed, cx) {
            return self.cut(reason, cx);
        }
        self.settle(cx)
    }

    pub(super) fn step(mut self, input: Input<'_>, cx: &mut StepContext<'_>) -> State {
        match input {
            Input::Bytes(Side::Upstream, bytes) => self.receive(bytes, cx),
            Input::Bytes(Side::Client, bytes) => self.send(bytes, cx),
            Input::End(Side::Client) if self.wants(Side::Client) => {
                State::ForwardingResponse(self).abort_silently(FailureReason::ClientTruncated, cx)
            }
            Input::End(Side::Upstream) => {
                self.upstream_gone();
                match self.context.download.end_of_input(&mut cx.core.output.client) {
                    true => self.settle(cx),
                    false => self.cut(FailureReason::UpstreamTruncated, cx),
                }
            }
            Input::Broken(Side::Upstream) => {
                self.upstream_gone();
                match self.context.download.is_done() {
                    true => self.settle(cx),
                    false => self.cut(FailureReason::UpstreamTruncated, cx),
                }
            }
            Input::UpstreamWriteClosed => {
                self.upstream_gone();
                self.settle(cx)
            }
            Input::Drained(Side::Upstream) => self.settle(cx),
            Input::Drained(Side::Client) if !self.context.download_keeps_up(cx.core) => self.client_stalled(cx),
            // Those who read have caught up.
            Input::FillEnded(_) => {
                self.context.caching.iter_mut().for_each(|caching| caching.look_at_readers());
                self.settle(cx)
            }
            Input::Deadline => self.stalled(cx),
            _ => State::ForwardingResponse(self),
        }
    }

    pub(super) fn wants(&self, side: Side) -> bool {
        match side {
            Side::Client => !self.context.upload.is_done() && !self.upload_irrelevant,
            Side::Upstream => !self.context.download.is_done() && !self.is_held(),
        }
    }

    /// How many bytes of the request's body may be to come.
    pub(super) fn upload_left(&self) -> usize {
        self.context.upload.share_of(usize::MAX)
    }

    /// How long the backend may be silent in the middle of the response.
    pub(super) fn patience(&self, common: &CommonState, settings: &Settings) -> Duration {
        match self.has_no_length {
            true => common.stream_timeout(settings).unwrap_or(Duration::MAX),
            false => common.body_timeout(settings),
        }
    }

    /// Whether the client is gone, and others read its response.
    pub(super) fn is_for_readers(&self) -> bool {
        self.is_for_readers
    }

    /// Whether others have yet to read what has come.
    fn is_held(&self) -> bool {
        self.context.caching.as_ref().is_some_and(|caching| caching.is_held())
    }

    /// The client is gone, and others read its response: of the client nothing is waited for any more.
    pub(super) fn lose_client(&mut self) {
        (self.is_for_readers, self.client_stays, self.upload_irrelevant) = (true, false, true);
    }

    /// The client does not take its response, which others may read.
    #[cold]
    fn client_stalled(self, cx: &mut StepContext<'_>) -> State {
        let state = State::ForwardingResponse(self);
        match state.has_readers() {
            true => state.lose_client(FailureReason::ClientStalled, cx),
            false => state.abort_silently(FailureReason::ClientStalled, cx),
        }
    }

    fn upstream_gone(&mut self) {
        self.upstream_stays = false;
        self.upload_irrelevant = true;
    }

    /// Ends the exchange when both bodies are where they belong.
    pub(super) fn settle(mut self, cx: &mut StepContext<'_>) -> State {
        if !self.context.download.is_done() {
            let now = cx.core.now;
            self.context.caching.iter_mut().for_each(|caching| caching.publish(now));
            // Those who are held up by are held to a pace of their own.
            cx.common.deadline = match self.is_held() {
                true => Moment::NEVER,
                false => cx.core.now + self.patience(cx.common, &cx.core.settings),
            };
            return State::ForwardingResponse(self);
        }
        cx.common.stats.backend_done(cx.core.now);
        let is_heard = !self.wants(Side::Client) || (self.upload_is_optional && self.context.upload.received() == 0);
        // An answer that comes early does not keep the end of the body from a backend that goes on reading.
        let is_sent = self.upload_irrelevant || cx.is_drained(Side::Upstream);
        if !(is_heard && is_sent) {
            cx.deadline_in(cx.body_timeout());
            return State::ForwardingResponse(self);
        }
        self.finish(cx)
    }

    fn finish(mut self, cx: &mut StepContext<'_>) -> State {
        if let Some(caching) = self.context.caching.take() {
            caching.complete(cx);
        }
        let uploaded = self.context.upload.is_done() && cx.is_drained(Side::Upstream);
        cx.release(self.upstream_stays && uploaded);
        let connection = self.context.disposition(self.client_stays);
        let end = self.response_end();
        FlushingResponse::new(Some(self.context), connection, end).start(cx)
    }

    /// Ends the answer where it is: what has come still leaves, and the missing end tells the client.
    #[cold]
    fn cut(mut self, reason: FailureReason, cx: &mut StepContext<'_>) -> State {
        cx.common.stats.fail(reason);
        // Those who wait for the fill, or read it, do not wait for its client.
        self.context.caching = None;
        cx.release(false);
        let end = self.response_end();
        let connection = self.context.disposition(false);
        FlushingResponse::new(Some(self.context), connection, end).start(cx)
    }

    /// How the client would know that the answer ends here.
    pub(super) fn response_end(&self) -> ResponseEnd {
        if self.is_for_readers {
            return ResponseEnd::Truncated;
        }
        match (self.ends_with_connection, self.context.download.is_done()) {
            (false, _) => ResponseEnd::Framed,
            (true, true) => ResponseEnd::UntilClose,
            (true, false) => ResponseEnd::Truncated,
        }
    }

    #[cold]
    fn stalled(self, cx: &mut StepContext<'_>) -> State {
        if !cx.is_drained(Side::Client) {
            self.client_stalled(cx)
        } else if self.context.download.is_done() && self.context.upload.is_done() {
            // The backend has answered, and does not take the rest of what it was answering.
            self.finish(cx)
        } else if self.context.download.is_done() {
            State::ForwardingResponse(self).abort_silently(FailureReason::BodyTimeout, cx)
        } else {
            self.cut(FailureReason::UpstreamStalled, cx)
        }
    }
}
