//! The state in which the request is being sent and the head of the response has not arrived.

use super::events::{Effect, Input, Side};
use super::output_queue::ByteSink;
use super::request_context::RequestContext;
use super::settings::Settings;
use super::step_context::{CommonState, StepContext};
use super::transition::{Failure, Next, Remains, Step, Transition};
use super::{cache_response, elsewhere, response_head, rules};
use crate::base::reason::FailureReason;
use crate::base::slice_ext::SliceExt;
use crate::cluster::Options;
use crate::health::Observation;
use crate::wire::request::{fields, most_fields};
use crate::wire::response::ResponseHead;
use crate::wire::{self, HeadFault, lenient_response, response_fault, upgrade};
use std::time::Duration;

#[derive(Debug)]
pub(super) struct AwaitingResponse {
    pub(super) context: Box<RequestContext>,
    /// The connection has served another request before.
    reused: bool,
    /// Bytes of the response head seen at the last look.
    seen: usize,
    /// The backend has sent an informational response.
    has_spoken: bool,
    /// The backend accepts no more of the body.
    pub(super) write_closed: bool,
}

impl AwaitingResponse {
    /// Writes the request, as far as it has arrived, for its backend.
    pub(super) fn start(mut context: Box<RequestContext>, reused: bool, cx: &mut StepContext<'_>) -> Step<Self> {
        if !context.request.is_whole() {
            return Err(Failure::new(context, FailureReason::UpstreamClosed));
        }
        if cx.common.options().is_some_and(Options::has_byte_rates) {
            cx.common.start_pacing(context.request.kept_len(), cx.core.now);
        }
        let conditions = context.caching.as_ref().and_then(|caching| caching.conditions());
        let host = cx.common.permit.as_ref().and_then(|permit| permit.member().attributes.host.as_deref());
        cx.core.output.upstream.make(|out| context.request.write(conditions, host, out));
        if let Some(caching) = &mut context.caching {
            caching.note_sent(cx.core.steady_time());
        }
        if !context.awaits_continue() {
            context.upload_rate.restart(cx.core.now);
        }
        let state = Self { context, reused, seen: 0, has_spoken: false, write_closed: false };
        state.set_deadline(cx);
        Ok(Next::Stay(state))
    }

    pub(super) fn step(mut self, input: Input<'_>, cx: &mut StepContext<'_>) -> Step<Self> {
        match input {
            Input::Bytes(Side::Client, bytes) => self.send(bytes, cx),
            Input::Bytes(Side::Upstream, bytes) => self.read(bytes, cx),
            Input::End(Side::Client) if self.wants(Side::Client) => {
                Err(Failure::silent(Some(self.context), FailureReason::ClientTruncated))
            }
            Input::End(Side::Upstream) | Input::Broken(Side::Upstream) => Err(self.lost(cx)),
            Input::UpstreamClosedUnacked => {
                Err(Failure::new(self.context, FailureReason::UpstreamClosed).leaving(Remains::SentUnread))
            }
            Input::UpstreamWriteClosed => {
                self.write_closed = true;
                self.set_deadline(cx);
                Ok(Next::Stay(self))
            }
            // The backend may ignore expectations and wait for the body, so the timeout says nothing about its health:
            // a client could otherwise have it marked dead by withholding a body.
            Input::Deadline if self.context.awaits_continue() => Err(self.late()),
            Input::Deadline if self.waits_for_body() && cx.is_drained(Side::Upstream) => {
                Err(Failure::new(self.context, FailureReason::BodyTimeout))
            }
            Input::Deadline => {
                cx.common.stats.end_wait(cx.core.now);
                cx.observe(Observation::Unreachable);
                Err(self.late())
            }
            _ => Ok(Next::Stay(self)),
        }
    }

    pub(super) fn wants(&self, side: Side) -> bool {
        side == Side::Upstream || !(self.write_closed || self.context.upload.is_done())
    }

    /// Whether the exchange waits for the client rather than for the backend.
    fn waits_for_body(&self) -> bool {
        self.wants(Side::Client) && !self.context.awaits_continue()
    }

    /// The limit of the wait: the client's while its body is due, otherwise the backend's.
    pub(super) fn patience(&self, common: &CommonState, settings: &Settings) -> Duration {
        if self.waits_for_body() { common.body_timeout(settings) } else { common.response_timeout(settings) }
    }

    fn set_deadline(&self, cx: &mut StepContext<'_>) {
        cx.deadline_in(self.patience(cx.common, &cx.core.settings));
    }

    #[inline(never)]
    fn send(mut self, bytes: &[u8], cx: &mut StepContext<'_>) -> Step<Self> {
        self.context.on_continue(cx.core.now);
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
        if let Err(reason) = cx.judge_upload(&mut self.context, fed) {
            return Err(Failure::new(self.context, reason));
        }
        self.set_deadline(cx);
        Ok(Next::Stay(self))
    }

    fn read(mut self, bytes: &[u8], cx: &mut StepContext<'_>) -> Step<Self> {
        let may_be_complete = self.seen == 0 || wire::has_blank_line(bytes, self.seen);
        self.seen = bytes.len();
        let mut room = fields();
        let to_head = self.context.request.is_head();
        let parsed = if may_be_complete { ResponseHead::parse(bytes, &mut room, to_head) } else { Ok(None) };
        match parsed {
            Err(fault @ (HeadFault::TooManyHeaders | HeadFault::Version)) => self.read_odd(bytes, fault, cx),
            Err(fault) => self.read_lenient(bytes, fault, cx),
            parsed => self.judge(bytes, parsed, cx),
        }
    }

    /// Reads a head with many lines, or with a later minor version.
    #[cold]
    #[inline(never)]
    fn read_odd(self, bytes: &[u8], fault: HeadFault, cx: &mut StepContext<'_>) -> Step<Self> {
        let known = if fault == HeadFault::Version { wire::version::as_http11(bytes) } else { None };
        let mut room = most_fields();
        let to_head = self.context.request.is_head();
        match ResponseHead::parse(known.as_deref().unwrap_or(bytes), &mut room, to_head) {
            Err(fault) => self.read_lenient(bytes, fault, cx),
            parsed => self.judge(bytes, parsed, cx),
        }
    }

    /// Reads a head that is not strictly valid, if the frontend's option `lenient` allows it.
    #[cold]
    #[inline(never)]
    fn read_lenient(self, bytes: &[u8], fault: HeadFault, cx: &mut StepContext<'_>) -> Step<Self> {
        let may_repair = matches!(fault, HeadFault::Malformed | HeadFault::Length);
        if !may_repair || !cx.common.options().is_some_and(|options| options.is_lenient) {
            return self.judge(bytes, Err(fault), cx);
        }
        if !wire::has_blank_line(bytes, 0) {
            return self.judge(bytes, Ok(None), cx);
        }
        let known = wire::version::as_http11(bytes);
        let Some(repaired) = lenient_response::repair(known.as_deref().unwrap_or(bytes)) else {
            return self.judge(bytes, Err(fault), cx);
        };
        let mut room = most_fields();
        let mut parsed = repaired.parse(&mut room, self.context.request.is_head());
        match &mut parsed {
            Ok(Some(_)) => cx.effect(Effect::Repaired(repaired.repairs)),
            // The repaired head is complete, so more bytes would not help.
            Ok(None) => parsed = Err(fault),
            Err(_) => {}
        }
        self.judge(bytes, parsed, cx)
    }

    #[inline]
    fn judge(
        self,
        bytes: &[u8],
        parsed: Result<Option<ResponseHead<'_, '_>>, HeadFault>,
        cx: &mut StepContext<'_>,
    ) -> Step<Self> {
        let head = match parsed {
            Ok(head) => head,
            Err(HeadFault::TooManyHeaders) => {
                return Err(Failure::new(self.context, FailureReason::UpstreamHeadTooLarge));
            }
            Err(_) => {
                cx.common.stats.fault = Some(Box::new(response_fault::locate(bytes)));
                return Err(Failure::new(self.context, FailureReason::UpstreamMalformed));
            }
        };
        let head_len = head.as_ref().map_or(bytes.len(), |head| head.len);
        let fields = head.as_ref().map_or(0, ResponseHead::fields_len);
        if head_len > cx.core.settings.max_head_bytes || fields > cx.core.settings.limits.fields {
            return Err(Failure::new(self.context, FailureReason::UpstreamHeadTooLarge));
        }
        let Some(head) = head else { return Ok(Next::Stay(self)) };
        cx.consumed = head.len;
        match head.status {
            101 => self.switch(&head, cx),
            _ if head.is_informational() => self.pass_informational(&head, cx),
            408 if self.is_idle_timeout(&head) => Err(self.stale()),
            502..=504 | 529 => Ok(self.pass_failure(&head, bytes.suffix(head.len), cx)?.into()),
            _ => Ok(self.pass(&head, bytes.suffix(head.len), cx)?.into()),
        }
    }

    /// Forwards the response, unless another member is tried in its place.
    #[cold]
    fn pass_failure(
        mut self,
        head: &ResponseHead<'_, '_>,
        rest: &[u8],
        cx: &mut StepContext<'_>,
    ) -> Result<Transition, Failure> {
        self.context = match elsewhere::go(self.context, head, cx) {
            Ok(instead) => return instead,
            Err(context) => context,
        };
        self.pass(head, rest, cx)
    }

    /// Forwards the response, or serves a stored one in its place.
    fn pass(self, head: &ResponseHead<'_, '_>, rest: &[u8], cx: &mut StepContext<'_>) -> Result<Transition, Failure> {
        let Self { mut context, write_closed, .. } = self;
        if context.caching.is_some() {
            context = match cache_response::take(context, head, (rest, write_closed), cx) {
                Ok(context) => context,
                Err(instead) => return Ok(instead),
            };
        }
        response_head::pass(context, head, (rest, write_closed), cx)
    }

    #[cold]
    fn pass_informational(mut self, head: &ResponseHead<'_, '_>, cx: &mut StepContext<'_>) -> Step<Self> {
        self.seen = 0;
        self.has_spoken = true;
        self.context.informational_responses += 1;
        if self.context.informational_responses > cx.core.settings.limits.informational_responses {
            return Err(Failure::new(self.context, FailureReason::TooManyInformationalResponses));
        }
        if head.status == 100 {
            self.context.on_continue(cx.core.now);
        }
        // HTTP/1.0 has no informational responses (RFC 9110 section 15.2).
        if self.context.request.is_http11() {
            response_head::put_interim(head, cx);
        }
        self.set_deadline(cx);
        Ok(Next::Stay(self))
    }

    #[cold]
    fn switch(self, head: &ResponseHead<'_, '_>, cx: &mut StepContext<'_>) -> Step<Self> {
        cx.common.stats.end_wait(cx.core.now);
        let is_response = match (self.context.request.offered_protocols(), head.upgrade()) {
            (Some(offered), Some(chosen)) => upgrade::is_response(offered, chosen),
            _ => false,
        };
        if !is_response {
            return Err(Failure::new(self.context, FailureReason::UpgradeMismatch));
        }
        if let Err(outcome) = response_head::put_switch(&self.context, head, cx) {
            return rules::drop_response(self.context, outcome, cx).map(Into::into);
        }
        let is_websocket = head.upgrade().is_some_and(|chosen| chosen.eq_ignore_ascii_case(b"websocket"));
        Ok(Transition::Tunnel { context: self.context, is_websocket }.into())
    }

    /// Whether it matters that the backend has received any byte: its connection may have been stale, and the request
    /// must not be executed twice.
    pub(super) fn wants_ack_check(&self) -> bool {
        self.may_be_stale() && !self.context.request.is_idempotent()
    }

    /// Whether the backend may have closed the connection while it was idle.
    fn may_be_stale(&self) -> bool {
        self.reused && self.seen == 0 && !self.has_spoken
    }

    /// Whether a 408 was sent for the idle connection and has crossed with the request. It then means no more than a
    /// close, and the request may be repeated on a new connection (RFC 9110 section 15.5.9). A 408 on a new connection,
    /// or while part of the request is still to arrive, is the response to the request itself. So is one to a request
    /// that must not be executed twice, since an application may send a 408 too.
    #[cold]
    fn is_idle_timeout(&self, head: &ResponseHead<'_, '_>) -> bool {
        let is_sent = self.context.upload.is_done();
        self.reused && !self.has_spoken && is_sent && !head.keep_alive && self.context.may_send_again()
    }

    /// The connection ended before the head of a response was complete.
    #[cold]
    fn lost(self, cx: &mut StepContext<'_>) -> Failure {
        if !self.reused && self.seen == 0 && !self.has_spoken {
            cx.observe_close();
        }
        match self.may_be_stale() {
            true => self.stale(),
            false => Failure::new(self.context, FailureReason::UpstreamClosed).leaving(Remains::Sent),
        }
    }

    /// The backend appears to have closed the connection before it got the request.
    #[cold]
    fn stale(self) -> Failure {
        Failure::new(self.context, FailureReason::UpstreamClosed).leaving(Remains::SentToStale)
    }

    #[cold]
    fn late(self) -> Failure {
        Failure::new(self.context, FailureReason::ResponseTimeout).leaving(Remains::Sent)
    }
}
