//! Shared probes: if several nodes share a Redis, one of them probes a member, and the others read its outcomes. This
//! is the part without Redis: it decides what is read and written there, and what follows.
//!
//! Each member has a field in Hipache's hash of locks. The node that holds the lock writes the outcome of its probes
//! there; the others read it and apply it like an outcome of their own. While Redis is unreachable, each node probes by
//! itself. If another checker (hipache-hchecker) has locked a backend's URL and its heartbeat lasts, only that checker
//! decides.

use super::probe_fault::ProbeFault;
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// The outcome of a probe.
pub type ProbeOutcome = Result<(), ProbeFault>;

/// The members that this node would probe, shared by the probe thread and the thread with the connection to Redis.
#[derive(Default)]
pub struct ProbeSharing {
    state: Mutex<State>,
    on_news: OnceLock<Box<dyn Fn() + Send + Sync>>,
    on_wish: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

#[derive(Debug, Default)]
struct State {
    /// Redis is reachable, so locks are valid.
    is_shared: bool,
    entries: HashMap<u64, Entry>,
    news: Vec<ProbeNews>,
    /// Fields to be released.
    released: Vec<SharedProbe>,
}

#[derive(Debug)]
struct Entry {
    probe: SharedProbe,
    standing: Standing,
    is_wanted: bool,
    /// The outcomes of this node while it holds the lock, otherwise the outcomes that were read.
    record: Record,
    /// The holder whose `record` this is.
    holder: Box<str>,
    is_unwritten: bool,
    /// The pending change of the mark in Redis: true to set it, false to remove it.
    mark: Option<bool>,
}

/// The node whose turn it is to probe a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// The lock was not read yet.
    Unknown,
    /// The lock is free, or its holder has gone.
    Free,
    Mine,
    Another,
    /// A checker other than sluice is at work.
    Foreign,
}

/// A member under the names that are the same on all nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedProbe {
    /// The URL of its backend without attributes, which is the field in Hipache's locks.
    pub url: Box<str>,
    /// The key of its frontend.
    pub pattern: Box<str>,
    /// A number derived from its endpoint, the same on every node.
    pub identity: u64,
}

/// The text that a holder has written about its probes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Record {
    /// Number of probes.
    number: u64,
    /// Number of the last probes with the same outcome.
    streak: u32,
    /// The fault of the last one; 0 for a good one.
    fault: u32,
    /// The holder has marked the backend dead in Redis.
    is_marked: bool,
}

/// A message for the probe thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeNews {
    /// It is this node's turn to probe this member.
    Turn(u64),
    /// Another node has probed it.
    Seen {
        /// The member.
        id: u64,
        /// The last outcome.
        outcome: ProbeOutcome,
        /// Number of new outcomes of this kind in a row.
        count: u32,
        /// Whether a probe with another outcome came before these and was not reported.
        has_turned: bool,
    },
    /// A checker other than sluice decides about the member from now on, by dead marks.
    Foreign(u64),
}

/// A look-up of a member's locks.
#[derive(Clone, Debug)]
pub struct Question {
    /// The member.
    pub id: u64,
    /// The member under its shared names.
    pub probe: SharedProbe,
}

/// The locks of a member as read.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// The lock of its URL, which belongs to other checkers.
    pub foreign: Option<String>,
    /// The lock of its own field, which belongs to a sluice.
    pub lock: Option<String>,
}

/// A write to Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SharingWrite {
    /// Takes the lock, if it is free. [`ProbeSharing::taken`] has to report the result.
    Take {
        /// The member.
        id: u64,
        /// The member under its shared names.
        probe: SharedProbe,
        /// The value.
        value: String,
        /// Whether the lock of a holder that has gone has to be removed before.
        is_stale: bool,
    },
    /// Writes the outcomes of this node.
    Put(SharedProbe, String),
    /// Releases the lock.
    GiveUp(SharedProbe),
    /// Marks the backend dead, or removes the mark.
    Mark(SharedProbe, bool),
}

impl std::fmt::Debug for ProbeSharing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProbeSharing").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Record {
    fn write(self, node: &str) -> String {
        let Self { number, streak, fault, is_marked } = self;
        format!("{node};{number};{streak};{fault};{}", u8::from(is_marked))
    }

    /// The holder and its record; empty for a text that sluice has not written.
    fn read(text: &str) -> (&str, Self) {
        let mut parts = text.split(';');
        let holder = parts.next().unwrap_or_default();
        let mut number = || parts.next().and_then(|part| part.parse::<u64>().ok());
        let read = (|| {
            let (number, streak, fault, mark) = (number()?, number()?, number()?, number()?);
            let (streak, fault) = (u32::try_from(streak).ok()?, u32::try_from(fault).ok()?);
            (fault == 0 || ProbeFault::from_code(fault).is_some()).then_some(Self {
                number,
                streak,
                fault,
                is_marked: mark != 0,
            })
        })();
        (holder, read.unwrap_or_default())
    }

    fn outcome(self) -> ProbeOutcome {
        ProbeFault::from_code(self.fault).map_or(Ok(()), Err)
    }

    fn note(&mut self, outcome: ProbeOutcome) {
        let fault = outcome.err().map_or(0, ProbeFault::code);
        let is_same = self.number > 0 && (self.fault == 0) == (fault == 0);
        self.streak = if is_same { self.streak.saturating_add(1) } else { 1 };
        (self.number, self.fault) = (self.number + 1, fault);
    }
}

/// The part for the probe thread.
impl ProbeSharing {
    /// Sets the function that is called when there are news.
    pub fn on_news(&self, call: impl Fn() + Send + Sync + 'static) {
        // There is one probe thread.
        let _ = self.on_news.set(Box::new(call));
    }

    /// Adds a member that this node would probe.
    pub fn join(&self, id: u64, probe: SharedProbe) {
        let entry = Entry {
            probe,
            standing: Standing::Unknown,
            is_wanted: false,
            record: Record::default(),
            holder: "".into(),
            is_unwritten: false,
            mark: None,
        };
        self.state().entries.insert(id, entry);
    }

    /// Removes a member that this node no longer probes.
    pub fn leave(&self, id: u64) {
        let state = &mut *self.state();
        if let Some(entry) = state.entries.remove(&id)
            && entry.standing == Standing::Mine
        {
            state.released.push(entry.probe);
            self.wish();
        }
    }

    /// Removes all members.
    pub fn leave_all(&self) {
        let state = &mut *self.state();
        let mine = state.entries.drain().filter(|(_, entry)| entry.standing == Standing::Mine);
        state.released.extend(mine.map(|(_, entry)| entry.probe));
    }

    /// Whether it is this node's turn to probe this member now. If it is not, [`ProbeNews::Turn`] follows at the turn.
    pub fn is_turn(&self, id: u64) -> bool {
        let state = &mut *self.state();
        let Some(entry) = state.entries.get_mut(&id).filter(|_| state.is_shared) else { return true };
        let is_mine = entry.standing == Standing::Mine;
        if !is_mine && !std::mem::replace(&mut entry.is_wanted, true) && entry.standing != Standing::Another {
            self.wish();
        }
        is_mine
    }

    /// Releases the member: this node need not probe it for now, and another node may.
    pub fn give_up(&self, id: u64) {
        let state = &mut *self.state();
        let Some(entry) = state.entries.get_mut(&id) else { return };
        entry.is_wanted = false;
        if entry.standing == Standing::Mine {
            (entry.standing, entry.is_unwritten) = (Standing::Unknown, false);
            state.released.push(entry.probe.clone());
        }
    }

    /// Records the outcome of a probe by this node.
    pub fn ended(&self, id: u64, outcome: ProbeOutcome) {
        let state = &mut *self.state();
        let Some(entry) = state.entries.get_mut(&id).filter(|entry| entry.standing == Standing::Mine) else { return };
        entry.record.note(outcome);
        entry.is_unwritten = true;
        if entry.record.streak == 1 {
            self.wish();
        }
    }

    /// Records a verdict by probes of this node, for programs that only read dead marks.
    pub fn judged(&self, id: u64, is_down: bool) {
        let state = &mut *self.state();
        if let Some(entry) = state.entries.get_mut(&id).filter(|entry| entry.standing == Standing::Mine)
            && (is_down || entry.record.is_marked)
        {
            (entry.record.is_marked, entry.mark, entry.is_unwritten) = (is_down, Some(is_down), true);
            self.wish();
        }
    }

    /// The news since the last call.
    pub fn take_news(&self) -> Vec<ProbeNews> {
        std::mem::take(&mut self.state().news)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wish(&self) {
        if let Some(call) = self.on_wish.get() {
            call();
        }
    }

    fn tell(&self, has_news: bool) {
        if let Some(call) = self.on_news.get().filter(|_| has_news) {
            call();
        }
    }
}

/// The part for the thread with the connection to Redis.
impl ProbeSharing {
    /// Sets the function that is called when there is urgent work.
    pub fn on_wish(&self, call: impl Fn() + Send + Sync + 'static) {
        // There is one such thread. Until it has failed, a member waits for its result.
        let _ = self.on_wish.set(Box::new(call));
        self.state().is_shared = true;
    }

    /// Whether there is nothing to read or to write.
    pub fn is_idle(&self) -> bool {
        let state = self.state();
        state.entries.is_empty() && state.released.is_empty()
    }

    /// Redis is unreachable: each node probes by itself.
    pub fn lose(&self) {
        let state = &mut *self.state();
        if !std::mem::take(&mut state.is_shared) {
            return;
        }
        for (id, entry) in &mut state.entries {
            entry.standing = Standing::Unknown;
            if std::mem::take(&mut entry.is_wanted) {
                state.news.push(ProbeNews::Turn(*id));
            }
        }
        self.tell(!state.news.is_empty());
    }

    /// The pending look-ups. Members are shared from now on.
    pub fn questions(&self) -> Vec<Question> {
        let state = &mut *self.state();
        state.is_shared = true;
        state.entries.iter().map(|(id, entry)| Question { id: *id, probe: entry.probe.clone() }).collect()
    }

    /// The holders in these readings, without this node.
    pub fn holders(readings: &[(u64, Reading)], node: &str) -> HashSet<String> {
        let locks = readings.iter().filter_map(|(_, reading)| reading.lock.as_deref());
        locks.map(|lock| Record::read(lock).0.to_owned()).filter(|holder| holder != node).collect()
    }

    /// Applies the readings. `node` is this node's name, `alive` the other holders whose heartbeat lasts, and
    /// `has_foreign` whether the heartbeat of another checker lasts. Returns the pending writes.
    pub fn hear(
        &self,
        readings: Vec<(u64, Reading)>,
        node: &str,
        alive: &HashSet<String>,
        has_foreign: bool,
    ) -> Vec<SharingWrite> {
        let state = &mut *self.state();
        let mut writes: Vec<_> = state.released.drain(..).map(SharingWrite::GiveUp).collect();
        for (id, reading) in readings {
            let Some(entry) = state.entries.get_mut(&id) else { continue };
            let (write, news) = entry.hear(id, &reading, node, alive, has_foreign);
            writes.extend(write);
            state.news.extend(news);
            if let Some(is_dead) = entry.mark.take_if(|_| entry.standing == Standing::Mine && !has_foreign) {
                writes.push(SharingWrite::Mark(entry.probe.clone(), is_dead));
            }
        }
        self.tell(!state.news.is_empty());
        writes
    }

    /// Reports whether the lock of this member was taken.
    pub fn taken(&self, id: u64, is_taken: bool) {
        let state = &mut *self.state();
        let Some(entry) = state.entries.get_mut(&id).filter(|_| is_taken) else { return };
        entry.standing = Standing::Mine;
        if std::mem::take(&mut entry.is_wanted) {
            state.news.push(ProbeNews::Turn(id));
            self.tell(true);
        }
    }

    /// The members that this node has marked dead, whose marks have to be renewed.
    pub fn marked(&self) -> Vec<SharedProbe> {
        let state = self.state();
        let marked = state.entries.values().filter(|entry| entry.standing == Standing::Mine && entry.record.is_marked);
        marked.map(|entry| entry.probe.clone()).collect()
    }
}

impl Entry {
    fn hear(
        &mut self,
        id: u64,
        reading: &Reading,
        node: &str,
        alive: &HashSet<String>,
        has_foreign: bool,
    ) -> (Option<SharingWrite>, Option<ProbeNews>) {
        if has_foreign && reading.foreign.is_some() {
            let was_mine = self.standing == Standing::Mine;
            let is_new = std::mem::replace(&mut self.standing, Standing::Foreign) != Standing::Foreign;
            let give_up = was_mine.then(|| SharingWrite::GiveUp(self.probe.clone()));
            return (give_up, is_new.then_some(ProbeNews::Foreign(id)));
        }
        let (holder, record) = reading.lock.as_deref().map(Record::read).unwrap_or_default();
        let is_there = reading.lock.is_some();
        if is_there && holder == node {
            if self.standing != Standing::Mine {
                // The lock was taken by the previous process, or before Redis was unreachable.
                (self.standing, self.record.is_marked) = (Standing::Mine, record.is_marked);
            }
            let news = std::mem::take(&mut self.is_wanted).then_some(ProbeNews::Turn(id));
            let write = std::mem::take(&mut self.is_unwritten);
            return (write.then(|| SharingWrite::Put(self.probe.clone(), self.record.write(node))), news);
        }
        if is_there && alive.contains(holder) {
            self.standing = Standing::Another;
            return (None, self.follow(id, holder, record));
        }
        // Outcomes of a holder that has gone which were not read yet.
        let news = if is_there { self.follow(id, holder, record) } else { None };
        let was_mine = self.standing == Standing::Mine;
        self.standing = Standing::Free;
        if !(self.is_wanted || was_mine) {
            return (None, news);
        }
        if !was_mine {
            self.record = Record { is_marked: record.is_marked, ..Record::default() };
        }
        let value = self.record.write(node);
        (Some(SharingWrite::Take { id, probe: self.probe.clone(), value, is_stale: is_there }), news)
    }

    /// Applies the outcomes of another node.
    fn follow(&mut self, id: u64, holder: &str, record: Record) -> Option<ProbeNews> {
        if *self.holder != *holder {
            (self.holder, self.record) = (holder.into(), Record::default());
        }
        let new = record.number.saturating_sub(self.record.number);
        let before = std::mem::replace(&mut self.record, record);
        if new == 0 {
            return None;
        }
        let count = u32::try_from(new).unwrap_or(u32::MAX).min(record.streak);
        let has_turned = u64::from(count) < new && (before.fault == 0) == (record.fault == 0);
        Some(ProbeNews::Seen { id, outcome: record.outcome(), count, has_turned })
    }
}

#[cfg(test)]
mod tests;
