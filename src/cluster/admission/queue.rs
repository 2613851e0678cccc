//! The queue of requests that wait for a slot.

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
    /// The destination of the grant.
    pub sink: Arc<dyn GrantSink>,
    /// The id of the request in its core.
    pub exchange: u64,
    /// The moment at which it first asked for a member: earlier ones are served first, and a retry keeps its own.
    pub arrived: Moment,
    /// The route of its host.
    pub route: Arc<Route>,
    /// Backends that have failed it.
    pub tried: Box<[BackendId]>,
    /// The backend that its client names.
    pub named: Option<BackendId>,
    /// The backend that a rule or a cookie selects ([`Demand::wanted`]).
    pub wanted: Option<BackendId>,
    /// The scheduler, which chooses for waiting requests as for others.
    pub pick: Pick,
    /// [`View::key`].
    pub key: u64,
    /// [`View::session`].
    pub session: Option<u64>,
    /// It has a token already: it has waited before, and is not refused.
    pub has_token: bool,
}

/// Chooses a member that is open to a request in this turn.
pub type Pick = fn(&Cluster, Turn, &mut View<'_>) -> Option<usize>;

/// The view of a request for a scheduler.
#[derive(Debug)]
pub struct View<'a> {
    /// The request's requirements for a member.
    pub demand: Demand<'a>,
    /// The present moment.
    pub now: Moment,
    /// The random numbers of the core.
    pub rng: &'a mut fastrand::Rng,
    /// The hash of the request's key, where the scheduler is [`Scheduler::Hash`](crate::cluster::Scheduler::Hash).
    pub key: u64,
    /// The value of [`Member::session`](crate::cluster::Member::session) for the member of the request's session: it
    /// serves if it is open.
    pub session: Option<u64>,
}

/// A notification of a waiting request, besides its grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// No member of the newest list may serve it any more, or its frontend is disabled.
    Unavailable,
    /// From now on room may appear without an event: the request has to poll for it
    /// ([`Admission::poll`](super::Admission)).
    Poll,
}

/// The receiver of grants of one core.
pub trait GrantSink: Debug + Send + Sync {
    /// Sends a grant to `exchange`, which waits under `ticket`. Never waits. Returns a grant that cannot be delivered.
    fn grant(&self, exchange: u64, ticket: Ticket, granted: Granted) -> Result<(), Granted>;

    /// Notifies `exchange`, which waits under `ticket`, of a change. Never waits.
    fn notify(&self, exchange: u64, ticket: Ticket, notice: Notice);
}

/// A grant for a waiting request.
#[derive(Debug)]
pub enum Granted {
    /// A slot of a member.
    Slot(Permit),
    /// A token of its bucket: it may take a slot now.
    Token(HeldToken),
}

/// A place in a queue: of the cluster, or of a bucket.
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    pub(super) place: Place,
    /// The place in the queue of a bucket.
    pub(super) key: Option<WaiterKey>,
}

/// A place in the order of any queue: of requests that arrived at one moment, the one that joined first comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    pub(super) arrived: Moment,
    pub(super) number: u64,
}

impl Ticket {
    /// The ticket of no request.
    pub const NONE: Self = Self::of_slot(Place { arrived: Moment::ZERO, number: 0 });

    pub(super) const fn of_slot(place: Place) -> Self {
        Self { place, key: None }
    }
}

impl PartialEq for Ticket {
    fn eq(&self, other: &Self) -> bool {
        self.place.number == other.place.number
    }
}

impl Eq for Ticket {}

/// The outcome of joining the queue.
#[derive(Debug)]
pub enum Joined {
    /// A slot that had become free meanwhile.
    Permit(Permit),
    /// A token that was free, or was returned meanwhile.
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
        /// The end of its time in the queue.
        until: Moment,
    },
    /// Refused: the queue is full.
    Refused,
    /// Refused: no member of the newest list may serve the request, or its frontend is disabled.
    Unavailable,
}

/// The number of the next ticket of any queue.
static NEXT_TICKET: AtomicU64 = AtomicU64::new(1);

/// The queue of a cluster: oldest first.
#[derive(Debug)]
pub(super) struct Queue {
    /// The newest list, in which free slots are searched.
    pub(super) cluster: Option<Weak<Cluster>>,
    /// The latest known time: returned slots come without one.
    pub(super) now: Moment,
    /// Removed members, the last at the end.
    pub(super) departed: Vec<Departed>,
    /// The newest list is disabled and holds its requests.
    pub(super) is_held: bool,
    /// The release of held requests.
    pub(super) release: Option<Release>,
    rng: fastrand::Rng,
    /// Requests with equal demands: one of them can get a slot exactly if another one can.
    groups: HashMap<Sameness, BTreeMap<Place, Waiter>>,
    /// The group of each group's oldest request.
    oldest: BTreeMap<Place, Sameness>,
    /// The group of each request.
    by_ticket: HashMap<Place, Sameness>,
}

/// A removed member.
#[derive(Debug)]
pub(super) struct Departed {
    pub(super) endpoint: Endpoint,
    pub(super) state: Arc<MemberState>,
    pub(super) left_at: Moment,
}

/// The criteria of equal demands: the route, whose address is stable while one of them waits, and the other
/// requirements.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Sameness {
    route: usize,
    tried: Box<[BackendId]>,
    named: Option<BackendId>,
    wanted: Option<BackendId>,
}

/// The groups without a slot in the current round: within a round room only shrinks.
#[derive(Debug, Default)]
pub(super) struct Refused(HashSet<Place>);

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
    /// The request's requirements for a member.
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
    /// The newest list, as long as it is in use.
    pub(super) fn newest(&self) -> Option<Arc<Cluster>> {
        self.cluster.as_ref().and_then(Weak::upgrade)
    }

    pub(super) fn len(&self) -> usize {
        self.by_ticket.len()
    }

    /// Whether requests with different demands wait.
    pub(super) fn is_mixed(&self) -> bool {
        self.groups.len() > 1
    }

    /// Adds a request behind those that arrived no later, or at its earlier place.
    pub(super) fn insert(&mut self, waiter: Waiter, ticket: Option<Ticket>) -> Ticket {
        let new = || Place { arrived: waiter.arrived, number: NEXT_TICKET.fetch_add(1, Ordering::Relaxed) };
        let place = ticket.map_or_else(new, |ticket| ticket.place);
        let ticket = Ticket::of_slot(place);
        self.remove(ticket);
        let sameness = waiter.sameness();
        let group = self.groups.entry(sameness.clone()).or_default();
        let oldest = group.first_key_value().map(|(oldest, _)| *oldest);
        group.insert(place, waiter);
        if oldest.is_none_or(|oldest| place < oldest) {
            oldest.map(|oldest| self.oldest.remove(&oldest));
            self.oldest.insert(place, sameness.clone());
        }
        self.by_ticket.insert(place, sameness);
        ticket
    }

    pub(super) fn remove(&mut self, ticket: Ticket) -> Option<Waiter> {
        let sameness = self.by_ticket.remove(&ticket.place)?;
        let group = self.groups.get_mut(&sameness)?;
        let waiter = group.remove(&ticket.place);
        if self.oldest.remove(&ticket.place).is_some() {
            match group.first_key_value().map(|(oldest, _)| *oldest) {
                Some(oldest) => _ = self.oldest.insert(oldest, sameness),
                None => _ = self.groups.remove(&sameness),
            }
        }
        waiter
    }

    /// Removes the oldest request for which `slot_for` returns a slot.
    pub(super) fn take_served(
        &mut self,
        refused: &mut Refused,
        mut slot_for: impl FnMut(&Waiter, &mut fastrand::Rng) -> Option<Permit>,
    ) -> Option<(Ticket, Waiter, Permit)> {
        let (groups, rng) = (&self.groups, &mut self.rng);
        let served = self.oldest.iter().find_map(|(place, sameness)| {
            let waiter = groups.get(sameness).filter(|_| !refused.0.contains(place))?.get(place)?;
            let permit = slot_for(waiter, rng);
            if permit.is_none() {
                refused.0.insert(*place);
            }
            Some((Ticket::of_slot(*place), permit?))
        });
        let (ticket, permit) = served?;
        Some((ticket, self.remove(ticket)?, permit))
    }

    /// A waiting request.
    pub(super) fn get(&self, ticket: Ticket) -> Option<&Waiter> {
        self.groups.get(self.by_ticket.get(&ticket.place)?)?.get(&ticket.place)
    }

    /// The oldest request.
    pub(super) fn first(&self) -> Option<(Ticket, &Waiter)> {
        let (place, sameness) = self.oldest.first_key_value()?;
        Some((Ticket::of_slot(*place), self.groups.get(sameness)?.get(place)?))
    }

    /// The requests by demand: each group has at least one.
    pub(super) fn groups(&self) -> impl Iterator<Item = &BTreeMap<Place, Waiter>> {
        self.groups.values()
    }
}

impl Queue {
    /// Takes over the newest list. If it opens a frontend with held requests, their release begins.
    pub(super) fn follow(&mut self, cluster: &Arc<Cluster>, now: Moment) {
        let was_held = std::mem::replace(&mut self.is_held, cluster.options.holds());
        if was_held && !self.is_held && self.len() > 0 {
            self.release = Some(Release::new(now));
        } else if self.is_held {
            self.release = None;
        }
        self.cluster = Some(Arc::downgrade(cluster));
    }

    /// The number of requests that may get a slot now.
    pub(super) fn allowance(&self, now: Moment) -> u32 {
        self.release.as_ref().map_or(u32::MAX, |release| release.allowance(now))
    }

    /// Records the number of requests that got one. The release ends with the last waiting request.
    pub(super) fn note_let_go(&mut self, count: usize) {
        if self.len() == 0 {
            self.release = None;
        } else if let Some(release) = &mut self.release {
            release.note(count);
        }
    }

    /// The end of the release; [`Moment::ZERO`] if there is none.
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
        let spec = ClusterSpec { created: 0, key: "a", id: "x", entries: Vec::new(), options: &Options::none() };
        Arc::new(Route::new("a", Cluster::edit(None, spec, Moment::ZERO)))
    }

    fn waiter(exchange: u64, route: &Arc<Route>, tried: &[u64]) -> Waiter {
        Waiter {
            sink: Arc::new(Nowhere),
            exchange,
            arrived: Moment::ZERO,
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

    /// The requests that are offered a slot, in order, if all decline.
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
        // One that arrived before all others goes first, though it joins last.
        let arrived = Moment::from_micros(5);
        let late = queue.insert(Waiter { arrived, ..waiter(7, &routes[1], &[9]) }, None);
        let early = queue.insert(waiter(6, &routes[1], &[9]), None);
        assert_eq!(offers(&mut queue), [0, 1, 2, 6]);
        tickets.iter().chain([&late, &early]).for_each(|ticket| drop(queue.remove(*ticket)));
        assert!(queue.len() == 0 && queue.groups().next().is_none() && queue.oldest.is_empty());
    }
}
