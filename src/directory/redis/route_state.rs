//! What is known of Redis, and what is to be asked of it. Pure: no thread, no socket, no clock.
//!
//! [`RouteState`] takes look-ups, replies, changed keys, connections and the time; it says what to read next
//! ([`RouteState::take_batch`]) and what to tell the cores ([`Output`]). Once all messages have arrived, no core holds
//! anything that Redis does not. This rests on:
//!
//! * The watching connection exists before the first look-up is sent on the reading one, and a look-up is recorded here
//!   before it is sent. So a write that a reply does not show is reported while the look-up is in flight, or after it.
//! * Told while it is under way, the reply is used once and not kept, and asked for again if somebody holds the host.
//!   Told after, what was kept is asked for again. Which of the two messages comes first does not matter.
//! * Without both connections nothing is asked. What is known serves on ([`RouteState::down`]); when they are back,
//!   everything in use is read again and compared ([`RouteState::up`]).

mod changes;
mod marks;
mod messages;
mod resync_guard;
mod snapshot_routes;
mod token_bucket;
mod unread;

pub(super) use marks::{MarkTask, OwnMark};
pub(super) use messages::{Batch, ChangedKey, Output, Replies};
pub(super) use snapshot_routes::{KnownRoutes, MAX_SNAPSHOT_ROUTES, SnapshotMark, SnapshotRoute, SnapshotRoutes};

use super::super::catalog::{Catalog, Clusters};
use super::super::{LookupResult, SubscriberId};
use super::reading::{Dead, Listing, Reading};
use crate::base::clock::Moment;
use crate::base::hash::HashMap;
use crate::base::reason::FailureReason;
use crate::cluster::Backend;
use lru::LruCache;
use marks::Marks;
use resync_guard::{ResyncGuard, is_less};
use snapshot_routes::Restored;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;
use token_bucket::{Standing, TokenBucket};
use unread::Unread;

/// Hosts that are read at once.
const BATCH: usize = 256;
/// How many of these may be hosts that nobody waits for.
const BATCH_IDLE: usize = 128;
/// How many hosts of clients that have missed others are read beside those of clients that have not.
const BATCH_SUSPECT: usize = 64;
/// Hosts without a usable record that are remembered.
const MAX_BAD: NonZeroUsize = NonZeroUsize::new(10_000).expect("not zero");
/// Limits of a keeper.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    /// Look-ups a second that find nothing.
    pub(super) unknown_rate: u32,
    /// How long hosts are held that a Redis with other data lacks.
    pub(super) resync_hold: Duration,
    /// How long a dead mark counts to which Redis has no end.
    pub(super) mark_life: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ConnectionState {
    /// The first attempt to connect is under way: questions wait for how it ends.
    Starting,
    Away,
    Up,
}

/// A host that is being asked for.
#[derive(Debug, Default)]
struct Pending {
    /// Cores that asked.
    askers: Vec<SubscriberId>,
    /// Cores that asked after a write was told of: the reply under way may be too old for them.
    later: Vec<SubscriberId>,
    in_flight: bool,
    /// A write was told of while the question is under way.
    tainted: bool,
    /// For which client a token was taken; outer `None` where none was.
    charged: Option<Option<IpAddr>>,
}

/// See the top of this page.
#[derive(Debug)]
pub(super) struct RouteState {
    catalog: Catalog,
    marks: Marks,
    /// Hosts whose record is bad, be they served as before or not: any pattern of their ladder may mend it.
    bad: LruCache<Arc<str>, ()>,
    connection: ConnectionState,
    pending: HashMap<Arc<str>, Pending>,
    urgent: VecDeque<Arc<str>>,
    /// What clients wait for that have lately asked for hosts that there are not.
    suspect: VecDeque<Arc<str>>,
    idle: VecDeque<Arc<str>>,
    checker_wanted: bool,
    checker_until: Moment,
    ticket: u64,
    in_flight: bool,
    bucket: TokenBucket,
    guard: ResyncGuard,
    unread: Unread,
    restored: Restored,
    outputs: Vec<Output>,
    /// Counts the changes of what is known.
    version: u64,
}

impl RouteState {
    /// A keeper that has yet to be connected. `routes` of a snapshot serve while Redis is away.
    pub(super) fn new(limits: &Limits, routes: SnapshotRoutes, clusters: Clusters) -> Self {
        Self {
            catalog: Catalog::new(clusters),
            marks: Marks::new(limits.mark_life),
            bad: LruCache::new(MAX_BAD),
            connection: ConnectionState::Starting,
            pending: HashMap::default(),
            urgent: VecDeque::new(),
            suspect: VecDeque::new(),
            idle: VecDeque::new(),
            checker_wanted: false,
            checker_until: Moment::ZERO,
            ticket: 0,
            in_flight: false,
            bucket: TokenBucket::new(limits.unknown_rate),
            guard: ResyncGuard::new(limits.resync_hold),
            unread: Unread::default(),
            restored: Restored::new(routes),
            outputs: Vec::new(),
            version: 0,
        }
    }

    /// A core asks for a host, for the client of this address where that counts.
    pub(super) fn ask(&mut self, core: SubscriberId, host: Arc<str>, client: Option<IpAddr>, now: Moment) {
        if let Some(route) = self.catalog.get(&host) {
            // If it is about to be read again, the news of what comes of that follows.
            return self.reply(core, host, LookupResult::Found(route), true);
        }
        if let Some(pending) = self.pending.get_mut(&host) {
            let askers = if pending.tainted { &mut pending.later } else { &mut pending.askers };
            return askers.push(core);
        }
        if self.bad.contains(&host) {
            let known = self.restore(&host, now);
            let result = known.map_or(LookupResult::Failed(FailureReason::BadRoute), LookupResult::Found);
            return self.reply(core, host, result, true);
        }
        if let Some(reason) = self.unread.reason(&host) {
            return self.reply(core, host, LookupResult::Failed(reason), false);
        }
        if self.connection == ConnectionState::Away {
            return self.reply_unavailable(core, host, now);
        }
        let Some(standing) = self.bucket.take(client, now) else {
            return self.reply(core, host, LookupResult::Failed(FailureReason::RouteLookupOverloaded), false);
        };
        let pending = Pending { askers: vec![core], charged: Some(client), ..Pending::default() };
        self.pending.insert(Arc::clone(&host), pending);
        match standing {
            Standing::Good => self.urgent.push_back(host),
            Standing::Suspect => self.suspect.push_back(host),
        }
    }

    fn is_known(&self, host: &str) -> bool {
        self.catalog.contains(host) || self.restored.routes.contains_key(host)
    }

    /// What to read next, if there is something and nothing is under way.
    pub(super) fn take_batch(&mut self) -> Option<Batch> {
        if self.connection != ConnectionState::Up || self.in_flight {
            return None;
        }
        let mut hosts = Vec::new();
        while hosts.len() < BATCH
            && let Some(host) = self.urgent.pop_front()
        {
            self.send(host, &mut hosts);
        }
        let limit = (hosts.len() + BATCH_SUSPECT).min(BATCH);
        while hosts.len() < limit
            && let Some(host) = self.suspect.pop_front()
        {
            self.send(host, &mut hosts);
        }
        let limit = (hosts.len() + BATCH_IDLE).min(BATCH);
        while hosts.len() < limit
            && let Some(host) = self.idle.pop_front()
        {
            self.send(host, &mut hosts);
        }
        while hosts.len() < limit
            && let Some(host) = self.restored.next_unverified()
        {
            if !self.catalog.contains(&host) && !self.pending.contains_key(&host) {
                self.pending.insert(Arc::clone(&host), Pending::default());
                self.send(host, &mut hosts);
            }
        }
        let checker = std::mem::take(&mut self.checker_wanted);
        if hosts.is_empty() && !checker {
            return None;
        }
        self.ticket += 1;
        self.in_flight = true;
        Some(Batch { ticket: self.ticket, hosts, checker })
    }

    fn send(&mut self, host: Arc<str>, hosts: &mut Vec<Arc<str>>) {
        if let Some(pending) = self.pending.get_mut(&host).filter(|pending| !pending.in_flight) {
            pending.in_flight = true;
            hosts.push(host);
        }
    }

    /// The replies to a batch. Returns whether something else is known than before.
    pub(super) fn replied(&mut self, replies: Replies, now: Moment) -> bool {
        if replies.ticket != self.ticket || !self.in_flight {
            // Of a connection that has been given up since.
            return false;
        }
        let version = self.version;
        self.in_flight = false;
        if let Some(silent) = replies.checker {
            self.note_checker(silent, now);
        }
        // A host that goes to another key keeps its marks, whatever becomes of the one that it leaves.
        for (host, reading) in &replies.hosts {
            if let Reading::Found { pattern, listing, .. } = reading
                && self.pending.contains_key(host)
                && !self.guard.is_on()
            {
                self.catalog.leave_key(host, pattern, &listing.record);
            }
        }
        for (host, reading) in replies.hosts {
            if let Some(pending) = self.pending.remove(&host) {
                self.settle(host, reading, pending, now);
            }
        }
        self.ask_again(replies.unread);
        self.version != version
    }

    fn settle(&mut self, host: Arc<str>, reading: Reading, pending: Pending, now: Moment) {
        let keep = !pending.tainted;
        self.note_end(&host, &reading, &pending, now);
        if pending.askers.is_empty() && !self.catalog.contains(&host) {
            self.verify(&host, reading, now);
            return self.settle_again(host, pending);
        }
        let result = match reading {
            Reading::Found { pattern, listing, dead } => self.found(&host, &pattern, listing, &dead, now),
            Reading::Unknown => self.found_nothing(&host, now),
            Reading::Bad(problem) => self.found_bad(&host, &problem, now),
            Reading::Unread(reason) => self.found_unread(&host, reason, now),
        };
        for core in &pending.askers {
            self.reply(*core, Arc::clone(&host), result.clone(), keep);
        }
        self.settle_again(host, pending);
    }

    /// Has a host read once more that was written to meanwhile, if anything is to be known of it.
    fn settle_again(&mut self, host: Arc<str>, pending: Pending) {
        let is_wanted = !pending.later.is_empty() || self.is_known(&host);
        if pending.tainted && is_wanted {
            self.pending.insert(Arc::clone(&host), Pending { askers: pending.later, ..Pending::default() });
            self.urgent.push_back(host);
        }
    }

    fn found(
        &mut self,
        host: &Arc<str>,
        pattern: &str,
        mut listing: Listing,
        dead: &Dead,
        now: Moment,
    ) -> LookupResult {
        self.guard.saw_route(now);
        let before = self.catalog.peek(host);
        if let Some(route) = &before
            && self.guard.holds(host, is_less(host, &route.cluster.key, pattern, &listing.record))
        {
            return LookupResult::Found(Arc::clone(route));
        }
        if before.is_none()
            && listing.record.backends.is_empty()
            && let Some(route) = self.hold_with_others(host, pattern)
        {
            return LookupResult::Found(route);
        }
        let held = self.catalog.cluster(pattern);
        let (options, faults) = listing.read_options(pattern, held.as_ref().map(|cluster| &cluster.options));
        listing.record.options = options;
        for fault in listing.faults.iter().chain(&listing.option_faults).chain(&faults) {
            log::warn!("{host}: {fault}");
        }
        self.restored.update(host, pattern, &listing.record);
        let mut changed = self.catalog.set(host, pattern, &listing.record, now);
        self.version += u64::from(!changed.is_empty());
        if before.is_none() {
            // No core holds it.
            changed.retain(|other| other != host);
        }
        if !changed.is_empty() {
            self.changed(changed, false);
        }
        let Some(route) = self.catalog.peek(host) else { return LookupResult::Unknown };
        self.marks.apply(&route, &listing, dead, self.checker_until, now);
        let catalog = &self.catalog;
        self.marks.purge(|host| catalog.contains(host));
        LookupResult::Found(route)
    }

    fn found_nothing(&mut self, host: &Arc<str>, now: Moment) -> LookupResult {
        if let Some(route) = self.catalog.peek(host)
            && self.guard.holds(host, true)
        {
            return LookupResult::Found(route);
        }
        if self.guard.is_on()
            && let Some(route) = self.restore(host, now)
        {
            self.guard.hold(Arc::clone(host));
            return LookupResult::Found(route);
        }
        self.version += u64::from(self.restored.routes.remove(host).is_some());
        if self.catalog.remove(host) {
            self.marks.forget(host);
            self.version += 1;
            self.changed([Arc::clone(host)], false);
        }
        LookupResult::Unknown
    }

    /// A route that works is not taken down by a record that does not.
    fn found_bad(&mut self, host: &Arc<str>, problem: &str, now: Moment) -> LookupResult {
        if let Some(route) = self.catalog.peek(host).or_else(|| self.restore(host, now)) {
            log::error!("{host}: {problem}; its route stays as it was");
            return LookupResult::Found(route);
        }
        log::error!("{host}: {problem}");
        LookupResult::Failed(FailureReason::BadRoute)
    }

    /// Both connections are there. `same_history`: this is the data that was known, and not another or none.
    pub(super) fn up(&mut self, same_history: bool, now: Moment) {
        self.connection = ConnectionState::Up;
        self.in_flight = false;
        self.checker_wanted = true;
        // Nobody told of what was mended meanwhile.
        self.bad.clear();
        if !same_history {
            let hosts = self.catalog.iter().map(|(host, _)| Arc::clone(host));
            self.guard.begin(hosts, !self.restored.routes.is_empty());
        }
        self.bucket.refill(now);
        self.read_all_again();
    }

    fn read_all_again(&mut self) {
        self.restored.verify_all();
        for (host, _) in self.catalog.iter() {
            self.pending.entry(Arc::clone(host)).or_insert_with(|| {
                self.idle.push_back(Arc::clone(host));
                Pending::default()
            });
        }
    }

    /// A connection is lost, or there is none yet. What is known serves on; who waits for more is told that there is
    /// none.
    pub(super) fn down(&mut self, now: Moment) {
        if self.connection == ConnectionState::Away {
            return;
        }
        self.connection = ConnectionState::Away;
        self.in_flight = false;
        self.urgent.clear();
        self.suspect.clear();
        self.idle.clear();
        self.restored.suspend();
        self.bucket.end_all();
        // While Redis is away nobody can say that a host has no route.
        self.changed([], true);
        for (host, pending) in std::mem::take(&mut self.pending) {
            for core in pending.askers.into_iter().chain(pending.later) {
                self.reply_unavailable(core, Arc::clone(&host), now);
            }
        }
    }

    /// It has to be found out which data stands behind the connections: nothing is read until [`RouteState::up`], and
    /// questions wait for that.
    pub(super) fn pause(&mut self) {
        self.connection = ConnectionState::Starting;
        self.in_flight = false;
        self.restored.suspend();
        self.idle.clear();
        self.urgent.clear();
        self.suspect.clear();
        for (host, pending) in &mut self.pending {
            pending.askers.append(&mut pending.later);
            (pending.in_flight, pending.tainted) = (false, false);
            self.urgent.push_back(Arc::clone(host));
        }
    }

    fn reply_unavailable(&mut self, core: SubscriberId, host: Arc<str>, now: Moment) {
        let known = self.catalog.get(&host).or_else(|| self.restore(&host, now));
        let result = known.map_or(LookupResult::Failed(FailureReason::RouteSourceDown), LookupResult::Found);
        self.reply(core, host, result, true);
    }

    /// When [`RouteState::tick`] has something to do.
    pub(super) fn next_tick(&self) -> Option<Moment> {
        let hold = self.guard.ends_at().filter(|_| self.is_up());
        hold.into_iter().chain(self.unread.next()).min()
    }

    /// Does what the time has come for.
    pub(super) fn tick(&mut self, now: Moment) {
        self.read_the_unread(now);
        if self.connection == ConnectionState::Up && self.guard.ends_at().is_some_and(|end| end <= now) {
            let unconfirmed = self.guard.end();
            self.restored.verify_all();
            if !unconfirmed.is_empty() {
                log::warn!(
                    "{} hosts are not in Redis any more since it came back; asking once more",
                    unconfirmed.len()
                );
            }
            unconfirmed.into_iter().for_each(|host| self.read_again(host));
        }
    }

    /// Where the source cannot tell of changes: everything in use is read again, and unknown hosts are unknown no
    /// longer.
    pub(super) fn refresh(&mut self) {
        if self.connection == ConnectionState::Up {
            self.changed([], true);
            self.bad.clear();
            self.checker_wanted = true;
            self.read_all_again();
        }
    }

    fn reply(&mut self, core: SubscriberId, host: Arc<str>, result: LookupResult, keep: bool) {
        self.outputs.push(Output::LookedUp { core, host, result, keep });
    }

    fn changed(&mut self, hosts: impl IntoIterator<Item = Arc<str>>, unknowns: bool) {
        match self.outputs.last_mut() {
            // Many changes in a row are one letter.
            Some(Output::Changed { hosts: known, unknowns: flag }) => {
                known.extend(hosts);
                *flag |= unknowns;
            }
            _ => self.outputs.push(Output::Changed { hosts: hosts.into_iter().collect(), unknowns }),
        }
    }

    /// What is to be told or done, since the last call.
    pub(super) fn take_outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    /// The backends made since the last call whose name has to be looked up.
    pub(super) fn take_unresolved(&mut self) -> Vec<Arc<Backend>> {
        self.catalog.take_unresolved()
    }

    /// How many hosts were held that a Redis with other data lacked, in all.
    pub(super) fn held_total(&self) -> u64 {
        self.guard.held_total()
    }

    /// Whether there is anything to lose.
    pub(super) fn knows_any(&self) -> bool {
        !self.restored.routes.is_empty() || self.catalog.iter().next().is_some()
    }

    /// Whether every question can be asked.
    pub(super) fn is_up(&self) -> bool {
        self.connection == ConnectionState::Up
    }
}

#[cfg(test)]
mod tests;
