//! The answer is complete: it has to leave, and the client may have to be heard out.

use super::request::Request;
use super::{Cx, Effect, Input, Side, State};
use crate::base::reason::Reason;
use std::time::Duration;

/// How long a client that still sends is heard out. Closing at once would answer its bytes with a reset, and that
/// takes the answer away with it (RFC 9112 section 9.6).
const LINGER: Duration = Duration::from_secs(5);

/// How many bytes are read from such a client.
const LINGER_BYTES: usize = 16 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct Finishing {
    pub(super) request: Option<Request>,
    keep_alive: bool,
    linger: bool,
    heard: usize,
}

impl Finishing {
    /// Waits until the answer has left; then the connection is kept, or heard out, or closed.
    pub(super) fn start(request: Option<Request>, keep_alive: bool, linger: bool, cx: &mut Cx<'_>) -> State {
        cx.deadline_in(cx.settings.body_timeout);
        let state = Self { request, keep_alive, linger, heard: 0 };
        if cx.is_drained(Side::Client) { state.left(cx) } else { State::Finishing(state) }
    }

    pub(super) fn step(self, input: Input<'_>, cx: &mut Cx<'_>) -> State {
        match input {
            Input::Drained(Side::Client) => self.left(cx),
            Input::Deadline => State::Finishing(self).leave(Reason::ClientStalled, cx),
            _ => State::Finishing(self),
        }
    }

    fn left(self, cx: &mut Cx<'_>) -> State {
        if self.linger {
            cx.effect(Effect::CloseWrite(Side::Client));
            cx.deadline_in(LINGER);
            return State::Lingering(self);
        }
        self.over(cx)
    }

    /// A step of [`State::Lingering`].
    pub(super) fn linger(mut self, input: Input<'_>, cx: &mut Cx<'_>) -> State {
        match input {
            Input::Bytes(Side::Client, bytes) => {
                cx.consumed = bytes.len();
                self.heard = self.heard.saturating_add(bytes.len());
                if self.heard > LINGER_BYTES { self.over(cx) } else { State::Lingering(self) }
            }
            Input::End(Side::Client) | Input::Deadline => self.over(cx),
            _ => State::Lingering(self),
        }
    }

    fn over(self, cx: &mut Cx<'_>) -> State {
        cx.effect(Effect::Finish { keep_alive: self.keep_alive });
        State::Over(self.request)
    }
}
