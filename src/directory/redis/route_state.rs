//! The known data of Redis, and the look-ups to make. Pure: no thread, no socket, no clock.
//!
//! [`RouteState`] takes look-ups, replies, changed keys, connections and the time. It returns what to read next
//! ([`RouteState::take_batch`]) and what to tell the cores ([`Output`]). Once all messages have arrived, no core holds
//! a route that differs from Redis. This rests on:
//!
//! * The watching connection exists before the first look-up is sent on the reading one, and a look-up is recorded here
//!   before it is sent. So a write that a reply does not show is reported while the look-up is in flight, or after it.
//! * If a write is reported while its look-up is in flight, the reply is used once and not cached, and the host is read
//!   again if a core holds it. If the write is reported later, the cached host is read again. The order of the two
//!   messages does not matter.
//! * The keys of a host are not read at one moment, so a reply without any may be put together from before and after a
//!   write. A known host is therefore dropped, or served by less, only if a second look-up says so too and if the data
//!   is still that of the connection.
//! * Without both connections nothing is read. Known routes stay in use ([`RouteState::down`]); when the connections
//!   are back, all hosts in use are read again and compared ([`RouteState::up`]).

mod batches;
mod changes;
mod marks;
mod messages;
mod resync_guard;
mod scan;
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
use crate::base::hash::{HashMap, HashSet};
use crate::base::reason::FailureReason;
use crate::cluster::Backend;
use batches::Queues;
use lru::LruCache;
use marks::Marks;
use resync_guard::{ResyncGuard, is_less};
use snapshot_routes::Restored;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;
use token_bucket::{Standing, TokenBucket};
use unread::Unread;

/// The greatest number of hosts remembered as having no usable record.
const MAX_BAD: NonZeroUsize = NonZeroUsize::new(10_000).expect("not zero");
/// Limits of the route state.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    /// The greatest number of look-ups a second that find nothing.
    pub(super) unknown_rate: u32,
    /// The longest time for which hosts are held that a Redis with other data lacks.
    pub(super) resync_hold: Duration,
    /// Duration of a dead mark that has no expiry in Redis.
    pub(super) mark_life: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ConnectionState {
    /// The first attempt to connect is under way: look-ups wait for its outcome.
    Starting,
    Away,
    Up,
}

/// A host that is being looked up.
#[derive(Debug, Default)]
struct Pending {
    /// The cores that asked.
    askers: Vec<SubscriberId>,
    /// The cores that asked after a write was reported: the reply in flight may be too old for them.
    later: Vec<SubscriberId>,
    in_flight: bool,
    /// A write was reported while the look-up is in flight.
    tainted: bool,
    /// It is the second look-up of a known host, after the first one was a denial.
    confirms: bool,
    /// The client whose token was taken; the outer `None` if no token was taken.
    charged: Option<Option<IpAddr>>,
}

/// The state of the known data; see the module.
#[derive(Debug)]
pub(super) struct RouteState {
    catalog: Catalog,
    marks: Marks,
    /// Hosts with a bad record, whether they are still served or not: a write to any of their candidate patterns may
    /// fix it.
    bad: LruCache<Arc<str>, ()>,
    connection: ConnectionState,
    pending: HashMap<Arc<str>, Pending>,
    queues: Queues,
    checker_wanted: bool,
    checker_until: Moment,
    ticket: u64,
    in_flight: bool,
    bucket: TokenBucket,
    guard: ResyncGuard,
    unread: Unread,
    restored: Restored,
    /// Hosts that had no key while keys of other spellings were not known yet; `None` once they are.
    unscanned: Option<HashSet<Arc<str>>>,
    outputs: Vec<Output>,
    /// Number of changes of the known data.
    version: u64,
}

impl RouteState {
    /// A state without a connection. The `routes` of a snapshot serve while Redis is away.
    pub(super) fn new(limits: &Limits, routes: SnapshotRoutes, clusters: Clusters) -> Self {
        Self {
            catalog: Catalog::of_all_nodes(clusters),
            marks: Marks::new(limits.mark_life),
            bad: LruCache::new(MAX_BAD),
            connection: ConnectionState::Starting,
            pending: HashMap::default(),
            queues: Queues::default(),
            checker_wanted: false,
            checker_until: Moment::ZERO,
            ticket: 0,
            in_flight: false,
            bucket: TokenBucket::new(limits.unknown_rate),
            guard: ResyncGuard::new(limits.resync_hold),
            unread: Unread::default(),
            restored: Restored::new(routes),
            unscanned: None,
            outputs: Vec::new(),
            version: 0,
        }
    }

    /// Handles a look-up of a host by a core, for the client with this address if it counts.
    pub(super) fn ask(&mut self, core: SubscriberId, host: Arc<str>, client: Option<IpAddr>, now: Moment) {
        if let Some(route) = self.catalog.get(&host) {
            // If the host is about to be read again, an event of a change follows.
            return self.reply(core, host, LookupResult::Found(route), true);
        }
        if let Some(pending) = self.pending.get_mut(&host) {
            let askers = if pending.tainted { &mut pending.later } else { &mut pending.askers };
            askers.push(core);
            if askers.len() == 1 && !pending.in_flight {
                // It may be behind very many hosts without a waiting request.
                self.queues.urgent.push_back(host);
            }
            return;
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
            Standing::Good => self.queues.urgent.push_back(host),
            Standing::Suspect => self.queues.suspect.push_back(host),
        }
    }

    fn is_known(&self, host: &str) -> bool {
        self.catalog.contains(host) || self.restored.routes.contains_key(host)
    }

    /// Handles the replies to a batch. Returns whether the known data has changed.
    pub(super) fn replied(&mut self, replies: Replies, now: Moment) -> bool {
        if replies.ticket != self.ticket || !self.in_flight {
            // The replies come from an earlier connection.
            return false;
        }
        let version = self.version;
        self.in_flight = false;
        if let Some(silent) = replies.checker {
            self.note_checker(silent, now);
        }
        // A host that moves to another key keeps its marks, whatever happens to the key that it leaves.
        for (host, reading) in &replies.hosts {
            if let Reading::Found { pattern, listing, .. } = reading
                && self.pending.get(host).is_some_and(|pending| !self.is_doubtful(host, reading, pending))
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
        if self.keeps_for_scan(&host, &reading, &pending, now) {
            return;
        }
        if self.is_doubtful(&host, &reading, &pending) {
            return self.confirm(host, pending);
        }
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
        if before.as_ref().is_none_or(|route| *route.cluster.key != *pattern)
            && let Some(route) = self.hold_newcomer(host, pattern, &listing.record, now)
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

    /// A bad record does not remove a working route.
    fn found_bad(&mut self, host: &Arc<str>, problem: &str, now: Moment) -> LookupResult {
        if let Some(route) = self.catalog.peek(host).or_else(|| self.restore(host, now)) {
            log::error!("{host}: {problem}; its route stays as it was");
            return LookupResult::Found(route);
        }
        log::error!("{host}: {problem}");
        LookupResult::Failed(FailureReason::BadRoute)
    }

    /// Both connections are established. `same_history`: the data continues the known data.
    pub(super) fn up(&mut self, same_history: bool, now: Moment) {
        if self.connection == ConnectionState::Up {
            // The reading connection was opened twice: replies of the first one no longer count.
            self.pause();
        }
        self.connection = ConnectionState::Up;
        self.in_flight = false;
        self.checker_wanted = true;
        // Fixes made meanwhile were not reported.
        self.bad.clear();
        if !same_history {
            let hosts = self.catalog.iter().map(|(host, _)| Arc::clone(host));
            self.guard.begin(hosts, !self.restored.routes.is_empty());
        }
        self.bucket.refill(now);
        self.read_all_again();
    }

    fn read_all_again(&mut self) {
        self.restored.verify_where(|_| true);
        for (host, _) in self.catalog.iter() {
            self.pending.entry(Arc::clone(host)).or_insert_with(|| {
                self.queues.idle.push_back(Arc::clone(host));
                Pending::default()
            });
        }
    }

    /// A connection is lost, or was never established. Known routes stay in use; pending look-ups fail.
    pub(super) fn down(&mut self, now: Moment) {
        if self.connection == ConnectionState::Away {
            return;
        }
        self.connection = ConnectionState::Away;
        self.in_flight = false;
        self.queues = Queues::default();
        self.restored.suspend();
        self.bucket.end_all();
        // While Redis is away, no host is known to have no route.
        self.changed([], true);
        for (host, pending) in std::mem::take(&mut self.pending) {
            for core in pending.askers.into_iter().chain(pending.later) {
                self.reply_unavailable(core, Arc::clone(&host), now);
            }
        }
    }

    /// The data behind the connections has to be identified: nothing is read until [`RouteState::up`], and look-ups
    /// wait for it.
    pub(super) fn pause(&mut self) {
        self.connection = ConnectionState::Starting;
        self.in_flight = false;
        self.restored.suspend();
        self.queues = Queues::default();
        for (host, pending) in &mut self.pending {
            pending.askers.append(&mut pending.later);
            (pending.in_flight, pending.tainted, pending.confirms) = (false, false, false);
            self.queues.push(Arc::clone(host), pending);
        }
    }

    fn reply_unavailable(&mut self, core: SubscriberId, host: Arc<str>, now: Moment) {
        let known = self.catalog.get(&host).or_else(|| self.restore(&host, now));
        let result = known.map_or(LookupResult::Failed(FailureReason::RouteSourceDown), LookupResult::Found);
        self.reply(core, host, result, true);
    }

    /// The time of the next [`RouteState::tick`].
    pub(super) fn next_tick(&self) -> Option<Moment> {
        let hold = self.guard.ends_at().filter(|_| self.is_up());
        hold.into_iter().chain(self.unread.next()).min()
    }

    /// Performs actions that are due.
    pub(super) fn tick(&mut self, now: Moment) {
        self.read_the_unread(now);
        if self.connection == ConnectionState::Up && self.guard.ends_at().is_some_and(|end| end <= now) {
            let unconfirmed = self.guard.end();
            self.restored.verify_where(|_| true);
            if !unconfirmed.is_empty() {
                log::warn!(
                    "{} hosts are not in Redis any more since it came back; asking once more",
                    unconfirmed.len()
                );
            }
            unconfirmed.into_iter().for_each(|host| self.read_again(host));
        }
    }

    fn reply(&mut self, core: SubscriberId, host: Arc<str>, result: LookupResult, keep: bool) {
        self.outputs.push(Output::LookedUp { core, host, result, keep });
    }

    fn changed(&mut self, hosts: impl IntoIterator<Item = Arc<str>>, unknowns: bool) {
        match self.outputs.last_mut() {
            // Successive changes are merged into one message.
            Some(Output::Changed { hosts: known, unknowns: flag }) => {
                known.extend(hosts);
                *flag |= unknowns;
            }
            _ => self.outputs.push(Output::Changed { hosts: hosts.into_iter().collect(), unknowns }),
        }
    }

    /// The outputs since the last call.
    pub(super) fn take_outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    /// Backends made since the last call whose name has to be resolved.
    pub(super) fn take_unresolved(&mut self) -> Vec<Arc<Backend>> {
        self.catalog.take_unresolved()
    }

    /// Total number of held hosts that a Redis with other data lacked.
    pub(super) fn held_total(&self) -> u64 {
        self.guard.held_total()
    }

    /// Whether any route is known.
    pub(super) fn knows_any(&self) -> bool {
        !self.restored.routes.is_empty() || self.catalog.iter().next().is_some()
    }

    /// Whether every look-up can be made.
    pub(super) fn is_up(&self) -> bool {
        self.connection == ConnectionState::Up
    }
}

#[cfg(test)]
mod tests;
