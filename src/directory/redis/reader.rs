//! The reading connection: whole ladders of many hosts in one round trip.

use super::keeper::{Batch, Replies};
use super::link::{self, Identity, Server};
use super::reading::{self, MAX_FIELDS, MAX_ITEMS, Reading};
use super::target::Target;
use super::watcher::Watch;
use super::{CHECKER_KEY, Event, Pause, Stop};
use crate::base::clock::Clock;
use crate::route;
use crossbeam_channel::{Receiver, Sender};
use redis::{Connection, ErrorKind, ProtocolVersion, RedisError, RedisResult, Value, cmd};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What the reading thread is told to do.
#[derive(Debug)]
pub(super) enum Job {
    /// Connect to the server that is watched.
    Connect(Watch),
    /// Read these hosts.
    Read(Batch),
}

/// The life of the reading thread.
pub(super) struct Reader {
    pub(super) target: Target,
    pub(super) jobs: Receiver<Job>,
    pub(super) events: Sender<Event>,
    pub(super) stop: Stop,
    pub(super) clock: Clock,
}

struct Line {
    connection: Connection,
    server: Server,
    run_id: String,
    number: u64,
}

impl Reader {
    pub(super) fn run(self) {
        let (mut line, mut pause, mut is_lost) = (None, Pause::default(), false);
        while let Ok(job) = self.jobs.recv() {
            let event = match job {
                Job::Connect(watch) => {
                    line = None;
                    // A server that takes connections and refuses questions is not asked in a circle.
                    if std::mem::take(&mut is_lost) && pause.wait(&self.stop) {
                        return;
                    }
                    match self.connect(&watch) {
                        Some((opened, identity)) => {
                            let number = opened.number;
                            line = Some(opened);
                            Event::Reading { number, identity }
                        }
                        None => continue,
                    }
                }
                Job::Read(batch) => {
                    let Some(open) = &mut line else { continue };
                    match self.read(open, &batch) {
                        Ok(replies) => {
                            if !replies.hosts.is_empty() {
                                pause.reset();
                            }
                            Event::Replies(replies)
                        }
                        Err(error) => {
                            let number = open.number;
                            line = None;
                            is_lost = true;
                            Event::ReaderLost { number, problem: error.to_string() }
                        }
                    }
                }
            };
            if self.stop.is_set() || self.events.send(event).is_err() {
                return;
            }
        }
    }

    /// Tries until it succeeds, or there is something else to do.
    fn connect(&self, watch: &Watch) -> Option<(Line, Identity)> {
        let mut pause = Pause::default();
        while self.jobs.is_empty() && !self.stop.is_set() {
            match self.try_connect(&watch.server, &watch.identity.run_id, watch.number) {
                Ok(opened) => return Some(opened),
                Err(error) => {
                    let problem = format!("connecting to read: {error}");
                    self.events.send(Event::Unreadable { number: watch.number, problem }).ok()?;
                }
            }
            if pause.wait(&self.stop) {
                break;
            }
        }
        None
    }

    fn try_connect(&self, server: &Server, run_id: &str, number: u64) -> RedisResult<(Line, Identity)> {
        let mut connection = link::open(&self.target, server, ProtocolVersion::RESP2)?;
        let identity = link::identify(&mut connection)?;
        if identity.run_id != run_id {
            // Two servers behind one address: what one of them tells says nothing about the other.
            return Err((ErrorKind::Io, "another server answers there than the one that is watched").into());
        }
        // What may not be read is found out here, where attempts have pauses between them.
        let mut probe = cmd("LRANGE").arg(self.target.frontend_key("*")).arg(0).arg(0).get_packed_command();
        self.ask_for_options("*").write_packed_command(&mut probe);
        cmd("SRANDMEMBER").arg(self.target.dead_key("*")).arg(1).write_packed_command(&mut probe);
        cmd("GET").arg(CHECKER_KEY).write_packed_command(&mut probe);
        let replies = link::ask_all(&mut connection, &probe, 4)?;
        if let Some(error) = replies.iter().find_map(refusal).or_else(|| denial(&replies[0])) {
            return Err(error);
        }
        for (reply, what) in replies[1..].iter().zip(["options", "dead marks", CHECKER_KEY]) {
            if let Some(error) = denial(reply) {
                log::warn!("redis: {what} may not be read, and count as none: {error}");
            }
        }
        let line = Line { connection, server: server.clone(), run_id: run_id.to_owned(), number };
        Ok((line, identity))
    }

    /// Reads a batch. A connection that was closed while it was idle is opened anew, once.
    fn read(&self, line: &mut Line, batch: &Batch) -> RedisResult<Replies> {
        match self.try_read(&mut line.connection, batch) {
            Err(error) if error.is_connection_dropped() || link::is_broken(&line.connection) => {
                log::debug!("redis: {error}; connecting anew");
                (*line, _) = self.try_connect(&line.server, &line.run_id, line.number)?;
                self.try_read(&mut line.connection, batch)
            }
            result => result,
        }
    }

    fn try_read(&self, connection: &mut Connection, batch: &Batch) -> RedisResult<Replies> {
        let mut packed = Vec::new();
        let mut counts = Vec::with_capacity(batch.hosts.len());
        for host in &batch.hosts {
            counts.push(self.pack(host, &mut packed));
        }
        if batch.checker {
            cmd("GET").arg(CHECKER_KEY).write_packed_command(&mut packed);
        }
        let total = counts.iter().sum::<usize>() + usize::from(batch.checker);
        let replies = link::ask_all(connection, &packed, total)?;
        if let Some(error) = replies.iter().find_map(refusal) {
            return Err(error);
        }
        let mut rest = &*replies;
        let mut hosts = Vec::with_capacity(batch.hosts.len());
        for (host, count) in batch.hosts.iter().zip(counts) {
            let (own, others) = rest.split_at(count);
            // Marks and options that may not be read are none, and a list is its host's fault; but who may not read the
            // last rung, which all ladders share, has lost the right to read.
            if let Some(error) = own[..count - 2].chunks_exact(2).last().and_then(|rung| denial(&rung[0])) {
                return Err(error);
            }
            hosts.push((Arc::clone(host), read_host(host, own)));
            rest = others;
        }
        let checker = batch.checker.then(|| rest.first().and_then(|reply| self.silence(reply)));
        Ok(Replies { ticket: batch.ticket, hosts, checker })
    }

    /// The commands for a host; how many there are.
    fn pack(&self, host: &str, packed: &mut Vec<u8>) -> usize {
        let mut count = 2;
        for pattern in route::patterns(host) {
            cmd("LRANGE").arg(self.target.frontend_key(&pattern)).arg(0).arg(MAX_ITEMS).write_packed_command(packed);
            self.ask_for_options(&pattern).write_packed_command(packed);
            count += 2;
        }
        let dead = self.target.dead_key(host);
        // All of it, unless it is so large that it is no set of marks: then reading it whole would hold up everybody.
        cmd("SRANDMEMBER").arg(&dead).arg(MAX_ITEMS).write_packed_command(packed);
        cmd("PTTL").arg(&dead).write_packed_command(packed);
        count
    }

    /// Asks for the options of a pattern: for all of them, unless there are so many that they are none.
    fn ask_for_options(&self, pattern: &str) -> redis::Cmd {
        let mut command = cmd("HSCAN");
        command.arg(self.target.options_key(pattern)).arg(0).arg("COUNT").arg(MAX_FIELDS);
        command
    }

    /// How long ago the active checker gave a sign of life.
    fn silence(&self, reply: &Value) -> Option<Duration> {
        let seconds: f64 = redis::from_redis_value_ref::<String>(reply).ok()?.trim().parse().ok()?;
        let at = UNIX_EPOCH + Duration::try_from_secs_f64(seconds).ok()?;
        let now: SystemTime = self.clock.wall(self.clock.now());
        // A sign from the future is one of a clock that is ahead.
        Some(now.duration_since(at).unwrap_or_default())
    }
}

fn read_host(host: &str, replies: &[Value]) -> Reading {
    let patterns: Vec<_> = route::patterns(host).collect();
    reading::read(patterns.iter().map(|pattern| &**pattern), replies)
}

/// An error that says that the server does not answer at all now; a key of a wrong type is not one, and neither is one
/// that this user may not read.
fn refusal(reply: &Value) -> Option<RedisError> {
    match reply {
        Value::ServerError(error) if !matches!(error.code(), "WRONGTYPE" | "NOPERM") => Some(error.clone().into()),
        _ => None,
    }
}

/// An error that says that this user may not ask that.
fn denial(reply: &Value) -> Option<RedisError> {
    match reply {
        Value::ServerError(error) if error.code() == "NOPERM" => Some(error.clone().into()),
        _ => None,
    }
}
