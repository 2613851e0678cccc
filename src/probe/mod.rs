//! Health probes: one thread with a poll of its own asks the members of clusters whose option `health.mode` says so, and
//! gives its verdicts to all cores.
//!
//! A probe goes the way of a request: a connection of its own to the backend's address, with its PROXY header and TLS, and
//! a request whose response is judged by status and body. [`schedule`] knows which member is probed when and what follows;
//! [`check`] is one probe as bytes. Both know no socket and no clock. The thread learns of clusters by
//! [`HealthWatcher`]: an edit, a failed request or an ejection has it look at a cluster again.

mod check;
mod connection;
mod inbox;
mod notice;
mod prober;
mod schedule;
mod target;
#[cfg(test)]
mod tests;

use crate::base::clock::Clock;
use crate::base::counters::Counters;
use crate::cluster::{Backend, HealthWatcher};
use crate::net::liveness::Liveness;
use crate::net::tls::BackendTls;
use inbox::Inbox;
use mio::{Poll, Waker};
use prober::{Prober, WAKER};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

/// How often the thread begins anew after a fault of its own, before it is left ended.
const MAX_RESTARTS: u32 = 100;

/// Is told of a host and a backend whose dead mark, made by this node, has ended because probes are good.
pub type OnAlive = Box<dyn Fn(&str, &Arc<Backend>) + Send>;

/// What probes are made of.
pub struct ProbeConfig {
    /// How backends of `https://` are talked to; `None` where none can be.
    pub backend_tls: Option<BackendTls>,
    /// When connections are given up whose peer does not reply any more.
    pub liveness: Liveness,
    /// Is told of marks that have ended.
    pub on_alive: OnAlive,
    /// The clock of the process.
    pub clock: Clock,
}

/// The thread that probes. It ends when this is dropped.
#[derive(Debug)]
pub struct Probes {
    inbox: Arc<Inbox>,
    counters: Arc<Counters>,
    thread: Option<JoinHandle<()>>,
}

/// Starts the thread.
pub fn start(config: ProbeConfig) -> io::Result<Probes> {
    let poll = Poll::new()?;
    let inbox = Arc::new(Inbox::new(Waker::new(poll.registry(), WAKER)?, config.backend_tls.clone()));
    let counters = Arc::<Counters>::default();
    let mut prober = Prober::new(poll, Arc::clone(&inbox), Arc::clone(&counters), config);
    let run = move || {
        for _ in 0..MAX_RESTARTS {
            match catch_unwind(AssertUnwindSafe(|| prober.run())) {
                Ok(Ok(())) => return,
                Ok(Err(error)) => log::error!("health probes: {error}; beginning anew"),
                Err(_) => log::error!("health probes: the thread panicked; beginning anew"),
            }
            prober.restart();
        }
        log::error!("health probes: no backend is probed any more, after {MAX_RESTARTS} faults");
    };
    let thread = thread::Builder::new().name("probes".into()).spawn(run)?;
    Ok(Probes { inbox, counters, thread: Some(thread) })
}

impl Probes {
    /// The thread as clusters know it.
    pub fn watcher(&self) -> Arc<dyn HealthWatcher> {
        Arc::clone(&self.inbox) as _
    }

    /// What it counts.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Has it talk to backends of `https://` by these settings from now on.
    pub fn set_backend_tls(&self, tls: BackendTls) {
        self.inbox.set_tls(tls);
    }

    /// Ends the thread and waits for it. No verdict changes from then on.
    pub fn stop(&mut self) {
        self.inbox.stop();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the thread of health probes had panicked");
        }
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.stop();
    }
}
