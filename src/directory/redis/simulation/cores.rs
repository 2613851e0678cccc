//! Simulated cores: each has a route cache and a mailbox, as a worker has.

use super::super::route_state::Output;
use super::checker::MAX_WAIT;
use super::server::{HOSTS, Reach};
use super::threads::Step;
use super::{Happening, World};
use crate::base::clock::Moment;
use crate::cluster::Route;
use crate::directory::LookupResult;
use crate::route;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

pub(super) const CORES: usize = 2;

/// The greatest number of unread messages. Further ones are lost, and the core starts afresh.
const MAX_MAIL: usize = 48;

#[derive(Debug, Default)]
pub(super) struct Core {
    /// The cached result of each host: a route, or none.
    pub(super) cache: BTreeMap<Arc<str>, Option<Arc<Route>>>,
    /// Pending look-ups, and since when.
    pub(super) waiting: BTreeMap<Arc<str>, Moment>,
    mail: VecDeque<Output>,
    has_lost: bool,
}

impl Core {
    /// Checks a cached route. A core hears of each route that was replaced, since its tunnels depend on it; and a route
    /// that was replaced is not used, even before that.
    fn check_cached(&self, host: &str, cached: &Arc<Route>, published: Option<&Arc<Route>>) {
        if !cached.is_stale() {
            let is_published = published.is_some_and(|published| Arc::ptr_eq(published, cached));
            assert!(is_published, "{host} has a new route, and the old one does not know it");
            return;
        }
        let is_about_it = |output: &Output| match output {
            Output::Changed { hosts, .. } => hosts.iter().any(|known| **known == *host),
            Output::LookedUp { .. } | Output::Checker { .. } => false,
        };
        let is_told = self.has_lost || self.mail.iter().any(is_about_it);
        assert!(is_told, "{host} has a new route, and a core that holds the old one is not told");
    }

    /// Nothing runs until then.
    pub(super) fn excuse(&mut self, until: Moment) {
        self.waiting.values_mut().for_each(|since| *since = until);
    }
}

impl World {
    /// A core gets a request for any host, and the next one later.
    pub(super) fn request_any(&mut self, number: usize) {
        let delay = self.between(1_000, 900_000);
        self.after(delay, Happening::AnyRequest(number));
        let host = HOSTS[self.rng.usize(..HOSTS.len())];
        self.request(number, host);
    }

    /// Requests for the hosts of this pattern, at about the same time: while a write is read, and while connections are
    /// lost.
    pub(super) fn request_many(&mut self, pattern: &str) {
        for host in HOSTS.iter().filter(|host| route::patterns(host).any(|name| *name == *pattern)) {
            for number in 0..CORES {
                let delay = self.between(0, 100_000);
                self.after(delay, Happening::Request(number, host));
            }
        }
    }

    /// A core gets a request for a host.
    pub(super) fn request(&mut self, number: usize, host: &'static str) {
        let now = self.now;
        if now + Duration::from_secs(5) > self.ends_at {
            return;
        }
        let Some(process) = self.process.as_mut().filter(|process| process.frozen_until <= now) else { return };
        let is_below = |wildcard: &str| route::patterns(host).any(|pattern| *pattern == *wildcard);
        if self.redis.reach == Reach::Open && process.unrequested.is_some_and(is_below) {
            return;
        }
        let core = &mut process.cores[number];
        let late = core.waiting.iter().find(|(_, since)| **since + MAX_WAIT < now);
        assert!(late.is_none(), "core {number} has waited since {late:?}");
        let cached = core.cache.get(host).cloned();
        if let Some(Some(route)) = &cached {
            core.check_cached(host, route, process.clusters.route(host).as_ref());
        }
        match cached {
            Some(Some(route)) if !route.is_stale() => self.check_served(host, &LookupResult::Found(route)),
            Some(None) => self.check_served(host, &LookupResult::Unknown),
            _ => {
                if core.waiting.insert(host.into(), now).is_none() {
                    process.lookups.push_back((number, host.into()));
                    self.wake();
                }
            }
        }
    }

    /// Delivers an output to the mailboxes.
    pub(super) fn mail(&mut self, output: Output) {
        let Some(process) = &mut self.process else { return };
        let cores = match &output {
            Output::LookedUp { core, .. } => core.0..core.0 + 1,
            Output::Changed { .. } => 0..process.cores.len(),
            Output::Checker { .. } => return,
        };
        for number in cores {
            let copy = match &output {
                Output::LookedUp { core, host, result, keep } => {
                    Output::LookedUp { core: *core, host: Arc::clone(host), result: result.clone(), keep: *keep }
                }
                Output::Changed { hosts, unknowns } => Output::Changed { hosts: hosts.clone(), unknowns: *unknowns },
                Output::Checker { until } => Output::Checker { until: *until },
            };
            let Some(core) = self.process.as_mut().and_then(|process| process.cores.get_mut(number)) else { return };
            if core.mail.len() < MAX_MAIL {
                core.mail.push_back(copy);
            } else {
                core.has_lost = true;
            }
            let slow = if self.rng.u32(..100) == 0 { Duration::from_millis(500) } else { Duration::ZERO };
            let delay = self.between(5, 3_000) + slow;
            self.later(delay, Step::Mail(number));
        }
    }

    pub(super) fn read_mail(&mut self, number: usize) {
        let Some(process) = &mut self.process else { return };
        let core = &mut process.cores[number];
        if std::mem::take(&mut core.has_lost) {
            core.mail.clear();
            core.cache.clear();
            process.lookups.extend(core.waiting.keys().map(|host| (number, Arc::clone(host))));
            self.note(|_| format!("core {number} has lost mail"));
            return self.wake();
        }
        let mail = std::mem::take(&mut core.mail);
        for output in mail {
            self.read_letter(number, output);
        }
    }

    fn read_letter(&mut self, number: usize, output: Output) {
        let Some(process) = &mut self.process else { return };
        let core = &mut process.cores[number];
        match output {
            Output::LookedUp { host, result, keep, .. } => {
                let was_asked = core.waiting.remove(&host).is_some();
                match &result {
                    LookupResult::Found(route) if keep => {
                        core.cache.insert(Arc::clone(&host), Some(Arc::clone(route)));
                    }
                    LookupResult::Unknown if keep => drop(core.cache.insert(Arc::clone(&host), None)),
                    _ => {}
                }
                if was_asked {
                    self.check_served(&host, &result);
                }
            }
            Output::Changed { hosts, unknowns } => {
                hosts.iter().for_each(|host| drop(core.cache.remove(host)));
                if unknowns {
                    core.cache.retain(|_, held| held.is_some());
                }
            }
            Output::Checker { .. } => {}
        }
    }
}
