//! The state in which the request waits for a slot, because no member has room, or for a token, because its bucket has
//! none.

use super::choosing;
use super::events::{Effect, Input};
use super::request_context::RequestContext;
use super::step_context::{CommonState, StepContext, WaitsFor};
use super::transition::{Failure, Next, Step, Transition};
use super::worker_context::WorkerContext;
use crate::base::clock::Moment;
use crate::base::rate_limiter::LOOK;
use crate::base::reason::FailureReason;
use crate::cluster::{
    Admission, Demand, GrantSink, HeldToken, Joined, NodeTicket, Notice, OwnedDemand, Permit, Route, Ticket,
    TokenRequest,
};
use crate::shaper::BucketId;
use std::sync::Arc;
use std::time::Duration;

/// Time that a request stays out of the queue after it declined a slot or has to resolve its route again: the notice of
/// an edit may still be on its way to this core.
const PAUSE: Duration = Duration::from_millis(10);

/// How long a request stays out of the queue whose backend has taken no connection: a probe may find that it is down.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Queued {
    pub(super) context: Box<RequestContext>,
    /// The end of the wait.
    until: Moment,
    /// It is boxed, since few requests are queued and every tunnel has the size of the largest state.
    waiting: Option<Box<Waiting>>,
    due: Due,
    /// It has a slot, and waits for a token of this node.
    is_for_node: bool,
}

/// The purpose of the deadline before the wait is over.
#[derive(Clone, Copy, Debug)]
enum Due {
    /// To look for room that appears as time passes.
    Poll,
    /// To join the queue again.
    Join,
    /// To resolve the route again.
    Resolve,
    /// To take the request's turn (`requestsPerSecond`).
    Turn,
}

/// A place in the queue. Dropping it leaves the queue, however the exchange ends.
#[derive(Debug)]
struct Waiting {
    queue: WaitsIn,
    ticket: Ticket,
    is_granted: bool,
}

#[derive(Debug)]
enum WaitsIn {
    /// The queue of its cluster, or of a bucket of that.
    Cluster(Arc<Admission>),
    /// The queue of its tenant.
    Node(NodeTicket),
    /// No queue: it has its turn (`requestsPerSecond`) at this moment, by the rate at `since`.
    Turn { admission: Arc<Admission>, at: Moment, since: Moment },
}

impl Drop for Waiting {
    fn drop(&mut self) {
        match &self.queue {
            _ if self.is_granted => {}
            WaitsIn::Cluster(admission) => _ = admission.leave(self.ticket),
            WaitsIn::Node(ticket) => ticket.leave(false),
            WaitsIn::Turn { admission, .. } => admission.return_turn(),
        }
    }
}

impl Queued {
    /// Makes the request join the queue.
    #[cold]
    pub(super) fn start(context: Box<RequestContext>, cx: &mut StepContext<'_>) -> Step<Self> {
        Self::start_in(context, false, cx)
    }

    /// Has the request, which has a slot, join the queue of its tenant.
    #[cold]
    pub(super) fn start_for_node(context: Box<RequestContext>, cx: &mut StepContext<'_>) -> Step<Self> {
        Self::start_in(context, true, cx)
    }

    fn start_in(context: Box<RequestContext>, is_for_node: bool, cx: &mut StepContext<'_>) -> Step<Self> {
        Ok(Next::Stay(Self::enter(context, Due::Poll, is_for_node, cx)?.join(cx)))
    }

    /// Has the request join the queue in a moment.
    #[cold]
    pub(super) fn start_later(context: Box<RequestContext>, cx: &mut StepContext<'_>) -> Step<Self> {
        let mut state = Self::enter(context, Due::Join, false, cx)?;
        state.context.wait_left = Some(state.until.since(cx.core.now));
        cx.common.deadline = (cx.core.now + RETRY_PAUSE).min(state.until);
        Ok(Next::Stay(state))
    }

    /// A request that begins to wait. It fails for a client that has left.
    fn enter(
        context: Box<RequestContext>,
        due: Due,
        is_for_node: bool,
        cx: &mut StepContext<'_>,
    ) -> Result<Self, Failure> {
        if !is_for_node {
            cx.leave_node();
        }
        let timeout = cx.common.options().map_or(Duration::ZERO, |options| options.queue.timeout);
        let until = cx.core.now + context.wait_left.unwrap_or(timeout);
        cx.common.stats.begin_phase(cx.core.now);
        cx.common.waits_for = if is_for_node { WaitsFor::Node } else { WaitsFor::Slot };
        if cx.common.client_left {
            return Err(Failure::silent(Some(context), FailureReason::ClientGone));
        }
        Ok(Self { context, until, waiting: None, due, is_for_node })
    }

    /// Makes the request wait for its turn at this moment.
    #[cold]
    pub(super) fn await_turn(context: Box<RequestContext>, turn: Moment, cx: &mut StepContext<'_>) -> Step<Self> {
        cx.common.stats.begin_phase(cx.core.now);
        if cx.common.client_left {
            return Err(Failure::silent(Some(context), FailureReason::ClientGone));
        }
        let (due, until) = (Due::Turn, Moment::NEVER);
        cx.common.deadline = turn.min(cx.core.now + LOOK);
        let waiting = cx.common.route().map(|route| {
            let admission = Arc::clone(&route.cluster.admission);
            let queue = WaitsIn::Turn { admission, at: turn, since: cx.core.now };
            Box::new(Waiting { queue, ticket: Ticket::NONE, is_granted: false })
        });
        Ok(Next::Stay(Self { context, until, waiting, due, is_for_node: false }))
    }

    /// Takes the request's turn, or waits on: it may come earlier than it was to, if the rate was raised.
    fn look_for_turn(mut self, cx: &mut StepContext<'_>) -> Step<Self> {
        let now = cx.core.now;
        let waiting = self.waiting.as_deref_mut().map(|waiting| &mut waiting.queue);
        let Some(WaitsIn::Turn { admission, at, since }) = waiting else { return Ok(self.have_turn(cx)?.into()) };
        *at = admission.turn_of(*at, *since);
        *since = now;
        if *at <= now {
            return Ok(self.have_turn(cx)?.into());
        }
        cx.common.deadline = (*at).min(now + LOOK);
        Ok(Next::Stay(self))
    }

    /// The request's turn has come. The route may have been edited before.
    fn have_turn(mut self, cx: &mut StepContext<'_>) -> Result<Transition, Failure> {
        cx.common.stats.end_queue(cx.core.now);
        self.waiting.take().into_iter().for_each(|waiting| waiting.end());
        match cx.common.route().cloned() {
            Some(route) if !route.is_stale() => choosing::choose(self.context, route, cx),
            _ => Ok(Transition::ResolveAgain(self.context)),
        }
    }

    fn join(mut self, cx: &mut StepContext<'_>) -> Self {
        cx.effect(Effect::Enqueue);
        self.due = Due::Poll;
        cx.common.deadline = self.next_look(cx).min(self.until);
        self
    }

    /// Pauses instead of waiting for a grant. It must not act in this step: the queue could grant the same slot, or the
    /// route be the same, again and again.
    fn pause(mut self, due: Due, cx: &mut StepContext<'_>) -> Self {
        self.due = due;
        cx.common.deadline = (cx.core.now + PAUSE).min(self.until);
        self
    }

    pub(super) fn step(mut self, input: Input<'_>, cx: &mut StepContext<'_>) -> Step<Self> {
        match input {
            Input::EnqueuedUntil(ticket, until) => {
                // A request that has waited before has only the rest of its time.
                let is_first = self.context.wait_left.is_none() && self.waiting.is_none();
                self.until = if is_first { until } else { until.min(self.until) };
                Ok(Next::Stay(self.enqueued(ticket, cx)))
            }
            Input::Enqueued(ticket) => {
                self.context.ticket = Some(ticket);
                Ok(Next::Stay(self.enqueued(ticket, cx)))
            }
            Input::Granted(permit) => self.granted(permit, cx),
            Input::GrantedToken(token) if self.is_for_node => Ok(self.granted_node(token, cx)),
            Input::GrantedToken(token) => self.granted_token(token, cx),
            Input::QueueFull => {
                cx.common.stats.end_queue(cx.core.now);
                Err(Failure::new(self.context, FailureReason::QueueFull))
            }
            Input::Notice(Notice::Unavailable) => Ok(Next::Stay(self.pause(Due::Resolve, cx))),
            Input::Notice(Notice::Poll) if matches!(self.due, Due::Poll) => Ok(Next::Stay(self.poll(cx))),
            Input::Deadline if self.until <= cx.core.now => {
                cx.common.stats.end_queue(cx.core.now);
                let reason = self.time_out();
                Err(Failure::new(self.context, reason))
            }
            Input::Deadline => match self.due {
                Due::Poll => Ok(Next::Stay(self.poll(cx))),
                Due::Join => Ok(Next::Stay(self.join(cx))),
                Due::Resolve => Ok(self.resolve(cx).into()),
                Due::Turn => self.look_for_turn(cx),
            },
            _ => Ok(Next::Stay(self)),
        }
    }

    /// The reason of a wait that took too long: for room, or for the frontend to be opened.
    fn time_out(&self) -> FailureReason {
        match self.waiting.as_deref() {
            Some(Waiting { queue: WaitsIn::Cluster(admission), ticket, .. }) => {
                admission.time_out(*ticket);
                if admission.is_closed() { FailureReason::ClusterDisabled } else { FailureReason::QueueTimeout }
            }
            Some(Waiting { queue: WaitsIn::Node(ticket), .. }) => {
                ticket.leave(true);
                FailureReason::QueueTimeout
            }
            Some(Waiting { queue: WaitsIn::Turn { .. }, .. }) | None => FailureReason::QueueTimeout,
        }
    }

    fn enqueued(mut self, ticket: Ticket, cx: &mut StepContext<'_>) -> Self {
        let queue = match (&cx.core.tenants, cx.common.route()) {
            (Some(tenants), _) if self.is_for_node => Some(WaitsIn::Node(tenants.ticket(ticket))),
            (_, route) => route.map(|route| WaitsIn::Cluster(Arc::clone(&route.cluster.admission))),
        };
        if let Some(queue) = queue {
            // A request that joins again keeps its ticket, and the earlier place holds nothing to return.
            if let Some(before) = self.waiting.replace(Box::new(Waiting { queue, ticket, is_granted: false })) {
                before.end();
            }
        }
        cx.common.deadline = self.next_look(cx).min(self.until);
        self
    }

    fn poll(self, cx: &mut StepContext<'_>) -> Self {
        let now = cx.core.now;
        if self.is_for_node {
            cx.common.deadline = self.until;
            return self;
        }
        let again = cx.common.route().map_or(Moment::NEVER, |route| route.cluster.admission.poll(now));
        cx.common.deadline = again.min(self.first_end(cx)).min(self.until);
        self
    }

    fn granted(mut self, permit: Permit, cx: &mut StepContext<'_>) -> Step<Self> {
        let Some(route) = cx.common.route().cloned() else { return Ok(Next::Stay(self)) };
        // A request that was held has no token yet.
        let lacks_token = permit.cluster().has_buckets() && cx.common.token.is_none();
        if permit.cluster().options.is_disabled || lacks_token {
            drop(permit);
            return Ok(Next::Stay(self.pause(Due::Resolve, cx)));
        }
        if permit.suits(&self.context.demand(&route), cx.core.now) {
            self.end_wait(cx);
            return Ok(choosing::admitted(self.context, permit, cx)?.into());
        }
        // A mark was made meanwhile: another request gets the slot.
        drop(permit);
        match route.is_stale() {
            true => Ok(self.resolve(cx).into()),
            false => Ok(Next::Stay(self.pause(Due::Join, cx))),
        }
    }

    /// The request may take a slot now. If there is none, it waits for the rest of its time.
    fn granted_token(mut self, token: HeldToken, cx: &mut StepContext<'_>) -> Step<Self> {
        let Some(route) = cx.common.route().cloned() else { return Ok(Next::Stay(self)) };
        self.end_wait(cx);
        cx.common.token = token.into_token(&route.cluster);
        Ok(choosing::choose(self.context, route, cx)?.into())
    }

    /// Now the request may go to the member whose slot it has.
    fn granted_node(mut self, token: HeldToken, cx: &mut StepContext<'_>) -> Next<Self> {
        self.end_wait(cx);
        if let (Some(tenants), Some(permit)) = (&cx.core.tenants, &mut cx.common.permit) {
            tenants.take_over(permit, token);
        }
        Transition::Dial(self.context).into()
    }

    fn resolve(mut self, cx: &mut StepContext<'_>) -> Transition {
        self.note_wait(cx);
        Transition::ResolveAgain(self.context)
    }

    /// Ends the wait.
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

    /// The moment at which room may appear without an event: a mark of the host ends, or a capacity rises.
    fn next_look(&self, cx: &StepContext<'_>) -> Moment {
        if self.is_for_node {
            return Moment::NEVER;
        }
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
        if let (true, Some(tenants)) = (self.is_for_node, &core.tenants) {
            // Slots are in order already; only a retry comes before others that have one.
            let arrived = self.context.arrived.filter(|_| !self.context.tried.is_empty()).unwrap_or(core.now);
            return tenants.join(&route.cluster, (sink, exchange), arrived, core.now);
        }
        // A held request asks for its token when it is released.
        if common.needs_token(route) && !route.cluster.options.holds() {
            let bucket = common.bucket.unwrap_or(BucketId::UNCLASSIFIED);
            let Demand { tried, named, wanted, .. } = self.context.demand(route);
            let demand = OwnedDemand { route: Arc::clone(route), tried: tried.into(), named, wanted };
            let (arrived, demand) = (self.context.arrived.unwrap_or(core.now), Some(Arc::new(demand)));
            let request = TokenRequest { sink, exchange, bucket, arrived, demand };
            return route.cluster.join_bucket(request, core.now);
        }
        let waiter = choosing::waiter(&self.context, route, common, (sink, exchange), core);
        route.cluster.join(waiter, self.context.ticket, core.now)
    }

    pub(super) fn waits_with(&self, ticket: Ticket) -> bool {
        self.waiting.as_ref().is_some_and(|waiting| waiting.ticket == ticket)
    }
}

impl Waiting {
    /// Ends the wait after it has left the queue.
    fn end(mut self) {
        self.is_granted = true;
    }
}
