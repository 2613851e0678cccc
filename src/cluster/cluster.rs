//! A cluster: the members that serve one frontend, their selection, and the slots in use.

use super::admission::{Admission, Classes};
use super::member::Member;
use super::options::{Options, Scheduler};
use super::ring::Ring;
use super::rotation::Rotation;
use crate::base::clock::Moment;
use std::sync::Arc;
use std::time::Duration;

/// The state of a cluster at one moment: an edit makes a new one with the same [`Admission`].
///
/// There is one for each frontend key, shared by all hosts that resolve to it and by all cores.
#[derive(Debug)]
pub struct Cluster {
    /// The pattern of its list: a host, `*.suffix` or `*`. A cluster that no host leads to has another name.
    pub key: Box<str>,
    /// Item 0 of the list: any text, shown in the access log.
    pub id: Box<str>,
    /// The members in the order of the list. An empty list is legal.
    pub members: Box<[Member]>,
    /// The options.
    pub options: Arc<Options>,
    /// The part that outlives edits.
    pub admission: Arc<Admission>,
    /// The classes of requests, if the option `buckets` applies.
    pub(super) classes: Option<Classes>,
    /// Why the option `buckets` does not apply, or not as written.
    pub buckets_problem: Option<Box<str>>,
    /// Whether outcomes of requests are used to judge its members.
    pub(super) judges_requests: bool,
    /// See [`ClusterSpec::created`](super::ClusterSpec::created).
    pub created: u64,
    /// See [`Cluster::app`], where it is not `id`.
    app: Option<Box<str>>,
    tables: Tables,
}

/// The interval of checks for room while requests taken before a limit existed are in flight.
const APART_STEP: Duration = Duration::from_secs(1);

/// Tables of the schedulers, made once for each list.
#[derive(Debug, Default)]
struct Tables {
    rotation: Rotation,
    ring: Arc<Ring>,
    max_weight: u32,
    total_weight: u64,
    has_capacities: bool,
}

impl Cluster {
    /// A cluster of these members. It serves waiting requests once it is published; its limits and buckets apply at
    /// once.
    pub(super) fn new(
        key: Box<str>,
        (id, created): (Box<str>, u64),
        members: Box<[Member]>,
        options: Arc<Options>,
        admission: Arc<Admission>,
        now: Moment,
    ) -> Self {
        let tables = Tables::new(&members, options.scheduler, &admission);
        admission.set_limits(&members, &options, now);
        let (classes, buckets_problem) = admission.shape(&members, &options, now);
        let buckets_problem = buckets_problem.map(String::into_boxed_str);
        let judges_requests = options.health.is_on();
        let app = (created != 0).then(|| format!("{id}\n{created}").into());
        Self { key, id, members, options, admission, judges_requests, classes, buckets_problem, created, app, tables }
    }

    /// What tells its cached objects from those of another application that had its key.
    pub fn app(&self) -> &str {
        self.app.as_deref().unwrap_or(&self.id)
    }

    /// The time until which room may appear without an event: a member with a capacity is in slow start, or requests
    /// taken before a capacity existed are still in flight.
    pub(super) fn ramps_until(&self, now: Moment) -> Moment {
        let is_left = self.admission.has_apart() || self.members.iter().any(|member| member.state.has_apart());
        let left_until = if is_left { now + APART_STEP } else { Moment::ZERO };
        let limited = self.members.iter().filter(|_| self.tables.has_capacities);
        let ends = limited.map(|member| member.ramps_until(self.options.slow_start));
        ends.max().unwrap_or(Moment::ZERO).max(left_until)
    }

    /// Whether any member has room, for any request.
    pub(super) fn has_room_anywhere(&self, now: Moment) -> bool {
        self.members.iter().any(|member| member.is_up() && member.has_room(self.options.slow_start, now))
    }

    /// Gives free slots to waiting requests, oldest first, and updates the number of tokens if there are buckets. To be
    /// called when room has changed for a reason other than an edit or a returned slot: a member is up, down, enabled
    /// or disabled.
    pub fn serve(&self, now: Moment) {
        self.admission.update_root(now);
        self.admission.serve(now);
    }

    /// The turns of the scheduler `rr`.
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
    fn new(members: &[Member], scheduler: Scheduler, admission: &Admission) -> Self {
        let weights: Vec<u32> = members.iter().map(|member| member.attributes.weight).collect();
        let ring =
            || admission.ring_of(members.iter().map(|member| (member.identity(), member.attributes.weight)).collect());
        Self {
            rotation: if scheduler == Scheduler::RoundRobin { Rotation::new(&weights) } else { Rotation::default() },
            ring: if scheduler == Scheduler::Hash { ring() } else { Arc::default() },
            max_weight: weights.iter().copied().max().unwrap_or(0),
            total_weight: weights.iter().map(|weight| u64::from(*weight)).sum(),
            has_capacities: members.iter().any(|member| member.attributes.capacity.is_some()),
        }
    }
}
