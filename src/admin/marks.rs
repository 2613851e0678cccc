//! The dead marks of the hosts that lead to a cluster, summed up for each of its backends.

use super::Sources;
use crate::base::clock::Moment;
use crate::cluster::{Cluster, Mark, Route};
use crate::health::Observation;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// The greatest number of marks examined for one cluster: hosts beyond it are left out.
const MAX_LOOKS: usize = 1_000_000;

/// The greatest number of hosts named for one cluster.
const MAX_NAMES: usize = 1000;

/// The state of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Health {
    /// `up`, `partly_dead`, `dead`, `down`, `ejected`, `draining`, `disabled` or `removed`.
    pub(super) state: &'static str,
    /// Why it does not serve.
    pub(super) reason: Option<String>,
    /// The source of the state: `list`, `operator`, `probes`, `requests` of this node, or `others`.
    pub(super) judge: Option<&'static str>,
    /// The remaining time, if known.
    pub(super) left: Option<Duration>,
}

impl Health {
    pub(super) const UP: Self = Self { state: "up", reason: None, judge: None, left: None };

    pub(super) fn new(state: &'static str, judge: &'static str, reason: impl ToString) -> Self {
        Self { state, reason: Some(reason.to_string()), judge: Some(judge), left: None }
    }
}

/// The hosts in use that lead to one cluster.
#[derive(Clone, Debug, Default)]
pub(super) struct Hosts {
    pub(super) count: usize,
    /// Some of their names.
    pub(super) names: Vec<Box<str>>,
    /// The routes of hosts that have marked a backend.
    marked: Vec<Arc<Route>>,
}

impl Hosts {
    fn add(&mut self, route: Arc<Route>, now: Moment) {
        self.count += 1;
        if self.names.len() < MAX_NAMES {
            self.names.push(route.host.clone());
        }
        if route.has_marks(now) {
            self.marked.push(route);
        }
    }
}

/// The marks of the hosts of clusters. A cluster named after a host is found directly; the hosts of patterns take one
/// pass over all routes, made only if the clusters include a pattern.
pub(super) struct MarkIndex<'a> {
    sources: &'a Sources,
    now: Moment,
    of_patterns: Option<HashMap<Box<str>, Hosts>>,
}

impl<'a> MarkIndex<'a> {
    pub(super) fn new(sources: &'a Sources, now: Moment) -> Self {
        Self { sources, now, of_patterns: None }
    }

    /// The hosts that lead to a cluster.
    pub(super) fn hosts(&mut self, cluster: &Cluster) -> Hosts {
        if !cluster.key.starts_with('*') {
            let mut hosts = Hosts::default();
            let route = self.sources.directory.route(&cluster.key).filter(|route| route.cluster.key == cluster.key);
            route.into_iter().for_each(|route| hosts.add(route, self.now));
            return hosts;
        }
        self.walk().get(&cluster.key).cloned().unwrap_or_default()
    }

    /// The marks of a route without a host.
    pub(super) fn marks_of(route: &Arc<Route>, now: Moment) -> HostMarks {
        let mut hosts = Hosts::default();
        hosts.add(Arc::clone(route), now);
        HostMarks::of(&route.cluster, &hosts, now)
    }

    /// The marks of a cluster's hosts.
    pub(super) fn marks(&mut self, cluster: &Cluster) -> HostMarks {
        let now = self.now;
        if cluster.key.starts_with('*') {
            return self
                .walk()
                .get(&cluster.key)
                .map_or_else(HostMarks::default, |hosts| HostMarks::of(cluster, hosts, now));
        }
        // Most hosts have no marks, and no data is collected for them.
        let route = self.sources.directory.route(&cluster.key).filter(|route| route.cluster.key == cluster.key);
        match route.filter(|route| route.has_marks(now)) {
            Some(route) => {
                let mut hosts = Hosts::default();
                hosts.add(route, now);
                HostMarks::of(cluster, &hosts, now)
            }
            None => HostMarks::default(),
        }
    }

    fn walk(&mut self) -> &mut HashMap<Box<str>, Hosts> {
        let (sources, now) = (self.sources, self.now);
        self.of_patterns.get_or_insert_with(|| {
            let mut by_key: HashMap<Box<str>, Hosts> = HashMap::new();
            for route in sources.directory.routes().into_iter().filter(|route| route.cluster.key.starts_with('*')) {
                match by_key.get_mut(&route.cluster.key) {
                    Some(hosts) => hosts.add(route, now),
                    None => by_key.entry(route.cluster.key.clone()).or_default().add(route, now),
                }
            }
            by_key
        })
    }
}

/// The marks of the hosts of one cluster.
#[derive(Debug, Default)]
pub(super) struct HostMarks {
    /// One entry for each member; empty if no host has marked any.
    members: Vec<MemberMarks>,
}

/// The marks of the hosts of one cluster against one of its members.
#[derive(Clone, Debug, Default)]
pub(super) struct MemberMarks {
    hosts: usize,
    marked: usize,
    /// The mark that ends last.
    last: Option<LastMark>,
}

#[derive(Clone, Debug)]
struct LastMark {
    ends_at: Moment,
    judge: &'static str,
    reason: String,
    /// The host, if the cluster is not named after it.
    host: Option<Box<str>>,
}

impl HostMarks {
    /// Collects the marks in one pass over the hosts that have any.
    pub(super) fn of(cluster: &Cluster, hosts: &Hosts, now: Moment) -> Self {
        if hosts.marked.is_empty() {
            return Self::default();
        }
        let none = MemberMarks { hosts: hosts.count, ..MemberMarks::default() };
        let mut members = vec![none; cluster.members.len()];
        for route in hosts.marked.iter().take(MAX_LOOKS / cluster.members.len().max(1)) {
            for (place, (member, marks)) in cluster.members.iter().zip(&mut members).enumerate() {
                let at_place = route.marks.get(place).filter(|mark| Arc::ptr_eq(&mark.backend, &member.backend));
                let mark = at_place.or_else(|| route.mark_of(member.backend.id()));
                if let Some((mark, ends_at)) = mark.and_then(|mark| Some((mark, mark.ends_at(now)?))) {
                    marks.add(mark, ends_at, route, now);
                }
            }
        }
        Self { members }
    }

    pub(super) fn of_member(&self, place: usize) -> &MemberMarks {
        const NONE: &MemberMarks = &MemberMarks { hosts: 0, marked: 0, last: None };
        self.members.get(place).unwrap_or(NONE)
    }
}

impl MemberMarks {
    fn add(&mut self, mark: &Mark, ends_at: Moment, route: &Route, now: Moment) {
        self.marked += 1;
        if self.last.as_ref().is_none_or(|last| last.ends_at < ends_at) {
            let host = (route.cluster.key != route.host).then(|| route.host.clone());
            let (judge, reason) = reason_of(mark, now);
            self.last = Some(LastMark { ends_at, judge, reason, host });
        }
    }

    /// Whether no host has a mark.
    pub(super) fn is_free(&self) -> bool {
        self.marked == 0
    }

    /// Whether every host has a mark.
    pub(super) fn are_of_all(&self) -> bool {
        self.marked > 0 && self.marked >= self.hosts
    }

    /// The state of an otherwise serving member according to the marks; `None` without marks.
    pub(super) fn health(&self, now: Moment) -> Option<Health> {
        let LastMark { ends_at, judge, reason, host } = self.last.as_ref()?;
        let state = if self.are_of_all() { "dead" } else { "partly_dead" };
        let reason = match host {
            None => reason.clone(),
            Some(host) => format!("{reason} (for {} of {} hosts, among them {host})", self.marked, self.hosts),
        };
        // A mark without an end has no remaining time.
        let left = Some(ends_at.since(now)).filter(|_| *ends_at != Moment::NEVER);
        Some(Health { left, ..Health::new(state, judge, reason) })
    }
}

/// The source and the reason of the mark that counts.
fn reason_of(mark: &Mark, now: Moment) -> (&'static str, String) {
    if mark.dead_by_operator_until(now).is_some() {
        return ("operator", "marked dead by an operator of this node".to_owned());
    }
    let seen = Observation::from_code(mark.reason()).filter(|_| mark.dead_until(now).is_some());
    let of_others = || ("others", "marked dead by a checker or another node".to_owned());
    seen.map_or_else(of_others, |seen| ("requests", seen.to_string()))
}
