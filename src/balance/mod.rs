//! Schedulers: the choice of the member that serves a request. One file each; a scheduler is a function of the cluster
//! and a view of the request, and its only state between requests is a shared counter of the cluster.

mod chance;
mod hash;
mod last_resort;
mod least_load;
mod random;
mod round_robin;

use crate::base::clock::Moment;
use crate::cluster::{Cluster, Demand, Scheduler, Service, TakenSlot, Turn, View};

/// The number of times that a slot is lost to another core before the request joins the queue.
const MAX_RACES: usize = 8;

/// The outcome of [`admit`].
#[derive(Debug)]
pub enum Admit {
    /// A slot of a member.
    Slot(TakenSlot),
    /// No member has room; the request may join the queue.
    Full,
    /// No member may serve.
    Unavailable,
}

/// Takes a slot for the request. While other requests wait it gets none and joins them.
pub fn admit(cluster: &Cluster, view: &mut View<'_>) -> Admit {
    let is_queueing = cluster.is_queueing();
    for _ in 0..MAX_RACES {
        let turn = match cluster.service(&view.demand, view.now) {
            Service::Unavailable => return Admit::Unavailable,
            Service::Open(turn) if !is_queueing && cluster.has_room() => turn,
            Service::Open(_) | Service::Full => return Admit::Full,
        };
        let Some(place) = pick(cluster, turn, view) else { continue };
        if let Some(slot) = cluster.take(place, view.now) {
            return Admit::Slot(slot);
        }
    }
    Admit::Full
}

/// The member to serve the request in this turn: the member of its session, or the scheduler's choice.
pub fn pick(cluster: &Cluster, turn: Turn, view: &mut View<'_>) -> Option<usize> {
    let candidates = Candidates { cluster, turn, demand: view.demand, now: view.now };
    if let Some(place) = view.session.and_then(|session| candidates.of_session(session)) {
        return Some(place);
    }
    match cluster.options.scheduler {
        // Only one member is open then, and it may have no weight.
        _ if view.demand.named.is_some() || turn == Turn::Wanted => candidates.open().next(),
        _ if turn == Turn::LastResort => last_resort::pick(&candidates),
        Scheduler::Random => random::pick(&candidates, view.rng),
        Scheduler::RoundRobin => round_robin::pick(&candidates, view.rng),
        Scheduler::Chance => chance::pick(&candidates),
        Scheduler::LeastLoad => least_load::pick(&candidates, view.rng),
        Scheduler::Hash => hash::pick(&candidates, view.key),
    }
}

/// The members open to a request now.
struct Candidates<'a> {
    cluster: &'a Cluster,
    turn: Turn,
    demand: Demand<'a>,
    now: Moment,
}

impl Candidates<'_> {
    /// Whether the member at `place` may serve and has room.
    fn is_open(&self, place: usize) -> bool {
        self.cluster.is_open(place, &self.demand, self.turn, self.now)
    }

    fn open(&self) -> impl Iterator<Item = usize> {
        (0..self.len()).filter(|place| self.is_open(*place))
    }

    fn of_session(&self, session: u64) -> Option<usize> {
        let place = self.cluster.members.iter().position(|member| member.session() == session)?;
        self.is_open(place).then_some(place)
    }

    fn len(&self) -> usize {
        self.cluster.members.len()
    }

    fn ramp(&self, place: usize) -> u32 {
        self.cluster.members[place].ramp(self.cluster.options.slow_start, self.now)
    }

    fn weight(&self, place: usize) -> u64 {
        self.cluster.members[place].attributes.weight.into()
    }

    /// The current share of a member: its weight, reduced by slow start.
    fn share(&self, place: usize) -> u64 {
        self.weight(place) * u64::from(self.ramp(place))
    }

    fn in_flight(&self, place: usize) -> u64 {
        u64::from(self.cluster.members[place].state.in_flight())
    }
}

#[cfg(test)]
mod tests;
