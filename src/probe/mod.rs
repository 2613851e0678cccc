//! Health probes: one thread with its own poll probes the members of clusters whose option `health.mode` enables it,
//! and its verdicts apply on all cores.
//!
//! A probe takes the path of a request: a connection of its own to the backend's address, with PROXY header and TLS,
//! and a request whose response is judged by status and body. [`schedule`] decides which member is probed when and what
//! follows; [`check`] is one probe as bytes. Both know no socket and no clock. The thread learns of clusters through
//! [`HealthWatcher`]: an edit, a failed request or an ejection makes it examine a cluster again.

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
use crate::health::ProbeSharing;
use crate::net::liveness::Liveness;
use crate::net::tls::BackendTls;
use inbox::Inbox;
use mio::{Poll, Waker};
use prober::{Prober, WAKER};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

/// The number of times that the thread restarts after an internal fault, before it stays ended.
const MAX_RESTARTS: u32 = 100;

/// Called with a host and a backend whose dead mark, made by this node, has ended because probes succeed.
pub type OnAlive = Box<dyn Fn(&str, &Arc<Backend>) + Send>;

/// Configuration of probes.
pub struct ProbeConfig {
    /// TLS settings for backends of `https://`; `None` if there are none.
    pub backend_tls: Option<BackendTls>,
    /// Limits after which a connection ends because its peer does not respond.
    pub liveness: Liveness,
    /// Called when marks have ended.
    pub on_alive: OnAlive,
    /// The clock of the process.
    pub clock: Clock,
    /// The probes of other nodes, if there may be others.
    pub sharing: Option<Arc<ProbeSharing>>,
}

/// The probe thread. It ends when this is dropped.
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
    if let Some(sharing) = &config.sharing {
        let inbox = Arc::clone(&inbox);
        sharing.on_news(move || inbox.wake());
    }
    let counters = Arc::<Counters>::default();
    let mut prober = Prober::new(poll, Arc::clone(&inbox), Arc::clone(&counters), config);
    let run = move || {
        for _ in 0..MAX_RESTARTS {
            match catch_unwind(AssertUnwindSafe(|| prober.run())) {
                Ok(Ok(())) => return,
                Ok(Err(error)) => log::error!("health probes: {error}; restarting"),
                Err(_) => log::error!("health probes: the thread panicked; restarting"),
            }
            prober.restart();
        }
        log::error!("health probes: no backend is probed any more, after {MAX_RESTARTS} faults");
    };
    let thread = thread::Builder::new().name("probes".into()).spawn(run)?;
    Ok(Probes { inbox, counters, thread: Some(thread) })
}

impl Probes {
    /// The interface of the thread for clusters.
    pub fn watcher(&self) -> Arc<dyn HealthWatcher> {
        Arc::clone(&self.inbox) as _
    }

    /// Its counters.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Sets the TLS settings for backends of `https://`.
    pub fn set_backend_tls(&self, tls: BackendTls) {
        self.inbox.set_tls(tls);
    }

    /// Ends the thread and waits for it. No verdict changes afterwards.
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
