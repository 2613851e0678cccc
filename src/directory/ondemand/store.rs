//! Writes clusters to their files in its own thread: no request and no edit waits for the disk.
//!
//! New files are written next to the old ones, synchronised, and renamed over them. So after a crash at any byte a
//! cluster has its old file or its new one. Edits of one cluster during a write are merged. A failed write, as on a
//! full disk, is retried, and the old file stays; writes of other clusters do not wait for it.
//!
//! One process at a time owns the folder: from the moment that it serves ([`Store::begin`]) until its successor serves
//! ([`Store::retire`]).

use super::definition::ClusterDefinition;
use super::disk::{DRAFT, Disk, OWN, REWRITE};
use super::file;
use super::preserver::{Findings, Preserver};
use crate::base::clock::{Clock, Moment};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::process;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// The interval of retries of a write.
const RETRY: Duration = Duration::from_secs(1);

/// Bytes written at once.
const PIECE: usize = 64 * 1024;

/// Number of log lines for clusters that could not be written in one pass.
const MAX_LINES: usize = 10;

/// The desired file of each cluster; `None` for no file.
type Wanted = BTreeMap<Box<str>, Option<Arc<ClusterDefinition>>>;

/// Failed writes with their errors.
#[derive(Debug, Default)]
struct Failures {
    wanted: Wanted,
    problems: BTreeMap<Box<str>, String>,
}

impl Failures {
    fn add(&mut self, name: Box<str>, cluster: Option<Arc<ClusterDefinition>>, problem: String) {
        self.problems.insert(name.clone(), problem);
        self.wanted.insert(name, cluster);
    }
}

/// The handle of the thread.
#[derive(Clone, Debug)]
pub(super) struct Store(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    clock: Clock,
    /// Clusters whose files are not written, with the reason.
    reserved: BTreeMap<Box<str>, String>,
}

#[derive(Debug, Default)]
struct Queue {
    wanted: Wanted,
    /// Failed writes. They are retried at `retry_at`.
    failed: Wanted,
    retry_at: Moment,
    has_begun: bool,
    is_writing: bool,
    is_stopping: bool,
    has_stopped: bool,
}

impl Queue {
    fn is_done(&self) -> bool {
        self.has_stopped || self.wanted.is_empty() && self.failed.is_empty() && !self.is_writing
    }
}

impl Store {
    /// Starts the thread. It does nothing before [`Store::begin`].
    pub(super) fn start(disk: impl Disk + Send + 'static, mut findings: Findings, clock: Clock) -> io::Result<Self> {
        let reserved = std::mem::take(&mut findings.reserved);
        let shared = Arc::new(Shared { queue: Mutex::default(), changed: Condvar::new(), clock, reserved });
        let own = Arc::clone(&shared);
        thread::Builder::new().name("state".into()).spawn(move || own.run(&disk, findings))?;
        Ok(Self(shared))
    }

    /// The process owns the folder: files may be changed from now on.
    pub(super) fn begin(&self) {
        let mut queue = self.0.lock();
        // There is earlier work.
        (queue.has_begun, queue.is_writing) = (true, true);
        drop(queue);
        self.0.changed.notify_all();
    }

    /// The reason why the file of a cluster is not written; `None` if it is written.
    pub(super) fn reserved(&self, name: &str) -> Option<&str> {
        self.0.reserved.get(name).map(String::as_str)
    }

    /// Has a cluster written, or its file removed. Never waits.
    pub(super) fn save(&self, name: &str, cluster: Option<Arc<ClusterDefinition>>) {
        if let Some(problem) = self.reserved(name) {
            return log::error!("server.stateDir: cluster {name} is not written: {problem}");
        }
        let mut queue = self.0.lock();
        queue.failed.remove(name);
        queue.wanted.insert(name.into(), cluster);
        self.0.changed.notify_all();
    }

    /// Waits until all pending changes are written. Returns whether they are, within `patience`.
    pub(super) fn flush(&self, patience: Duration) -> bool {
        let is_busy = |queue: &mut Queue| !queue.is_done();
        let waited = self.0.changed.wait_timeout_while(self.0.lock(), patience, is_busy);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_done()
    }

    /// Ends all writes: another process owns the folder.
    pub(super) fn retire(&self) {
        let mut queue = self.0.lock();
        queue.is_stopping = true;
        (queue.wanted, queue.failed) = (Wanted::new(), Wanted::new());
        self.0.changed.notify_all();
    }

    /// Writes pending changes, for up to `patience`, and ends the thread.
    pub(super) fn stop(&self, patience: Duration) {
        let has_begun = self.0.lock().has_begun;
        if has_begun && !self.flush(patience) {
            let queue = self.0.lock();
            let left = queue.wanted.len() + queue.failed.len();
            log::error!("server.stateDir: {left} clusters could not be written");
        }
        self.0.lock().is_stopping = true;
        self.0.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, disk: &impl Disk, findings: Findings) {
        if self.until_begun() {
            let mut preserver = Preserver::begin(disk, findings);
            self.has_written(Failures::default());
            let mut told = BTreeSet::new();
            while let Some(wanted) = self.next() {
                let written: Vec<Box<str>> = wanted.keys().cloned().collect();
                let failures = write_all(disk, &mut preserver, wanted, PIECE);
                tell(&mut told, written, &failures.problems);
                self.has_written(failures);
            }
        }
        self.lock().has_stopped = true;
        self.changed.notify_all();
    }

    /// Returns whether the process owns the folder; `false` if it never will.
    fn until_begun(&self) -> bool {
        let waits = |queue: &mut Queue| !queue.has_begun && !queue.is_stopping;
        let queue = self.changed.wait_while(self.lock(), waits).unwrap_or_else(PoisonError::into_inner);
        queue.has_begun
    }

    /// Records a failed write.
    fn has_written(&self, failures: Failures) {
        let mut queue = self.lock();
        queue.is_writing = false;
        if !failures.wanted.is_empty() {
            queue.retry_at = self.clock.now() + RETRY;
        }
        for (name, cluster) in failures.wanted {
            if !queue.wanted.contains_key(&name) && !queue.is_stopping {
                queue.failed.insert(name, cluster);
            }
        }
        drop(queue);
        self.changed.notify_all();
    }

    /// The changes to write next; `None` at the end.
    fn next(&self) -> Option<Wanted> {
        let mut queue = self.lock();
        loop {
            if queue.is_stopping {
                return None;
            }
            let wait = queue.retry_at.since(self.clock.now());
            if wait.is_zero() {
                let failed = std::mem::take(&mut queue.failed);
                queue.wanted.extend(failed);
            }
            if !queue.wanted.is_empty() {
                queue.is_writing = true;
                return Some(std::mem::take(&mut queue.wanted));
            }
            queue = if queue.failed.is_empty() {
                self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner)
            } else {
                self.changed.wait_timeout(queue, wait).unwrap_or_else(PoisonError::into_inner).0
            };
        }
    }
}

/// Logs clusters that cannot be written, once each, and clusters that are written after all.
fn tell(told: &mut BTreeSet<Box<str>>, written: Vec<Box<str>>, problems: &BTreeMap<Box<str>, String>) {
    let news: Vec<_> = problems.iter().filter(|(name, _)| !told.contains(*name)).collect();
    for (name, problem) in news.iter().take(MAX_LINES) {
        log::error!("server.stateDir: the file of {name}: {problem}; the cluster is written once that is possible");
    }
    if let Some(more) = news.len().checked_sub(MAX_LINES).filter(|more| *more > 0) {
        log::error!("server.stateDir: {more} more clusters could not be written");
    }
    let had_problems = !told.is_empty();
    told.extend(problems.keys().cloned());
    written.iter().filter(|name| !problems.contains_key(*name)).for_each(|name| _ = told.remove(name));
    if had_problems && told.is_empty() {
        log::info!("server.stateDir: all clusters on demand are written again");
    }
}

/// Writes all of these. Returns the ones that failed.
fn write_all(disk: &impl Disk, preserver: &mut Preserver, wanted: Wanted, piece: usize) -> Failures {
    let (mut failures, mut drafted) = (Failures::default(), Wanted::new());
    for (name, cluster) in wanted {
        let kept = preserver.keep(disk, &name);
        let result = match &cluster {
            Some(cluster) => kept.and_then(|()| draft(disk, &name, &file::render(cluster), piece)),
            None => kept,
        };
        match result {
            Ok(()) => _ = drafted.insert(name, cluster),
            Err(error) => failures.add(name, cluster, error.to_string()),
        }
    }
    take_into_use(disk, drafted, &mut failures);
    failures
}

/// The name of a draft. A process that was replaced may be about to write one too.
fn draft_of(name: &str) -> String {
    format!("{name}.{}{DRAFT}", process::id())
}

/// Writes the draft of a file.
fn draft(disk: &impl Disk, name: &str, text: &str, piece: usize) -> io::Result<()> {
    let draft = draft_of(name);
    let written = disk
        .create(&draft)
        .and_then(|()| text.as_bytes().chunks(piece).try_for_each(|piece| disk.append(&draft, piece)));
    if written.is_err() {
        // On a full disk its space is needed.
        let _ = disk.remove(&draft);
    }
    written
}

/// Renames drafts over their files, once their content is on the disk. A partial failure can be repeated.
fn take_into_use(disk: &impl Disk, drafted: Wanted, failures: &mut Failures) {
    let drafts: Vec<String> =
        drafted.iter().filter(|(_, cluster)| cluster.is_some()).map(|(name, _)| draft_of(name)).collect();
    // If they cannot be synchronized together, each is synchronized by itself to find the faulty one.
    let is_synced = drafts.is_empty() || disk.sync(&drafts).is_ok();
    let mut in_use = Wanted::new();
    for (name, cluster) in drafted {
        let draft = draft_of(&name);
        let synced = if is_synced || cluster.is_none() { Ok(()) } else { disk.sync(std::slice::from_ref(&draft)) };
        let result = synced.and_then(|()| match cluster {
            Some(_) => disk.rename(&draft, &format!("{name}{OWN}")),
            None => remove(disk, &name),
        });
        match result {
            Ok(()) => _ = in_use.insert(name, cluster),
            Err(error) => failures.add(name, cluster, error.to_string()),
        }
    }
    // After a power failure, a name that is not on the disk yet would be the old one.
    if !in_use.is_empty()
        && let Err(error) = disk.sync_folder()
    {
        let problem = format!("waiting for the folder: {error}");
        in_use.into_iter().for_each(|(name, cluster)| failures.add(name, cluster, problem.clone()));
    }
}

fn remove(disk: &impl Disk, name: &str) -> io::Result<()> {
    disk.remove(&format!("{name}{OWN}"))?;
    disk.remove(&format!("{name}{REWRITE}"))
}

#[cfg(test)]
mod tests;
