//! Shared health probes in Redis: the node that probes a backend, and its outcomes. The keys are without prefix, as
//! those of Hipache's checker:
//!
//! | key | type | content |
//! |---|---|---|
//! | `hchecker` | hash | Locks. `<url>` is a lock of hipache-hchecker; `<url>;<prefix and pattern>;<endpoint>` is a lock of sluice |
//! | `hchecker_ping` | string | The heartbeat of hipache-hchecker, in seconds since 1970. sluice does not write it |
//! | `hchecker:<node>` | string | The heartbeat of a sluice; it expires after six seconds |
//!
//! A lock of sluice contains the probing node and its outcomes ([`ProbeSharing`]). A backend that probes find down is
//! marked dead in `dead:<pattern>` for a minute, and the mark is renewed, for programs that only read marks.

use super::link::{Link, parsed};
use super::reader::silence;
use super::target::Target;
use super::{CHECKER_KEY, Pause, Stop};
use crate::base::clock::{Clock, Moment};
use crate::base::node_mark::node_mark;
use crate::cluster::without_attributes;
use crate::health::{ProbeSharing, Question, Reading, SharedProbe, SharingWrite};
use crossbeam_channel::{Receiver, Sender, select};
use redis::{Cmd, RedisResult, cmd};
use std::collections::HashSet;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

const LOCKS: &str = "hchecker";
/// The interval in which locks are read.
const BEAT: Duration = Duration::from_secs(1);
/// Lifetime of a node's heartbeat, in milliseconds.
const LIFE_MS: u64 = 6000;
/// Lifetime of the heartbeat of another checker, as in Hipache.
const FOREIGN_LIFE: Duration = Duration::from_secs(30);
/// Lifetime of a mark in seconds, and the interval of its renewal. Source: hipache-hchecker.
const MARK_SECONDS: u64 = 60;
const MARK_AGAIN: Duration = Duration::from_secs(30);
/// Number of locks that are read or written at once.
const BATCH: usize = 500;

/// The thread that shares probes with other nodes. Dropping it releases its locks and ends it.
#[derive(Debug)]
pub struct ProbeSharer {
    guard: Option<Sender<Infallible>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for ProbeSharer {
    fn drop(&mut self) {
        self.guard = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the thread that shares health probes had panicked");
        }
    }
}

/// Starts the thread.
pub(in crate::directory) fn share(
    target: &Target,
    sharing: &Arc<ProbeSharing>,
    clock: Clock,
) -> io::Result<ProbeSharer> {
    let (guard, stop) = Stop::new();
    let (wish, wishes) = crossbeam_channel::bounded(1);
    // If the channel is full, a turn is already pending.
    sharing.on_wish(move || _ = wish.try_send(()));
    let checker = Checker {
        link: Link::new(target),
        target: target.clone(),
        sharing: Arc::clone(sharing),
        stop,
        wishes,
        clock,
        is_away: false,
        has_written: false,
        marks_again: Moment::ZERO,
    };
    let thread = std::thread::Builder::new().name("redis-probes".into()).spawn(move || checker.run())?;
    Ok(ProbeSharer { guard: Some(guard), thread: Some(thread) })
}

struct Checker {
    link: Link,
    target: Target,
    sharing: Arc<ProbeSharing>,
    stop: Stop,
    wishes: Receiver<()>,
    clock: Clock,
    is_away: bool,
    has_written: bool,
    marks_again: Moment,
}

impl Checker {
    fn run(mut self) {
        let mut pause = Pause::default();
        while !self.stop.is_set() {
            match self.beat() {
                Ok(()) => {
                    self.is_away = false;
                    pause.reset();
                    select! {
                        recv(self.wishes) -> _ => {}
                        recv(self.stop.0) -> _ => {}
                        default(BEAT) => {}
                    }
                }
                Err(error) => {
                    self.sharing.lose();
                    if !std::mem::replace(&mut self.is_away, true) {
                        log::warn!(
                            "redis: {}: {error}; this node probes backends for itself until it is back",
                            self.target
                        );
                    }
                    if pause.wait(&self.stop) {
                        break;
                    }
                }
            }
        }
        self.sharing.leave_all();
        if !self.is_away
            && self.has_written
            && let Err(error) =
                self.beat().and_then(|()| self.link.ask(cmd("DEL").arg(life_key(node_mark()))).map(drop))
        {
            log::debug!("redis: {}: giving up locks of health probes: {error}", self.target);
        }
    }

    /// Reads the locks of other nodes, and writes those of this node.
    fn beat(&mut self) -> RedisResult<()> {
        if self.sharing.is_idle() {
            return Ok(());
        }
        self.link.check_master()?;
        let node = node_mark();
        self.has_written = true;
        let has_foreign = self.sign_of_life(node)?;
        let questions = self.sharing.questions();
        let mut readings = Vec::with_capacity(questions.len());
        for batch in questions.chunks(BATCH) {
            readings.extend(self.read(batch)?);
        }
        let alive = self.alive(ProbeSharing::holders(&readings, node))?;
        let writes = self.sharing.hear(readings, node, &alive, has_foreign);
        for batch in writes.chunks(BATCH) {
            self.write(batch)?;
        }
        let now = self.clock.now();
        if self.marks_again <= now && !has_foreign {
            self.marks_again = now + MARK_AGAIN;
            for probe in self.sharing.marked() {
                self.mark(&probe, true)?;
            }
        }
        Ok(())
    }

    /// Renews this node's heartbeat. Returns whether the heartbeat of another checker lasts.
    fn sign_of_life(&mut self, node: &str) -> RedisResult<bool> {
        let mut life = cmd("SET");
        life.arg(life_key(node)).arg(1).arg("PX").arg(LIFE_MS);
        let mut foreign = cmd("GET");
        foreign.arg(CHECKER_KEY);
        let mut replies = self.link.ask_many(&[life, foreign])?.into_iter();
        replies.next().unwrap_or_default().extract_error()?;
        let ping = replies.next().unwrap_or_default().extract_error()?;
        let now = self.clock.wall(self.clock.now());
        Ok(silence(&ping, now).is_some_and(|silent| silent < FOREIGN_LIFE))
    }

    fn read(&mut self, batch: &[Question]) -> RedisResult<Vec<(u64, Reading)>> {
        let mut command = cmd("HMGET");
        command.arg(LOCKS);
        for question in batch {
            command.arg(&*question.probe.url).arg(self.field(&question.probe));
        }
        let values: Vec<Option<String>> = parsed(self.link.ask(&command)?)?;
        let pairs = batch.iter().zip(values.chunks(2));
        let reading = |(question, pair): (&Question, &[Option<String>])| {
            let value = |place: usize| pair.get(place).cloned().flatten();
            (question.id, Reading { foreign: value(0), lock: value(1) })
        };
        Ok(pairs.map(reading).collect())
    }

    /// The nodes among these whose heartbeat lasts.
    fn alive(&mut self, holders: HashSet<String>) -> RedisResult<HashSet<String>> {
        if holders.is_empty() {
            return Ok(holders);
        }
        let holders: Vec<String> = holders.into_iter().collect();
        let keys: Vec<String> = holders.iter().map(|holder| life_key(holder)).collect();
        let lives = self.link.get_all(&keys)?;
        Ok(holders.into_iter().zip(lives).filter_map(|(holder, life)| life.map(|_| holder)).collect())
    }

    fn write(&mut self, batch: &[SharingWrite]) -> RedisResult<()> {
        let (mut commands, mut takers, mut marks) = (Vec::new(), Vec::new(), Vec::new());
        for write in batch {
            match write {
                SharingWrite::Take { id, probe, value, is_stale } => {
                    if *is_stale {
                        commands.push(lock("HDEL").arg(self.field(probe)).clone());
                    }
                    takers.push((commands.len(), *id));
                    commands.push(lock("HSETNX").arg(self.field(probe)).arg(value).clone());
                }
                SharingWrite::Put(probe, value) => {
                    commands.push(lock("HSET").arg(self.field(probe)).arg(value).clone());
                }
                SharingWrite::GiveUp(probe) => commands.push(lock("HDEL").arg(self.field(probe)).clone()),
                SharingWrite::Mark(probe, is_dead) => marks.push((probe, *is_dead)),
            }
        }
        let replies = self.link.ask_many(&commands)?;
        for (place, id) in takers {
            let is_taken: bool = parsed(replies.get(place).cloned().unwrap_or_default().extract_error()?)?;
            self.sharing.taken(id, is_taken);
        }
        for reply in replies {
            reply.extract_error()?;
        }
        marks.into_iter().try_for_each(|(probe, is_dead)| self.mark(probe, is_dead))
    }

    /// Marks a backend dead among the marks of its frontend, or removes the mark. A pattern with a `*` has no marks:
    /// marks belong to hosts.
    fn mark(&mut self, probe: &SharedProbe, is_dead: bool) -> RedisResult<()> {
        if probe.pattern.contains('*') {
            return Ok(());
        }
        let key = self.target.frontend_key(&probe.pattern);
        let entries: Vec<String> = parsed(self.link.ask(cmd("LRANGE").arg(key).arg(1).arg(-1))?)?;
        let Some(place) = entries.iter().position(|entry| without_attributes(entry) == &*probe.url) else {
            return Ok(());
        };
        let key = self.link.key(&format!("dead:{}", probe.pattern));
        let mut commands = vec![cmd(if is_dead { "SADD" } else { "SREM" }).arg(&key).arg(place).clone()];
        if is_dead {
            commands.push(cmd("EXPIRE").arg(&key).arg(MARK_SECONDS).clone());
        }
        self.link.ask_many(&commands)?.into_iter().try_for_each(|reply| reply.extract_error().map(drop))
    }

    fn field(&self, SharedProbe { url, pattern, identity }: &SharedProbe) -> String {
        format!("{url};{}{pattern};{identity:016x}", self.target.prefix)
    }
}

fn lock(name: &str) -> Cmd {
    cmd(name).arg(LOCKS).clone()
}

fn life_key(node: &str) -> String {
    format!("{LOCKS}:{node}")
}
