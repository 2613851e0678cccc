//! The end of a worker: no new work, then the exchanges under way, then the end. Clients that can move go to the drain
//! target, if there is one.

use super::commands::DrainTarget;
use super::{Worker, connection::Client};
use crate::base::clock::Moment;
use crate::base::gen_slab::SlotKey;
use crate::base::reason::FailureReason;
use crate::exchange::{Input, KeepAlive};
use crate::net::tls::kernel_has_tls;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The time a newly accepted client has to send its request.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// The state of a drain.
#[derive(Debug)]
pub(super) struct Drain {
    /// When exchanges still under way are ended.
    pub(super) by: Moment,
    pub(super) drain_target: Option<DrainTarget>,
    /// Clients that may move at the end of this turn.
    pub(super) movers: Vec<SlotKey>,
    pub(super) running: RunningDepartures,
}

/// The clients with an exchange for another process.
#[derive(Debug, Default)]
pub(super) struct RunningDepartures {
    /// Clients that may leave.
    pub(super) waiting: BTreeSet<SlotKey>,
    /// Clients that were not accepted, and stay.
    pub(super) refused: BTreeSet<SlotKey>,
    /// A batch is in transit, and may return.
    pub(super) in_transit: Arc<AtomicBool>,
    /// A batch was sent, and it is not known here whether it has arrived.
    pub(super) is_away: bool,
}

impl Drain {
    /// Whether clients with an exchange leave.
    pub(super) fn takes_running(&self) -> bool {
        matches!(&self.drain_target, Some(DrainTarget::Outside(outside)) if outside.takes_running)
    }
}

impl Worker {
    /// Begins the drain: of the whole process or, with a drain target, of this worker alone.
    pub(super) fn begin_drain(&mut self, drain_target: Option<DrainTarget>) {
        let (is_first, had_heir) =
            (self.drain.is_none(), self.drain.as_ref().is_some_and(|drain| drain.drain_target.is_some()));
        if !is_first && drain_target.is_none() && !had_heir {
            return;
        }
        // This turn may have begun long ago.
        let limit = self.clock.now() + self.settings.drain_timeout;
        let event = if drain_target.is_some() { "handing over" } else { "stopping" };
        log::info!(
            "worker {}: {event}; {} connections, {} requests, {} connections to backends, {} timers, {} buffers in use, \
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
        self.core.settings.keep_alive = match (&drain_target, self.core.settings.keep_alive) {
            (None, _) => KeepAlive::Never,
            (Some(DrainTarget::Outside(outside)), KeepAlive::Always) if !outside.takes_running || !kernel_has_tls() => {
                KeepAlive::Plain
            }
            (Some(_), keep_alive) => keep_alive,
        };
        self.core.is_replaced = matches!(drain_target, Some(DrainTarget::Outside(_)));
        match &mut self.drain {
            Some(drain) => drain.drain_target = drain_target,
            None => {
                let running = RunningDepartures::default();
                self.drain = Some(Drain { by: limit, drain_target, movers: Vec::new(), running });
            }
        }
        self.drain_all_clients();
        if !shares_listeners {
            // The kernel's handshake has promised service to the connections in the accept queue, and another process
            // need not have this listener. The clients that can move have moved, so none of them is closed to make
            // room.
            self.send_migrating();
            for listener in 0..self.listeners.len() {
                while self.accept_some(listener) {}
            }
            self.drain_all_clients();
        }
        self.close_listeners();
    }

    /// Drains every client, as far as each can be drained now.
    fn drain_all_clients(&mut self) {
        let clients: Vec<SlotKey> = self.clients.keys().collect();
        clients.into_iter().for_each(|key| self.drain_client(key));
    }

    /// A client may have become able to move to the drain target, if there is one.
    pub(super) fn may_move(&mut self, key: SlotKey) {
        if let Some(drain) = self.drain.as_mut().filter(|drain| drain.drain_target.is_some()) {
            drain.movers.push(key);
        }
    }

    /// While this worker drains: moves a client, or closes it if it is idle.
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
        if is_for_service && let Some(job) = self.clients.get(key).and_then(|client| client.job) {
            self.end_service_stream(job);
        }
        let Some(client @ Client { job: None, .. }) = self.clients.get_mut(key) else { return };
        // A client that has just moved here may have sent bytes, and their event is still to come.
        if client.served == 0 || !client.stream.transport.is_silent() {
            self.timers.set(&mut client.timer, self.core.now + FIRST_REQUEST);
        } else {
            self.close_idle_client(key);
        }
    }

    /// Whether the drain is complete.
    pub(super) fn has_drained(&self) -> bool {
        match &self.drain {
            None => false,
            // This comes first: a batch that has returned is in the handoff queue.
            Some(drain) if drain.running.in_transit.load(Ordering::Acquire) => false,
            Some(Drain { drain_target: Some(DrainTarget::Worker(..)), .. }) => self.clients.is_empty(),
            Some(_) => self.clients.is_empty() && self.handoff.is_empty(),
        }
    }

    /// Closes the clients that can be closed in this turn, and all of them when the drain time is over. This comes
    /// last, so that clients that can move are not closed, even with a drain time of zero.
    #[cold]
    pub(super) fn continue_drain(&mut self) {
        if let Some(drain) = &mut self.drain
            && drain.running.is_away
            && !drain.running.in_transit.load(Ordering::Acquire)
        {
            // Its clients may be back, however late the message about them is.
            drain.running.is_away = false;
            self.receive_arrivals();
        }
        self.send_migrating();
        if self.drain.as_ref().is_some_and(|drain| drain.by <= self.core.now) {
            self.abort_all();
        }
    }

    /// The drain time is over.
    fn abort_all(&mut self) {
        if !self.jobs.is_empty() {
            self.stats.note_forced(self.jobs.len());
            log::warn!("worker {}: ending {} requests and tunnels by force", self.number, self.jobs.len());
        }
        // The first call begins an error response where none was begun; the second call ends the exchange as it is.
        for _ in 0..2 {
            let jobs: Vec<SlotKey> = self.jobs.keys().collect();
            jobs.into_iter().for_each(|job| self.dispatch(job, Input::Abort(FailureReason::Stopped)));
        }
        debug_assert!(self.jobs.is_empty(), "an exchange outlived its end");
        let clients: Vec<SlotKey> = self.clients.keys().collect();
        clients.into_iter().for_each(|client| self.close_client(client));
    }
}
