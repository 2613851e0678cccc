//! Bytes of another protocol go both ways.

use super::finishing::Finishing;
use super::outlet::Sink;
use super::request::Request;
use super::{Cx, Effect, Input, Side, State};
use crate::base::clock::Moment;
use crate::base::reason::Reason;

#[derive(Debug)]
pub(super) struct Tunnel {
    pub(super) request: Request,
    client_ended: bool,
    upstream_ended: bool,
}

impl Tunnel {
    /// The 101 is on its way.
    pub(super) fn start(mut self_request: Request, cx: &mut Cx<'_>) -> State {
        self_request.shrink(cx.buffers);
        cx.ledger.status = 101;
        cx.effect(Effect::Tunnel);
        let state = Self { request: self_request, client_ended: false, upstream_ended: false };
        state.stay(cx)
    }

    pub(super) fn step(mut self, input: Input<'_>, cx: &mut Cx<'_>) -> State {
        match input {
            Input::Bytes(side, bytes) => {
                cx.output.outlet(side.other()).pass(bytes, 0..bytes.len());
                cx.consumed = bytes.len();
                self.stay(cx)
            }
            Input::End(side) => {
                *self.ended(side) = true;
                cx.effect(Effect::CloseWrite(side.other()));
                self.settle(cx)
            }
            Input::Drained(_) => self.settle(cx),
            Input::UpstreamDeaf => {
                self.client_ended = true;
                self.settle(cx)
            }
            Input::Broken(Side::Upstream) => self.finish(cx),
            Input::Deadline => State::Tunnel(self).leave(Reason::TunnelIdle, cx),
            _ => State::Tunnel(self),
        }
    }

    pub(super) fn wants(&self, side: Side) -> bool {
        match side {
            Side::Client => !self.client_ended,
            Side::Upstream => !self.upstream_ended,
        }
    }

    fn ended(&mut self, side: Side) -> &mut bool {
        match side {
            Side::Client => &mut self.client_ended,
            Side::Upstream => &mut self.upstream_ended,
        }
    }

    fn stay(self, cx: &mut Cx<'_>) -> State {
        *cx.deadline = cx.settings.tunnel_timeout.map_or(Moment::NEVER, |timeout| cx.now + timeout);
        State::Tunnel(self)
    }

    /// Ends the tunnel when both directions have ended and everything has left.
    fn settle(self, cx: &mut Cx<'_>) -> State {
        let drained = cx.is_drained(Side::Client) && cx.is_drained(Side::Upstream);
        if self.client_ended && self.upstream_ended && drained { self.finish(cx) } else { State::Tunnel(self) }
    }

    fn finish(self, cx: &mut Cx<'_>) -> State {
        cx.ledger.backend_done(cx.now);
        cx.release(false);
        Finishing::with(Some(self.request), false, false).start(cx)
    }
}
