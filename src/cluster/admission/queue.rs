//! The requests that wait for a slot.

use super::release::Release;
use super::{Cluster, HeldToken, Permit};
use crate::base::clock::Moment;
use crate::cluster::demand::{Demand, Turn};
use crate::cluster::{BackendId, Endpoint, MemberState, Route};
use crate::shaper::WaiterKey;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// A request that waits for a slot.
#[derive(Debug)]
pub struct Waiter {
    /// Where the grant is sent.
    pub sink: Arc<dyn GrantSink>,
    /// The request, as its core knows it.
    pub exchange: u64,
    /// The route of its host.
    pub route: Arc<Route>,
    /// The backends that have failed it.
    pub tried: Box<[BackendId]>,
    /// The backend that its client names.
    pub named: Option<BackendId>,
    /// The backend that a rule or a cookie leads to ([`Demand::wanted`]).
    pub wanted: Option<BackendId>,
    /// The scheduler, which chooses for requests that wait as it does for others.
    pub pick: Pick,
    /// [`View::key`].
    pub key: u64,
    /// [`View::session`].
    pub session: Option<u64>,
    /// It has a token already: it has waited its time, and is not refused.
    pub has_token: bool,
}

/// Chooses a member that is open to a request in this turn.
pub type Pick = fn(&Cluster, Turn, &mut View<'_>) -> Option<usize>;

/// What a scheduler knows of a request.
#[derive(Debug)]
pub struct View<'a> {
    /// What the request demands of a member.
    pub demand: Demand<'a>,
    /// The present moment.
    pub now: Moment,
    /// The random numbers of the core.
    pub rng: &'a mut fastrand::Rng,
    /// The hash of the request's key, where the scheduler is [`Scheduler::Hash`](crate::cluster::Scheduler::Hash).
    pub key: u64,
    /// The value of [`Member::session`](crate::cluster::Member::session) of the member of the request's session: it serves if it is open.
    pub session: Option<u64>,
}

/// What a request that waits is told beside its grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// No member of the newest list may serve it any more, or its frontend is disabled.
    Unavailable,
    /// Room appears by the passing of time alone from now on: it is to look for it ([`Admission::poll`](super::Admission)).
    Poll,
}

/// Takes the grants of one core.
pub trait GrantSink: Debug + Send + Sync {
    /// Tells `exchange`, which waits under `ticket`, what it has. Never waits. Returns what cannot be delivered.
    fn grant(&self, exchange: u64, ticket: Ticket, granted: Granted) -> Result<(), Granted>;

    /// Tells `exchange`, which waits under `ticket`, what has changed. Never waits.
    fn notify(&self, exchange: u64, ticket: Ticket, notice: Notice);
}

/// What a request gets that waits.
#[derive(Debug)]
pub enum Granted {
    /// A slot of a member.
    Slot(Permit),
    /// A token of its bucket: now it may have a slot.
    Token(HeldToken),
}

/// A place in a queue: that of the cluster, or that of a bucket.
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    pub(super) number: u64,
    /// Where it stands in the queue of a bucket.
    pub(super) key: Option<WaiterKey>,
}

impl Ticket {
    fn of_slot(number: u64) -> Self {
        Self { number, key: None }
    }
}

impl PartialEq for Ticket {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Ticket {}

/// The outcome of joining the queue.
#[derive(Debug)]
pub enum Joined {
    /// A slot: one had become free in the meantime.
    Permit(Permit),
    /// A token: one was there, or had been given back in the meantime.
    Token(HeldToken),
    /// A place in the queue.
    Waiting {
        /// The place.
        ticket: Ticket,
        /// The request has not waited before.
        is_new: bool,
    },
    /// A place in the queue of a bucket.
    WaitingForToken {
        /// The place.
        ticket: Ticket,
        /// When its time runs out.
        until: Moment,
    },
    /// Nothing: the queue is full.
    Refused,
    /// Nothing: no member of the newest list may serve the request, or its frontend is disabled.
    Unavailable,
}

/// The number of the next ticket of any queue: so the older of two requests has the lower one wherever they meet.
static NEXT_TICKET: AtomicU64 = AtomicU64::new(1);

/// The queue of a cluster: oldest first.
#[derive(Debug)]
pub(super) struct Queue {
    /// The newest list: free slots are looked for in it.
    pub(super) cluster: Option<Weak<Cluster>>,
    /// The latest moment that was told: slots are given back without one.
    pub(super) now: Moment,
    /// Members that have left the list, the last at the end.
    pub(super) departed: Vec<Departed>,
    /// The newest list is disabled and holds its requests.
    pub(super) is_held: bool,
    /// Requests that were held are let go.
    pub(super) release: Option<Release>,
    rng: fastrand::Rng,
    /// Requests that demand the same: one of them gets a slot exactly where another one does.
    groups: HashMap<Sameness, BTreeMap<u64, Waiter>>,
    /// The group of the oldest request of each group.
    oldest: BTreeMap<u64, Sameness>,
    /// The group of each request.
    by_ticket: HashMap<u64, Sameness>,
}

/// A member that has left its list.
#[derive(Debug)]
pub(super) struct Departed {
    pub(super) endpoint: Endpoint,
    pub(super) state: Arc<MemberState>,
    pub(super) left_at: Moment,
}

/// What makes requests alike: the route, whose address stays while one of them waits, and what they demand beside it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Sameness {
    route: usize,
    tried: Box<[BackendId]>,
    named: Option<BackendId>,
    wanted: Option<BackendId>,
}

/// The groups for which there is no slot in the present round: in a round room only shrinks.
#[derive(Debug, Default)]
pub(super) struct Refused(HashSet<u64>);

impl Default for Queue {
    fn default() -> Self {
        Self {
            cluster: None,
            now: Moment::ZERO,
            departed: Vec::new(),
            is_held: false,
            release: None,
            rng: fastrand::Rng::with_seed(0),
            groups: HashMap::new(),
            oldest: BTreeMap::new(),
            by_ticket: HashMap::new(),
        }
    }
}

impl Waiter {
    /// What the request demands of a member.
    pub(super) fn demand(&self) -> Demand<'_> {
        Demand { route: &self.route, tried: &self.tried, named: self.named, wanted: self.wanted }
    }

    /// The same for its scheduler.
    pub(super) fn view<'a>(&'a self, rng: &'a mut fastrand::Rng, now: Moment) -> View<'a> {
        View { demand: self.demand(), now, rng, key: self.key, session: self.session }
    }

    fn sameness(&self) -> Sameness {
        let route = Arc::as_ptr(&self.route).addr();
        Sameness { route, tried: self.tried.clone(), named: self.named, wanted: self.wanted }
    }
}

impl Queue {
    /// The newest list, while any request may use it.
    pub(super) fn newest(&self) -> Option<Arc<Cluster>> {
        self.cluster.as_ref().and_then(Weak::upgrade)
    }

    pub(super) fn len(&self) -> usize {
        self.by_ticket.len()
    }

    /// Whether requests of different demands wait.
    pub(super) fn is_mixed(&self) -> bool {
        self.groups.len() > 1
    }

    /// Adds a request, at the end or in the place that it has.
    pub(super) fn insert(&mut self, waiter: Waiter, ticket: Option<Ticket>) -> Ticket {
        let ticket = ticket.unwrap_or_else(|| Ticket::of_slot(NEXT_TICKET.fetch_add(1, Ordering::Relaxed)));
        self.remove(ticket);
        let sameness = waiter.sameness();
        let group = self.groups.entry(sameness.clone()).or_default();
        let oldest = group.first_key_value().map(|(number, _)| *number);
        group.insert(ticket.number, waiter);
        if oldest.is_none_or(|oldest| ticket.number < oldest) {
            oldest.map(|oldest| self.oldest.remove(&oldest));
            self.oldest.insert(ticket.number, sameness.clone());
        }
        self.by_ticket.insert(ticket.number, sameness);
        ticket
    }

    pub(super) fn remove(&mut self, ticket: Ticket) -> Option<Waiter> {
        let sameness = self.by_ticket.remove(&ticket.number)?;
        let group = self.groups.get_mut(&sameness)?;
        let waiter = group.remove(&ticket.number);
        if self.oldest.remove(&ticket.number).is_some() {
            match group.first_key_value().map(|(number, _)| *number) {
                Some(oldest) => _ = self.oldest.insert(oldest, sameness),
                None => _ = self.groups.remove(&sameness),
            }
        }
        waiter
    }

    /// Takes out the oldest request that `slot_for` has a slot for.
    pub(super) fn take_served(
        &mut self,
        refused: &mut Refused,
        mut slot_for: impl FnMut(&Waiter, &mut fastrand::Rng) -> Option<Permit>,
    ) -> Option<(Ticket, Waiter, Permit)> {
        let (groups, rng) = (&self.groups, &mut self.rng);
        let served = self.oldest.iter().find_map(|(number, sameness)| {
            let waiter = groups.get(sameness).filter(|_| !refused.0.contains(number))?.get(number)?;
            let permit = slot_for(waiter, rng);
            if permit.is_none() {
                refused.0.insert(*number);
            }
            Some((Ticket::of_slot(*number), permit?))
        });
        let (ticket, permit) = served?;
        Some((ticket, self.remove(ticket)?, permit))
    }

    /// A request that waits.
    pub(super) fn get(&self, ticket: Ticket) -> Option<&Waiter> {
        self.groups.get(self.by_ticket.get(&ticket.number)?)?.get(&ticket.number)
    }

    /// The oldest request.
    pub(super) fn first(&self) -> Option<(Ticket, &Waiter)> {
        let (number, sameness) = self.oldest.first_key_value()?;
        Some((Ticket::of_slot(*number), self.groups.get(sameness)?.get(number)?))
    }

    /// The requests by what they demand: each group has at least one.
    pub(super) fn groups(&self) -> impl Iterator<Item = &BTreeMap<u64, Waiter>> {
        self.groups.values()
    }
}

impl Queue {
    /// Takes over the newest list. Where it opens a frontend that has held requests, their release begins.
    pub(super) fn follow(&mut self, cluster: &Arc<Cluster>, now: Moment) {
        let was_held = std::mem::replace(&mut self.is_held, cluster.options.holds());
        if was_held && !self.is_held && self.len() > 0 {
            self.release = Some(Release::new(now));
        } else if self.is_held {
            self.release = None;
        }
        self.cluster = Some(Arc::downgrade(cluster));
    }

    /// How many requests may have a slot now.
    pub(super) fn allowance(&self, now: Moment) -> u32 {
        self.release.as_ref().map_or(u32::MAX, |release| release.allowance(now))
    }

    /// Notes that so many have one. The release is over with the last of those that wait.
    pub(super) fn note_let_go(&mut self, count: usize) {
        if self.len() == 0 {
            self.release = None;
        } else if let Some(release) = &mut self.release {
            release.note(count);
        }
    }

    /// The end of the release; [`Moment::ZERO`] where there is none.
    pub(super) fn release_end(&self) -> Moment {
        self.release.as_ref().map_or(Moment::ZERO, Release::end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{ClusterSpec, Options};

    #[derive(Debug)]
    struct Nowhere;

    impl GrantSink for Nowhere {
        fn grant(&self, _: u64, _: Ticket, granted: Granted) -> Result<(), Granted> {
            Err(granted)
        }

        fn notify(&self, _: u64, _: Ticket, _: Notice) {}
    }

    fn route() -> Arc<Route> {
        let spec = ClusterSpec { key: "a", id: "x", entries: Vec::new(), options: &Options::none() };
        Arc::new(Route::new("a", Cluster::edit(None, spec, Moment::ZERO)))
    }

    fn waiter(exchange: u64, route: &Arc<Route>, tried: &[u64]) -> Waiter {
        Waiter {
            sink: Arc::new(Nowhere),
            exchange,
            route: Arc::clone(route),
            tried: tried.iter().map(|id| BackendId::new(*id)).collect(),
            named: None,
            wanted: None,
            pick: |_, _, _| None,
            key: 0,
            session: None,
            has_token: false,
        }
    }

    /// Whom the queue offers slots to, in which order, when nobody takes one.
    fn offers(queue: &mut Queue) -> Vec<u64> {
        let mut asked = Vec::new();
        let served = queue.take_served(&mut Refused::default(), |waiter, _| {
            asked.push(waiter.exchange);
            None
        });
        assert!(served.is_none());
        asked
    }

    #[test]
    fn only_the_oldest_of_those_that_demand_the_same_is_asked() {
        let routes = [route(), route()];
        let mut queue = Queue::default();
        let rows: [(usize, &[u64]); 6] = [(0, &[]), (0, &[]), (1, &[]), (0, &[7]), (1, &[]), (0, &[7])];
        let tickets: Vec<_> = rows
            .iter()
            .zip(0..)
            .map(|((route, tried), exchange)| queue.insert(waiter(exchange, &routes[*route], tried), None))
            .collect();
        assert_eq!((offers(&mut queue), queue.len()), (vec![0, 2, 3], 6));
        assert_eq!(queue.remove(tickets[0]).map(|waiter| waiter.exchange), Some(0));
        assert_eq!(queue.first().map(|(ticket, _)| ticket), Some(tickets[1]));
        assert_eq!(offers(&mut queue), [1, 2, 3]);
        assert!(queue.remove(tickets[0]).is_none());
        // It comes back with its ticket, and with another demand.
        queue.insert(waiter(0, &routes[0], &[7]), Some(tickets[0]));
        assert_eq!(offers(&mut queue), [0, 1, 2]);
        tickets.iter().for_each(|ticket| drop(queue.remove(*ticket)));
        assert!(queue.len() == 0 && queue.groups().next().is_none() && queue.oldest.is_empty());
    }
}
