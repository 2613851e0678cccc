//! Which node probes which member, where several nodes share a Redis: one of them, and the others learn of its probes. The
//! part without Redis: it knows what is to be read and written there, and what follows.
//!
//! Each member has a field in Hipache's hash of locks. The node that has the lock writes the outcome of its probes there;
//! the others read it and judge by it as if they had probed. While Redis is away each node probes for itself. Where another
//! checker (hipache-hchecker) has locked a backend's URL and shows signs of life, it alone decides.

use super::probe_fault::ProbeFault;
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// The outcome of a probe.
pub type ProbeOutcome = Result<(), ProbeFault>;

/// The members that this node would probe. Shared by the thread that probes and the one that talks with Redis.
#[derive(Default)]
pub struct ProbeSharing {
    state: Mutex<State>,
    on_news: OnceLock<Box<dyn Fn() + Send + Sync>>,
    on_wish: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

#[derive(Debug, Default)]
struct State {
    /// Redis is there, so that locks mean something.
    is_shared: bool,
    entries: HashMap<u64, Entry>,
    news: Vec<ProbeNews>,
    /// Fields to be given up.
    released: Vec<SharedProbe>,
}

#[derive(Debug)]
struct Entry {
    probe: SharedProbe,
    standing: Standing,
    is_wanted: bool,
    /// The outcomes of this node while it has the lock, else those that were read.
    record: Record,
    /// The holder that `record` was read of.
    holder: Box<str>,
    is_unwritten: bool,
    /// The mark in Redis that is to be made or removed.
    mark: Option<bool>,
}

/// Whose turn it is to probe a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It was not read yet.
    Unknown,
    /// Nobody has the lock, or who had it is gone.
    Free,
    Mine,
    Another,
    /// A checker that is no sluice is at work.
    Foreign,
}

/// A member as all nodes know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedProbe {
    /// The URL of its backend without attributes, the field of Hipache's locks.
    pub url: Box<str>,
    /// The key of its frontend.
    pub pattern: Box<str>,
    /// The number that its endpoint decides, the same on every node.
    pub identity: u64,
}

/// What a holder has written of its probes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Record {
    /// How many there were.
    number: u64,
    /// How many of the same outcome there were at last.
    streak: u32,
    /// The fault of the last one; 0 for a good one.
    fault: u32,
    /// The holder has marked the backend dead in Redis.
    is_marked: bool,
}

/// Something that the thread that probes has to know.
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
        /// How many of this outcome in a row are new.
        count: u32,
        /// Whether there was a probe of another outcome before these that was not told of.
        has_turned: bool,
    },
    /// A checker that is no sluice decides about it from now on, by dead marks.
    Foreign(u64),
}

/// What is to be read of a member.
#[derive(Clone, Debug)]
pub struct Question {
    /// The member.
    pub id: u64,
    /// What it is.
    pub probe: SharedProbe,
}

/// What was read of a member.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// The lock of its URL, which other checkers have.
    pub foreign: Option<String>,
    /// The lock of sluice.
    pub lock: Option<String>,
}

/// What is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SharingWrite {
    /// The lock is to be taken, if it is free. [`ProbeSharing::taken`] is to tell whether it was.
    Take {
        /// The member.
        id: u64,
        /// What it is.
        probe: SharedProbe,
        /// The value.
        value: String,
        /// Whether a lock whose holder is gone stands there, which is to be removed before.
        is_stale: bool,
    },
    /// What this node has found.
    Put(SharedProbe, String),
    /// The lock is to be given up.
    GiveUp(SharedProbe),
    /// The backend is to be marked dead, or the mark is to be removed.
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

    /// The holder, and what it has written; nothing of a text that is none of sluice's.
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

/// The side of the thread that probes.
impl ProbeSharing {
    /// Has this called when there are news.
    pub fn on_news(&self, call: impl Fn() + Send + Sync + 'static) {
        // There is one such thread.
        let _ = self.on_news.set(Box::new(call));
    }

    /// This node would probe this member from now on.
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

    /// It does no longer.
    pub fn leave(&self, id: u64) {
        let state = &mut *self.state();
        if let Some(entry) = state.entries.remove(&id)
            && entry.standing == Standing::Mine
        {
            state.released.push(entry.probe);
            self.wish();
        }
    }

    /// It probes none.
    pub fn leave_all(&self) {
        let state = &mut *self.state();
        let mine = state.entries.drain().filter(|(_, entry)| entry.standing == Standing::Mine);
        state.released.extend(mine.map(|(_, entry)| entry.probe));
    }

    /// Whether it is this node's turn to probe this member now. If it is not, [`ProbeNews::Turn`] tells when it is.
    pub fn is_turn(&self, id: u64) -> bool {
        let state = &mut *self.state();
        let Some(entry) = state.entries.get_mut(&id).filter(|_| state.is_shared) else { return true };
        let is_mine = entry.standing == Standing::Mine;
        if !is_mine && !std::mem::replace(&mut entry.is_wanted, true) && entry.standing != Standing::Another {
            self.wish();
        }
        is_mine
    }

    /// This node has no need to probe the member for now: another may.
    pub fn give_up(&self, id: u64) {
        let state = &mut *self.state();
        let Some(entry) = state.entries.get_mut(&id) else { return };
        entry.is_wanted = false;
        if entry.standing == Standing::Mine {
            (entry.standing, entry.is_unwritten) = (Standing::Unknown, false);
            state.released.push(entry.probe.clone());
        }
    }

    /// A probe of this node has ended.
    pub fn ended(&self, id: u64, outcome: ProbeOutcome) {
        let state = &mut *self.state();
        let Some(entry) = state.entries.get_mut(&id).filter(|entry| entry.standing == Standing::Mine) else { return };
        entry.record.note(outcome);
        entry.is_unwritten = true;
        if entry.record.streak == 1 {
            self.wish();
        }
    }

    /// This node's probes have judged the member. Whoever reads dead marks alone is to know.
    pub fn judged(&self, id: u64, is_down: bool) {
        let state = &mut *self.state();
        if let Some(entry) = state.entries.get_mut(&id).filter(|entry| entry.standing == Standing::Mine)
            && (is_down || entry.record.is_marked)
        {
            (entry.record.is_marked, entry.mark, entry.is_unwritten) = (is_down, Some(is_down), true);
            self.wish();
        }
    }

    /// What there is to know since the last call.
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

/// The side of the thread that talks with Redis.
impl ProbeSharing {
    /// Has this called when there is something to do that should not wait.
    pub fn on_wish(&self, call: impl Fn() + Send + Sync + 'static) {
        // There is one such thread. Until it has failed, a member waits for its word.
        let _ = self.on_wish.set(Box::new(call));
        self.state().is_shared = true;
    }

    /// Whether there is nothing to read or to write.
    pub fn is_idle(&self) -> bool {
        let state = self.state();
        state.entries.is_empty() && state.released.is_empty()
    }

    /// Redis is away: each node probes for itself.
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

    /// What is to be read now. Members are shared from now on.
    pub fn questions(&self) -> Vec<Question> {
        let state = &mut *self.state();
        state.is_shared = true;
        state.entries.iter().map(|(id, entry)| Question { id: *id, probe: entry.probe.clone() }).collect()
    }

    /// The holders that stand in these readings, without this node.
    pub fn holders(readings: &[(u64, Reading)], node: &str) -> HashSet<String> {
        let locks = readings.iter().filter_map(|(_, reading)| reading.lock.as_deref());
        locks.map(|lock| Record::read(lock).0.to_owned()).filter(|holder| holder != node).collect()
    }

    /// What was read. `node` is this node's name, `alive` the other holders that live; `has_foreign`: a checker that is no
    /// sluice shows signs of life. Returns what is to be written.
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

    /// Whether the lock of this member was taken.
    pub fn taken(&self, id: u64, is_taken: bool) {
        let state = &mut *self.state();
        let Some(entry) = state.entries.get_mut(&id).filter(|_| is_taken) else { return };
        entry.standing = Standing::Mine;
        if std::mem::take(&mut entry.is_wanted) {
            state.news.push(ProbeNews::Turn(id));
            self.tell(true);
        }
    }

    /// The members that this node has marked dead: their marks are to be kept.
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
                // Of the process before this one, or of before Redis was away.
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
        // What a holder that is gone has left unsaid.
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

    /// Takes over what another node has found.
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
