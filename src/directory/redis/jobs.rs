//! The next job of the reading thread. Giving a job never waits: only the last connection to open and the last batch to
//! read count, so there is room for one of each.

use super::route_state::Batch;
use super::watcher::WatchSession;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A job of the reading thread.
#[derive(Debug)]
pub(super) enum Job {
    /// Connect to the watched server.
    Connect(WatchSession),
    /// Read these hosts.
    Read(Batch),
}

/// The sending end. When it is dropped, no more jobs follow.
#[derive(Debug)]
pub(super) struct JobGiver(Jobs);

/// The receiving end.
#[derive(Clone, Debug, Default)]
pub(super) struct Jobs(Arc<(Mutex<Waiting>, Condvar)>);

#[derive(Debug, Default)]
struct Waiting {
    connect: Option<WatchSession>,
    batch: Option<Batch>,
    is_over: bool,
}

/// A pair of ends.
pub(super) fn jobs() -> (JobGiver, Jobs) {
    let jobs = Jobs::default();
    (JobGiver(jobs.clone()), jobs)
}

impl JobGiver {
    /// Requests a connection. A batch for the connection before is dropped.
    pub(super) fn connect(&self, watch: WatchSession) {
        self.give(|waiting| (waiting.connect, waiting.batch) = (Some(watch), None));
    }

    /// Requests the reading of a batch.
    pub(super) fn read(&self, batch: Batch) {
        self.give(|waiting| waiting.batch = Some(batch));
    }

    fn give(&self, change: impl FnOnce(&mut Waiting)) {
        change(&mut self.0.lock());
        self.0.0.1.notify_one();
    }
}

impl Drop for JobGiver {
    fn drop(&mut self) {
        self.give(|waiting| waiting.is_over = true);
    }
}

impl Jobs {
    /// Waits for a job; `None` if no more follow.
    pub(super) fn take(&self) -> Option<Job> {
        let mut waiting = self.lock();
        loop {
            if waiting.is_over {
                return None;
            }
            if let Some(watch) = waiting.connect.take() {
                return Some(Job::Connect(watch));
            }
            if let Some(batch) = waiting.batch.take() {
                return Some(Job::Read(batch));
            }
            waiting = self.0.1.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether no job is pending.
    pub(super) fn are_none(&self) -> bool {
        let waiting = self.lock();
        waiting.connect.is_none() && waiting.batch.is_none() && !waiting.is_over
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
