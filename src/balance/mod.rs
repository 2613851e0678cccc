//! Schedulers: which member of a cluster a request gets a slot of. One file each; a scheduler is a function over the
//! cluster and a view of the request, and keeps nothing between two requests but a shared counter of the cluster.

mod chance;
mod hash;
mod least_load;
mod random;
mod round_robin;

use crate::base::clock::Moment;
use crate::cluster::{Cluster, Role, Scheduler, Service, TakenSlot};

/// How often a slot is lost to another core before the request joins the queue.
const MAX_RACES: usize = 8;

/// What a scheduler knows of a request.
pub struct View<'a> {
    /// Leaves members out that the request has tried, or that its host marks dead.
    pub may_serve: &'a dyn Fn(usize) -> bool,
    /// The present moment.
    pub now: Moment,
    /// The random numbers of the core.
    pub rng: &'a mut fastrand::Rng,
    /// The hash of the request's key, where the scheduler is [`Scheduler::Hash`].
    pub key: u64,
    /// The member of the request's session: it serves if it has room and its role's turn.
    pub wanted: Option<usize>,
}

/// The outcome of [`admit`].
#[derive(Debug)]
pub enum Admit {
    /// A slot.
    Slot(TakenSlot),
    /// No member has room; the request may join the queue.
    Full,
    /// No member may serve.
    Unavailable,
}

/// Gets the request a slot. While others wait it gets none: it joins them.
pub fn admit(cluster: &Cluster, view: &mut View<'_>) -> Admit {
    let is_queueing = cluster.is_queueing();
    for _ in 0..MAX_RACES {
        let role = match cluster.service(view.may_serve, view.now) {
            Service::Unavailable => return Admit::Unavailable,
            Service::Role(role) if !is_queueing && cluster.has_room() => role,
            Service::Role(_) | Service::Full => return Admit::Full,
        };
        let candidates = Candidates { cluster, role, may_serve: view.may_serve, now: view.now };
        let wanted = view.wanted.take().filter(|place| candidates.is_eligible(*place));
        let Some(place) = wanted.or_else(|| candidates.pick(view)) else { continue };
        if let Some(slot) = cluster.take(place, view.now) {
            return Admit::Slot(slot);
        }
    }
    Admit::Full
}

/// The members of one role that may serve a request now.
struct Candidates<'a> {
    cluster: &'a Cluster,
    role: Role,
    may_serve: &'a dyn Fn(usize) -> bool,
    now: Moment,
}

impl Candidates<'_> {
    fn pick(&self, view: &mut View<'_>) -> Option<usize> {
        match self.cluster.options.scheduler {
            Scheduler::Random => random::pick(self, view.rng),
            Scheduler::RoundRobin => round_robin::pick(self, view.rng),
            Scheduler::Chance => chance::pick(self),
            Scheduler::LeastLoad => least_load::pick(self, view.rng),
            Scheduler::Hash => hash::pick(self, view.key),
        }
    }

    /// Whether the member at `place` may serve and has room.
    fn is_eligible(&self, place: usize) -> bool {
        self.cluster.members.get(place).is_some_and(|member| {
            member.role() == self.role
                && member.attributes.weight > 0
                && member.is_up()
                && (self.may_serve)(place)
                && member.has_room(self.cluster.options.slow_start, self.now)
        })
    }

    fn eligible(&self) -> impl Iterator<Item = usize> {
        (0..self.cluster.members.len()).filter(|place| self.is_eligible(*place))
    }

    fn len(&self) -> usize {
        self.cluster.members.len()
    }

    /// The share of a member now: its weight, less what slow start takes from it.
    fn share(&self, place: usize) -> u64 {
        let member = &self.cluster.members[place];
        u64::from(member.attributes.weight) * u64::from(member.ramp(self.cluster.options.slow_start, self.now))
    }

    /// Whether slow start lets the member have this turn.
    fn passes_ramp(&self, place: usize, rng: &mut fastrand::Rng) -> bool {
        let ramp = self.cluster.members[place].ramp(self.cluster.options.slow_start, self.now);
        ramp >= 1024 || rng.u32(..1024) < ramp
    }

    fn in_flight(&self, place: usize) -> u64 {
        u64::from(self.cluster.members[place].state.in_flight())
    }
}

#[cfg(test)]
mod tests;
