//! The end of a worker: nothing new, then what is under way, then nothing. Where there is an heir, it gets what can
//! move.

use super::handover::Heir;
use super::{Worker, connection::Client};
use crate::base::clock::Moment;
use crate::base::reason::Reason;
use crate::base::slots::Key;
use crate::exchange::{Input, KeepAlive};
use std::time::Duration;

/// How long a client that has just been let in may take to send its request.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// A worker's end, once it was told of it.
#[derive(Debug)]
pub(super) struct Leave {
    /// When whatever is still under way is ended.
    pub(super) by: Moment,
    pub(super) heir: Option<Heir>,
    /// Clients that may move at the end of this turn.
    pub(super) movers: Vec<Key>,
}

impl Worker {
    /// Begins to end, for the good of all or, where there is an heir, of this worker alone.
    pub(super) fn begin_to_leave(&mut self, heir: Option<Heir>) {
        let (is_first, had_heir) =
            (self.leave.is_none(), self.leave.as_ref().is_some_and(|leave| leave.heir.is_some()));
        if !is_first && heir.is_none() && !had_heir {
            return;
        }
        // This turn may have begun long ago.
        let limit = self.clock.now() + self.settings.graceful_wait;
        let whither = if heir.is_some() { "handing over" } else { "stopping" };
        log::info!(
            "worker {}: {whither}; {} connections, {} requests, {} connections to backends, {} timers, {} buffers in use, \
             {} free",
            self.number,
            self.clients.len(),
            self.jobs.len(),
            self.upstreams.len(),
            self.timers.len(),
            self.core.buffers.lent(),
            self.core.buffers.count() - self.core.buffers.lent(),
        );
        let has_doors_of_heir = matches!(heir, Some(Heir::Worker(..)));
        self.core.settings.keep_alive = match heir {
            None => KeepAlive::Never,
            Some(Heir::Outside(_)) if self.core.settings.keep_alive == KeepAlive::Always => KeepAlive::Plain,
            Some(_) => self.core.settings.keep_alive,
        };
        match &mut self.leave {
            Some(leave) => leave.heir = heir,
            None => self.leave = Some(Leave { by: limit, heir, movers: Vec::new() }),
        }
        self.all_leave_too();
        if !has_doors_of_heir {
            // Who is at the door already was promised an answer by the kernel's handshake; and another process need not
            // have this door. Who can move has, so nobody is closed upon to make room.
            self.send_movers();
            for door in 0..self.listeners.len() {
                while self.accept_some(door) {}
            }
            self.all_leave_too();
        }
        self.close_doors();
    }

    /// Has all clients leave that can, as far as they can.
    fn all_leave_too(&mut self) {
        let clients: Vec<Key> = self.clients.keys().collect();
        clients.into_iter().for_each(|key| self.leave_too(key));
    }

    /// A client may have become one that can move to the heir, if there is one.
    pub(super) fn may_move(&mut self, key: Key) {
        if let Some(leave) = self.leave.as_mut().filter(|leave| leave.heir.is_some()) {
            leave.movers.push(key);
        }
    }

    /// Where this worker is about to end: has a client move, or lets it go if it is idle.
    #[cold]
    pub(super) fn leave_too(&mut self, key: Key) {
        if self.clients.get(key).is_some_and(|client| client.is_lingering) {
            return;
        }
        match &self.leave {
            None => return,
            Some(leave) if leave.heir.is_some() => return self.may_move(key),
            Some(_) => {}
        }
        self.greet(key);
        let Some(client @ Client { job: None, .. }) = self.clients.get_mut(key) else { return };
        // Who has just moved here may have spoken, and the poll has yet to tell.
        if client.served == 0 || !client.stream.transport.is_silent() {
            self.timers.set(&mut client.timer, self.core.now + FIRST_REQUEST);
        } else {
            self.close_idle_client(key);
        }
    }

    /// Whether the order to end has been carried out.
    pub(super) fn has_left(&self) -> bool {
        match &self.leave {
            None => false,
            Some(Leave { heir: Some(Heir::Worker(..)), .. }) => self.clients.is_empty(),
            Some(_) => self.clients.is_empty() && self.landing.is_empty(),
        }
    }

    /// Lets go of who can go in this turn, and of all when the time for it is over: last, so that who can move is not
    /// closed upon, even where there is no time to leave at all.
    #[cold]
    pub(super) fn go_on_leaving(&mut self) {
        self.send_movers();
        if self.leave.as_ref().is_some_and(|leave| leave.by <= self.core.now) {
            self.abort_all();
        }
    }

    /// The time for leaving is over.
    fn abort_all(&mut self) {
        if !self.jobs.is_empty() {
            self.vitals.note_forced(self.jobs.len());
            log::warn!("worker {}: ending {} requests and tunnels by force", self.number, self.jobs.len());
        }
        // The first time an exchange begins an answer, where it has none; the second time it ends as it is.
        for _ in 0..2 {
            let jobs: Vec<Key> = self.jobs.keys().collect();
            jobs.into_iter().for_each(|job| self.tell(job, Input::Abort(Reason::Stopped)));
        }
        debug_assert!(self.jobs.is_empty(), "an exchange outlived its end");
        let clients: Vec<Key> = self.clients.keys().collect();
        clients.into_iter().for_each(|client| self.close_client(client));
    }
}
