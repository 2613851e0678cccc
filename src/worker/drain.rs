//! The end of a worker: nothing new, then what is under way, then nothing. Where there is an heir, it gets what can
//! move.

use super::commands::DrainTarget;
use super::{Worker, connection::Client};
use crate::base::clock::Moment;
use crate::base::gen_slab::SlotKey;
use crate::base::reason::FailureReason;
use crate::exchange::{Input, KeepAlive};
use std::time::Duration;

/// How long a client that has just been let in may take to send its request.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// A worker's end, once it was told of it.
#[derive(Debug)]
pub(super) struct Drain {
    /// When whatever is still under way is ended.
    pub(super) by: Moment,
    pub(super) drain_target: Option<DrainTarget>,
    /// Clients that may move at the end of this turn.
    pub(super) movers: Vec<SlotKey>,
}

impl Worker {
    /// Begins to end, for the good of all or, where there is an heir, of this worker alone.
    pub(super) fn begin_drain(&mut self, drain_target: Option<DrainTarget>) {
        let (is_first, had_heir) =
            (self.drain.is_none(), self.drain.as_ref().is_some_and(|drain| drain.drain_target.is_some()));
        if !is_first && drain_target.is_none() && !had_heir {
            return;
        }
        // This turn may have begun long ago.
        let limit = self.clock.now() + self.settings.drain_timeout;
        let whither = if drain_target.is_some() { "handing over" } else { "stopping" };
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
        if !matches!(drain_target, Some(DrainTarget::Worker(..))) {
            self.spread_tunnel_ends(self.settings.drain_timeout);
        }
        let shares_listeners = matches!(drain_target, Some(DrainTarget::Worker(..)));
        self.core.settings.keep_alive = match drain_target {
            None => KeepAlive::Never,
            Some(DrainTarget::Outside(_)) if self.core.settings.keep_alive == KeepAlive::Always => KeepAlive::Plain,
            Some(_) => self.core.settings.keep_alive,
        };
        match &mut self.drain {
            Some(drain) => drain.drain_target = drain_target,
            None => self.drain = Some(Drain { by: limit, drain_target, movers: Vec::new() }),
        }
        self.drain_all_clients();
        if !shares_listeners {
            // Who is at the door already was promised an answer by the kernel's handshake; and another process need not
            // have this door. Who can move has, so nobody is closed upon to make room.
            self.send_migrating();
            for listener in 0..self.listeners.len() {
                while self.accept_some(listener) {}
            }
            self.drain_all_clients();
        }
        self.close_listeners();
    }

    /// Has all clients leave that can, as far as they can.
    fn drain_all_clients(&mut self) {
        let clients: Vec<SlotKey> = self.clients.keys().collect();
        clients.into_iter().for_each(|key| self.drain_client(key));
    }

    /// A client may have become one that can move to the heir, if there is one.
    pub(super) fn may_move(&mut self, key: SlotKey) {
        if let Some(drain) = self.drain.as_mut().filter(|drain| drain.drain_target.is_some()) {
            drain.movers.push(key);
        }
    }

    /// Where this worker is about to end: has a client move, or lets it go if it is idle.
    #[cold]
    pub(super) fn drain_client(&mut self, key: SlotKey) {
        if self.clients.get(key).is_some_and(|client| client.is_lingering) {
            return;
        }
        let is_for_service = self.clients.get(key).is_some_and(|client| client.is_for_service);
        match &self.drain {
            None => return,
            Some(drain) if drain.drain_target.is_some() && !is_for_service => return self.may_move(key),
            Some(_) => {}
        }
        self.try_start_request(key);
        let Some(client @ Client { job: None, .. }) = self.clients.get_mut(key) else { return };
        // Who has just moved here may have spoken, and the poll has yet to tell.
        if client.served == 0 || !client.stream.transport.is_silent() {
            self.timers.set(&mut client.timer, self.core.now + FIRST_REQUEST);
        } else {
            self.close_idle_client(key);
        }
    }

    /// Whether the order to end has been carried out.
    pub(super) fn has_drained(&self) -> bool {
        match &self.drain {
            None => false,
            Some(Drain { drain_target: Some(DrainTarget::Worker(..)), .. }) => self.clients.is_empty(),
            Some(_) => self.clients.is_empty() && self.handoff.is_empty(),
        }
    }

    /// Lets go of who can go in this turn, and of all when the time for it is over: last, so that who can move is not
    /// closed upon, even where there is no time to leave at all.
    #[cold]
    pub(super) fn continue_drain(&mut self) {
        self.send_migrating();
        if self.drain.as_ref().is_some_and(|drain| drain.by <= self.core.now) {
            self.abort_all();
        }
    }

    /// The time for leaving is over.
    fn abort_all(&mut self) {
        if !self.jobs.is_empty() {
            self.stats.note_forced(self.jobs.len());
            log::warn!("worker {}: ending {} requests and tunnels by force", self.number, self.jobs.len());
        }
        // The first time an exchange begins an answer, where it has none; the second time it ends as it is.
        for _ in 0..2 {
            let jobs: Vec<SlotKey> = self.jobs.keys().collect();
            jobs.into_iter().for_each(|job| self.dispatch(job, Input::Abort(FailureReason::Stopped)));
        }
        debug_assert!(self.jobs.is_empty(), "an exchange outlived its end");
        let clients: Vec<SlotKey> = self.clients.keys().collect();
        clients.into_iter().for_each(|client| self.close_client(client));
    }
}
