//! A cluster: the members that serve one frontend, how one is chosen, and who holds slots.

use super::admission::{Admission, Classes};
use super::attributes::Role;
use super::member::Member;
use super::options::{Options, Scheduler};
use super::ring::Ring;
use super::rotation::Rotation;
use crate::base::clock::Moment;
use std::sync::Arc;

/// A cluster at one moment: an edit makes a new one around the same [`Admission`].
///
/// There is one for each frontend key, shared by all hosts that resolve to it and by all cores.
#[derive(Debug)]
pub struct Cluster {
    /// The pattern whose list it is: a host, `*.suffix` or `*`. Another name for a cluster that no host leads to.
    pub key: Box<str>,
    /// Item 0 of the list: any text, shown in the access log.
    pub id: Box<str>,
    /// The members, in the order of the list. None at all is legal.
    pub members: Box<[Member]>,
    /// The options.
    pub options: Arc<Options>,
    /// The part that outlives edits.
    pub admission: Arc<Admission>,
    /// The classes of requests, where the option `buckets` applies.
    pub(super) classes: Option<Classes>,
    /// Why the option `buckets` does not apply, or not as it is written.
    pub buckets_problem: Option<Box<str>>,
    tables: Tables,
}

/// Tables of the schedulers, made once for each list.
#[derive(Debug, Default)]
struct Tables {
    rotation: Rotation,
    ring: Ring,
    max_weight: u32,
    total_weight: u64,
    has_capacities: bool,
}

/// The members that may serve a request now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Those of this role; at least one has room.
    Role(Role),
    /// Some member is up, and none has room.
    Full,
    /// None is up.
    Unavailable,
}

impl Cluster {
    /// A cluster of these members. It serves waiting requests once it is published; its limits and buckets apply
    /// at once.
    pub(super) fn new(
        key: Box<str>,
        id: Box<str>,
        members: Box<[Member]>,
        options: Arc<Options>,
        admission: Arc<Admission>,
        now: Moment,
    ) -> Self {
        let tables = Tables::new(&members, options.scheduler);
        admission.set_limits(&members, &options);
        let (classes, buckets_problem) = admission.shape(&members, &options, now);
        let buckets_problem = buckets_problem.map(String::into_boxed_str);
        Self { key, id, members, options, admission, classes, buckets_problem, tables }
    }

    /// The members that serve at `now`. `may_serve` leaves out those that the request has tried or that its host marks
    /// dead. Source: x0d 0.5: standby helps in an overload, backup in an outage; a full cluster never spills to backup.
    pub fn service(&self, may_serve: impl Fn(usize) -> bool, now: Moment) -> Service {
        let mut is_any_up = false;
        for role in Role::ALL {
            if role == Role::Backup && is_any_up {
                break;
            }
            let mut members = self.members.iter().enumerate().filter(|(_, member)| member.role() == role);
            let has_room = members.any(|(place, member)| {
                let is_up = member.is_up() && member.attributes.weight > 0 && may_serve(place);
                is_any_up |= is_up;
                is_up && member.has_room(self.options.slow_start, now)
            });
            if has_room {
                return Service::Role(role);
            }
        }
        if is_any_up { Service::Full } else { Service::Unavailable }
    }

    /// Whether room may appear by the passing of time alone: a member with a capacity is in its slow start, or requests of
    /// before there was a capacity are still in flight.
    pub fn is_ramping(&self, now: Moment) -> bool {
        let is_ramping = |member: &Member| {
            let rises = member.is_up() && member.ramp(self.options.slow_start, now) < 1024;
            rises || member.state.has_apart()
        };
        self.admission.has_apart() || (self.tables.has_capacities && self.members.iter().any(is_ramping))
    }

    /// Gives free slots to waiting requests, oldest first, and computes the number of tokens anew where there are buckets.
    /// To be called when the room has changed otherwise than by an edit or a slot that was given back: a member is up, down,
    /// enabled or disabled.
    pub fn serve(&self, now: Moment) {
        self.admission.update_root(now);
        self.admission.serve(now);
    }

    /// Turns of the scheduler `rr`.
    pub fn rotation(&self) -> &Rotation {
        &self.tables.rotation
    }

    /// The ring of the scheduler `hash`.
    pub fn ring(&self) -> &Ring {
        &self.tables.ring
    }

    /// The weight of the heaviest member.
    pub fn max_weight(&self) -> u32 {
        self.tables.max_weight
    }

    /// The weight of all members.
    pub fn total_weight(&self) -> u64 {
        self.tables.total_weight
    }

    /// Whether any member has a capacity.
    pub fn has_capacities(&self) -> bool {
        self.tables.has_capacities
    }
}

impl Tables {
    fn new(members: &[Member], scheduler: Scheduler) -> Self {
        let weights: Vec<u32> = members.iter().map(|member| member.attributes.weight).collect();
        let identities = members.iter().map(|member| (member.identity(), member.attributes.weight));
        Self {
            rotation: if scheduler == Scheduler::RoundRobin { Rotation::new(&weights) } else { Rotation::default() },
            ring: if scheduler == Scheduler::Hash { Ring::new(identities) } else { Ring::default() },
            max_weight: weights.iter().copied().max().unwrap_or(0),
            total_weight: weights.iter().map(|weight| u64::from(*weight)).sum(),
            has_capacities: members.iter().any(|member| member.attributes.capacity.is_some()),
        }
    }
}
