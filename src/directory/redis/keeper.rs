//! What is known of Redis, and what is to be asked of it. Pure: no thread, no socket, no clock.
//!
//! The keeper is told of questions, of replies, of keys that were written, of connections that come and go, and of the
//! time; it says what to read next ([`Keeper::take_batch`]) and what to tell the cores ([`Output`]). Its promise: when
//! all messages have arrived, no core holds anything that Redis does not. What it rests on:
//!
//! * The watching connection is there before the first question goes out on the reading one, and a question is noted
//!   here before it goes out. So a write that a reply does not show is told of while the question is under way, or
//!   after; never before.
//! * Told while it is under way, the reply is used once and not kept, and asked for again if somebody holds the host.
//!   Told after, what was kept is asked for again. Which of the two messages comes first does not matter.
//! * Without both connections nothing is asked. What is known serves on ([`Keeper::down`]); when they are back,
//!   everything in use is read again and compared ([`Keeper::up`]).

mod changes;
mod letters;
mod marks;
mod probation;
mod tokens;
mod unread;

pub(super) use letters::{Batch, Output, Replies, Touched};
pub(super) use marks::OwnMark;

use super::super::frontends::{Frontends, Record};
use super::super::{Answer, CoreId};
use super::reading::{Dead, Listing, Reading};
use crate::base::clock::Moment;
use crate::base::reason::Reason;
use crate::cluster::{Backend, BackendUrl, Frontend};
use lru::LruCache;
use marks::Marks;
use probation::Probation;
use std::collections::{HashMap, VecDeque};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;
use tokens::Tokens;
use unread::Unread;

/// Hosts that are read at once.
const BATCH: usize = 256;
/// How many of these may be hosts that nobody waits for.
const BATCH_IDLE: usize = 128;
/// Hosts without a usable record that are remembered.
const MAX_BAD: NonZeroUsize = NonZeroUsize::new(10_000).expect("not zero");
/// How long a sign of life of an active checker counts.
pub(super) const CHECKER_LIFE: Duration = Duration::from_secs(30);

/// A host's route as a snapshot has it.
pub(super) type Remembered = HashMap<Arc<str>, (Box<str>, Record)>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// The first attempt to connect is under way: questions wait for how it ends.
    Starting,
    Away,
    Up,
}

/// A host that is being asked for.
#[derive(Debug, Default)]
struct Pending {
    /// Cores that asked.
    askers: Vec<CoreId>,
    /// Cores that asked after a write was told of: the reply under way may be too old for them.
    later: Vec<CoreId>,
    in_flight: bool,
    /// A write was told of while the question is under way.
    tainted: bool,
    /// Holds a token.
    charged: bool,
}

/// See the top of this page.
#[derive(Debug)]
pub(super) struct Keeper {
    frontends: Frontends,
    marks: Marks,
    bad: LruCache<Arc<str>, Box<str>>,
    line: Line,
    pending: HashMap<Arc<str>, Pending>,
    urgent: VecDeque<Arc<str>>,
    idle: VecDeque<Arc<str>>,
    checker_wanted: bool,
    checker_until: Moment,
    ticket: u64,
    in_flight: bool,
    tokens: Tokens,
    probation: Probation,
    unread: Unread,
    remembered: Remembered,
    outputs: Vec<Output>,
    /// Counts the changes of what is known.
    version: u64,
}

impl Keeper {
    /// A keeper that has yet to be connected. `remembered` serves while Redis is away.
    pub(super) fn new(unknown_rate: u32, remembered: Remembered) -> Self {
        Self {
            frontends: Frontends::default(),
            marks: Marks::default(),
            bad: LruCache::new(MAX_BAD),
            line: Line::Starting,
            pending: HashMap::new(),
            urgent: VecDeque::new(),
            idle: VecDeque::new(),
            checker_wanted: false,
            checker_until: Moment::ZERO,
            ticket: 0,
            in_flight: false,
            tokens: Tokens::new(unknown_rate),
            probation: Probation::default(),
            unread: Unread::default(),
            remembered,
            outputs: Vec::new(),
            version: 0,
        }
    }

    /// A core asks for a host.
    pub(super) fn ask(&mut self, core: CoreId, host: Arc<str>, now: Moment) {
        if let Some(frontend) = self.frontends.get(&host) {
            // If it is about to be read again, the news of what comes of that follows.
            return self.answer(core, host, Answer::Found(frontend), true);
        }
        if let Some(pending) = self.pending.get_mut(&host) {
            let askers = if pending.tainted { &mut pending.later } else { &mut pending.askers };
            return askers.push(core);
        }
        if self.bad.contains(&host) {
            return self.answer(core, host, Answer::Failed(Reason::BadRoute), false);
        }
        if let Some(reason) = self.unread.reason(&host) {
            return self.answer(core, host, Answer::Failed(reason), false);
        }
        if self.line == Line::Away {
            return self.answer_away(core, host);
        }
        if !self.tokens.take(now) {
            return self.answer(core, host, Answer::Failed(Reason::DirectoryBusy), false);
        }
        let pending = Pending { askers: vec![core], charged: true, ..Pending::default() };
        self.pending.insert(Arc::clone(&host), pending);
        self.urgent.push_back(host);
    }

    /// What to read next, if there is something and nothing is under way.
    pub(super) fn take_batch(&mut self) -> Option<Batch> {
        if self.line != Line::Up || self.in_flight {
            return None;
        }
        let mut hosts = Vec::new();
        while hosts.len() < BATCH
            && let Some(host) = self.urgent.pop_front()
        {
            self.send(host, &mut hosts);
        }
        let limit = (hosts.len() + BATCH_IDLE).min(BATCH);
        while hosts.len() < limit
            && let Some(host) = self.idle.pop_front()
        {
            self.send(host, &mut hosts);
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
        let answer = match reading {
            Reading::Found { pattern, listing, dead } => {
                self.tokens.give_back(pending.charged);
                self.found(&host, &pattern, listing, &dead, now)
            }
            Reading::Unknown => self.found_nothing(&host),
            Reading::Bad(problem) => self.found_bad(&host, problem, keep),
            Reading::Unread(reason) => self.found_unread(&host, reason, now),
        };
        for core in pending.askers {
            self.answer(core, Arc::clone(&host), answer.clone(), keep);
        }
        let is_wanted = !pending.later.is_empty() || self.frontends.contains(&host);
        if pending.tainted && is_wanted {
            self.pending.insert(Arc::clone(&host), Pending { askers: pending.later, ..Pending::default() });
            self.urgent.push_back(host);
        }
    }

    fn found(&mut self, host: &Arc<str>, pattern: &str, mut listing: Listing, dead: &Dead, now: Moment) -> Answer {
        self.probation.saw_route(now);
        let before = self.frontends.get(host);
        if let Some(frontend) = &before
            && self.probation.holds(host, listing.record.backends.is_empty())
        {
            return Answer::Found(Arc::clone(frontend));
        }
        for fault in listing.faults.iter().chain(&listing.option_faults) {
            log::warn!("{host}: {fault}");
        }
        if let Some(frontend) =
            before.as_ref().filter(|frontend| listing.keeps_options && *frontend.pattern == *pattern)
        {
            listing.record.options = frontend.options;
        }
        if self.frontends.set(host, pattern, &listing.record) {
            self.version += 1;
            if before.is_some() {
                self.changed([Arc::clone(host)], false);
            }
        }
        let Some(frontend) = self.frontends.get(host) else { return Answer::Unknown };
        self.marks.apply(&frontend, &listing, dead, self.checker_until, now);
        let frontends = &self.frontends;
        self.marks.purge(|host| frontends.contains(host));
        Answer::Found(frontend)
    }

    fn found_nothing(&mut self, host: &Arc<str>) -> Answer {
        if let Some(frontend) = self.frontends.get(host)
            && self.probation.holds(host, true)
        {
            return Answer::Found(frontend);
        }
        if self.probation.is_on()
            && let Some(frontend) = self.recall(host)
        {
            self.probation.hold(Arc::clone(host));
            return Answer::Found(frontend);
        }
        if self.frontends.remove(host) {
            self.marks.forget(host);
            self.version += 1;
            self.changed([Arc::clone(host)], false);
        }
        Answer::Unknown
    }

    /// A route that works is not taken down by a record that does not.
    fn found_bad(&mut self, host: &Arc<str>, problem: Box<str>, keep: bool) -> Answer {
        if let Some(frontend) = self.frontends.get(host) {
            log::error!("{host}: {problem}; its route stays as it was");
            return Answer::Found(frontend);
        }
        log::error!("{host}: {problem}");
        if keep {
            self.bad.put(Arc::clone(host), problem);
        }
        Answer::Failed(Reason::BadRoute)
    }

    /// Both connections are there. `same_history`: this is the data that was known, and not another or none.
    pub(super) fn up(&mut self, same_history: bool, now: Moment) {
        self.line = Line::Up;
        self.in_flight = false;
        self.checker_wanted = true;
        // Nobody told of what was mended meanwhile.
        self.bad.clear();
        if same_history {
            self.remembered.clear();
        } else {
            self.probation.begin(self.frontends.iter().map(|(host, _)| Arc::clone(host)), !self.remembered.is_empty());
        }
        self.tokens.refill(now);
        self.read_all_again();
    }

    fn read_all_again(&mut self) {
        for (host, _) in self.frontends.iter() {
            self.pending.entry(Arc::clone(host)).or_insert_with(|| {
                self.idle.push_back(Arc::clone(host));
                Pending::default()
            });
        }
    }

    /// A connection is lost, or there is none yet. What is known serves on; who waits for more is told that there is
    /// none.
    pub(super) fn down(&mut self) {
        if self.line == Line::Away {
            return;
        }
        self.line = Line::Away;
        self.in_flight = false;
        self.urgent.clear();
        self.idle.clear();
        // While Redis is away nobody can say that a host has no route.
        self.changed([], true);
        for (host, pending) in std::mem::take(&mut self.pending) {
            for core in pending.askers.into_iter().chain(pending.later) {
                self.answer_away(core, Arc::clone(&host));
            }
        }
    }

    fn answer_away(&mut self, core: CoreId, host: Arc<str>) {
        let known = self.frontends.get(&host).or_else(|| self.recall(&host));
        let answer = known.map_or(Answer::Failed(Reason::DirectoryAway), Answer::Found);
        self.answer(core, host, answer, true);
    }

    /// Takes a host into use as the snapshot has it.
    fn recall(&mut self, host: &Arc<str>) -> Option<Arc<Frontend>> {
        let (pattern, record) = self.remembered.get(host)?;
        self.frontends.set(host, pattern, record);
        self.frontends.get(host)
    }

    /// When [`Keeper::tick`] has something to do.
    pub(super) fn next_tick(&self) -> Option<Moment> {
        self.probation.ends_at().into_iter().chain(self.unread.next()).min()
    }

    /// Does what the time has come for.
    pub(super) fn tick(&mut self, now: Moment) {
        self.read_the_unread(now);
        if self.line == Line::Up && self.probation.ends_at().is_some_and(|end| end <= now) {
            let unconfirmed = self.probation.end();
            self.remembered.clear();
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
        if self.line == Line::Up {
            self.changed([], true);
            self.bad.clear();
            self.checker_wanted = true;
            self.read_all_again();
        }
    }

    /// A member was found dead here. Returns what other nodes are to be told of it.
    pub(super) fn mark_dead(&mut self, host: &str, url: &BackendUrl, until: Moment, now: Moment) -> Option<OwnMark> {
        let frontend = self.frontends.get(host)?;
        self.marks.make(&frontend, url, until, self.checker_until <= now)
    }

    fn note_checker(&mut self, silent: Option<Duration>, now: Moment) {
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

    fn answer(&mut self, core: CoreId, host: Arc<str>, answer: Answer, keep: bool) {
        self.outputs.push(Output::Answer { core, host, answer, keep });
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
        self.frontends.take_unresolved()
    }

    /// Everything in use, and what is remembered besides.
    pub(super) fn routes(&self) -> Vec<Arc<Frontend>> {
        self.frontends.shared().collect()
    }

    /// Whether there is anything to lose.
    pub(super) fn knows_any(&self) -> bool {
        !self.remembered.is_empty() || self.frontends.iter().next().is_some()
    }

    /// Whether every question can be asked.
    pub(super) fn is_up(&self) -> bool {
        self.line == Line::Up
    }
}

#[cfg(test)]
mod tests;
