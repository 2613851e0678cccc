//! A member of a cluster: its entry in the list, and the live state that all cores share.

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

/// The whole of a share; slow start counts in parts of it.
const WHOLE: u64 = 1024;

/// A member as one list has it. Immutable; an edit of the list makes a new one around the same [`MemberState`].
#[derive(Clone, Debug)]
pub struct Member {
    /// The list entry.
    pub url: BackendUrl,
    /// The backend, which other clusters may share.
    pub backend: Arc<Backend>,
    /// Its attributes. They differ from those of the entry where that has a wrong value and an older one goes on.
    pub attributes: Attributes,
    /// Its live state.
    pub state: Arc<MemberState>,
    identity: u64,
    session: u64,
}

/// The live state of an endpoint in a cluster, shared by all cores and by every list that the endpoint stays in.
#[derive(Debug, Default)]
pub struct MemberState {
    /// Requests in flight. The limit is that of the newest attributes, so that an exchange that still holds an older list
    /// is bound by it too.
    slots: Slots,
    /// Microseconds of the moment at which it was added or came back; 0 where it was there from the beginning.
    up_since: AtomicU64,
    is_down: AtomicBool,
    is_disabled: AtomicBool,
    is_removed: AtomicBool,
    is_ejected: AtomicBool,
    health: OnceLock<Box<MemberHealth>>,
}

impl MemberState {
    /// The state of a member that has been there from the beginning: there is no slow start.
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

    /// The greatest number of requests that were in flight at once. Where each thread counts for itself, it is the sum of
    /// what each has had, which may be more.
    pub fn peak(&self) -> u32 {
        self.slots.peak()
    }

    /// Sets the capacity for every list that the member is in.
    pub(super) fn set_limit(&self, limit: Limit) {
        self.slots.set_limit(limit);
    }

    /// The greatest number of requests in flight; `None` for any.
    pub fn capacity(&self) -> Option<NonZeroU32> {
        self.slots.limit()
    }

    /// Whether requests of before there was a capacity are still in flight.
    pub(super) fn has_apart(&self) -> bool {
        self.slots.has_apart()
    }

    /// Whether probes find it down.
    pub fn is_down(&self) -> bool {
        self.is_down.load(Ordering::SeqCst)
    }

    /// Notes the verdict of probes. They give it by [`Cluster::set_up`](super::Cluster::set_up) and
    /// [`Cluster::set_down`](super::Cluster::set_down), which do what else belongs to it.
    pub fn set_down(&self, is_down: bool, now: Moment) {
        if !is_down && self.is_down() {
            self.begin_slow_start(now);
        }
        self.is_down.store(is_down, Ordering::SeqCst);
    }

    /// Whether an operator has taken it out of service at run time, beside the attribute `disabled`.
    pub fn is_disabled(&self) -> bool {
        self.is_disabled.load(Ordering::SeqCst)
    }

    /// Takes it out of service, or puts it back; then [`Cluster::serve`](super::Cluster::serve) is to follow.
    pub fn set_disabled(&self, is_disabled: bool, now: Moment) {
        if !is_disabled && self.is_disabled() {
            self.begin_slow_start(now);
        }
        self.is_disabled.store(is_disabled, Ordering::SeqCst);
        if let Some(health) = self.health.get() {
            health.set_kept_disabled(false);
        }
    }

    /// Whether its responses have taken it out of service for a while.
    pub fn is_ejected(&self) -> bool {
        self.is_ejected.load(Ordering::SeqCst)
    }

    /// Takes it out of service for its responses, or puts it back. Slow start follows an ejection that is over.
    pub(super) fn set_ejected(&self, is_ejected: bool, is_over: bool, now: Moment) {
        if !is_ejected && is_over && self.is_ejected() {
            self.begin_slow_start(now);
        }
        self.is_ejected.store(is_ejected, Ordering::SeqCst);
    }

    /// What is known of its health; made where there is nothing yet.
    pub(super) fn health(&self) -> &MemberHealth {
        self.health.get_or_init(Box::default)
    }

    /// What is known of its health. `None` while it was never in trouble.
    pub fn known_health(&self) -> Option<&MemberHealth> {
        self.health.get().map(|health| &**health)
    }

    /// Notes that the member has left its list: it gets no new request from an older list either.
    pub(super) fn mark_removed(&self) {
        self.is_removed.store(true, Ordering::SeqCst);
    }

    /// Notes that the member is in its list again. Where it was away for a moment only, it goes on as before.
    pub(super) fn mark_back(&self, was_brief: bool, now: Moment) {
        if !was_brief {
            self.begin_slow_start(now);
        }
        self.is_removed.store(false, Ordering::SeqCst);
    }

    /// Notes that the member serves from now on: before any request can see that it does.
    pub(super) fn begin_slow_start(&self, now: Moment) {
        self.up_since.store(now.as_micros(), Ordering::SeqCst);
    }

    /// Whether the member has left its list. The routes to that list were marked as replaced before.
    pub fn is_removed(&self) -> bool {
        self.is_removed.load(Ordering::SeqCst)
    }

    /// Since when it has been up; [`Moment::ZERO`] where that is the beginning.
    pub fn up_since(&self) -> Moment {
        Moment::from_micros(self.up_since.load(Ordering::SeqCst))
    }

    /// Requests and failures of the last minute.
    pub fn history(&self) -> &History {
        self.slots.history()
    }

    pub(super) fn give_back(&self, counted: Counted) {
        self.slots.give_back(counted);
    }
}

/// All parts of an endpoint. What most endpoints do not have adds nothing, so that their identities stay as they were.
fn identity_text(endpoint: &Endpoint) -> String {
    let mut text = format!("{endpoint}#{:?}", endpoint.proxy_header());
    if endpoint.server_name() != endpoint.host() {
        text.push('#');
        text.push_str(endpoint.server_name());
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

    /// How much of its share and capacity it has at `now`, in 1/1024. Slow start raises it from 1/16 to the whole.
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

    /// The end of its slow start; [`Moment::ZERO`] where there was none.
    pub(super) fn ramps_until(&self, default_slow_start: Duration) -> Moment {
        let since = self.state.up_since();
        let slow_start = self.attributes.slow_start.unwrap_or(default_slow_start);
        if since == Moment::ZERO || !self.is_up() { Moment::ZERO } else { since + slow_start }
    }

    /// The requests that it may have in flight at `now`; `u32::MAX` for any.
    pub fn usable_capacity(&self, default_slow_start: Duration, now: Moment) -> u32 {
        let Some(capacity) = self.state.capacity() else { return u32::MAX };
        let ramp = u64::from(self.ramp(default_slow_start, now));
        u32::try_from((u64::from(capacity.get()) * ramp).div_ceil(WHOLE)).unwrap_or(u32::MAX)
    }

    /// Whether it has a free slot.
    pub fn has_room(&self, default_slow_start: Duration, now: Moment) -> bool {
        self.state.capacity().is_none() || self.state.in_flight() < self.usable_capacity(default_slow_start, now)
    }

    /// Takes a slot, if one is free. Exact over all cores.
    pub(super) fn take(&self, default_slow_start: Duration, now: Moment) -> Option<Counted> {
        self.state.slots.take(self.usable_capacity(default_slow_start, now))
    }

    /// A number that the endpoint alone decides, the same on every node: the ring of `hash` knows the member by it.
    pub fn identity(&self) -> u64 {
        self.identity
    }

    /// The value of session cookies that stands for it, the same on every node with the same `server.cookieSecret`.
    pub fn session(&self) -> u64 {
        self.session
    }

    /// When it serves.
    pub fn role(&self) -> Role {
        self.attributes.role
    }
}
