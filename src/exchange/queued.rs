//! The request waits for a slot, as no member has room; or for a token, as its bucket has none.

use super::request_context::RequestContext;
use super::{CommonState, Effect, Input, State, StepContext};
use crate::base::clock::Moment;
use crate::base::reason::FailureReason;
use crate::cluster::{Admission, Choice, Cluster, HeldToken, Permit, Route, Ticket};
use crate::shaper::BucketId;
use std::sync::Arc;
use std::time::Duration;

/// How often the queue is tried again while the capacity of a member rises (slow start): no event tells of that.
const RAMP_STEP: Duration = Duration::from_millis(100);

/// How long a request that has refused a slot stays out of the queue.
const REJOIN_DELAY: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub(super) struct Queued {
    pub(super) context: Box<RequestContext>,
    /// Until then it waits.
    until: Moment,
    waiting: Option<Waiting>,
}

/// A place in the queue. It is left when dropped, however the exchange ends.
#[derive(Debug)]
struct Waiting {
    admission: Arc<Admission>,
    ticket: Ticket,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.admission.leave(self.ticket);
    }
}

/// What a worker needs to have a request join the queue of its cluster.
#[derive(Debug)]
pub struct QueueRequest {
    /// The cluster.
    pub cluster: Arc<Cluster>,
    /// What it waits for.
    pub wanted: Wanted,
    /// The place that it has already.
    pub ticket: Option<Ticket>,
}

/// What a request waits for.
#[derive(Debug)]
pub enum Wanted {
    /// A token of this bucket.
    Token(BucketId),
    /// A slot.
    Slot {
        /// The members that may serve the request.
        choice: Choice,
        /// It has a token.
        has_token: bool,
    },
}

impl Queued {
    /// Has the request join the queue.
    #[cold]
    pub(super) fn start(context: Box<RequestContext>, cx: &mut StepContext<'_>) -> State {
        let timeout = cx.common.options().map_or(Duration::ZERO, |options| options.queue.timeout);
        cx.common.stats.begin_phase(cx.core.now);
        let state = Self { context, until: cx.core.now + timeout, waiting: None };
        // Nothing is begun for a client that has left.
        match cx.common.client_left {
            true => State::Queued(state).abort_silently(FailureReason::ClientGone, cx),
            false => state.join(cx),
        }
    }

    fn join(self, cx: &mut StepContext<'_>) -> State {
        cx.effect(Effect::Enqueue);
        cx.common.deadline = self.next_look(cx).min(self.until);
        State::Queued(self)
    }

    pub(super) fn step(mut self, input: Input<'_>, cx: &mut StepContext<'_>) -> State {
        match input {
            Input::EnqueuedUntil(ticket, until) => {
                self.until = until;
                cx.common.deadline = self.next_look(cx).min(until);
                self.step(Input::Enqueued(ticket), cx)
            }
            Input::Enqueued(ticket) => {
                if let Some(route) = cx.common.route().filter(|_| self.waiting.is_none()) {
                    self.waiting = Some(Waiting { admission: Arc::clone(&route.cluster.admission), ticket });
                }
                State::Queued(self)
            }
            Input::Granted(permit) => self.granted(permit, cx),
            Input::GrantedToken(token) => self.granted_token(token, cx),
            Input::QueueFull => {
                cx.common.stats.end_queue(cx.core.now);
                self.context.refuse(FailureReason::QueueFull, cx)
            }
            Input::Deadline if self.until <= cx.core.now => {
                cx.common.stats.end_queue(cx.core.now);
                if let Some(waiting) = &self.waiting {
                    waiting.admission.time_out(waiting.ticket);
                }
                self.context.refuse(FailureReason::QueueTimeout, cx)
            }
            // A mark has ended, a capacity has risen, or a slot was refused.
            Input::Deadline => self.join(cx),
            _ => State::Queued(self),
        }
    }

    fn granted(self, permit: Permit, cx: &mut StepContext<'_>) -> State {
        let Some(route) = cx.common.route().cloned() else { return State::Queued(self) };
        if self.context.accepts(&permit, &route, cx.core.now) {
            cx.common.stats.end_queue(cx.core.now);
            return self.context.admitted(permit, cx);
        }
        // A mark was made meanwhile: the slot is another request's.
        drop(permit);
        if route.is_stale() {
            return self.context.resolve_again(cx);
        }
        // It joins again with its place, but later: the queue may grant the same slot at once, and so without end.
        cx.common.deadline = (cx.core.now + REJOIN_DELAY).min(self.until);
        State::Queued(self)
    }

    /// Now the request may have a slot. If there is none, it waits for the rest of its time.
    fn granted_token(self, token: HeldToken, cx: &mut StepContext<'_>) -> State {
        let Some(route) = cx.common.route().cloned() else { return State::Queued(self) };
        cx.common.stats.end_queue(cx.core.now);
        cx.common.token = token.into_token(&route.cluster);
        let until = self.until;
        let mut state = self.context.choose(route, cx);
        if let State::Queued(state) = &mut state {
            state.until = until;
            cx.common.deadline = cx.common.deadline.min(until);
        }
        state
    }

    /// When room may have appeared without an event: a mark of the host ends, or a capacity has risen.
    fn next_look(&self, cx: &StepContext<'_>) -> Moment {
        let now = cx.core.now;
        let Some(route) = cx.common.route() else { return Moment::NEVER };
        let first_end = route.marks.iter().filter_map(|mark| mark.ends_at(now)).min().unwrap_or(Moment::NEVER);
        if route.cluster.is_ramping(now) { first_end.min(now + RAMP_STEP) } else { first_end }
    }

    pub(super) fn request(&self, route: &Arc<Route>, common: &CommonState, now: Moment) -> QueueRequest {
        let wanted = match common.needs_token(route) {
            true => Wanted::Token(common.bucket.unwrap_or(BucketId::UNCLASSIFIED)),
            false => Wanted::Slot { choice: self.context.choice(route, now), has_token: common.token.is_some() },
        };
        QueueRequest {
            cluster: Arc::clone(&route.cluster),
            wanted,
            ticket: self.waiting.as_ref().map(|waiting| waiting.ticket),
        }
    }

    pub(super) fn waits_with(&self, ticket: Ticket) -> bool {
        self.waiting.as_ref().is_some_and(|waiting| waiting.ticket == ticket)
    }
}
