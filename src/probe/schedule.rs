//! The schedule of probes, and the effects of their outcomes. It knows no socket and no clock: `now` is passed in, and
//! actions are returned.

use super::check::Outcome;
use super::connection::End;
use super::notice::Notice;
use super::target::{Target, Turn};
use crate::base::clock::Moment;
use crate::base::gen_slab::{GenSlab, SlotKey};
use crate::base::wheel::{Owners, Timer, Wheel};
use crate::cluster::{Admission, Backend, Cluster, Member, MemberState, Options};
use crate::health::{HealthMode, ProbeNews, ProbeSharing, SharedProbe, Verdict};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

/// The greatest number of running probes. Further ones wait for one to end.
pub(super) const MAX_RUNNING: usize = 256;

/// Below this number of clusters a purge is not worth its cost.
const MIN_PURGE: usize = 256;

/// An action to perform.
#[derive(Debug)]
pub(super) enum Action {
    /// Start a probe. A call of [`Schedule::ended`] has to follow.
    Start { target: SlotKey, backend: Arc<Backend>, options: Arc<Options>, host: Option<Box<str>> },
    /// A probe has timed out; a call of [`Schedule::ended`] has to report that.
    Expire(SlotKey),
    /// Cancel a probe, whose outcome is not needed any more.
    Cancel(SlotKey),
    /// This node's dead marks of a backend for these hosts have ended.
    Alive { hosts: Vec<Box<str>>, backend: Arc<Backend> },
    /// Write a log line.
    Tell(Notice),
}

/// All watched members.
#[derive(Debug)]
pub(super) struct Schedule {
    clusters: HashMap<usize, WatchedCluster>,
    /// At this number of clusters, those that are gone are removed.
    purge_at: usize,
    targets: GenSlab<Target>,
    timers: Wheel<Owner>,
    due: Vec<Owner>,
    /// Members whose probe is due and waits for another one to end.
    ready: VecDeque<SlotKey>,
    running: usize,
    rng: fastrand::Rng,
    actions: Vec<Action>,
    /// The probes of other nodes, if there are others.
    sharing: Option<Arc<ProbeSharing>>,
}

#[derive(Clone, Copy, Debug)]
enum Owner {
    Target(SlotKey),
    /// The end of an ejection in the cluster with this number.
    Cluster(usize),
}

#[derive(Debug)]
struct WatchedCluster {
    admission: Weak<Admission>,
    targets: Vec<SlotKey>,
    /// The earliest end of an ejection.
    timer: Timer,
    /// Ejected members.
    ejected: Vec<Arc<MemberState>>,
}

struct TimerOwners<'s> {
    clusters: &'s mut HashMap<usize, WatchedCluster>,
    targets: &'s mut GenSlab<Target>,
}

impl Owners<Owner> for TimerOwners<'_> {
    fn timer_of(&mut self, owner: Owner) -> Option<&mut Timer> {
        match owner {
            Owner::Target(key) => self.targets.get_mut(key).map(|target| &mut target.timer),
            Owner::Cluster(id) => self.clusters.get_mut(&id).map(|watched| &mut watched.timer),
        }
    }
}

impl Schedule {
    /// An empty schedule.
    pub(super) fn new(now: Moment, rng: fastrand::Rng) -> Self {
        Self {
            clusters: HashMap::new(),
            purge_at: MIN_PURGE,
            targets: GenSlab::default(),
            timers: Wheel::new(now),
            due: Vec::new(),
            ready: VecDeque::new(),
            running: 0,
            rng,
            actions: Vec::new(),
            sharing: None,
        }
    }

    /// Makes one of the nodes that share a cluster probe its members. Nothing is watched yet.
    pub(super) fn share(&mut self, sharing: &Arc<ProbeSharing>) {
        self.sharing = Some(Arc::clone(sharing));
    }

    /// The actions since the last call.
    pub(super) fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// The time of the next [`Schedule::advance`].
    pub(super) fn next_visit(&self) -> Moment {
        self.timers.next_visit()
    }

    /// Examines a cluster: its list or its options are new, a request has failed, or a member was ejected.
    pub(super) fn look_at(&mut self, admission: &Weak<Admission>, now: Moment) {
        self.watch(admission, now);
        // Members that were removed have made room for waiting probes.
        self.begin_ready(now);
    }

    fn watch(&mut self, admission: &Weak<Admission>, now: Moment) {
        let id = admission.as_ptr() as usize;
        let Some(cluster) = newest(admission) else { return self.forget(id) };
        if !cluster.options.health.is_on() {
            self.forget(id);
            cluster.admission.pardon(now);
            cluster.serve(now);
            return self.clear_verdicts(&cluster, now);
        }
        if self.clusters.len() >= self.purge_at {
            self.purge();
        }
        let timers = &mut self.timers;
        self.clusters.entry(id).or_insert_with(|| WatchedCluster {
            admission: Weak::clone(admission),
            targets: Vec::new(),
            timer: timers.insert(Owner::Cluster(id)),
            ejected: Vec::new(),
        });
        self.update_targets(id, &cluster, now);
        if !cluster.options.health.rules().are_on() {
            cluster.admission.pardon(now);
        }
        self.watch_ejections(id, &cluster, now);
    }

    /// Removes clusters that are gone. A cluster with probes is removed at its next probe, but clusters with outlier
    /// detection alone have none.
    fn purge(&mut self) {
        let is_gone = |watched: &WatchedCluster| newest(&watched.admission).is_none();
        let gone: Vec<_> = self.clusters.iter().filter(|(_, watched)| is_gone(watched)).map(|(id, _)| *id).collect();
        gone.into_iter().for_each(|id| self.forget(id));
        self.purge_at = MIN_PURGE.max(2 * self.clusters.len());
    }

    /// Watches the members of the newest list: those that stay keep their monitor.
    fn update_targets(&mut self, id: usize, cluster: &Cluster, now: Moment) {
        let Some(watched) = self.clusters.get_mut(&id) else { return };
        let before = std::mem::take(&mut watched.targets);
        let health = &cluster.options.health;
        let mut kept = Vec::new();
        for member in cluster.members.iter().filter(|_| health.mode != HealthMode::Off) {
            let is_of = |key: &SlotKey| self.targets.get(*key).is_some_and(|target| target.watches(&member.state));
            // An endpoint may occur in a list twice.
            if kept.iter().any(is_of) {
                continue;
            }
            let key = match before.iter().copied().find(is_of) {
                Some(key) => key,
                None => {
                    let (timers, jitter) = (&mut self.timers, self.rng.f64());
                    let key = self.targets.insert_with(|key| {
                        let timer = timers.insert(Owner::Target(key));
                        Target::new(id, Arc::clone(&member.state), timer, health, now, jitter)
                    });
                    if let Some(sharing) = self.sharing.as_ref().filter(|_| cluster.is_shared()) {
                        sharing.join(key.pack(), shared_probe(cluster, member));
                    }
                    key
                }
            };
            if let Some(target) = self.targets.get_mut(key) {
                target.update(health, now);
                let next = target.next_turn(health, now);
                self.timers.set(&mut target.timer, next);
                give_up_idle(self.sharing.as_deref(), key, next);
            }
            kept.push(key);
        }
        for key in before.iter().filter(|key| !kept.contains(key)) {
            self.remove_target(*key);
        }
        if health.mode == HealthMode::Off {
            self.clear_verdicts(cluster, now);
        }
        if let Some(watched) = self.clusters.get_mut(&id) {
            watched.targets = kept;
        }
    }

    /// Clears the verdicts of probes about a cluster's members: nothing would ever reverse them.
    fn clear_verdicts(&mut self, cluster: &Cluster, now: Moment) {
        for member in &cluster.members {
            if cluster.unwatch(&member.state, now) {
                self.actions.push(Action::Tell(Notice::unwatched(cluster, member)));
            }
        }
    }

    /// Stops watching a member. A member that has left its list may come back with its state.
    fn remove_target(&mut self, key: SlotKey) {
        let Some(mut target) = self.targets.remove(key) else { return };
        self.timers.remove(&mut target.timer);
        if let Some(sharing) = &self.sharing {
            sharing.leave(key.pack());
        }
        if target.is_running() {
            self.running -= 1;
            self.actions.push(Action::Cancel(key));
        }
    }

    /// Stops watching a cluster.
    fn forget(&mut self, id: usize) {
        let Some(mut watched) = self.clusters.remove(&id) else { return };
        self.timers.remove(&mut watched.timer);
        watched.targets.iter().for_each(|key| self.remove_target(*key));
    }

    /// Records the ejected members and the end of the first ejection.
    fn watch_ejections(&mut self, id: usize, cluster: &Cluster, now: Moment) {
        let Some(watched) = self.clusters.get_mut(&id) else { return };
        cluster.admission.update_ejections(now);
        let end_of = |state: &MemberState| state.known_health()?.ejection(now).map(|(until, _)| until);
        let mut before = std::mem::take(&mut watched.ejected);
        before.retain(|state| end_of(state).is_none());
        let is_any_back = !before.is_empty();
        for member in before.iter().filter_map(|state| member_of(cluster, state)) {
            self.actions.push(Action::Tell(Notice::ejection_over(cluster, member)));
        }
        let mut first_end = Moment::NEVER;
        for member in &cluster.members {
            if let Some(until) = end_of(&member.state) {
                watched.ejected.push(Arc::clone(&member.state));
                first_end = first_end.min(until);
            }
        }
        self.timers.set(&mut watched.timer, first_end);
        if is_any_back {
            cluster.serve(now);
        }
    }

    /// Performs everything that is due.
    pub(super) fn advance(&mut self, now: Moment) {
        let mut due = std::mem::take(&mut self.due);
        let mut owners = TimerOwners { clusters: &mut self.clusters, targets: &mut self.targets };
        self.timers.advance(now, &mut due, &mut owners);
        for owner in due.drain(..) {
            match owner {
                Owner::Target(key) => self.target_due(key, now),
                Owner::Cluster(id) => {
                    let cluster = self.clusters.get(&id).and_then(|watched| newest(&watched.admission));
                    match cluster {
                        Some(cluster) => self.watch_ejections(id, &cluster, now),
                        None => self.forget(id),
                    }
                }
            }
        }
        self.due = due;
        self.begin_ready(now);
    }

    fn target_due(&mut self, key: SlotKey, now: Moment) {
        let Some(target) = self.targets.get(key) else { return };
        if target.is_running() {
            return self.actions.push(Action::Expire(key));
        }
        if self.running < MAX_RUNNING { self.begin(key, now) } else { self.ready.push_back(key) }
    }

    /// Starts a probe, unless there is a reason not to.
    fn begin(&mut self, key: SlotKey, now: Moment) {
        let waits = self.targets.get(key).filter(|target| !target.is_running());
        let Some(id) = waits.map(|target| target.cluster) else { return };
        let Some(watched) = self.clusters.get(&id) else { return };
        let held = watched.targets.iter().filter(|key| self.targets.get(**key).is_some_and(Target::holds_slot)).count();
        let Some(cluster) = newest(&watched.admission) else { return self.forget(id) };
        // The holders are the directory, this function, and each probe with a slot. Hosts hold it too if it is in use.
        let is_in_use = Arc::strong_count(&cluster) > 2 + held;
        let Some(target) = self.targets.get_mut(key) else { return };
        let health = &cluster.options.health;
        let Some(place) = cluster.members.iter().position(|member| target.watches(&member.state)) else { return };
        let member = &cluster.members[place];
        let (backend, jitter) = (Arc::clone(&member.backend), self.rng.f64());
        let host = member.attributes.host.clone();
        let sharing = self.sharing.as_deref();
        let is_turn = || sharing.is_none_or(|sharing| sharing.is_turn(key.pack()));
        let turn = match is_in_use {
            true => target.turn((&cluster, place), is_turn, now, jitter),
            false => target.skip(health, now, jitter),
        };
        match turn {
            Turn::At(moment) => {
                self.timers.set(&mut target.timer, moment);
                // This node has no need to probe it now.
                give_up_idle(sharing, key, Moment::NEVER);
            }
            Turn::Another(moment) => self.timers.set(&mut target.timer, moment),
            Turn::Probe => {
                self.running += 1;
                self.timers.set(&mut target.timer, now + health.timeout);
                let options = Arc::clone(&cluster.options);
                self.actions.push(Action::Start { target: key, backend, options, host });
            }
        }
    }

    /// Handles the end of a probe. `None`: this node could not make it.
    pub(super) fn ended(&mut self, key: SlotKey, end: End, now: Moment) {
        let Some(target) = self.targets.get_mut(key).filter(|target| target.is_running()) else { return };
        let id = target.cluster;
        let Some(cluster) = self.clusters.get(&id).and_then(|watched| newest(&watched.admission)) else {
            self.forget(id);
            return self.begin_ready(now);
        };
        self.running -= 1;
        let health = &cluster.options.health;
        let verdict = target.ended(end.map(|outcome| outcome.is_ok()), health, now, self.rng.f64());
        let (state, next) = (Arc::clone(&target.state), target.next_turn(health, now));
        self.timers.set(&mut target.timer, next);
        if let (Some(sharing), Some(outcome)) = (&self.sharing, end) {
            sharing.ended(key.pack(), outcome);
            if let Some(verdict) = verdict.filter(|_| cluster.members.len() > 1) {
                sharing.judged(key.pack(), verdict == Verdict::Down);
            }
        }
        if let (Some(verdict), Some(outcome)) = (verdict, end) {
            self.apply(&cluster, &state, verdict, outcome, now);
        }
        give_up_idle(self.sharing.as_deref(), key, next);
        self.begin_ready(now);
    }

    /// Applies the news of other nodes.
    pub(super) fn hear(&mut self, news: &ProbeNews, now: Moment) {
        let (ProbeNews::Turn(id) | ProbeNews::Foreign(id) | ProbeNews::Seen { id, .. }) = *news;
        let key = SlotKey::unpack(id);
        let Some(target) = self.targets.get_mut(key).filter(|target| !target.is_running()) else { return };
        let watched = self.clusters.get(&target.cluster);
        let Some(cluster) = watched.and_then(|watched| newest(&watched.admission)) else { return };
        let (health, jitter) = (&cluster.options.health, self.rng.f64());
        let mut judged = None;
        match *news {
            ProbeNews::Turn(_) => target.probe_now(now),
            ProbeNews::Foreign(_) => target.restart(health, now, jitter),
            ProbeNews::Seen { outcome, count, has_turned, .. } => {
                let verdict = target.observed((outcome.is_ok(), count, has_turned), health, now, jitter);
                judged = verdict.map(|verdict| (verdict, outcome));
            }
        }
        let (state, next) = (Arc::clone(&target.state), target.next_turn(health, now));
        self.timers.set(&mut target.timer, next);
        give_up_idle(self.sharing.as_deref(), key, next);
        if let Some((verdict, outcome)) = judged {
            self.apply(&cluster, &state, verdict, outcome, now);
        }
        if let ProbeNews::Foreign(_) = news
            && cluster.unwatch(&state, now)
            && let Some(member) = member_of(&cluster, &state)
        {
            self.actions.push(Action::Tell(Notice::foreign(&cluster, member)));
        }
    }

    /// Starts probes that have waited for others to end.
    fn begin_ready(&mut self, now: Moment) {
        while self.running < MAX_RUNNING {
            let Some(next) = self.ready.pop_front() else { break };
            self.begin(next, now);
        }
    }

    fn apply(&mut self, cluster: &Cluster, state: &MemberState, verdict: Verdict, outcome: Outcome, now: Moment) {
        let Some(member) = cluster.members.iter().find(|member| std::ptr::eq(&*member.state, state)) else { return };
        let was_down = state.is_down();
        if let (Verdict::Down, Err(fault)) = (verdict, outcome) {
            cluster.set_down(state, fault, now);
            return self.actions.push(Action::Tell(Notice::down(cluster, member, fault)));
        }
        let stays_disabled = verdict == Verdict::UpDisabled;
        let hosts = cluster.set_up(state, stays_disabled, now);
        if stays_disabled {
            self.actions.push(Action::Tell(Notice::up_disabled(cluster, member)));
        } else if was_down || !hosts.is_empty() {
            self.actions.push(Action::Tell(Notice::up(cluster, member, was_down)));
        }
        if !hosts.is_empty() {
            self.actions.push(Action::Alive { hosts, backend: Arc::clone(&member.backend) });
        }
    }

    /// Number of running probes.
    #[cfg(test)]
    pub(super) fn running(&self) -> usize {
        self.running
    }

    /// Number of watched clusters.
    #[cfg(test)]
    pub(super) fn clusters(&self) -> usize {
        self.clusters.len()
    }

    /// Number of watched members.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.targets.len()
    }
}

fn newest(admission: &Weak<Admission>) -> Option<Arc<Cluster>> {
    admission.upgrade()?.newest()
}

/// A lock that this node does not need is released.
fn give_up_idle(sharing: Option<&ProbeSharing>, key: SlotKey, next: Moment) {
    if let Some(sharing) = sharing.filter(|_| next == Moment::NEVER) {
        sharing.give_up(key.pack());
    }
}

/// A member under the names that are the same on all nodes.
fn shared_probe(cluster: &Cluster, member: &Member) -> SharedProbe {
    SharedProbe {
        url: member.url.without_attributes().into(),
        pattern: cluster.key.clone(),
        identity: member.identity(),
    }
}

fn member_of<'c>(cluster: &'c Cluster, state: &Arc<MemberState>) -> Option<&'c Member> {
    cluster.members.iter().find(|member| Arc::ptr_eq(&member.state, state))
}
