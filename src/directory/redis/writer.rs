//! Dead marks for other nodes: written and published, or dropped when they have expired.

use super::channel::Channel;
use super::connect;
use super::connection::MAX_REPLY;
use super::route_state::{MarkTask, OwnMark};
use super::target::Target;
use super::{Pause, Stop};
use crate::base::clock::{Clock, Moment};
use crossbeam_channel::{Receiver, RecvTimeoutError};
use redis::{RedisError, RedisResult, Value, cmd};
use std::time::Duration;

/// The greatest number of pending marks. Further ones are dropped: the cause must then lie elsewhere.
pub(super) const MAX_MARKS: usize = 1024;
/// Number of marks that are written at once.
const BATCH: usize = 64;
/// The interval at which the thread checks whether to end.
const GLANCE: Duration = Duration::from_secs(1);

/// The writing thread.
pub(super) struct MarkWriter {
    pub(super) target: Target,
    pub(super) marks: Receiver<OwnMark>,
    pub(super) stop: Stop,
    pub(super) clock: Clock,
}

impl MarkWriter {
    pub(super) fn run(self) {
        let mut connection = None;
        while !self.stop.is_set() {
            let first = match self.marks.recv_timeout(GLANCE) {
                Ok(mark) => mark,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let marks = std::iter::once(first).chain(self.marks.try_iter().take(BATCH - 1));
            let batch = marks.map(|mark| Waiting { is_published: mark.task == MarkTask::Remove, mark }).collect();
            self.write(batch, &mut connection);
        }
    }

    /// Tries until it succeeds or all marks have expired.
    fn write(&self, mut batch: Vec<Waiting>, connection: &mut Option<Channel>) {
        let mut pause = Pause::default();
        let mut was_told = false;
        loop {
            let now = self.clock.now();
            batch.retain(|waiting| waiting.mark.until > now);
            if batch.is_empty() {
                return;
            }
            // A connection that was idle for long may have been closed by the server.
            let was_open = connection.is_some();
            let Err(error) = self.try_write(&mut batch, connection, now) else { return };
            *connection = None;
            if was_open {
                continue;
            }
            if !was_told {
                log::warn!("redis: writing dead marks to {}: {error}; trying until they are out of date", self.target);
                was_told = true;
            }
            if pause.wait(&self.stop) {
                return;
            }
        }
    }

    /// Marks that are done are removed from the batch.
    fn try_write(&self, batch: &mut Vec<Waiting>, connection: &mut Option<Channel>, now: Moment) -> RedisResult<()> {
        let open = match connection {
            Some(open) => open,
            None => connection.insert(Channel::open_tolerant(&self.target)?),
        };
        let mut packed = Vec::new();
        let counts: Vec<_> = batch.iter().map(|waiting| self.pack(waiting, now, &mut packed)).collect();
        let mut replies = open.ask_all(&packed, counts.iter().sum(), MAX_REPLY)?.into_iter();
        let mut counts = counts.into_iter();
        let mut problem = None;
        batch.retain_mut(|waiting| {
            let own = replies.by_ref().take(counts.next().unwrap_or_default());
            let error = waiting.hear(own.collect());
            let stays = error.is_some();
            problem = error.or(problem.take());
            stays
        });
        problem.map_or(Ok(()), Err)
    }

    fn pack(&self, waiting: &Waiting, now: Moment, packed: &mut Vec<u8>) -> usize {
        let OwnMark { host, url, index, total, until, task } = &waiting.mark;
        if *task == MarkTask::Remove {
            cmd("SREM").arg(self.target.dead_key(host)).arg(index).write_packed_command(packed);
            return 1;
        }
        let mut count = 0;
        if !waiting.is_published {
            cmd("PUBLISH").arg("dead").arg(format!("{host};{url};{index};{total}")).write_packed_command(packed);
            count += 1;
        }
        if *task == MarkTask::Publish {
            return count;
        }
        let key = self.target.dead_key(host);
        let left = until.since(now);
        // The commands are atomic: a mark without an expiry would stay for ever.
        cmd("MULTI").write_packed_command(packed);
        cmd("SADD").arg(&key).arg(index).write_packed_command(packed);
        // Whole seconds, as Hipache counts them, rounded: 30 s must not become 29.999.
        let seconds = left.as_secs_f64().round();
        if seconds >= 1.0 {
            cmd("EXPIRE").arg(&key).arg(seconds as u64).write_packed_command(packed);
        } else {
            cmd("PEXPIRE").arg(&key).arg(left.as_millis().max(1) as u64).write_packed_command(packed);
        }
        cmd("EXEC").write_packed_command(packed);
        count + 4
    }
}

/// A pending mark.
struct Waiting {
    mark: OwnMark,
    /// Subscribers have received it; a retry of the rest does not publish it again.
    is_published: bool,
}

impl Waiting {
    /// Handles the replies for the mark. Returns why it has to stay pending. A permanent refusal, such as a key with a
    /// wrong type or a missing permission, is logged and the mark is dropped: it must not delay the marks of other
    /// hosts.
    fn hear(&mut self, replies: Vec<Value>) -> Option<RedisError> {
        let (mut passing, mut refused) = (None, None);
        let publishes = !std::mem::replace(&mut self.is_published, true);
        for (number, reply) in replies.into_iter().enumerate() {
            // The reply to EXEC contains the replies to the commands within.
            let parts = if let Value::Array(parts) = reply { parts } else { vec![reply] };
            for error in parts.into_iter().filter_map(|part| part.extract_error().err()) {
                if error.code().is_some_and(|code| {
                    connect::is_passing(code) || matches!(code, "READONLY" | "NOREPLICAS" | "MOVED" | "ASK")
                }) {
                    self.is_published &= !(publishes && number == 0);
                    passing = Some(error);
                } else {
                    // EXEC is refused because an earlier command was.
                    refused.get_or_insert(error);
                }
            }
        }
        if let Some(error) = refused.filter(|_| passing.is_none()) {
            let OwnMark { host, index, .. } = &self.mark;
            log::warn!("redis: the dead mark {index} of {host}: {error}; it is dropped");
        }
        passing
    }
}
