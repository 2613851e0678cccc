//! The request is on its way, the head of the answer has not come.

use super::journey::Journey;
use super::outlet::Sink;
use super::relaying::Relaying;
use super::request::Request;
use super::tunnel::Tunnel;
use super::{Cx, Input, Settings, Side, State, answer};
use crate::base::cut::Cut;
use crate::base::reason::Reason;
use crate::health::Observation;
use crate::wire::request::{fields, most_fields};
use crate::wire::response::{Delivery, Persistence, ResponseHead};
use crate::wire::upgrade;
use crate::wire::{self, HeadFault};
use std::time::Duration;

#[derive(Debug)]
pub(super) struct Awaiting {
    pub(super) journey: Box<Journey>,
    /// The connection has served before.
    reused: bool,
    /// How much of the answer's head was there at the last look.
    seen: usize,
    /// The backend has given an interim answer.
    has_spoken: bool,
    /// The backend takes no more of the body.
    pub(super) deaf: bool,
}

impl Awaiting {
    /// Sends what is there of the request.
    pub(super) fn start(mut journey: Box<Journey>, reused: bool, cx: &mut Cx<'_>) -> State {
        let Some(replay) = journey.request.replay() else {
            return journey.refuse(Reason::UpstreamClosed, cx);
        };
        cx.core.output.upstream.make(|out| out.extend_from_slice(replay));
        if !journey.awaits_continue() {
            journey.upload_pace.restart(cx.core.now);
        }
        let state = Self { journey, reused, seen: 0, has_spoken: false, deaf: false };
        state.set_deadline(cx);
        State::Awaiting(state)
    }

    pub(super) fn step(mut self, input: Input<'_>, cx: &mut Cx<'_>) -> State {
        match input {
            Input::Bytes(Side::Client, bytes) => self.send(bytes, cx),
            Input::Bytes(Side::Upstream, bytes) => self.read(bytes, cx),
            Input::End(Side::Client) if self.wants(Side::Client) => {
                State::Awaiting(self).leave(Reason::ClientTruncated, cx)
            }
            Input::End(Side::Upstream) | Input::Broken(Side::Upstream) => self.lost(cx),
            Input::Unheard if self.journey.request.replay().is_some() => self.journey.try_fresh(cx),
            Input::Unheard => self.lost(cx),
            Input::UpstreamDeaf => {
                self.deaf = true;
                self.set_deadline(cx);
                State::Awaiting(self)
            }
            // The backend may take no notice of expectations and wait for the body, so this says nothing about its life:
            // or whoever keeps a body back could have it marked.
            Input::Deadline if self.journey.awaits_continue() => self.retry(Reason::AnswerTimeout, cx),
            Input::Deadline if self.waits_for_body() && cx.is_drained(Side::Upstream) => {
                self.journey.refuse(Reason::BodyTimeout, cx)
            }
            Input::Deadline => {
                cx.observe(Observation::Unreachable);
                self.retry(Reason::AnswerTimeout, cx)
            }
            _ => State::Awaiting(self),
        }
    }

    pub(super) fn wants(&self, side: Side) -> bool {
        side == Side::Upstream || !(self.deaf || self.journey.upload.is_done())
    }

    /// Whether it is the client that has to go on.
    fn waits_for_body(&self) -> bool {
        self.wants(Side::Client) && !self.journey.awaits_continue()
    }

    /// While the client has to go on it is the client that is waited for, otherwise the backend.
    pub(super) fn patience(&self, settings: &Settings) -> Duration {
        if self.waits_for_body() { settings.body_timeout } else { settings.answer_timeout }
    }

    fn set_deadline(&self, cx: &mut Cx<'_>) {
        cx.deadline_in(self.patience(&cx.core.settings));
    }

    #[inline(never)]
    fn send(mut self, bytes: &[u8], cx: &mut Cx<'_>) -> State {
        self.journey.go_on(cx);
        let upload = &mut self.journey.upload;
        let fed = match self.journey.request.extend_replay(upload.share_of(bytes.len()), &mut cx.core.buffers) {
            Some(replay) => {
                let (start, capacity) = (replay.len(), replay.capacity());
                let fed = upload.feed(bytes, replay);
                cx.core.buffers.note_growth(replay, capacity);
                cx.core.output.upstream.make(|out| out.extend_from_slice(replay.from(start)));
                fed
            }
            None => upload.feed(bytes, &mut cx.core.output.upstream),
        };
        if let Err(reason) = self.journey.judge_upload(fed, cx) {
            return self.journey.refuse(reason, cx);
        }
        self.set_deadline(cx);
        State::Awaiting(self)
    }

    fn read(mut self, bytes: &[u8], cx: &mut Cx<'_>) -> State {
        let may_be_complete = self.seen == 0 || wire::has_blank_line(bytes, self.seen);
        self.seen = bytes.len();
        let mut room = fields();
        let to_head = self.journey.request.is_head();
        let parsed = if may_be_complete { ResponseHead::parse(bytes, &mut room, to_head) } else { Ok(None) };
        match parsed {
            Err(fault @ (HeadFault::TooManyFields | HeadFault::Version)) => self.read_odd(bytes, fault, cx),
            parsed => self.judge(bytes, parsed, cx),
        }
    }

    /// Reads a head with more lines than most have, or one of a later minor version.
    #[cold]
    #[inline(never)]
    fn read_odd(self, bytes: &[u8], fault: HeadFault, cx: &mut Cx<'_>) -> State {
        let known = if fault == HeadFault::Version { wire::version::as_http11(bytes) } else { None };
        let mut room = most_fields();
        let to_head = self.journey.request.is_head();
        let parsed = ResponseHead::parse(known.as_deref().unwrap_or(bytes), &mut room, to_head);
        self.judge(bytes, parsed, cx)
    }

    #[inline]
    fn judge(self, bytes: &[u8], parsed: Result<Option<ResponseHead<'_, '_>>, HeadFault>, cx: &mut Cx<'_>) -> State {
        let head = match parsed {
            Ok(head) => head,
            Err(HeadFault::TooManyFields) => return self.journey.refuse(Reason::UpstreamHeadTooLarge, cx),
            Err(_) => return self.journey.refuse(Reason::UpstreamMalformed, cx),
        };
        let head_len = head.as_ref().map_or(bytes.len(), |head| head.len);
        let fields = head.as_ref().map_or(0, ResponseHead::fields_len);
        if head_len > cx.core.settings.max_head_bytes || fields > cx.core.settings.limits.fields {
            return self.journey.refuse(Reason::UpstreamHeadTooLarge, cx);
        }
        let Some(head) = head else { return State::Awaiting(self) };
        cx.consumed = head.len;
        match head.status {
            101 => self.switch(&head, cx),
            _ if head.is_interim() => self.pass_interim(&head, cx),
            _ => Relaying::start(self, &head, bytes.from(head.len), cx),
        }
    }

    #[cold]
    fn pass_interim(mut self, head: &ResponseHead<'_, '_>, cx: &mut Cx<'_>) -> State {
        self.seen = 0;
        self.has_spoken = true;
        self.journey.interim_answers += 1;
        if self.journey.interim_answers > cx.core.settings.limits.interim_answers {
            return self.journey.refuse(Reason::TooManyInterimAnswers, cx);
        }
        if head.status == 100 {
            self.journey.go_on(cx);
        }
        // HTTP/1.0 knows no interim answers (RFC 9110 section 15.2).
        if self.journey.request.is_http11() {
            put_head(head, Persistence::Implied, None, cx);
        }
        self.set_deadline(cx);
        State::Awaiting(self)
    }

    #[cold]
    fn switch(self, head: &ResponseHead<'_, '_>, cx: &mut Cx<'_>) -> State {
        let is_answer = match (self.journey.request.offered_protocols(), head.upgrade()) {
            (Some(offered), Some(chosen)) => upgrade::is_answer(offered, chosen),
            _ => false,
        };
        if !is_answer {
            return self.journey.refuse(Reason::UpgradeMismatch, cx);
        }
        put_head(head, Persistence::Upgrade, Some(&self.journey.request), cx);
        let is_websocket = head.upgrade().is_some_and(|chosen| chosen.eq_ignore_ascii_case(b"websocket"));
        Tunnel::start(self.journey, is_websocket, cx)
    }

    /// Whether it matters if the backend has heard anything: its connection may have been stale, and the request must not
    /// arrive twice.
    pub(super) fn asks_if_heard(&self) -> bool {
        self.may_be_stale() && !self.journey.request.is_idempotent()
    }

    /// Whether the connection may have been closed by the backend while it was idle.
    fn may_be_stale(&self) -> bool {
        self.reused && self.seen == 0 && !self.has_spoken
    }

    /// The connection ended before the head of an answer was complete.
    #[cold]
    fn lost(self, cx: &mut Cx<'_>) -> State {
        if self.may_be_stale() && self.may_send_again() {
            self.journey.try_fresh(cx)
        } else {
            self.retry(Reason::UpstreamClosed, cx)
        }
    }

    #[cold]
    fn retry(self, failure: Reason, cx: &mut Cx<'_>) -> State {
        if self.may_send_again() { self.journey.try_another(failure, cx) } else { self.journey.refuse(failure, cx) }
    }

    /// RFC 9110 section 9.2.2: only a request whose method says that twice is as good as once, and only while all of
    /// it is still here.
    fn may_send_again(&self) -> bool {
        self.journey.request.is_idempotent() && self.journey.request.replay().is_some()
    }
}

/// Passes on the head of an answer without a body; one that is the last to `request` tells of where it comes from.
fn put_head(head: &ResponseHead<'_, '_>, persistence: Persistence, request: Option<&Request>, cx: &mut Cx<'_>) {
    let debug = request.and_then(|request| answer::debug_fields(request, cx.own, cx.core));
    let delivery = Delivery { chunked: false, to_http11: true, persistence, via: cx.core.settings.via.as_deref() };
    cx.core.output.client.make(|out| {
        head.write(&delivery, out);
        if let Some(debug) = debug {
            debug.put(out);
        }
        out.extend_from_slice(b"\r\n");
    });
}
