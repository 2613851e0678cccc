//! Models of the threads that wait for Redis: the steps of the watching and the reading thread, without waiting.

use super::super::Event;
use super::super::connect::{Identity, Server as Address};
use super::super::reading::Reading;
use super::super::route_state::{Batch, ChangedKey, Replies};
use super::super::watcher::{InvalidationMode, WatchSession};
use super::server::Reach;
use super::{Happening, World};
use crate::base::clock::Moment;
use crate::base::reason::FailureReason;
use std::sync::Arc;
use std::time::Duration;

/// The next step of a thread.
#[derive(Debug)]
pub(super) enum Step {
    /// The watching thread tries to connect.
    Watch,
    /// Its connection with this number is established, or would be.
    Watching(u64),
    /// It notices that its connection is lost.
    WatchLost(u64),
    /// It closes a silent connection.
    WatchSilent(u64),
    Push(u64, Vec<ChangedKey>),
    /// The reading thread continues.
    Read,
    /// The directory's thread takes a turn.
    Turn,
    /// A core reads its mail.
    Mail(usize),
    /// The snapshot is written.
    Saved(Vec<u8>),
}

/// The watching thread.
#[derive(Debug, Default)]
pub(super) struct Watcher {
    number: u64,
    open: Option<Watch>,
}

#[derive(Debug)]
struct Watch {
    number: u64,
    is_cut: bool,
    /// Pushes that are held back by an outage.
    stuck: Vec<ChangedKey>,
    last_push: Moment,
}

/// The reading thread.
#[derive(Debug, Default)]
pub(super) struct Reader {
    connect: Option<WatchSession>,
    batch: Option<Batch>,
    line: Option<Line>,
    work: Option<Work>,
    /// The last connection was lost during a read.
    is_lost: bool,
}

#[derive(Debug)]
struct Line {
    number: u64,
    run: u64,
    identity: Identity,
    is_cut: bool,
}

#[derive(Debug)]
enum Work {
    Connecting(WatchSession),
    Reading {
        batch: Batch,
        hosts: Vec<(Arc<str>, Reading)>,
        is_renewed: bool,
        is_late: bool,
        /// The last reply.
        since: Moment,
    },
}

impl World {
    /// Schedules a step of a thread.
    pub(super) fn later(&mut self, delay: Duration, step: Step) {
        self.after(delay, Happening::Of(self.generation, step));
    }

    /// A random pause between two attempts.
    fn pause(&mut self) -> Duration {
        self.between(25_000, 800_000)
    }

    pub(super) fn watch(&mut self) {
        let Some(process) = &mut self.process else { return };
        process.watcher.number += 1;
        let number = process.watcher.number;
        match self.redis.reach {
            Reach::Open => {
                let delay = self.between(300, 5_000);
                self.later(delay, Step::Watching(number));
            }
            Reach::Refused => self.later(Duration::from_millis(1), Step::WatchLost(number)),
            Reach::Silent => self.later(Duration::from_secs(1), Step::WatchLost(number)),
        }
    }

    pub(super) fn watching(&mut self, number: u64) {
        let (identity, mode) = (self.redis.at.identity(), self.plan.mode);
        if self.redis.reach != Reach::Open {
            return self.watch_lost(number);
        }
        let Some(process) = &mut self.process else { return };
        let watch = Watch { number, is_cut: false, stuck: Vec::new(), last_push: self.now };
        process.watcher.open = Some(watch);
        let session = WatchSession { number, server: Address::of_a_test(), identity, mode, uses_last: false };
        self.tell(Event::Watching(session));
    }

    pub(super) fn watch_lost(&mut self, number: u64) {
        let Some(process) = &mut self.process else { return };
        if process.watcher.number != number {
            return;
        }
        process.watcher.open = None;
        self.tell(Event::WatchLost { number, problem: "lost".to_owned() });
        let delay = self.pause();
        self.later(delay, Step::Watch);
    }

    /// Redis reports a write to the process, if the key is watched. Returns when the report arrives.
    pub(super) fn notify(&mut self, changed: ChangedKey, delay: Duration) -> Option<Moment> {
        let is_told = match self.plan.mode {
            InvalidationMode::Tracking => true,
            // Some are not reported, and some reports are lost.
            InvalidationMode::Keyspace => changed != ChangedKey::All && self.rng.u32(..10) > 0,
            InvalidationMode::Rereading => false,
        };
        let delay = delay + self.between(100, 3_000) * self.rng.u32(1..20);
        let is_doubled = self.rng.u32(..10) == 0;
        let reach = self.redis.reach;
        let watch = self.process.as_mut().and_then(|process| process.watcher.open.as_mut());
        let watch = watch.filter(|watch| is_told && !watch.is_cut)?;
        if reach == Reach::Silent {
            watch.stuck.push(changed);
            return None;
        }
        let at = (self.now + delay).max(watch.last_push);
        watch.last_push = at;
        let (number, delay) = (watch.number, at.since(self.now));
        for _ in 0..=usize::from(is_doubled) {
            self.later(delay, Step::Push(number, vec![changed.clone()]));
        }
        Some(at)
    }

    pub(super) fn push(&mut self, number: u64, changed: Vec<ChangedKey>) {
        let watch = self.process.as_ref().and_then(|process| process.watcher.open.as_ref());
        if watch.is_some_and(|watch| watch.number == number && !watch.is_cut) {
            self.tell(Event::ChangedKey(changed));
        }
    }

    /// Data in transit is lost with the connection; the thread notices it a little later.
    pub(super) fn cut_watching(&mut self, delay: Duration) {
        let watch = self.process.as_mut().and_then(|process| process.watcher.open.as_mut());
        let Some(watch) = watch.filter(|watch| !watch.is_cut) else { return };
        watch.is_cut = true;
        let number = watch.number;
        self.later(delay, Step::WatchLost(number));
    }

    pub(super) fn cut_reading(&mut self) {
        if let Some(line) = self.process.as_mut().and_then(|process| process.reader.line.as_mut()) {
            line.is_cut = true;
        }
    }

    pub(super) fn cut_all(&mut self) {
        let delay = self.between(0, 50_000);
        self.cut_watching(delay);
        self.cut_reading();
    }

    /// No data arrives any more: the watching thread checks the connection after a second, and closes it after another
    /// one.
    pub(super) fn silence_watching(&mut self) {
        let watch = self.process.as_ref().and_then(|process| process.watcher.open.as_ref());
        let Some(number) = watch.map(|watch| watch.number) else { return };
        let delay = self.between(1_000_000, 2_000_000);
        self.later(delay, Step::WatchSilent(number));
    }

    pub(super) fn watch_silent(&mut self, number: u64) {
        let watch = self.process.as_ref().and_then(|process| process.watcher.open.as_ref());
        if self.redis.reach == Reach::Silent && watch.is_some_and(|watch| watch.number == number) {
            self.watch_lost(number);
        }
    }

    pub(super) fn end_silence(&mut self) {
        let watch = self.process.as_mut().and_then(|process| process.watcher.open.as_mut());
        let Some(watch) = watch else { return };
        let (number, stuck) = (watch.number, std::mem::take(&mut watch.stuck));
        if !stuck.is_empty() {
            watch.last_push = self.now;
            self.later(Duration::ZERO, Step::Push(number, stuck));
        }
    }

    /// Gives the reading thread a job.
    pub(super) fn give_connect(&mut self, watch: WatchSession) {
        if let Some(process) = &mut self.process {
            (process.reader.connect, process.reader.batch) = (Some(watch), None);
            self.poll_reader();
        }
    }

    pub(super) fn give_batch(&mut self, batch: Batch) {
        if let Some(process) = &mut self.process {
            process.reader.batch = Some(batch);
            self.poll_reader();
        }
    }

    fn poll_reader(&mut self) {
        let silence = Duration::from_secs(u64::from(self.redis.reach == Reach::Silent));
        let (delay, pause) = (self.between(200, 5_000) + silence, self.pause());
        let Some(reader) = self.process.as_mut().map(|process| &mut process.reader) else { return };
        if reader.work.is_some() {
            return;
        }
        if let Some(watch) = reader.connect.take() {
            reader.line = None;
            reader.work = Some(Work::Connecting(watch));
            let pause = if std::mem::take(&mut reader.is_lost) { pause } else { Duration::ZERO };
            self.later(delay + pause, Step::Read);
        } else if let Some(batch) = reader.batch.take().filter(|_| reader.line.is_some()) {
            self.read_on(delay, batch, Vec::new(), (false, false));
        }
    }

    /// Reads the rest of a batch later.
    fn read_on(
        &mut self,
        delay: Duration,
        batch: Batch,
        hosts: Vec<(Arc<str>, Reading)>,
        (is_renewed, is_late): (bool, bool),
    ) {
        let Some(reader) = self.process.as_mut().map(|process| &mut process.reader) else { return };
        reader.work = Some(Work::Reading { batch, hosts, is_renewed, is_late, since: self.now });
        self.later(delay, Step::Read);
    }

    pub(super) fn go_on_reading(&mut self) {
        match self.process.as_mut().and_then(|process| process.reader.work.take()) {
            Some(Work::Connecting(watch)) => self.connect_reader(watch),
            Some(Work::Reading { batch, hosts, is_renewed, is_late, since }) => {
                self.read(batch, hosts, (is_renewed, is_late), since);
            }
            None => {}
        }
    }

    fn connect_reader(&mut self, watch: WatchSession) {
        let identity = self.redis.at.identity();
        let is_there = self.redis.reach == Reach::Open
            && identity.run_id == watch.identity.run_id
            && self.redis.loads_until <= self.now;
        let (number, run, pause) = (watch.number, self.redis.at.run, self.pause());
        let Some(reader) = self.process.as_mut().map(|process| &mut process.reader) else { return };
        if is_there {
            reader.line = Some(Line { number, run, identity: identity.clone(), is_cut: false });
            self.tell(Event::Reading { number, identity });
        } else {
            let is_idle = reader.connect.is_none() && reader.batch.is_none();
            reader.work = is_idle.then_some(Work::Connecting(watch));
            self.tell(Event::Unreadable { number, problem: "not there".to_owned() });
            if is_idle {
                return self.later(pause, Step::Read);
            }
        }
        self.poll_reader();
    }

    /// Reads the next host of a batch.
    fn read(
        &mut self,
        batch: Batch,
        mut hosts: Vec<(Arc<str>, Reading)>,
        (is_renewed, is_late): (bool, bool),
        since: Moment,
    ) {
        let (now, at, reach) = (self.now, self.redis.at.run, self.redis.reach);
        let delay = self.reply_time();
        let Some(line) = self.process.as_mut().and_then(|process| process.reader.line.as_mut()) else { return };
        if self.redis.loads_until > now {
            return self.lose_reader();
        }
        if reach == Reach::Silent {
            return match is_late {
                true => self.lose_reader(),
                false => self.read_on(Duration::from_secs(1), batch, hosts, (is_renewed, true)),
            };
        }
        if line.is_cut || line.run != at || reach == Reach::Refused {
            if is_renewed || reach == Reach::Refused || line.run != at {
                return self.lose_reader();
            }
            line.is_cut = false;
            return match self.has_other_data() {
                true => self.tell_other_data(),
                false => self.read_on(delay, batch, Vec::new(), (true, false)),
            };
        }
        let (mut unread, mut is_cut) = (Vec::new(), false);
        if let Some(host) = batch.hosts.get(hosts.len()) {
            if self.redis.drips.get(&**host).is_some_and(|until| *until > now) {
                if !is_late {
                    let delay = super::super::connection::DEADLINE;
                    return self.read_on(delay, batch, hosts, (is_renewed, true));
                }
                hosts.push((Arc::clone(host), Reading::Unread(FailureReason::RouteSourceDown)));
                (unread, is_cut) = (batch.hosts[hosts.len()..].to_vec(), true);
            } else {
                let is_known = self.process.as_ref().is_some_and(|process| process.clusters.route(host).is_some());
                let is_torn = is_known && self.rng.bool();
                hosts.push((Arc::clone(host), self.redis.read(host, since, is_torn)));
            }
        }
        if !is_cut && hosts.len() < batch.hosts.len() {
            return self.read_on(delay, batch, hosts, (is_renewed, false));
        }
        if (batch.confirms || is_cut) && self.has_other_data() {
            return self.tell_other_data();
        }
        let checker = (batch.checker && !is_cut).then_some(None);
        let (ticket, offset) = (batch.ticket, Some(self.redis.at.offset));
        self.reply(Replies { ticket, hosts, unread, checker, offset, shard_offsets: Vec::new() });
    }

    /// The time until the next reply.
    fn reply_time(&mut self) -> Duration {
        match self.rng.u32(..40) {
            _ if self.redis.is_slow => self.between(1_000, 100_000),
            _ if self.plan.is_slow => self.between(1_000, 30_000),
            0 => self.between(1, 270_000),
            1..4 => self.between(1, 30_000),
            _ => self.between(1, 200),
        }
    }

    /// Whether the data is not that of the connection any more.
    fn has_other_data(&self) -> bool {
        let line = self.process.as_ref().and_then(|process| process.reader.line.as_ref());
        line.is_some_and(|line| !self.redis.at.identity().has_history_of(&line.identity))
    }

    fn tell_other_data(&mut self) {
        self.tell(Event::ChangedKey(vec![ChangedKey::All]));
        self.poll_reader();
    }

    fn reply(&mut self, replies: Replies) {
        self.tell(Event::Replies(replies));
        self.poll_reader();
    }

    fn lose_reader(&mut self) {
        let Some(reader) = self.process.as_mut().map(|process| &mut process.reader) else { return };
        let Some(line) = reader.line.take() else { return };
        reader.is_lost = true;
        self.tell(Event::ReaderLost { number: line.number, problem: "lost".to_owned() });
        self.poll_reader();
    }
}
