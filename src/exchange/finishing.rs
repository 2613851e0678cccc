//! The answer is complete: it has to leave.

use super::journey::Journey;
use super::{Cx, Disposition, Effect, Input, Side, State};
use crate::base::reason::Reason;

#[derive(Debug)]
pub(super) struct Finishing {
    pub(super) journey: Option<Box<Journey>>,
    /// The future of the client's connection, if all of the answer leaves.
    connection: Disposition,
    pub(super) end: AnswerEnd,
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
    pub(super) fn new(journey: Option<Box<Journey>>, connection: Disposition, end: AnswerEnd) -> Self {
        Self { journey, connection, end }
    }

    /// Whether the client's connection may carry the next request.
    pub(super) fn is_kept(&self) -> bool {
        self.connection == Disposition::KeepAlive
    }

    /// Waits until the answer has left.
    pub(super) fn start(self, cx: &mut Cx<'_>) -> State {
        cx.deadline_in(cx.core.settings.body_timeout);
        if cx.is_drained(Side::Client) { self.over(cx) } else { State::Finishing(self) }
    }

    pub(super) fn step(self, input: Input<'_>, cx: &mut Cx<'_>) -> State {
        match input {
            Input::Drained(Side::Client) => self.over(cx),
            Input::Deadline => State::Finishing(self).leave(Reason::ClientStalled, cx),
            _ => State::Finishing(self),
        }
    }

    /// Nothing is left to do.
    pub(super) fn over(self, cx: &mut Cx<'_>) -> State {
        let is_missing = self.end == AnswerEnd::Missing;
        if is_missing {
            cx.effect(Effect::Reset);
        }
        cx.effect(Effect::Finish(if is_missing { Disposition::Close } else { self.connection }));
        State::Over(self.journey)
    }
}
