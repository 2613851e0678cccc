//! A member of a cluster: its entry in the list, and the live state shared by all cores.

use super::attributes::{Attributes, Role};
use super::backend::Backend;
use super::backend_url::BackendUrl;
use super::endpoint::Endpoint;
use super::history::History;
use super::judgement::MemberHealth;
use super::session;
use super::slots::{Counted, Limit, Slots};
use crate::base::clock::Moment;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_64;

/// A full share; slow start counts in parts of it.
const WHOLE: u64 = 1024;

/// A member in one list. Immutable; an edit of the list makes a new one with the same [`MemberState`].
#[derive(Clone, Debug)]
pub struct Member {
    /// The list entry.
    pub url: BackendUrl,
    /// The backend, which other clusters may share.
    pub backend: Arc<Backend>,
    /// Its attributes. An attribute with an invalid value in the entry keeps its earlier value.
    pub attributes: Attributes,
    /// Its live state.
    pub state: Arc<MemberState>,
    identity: u64,
    session: u64,
}

/// What an operator has set a member to at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminState {
    /// It serves.
    Ready,
    /// It serves requests that select it, such as those of its sessions, and no others. Source: HAProxy's state `drain`.
    Drain,
    /// It serves none.
    Disabled,
}

/// The live state of an endpoint in a cluster, shared by all cores and by every list that the endpoint stays in.
#[derive(Debug, Default)]
pub struct MemberState {
    /// Requests in flight. The limit comes from the newest attributes, and also binds exchanges with an older list.
    slots: Slots,
    /// The time at which it was added or came back, in microseconds; 0 if it is an initial member.
    up_since: AtomicU64,
    is_down: AtomicBool,
    is_disabled: AtomicBool,
    is_draining: AtomicBool,
    is_removed: AtomicBool,
    is_ejected: AtomicBool,
    health: OnceLock<Box<MemberHealth>>,
}

impl MemberState {
    /// The state of an initial member: it has no slow start.
    pub fn new() -> Self {
        Self::default()
    }

    /// The state of a member that is added to a running cluster at `now`.
    pub fn added(now: Moment) -> Self {
        Self { up_since: AtomicU64::new(now.as_micros()), ..Self::default() }
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> u32 {
        self.slots.held()
    }

    /// The greatest number of requests in flight at once. If threads count separately, it is the sum of their peaks,
    /// which may be higher.
    pub fn peak(&self) -> u32 {
        self.slots.peak()
    }

    /// Sets the capacity for every list that the member is in.
    pub(super) fn set_limit(&self, limit: Limit) {
        self.slots.set_limit(limit);
    }

    /// The greatest number of requests in flight; `None` for no limit.
    pub fn capacity(&self) -> Option<NonZeroU32> {
        self.slots.limit()
    }

    /// Whether requests taken before a capacity existed are still in flight.
    pub(super) fn has_apart(&self) -> bool {
        self.slots.has_apart()
    }

    /// Whether probes find it down.
    pub fn is_down(&self) -> bool {
        self.is_down.load(Ordering::SeqCst)
    }

    /// Sets the verdict of probes. They set it through [`Cluster::set_up`](super::Cluster::set_up) and
    /// [`Cluster::set_down`](super::Cluster::set_down), which also handle its effects.
    pub fn set_down(&self, is_down: bool, now: Moment) {
        if !is_down && self.is_down() {
            self.begin_slow_start(now);
        }
        self.is_down.store(is_down, Ordering::SeqCst);
    }

    /// Whether an operator has disabled it at run time, independently of the attribute `disabled`.
    pub fn is_disabled(&self) -> bool {
        self.is_disabled.load(Ordering::SeqCst)
    }

    /// Disables it, or enables it again; a call of [`Cluster::serve`](super::Cluster::serve) has to follow.
    pub fn set_disabled(&self, is_disabled: bool, now: Moment) {
        if !is_disabled && self.is_disabled() {
            self.begin_slow_start(now);
        }
        self.is_disabled.store(is_disabled, Ordering::SeqCst);
        if let Some(health) = self.health.get() {
            health.set_kept_disabled(false);
        }
    }

    /// Whether an operator has set it to serve only requests that select it, such as those of its sessions.
    pub fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::SeqCst)
    }

    /// Sets what an operator wants of it; a call of [`Cluster::serve`](super::Cluster::serve) has to follow.
    pub fn set_admin_state(&self, admin: AdminState, now: Moment) {
        self.is_draining.store(admin == AdminState::Drain, Ordering::SeqCst);
        self.set_disabled(admin == AdminState::Disabled, now);
    }

    /// Whether its responses have ejected it for a while.
    pub fn is_ejected(&self) -> bool {
        self.is_ejected.load(Ordering::SeqCst)
    }

    /// Ejects it because of its responses, or ends the ejection. Slow start follows an ejection that is over.
    pub(super) fn set_ejected(&self, is_ejected: bool, is_over: bool, now: Moment) {
        if !is_ejected && is_over && self.is_ejected() {
            self.begin_slow_start(now);
        }
        self.is_ejected.store(is_ejected, Ordering::SeqCst);
    }

    /// Details of its health, created if there are none.
    pub(super) fn health(&self) -> &MemberHealth {
        self.health.get_or_init(Box::default)
    }

    /// Details of its health. `None` if it was never in trouble.
    pub fn known_health(&self) -> Option<&MemberHealth> {
        self.health.get().map(|health| &**health)
    }

    /// Records that the member was removed from its list: it gets no new request from an older list either.
    pub(super) fn mark_removed(&self) {
        self.is_removed.store(true, Ordering::SeqCst);
    }

    /// Records that the member is in its list again. After a brief absence it continues as before.
    pub(super) fn mark_back(&self, was_brief: bool, now: Moment) {
        if !was_brief {
            self.begin_slow_start(now);
        }
        self.is_removed.store(false, Ordering::SeqCst);
    }

    /// Starts slow start, before any request can see that the member serves.
    pub(super) fn begin_slow_start(&self, now: Moment) {
        self.up_since.store(now.as_micros(), Ordering::SeqCst);
    }

    /// Whether the member was removed from its list. The routes to that list were marked as replaced before.
    pub fn is_removed(&self) -> bool {
        self.is_removed.load(Ordering::SeqCst)
    }

    /// The time since which it has been up; [`Moment::ZERO`] for an initial member.
    pub fn up_since(&self) -> Moment {
        Moment::from_micros(self.up_since.load(Ordering::SeqCst))
    }

    /// Requests and failures of the last minute.
    pub fn history(&self) -> &History {
        self.slots.history()
    }

    /// Takes a slot beyond any capacity, for a request that is already in flight.
    pub(super) fn take_beyond(&self) -> Counted {
        self.slots.take_beyond()
    }

    pub(super) fn give_back(&self, counted: Counted) {
        self.slots.give_back(counted);
    }
}

/// All parts of an endpoint. A part that most endpoints lack adds nothing, so that identities stay stable.
fn identity_text(endpoint: &Endpoint) -> String {
    let mut text = format!("{endpoint}#{:?}", endpoint.proxy_header());
    if endpoint.server_name() != endpoint.host() {
        text.push('#');
        text.push_str(endpoint.server_name());
    }
    if let Some(path) = endpoint.authorities() {
        text.push_str("#ca=");
        text.push_str(path);
    }
    text
}

impl Member {
    /// A member of the list entry `url`.
    pub fn new(url: BackendUrl, backend: Arc<Backend>, attributes: Attributes, state: Arc<MemberState>) -> Self {
        let text = identity_text(backend.endpoint());
        let (identity, session) = (xxh3_64(text.as_bytes()), session::value_of(&text));
        Self { url, backend, attributes, state, identity, session }
    }

    /// Whether it may serve at all: it is in the list, up, and neither disabled nor ejected.
    pub fn is_up(&self) -> bool {
        let state = &self.state;
        let is_out = state.is_removed() || state.is_down() || state.is_disabled() || state.is_ejected();
        !(self.attributes.is_disabled || is_out)
    }

    /// Whether it serves only requests that select it, such as those of its sessions: its weight is 0, or it is draining.
    pub fn is_only_selected(&self) -> bool {
        self.attributes.weight == 0 || self.state.is_draining()
    }

    /// The part of its share and capacity at `now`, in 1/1024. Slow start raises it from 1/16 to the whole.
    pub fn ramp(&self, default_slow_start: Duration, now: Moment) -> u32 {
        const FULL: u32 = 1024;
        let slow_start = self.attributes.slow_start.unwrap_or(default_slow_start);
        let since = self.state.up_since();
        let elapsed = now.since(since);
        if since == Moment::ZERO || elapsed >= slow_start {
            return FULL;
        }
        let share = elapsed.as_micros() * u128::from(WHOLE) / slow_start.as_micros().max(1);
        u32::try_from(share).unwrap_or(FULL).clamp(FULL / 16, FULL)
    }

    /// Begins its slow start, if it has one and none is under way. Returns whether it has begun.
    pub(super) fn begin_anew(&self, default_slow_start: Duration, now: Moment) -> bool {
        let has_one = !self.attributes.slow_start.unwrap_or(default_slow_start).is_zero();
        let begins = has_one && u64::from(self.ramp(default_slow_start, now)) == WHOLE;
        if begins {
            self.state.begin_slow_start(now);
        }
        begins
    }

    /// The end of its slow start; [`Moment::ZERO`] if there was none.
    pub(super) fn ramps_until(&self, default_slow_start: Duration) -> Moment {
        let since = self.state.up_since();
        let slow_start = self.attributes.slow_start.unwrap_or(default_slow_start);
        if since == Moment::ZERO || !self.is_up() { Moment::ZERO } else { since + slow_start }
    }

    /// The number of requests that it may have in flight at `now`; `u32::MAX` for no limit.
    pub fn usable_capacity(&self, default_slow_start: Duration, now: Moment) -> u32 {
        let Some(capacity) = self.state.capacity() else { return u32::MAX };
        let ramp = u64::from(self.ramp(default_slow_start, now));
        u32::try_from((u64::from(capacity.get()) * ramp).div_ceil(WHOLE)).unwrap_or(u32::MAX)
    }

    /// Whether it has a free slot.
    pub fn has_room(&self, default_slow_start: Duration, now: Moment) -> bool {
        self.state.capacity().is_none() || self.state.in_flight() < self.usable_capacity(default_slow_start, now)
    }

    /// Takes a slot, if one is free. The limit is exact over all cores.
    pub(super) fn take(&self, default_slow_start: Duration, now: Moment) -> Option<Counted> {
        self.state.slots.take(self.usable_capacity(default_slow_start, now))
    }

    /// A number that depends on the endpoint alone, equal on every node: its identity in the ring of `hash`.
    pub fn identity(&self) -> u64 {
        self.identity
    }

    /// The value of its session cookies, equal on every node with the same `server.cookieSecret`.
    pub fn session(&self) -> u64 {
        self.session
    }

    /// Its role.
    pub fn role(&self) -> Role {
        self.attributes.role
    }
}
