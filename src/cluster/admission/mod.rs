//! Admission: which request gets a slot of a member now, and which one waits.
//!
//! A slot is a request in flight at a member. Taking one is an atomic increment bounded by the member's capacity, or a plain
//! one of the thread's own where nothing is bounded; no lock is taken while no request waits. Requests that find no room wait in one queue for all cores, oldest first; a slot that
//! is given back goes to the oldest that can use it. Two rules make that exact:
//!
//! * A request looks at the length of the queue before it takes a slot, and waits behind those that wait already.
//! * A request that joins the queue looks for room once more behind that, under the lock; a slot is given back before the
//!   length of the queue is looked at. So a slot that becomes free while a request joins is seen by one of the two.
//!
//! Where the capacity is shared by classes of requests, a request has a token of its class before it has a slot: see
//! [`tokens`].

mod permit;
mod queue;
mod tokens;

pub use permit::{Permit, TakenSlot};
pub use queue::{Choice, GrantSink, Granted, Joined, Ticket, Waiter};
pub(super) use tokens::Classes;
pub use tokens::{HeldToken, TokenRequest};

use super::cluster::{Cluster, Service};
use super::endpoint::Endpoint;
use super::history::History;
use super::member::{Member, MemberState};
use super::options::{Options, Scheduler};
use super::slots::{Counted, Limit, Slots};
use crate::base::cache_line::CacheLine;
use crate::base::clock::Moment;
use crate::shaper::Departure;
use queue::Queue;
use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokens::TokenTree;

/// The part of a cluster that outlives edits of its list and options: who holds slots, who waits.
#[derive(Debug, Default)]
pub struct Admission {
    /// Slots held, over all members that have ever been in the list. The limit is `maxRequests` of the newest options.
    slots: Slots,
    tunnels: AtomicU32,
    /// The length of the queue, to be read without its lock.
    waiting: AtomicU32,
    /// Requests that have waited.
    queued: AtomicU64,
    /// Requests refused because the queue was full, or that waited for too long.
    dropped: AtomicU64,
    /// The turn of the scheduler `rr`.
    turn: CacheLine<AtomicUsize>,
    queue: Mutex<Queue>,
    /// The tokens of the classes of requests, once the cluster has had buckets.
    tree: OnceLock<Arc<TokenTree>>,
}

impl Cluster {
    /// Whether a new request has to join the queue before it may take a slot: others wait.
    pub fn is_queueing(&self) -> bool {
        self.admission.waiting.load(Ordering::SeqCst) > 0
    }

    /// Takes a slot of the member at `place`, if that and the cluster have one.
    pub fn take(&self, place: usize, now: Moment) -> Option<TakenSlot> {
        let slot = self.take_slot(place, now);
        if slot.is_none() {
            // The attempt may have held the last slot of the cluster for an instant, just when another request looked.
            self.admission.serve_if_waiting();
        }
        slot
    }

    /// The same, as a permit.
    #[cfg(test)]
    pub fn try_take(self: &Arc<Self>, place: usize, now: Moment) -> Option<Permit> {
        Some(Permit::of_list(Arc::clone(self), self.take(place, now)?))
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

    /// Whether the cluster as a whole takes another request (`maxRequests`).
    pub fn has_room(&self) -> bool {
        let slots = &self.admission.slots;
        slots.limit().is_none_or(|limit| slots.held() < limit.get())
    }

    /// A slot for a request that waits.
    fn slot_for(self: &Arc<Self>, choice: &Choice, now: Moment) -> Option<Permit> {
        let fits = |place: usize| self.members.get(place).is_some_and(|member| choice.fits(member.backend.id()));
        // Those that wait are spread over the members too, unless the list's order is meant.
        let turn = if self.options.scheduler == Scheduler::Chance { 0 } else { self.admission.next_turn() };
        let first = turn.checked_rem(self.members.len()).unwrap_or(0);
        let mut places = (first..self.members.len()).chain(0..first);
        if let Choice::Only(_) = choice {
            return places.filter(|place| fits(*place)).find_map(|place| self.permit_for(place, now));
        }
        let Service::Role(role) = self.service(fits, now) else { return None };
        let serves = |place: &usize| {
            let member = self.members.get(*place);
            member.is_some_and(|member| member.role() == role && member.attributes.weight > 0) && fits(*place)
        };
        places.find_map(|place| serves(&place).then(|| self.permit_for(place, now)).flatten())
    }

    fn permit_for(self: &Arc<Self>, place: usize, now: Moment) -> Option<Permit> {
        Some(Permit::of_list(Arc::clone(self), self.take_slot(place, now)?))
    }

    /// Joins the queue, or gets a slot that has become free in the meantime. `ticket` is the place that the request has
    /// already: it keeps it, and `waiter` takes the place of the one before.
    ///
    /// Takes a lock: for requests that have to wait, and for nothing else.
    pub fn join(self: &Arc<Self>, waiter: Waiter, ticket: Option<Ticket>, now: Moment) -> Joined {
        let admission = &self.admission;
        let mut queue = admission.lock();
        // A request with a token has waited its time; there are no more of these than tokens.
        let is_new = ticket.is_none() && !waiter.has_token;
        if is_new && queue.len() >= self.options.queue.limit as usize {
            admission.dropped.fetch_add(1, Ordering::Relaxed);
            return Joined::Refused;
        }
        if is_new {
            admission.queued.fetch_add(1, Ordering::Relaxed);
        }
        let ticket = queue.insert(waiter, ticket);
        admission.note_waiting(&queue);
        // Behind the length: a slot that is given back from now on finds the request in the queue.
        drop(queue);
        match admission.serve_except(now, Some(ticket)) {
            Some(permit) => Joined::Permit(permit),
            None => Joined::Waiting(ticket),
        }
    }

    /// Makes this list the one that waiting requests are served from, and serves them.
    pub(super) fn publish(self: &Arc<Self>, now: Moment) {
        self.admission.lock().cluster = Some(Arc::downgrade(self));
        self.admission.update_root(now);
        self.admission.serve(now);
    }
}

impl Admission {
    /// Sets the limits of a new list: those of its members, and that of all together. An endpoint that stands in the list
    /// twice has the smaller capacity.
    pub(super) fn set_limits(&self, members: &[Member], options: &Options) {
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
        let of_cluster = if options.scheduler == Scheduler::Hash { Limit::None } else { Limit::Apart };
        self.slots.set_limit(options.max_requests.map_or(of_cluster, Limit::Most));
    }

    /// Requests in flight, over all members.
    pub fn in_flight(&self) -> u32 {
        self.slots.held()
    }

    /// Whether requests of before there was `maxRequests` are still in flight.
    pub(super) fn has_apart(&self) -> bool {
        self.slots.has_apart()
    }

    fn give_back(&self, counted: Counted) {
        self.slots.give_back(counted);
    }

    /// Tunnels, over all members.
    pub fn tunnels(&self) -> u32 {
        self.tunnels.load(Ordering::Relaxed)
    }

    /// Requests that wait, for a token or a slot.
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed) + self.tree.get().map_or(0, |tree| tree.queued())
    }

    /// Requests that have had to wait, since the cluster was made.
    pub fn queued(&self) -> u64 {
        self.queued.load(Ordering::Relaxed)
    }

    /// Requests that the queue refused or kept for too long, since the cluster was made.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Takes a request out of the queue that has waited for too long, and counts it.
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

    /// Takes a request out of the queue. Returns whether it was still there; otherwise its grant is on the way.
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

    /// Remembers the state of a member that has left its list, for as long as a request of it is in flight.
    pub(super) fn note_departed(&self, member: &Member) {
        let departed = &mut self.lock().departed;
        departed.retain(|(_, state)| state.strong_count() > 0);
        departed.push((member.url.endpoint().clone(), Arc::downgrade(&member.state)));
    }

    /// The state of a member that left, if one of its requests is still in flight.
    pub(super) fn take_departed(&self, endpoint: &Endpoint) -> Option<Arc<MemberState>> {
        let departed = &mut self.lock().departed;
        let place = departed.iter().position(|(left, _)| left == endpoint)?;
        departed.swap_remove(place).1.upgrade()
    }

    /// Gives free slots to the requests that wait, oldest first.
    pub(super) fn serve(&self, now: Moment) {
        let other = self.serve_except(now, None);
        debug_assert!(other.is_none(), "a grant without a ticket");
    }

    /// The same, and returns the slot that `own` gets instead of sending it.
    fn serve_except(&self, now: Moment, own: Option<Ticket>) -> Option<Permit> {
        let mut own_permit = None;
        while let Some((ticket, waiter, permit)) = self.next_grant(now) {
            if own == Some(ticket) {
                own_permit = Some(permit);
            } else if let Err(Granted::Slot(permit)) = waiter.sink.grant(waiter.exchange, ticket, Granted::Slot(permit))
            {
                // Its core is gone. The slot goes to the next one by this loop, not by recursion.
                permit.give_back_silently();
            }
        }
        own_permit
    }

    fn serve_if_waiting(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.serve(Moment::ZERO);
        }
    }

    fn next_grant(&self, now: Moment) -> Option<(Ticket, Waiter, Permit)> {
        let mut queue = self.lock();
        queue.now = queue.now.max(now);
        let now = queue.now;
        let cluster = queue.newest()?;
        if queue.len() == 0 || !cluster.has_room() {
            return None;
        }
        let (ticket, permit) = queue.first_served(|choice| cluster.slot_for(choice, now))?;
        let waiter = queue.remove(ticket)?;
        self.note_waiting(&queue);
        Some((ticket, waiter, permit))
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
