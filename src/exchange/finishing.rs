//! The answer is complete: it has to leave, and the client may have to be heard out.

use super::journey::Journey;
use super::{Cx, Effect, Input, Side, State};
use crate::base::reason::Reason;
use std::time::Duration;

/// How long a client that still sends is heard out. Closing at once would answer its bytes with a reset, and that
/// takes the answer away with it (RFC 9112 section 9.6).
const LINGER: Duration = Duration::from_secs(5);

/// How many bytes are read from such a client.
const LINGER_BYTES: u32 = 16 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct Finishing {
    pub(super) journey: Option<Box<Journey>>,
    /// The connection is kept.
    pub(super) keep_alive: bool,
    /// The client still sends, and has to be heard out.
    pub(super) linger: bool,
    pub(super) end: AnswerEnd,
    heard: u32,
}

/// How the client knows that the answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AnswerEnd {
    /// By what the answer says; so it sees as well if the end is missing.
    Told,
    /// By the end of the connection.
    Connection,
    /// By the end of the connection too, but the answer is not whole.
    Missing,
}

impl Finishing {
    /// The end of an answer.
    pub(super) fn new(journey: Option<Box<Journey>>, keep_alive: bool, linger: bool, end: AnswerEnd) -> Self {
        Self { journey, keep_alive, linger, end, heard: 0 }
    }

    /// Waits until the answer has left; then the connection is kept, or heard out, or closed.
    pub(super) fn start(self, cx: &mut Cx<'_>) -> State {
        cx.deadline_in(cx.core.settings.body_timeout);
        if cx.is_drained(Side::Client) { self.left(cx) } else { State::Finishing(self) }
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
            return self.hear_out(cx);
        }
        self.over(cx)
    }

    /// Everything has left, the end included: waits for the client's.
    pub(super) fn hear_out(self, cx: &mut Cx<'_>) -> State {
        cx.deadline_in(LINGER);
        State::Lingering(self)
    }

    /// A step of [`State::Lingering`].
    #[cold]
    pub(super) fn linger(mut self, input: Input<'_>, cx: &mut Cx<'_>) -> State {
        match input {
            Input::Bytes(Side::Client, bytes) => {
                cx.consumed = bytes.len();
                self.heard = self.heard.saturating_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
                if self.heard > LINGER_BYTES { self.over(cx) } else { State::Lingering(self) }
            }
            // The answer has left as a whole: whatever ends this now is no failure.
            Input::End(Side::Client) | Input::Deadline | Input::Broken(Side::Client) | Input::Abort(_) => self.over(cx),
            _ => State::Lingering(self),
        }
    }

    /// Nothing is left to do.
    pub(super) fn over(self, cx: &mut Cx<'_>) -> State {
        if self.end == AnswerEnd::Missing {
            cx.effect(Effect::Reset);
        }
        cx.effect(Effect::Finish { keep_alive: self.keep_alive });
        State::Over(self.journey)
    }
}
