//! The request is on its way, the head of the answer has not come.

use super::forwarding_response::ForwardingResponse;
use super::output_queue::ByteSink;
use super::request_context::RequestContext;
use super::tunnel::Tunnel;
use super::{CommonState, Input, Settings, Side, State, StepContext, caching, response_head, rules};
use crate::base::reason::FailureReason;
use crate::base::slice_ext::SliceExt;
use crate::cluster::Options;
use crate::health::Observation;
use crate::wire::request::{fields, most_fields};
use crate::wire::response::{Persistence, ResponseHead};
use crate::wire::upgrade;
use crate::wire::{self, HeadFault};
use std::time::Duration;

#[derive(Debug)]
pub(super) struct AwaitingResponse {
    pub(super) context: Box<RequestContext>,
    /// The connection has served before.
    reused: bool,
    /// How much of the answer's head was there at the last look.
    seen: usize,
    /// The backend has given an interim answer.
    has_spoken: bool,
    /// The backend takes no more of the body.
    pub(super) write_closed: bool,
}

impl AwaitingResponse {
    /// Sends what is there of the request.
    pub(super) fn start(mut context: Box<RequestContext>, reused: bool, cx: &mut StepContext<'_>) -> State {
        let Some(replay) = context.request.replay() else {
            return context.refuse(FailureReason::UpstreamClosed, cx);
        };
        if cx.common.options().is_some_and(Options::has_byte_rates) {
            cx.common.start_pacing(replay.len(), cx.core.now);
        }
        cx.core.output.upstream.make(|out| out.extend_from_slice(replay));
        if let Some(caching) = &mut context.caching {
            caching.note_sent(cx.core.wall_time());
        }
        if !context.awaits_continue() {
            context.upload_rate.restart(cx.core.now);
        }
        let state = Self { context, reused, seen: 0, has_spoken: false, write_closed: false };
        state.set_deadline(cx);
        State::AwaitingResponse(state)
    }

    pub(super) fn step(mut self, input: Input<'_>, cx: &mut StepContext<'_>) -> State {
        match input {
            Input::Bytes(Side::Client, bytes) => self.send(bytes, cx),
            Input::Bytes(Side::Upstream, bytes) => self.read(bytes, cx),
            Input::End(Side::Client) if self.wants(Side::Client) => {
                State::AwaitingResponse(self).abort_silently(FailureReason::ClientTruncated, cx)
            }
            Input::End(Side::Upstream) | Input::Broken(Side::Upstream) => self.lost(cx),
            Input::UpstreamClosedUnacked if self.context.request.replay().is_some() => self.context.try_fresh(cx),
            Input::UpstreamClosedUnacked => self.lost(cx),
            Input::UpstreamWriteClosed => {
                self.write_closed = true;
                self.set_deadline(cx);
                State::AwaitingResponse(self)
            }
            // The backend may take no notice of expectations and wait for the body, so this says nothing about its life:
            // or whoever keeps a body back could have it marked.
            Input::Deadline if self.context.awaits_continue() => self.retry(FailureReason::ResponseTimeout, cx),
            Input::Deadline if self.waits_for_body() && cx.is_drained(Side::Upstream) => {
                self.context.refuse(FailureReason::BodyTimeout, cx)
            }
            Input::Deadline => {
                cx.common.stats.end_wait(cx.core.now);
                cx.observe(Observation::Unreachable);
                self.retry(FailureReason::ResponseTimeout, cx)
            }
            _ => State::AwaitingResponse(self),
        }
    }

    pub(super) fn wants(&self, side: Side) -> bool {
        side == Side::Upstream || !(self.write_closed || self.context.upload.is_done())
    }

    /// Whether it is the client that has to go on.
    fn waits_for_body(&self) -> bool {
        self.wants(Side::Client) && !self.context.awaits_continue()
    }

    /// While the client has to go on it is the client that is waited for, otherwise the backend.
    pub(super) fn patience(&self, common: &CommonState, settings: &Settings) -> Duration {
        if self.waits_for_body() { common.body_timeout(settings) } else { common.response_timeout(settings) }
    }

    fn set_deadline(&self, cx: &mut StepContext<'_>) {
        cx.deadline_in(self.patience(cx.common, &cx.core.settings));
    }

    #[inline(never)]
    fn send(mut self, bytes: &[u8], cx: &mut StepContext<'_>) -> State {
        self.context.on_continue(cx);
        let upload = &mut self.context.upload;
        let fed = match self.context.request.extend_replay(upload.share_of(bytes.len()), &mut cx.core.buffers) {
            Some(replay) => {
                let (start, capacity) = (replay.len(), replay.capacity());
                let fed = upload.feed(bytes, replay);
                cx.core.buffers.note_growth(replay, capacity);
                cx.core.output.upstream.make(|out| out.extend_from_slice(replay.suffix(start)));
                fed
            }
            None => upload.feed(bytes, &mut cx.core.output.upstream),
        };
        if let Err(reason) = self.context.judge_upload(fed, cx) {
            return self.context.refuse(reason, cx);
        }
        self.set_deadline(cx);
        State::AwaitingResponse(self)
    }

    fn read(mut self, bytes: &[u8], cx: &mut StepContext<'_>) -> State {
        let may_be_complete = self.seen == 0 || wire::has_blank_line(bytes, self.seen);
        self.seen = bytes.len();
        let mut room = fields();
        let to_head = self.context.request.is_head();
        let parsed = if may_be_complete { ResponseHead::parse(bytes, &mut room, to_head) } else { Ok(None) };
        match parsed {
            Err(fault @ (HeadFault::TooManyHeaders | HeadFault::Version)) => self.read_odd(bytes, fault, cx),
            parsed => self.judge(bytes, parsed, cx),
        }
    }

    /// Reads a head with more lines than most have, or one of a later minor version.
    #[cold]
    #[inline(never)]
    fn read_odd(self, bytes: &[u8], fault: HeadFault, cx: &mut StepContext<'_>) -> State {
        let known = if fault == HeadFault::Version { wire::version::as_http11(bytes) } else { None };
        let mut room = most_fields();
        let to_head = self.context.request.is_head();
        let parsed = ResponseHead::parse(known.as_deref().unwrap_or(bytes), &mut room, to_head);
        self.judge(bytes, parsed, cx)
    }

    #[inline]
    fn judge(
        self,
        bytes: &[u8],
        parsed: Result<Option<ResponseHead<'_, '_>>, HeadFault>,
        cx: &mut StepContext<'_>,
    ) -> State {
        let head = match parsed {
            Ok(head) => head,
            Err(HeadFault::TooManyHeaders) => return self.context.refuse(FailureReason::UpstreamHeadTooLarge, cx),
            Err(_) => return self.context.refuse(FailureReason::UpstreamMalformed, cx),
        };
        let head_len = head.as_ref().map_or(bytes.len(), |head| head.len);
        let fields = head.as_ref().map_or(0, ResponseHead::fields_len);
        if head_len > cx.core.settings.max_head_bytes || fields > cx.core.settings.limits.fields {
            return self.context.refuse(FailureReason::UpstreamHeadTooLarge, cx);
        }
        let Some(head) = head else { return State::AwaitingResponse(self) };
        cx.consumed = head.len;
        match head.status {
            101 => self.switch(&head, cx),
            _ if head.is_informational() => self.pass_informational(&head, cx),
            408 if self.is_idle_timeout(&head) => self.context.try_fresh(cx),
            _ if self.context.caching.is_some() => caching::on_response(self, &head, bytes.suffix(head.len), cx),
            _ => ForwardingResponse::start(self, &head, bytes.suffix(head.len), cx),
        }
    }

    #[cold]
    fn pass_informational(mut self, head: &ResponseHead<'_, '_>, cx: &mut StepContext<'_>) -> State {
        self.seen = 0;
        self.has_spoken = true;
        self.context.informational_responses += 1;
        if self.context.informational_responses > cx.core.settings.limits.informational_responses {
            return self.context.refuse(FailureReason::TooManyInformationalResponses, cx);
        }
        if head.status == 100 {
            self.context.on_continue(cx);
        }
        // HTTP/1.0 knows no interim answers (RFC 9110 section 15.2).
        if self.context.request.is_http11() {
            // No rules are asked about it.
            let _ = response_head::put(&self.context, head, (false, Persistence::Implied), cx);
        }
        self.set_deadline(cx);
        State::AwaitingResponse(self)
    }

    #[cold]
    fn switch(self, head: &ResponseHead<'_, '_>, cx: &mut StepContext<'_>) -> State {
        cx.common.stats.end_wait(cx.core.now);
        let is_response = match (self.context.request.offered_protocols(), head.upgrade()) {
            (Some(offered), Some(chosen)) => upgrade::is_response(offered, chosen),
            _ => false,
        };
        if !is_response {
            return self.context.refuse(FailureReason::UpgradeMismatch, cx);
        }
        if let Err(outcome) = response_head::put(&self.context, head, (false, Persistence::Upgrade), cx) {
            return rules::drop_response(self.context, outcome, cx);
        }
        let is_websocket = head.upgrade().is_some_and(|chosen| chosen.eq_ignore_ascii_case(b"websocket"));
        Tunnel::start(self.context, is_websocket, cx)
    }

    /// Whether it matters if the backend has heard anything: its connection may have been stale, and the request must not
    /// arrive twice.
    pub(super) fn wants_ack_check(&self) -> bool {
        self.may_be_stale() && !self.context.request.is_idempotent()
    }

    /// Whether the connection may have been closed by the backend while it was idle.
    fn may_be_stale(&self) -> bool {
        self.reused && self.seen == 0 && !self.has_spoken
    }

    /// Whether a 408 was meant for the idle connection, and has crossed with the request: then it says no more than a close,
    /// and the request may be repeated on a new connection (RFC 9110 section 15.5.9). A 408 on a new connection, or behind
    /// a request of which a part has yet to come, is the request's own response. So is one to a request that must not arrive
    /// twice, since a backend may give a 408 of its application.
    #[cold]
    fn is_idle_timeout(&self, head: &ResponseHead<'_, '_>) -> bool {
        let is_sent = self.context.upload.is_done();
        self.reused && !self.has_spoken && is_sent && !head.keep_alive && self.may_send_again()
    }

    /// The connection ended before the head of an answer was complete.
    #[cold]
    fn lost(self, cx: &mut StepContext<'_>) -> State {
        if !self.reused && self.seen == 0 && !self.has_spoken {
            cx.observe_close();
        }
        if self.may_be_stale() && self.may_send_again() {
            self.context.try_fresh(cx)
        } else {
            self.retry(FailureReason::UpstreamClosed, cx)
        }
    }

    #[cold]
    fn retry(self, failure: FailureReason, cx: &mut StepContext<'_>) -> State {
        if self.may_send_again() { self.context.try_another(failure, cx) } else { self.context.refuse(failure, cx) }
    }

    /// RFC 9110 section 9.2.2: only a request whose method says that twice is as good as once, and only while all of
    /// it is still here.
    fn may_send_again(&self) -> bool {
        self.context.request.is_idempotent() && self.context.request.replay().is_some()
    }
}
