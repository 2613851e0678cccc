//! The state in which bytes of another protocol pass in both directions.

use super::events::{Disposition, Effect, Input, Side};
use super::log_fields::LogFields;
use super::output_queue::ByteSink;
use super::request::Request;
use super::request_context::RequestContext;
use super::settings::Settings;
use super::step_context::{CommonState, StepContext};
use super::transition::{Failure, Next, ResponseEnd, Step, Transition};
use crate::base::buffer::BufferPool;
use crate::base::reason::FailureReason;
use crate::base::slice_ext::SliceExt;
use crate::wire::websocket::{self, Frames};
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Debug)]
pub(super) struct Tunnel {
    request: LogFields,
    client_ended: bool,
    upstream_ended: bool,
    /// The backend accepts no more bytes.
    upstream_write_closed: bool,
    /// The backend's frames, if the protocol is WebSocket.
    frames: Option<Frames>,
    /// The reason for which the tunnel ends after the current frame, or at a deadline that bytes do not extend.
    retires_for: Option<FailureReason>,
}

/// A tunnel for another process, without its request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PortableTunnel {
    client_ended: bool,
    upstream_ended: bool,
    upstream_write_closed: bool,
    frames: Option<Frames>,
}

impl Tunnel {
    /// Whether another process could continue it.
    pub(super) fn is_portable(&self) -> bool {
        self.retires_for.is_none() && !self.is_ending()
    }

    pub(super) fn to_portable(&self) -> PortableTunnel {
        let Self { client_ended, upstream_ended, upstream_write_closed, frames, .. } = *self;
        PortableTunnel { client_ended, upstream_ended, upstream_write_closed, frames }
    }

    pub(super) fn from_portable(portable: PortableTunnel, request: LogFields) -> Self {
        let PortableTunnel { client_ended, upstream_ended, upstream_write_closed, frames } = portable;
        Self { request, client_ended, upstream_ended, upstream_write_closed, frames, retires_for: None }
    }

    /// The facts about the request for the log.
    pub(super) fn log_fields(&self) -> &LogFields {
        &self.request
    }

    /// Begins a tunnel after the 101 was forwarded.
    pub(super) fn start(context: Box<RequestContext>, is_websocket: bool, cx: &mut StepContext<'_>) -> Step<Self> {
        let request = context.request.log_fields();
        cx.core.request_pool.take_back(context, &mut cx.core.buffers);
        cx.common.stats.status = 101;
        if let Some(permit) = &mut cx.common.permit {
            // It may last for days: it counts as a tunnel (`maxTunnels`), and no longer as a request in flight.
            permit.give_back(true, cx.core.now);
        }
        cx.effect(Effect::Tunnel);
        let frames = is_websocket.then(Frames::default);
        let (client_ended, upstream_ended, upstream_write_closed) = (false, false, false);
        Self { request, client_ended, upstream_ended, upstream_write_closed, frames, retires_for: None }.stay(cx)
    }

    #[inline(never)]
    pub(super) fn step(mut self, input: Input<'_>, cx: &mut StepContext<'_>) -> Step<Self> {
        match input {
            Input::Bytes(Side::Upstream, bytes) if self.frames.is_some() => self.pass_frames(bytes, cx),
            Input::Bytes(side, bytes) => {
                cx.core.output.queue(side.other()).pass(bytes, 0..bytes.len());
                cx.consumed = bytes.len();
                self.stay(cx)
            }
            Input::End(side) => {
                *self.ended(side) = true;
                cx.effect(Effect::CloseWrite(side.other()));
                self.settle(cx)
            }
            Input::Drained(_) => self.settle(cx),
            Input::UpstreamWriteClosed => {
                self.upstream_write_closed = true;
                self.settle(cx)
            }
            Input::Broken(Side::Upstream) => {
                if !std::mem::replace(&mut self.upstream_ended, true) {
                    cx.effect(Effect::CloseWrite(Side::Client));
                }
                self.upstream_write_closed = true;
                // Bytes received from the backend are still sent.
                cx.deadline_in(cx.body_timeout());
                self.settle(cx)
            }
            Input::Deadline => Err(self.silent(self.retires_for.unwrap_or(FailureReason::TunnelIdle), cx)),
            _ => Ok(Next::Stay(self)),
        }
    }

    /// Forwards the backend's bytes and tracks the ends of its frames.
    fn pass_frames(mut self, bytes: &[u8], cx: &mut StepContext<'_>) -> Step<Self> {
        let Some(frames) = &mut self.frames else { return Ok(Next::Stay(self)) };
        let (mut at, mut end) = (0, None);
        while at < bytes.len() && end.is_none() {
            at += frames.advance(bytes.suffix(at));
            end = self.retires_for.filter(|_| frames.is_at_boundary());
        }
        cx.core.output.queue(Side::Client).pass(bytes, 0..at);
        cx.consumed = bytes.len();
        match end {
            Some(reason) => self.send_close_frame(reason, cx),
            None => self.stay(cx),
        }
    }

    /// Ends the tunnel because its backend was removed or this node stops. A WebSocket client gets a close frame behind
    /// the current frame; other protocols get none. The end of a stop, which is the second call, does not wait for the
    /// frame.
    pub(super) fn retire(mut self, reason: FailureReason, cx: &mut StepContext<'_>) -> Step<Self> {
        match &self.frames {
            Some(frames) if frames.may_add() && !self.upstream_ended => {
                if frames.is_at_boundary() {
                    return self.send_close_frame(reason, cx);
                }
                match self.retires_for.replace(reason) {
                    None => cx.deadline_in(cx.body_timeout()),
                    Some(FailureReason::Stopped) => return Err(self.silent(reason, cx)),
                    Some(_) => {}
                }
                Ok(Next::Stay(self))
            }
            _ => Err(self.silent(reason, cx)),
        }
    }

    /// Sends a close frame and waits for the client's end.
    fn send_close_frame(self, reason: FailureReason, cx: &mut StepContext<'_>) -> Step<Self> {
        if !self.frames.as_ref().is_some_and(Frames::may_add) {
            return Err(self.silent(reason, cx));
        }
        let is_stop = reason == FailureReason::Stopped && !cx.core.is_replaced;
        let frame = if is_stop { &websocket::GOING_AWAY } else { &websocket::RESTART };
        cx.core.output.queue(Side::Client).make(|out| out.extend_from_slice(frame));
        cx.common.stats.fail(reason);
        Ok(self.part(cx).into())
    }

    fn silent(&self, reason: FailureReason, cx: &mut StepContext<'_>) -> Failure {
        Failure::silent(Some(self.to_context(&mut cx.core.buffers)), reason)
    }

    /// Releases the backend: only the client is left.
    fn part(&self, cx: &mut StepContext<'_>) -> Transition {
        cx.common.stats.backend_done(cx.core.now);
        cx.release(false);
        // A client that has not ended its side may send more.
        let connection = match self.client_ended {
            true => Disposition::Close,
            false => Disposition::Linger { client_may_send: true },
        };
        let context = Some(self.to_context(&mut cx.core.buffers));
        Transition::Flush { context, connection, end: ResponseEnd::Framed }
    }

    pub(super) fn wants(&self, side: Side) -> bool {
        match side {
            Side::Client => !self.client_ended && !self.upstream_write_closed,
            Side::Upstream => !self.upstream_ended,
        }
    }

    /// Whether both sides have ended: the tunnel ends once all bytes are sent.
    pub(super) fn is_ending(&self) -> bool {
        !self.wants(Side::Client) && self.upstream_ended
    }

    /// The context that the log needs.
    pub(super) fn to_context(&self, buffers: &mut BufferPool) -> Box<RequestContext> {
        Box::new(RequestContext::past(Request::recalled(&self.request, buffers)))
    }

    fn ended(&mut self, side: Side) -> &mut bool {
        match side {
            Side::Client => &mut self.client_ended,
            Side::Upstream => &mut self.upstream_ended,
        }
    }

    /// The idle limit; `None` if bytes do not extend the deadline.
    pub(super) fn patience(&self, common: &CommonState, settings: &Settings) -> Option<Duration> {
        let idle = if self.is_ending() { Some(common.body_timeout(settings)) } else { common.tunnel_timeout(settings) };
        self.retires_for.is_none().then(|| idle.unwrap_or(Duration::MAX))
    }

    fn stay(self, cx: &mut StepContext<'_>) -> Step<Self> {
        if let Some(patience) = self.patience(cx.common, &cx.core.settings) {
            cx.deadline_in(patience);
        }
        Ok(Next::Stay(self))
    }

    /// Ends the tunnel when both directions have ended and all bytes are sent. Unsent bytes then have a shorter limit
    /// than an idle tunnel.
    fn settle(self, cx: &mut StepContext<'_>) -> Step<Self> {
        let drained = cx.is_drained(Side::Client) && cx.is_drained(Side::Upstream);
        match (self.is_ending(), drained) {
            (true, true) => Ok(self.part(cx).into()),
            (true, false) => self.stay(cx),
            (false, _) => Ok(Next::Stay(self)),
        }
    }
}
