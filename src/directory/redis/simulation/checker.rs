//! The invariants of the simulation. The checker knows the state of Redis at each moment, and nothing of the program's
//! internal state.

use super::super::route_state::RouteState;
use super::super::watcher::InvalidationMode;
use super::World;
use super::server::{Entry, HOSTS, PATTERNS};
use crate::base::clock::Moment;
use crate::base::reason::FailureReason;
use crate::cluster::Route;
use crate::directory::LookupResult;
use crate::route;
use std::collections::BTreeMap;
use std::time::Duration;

/// Time after the last fault until everything is in order: reconnected, read again, and hosts with endless replies
/// queried again.
pub(super) const SETTLE: Duration = Duration::from_secs(16);
/// The longest wait for a response.
pub(super) const MAX_WAIT: Duration = Duration::from_secs(12);
/// Time after the last write when the data of a returned Redis counts as complete.
const QUIET: Duration = Duration::from_secs(30);
/// Time until a change is in the snapshot.
const SAVED_WITHIN: Duration = Duration::from_secs(12);
/// Time until a reading is reported.
const READ_WITHIN: Duration = Duration::from_secs(12);

/// Values, each with the time of its start.
#[derive(Debug)]
struct Timeline<T>(Vec<(Moment, T)>);

impl<T: PartialEq> Timeline<T> {
    fn record(&mut self, now: Moment, value: T) -> bool {
        let is_new = self.0.last().is_none_or(|(_, last)| *last != value);
        if is_new {
            self.0.push((now, value));
        }
        is_new
    }

    /// The first index from `first` on with this value.
    fn next(&self, first: usize, value: &T) -> Option<usize> {
        (first..self.0.len()).find(|place| self.0[*place].1 == *value)
    }

    /// Whether a matching value existed at some time since then.
    fn was(&self, since: Moment, is_meant: impl Fn(&T) -> bool) -> bool {
        self.was_between(since, Moment::NEVER, is_meant)
    }

    /// Whether a matching value existed at some time since then, and before another.
    fn was_between(&self, since: Moment, before: Moment, is_meant: impl Fn(&T) -> bool) -> bool {
        let ends = self.0.iter().skip(1).map(|(start, _)| *start).chain([Moment::NEVER]);
        self.0.iter().zip(ends).any(|((start, value), end)| end >= since && *start < before && is_meant(value))
    }

    fn last(&self) -> Option<&T> {
        self.0.last().map(|(_, value)| value)
    }
}

/// A host that was served.
#[derive(Clone, Copy, Debug)]
struct Known {
    first: Moment,
    last: Moment,
    /// How it was served last, and since when.
    service: Service,
    since: Moment,
}

/// How a host is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Service {
    key: &'static str,
    has_backend: bool,
}

impl Service {
    /// Whether this may be a part of what Redis has lost of the other: a list without a backend, or that of a pattern
    /// that does not serve the host once the other is there again.
    fn is_part_of(self, host: &str, whole: Self) -> bool {
        let place = |key: &str| route::patterns(host).position(|pattern| *pattern == *key);
        whole.has_backend && (!self.has_backend || place(self.key) > place(whole.key))
    }
}

/// A host of which Redis has lost something without an edit.
#[derive(Clone, Copy, Debug)]
struct Loss {
    at: Moment,
    whole: Service,
    /// An earlier state that ended before this moment was read by then.
    read_by: Moment,
}

/// The period in which hosts are held that Redis lacks.
#[derive(Debug, Default)]
struct Hold {
    is_on: bool,
    began: Moment,
    first_route: Option<Moment>,
    ended: Moment,
}

#[derive(Debug)]
pub(super) struct Checker {
    lists: BTreeMap<&'static str, Timeline<Entry>>,
    keys: BTreeMap<&'static str, Timeline<Option<&'static str>>>,
    known: BTreeMap<&'static str, Known>,
    /// The last moment at which an edit removed a host, or at which the host was allowed to be forgotten.
    denied: BTreeMap<&'static str, Moment>,
    /// Hosts that Redis has lost without an edit, and since when.
    lost: BTreeMap<&'static str, Moment>,
    /// The same for hosts that Redis has lost at least in part.
    reduced: BTreeMap<&'static str, Loss>,
    /// The newest list of a pattern, and the newest pattern, that a host was served with.
    seen_lists: BTreeMap<(&'static str, &'static str), usize>,
    seen_keys: BTreeMap<&'static str, usize>,
    calm_until: Moment,
    hold: Hold,
}

impl Checker {
    pub(super) fn new() -> Self {
        let none = |host: &&'static str| (*host, Timeline(vec![(Moment::ZERO, None)]));
        let absent = |pattern: &&'static str| (*pattern, Timeline(vec![(Moment::ZERO, Entry::Absent)]));
        Self {
            lists: PATTERNS.iter().map(absent).collect(),
            keys: HOSTS.iter().map(none).collect(),
            known: BTreeMap::new(),
            denied: HOSTS.iter().map(|host| (*host, Moment::NEVER)).collect(),
            lost: BTreeMap::new(),
            reduced: BTreeMap::new(),
            seen_lists: BTreeMap::new(),
            seen_keys: BTreeMap::new(),
            calm_until: Moment::ZERO,
            hold: Hold::default(),
        }
    }

    /// A process starts, without a hold.
    pub(super) fn started(&mut self, limit: Duration, now: Moment) {
        self.end_hold(limit, now);
        self.hold = Hold::default();
    }

    /// Another hold follows, if any. Hosts forgotten at the end of this one are unknown to the next.
    fn end_hold(&mut self, limit: Duration, now: Moment) {
        for (host, lost_at) in &self.lost {
            if self.is_hold_over(*lost_at, limit, now) {
                self.denied.insert(host, now);
            }
        }
        let over = |loss: &Loss| self.is_hold_over(loss.at, limit, now);
        let over: Vec<_> = self.reduced.iter().filter(|(_, loss)| over(loss)).map(|(host, _)| *host).collect();
        self.reduced.retain(|host, _| !over.contains(host));
    }

    /// A process has ended properly. Its knowledge survives in a snapshot.
    pub(super) fn ended(&mut self, keeps_snapshot: bool) {
        if !keeps_snapshot {
            self.known.clear();
        }
    }

    /// A process was killed: its recent knowledge is lost.
    pub(super) fn killed(&mut self, keeps_snapshot: bool, now: Moment) {
        self.ended(keeps_snapshot);
        self.known.retain(|_, known| known.first + SAVED_WITHIN < now);
        for known in self.known.values_mut().filter(|known| known.since + SAVED_WITHIN >= now) {
            known.service.has_backend = false;
        }
        self.calm_until = Moment::ZERO;
        self.seen_lists.clear();
        self.seen_keys.clear();
    }

    /// Records when the hold begins and ends: this is the only internal state that is read.
    pub(super) fn watch_hold(&mut self, state: &RouteState, limit: Duration, now: Moment) {
        if !self.hold.is_on && state.is_holding() {
            self.end_hold(limit, now);
        }
        let hold = &mut self.hold;
        match (hold.is_on, state.is_holding()) {
            (false, true) => *hold = Hold { is_on: true, began: now, first_route: None, ended: Moment::ZERO },
            (true, false) => (hold.is_on, hold.ended) = (false, now),
            _ => {}
        }
        if hold.is_on && hold.first_route.is_none() && state.has_seen_route() {
            hold.first_route = Some(now);
        }
    }

    /// Whether a host that Redis lost may be forgotten.
    fn is_hold_over(&self, lost_at: Moment, limit: Duration, now: Moment) -> bool {
        let hold = &self.hold;
        let was_on = hold.began <= lost_at && (hold.is_on || hold.ended >= lost_at);
        lost_at + QUIET.min(limit) <= now || (was_on && hold.began + limit <= now)
    }

    /// Whether a host that was served may be unknown now.
    fn may_be_forgotten(&self, host: &str, reading: Moment, limit: Duration, now: Moment) -> bool {
        let Some(known) = self.known.get(host) else { return true };
        let denied = self.denied[host].min(now);
        let is_lost = self.lost.get(host).is_some_and(|lost_at| self.is_hold_over(*lost_at, limit, now));
        is_lost || denied + READ_WITHIN >= known.last.min(reading)
    }

    /// How Redis has a host served.
    fn service_of(&self, host: &str) -> Option<Service> {
        let key = (*self.keys[host].last()?)?;
        Some(Service { key, has_backend: self.lists[key].last().is_some_and(Entry::has_backend) })
    }

    /// Whether the list that a host was served with last has a backend.
    fn has_known_list(&self, host: &str) -> bool {
        let known = self.known.get(host).map(|known| known.service.key);
        known.is_some_and(|key| self.lists[key].last().is_some_and(Entry::has_backend))
    }

    /// An edit has changed how Redis has a host served: as `before`, until now. Where that was no part of what is known,
    /// nothing of it was lost, and the edit counts. So does one of the list that a host is held with.
    fn note_edit(&mut self, host: &str, before: Option<Service>, had_known_list: bool) {
        let Some(known) = self.known.get(host).map(|known| known.service) else { return };
        let was_whole = before.is_some_and(|before| !before.is_part_of(host, known)) && self.service_of(host) != before;
        if was_whole || had_known_list && !self.has_known_list(host) {
            self.reduced.remove(host);
        }
    }

    /// Redis had a host served as `before`, without an edit since; or as before.
    fn note_reduced(
        &mut self,
        host: &'static str,
        before: Option<Service>,
        read_by: Moment,
        limit: Duration,
        now: Moment,
    ) {
        let after = self.service_of(host);
        if after.is_some_and(|after| self.lists[after.key].last() == Some(&Entry::Bad)) {
            // Whatever served the host serves on, and follows the edits of its own key.
            return;
        }
        let is_reduced = |whole: Service| whole.has_backend && after.is_none_or(|after| after.is_part_of(host, whole));
        if self.reduced.get(host).is_some_and(|loss| !is_reduced(loss.whole)) {
            self.reduced.remove(host);
        }
        let is_held = self.reduced.get(host).is_some_and(|loss| !self.is_hold_over(loss.at, limit, now));
        if let Some(whole) = before.filter(|before| !is_held && is_reduced(*before)) {
            self.reduced.insert(host, Loss { at: now, whole, read_by });
        }
    }

    /// Checks that a host which Redis has lost at least in part keeps all of what was known, until its hold is over.
    fn check_reduced(&self, host: &str, service: Service, limit: Duration, now: Moment) {
        let (Some(loss), Some(known)) = (self.reduced.get(host), self.known.get(host)) else { return };
        let is_held = known.since < loss.at && !self.is_hold_over(loss.at, limit, now);
        if !is_held || !service.is_part_of(host, known.service) {
            return;
        }
        // An edit before the loss has made it so.
        let was = |list: &Entry| list.has_backend() == service.has_backend;
        let is_edit = self.keys[host].was_between(loss.read_by, loss.at, |key| *key == Some(service.key))
            && self.lists[service.key].was_between(loss.read_by, loss.at, was);
        assert!(is_edit, "{host} has {service:?}, and had {:?} until Redis lost it", known.service);
    }
}

impl World {
    /// The data at the address has changed, by an edit or by a fault.
    pub(super) fn observe(&mut self, by_order: bool) {
        let before = |host: &&str| (self.checker.service_of(host), self.checker.has_known_list(host));
        let before: Vec<_> = HOSTS.iter().map(before).collect();
        let (now, data) = (self.now, &self.redis.at.data);
        for (pattern, list) in &mut self.checker.lists {
            list.record(now, data.entry(pattern));
        }
        for host in HOSTS {
            let key = data.key_of(host);
            let keys = self.checker.keys.get_mut(host).expect("a timeline");
            let before = *keys.last().expect("a value");
            if !keys.record(now, key) {
                continue;
            }
            match (before, key) {
                (_, None) if by_order => drop(self.checker.denied.insert(host, Moment::NEVER)),
                (_, None) => drop(self.checker.lost.insert(host, now)),
                (None, Some(_)) => {
                    let lost_at = self.checker.lost.remove(host);
                    let is_over = lost_at.is_none_or(|lost| self.checker.is_hold_over(lost, self.plan.hold, now));
                    if is_over {
                        self.checker.denied.insert(host, now);
                    }
                }
                _ => {}
            }
        }
        let read_by = self.checker.calm_until.min(now).since(Moment::ZERO + READ_WITHIN + self.bound());
        let read_by = Moment::ZERO + read_by;
        for (host, (before, had_known_list)) in HOSTS.iter().zip(before) {
            if by_order {
                self.checker.note_edit(host, before, had_known_list);
            }
            self.checker.note_reduced(host, before.filter(|_| !by_order), read_by, self.plan.hold, now);
        }
    }

    /// Checks a result that the directory has sent to a core.
    pub(super) fn check_emitted(&mut self, host: &str, result: &LookupResult) {
        let host = *HOSTS.iter().find(|known| ***known == *host).expect("a host that was asked for");
        let now = self.now;
        self.note_if_traced(|| format!("told {host}: {}", shown(result)));
        let reading = self.process.as_ref().map_or(now, |process| process.thawed_at(now));
        let may_be_forgotten = self.checker.may_be_forgotten(host, reading, self.plan.hold, now);
        match result {
            LookupResult::Found(route) => self.check_found(host, route, may_be_forgotten),
            LookupResult::Unknown => {
                assert!(
                    may_be_forgotten,
                    "{host} is unknown, and Redis has not denied it: {:?}",
                    self.checker.known[host]
                );
                self.checker.known.remove(host);
            }
            LookupResult::Failed(FailureReason::RouteSourceDown | FailureReason::BadRoute) => {
                assert!(may_be_forgotten, "{host} fails, and was served: {:?}", self.checker.known[host]);
            }
            LookupResult::Failed(reason) => panic!("{host} failed: {reason}"),
        }
    }

    fn check_found(&mut self, host: &'static str, route: &Route, may_be_forgotten: bool) {
        let (now, checker) = (self.now, &mut self.checker);
        let (key, entry) = meaning(route);
        let first = checker.seen_lists.get(&(host, key)).copied().unwrap_or(0);
        let place = checker.lists[key].next(first, &entry);
        let place = place.unwrap_or_else(|| panic!("{host} has {entry:?} of {key}, which is older than what it had"));
        checker.seen_lists.insert((host, key), place);
        let first = checker.seen_keys.get(host).copied().unwrap_or(0);
        let place = checker.keys[host].next(first, &Some(key));
        let place = place.unwrap_or_else(|| panic!("{host} leads to {key}, which is older than what it had"));
        checker.seen_keys.insert(host, place);
        let service = Service { key, has_backend: entry.has_backend() };
        if !may_be_forgotten {
            checker.check_reduced(host, service, self.plan.hold, now);
        }
        let denied = checker.denied[host].min(now);
        let known = checker.known.entry(host).or_insert(Known { first: now, last: now, service, since: now });
        if denied + READ_WITHIN >= known.last {
            known.first = now;
        }
        if known.service != service {
            (known.service, known.since) = (service, now);
        }
        known.last = now;
    }

    /// Checks a result with which a core serves a request.
    pub(super) fn check_served(&mut self, host: &str, result: &LookupResult) {
        let host = *HOSTS.iter().find(|known| ***known == *host).expect("a host");
        if self.is_calm() {
            self.checker.calm_until = self.now;
        }
        let since = Moment::ZERO + self.checker.calm_until.since(Moment::ZERO + self.bound());
        match result {
            LookupResult::Found(route) => {
                let members = &route.cluster.members;
                let has_none_left = !members.is_empty() && members.iter().all(|member| member.state.is_removed());
                assert!(!has_none_left || route.is_stale(), "{host} has no member left, and does not know it");
                let (key, entry) = meaning(route);
                let lists = self.checker.lists[key].was(since, |value| *value == entry);
                let keys = self.checker.keys[host].was(since, |value| *value == Some(key));
                let is_fresh = lists && keys;
                assert!(
                    is_fresh || self.was_bad(host, since) || self.may_be_held(host, key, since),
                    "{host} is served by {key} {entry:?}, which Redis has not had since {since:?}"
                );
            }
            LookupResult::Unknown => {
                let is_fresh = self.checker.keys[host].was(since, Option::is_none);
                assert!(is_fresh, "{host} is unknown, and Redis has had it since {since:?}");
            }
            LookupResult::Failed(_) => {}
        }
    }

    /// Whether the host had a bad record, which must not remove its route.
    fn was_bad(&self, host: &str, since: Moment) -> bool {
        let is_bad = |pattern: &str| {
            self.checker.lists.get(pattern).is_some_and(|list| list.was(since, |entry| *entry == Entry::Bad))
        };
        route::patterns(host).any(|pattern| is_bad(&pattern))
    }

    /// Whether Redis lacks a host since it came back, and the hold is not over.
    fn may_be_held(&self, host: &str, served: &str, since: Moment) -> bool {
        let checker = &self.checker;
        let is_empty = |entry: &Entry| matches!(entry, Entry::List { urls, .. } if urls.is_empty());
        let has_empty = |pattern: &str| checker.lists.get(pattern).is_some_and(|list| list.was(since, is_empty));
        // A list of the host itself, or of a longer wildcard, is missing.
        let place = |key: &str| route::patterns(host).position(|pattern| *pattern == *key);
        let lacks = checker.keys[host].was(since, |key| key.is_none_or(|key| place(key) > place(served)))
            || route::patterns(host).any(|pattern| has_empty(&pattern));
        let slack = self.bound() + Duration::from_secs(5);
        let hold = &checker.hold;
        let is_over = if hold.is_on {
            hold.first_route.is_some_and(|first| first + self.plan.hold + slack < self.now)
        } else {
            hold.ended + slack < self.now
        };
        lacks && !(is_over && self.is_calm())
    }

    /// Checks the final state, long after the last fault.
    pub(super) fn check_rest(&mut self) {
        let process = self.process.as_ref().expect("a process");
        assert!(process.coordinator.state.is_up(), "it is not connected");
        if self.plan.mode != InvalidationMode::Rereading {
            assert_eq!(process.coordinator.state.pending_hosts(), 0, "hosts are pending");
        }
        for (number, core) in process.cores.iter().enumerate() {
            assert!(core.waiting.is_empty(), "core {number} waits for {:?}", core.waiting);
            for (host, held) in &core.cache {
                let key = self.redis.at.data.key_of(host);
                let entry = key.map(|key| self.redis.at.data.entry(key));
                if entry == Some(Entry::Bad) {
                    continue;
                }
                let held = held.as_deref().map(meaning);
                assert_eq!(held, key.zip(entry), "core {number} holds {host}");
            }
        }
    }
}

/// The key and the list of a route.
fn meaning(route: &Route) -> (&'static str, Entry) {
    let cluster = &route.cluster;
    let key = PATTERNS.iter().find(|pattern| ***pattern == *cluster.key).expect("a pattern");
    let urls = cluster.members.iter().map(|member| member.url.as_str().to_owned()).collect();
    (key, Entry::List { urls, redirect: cluster.options.https_redirect })
}

fn shown(result: &LookupResult) -> String {
    match result {
        LookupResult::Found(route) => format!("{:?}", meaning(route)),
        other => format!("{other:?}"),
    }
}
