//! Admission: the decision which request gets a slot of a member now, and which one waits.
//!
//! A slot is a request in flight at a member. Taking one is an atomic increment bounded by the member's capacity, or a
//! plain increment of the thread's own counter if nothing is bounded; no lock is taken while no request waits. Requests
//! that find no room wait in one queue for all cores, oldest first; a returned slot goes to the oldest request that can
//! use it. Two rules make that exact:
//!
//! * A request reads the length of the queue before it takes a slot, and waits behind the queued requests.
//! * A request that joins the queue looks for room once more afterwards, under the lock; a slot is returned before the
//!   length of the queue is read. So one of the two sees a slot that becomes free while a request joins.
//!
//! If classes of requests share the capacity, a request needs a token of its class before a slot: see [`tokens`].

mod adaptive;
mod clients;
mod notices;
mod permit;
mod queue;
mod rates;
mod release;
mod tenants;
mod tokens;

pub use clients::ClientSlot;
pub use permit::{Permit, TakenSlot};
pub use queue::{GrantSink, Granted, Joined, Notice, Pick, Ticket, View, Waiter};
pub use rates::Rates;
pub use tenants::{NodeTicket, TenantKey, TenantSettings, Tenants};
pub(super) use tokens::Classes;
pub use tokens::{HeldToken, TokenRequest};

use super::attributes::Role;
use super::cluster::Cluster;
use super::demand::{Service, Turn};
use super::endpoint::Endpoint;
use super::history::History;
use super::judgement::Judgement;
use super::member::{Member, MemberState};
use super::options::{Options, Scheduler};
use super::ring::Ring;
use super::slots::{Counted, Limit, Slots};
use crate::base::cache_line::CacheLine;
use crate::base::clock::Moment;
use crate::shaper::Departure;
use queue::{Departed, Queue, Refused};
use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokens::TokenTree;

/// The number of times that a slot is lost to another core before the request waits.
const MAX_RACES: usize = 8;

/// Time for which a member may be out of its list and keeps its state when it comes back.
pub(super) const GRACE: Duration = Duration::from_secs(10);

/// The greatest number of removed members whose state is kept.
const MAX_DEPARTED: usize = 1024;

/// The interval of checks for room that appears as time passes.
const POLL_STEP: Duration = Duration::from_millis(100);

/// The part of a cluster that outlives edits of its list and options: slots held and requests waiting.
#[derive(Debug, Default)]
pub struct Admission {
    /// Slots held, over all members that were ever in the list. The limit is `maxRequests` of the newest options.
    slots: Slots,
    tunnels: AtomicU32,
    /// `maxTunnels` of the newest options; `u32::MAX` for no limit.
    max_tunnels: AtomicU32,
    /// The length of the queue, readable without its lock.
    waiting: AtomicU32,
    /// Number of requests that have waited.
    queued: AtomicU64,
    /// Number of requests refused because the queue was full, or that waited too long.
    dropped: AtomicU64,
    /// The next turn of the scheduler `rr`.
    turn: CacheLine<AtomicUsize>,
    /// The time before which no request polls ([`Admission::poll`]), in microseconds.
    next_poll: AtomicU64,
    /// The time until which capacities rise, in microseconds.
    ramps_until: AtomicU64,
    queue: Mutex<Queue>,
    /// The ring of the newest list that had one.
    ring: Mutex<Arc<Ring>>,
    /// The tokens of the classes of requests, once the cluster has had buckets.
    tree: OnceLock<Arc<TokenTree>>,
    pub(super) judgement: Judgement,
    /// Limits of requests and bytes a second.
    pub rates: Rates,
    of_node: tenants::PartOfNode,
}

impl Cluster {
    /// Whether a new request has to join the queue before it may take a slot, because others wait.
    pub fn is_queueing(&self) -> bool {
        self.admission.waiting.load(Ordering::SeqCst) > 0
    }

    /// Takes a slot of the member at `place`, if both the member and the cluster have one.
    pub fn take(&self, place: usize, now: Moment) -> Option<TakenSlot> {
        let slot = self.take_slot(place, now);
        if slot.is_none() {
            // The attempt may have held the last slot of the cluster for an instant, in which another request found
            // none.
            self.admission.serve_if_waiting();
        }
        slot
    }

    /// The same, as a permit: for a probe, which has no route.
    pub fn try_take(self: &Arc<Self>, place: usize, now: Moment) -> Option<Permit> {
        Some(Permit::of_list(Arc::clone(self), self.take(place, now)?, Turn::Role(Role::Active)))
    }

    fn take_slot(&self, place: usize, now: Moment) -> Option<TakenSlot> {
        let member = self.members.get(place).filter(|member| member.is_up())?;
        let of_cluster = self.admission.slots.take(u32::MAX)?;
        match member.take(self.options.slow_start, now) {
            Some(of_member) => Some(TakenSlot::new(place, of_member, of_cluster)),
            None => {
                self.admission.slots.give_back(of_cluster);
                None
            }
        }
    }

    /// Whether the cluster as a whole accepts another request (`maxRequests`).
    pub fn has_room(&self) -> bool {
        let slots = &self.admission.slots;
        slots.limit().is_none_or(|limit| slots.held() < limit.get())
    }

    /// A slot for a waiting request.
    fn slot_for(self: &Arc<Self>, waiter: &Waiter, rng: &mut fastrand::Rng, now: Moment) -> Option<Permit> {
        for _ in 0..MAX_RACES {
            let Service::Open(turn) = self.service(&waiter.demand(), now) else { return None };
            let place = (waiter.pick)(self, turn, &mut waiter.view(rng, now))?;
            if let Some(permit) = self.permit_for(place, turn, now) {
                return Some(permit);
            }
        }
        None
    }

    /// The same, at the member that has just got a slot back. It is the only one with room if the cluster was full, so
    /// there is no choice.
    fn freed_slot_for(self: &Arc<Self>, waiter: &Waiter, freed: &Freed<'_>, now: Moment) -> Option<Permit> {
        let turn = Turn::Role(Role::Active);
        let is_it = |member: &Member| std::ptr::eq(&raw const *member.state, freed.state);
        let is_there = self.members.get(freed.place).is_some_and(is_it) && self.admission.slots.limit().is_none();
        let is_open = is_there && self.is_open(freed.place, &waiter.demand(), turn, now);
        if is_open { self.permit_for(freed.place, turn, now) } else { None }
    }

    fn permit_for(self: &Arc<Self>, place: usize, turn: Turn, now: Moment) -> Option<Permit> {
        Some(Permit::of_list(Arc::clone(self), self.take_slot(place, now)?, turn))
    }

    /// Joins the queue, or gets a slot that has become free meanwhile. `ticket` is the place of a request that has
    /// waited before: it keeps the place, and is not refused for a full queue. Neither is a retry, which has been in flight:
    /// there are no more of these than slots.
    ///
    /// It takes a lock, so it is only for requests that have to wait.
    pub fn join(self: &Arc<Self>, waiter: Waiter, ticket: Option<Ticket>, now: Moment) -> Joined {
        let admission = &self.admission;
        // A request with a token has waited already; there are no more of these than tokens.
        let is_new = ticket.is_none() && !waiter.has_token;
        let may_be_refused = is_new && waiter.tried.is_empty();
        let mut queue = admission.lock();
        let ticket = queue.insert(waiter, ticket);
        admission.note_waiting(&queue);
        // The length is set before this: a slot returned from now on finds the request in the queue.
        drop(queue);
        if let Some(permit) = admission.serve_for(now, Some(ticket), None) {
            return Joined::Permit(permit);
        }
        let mut queue = admission.lock();
        let newest = queue.newest().unwrap_or_else(|| Arc::clone(self));
        // If it is no longer in the queue, its grant is under way.
        let is_refused = may_be_refused && queue.len() > newest.options.queue.limit as usize;
        let gives_up = |waiter: &Waiter| newest.gives_up_on(&waiter.demand(), now);
        let is_given_up = queue.get(ticket).is_some_and(gives_up);
        if (is_refused || is_given_up) && queue.remove(ticket).is_some() {
            admission.note_waiting(&queue);
            if is_given_up {
                return Joined::Unavailable;
            }
            admission.dropped.fetch_add(1, Ordering::Relaxed);
            return Joined::Refused;
        }
        if is_new {
            admission.queued.fetch_add(1, Ordering::Relaxed);
        }
        Joined::Waiting { ticket, is_new }
    }

    /// Makes this the list from which waiting requests are served, and serves them.
    pub(super) fn publish(self: &Arc<Self>, now: Moment) {
        self.admission.follow(self, now);
        self.serve(now);
        self.report_edit();
    }
}

/// A returned slot.
struct Freed<'a> {
    state: &'a MemberState,
    /// The index of the member in some list.
    place: usize,
}

impl Admission {
    /// Sets the limits of a new list: of each member, and of the whole cluster. An endpoint that occurs in the list
    /// twice has the smaller capacity.
    pub(super) fn set_limits(&self, members: &[Member], options: &Options, now: Moment) {
        let without = match options.scheduler {
            Scheduler::LeastLoad | Scheduler::Hash => Limit::None,
            Scheduler::Random | Scheduler::RoundRobin | Scheduler::Chance => Limit::Apart,
        };
        let mut capacities: HashMap<_, Option<NonZeroU32>> = HashMap::new();
        for member in members {
            let known = capacities.entry(Arc::as_ptr(&member.state)).or_default();
            *known = [*known, member.attributes.capacity].into_iter().flatten().min();
        }
        for member in members {
            let capacity = capacities.get(&Arc::as_ptr(&member.state)).copied().flatten();
            member.state.set_limit(capacity.map_or(without, Limit::Most));
        }
        self.slots.set_limit(options.max_requests.map_or(Limit::Apart, Limit::Most));
        self.rates.set(options, now);
        self.max_tunnels.store(options.max_tunnels.map_or(u32::MAX, NonZeroU32::get), Ordering::SeqCst);
    }

    /// The ring of these members: the earlier one if they are the same.
    pub(super) fn ring_of(&self, members: Box<[(u64, u32)]>) -> Arc<Ring> {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        if !ring.is_of(&members) {
            *ring = Arc::new(Ring::new(members));
        }
        Arc::clone(&ring)
    }

    /// Requests in flight, over all members.
    pub fn in_flight(&self) -> u32 {
        self.slots.held()
    }

    /// Whether requests taken before `maxRequests` was set are still in flight.
    pub(super) fn has_apart(&self) -> bool {
        self.slots.has_apart()
    }

    fn give_back(&self, counted: Counted) {
        self.slots.give_back(counted);
    }

    /// Requests that wait for a token or a slot.
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed) + self.tree.get().map_or(0, |tree| tree.queued())
    }

    /// Number of requests that had to wait, since the cluster was made.
    pub fn queued(&self) -> u64 {
        self.queued.load(Ordering::Relaxed)
    }

    /// Number of requests that the queue refused or kept too long, since the cluster was made.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Removes a request that has waited too long from the queue, and counts it.
    pub fn time_out(&self, ticket: Ticket) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
        self.remove(ticket, Departure::TimedOut);
    }

    /// Requests and failures of the last minute.
    pub fn history(&self) -> &History {
        self.slots.history()
    }

    /// The number of the next turn of the scheduler `rr`.
    pub fn next_turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    /// Skips turns of members that are not open.
    pub fn pass_turns(&self, count: usize) {
        if count > 0 {
            self.turn.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Removes a request from the queue. Returns whether it was still there; otherwise its grant is under way.
    pub fn leave(&self, ticket: Ticket) -> bool {
        self.remove(ticket, Departure::Left)
    }

    fn remove(&self, ticket: Ticket, cause: Departure) -> bool {
        if let Some(key) = ticket.key {
            return self.tree.get().is_some_and(|tree| tree.cancel(key, cause));
        }
        let mut queue = self.lock();
        let was_there = queue.remove(ticket).is_some();
        self.note_waiting(&queue);
        was_there
    }

    /// The newest list.
    pub fn newest(&self) -> Option<Arc<Cluster>> {
        self.lock().newest()
    }

    /// Runs `act` on the newest list, for one thread at a time.
    pub(super) fn with_newest(&self, act: impl FnOnce(&Cluster)) {
        let queue = self.lock();
        if let Some(cluster) = queue.newest() {
            act(&cluster);
        }
    }

    /// Keeps the state of a removed member.
    pub(super) fn note_departed(&self, member: &Member, now: Moment) {
        let mut queue = self.lock();
        let is_of_use =
            |departed: &Departed| Arc::strong_count(&departed.state) > 1 || now.since(departed.left_at) < GRACE;
        queue.departed.retain(is_of_use);
        if queue.departed.len() >= MAX_DEPARTED {
            queue.departed.remove(0);
        }
        let (endpoint, state) = (member.url.endpoint().clone(), Arc::clone(&member.state));
        queue.departed.push(Departed { endpoint, state, left_at: now });
    }

    /// The state of a removed member that comes back at `now`, if it is still kept.
    pub(super) fn take_departed(&self, endpoint: &Endpoint, now: Moment) -> Option<Arc<MemberState>> {
        let mut queue = self.lock();
        let place = queue.departed.iter().rposition(|departed| departed.endpoint == *endpoint)?;
        let Departed { state, left_at, .. } = queue.departed.remove(place);
        drop(queue);
        state.mark_back(now.since(left_at) < GRACE, now);
        Some(state)
    }

    /// Gives free slots to waiting requests, oldest first, and notifies those that wait in vain.
    pub(super) fn serve(&self, now: Moment) {
        let other = self.serve_for(now, None, None);
        debug_assert!(other.is_none(), "a grant without a ticket");
        self.notify(now);
    }

    /// Serves all waiting requests, since room may have appeared without an event: a mark has ended, or a capacity has
    /// risen. One request does it for all, at most once in [`POLL_STEP`]. Returns when to call it again.
    pub fn poll(&self, now: Moment) -> Moment {
        let due = self.next_poll.load(Ordering::SeqCst);
        if due > now.as_micros() {
            return Moment::from_micros(due);
        }
        let next = now + POLL_STEP;
        if self.next_poll.compare_exchange(due, next.as_micros(), Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            self.update_root(now);
            self.serve_for(now, None, None);
            self.note_ramps(now);
        }
        if self.is_ramping(now) { next } else { Moment::NEVER }
    }

    /// Whether room may appear without an event.
    pub fn is_ramping(&self, now: Moment) -> bool {
        self.ramps_until.load(Ordering::SeqCst) > now.as_micros()
    }

    /// Records until when capacities of the newest list rise, or held requests are released.
    pub(super) fn note_ramps(&self, now: Moment) {
        let queue = self.lock();
        let until = queue.newest().map_or(Moment::ZERO, |newest| newest.ramps_until(now)).max(queue.release_end());
        drop(queue);
        self.ramps_until.store(until.as_micros(), Ordering::SeqCst);
    }

    /// Gives free slots to waiting requests; the slot for `own` is returned instead of sent.
    fn serve_for(&self, now: Moment, own: Option<Ticket>, freed: Option<Freed<'_>>) -> Option<Permit> {
        let mut own_permit = None;
        let mut freed = freed;
        loop {
            let mut has_returned = false;
            for (ticket, waiter, permit) in self.grants(now, freed.take()) {
                if own == Some(ticket) {
                    own_permit = Some(permit);
                } else if let Err(Granted::Slot(permit)) =
                    waiter.sink.grant(waiter.exchange, ticket, Granted::Slot(permit))
                {
                    // Its core is gone. The next iteration, not a recursion, passes the slot on.
                    permit.give_back_silently();
                    has_returned = true;
                }
            }
            if !has_returned {
                return own_permit;
            }
        }
    }

    fn serve_if_waiting(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.serve_for(Moment::ZERO, None, None);
        }
    }

    /// A slot was returned, at `now` if that is known: it goes to the oldest request that can use it.
    fn serve_freed(&self, state: &MemberState, place: usize, now: Option<Moment>) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.serve_for(now.unwrap_or(Moment::ZERO), None, Some(Freed { state, place }));
        }
    }

    /// Takes slots for waiting requests.
    fn grants(&self, now: Moment, freed: Option<Freed<'_>>) -> Vec<(Ticket, Waiter, Permit)> {
        let mut queue = self.lock();
        queue.now = queue.now.max(now);
        let now = queue.now;
        let (mut grants, mut refused) = (Vec::new(), Refused::default());
        let Some(newest) = queue.newest().filter(|newest| !newest.options.is_disabled) else { return grants };
        let mut allowance = queue.allowance(now);
        let of_freed = freed.filter(|_| allowance > 0).and_then(|freed| {
            let (ticket, waiter) = queue.first()?;
            Some((ticket, newest.freed_slot_for(waiter, &freed, now)?))
        });
        if let Some((ticket, permit)) = of_freed {
            // No other member had room, or the request would not have waited.
            grants.extend(queue.remove(ticket).map(|waiter| (ticket, waiter, permit)));
        } else if !queue.is_mixed() || newest.has_room_anywhere(now) {
            while queue.len() > 0 && allowance > 0 && newest.has_room() {
                let slot_for = |waiter: &Waiter, rng: &mut fastrand::Rng| newest.slot_for(waiter, rng, now);
                let Some(grant) = queue.take_served(&mut refused, slot_for) else { break };
                grants.push(grant);
                allowance -= 1;
            }
        }
        queue.note_let_go(grants.len());
        self.note_waiting(&queue);
        grants
    }

    fn note_waiting(&self, queue: &Queue) {
        self.waiting.store(u32::try_from(queue.len()).unwrap_or(u32::MAX), Ordering::SeqCst);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
