//! The head of the request is not complete.

use super::journey::Journey;
use super::request::Request;
use super::{Cx, Input, Side, State, answer};
use crate::base::reason::Reason;
use crate::wire;
use crate::wire::body::BodyLength;
use crate::wire::request::{RequestHead, fields};

/// Hipache's health check of the proxy itself: answered even when nothing else works.
const PING_HOST: &str = "__ping__";

#[derive(Debug, Default)]
pub(super) struct Reading {
    /// How much of the head was there at the last look.
    seen: usize,
}

impl Reading {
    pub(super) fn step(self, input: Input<'_>, cx: &mut Cx<'_>) -> State {
        match input {
            Input::Bytes(Side::Client, bytes) => self.read(bytes, cx),
            Input::End(Side::Client) => State::Reading(self).leave(Reason::ClientTruncated, cx),
            Input::Deadline => answer::refuse(None, Reason::HeadTimeout, cx),
            _ => State::Reading(self),
        }
    }

    fn read(mut self, bytes: &[u8], cx: &mut Cx<'_>) -> State {
        // The first look parses whatever is there, so that what is no HTTP at all is told at once.
        let may_be_complete = self.seen == 0 || wire::has_blank_line(bytes, self.seen);
        self.seen = bytes.len();
        let mut room = fields();
        let head = match may_be_complete.then(|| RequestHead::parse(bytes, &mut room)).transpose() {
            Ok(head) => head.flatten(),
            Err(reason) => return refuse(bytes, reason, cx),
        };
        let head_len = head.as_ref().map_or(bytes.len(), |head| head.len);
        if head_len > cx.settings.max_head_bytes {
            return refuse(bytes, Reason::HeadTooLarge, cx);
        }
        match head {
            Some(head) => begin(&head, bytes, cx),
            None => State::Reading(self),
        }
    }
}

fn begin(head: &RequestHead<'_, '_>, bytes: &[u8], cx: &mut Cx<'_>) -> State {
    let request = match Request::new(head, cx) {
        Ok(request) => request,
        Err(reason) => return refuse(bytes, reason, cx),
    };
    cx.consumed = head.len;
    if request.is_for(PING_HOST) {
        return answer::ping(request, cx);
    }
    let journey = Journey::new(request);
    match (head.body, cx.settings.max_body_bytes) {
        (BodyLength::Sized(length), Some(limit)) if length > limit => journey.refuse(Reason::BodyTooLarge, cx),
        _ => journey.resolve(cx),
    }
}

/// Refuses a head. It leaves open where the next one would begin, so nothing behind it is read as one.
fn refuse(bytes: &[u8], reason: Reason, cx: &mut Cx<'_>) -> State {
    let request = Request::glimpsed(bytes, cx);
    answer::refuse(request.map(|request| (request, false)), reason, cx)
}
