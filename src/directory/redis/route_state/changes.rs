//! The effect of a changed key on the known data.

use super::super::reading::Reading;
use super::resync_guard::is_less;
use super::{ChangedKey, ConnectionState, Pending, RouteState};
use crate::base::clock::Moment;
use crate::route;
use std::sync::Arc;

impl RouteState {
    /// Handles a changed key.
    pub(in crate::directory::redis) fn touch(&mut self, changed: &ChangedKey, now: Moment) {
        match changed {
            ChangedKey::Route(pattern) if pattern.starts_with('*') => {
                self.guard.saw_write(now);
                self.touch_wildcard(pattern);
            }
            ChangedKey::Route(host) => {
                self.guard.saw_write(now);
                let host: Arc<str> = Arc::from(&**host);
                if self.catalog.take_unreported(&host) {
                    // Some core may hold that it is unknown, even if another core has found it since.
                    self.changed([Arc::clone(&host)], false);
                }
                self.read_again(host);
            }
            ChangedKey::Options(pattern) if pattern.starts_with('*') => self.touch_options(pattern),
            ChangedKey::Options(host) | ChangedKey::Dead(host) => self.read_again(Arc::from(&**host)),
            ChangedKey::Certificate(_) => {}
            ChangedKey::Checker => self.checker_wanted = true,
            ChangedKey::All => {
                self.checker_wanted = true;
                self.changed([], true);
                self.bad.clear();
                let all: Vec<_> =
                    self.pending.keys().chain(self.catalog.iter().map(|(host, _)| host)).cloned().collect();
                all.into_iter().for_each(|host| self.read_again(host));
                if self.connection == ConnectionState::Up {
                    self.restored.verify_where(|_| true);
                }
            }
        }
    }

    /// If the source cannot report changes: all hosts in use are read again, and unknown hosts are forgotten.
    pub(in crate::directory::redis) fn refresh(&mut self) {
        if self.connection == ConnectionState::Up {
            self.changed([], true);
            self.bad.clear();
            self.checker_wanted = true;
            self.read_all_again();
        }
    }

    fn touch_wildcard(&mut self, pattern: &str) {
        // A wildcard can change the route of a host only if it is the serving pattern, or precedes it among the
        // candidates.
        let suffix = &pattern[1..];
        let leads = |host: &str, serving: Option<&str>| {
            // Comparing the suffix first excludes most hosts, of which there may be very many.
            let may_lead =
                if suffix.is_empty() { serving.is_none_or(|serving| serving == "*") } else { host.ends_with(suffix) };
            if !may_lead {
                return false;
            }
            let mut names = route::patterns(host).take_while(|name| *name == *pattern || Some(&**name) != serving);
            names.any(|name| *name == *pattern)
        };
        let used = self.catalog.iter().filter(|(host, route)| leads(host, Some(&route.cluster.key)));
        let asked = self.pending.keys().filter(|host| leads(host, None));
        let mut affected: Vec<_> = used.map(|(host, _)| host).chain(asked).cloned().collect();
        affected.extend(self.restored.hosts_where(|host, serving| leads(host, Some(serving))).cloned());
        affected.extend(self.bad.iter().map(|(host, _)| host).filter(|host| leads(host, None)).cloned());
        self.changed([], true);
        affected.into_iter().for_each(|host| self.read_again(host));
    }

    /// Handles changed options. They matter only if the pattern serves a host, or may turn out to.
    fn touch_options(&mut self, pattern: &str) {
        let used = self.catalog.iter().filter(|(_, route)| *route.cluster.key == *pattern).map(|(host, _)| host);
        let asked = self.pending.keys().filter(|host| route::patterns(host).any(|name| *name == *pattern));
        let restored = self.restored.hosts_where(|_, serving| serving == pattern);
        let affected: Vec<_> = used.chain(asked).chain(restored).cloned().collect();
        affected.into_iter().for_each(|host| self.read_again(host));
    }

    /// Reads hosts again that may have been written to without a report. No host is known to have no route.
    pub(in crate::directory::redis) fn read_again_where(&mut self, is_meant: impl Fn(&str) -> bool) {
        self.forget_unknowns();
        self.bad.clear();
        self.unread.forget_away();
        self.checker_wanted = true;
        for (host, pending) in &mut self.pending {
            pending.tainted |= pending.in_flight && is_meant(host);
        }
        self.restored.verify_where(&is_meant);
        for (host, _) in self.catalog.iter().filter(|(host, _)| is_meant(host)) {
            self.pending.entry(Arc::clone(host)).or_insert_with(|| {
                self.queues.idle.push_back(Arc::clone(host));
                Pending::default()
            });
        }
    }

    /// Holds these hosts: a part of the data is other or older than the known data.
    pub(in crate::directory::redis) fn hold_where(&mut self, is_meant: impl Fn(&str) -> bool) {
        let hosts = self.catalog.iter().map(|(host, _)| Arc::clone(host)).filter(|host| is_meant(host));
        self.guard.begin(hosts, !self.restored.routes.is_empty());
    }

    /// No host is known to have no route any more.
    pub(in crate::directory::redis) fn forget_unknowns(&mut self) {
        self.changed([], true);
    }

    /// Reads a host again for an operator. Returns whether it is known.
    pub(in crate::directory::redis) fn flush(&mut self, host: Arc<str>) -> bool {
        let was_unread = self.unread.forget(&host);
        let is_in_use = self.is_known(&host) || self.bad.contains(&host) || was_unread;
        self.changed([Arc::clone(&host)], false);
        self.read_again(host);
        is_in_use
    }

    /// Whether the cores have the result of the last read of a host; `None` while a read is pending.
    pub(in crate::directory::redis) fn is_newest(&self, host: &Arc<str>) -> Option<bool> {
        let is_held = self.guard.is_holding(host) || self.guard.is_on() && self.restored.routes.contains_key(host);
        let is_hindered = is_held || self.bad.contains(host) || self.unread.reason(host).is_some();
        (!self.pending.contains_key(host)).then(|| self.connection == ConnectionState::Up && !is_hindered)
    }

    /// Records the end of a look-up: its token, and whether the record is bad.
    pub(super) fn note_end(&mut self, host: &Arc<str>, reading: &Reading, pending: &Pending, now: Moment) {
        match reading {
            Reading::Bad(_) if pending.tainted => {}
            Reading::Bad(_) => drop(self.bad.put(Arc::clone(host), ())),
            Reading::Found { .. } | Reading::Unknown => drop(self.bad.pop(host)),
            Reading::Unread(_) => {}
        }
        let Some(client) = pending.charged else { return };
        match reading {
            Reading::Found { .. } => self.bucket.note_found(client),
            Reading::Unknown => self.bucket.note_miss(client, now),
            Reading::Bad(_) | Reading::Unread(_) => self.bucket.note_end(client),
        }
    }

    /// Schedules another read of a host whose data may be old.
    pub(super) fn read_again(&mut self, host: Arc<str>) {
        self.bad.pop(&host);
        if let Some(pending) = self.pending.get_mut(&host) {
            pending.tainted |= pending.in_flight;
        } else if self.connection == ConnectionState::Up && self.is_known(&host) {
            self.pending.insert(Arc::clone(&host), Pending::default());
            self.queues.edited.push_back(host);
        }
    }

    /// Whether a reading is the first one by which a known host is not found, or has less than it had ([`is_less`]).
    pub(super) fn is_doubtful(&self, host: &str, reading: &Reading, pending: &Pending) -> bool {
        let known = self.catalog.peek(host);
        let restored = self.restored.routes.get(host);
        let key = known.as_ref().map(|route| &*route.cluster.key).or_else(|| restored.map(|route| &*route.pattern));
        match (key, reading) {
            _ if pending.confirms => false,
            (Some(_), Reading::Unknown) => true,
            (Some(key), Reading::Found { pattern, listing, .. }) => is_less(host, key, pattern, &listing.record),
            _ => false,
        }
    }

    /// Reads a known host once more, before a denial counts.
    pub(super) fn confirm(&mut self, host: Arc<str>, Pending { mut askers, mut later, .. }: Pending) {
        askers.append(&mut later);
        self.queue_again(host, Pending { askers, confirms: true, ..Pending::default() });
    }

    /// Reads a host once more that was written to meanwhile, if it is in use or was asked for.
    pub(super) fn settle_again(&mut self, host: Arc<str>, pending: Pending) {
        let is_wanted = !pending.later.is_empty() || self.is_known(&host);
        if pending.tainted && is_wanted {
            self.queue_again(host, Pending { askers: pending.later, ..Pending::default() });
        }
    }
}
