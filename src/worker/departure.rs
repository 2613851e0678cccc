//! Clients that leave for another process: idle ones, and those with a tunnel or a response under way.
//!
//! An idle client is gone once it is sent. Clients with an exchange leave in batches, and belong to their worker until the
//! other process confirms them: a batch that is dropped before that returns to the worker.

#[cfg(test)]
use super::handoff::PortableClient;
use super::handoff::{HandoffQueue, MigratingConnection, MigratingExchange, RunningClient};
use crate::base::clock::{Clock, Moment};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Clients for another process.
#[derive(Debug)]
pub enum Departure {
    /// Clients without an exchange: [`MigratingConnection::into_portable`].
    Idle(Vec<MigratingConnection>),
    /// Clients with an exchange.
    Running(DepartingBatch),
    /// No more clients follow.
    End,
}

/// Clients with an exchange, in transit to another process. When dropped, the remaining clients return to their worker
/// and continue there.
#[derive(Debug)]
pub struct DepartingBatch {
    clients: Vec<MigratingConnection>,
    home: Home,
    left: Moment,
}

/// The worker of a batch.
pub(super) struct Home {
    pub(super) handoff: HandoffQueue,
    /// Until the batch is confirmed or dropped, its worker sends no other batch and does not end.
    pub(super) in_transit: Arc<AtomicBool>,
    /// The clock of the worker.
    pub(super) clock: Clock,
    /// Makes the worker read its queue.
    pub(super) wake: Box<dyn Fn() + Send>,
}

impl fmt::Debug for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Home").field("handoff", &self.handoff).finish_non_exhaustive()
    }
}

impl DepartingBatch {
    /// A batch of these clients.
    pub(super) fn new(clients: Vec<MigratingConnection>, home: Home) -> Self {
        let left = home.clock.now();
        Self { clients, home, left }
    }

    /// The time since they left their worker.
    pub fn age(&self) -> Duration {
        self.home.clock.now().since(self.left)
    }

    /// A batch that returns to this queue.
    #[cfg(test)]
    pub fn of(clients: Vec<PortableClient>, handoff: &HandoffQueue) -> Self {
        let (handoff, wake) = (handoff.clone(), Box::new(|| ()));
        let home = Home { handoff, in_transit: Arc::new(AtomicBool::new(true)), clock: Clock::new(), wake };
        Self::new(clients.into_iter().map(Into::into).collect(), home)
    }

    /// The clients, each at its place.
    pub fn clients(&self) -> impl Iterator<Item = RunningClient<'_>> {
        self.clients.iter().filter_map(MigratingConnection::running)
    }

    /// Removes the clients at these places, which are those that the other process has accepted.
    pub fn settle(mut self, taken: &[u32]) {
        let mut place = 0;
        self.clients.retain(|_| {
            let is_taken = taken.contains(&place);
            place += 1;
            !is_taken
        });
    }
}

impl Drop for DepartingBatch {
    fn drop(&mut self) {
        let mut clients = std::mem::take(&mut self.clients);
        let home = &self.home;
        clients.iter_mut().for_each(|client| client.is_refused = true);
        if !clients.is_empty() {
            home.handoff.put(clients);
        }
        // This comes after the clients: a worker that sees it finds them in its queue.
        home.in_transit.store(false, Ordering::Release);
        (home.wake)();
    }
}

impl MigratingConnection {
    /// Hands its TLS sessions to the kernel. After an error its connections are closed as soon as they are served.
    pub(super) fn leave(&mut self) -> io::Result<()> {
        let client = self.stream.transport.leave();
        let upstream = match &mut self.exchange {
            Some(MigratingExchange::Own(own)) => own.upstream.transport.leave(),
            Some(MigratingExchange::Foreign(_)) | None => Ok(()),
        };
        client.and(upstream)
    }

    /// The number of bytes to send with it.
    pub(super) fn running_bytes(&self) -> usize {
        self.running().map_or(0, |client| client.bytes.parts().iter().map(|part| part.len()).sum())
    }
}
