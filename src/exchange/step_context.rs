//! The context of a step: the worker's part, and the exchange's own.

use super::events::{Effect, Side};
use super::origin::Origin;
use super::output_queue::PendingWrite;
use super::pacing::Pacing;
use super::request::Intake;
use super::request_context::RequestContext;
use super::request_stats::RequestStats;
use super::settings::{KeepAlive, Settings};
use super::worker_context::WorkerContext;
use crate::base::clock::Moment;
use crate::base::reason::FailureReason;
use crate::cluster::{BackendId, ClientSlot, Mark, Options, Permit, RetryCause, RetryCauses, Route, Timeouts};
use crate::haproxy::serve::Evaluation;
use crate::health::{self, CLOSED_IN_A_ROW, Observation, Outcome};
use crate::shaper::{BucketId, Token};
use crate::wire::chunked::ChunkFault;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// `Retry-After` of 503 responses without a known route.
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(1);

/// State common to all states of an exchange.
#[derive(Debug)]
pub(super) struct CommonState {
    pub(super) stats: RequestStats,
    /// The route of the request's host, unless the permit holds it: see [`CommonState::route`].
    pub(super) held_route: Option<Arc<Route>>,
    /// The permit of the current or last member.
    pub(super) permit: Option<Permit>,
    /// The request's token, from its grant until a permit takes it over. It belongs to the route's cluster.
    pub(super) token: Option<Token>,
    /// The request's bucket, if its cluster has buckets.
    pub(super) bucket: Option<BucketId>,
    /// The rates that have let the request pass.
    pub(super) rates_passed: RatesPassed,
    /// What it waits for, or has waited for last.
    pub(super) waits_for: WaitsFor,
    /// Its slot of the client's limit (`maxRequestsPerClient`).
    pub(super) client_slot: Option<Box<ClientSlot>>,
    /// The pacing of its bytes, if the frontend has a bandwidth limit.
    pub(super) pacing: Option<Box<Pacing>>,
    pub(super) deadline: Moment,
    /// The client's connection is encrypted.
    pub(super) is_encrypted: bool,
    /// It is the last exchange on its client's connection.
    pub(super) is_last: bool,
    /// The client has ended its side, or the connection, during the wait for a backend, and that is ignored.
    pub(super) client_left: bool,
    /// The rules of its HAProxy frontend, which decide in place of the host.
    pub(super) rules: Option<Box<Evaluation>>,
    pub(super) client: ClientKind,
    /// An upstream connection is established or was requested.
    pub(super) holds_upstream: bool,
    /// Seconds for which the backend keeps its idle connection, if stated.
    pub(super) upstream_idle_seconds: Option<NonZeroU16>,
    /// The backend was silent in a response without a length (`server.streamTimeout`).
    pub(super) is_silent_stream: bool,
    pub(super) to_client: PendingWrite,
    pub(super) to_upstream: PendingWrite,
    /// Where it came from, if another process has begun it.
    pub(super) origin: Option<Box<Origin>>,
}

/// The client of an exchange.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ClientKind {
    /// One of a listener.
    #[default]
    Listener,
    /// One of this node's service: its requests have no route.
    Service,
    /// None: the exchange refreshes a stored response.
    None,
}

/// Rates that a request passes once, in one byte: there may be many tunnels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RatesPassed(u8);

impl RatesPassed {
    /// Its client's rate (`requestsPerSecondPerClient`).
    pub(super) const CLIENT: Self = Self(1);
    /// Its turn (`requestsPerSecond`).
    pub(super) const TURN: Self = Self(2);

    pub(super) fn has(self, rate: Self) -> bool {
        self.0 & rate.0 != 0
    }

    /// Notes that the request passes a rate. Returns whether it has before.
    pub(super) fn pass(&mut self, rate: Self) -> bool {
        let before = self.has(rate);
        self.0 |= rate.0;
        before
    }
}

/// What a request waits for in a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum WaitsFor {
    /// A slot or a token of its cluster.
    #[default]
    Slot,
    /// A connection to the chosen member (`server.maxQueue`).
    Connection,
    /// A token of the node (`server.tenants`).
    Node,
    /// Its turn (`requestsPerSecond`).
    Turn,
}

/// The data that a step may access besides its state.
pub(super) struct StepContext<'a> {
    pub(super) core: &'a mut WorkerContext,
    pub(super) common: &'a mut CommonState,
    /// Number of consumed input bytes.
    pub(super) consumed: usize,
}

impl StepContext<'_> {
    pub(super) fn effect(&mut self, effect: Effect) {
        self.core.output.effects.push(effect);
    }

    /// The parameters for accepting a request.
    pub(super) fn intake(&mut self) -> Intake<'_> {
        let started = self.common.stats.started;
        let WorkerContext { settings, buffers, rng, wall_origin, .. } = &mut *self.core;
        let is_ruled = self.common.rules.is_some();
        let may_lack_host = is_ruled || self.common.is_for_service();
        let request_start = settings.request_start.then(|| millis_since_1970(*wall_origin, started)).flatten();
        Intake { settings, buffers, rng, is_ruled, may_lack_host, request_start }
    }

    /// Counts the bytes of the request's body in the input, and returns a violation of its limits.
    pub(super) fn judge_upload(
        &mut self,
        context: &mut RequestContext,
        fed: Result<usize, ChunkFault>,
    ) -> Result<(), FailureReason> {
        self.consumed = fed?;
        context.upload_rate.count(self.consumed);
        if !context.upload_rate.keeps_up(self.core.now, &self.core.settings) {
            return Err(FailureReason::BodyTooSlow);
        }
        if self.max_body_bytes().is_some_and(|limit| context.upload.received() > limit) {
            return Err(FailureReason::BodyTooLarge);
        }
        if context.upload.is_done() {
            self.effect(Effect::Uploaded);
        }
        Ok(())
    }

    /// Requests a connection to the target.
    pub(super) fn connect(&mut self, fresh: bool) {
        debug_assert!(!self.common.holds_upstream, "a second connection");
        self.common.holds_upstream = true;
        self.common.stats.begin_try(self.core.now);
        self.effect(Effect::Connect { fresh });
    }

    /// Returns the slot of the member, the token, and the upstream connection. Unsent bytes for it are dropped: the
    /// next backend gets the request from its start.
    pub(super) fn release(&mut self, reuse: bool) {
        self.release_connection(reuse);
        if let Some(permit) = &mut self.common.permit {
            permit.give_back(false, self.core.now);
        }
        self.common.give_back_token();
    }

    /// Returns the upstream connection and the slot of a member that has failed the request, and keeps the tokens for the
    /// next try. `None` without a member.
    pub(super) fn leave_member(&mut self) -> Option<BackendId> {
        self.release_connection(false);
        let permit = self.common.permit.as_mut()?;
        self.common.token = permit.leave_member(self.core.now);
        Some(permit.member().backend.id())
    }

    /// Returns the token of this node: no request waits for anything else while it has one.
    pub(super) fn leave_node(&mut self) {
        if let Some(permit) = &mut self.common.permit {
            permit.leave_node_to_wait(self.core.now);
        }
    }

    /// Returns the upstream connection and keeps the slot.
    pub(super) fn release_connection(&mut self, reuse: bool) {
        if std::mem::take(&mut self.common.holds_upstream) {
            self.core.output.upstream.clear();
            self.common.to_upstream.discard(&mut self.core.buffers);
            self.effect(Effect::Release { reuse });
        }
    }

    pub(super) fn deadline_in(&mut self, duration: Duration) {
        self.common.deadline = self.core.now + duration;
    }

    /// Judges the request's member by an observation. A client that has left causes no mark.
    pub(super) fn observe(&mut self, observation: Observation) {
        let Some(member) = self.common.permit.as_ref().map(Permit::place) else { return };
        let may_mark = !self.common.client_left;
        let is_marked = may_mark && self.common.is_marked_by(observation, self.core.now, &self.core.settings.health);
        if may_mark && self.common.permit.as_ref().is_some_and(|permit| permit.cluster().judges_requests()) {
            self.judge(observation, is_marked);
        }
        if is_marked {
            self.effect(Effect::MarkedDead { member, why: observation });
        } else if matches!(observation, Observation::Responded { status: ..500, .. })
            && self.common.mark().is_some_and(|mark| mark.note_good())
        {
            self.common.permit.iter().for_each(|permit| permit.note_back(self.core.now));
            self.effect(Effect::Revived { member });
        }
    }

    /// Reports to a cluster with tokens that the head of the response has arrived.
    #[inline(never)]
    pub(super) fn note_response(&self) {
        if let Some(permit) = &self.common.permit {
            permit.cluster().note_response(self.core.now);
        }
    }

    /// Judges the member by a new connection that ended before the first byte of a response.
    #[cold]
    pub(super) fn observe_close(&mut self) {
        let mark = self.common.mark().filter(|_| !self.common.client_left);
        let count = mark.map_or(0, |mark| mark.count_closed());
        if count >= CLOSED_IN_A_ROW {
            self.observe(Observation::ClosedUnanswered);
        } else if self.common.permit.as_ref().is_some_and(|permit| permit.cluster().judges_requests()) {
            self.judge(Observation::ClosedUnanswered, false);
        }
    }

    /// Reports the outcome to the cluster, if it has a monitor or outlier detection.
    #[inline(never)]
    fn judge(&mut self, observation: Observation, is_marked: bool) {
        let Some(permit) = self.common.permit.as_ref().filter(|_| !self.common.client_left) else { return };
        let (cluster, member) = (permit.cluster(), permit.place());
        let Some(outcome) = Outcome::of(observation) else { return };
        if is_marked || outcome == Outcome::Failed {
            let mark = self.common.mark().filter(|_| is_marked);
            let host = self.common.route().map_or("", |route| &route.host);
            cluster.suspect(member, mark.map(|mark| (host, mark)));
        }
        if cluster.judge_outcome(member, outcome, self.core.now) {
            self.effect(Effect::Ejected { member });
        }
    }

    /// Limit of opening a connection.
    pub(super) fn connect_timeout(&self) -> Duration {
        let own = self.common.options().and_then(|options| options.timeouts.connect);
        own.unwrap_or(self.core.settings.connect_timeout)
    }

    /// Limit of a pause of either side in the middle of a body.
    pub(super) fn body_timeout(&self) -> Duration {
        self.common.body_timeout(&self.core.settings)
    }

    /// The greatest size of a request's body in bytes; `None` for any.
    pub(super) fn max_body_bytes(&self) -> Option<u64> {
        match self.common.options() {
            Some(options) => self.max_body_bytes_of(options),
            None => self.core.settings.max_body_bytes,
        }
    }

    /// The same for a frontend with these options.
    pub(super) fn max_body_bytes_of(&self, options: &Options) -> Option<u64> {
        match options.max_body_bytes {
            Some(limit) => (limit > 0).then_some(limit),
            None => self.core.settings.max_body_bytes,
        }
    }

    /// The greatest number of retries on other members.
    pub(super) fn retry_limit(&self) -> usize {
        let own = self.common.options().and_then(|options| options.retries);
        own.unwrap_or(self.core.settings.retry_limit) as usize
    }

    /// Whether a failure of this kind leads to a retry.
    pub(super) fn retries_on(&self, cause: RetryCause) -> bool {
        self.common.options().map_or_else(RetryCauses::default, |options| options.retry_on).contains(cause)
    }

    /// Whether this node allows the client's connection to be kept.
    pub(super) fn may_keep_alive(&self) -> bool {
        !self.common.is_last
            && match self.core.settings.keep_alive {
                KeepAlive::Always => true,
                KeepAlive::Plain => !self.common.is_encrypted,
                KeepAlive::Never => false,
            }
    }

    /// Whether all bytes for the side were sent, with none added in this turn.
    pub(super) fn is_drained(&self, side: Side) -> bool {
        match side {
            Side::Client => self.common.to_client.is_empty() && self.core.output.client.is_empty(),
            Side::Upstream => self.common.to_upstream.is_empty() && self.core.output.upstream.is_empty(),
        }
    }
}

impl CommonState {
    pub(super) fn new(stats: RequestStats, is_encrypted: bool) -> Self {
        Self {
            stats,
            held_route: None,
            permit: None,
            token: None,
            bucket: None,
            rates_passed: RatesPassed::default(),
            waits_for: WaitsFor::default(),
            client_slot: None,
            pacing: None,
            deadline: Moment::NEVER,
            is_encrypted,
            is_last: false,
            client_left: false,
            client: ClientKind::default(),
            rules: None,
            holds_upstream: false,
            upstream_idle_seconds: None,
            is_silent_stream: false,
            to_client: PendingWrite::default(),
            to_upstream: PendingWrite::default(),
            origin: None,
        }
    }

    /// The timeouts of the frontend, once they are known.
    fn own_timeouts(&self) -> Option<&Timeouts> {
        let of_origin = || self.origin.as_ref().map(|origin| &origin.timeouts);
        self.options().map(|options| &options.timeouts).or_else(of_origin)
    }

    /// Paces the bytes of the request from now on, if its frontend has a bandwidth limit. `head` bytes have arrived
    /// already.
    #[cold]
    #[inline(never)]
    pub(super) fn start_pacing(&mut self, head: usize, now: Moment) {
        if let Some(route) = self.route().filter(|_| self.pacing.is_none()) {
            self.pacing = Some(Box::new(Pacing::new(Arc::clone(&route.cluster.admission), head, now)));
        }
    }

    /// Counts bytes received from a side, or sent in their place.
    #[cold]
    #[inline(never)]
    pub(super) fn count_paced(&mut self, side: Side, bytes: usize, now: Moment) {
        if let Some(pacing) = &mut self.pacing {
            pacing.count(side, bytes, now);
        }
    }

    pub(super) fn is_paused(&self, side: Side) -> bool {
        self.pacing.as_ref().is_some_and(|pacing| pacing.paused_until(side).is_some())
    }

    /// Whether its client is one of this node's service.
    pub(super) fn is_for_service(&self) -> bool {
        self.client == ClientKind::Service
    }

    /// Whether it has no client, and refreshes a stored response.
    pub(super) fn is_background(&self) -> bool {
        self.client == ClientKind::None
    }

    /// The route of the request's host, once known. A request holds a single reference to its route: a second one would
    /// be another write to a counter shared by all cores.
    pub(super) fn route(&self) -> Option<&Arc<Route>> {
        self.held_route.as_ref().or_else(|| self.permit.as_ref()?.route())
    }

    /// The options of the frontend, once the route is known.
    pub(super) fn options(&self) -> Option<&Options> {
        self.route().map(|route| &*route.cluster.options)
    }

    /// Whether the request needs a token before it may have a slot.
    pub(super) fn needs_token(&self, route: &Route) -> bool {
        route.cluster.has_buckets() && self.token.is_none()
    }

    /// Returns the token of a request without a permit.
    pub(super) fn give_back_token(&mut self) {
        if let (Some(token), Some(route)) = (self.token.take(), self.route()) {
            route.cluster.give_back_token(token);
        }
    }

    /// The name of the request's bucket.
    pub(super) fn bucket_name(&self) -> Option<&str> {
        self.route()?.cluster.bucket_name(self.bucket?)
    }

    /// Limit of a pause of either side in the middle of a body.
    pub(super) fn body_timeout(&self, settings: &Settings) -> Duration {
        self.own_timeouts().and_then(|timeouts| timeouts.body).unwrap_or(settings.body_timeout)
    }

    /// Limit until a member begins its response.
    pub(super) fn response_timeout(&self, settings: &Settings) -> Duration {
        self.options().and_then(|options| options.timeouts.response).unwrap_or(settings.response_timeout)
    }

    /// Limit of the silence of a response without a length; `None` for no limit.
    pub(super) fn stream_timeout(&self, settings: &Settings) -> Option<Duration> {
        self.own_timeouts().and_then(|timeouts| timeouts.stream).map_or(settings.stream_timeout, zero_is_none)
    }

    /// Idle limit of a tunnel; `None` for no limit.
    pub(super) fn tunnel_timeout(&self, settings: &Settings) -> Option<Duration> {
        self.own_timeouts().and_then(|timeouts| timeouts.tunnel).map_or(settings.tunnel_timeout, zero_is_none)
    }

    /// The value of `Retry-After` in a 503 of this node.
    pub(super) fn retry_after(&self) -> Duration {
        self.options().map_or(DEFAULT_RETRY_AFTER, |options| options.queue.retry_after)
    }

    /// The dead mark of the request's member. `None` for a member that joined the cluster after the route was made.
    pub(super) fn mark(&self) -> Option<&Arc<Mark>> {
        let (route, permit) = (self.route()?, self.permit.as_ref()?);
        match Arc::ptr_eq(&route.cluster, permit.cluster()) {
            true => route.marks.get(permit.place()),
            false => route.mark_of(permit.member().backend.id()),
        }
    }

    /// Marks the member dead if the observation calls for it. Returns whether the mark has to be published. The only
    /// member of a list is never marked, since there is no alternative. A mark is renewed, and published again, after
    /// half of its time: if all members are marked, each request meets one.
    fn is_marked_by(&self, seen: Observation, now: Moment, settings: &health::Settings) -> bool {
        let (Some(permit), Some(mark)) = (&self.permit, self.mark()) else { return false };
        if permit.cluster().members.len() < 2 || !health::is_dead(seen, settings, now) {
            return false;
        }
        let ttl = settings.mark_ttl(now);
        let is_fresh = |until: Moment| until.since(now) > ttl / 2;
        if mark.dead_until(now).is_some_and(is_fresh) {
            return false;
        }
        mark.mark_dead(now + ttl);
        mark.note_marked();
        true
    }

    pub(super) fn pending_write(&self, side: Side) -> &PendingWrite {
        match side {
            Side::Client => &self.to_client,
            Side::Upstream => &self.to_upstream,
        }
    }

    pub(super) fn pending_write_mut(&mut self, side: Side) -> &mut PendingWrite {
        match side {
            Side::Client => &mut self.to_client,
            Side::Upstream => &mut self.to_upstream,
        }
    }
}

impl Drop for CommonState {
    fn drop(&mut self) {
        self.give_back_token();
    }
}

fn zero_is_none(time: Duration) -> Option<Duration> {
    (!time.is_zero()).then_some(time)
}

/// The wall-clock time of a moment, in milliseconds since 1970.
fn millis_since_1970(origin: SystemTime, moment: Moment) -> Option<u64> {
    let time = origin + moment.since(Moment::ZERO);
    u64::try_from(time.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_millis()).ok()
}
