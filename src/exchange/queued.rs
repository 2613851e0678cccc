//! The request waits for a slot, as no member has room; or for a token, as its bucket has none.

use super::request_context::RequestContext;
use super::{CommonState, Effect, Input, State, StepContext, WorkerContext};
use crate::base::clock::Moment;
use crate::base::reason::FailureReason;
use crate::cluster::{Admission, GrantSink, HeldToken, Joined, Notice, Permit, Route, Ticket, TokenRequest};
use crate::shaper::BucketId;
use std::sync::Arc;
use std::time::Duration;

/// How long a request stays out of the queue that has refused a slot, or whose route is asked for again: the news of an
/// edit may still be on its way to this core.
const PAUSE: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub(super) struct Queued {
    pub(super) context: Box<RequestContext>,
    /// Until then it waits.
    until: Moment,
    waiting: Option<Waiting>,
    next: Next,
}

/// What the deadline is for, before the wait is over.
#[derive(Clone, Copy, Debug)]
enum Next {
    /// To look for room that appears by the passing of time.
    Poll,
    /// To join the queue again.
    Join,
    /// To ask for the route again.
    Resolve,
    /// To have its turn (`requestsPerSecond`).
    Turn,
}

/// A place in the queue. It is left when dropped, however the exchange ends.
#[derive(Debug)]
struct Waiting {
    admission: Arc<Admission>,
    ticket: Ticket,
    is_granted: bool,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.is_granted {
            self.admission.leave(self.ticket);
        }
    }
}

impl Queued {
    /// Has the request join the queue.
    #[cold]
    pub(super) fn start(context: Box<RequestContext>, cx: &mut StepContext<'_>) -> State {
        let timeout = cx.common.options().map_or(Duration::ZERO, |options| options.queue.timeout);
        let until = cx.core.now + context.wait_left.unwrap_or(timeout);
        cx.common.stats.begin_phase(cx.core.now);
        let state = Self { context, until, waiting: None, next: Next::Poll };
        // Nothing is begun for a client that has left.
        match cx.common.client_left {
            true => State::Queued(state).abort_silently(FailureReason::ClientGone, cx),
            false => state.join(cx),
        }
    }

    /// Has the request wait for its turn, at this moment.
    #[cold]
    pub(super) fn await_turn(context: Box<RequestContext>, turn: Moment, cx: &mut StepContext<'_>) -> State {
        cx.common.stats.begin_phase(cx.core.now);
        let state = Self { context, until: Moment::NEVER, waiting: None, next: Next::Turn };
        if cx.common.client_left {
            return State::Queued(state).abort_silently(FailureReason::ClientGone, cx);
        }
        cx.common.deadline = turn;
        State::Queued(state)
    }

    /// The request's turn has come. An edit may have come before.
    fn have_turn(self, cx: &mut StepContext<'_>) -> State {
        cx.common.stats.end_queue(cx.core.now);
        match cx.common.route().cloned() {
            Some(route) if !route.is_stale() => self.context.choose(route, cx),
            _ => self.context.resolve_again(cx),
        }
    }

    fn join(mut self, cx: &mut StepContext<'_>) -> State {
        cx.effect(Effect::Enqueue);
        self.next = Next::Poll;
        cx.common.deadline = self.next_look(cx).min(self.until);
        State::Queued(self)
    }

    /// Does something else than to wait for a grant, but not in this step: the queue may grant the same slot, or the route
    /// be the same, at once and so without end.
    fn pause(mut self, next: Next, cx: &mut StepContext<'_>) -> State {
        self.next = next;
        cx.common.deadline = (cx.core.now + PAUSE).min(self.until);
        State::Queued(self)
    }

    pub(super) fn step(mut self, input: Input<'_>, cx: &mut StepContext<'_>) -> State {
        match input {
            Input::EnqueuedUntil(ticket, until) => {
                self.until = until;
                self.enqueued(ticket, cx)
            }
            Input::Enqueued(ticket) => {
                self.context.ticket = Some(ticket);
                self.enqueued(ticket, cx)
            }
            Input::Granted(permit) => self.granted(permit, cx),
            Input::GrantedToken(token) => self.granted_token(token, cx),
            Input::QueueFull => {
                cx.common.stats.end_queue(cx.core.now);
                self.context.refuse(FailureReason::QueueFull, cx)
            }
            Input::Notice(Notice::Unavailable) => self.pause(Next::Resolve, cx),
            Input::Notice(Notice::Poll) if matches!(self.next, Next::Poll) => self.poll(cx),
            Input::Deadline if self.until <= cx.core.now => {
                cx.common.stats.end_queue(cx.core.now);
                if let Some(waiting) = &self.waiting {
                    waiting.admission.time_out(waiting.ticket);
                }
                self.context.refuse(FailureReason::QueueTimeout, cx)
            }
            Input::Deadline => match self.next {
                Next::Poll => self.poll(cx),
                Next::Join => self.join(cx),
                Next::Resolve => self.resolve(cx),
                Next::Turn => self.have_turn(cx),
            },
            _ => State::Queued(self),
        }
    }

    fn enqueued(mut self, ticket: Ticket, cx: &mut StepContext<'_>) -> State {
        if let Some(route) = cx.common.route() {
            let admission = Arc::clone(&route.cluster.admission);
            // A request that joins again has the ticket of before: it has left with nothing to give up.
            if let Some(before) = self.waiting.replace(Waiting { admission, ticket, is_granted: false }) {
                before.end();
            }
        }
        cx.common.deadline = self.next_look(cx).min(self.until);
        State::Queued(self)
    }

    fn poll(self, cx: &mut StepContext<'_>) -> State {
        let now = cx.core.now;
        let again = cx.common.route().map_or(Moment::NEVER, |route| route.cluster.admission.poll(now));
        cx.common.deadline = again.min(self.first_end(cx)).min(self.until);
        State::Queued(self)
    }

    fn granted(mut self, permit: Permit, cx: &mut StepContext<'_>) -> State {
        let Some(route) = cx.common.route().cloned() else { return State::Queued(self) };
        if permit.cluster().options.is_disabled {
            drop(permit);
            return self.pause(Next::Resolve, cx);
        }
        if permit.suits(&self.context.demand(&route), cx.core.now) {
            self.end_wait(cx);
            return self.context.admitted(permit, cx);
        }
        // A mark was made meanwhile: the slot is another request's.
        drop(permit);
        if route.is_stale() { self.resolve(cx) } else { self.pause(Next::Join, cx) }
    }

    /// Now the request may have a slot. If there is none, it waits for the rest of its time.
    fn granted_token(mut self, token: HeldToken, cx: &mut StepContext<'_>) -> State {
        let Some(route) = cx.common.route().cloned() else { return State::Queued(self) };
        self.end_wait(cx);
        cx.common.token = token.into_token(&route.cluster);
        self.context.choose(route, cx)
    }

    fn resolve(mut self, cx: &mut StepContext<'_>) -> State {
        self.note_wait(cx);
        self.context.resolve_again(cx)
    }

    /// The request has what it has waited for.
    fn end_wait(&mut self, cx: &mut StepContext<'_>) {
        self.note_wait(cx);
        if let Some(waiting) = self.waiting.take() {
            waiting.end();
        }
    }

    fn note_wait(&mut self, cx: &mut StepContext<'_>) {
        cx.common.stats.end_queue(cx.core.now);
        self.context.wait_left = Some(self.until.since(cx.core.now));
    }

    /// When room may appear without an event: a mark of the host ends, or a capacity rises.
    fn next_look(&self, cx: &StepContext<'_>) -> Moment {
        let now = cx.core.now;
        let is_ramping = cx.common.route().is_some_and(|route| route.cluster.admission.is_ramping(now));
        if is_ramping { now } else { self.first_end(cx) }
    }

    fn first_end(&self, cx: &StepContext<'_>) -> Moment {
        let marks = cx.common.route().into_iter().flat_map(|route| &route.marks);
        marks.filter_map(|mark| mark.ends_at(cx.core.now)).min().unwrap_or(Moment::NEVER)
    }

    pub(super) fn join_queue(
        &self,
        route: &Arc<Route>,
        common: &CommonState,
        sink: Arc<dyn GrantSink>,
        exchange: u64,
        core: &WorkerContext,
    ) -> Joined {
        if common.needs_token(route) {
            let bucket = common.bucket.unwrap_or(BucketId::UNCLASSIFIED);
            return route.cluster.join_bucket(TokenRequest { sink, exchange, bucket }, core.now);
        }
        let waiter = self.context.waiter(route, common, sink, exchange, &core.settings);
        route.cluster.join(waiter, self.context.ticket, core.now)
    }

    pub(super) fn waits_with(&self, ticket: Ticket) -> bool {
        self.waiting.as_ref().is_some_and(|waiting| waiting.ticket == ticket)
    }
}

impl Waiting {
    /// It is no longer in the queue.
    fn end(mut self) {
        self.is_granted = true;
    }
}
