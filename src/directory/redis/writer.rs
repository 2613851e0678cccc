//! Dead marks for others: written and published, or dropped when their time is over.

use super::keeper::OwnMark;
use super::link;
use super::target::Target;
use super::{Pause, Stop};
use crate::base::clock::{Clock, Moment};
use crossbeam_channel::{Receiver, RecvTimeoutError};
use redis::{Connection, ProtocolVersion, RedisResult, cmd};
use std::time::Duration;

/// Marks that wait to be written. More are dropped: there must be something wrong that no mark can mend.
pub(super) const MAX_MARKS: usize = 1024;
/// How many are written at once.
const BATCH: usize = 64;
/// How often the thread looks whether it is to end.
const GLANCE: Duration = Duration::from_secs(1);

/// The life of the writing thread.
pub(super) struct Writer {
    pub(super) target: Target,
    pub(super) marks: Receiver<OwnMark>,
    pub(super) stop: Stop,
    pub(super) clock: Clock,
}

impl Writer {
    pub(super) fn run(self) {
        let mut connection = None;
        while !self.stop.is_set() {
            let first = match self.marks.recv_timeout(GLANCE) {
                Ok(mark) => mark,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let mut batch = vec![first];
            batch.extend(self.marks.try_iter().take(BATCH - 1));
            self.write(batch, &mut connection);
        }
    }

    /// Tries until it succeeds or all marks are out of date.
    fn write(&self, mut batch: Vec<OwnMark>, connection: &mut Option<Connection>) {
        let mut pause = Pause::default();
        let mut was_told = false;
        loop {
            let now = self.clock.now();
            batch.retain(|mark| mark.until > now);
            if batch.is_empty() {
                return;
            }
            let result = self.try_write(&batch, connection, now);
            let Err(error) = result else { return };
            // One that was idle for long may have been closed by the other end.
            let was_open = connection.take().is_some();
            if !was_told && !was_open {
                log::warn!("redis: writing dead marks to {}: {error}; trying until they are out of date", self.target);
                was_told = true;
            }
            if !was_open && pause.wait(&self.stop) {
                return;
            }
        }
    }

    fn try_write(&self, batch: &[OwnMark], connection: &mut Option<Connection>, now: Moment) -> RedisResult<()> {
        let open = match connection {
            Some(open) => open,
            None => {
                let server = link::find(&self.target)?;
                connection.insert(link::open(&self.target, &server, ProtocolVersion::RESP2)?)
            }
        };
        let mut packed = Vec::new();
        let count = batch.iter().map(|mark| self.pack(mark, now, &mut packed)).sum();
        for reply in link::ask_all(open, &packed, count)? {
            reply.extract_error()?;
        }
        Ok(())
    }

    fn pack(&self, mark: &OwnMark, now: Moment, packed: &mut Vec<u8>) -> usize {
        let OwnMark { host, url, index, total, until, store } = mark;
        cmd("PUBLISH").arg("dead").arg(format!("{host};{url};{index};{total}")).write_packed_command(packed);
        if !store {
            return 1;
        }
        let key = self.target.dead_key(host);
        let left = until.since(now);
        cmd("SADD").arg(&key).arg(index).write_packed_command(packed);
        // Whole seconds as Hipache counts them, rounded: what is set as 30 s is no 29.999.
        let seconds = left.as_secs_f64().round();
        if seconds >= 1.0 {
            cmd("EXPIRE").arg(&key).arg(seconds as u64).write_packed_command(packed);
        } else {
            cmd("PEXPIRE").arg(&key).arg(left.as_millis().max(1) as u64).write_packed_command(packed);
        }
        3
    }
}
