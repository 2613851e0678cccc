//! The end of a worker: nothing new, then what is under way, then nothing.

use super::{Worker, connection::Client};
use crate::base::reason::Reason;
use crate::base::slots::Key;
use crate::exchange::Input;
use std::time::Duration;

/// How long a client that has just been let in may take to send its request.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

impl Worker {
    pub(super) fn begin_stop(&mut self) {
        if self.stop_at.is_some() {
            return;
        }
        log::info!(
            "worker {}: stopping; {} connections, {} requests",
            self.number,
            self.clients.len(),
            self.jobs.len()
        );
        // Who is at the door already was promised an answer by the kernel's handshake.
        for door in 0..self.listeners.len() {
            self.accept(door);
        }
        self.listeners.clear();
        self.core.settings.keep_alive = false;
        self.stop_at = Some(self.core.now + self.settings.graceful_wait);
        let clients: Vec<Key> = self.clients.keys().collect();
        for key in clients {
            self.greet(key);
            match self.clients.get(key) {
                Some(Client { job: None, served: true, .. }) => self.close_client(key),
                Some(Client { job: None, timer, .. }) => self.timers.set(*timer, self.core.now + FIRST_REQUEST),
                _ => {}
            }
        }
    }

    /// Whether the order to stop has been carried out.
    pub(super) fn has_stopped(&self) -> bool {
        self.stop_at.is_some() && self.clients.is_empty()
    }

    /// The time for stopping is over.
    pub(super) fn abort_all(&mut self) {
        if !self.jobs.is_empty() {
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
