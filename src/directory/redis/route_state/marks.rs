//! Dead marks: indexes in a list in Redis, endpoints inside.
//!
//! A mark in Redis applies to the URL that was at its index when the mark was first seen, for as long as the mark
//! exists, wherever that URL moves. A mark of this node is a guess; a mark of others excludes a backend. Once a mark of
//! this node was seen in Redis, its removal there ends it here.

use super::super::reading::{Dead, Listing};
use super::snapshot_routes::SnapshotRoute;
use super::{Output, RouteState};
use crate::base::clock::Moment;
use crate::cluster::{BackendUrl, Endpoint, Route};
use std::collections::HashMap;
use std::time::Duration;

/// Time for which a heartbeat of an active checker counts.
const CHECKER_LIFE: Duration = Duration::from_secs(30);

/// Below this number of hosts a purge is not worth its cost.
const MIN_PURGE: usize = 1024;

/// A mark to publish to other nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::directory::redis) struct OwnMark {
    pub(in crate::directory::redis) host: Box<str>,
    pub(in crate::directory::redis) url: BackendUrl,
    /// The index in the list, from 0.
    pub(in crate::directory::redis) index: usize,
    /// Number of backends in the list.
    pub(in crate::directory::redis) total: usize,
    pub(in crate::directory::redis) until: Moment,
    pub(in crate::directory::redis) task: MarkTask,
}

/// The task for a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::directory::redis) enum MarkTask {
    /// Publish and write it.
    Store,
    /// Publish it: an active checker decides.
    Publish,
    /// Remove it early.
    Remove,
}

#[derive(Debug)]
pub(super) struct Marks {
    /// Duration of a mark that has no expiry in Redis (`server.deadBackendTTL`).
    life: Duration,
    by_host: HashMap<Box<str>, HostMarks>,
    purge_at: usize,
}

/// The marks of a host. Hosts without any have no entry.
#[derive(Debug, Default)]
struct HostMarks {
    /// The marks in Redis.
    seen: HashMap<usize, Seen>,
    own: Vec<Own>,
    /// Original indexes, if backends of the list were left out.
    places: Option<Box<[usize]>>,
    total: usize,
}

/// A mark in Redis.
#[derive(Clone, Debug)]
struct Seen {
    /// The endpoint that it was made for. If the index was empty, a backend added later is not affected.
    endpoint: Option<Endpoint>,
    /// The time at which it was first seen.
    since: Moment,
}

#[derive(Debug)]
struct Own {
    endpoint: Endpoint,
    until: Moment,
    was_seen: bool,
    /// It was written to Redis.
    is_stored: bool,
}

impl HostMarks {
    /// The original index of the member at `place`.
    fn index_of(&self, place: usize) -> usize {
        self.places.as_ref().map_or(place, |places| places.get(place).copied().unwrap_or(place))
    }
}

impl Marks {
    pub(super) fn new(life: Duration) -> Self {
        Self { life, by_host: HashMap::new(), purge_at: 0 }
    }

    /// Marks the backends of `route` dead and alive according to Redis.
    pub(super) fn apply(&mut self, route: &Route, listing: &Listing, dead: &Dead, checker_until: Moment, now: Moment) {
        if dead.indexes.is_empty() && listing.places.is_none() && !self.by_host.contains_key(&route.host) {
            return;
        }
        let marks = self.by_host.entry(route.host.clone()).or_default();
        marks.places.clone_from(&listing.places);
        marks.total = listing.total;
        marks.own.retain(|own| own.until > now);
        let before = std::mem::take(&mut marks.seen);
        let stands_at = |index: usize| {
            (0..route.marks.len()).find(|member| listing.place_of(*member) == index).map(|member| &route.marks[member])
        };
        for index in &dead.indexes {
            let seen = before.get(index).cloned().unwrap_or_else(|| Seen {
                endpoint: stands_at(*index).map(|mark| mark.backend.endpoint().clone()),
                since: now,
            });
            marks.seen.insert(*index, seen);
        }
        // A mark without an expiry was left by a node that died between two commands, and would last for ever.
        let until = |seen: &Seen| dead.ttl.map_or(seen.since + self.life, |ttl| now + ttl);
        let mut ends: HashMap<&Endpoint, Moment> = HashMap::new();
        for (endpoint, seen) in marks.seen.values().filter_map(|seen| Some((seen.endpoint.as_ref()?, seen))) {
            let end = ends.entry(endpoint).or_insert(Moment::ZERO);
            *end = until(seen).max(*end);
        }
        let mut has_lifted = false;
        for mark in &route.marks {
            let endpoint = mark.backend.endpoint();
            let own = marks.own.iter_mut().find(|own| own.endpoint == *endpoint);
            match (ends.get(endpoint), own) {
                (Some(_), Some(own)) if checker_until <= now => own.was_seen = true,
                (Some(until), own) => {
                    if let Some(own) = own {
                        own.was_seen = true;
                    }
                    mark.mark_dead_external(*until);
                }
                (None, own) => {
                    has_lifted |= mark.ends_at(now).is_some();
                    mark.mark_dead_external(Moment::ZERO);
                    if let Some(own) = own.filter(|own| own.was_seen) {
                        own.until = Moment::ZERO;
                        mark.mark_dead(Moment::ZERO);
                    }
                }
            }
        }
        if has_lifted {
            // Requests may wait for a member that is usable again.
            route.cluster.serve(now);
        }
        marks.own.retain(|own| own.until > now);
        if marks.seen.is_empty() && marks.own.is_empty() && marks.places.is_none() {
            self.by_host.remove(&route.host);
        }
    }

    /// Records a mark of this node. `None` if the endpoint has left the list.
    pub(super) fn make(&mut self, route: &Route, endpoint: &Endpoint, until: Moment, store: bool) -> Option<OwnMark> {
        let place = route.marks.iter().position(|mark| mark.backend.endpoint() == endpoint)?;
        let url = route.cluster.members.get(place)?.url.clone();
        let marks = self.by_host.entry(route.host.clone()).or_default();
        if marks.places.is_none() {
            marks.total = route.marks.len();
        }
        match marks.own.iter_mut().find(|own| own.endpoint == *endpoint) {
            Some(own) => (own.until, own.is_stored) = (until, store),
            // A checker that finds the backend alive removes its mark from Redis, and this mark then ends too.
            None => {
                let was_seen = marks.seen.values().any(|seen| seen.endpoint.as_ref() == Some(endpoint));
                marks.own.push(Own { endpoint: endpoint.clone(), until, was_seen, is_stored: store });
            }
        }
        let (index, total) = (marks.index_of(place), marks.total);
        let task = if store { MarkTask::Store } else { MarkTask::Publish };
        Some(OwnMark { host: route.host.clone(), url, index, total, until, task })
    }

    /// Ends a mark of this node early. `None` if there is none, or if an active checker owns it. It is forgotten when
    /// it is gone from Redis.
    pub(super) fn take_back(&self, route: &Route, endpoint: &Endpoint, now: Moment) -> Option<OwnMark> {
        let marks = self.by_host.get(&route.host)?;
        let own = marks.own.iter().find(|own| own.endpoint == *endpoint && own.until > now && own.is_stored)?;
        let place = route.marks.iter().position(|mark| mark.backend.endpoint() == endpoint)?;
        let url = route.cluster.members.get(place)?.url.clone();
        let (index, total) = (marks.index_of(place), marks.total);
        Some(OwnMark { host: route.host.clone(), url, index, total, until: own.until, task: MarkTask::Remove })
    }

    /// Marks backends dead according to a snapshot. Later data of Redis replaces these marks.
    pub(super) fn restore(&mut self, route: &Route, snapshot: &SnapshotRoute, now: Moment) {
        for restored in &snapshot.marks {
            let endpoint = snapshot.record.backends.get(restored.member).map(BackendUrl::endpoint);
            let place = route.marks.iter().position(|mark| Some(mark.backend.endpoint()) == endpoint);
            let Some((place, mark)) = place.and_then(|place| Some((place, route.marks.get(place)?))) else { continue };
            let marks = self.by_host.entry(route.host.clone()).or_default();
            marks.total = route.marks.len();
            let endpoint = mark.backend.endpoint().clone();
            if restored.is_external {
                marks.seen.insert(place, Seen { endpoint: Some(endpoint), since: now });
                mark.mark_dead_external(restored.until);
            } else {
                marks.own.push(Own { endpoint, until: restored.until, was_seen: true, is_stored: true });
                mark.mark_dead(restored.until);
            }
        }
    }

    pub(super) fn forget(&mut self, host: &str) {
        self.by_host.remove(host);
    }

    /// Drops hosts that are no longer in use. The additions since the last purge pay for its cost.
    pub(super) fn purge(&mut self, is_in_use: impl Fn(&str) -> bool) {
        if self.by_host.len() >= self.purge_at.max(MIN_PURGE) {
            self.by_host.retain(|host, _| is_in_use(host));
            self.purge_at = 2 * self.by_host.len();
        }
    }
}

impl RouteState {
    /// A member was marked dead here, or the mark ends (`until` is [`Moment::ZERO`]). Returns the mark to publish.
    pub(in crate::directory::redis) fn mark_dead(
        &mut self,
        host: &str,
        endpoint: &Endpoint,
        until: Moment,
        now: Moment,
    ) -> Option<OwnMark> {
        let route = self.catalog.get(host)?;
        match until {
            Moment::ZERO => self.marks.take_back(&route, endpoint, now),
            _ => self.marks.make(&route, endpoint, until, self.checker_until <= now),
        }
    }

    pub(super) fn note_checker(&mut self, silent: Option<Duration>, now: Moment) {
        let life = silent.map_or(Duration::ZERO, |silent| CHECKER_LIFE.saturating_sub(silent));
        let until = if life.is_zero() { Moment::ZERO } else { now + life };
        if until > self.checker_until && self.checker_until <= now {
            log::info!("an active checker is at work: dead marks are left to it");
        }
        if until != self.checker_until {
            self.checker_until = until;
            self.outputs.push(Output::Checker { until });
        }
    }
}
