//! Writes clusters to their files in its own thread: no request and no edit waits for the disk.
//!
//! New files are written next to the old ones, synchronised, and renamed over them. So after a crash at any byte a
//! cluster has its old file or its new one. Edits of one cluster during a write are merged. A failed write, as on a
//! full disk, is retried, and the old file stays.

use super::definition::ClusterDefinition;
use super::disk::Disk;
use super::file;
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Suffixes of files: of this program and of x0d, of x0d's rewrite, of drafts, and of x0d's originals.
pub(super) const OWN: &str = ".db";
pub(super) const REWRITE: &str = ".cluster.conf";
pub(super) const DRAFT: &str = ".draft";
pub(super) const ORIGINAL: &str = ".x0d";

/// The interval of retries of a write.
const RETRY: Duration = Duration::from_secs(1);

/// Bytes written at once.
const PIECE: usize = 64 * 1024;

/// The desired file of each cluster; `None` for no file.
type Wanted = BTreeMap<Box<str>, Option<Arc<ClusterDefinition>>>;

/// The handle of the thread.
#[derive(Clone, Debug)]
pub(super) struct Store(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    wanted: Wanted,
    is_writing: bool,
    is_stopping: bool,
    has_stopped: bool,
    /// The last attempt failed.
    has_failed: bool,
}

impl Store {
    /// Starts the thread.
    pub(super) fn start(disk: impl Disk + Send + 'static) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let own = Arc::clone(&shared);
        thread::Builder::new().name("state".into()).spawn(move || own.run(&disk))?;
        Ok(Self(shared))
    }

    /// Has a cluster written, or its file removed. Never waits.
    pub(super) fn save(&self, name: &str, cluster: Option<Arc<ClusterDefinition>>) {
        self.0.lock().wanted.insert(name.into(), cluster);
        self.0.changed.notify_all();
    }

    /// Waits until all pending changes are written. Returns whether they are, within `patience`.
    pub(super) fn flush(&self, patience: Duration) -> bool {
        let is_busy = |queue: &mut Queue| !(queue.has_stopped || queue.wanted.is_empty() && !queue.is_writing);
        let waited = self.0.changed.wait_timeout_while(self.0.lock(), patience, is_busy);
        let (mut queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        !is_busy(&mut queue)
    }

    /// Writes pending changes, for up to `patience`, and ends the thread.
    pub(super) fn stop(&self, patience: Duration) {
        if !self.flush(patience) {
            log::error!("server.stateDir: {} clusters could not be written", self.0.lock().wanted.len());
        }
        self.0.lock().is_stopping = true;
        self.0.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, disk: &impl Disk) {
        let mut warned = false;
        while let Some(wanted) = self.next() {
            let (left, problem) = write_all(disk, wanted, PIECE);
            let mut queue = self.lock();
            queue.is_writing = false;
            queue.has_failed = problem.is_some();
            for (name, cluster) in left {
                queue.wanted.entry(name).or_insert(cluster);
            }
            match problem {
                Some(problem) if !warned => {
                    log::error!("server.stateDir: {problem}; clusters on demand are written once that is possible");
                }
                None if warned => log::info!("server.stateDir: clusters on demand are written again"),
                _ => {}
            }
            warned = queue.has_failed;
            drop(queue);
            self.changed.notify_all();
        }
        self.lock().has_stopped = true;
        self.changed.notify_all();
    }

    /// The changes to write next; `None` at the end.
    fn next(&self) -> Option<Wanted> {
        let mut queue = self.lock();
        loop {
            if queue.is_stopping {
                return None;
            }
            if queue.has_failed {
                let until_stop = |queue: &mut Queue| !queue.is_stopping;
                let waited = self.changed.wait_timeout_while(queue, RETRY, until_stop);
                queue = waited.unwrap_or_else(PoisonError::into_inner).0;
                queue.has_failed = false;
                continue;
            }
            if !queue.wanted.is_empty() {
                queue.is_writing = true;
                return Some(std::mem::take(&mut queue.wanted));
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Writes all of these. Returns those that could not be written, and the first error.
fn write_all(disk: &impl Disk, wanted: Wanted, piece: usize) -> (Wanted, Option<String>) {
    let (mut left, mut problem) = (Wanted::new(), None);
    let mut drafted = Wanted::new();
    for (name, cluster) in wanted {
        let result = cluster.as_ref().map_or(Ok(()), |cluster| draft(disk, &name, &file::render(cluster), piece));
        match result {
            Ok(()) => _ = drafted.insert(name, cluster),
            Err(error) => {
                problem.get_or_insert(format!("the file of {name}: {error}"));
                left.insert(name, cluster);
            }
        }
    }
    if let Err(error) = take_into_use(disk, &drafted) {
        problem.get_or_insert(format!("the folder: {error}"));
        left.append(&mut drafted);
    }
    (left, problem)
}

/// Writes the draft of a file.
fn draft(disk: &impl Disk, name: &str, text: &str, piece: usize) -> io::Result<()> {
    let draft = format!("{name}{DRAFT}");
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
fn take_into_use(disk: &impl Disk, drafted: &Wanted) -> io::Result<()> {
    let drafts: Vec<String> =
        drafted.iter().filter(|(_, cluster)| cluster.is_some()).map(|(name, _)| format!("{name}{DRAFT}")).collect();
    if !drafts.is_empty() {
        disk.sync(&drafts)?;
    }
    for (name, cluster) in drafted {
        match cluster {
            Some(_) => disk.rename(&format!("{name}{DRAFT}"), &format!("{name}{OWN}"))?,
            None => remove(disk, name)?,
        }
    }
    // After a power failure, a name that is not on the disk yet would be the old one.
    if drafted.is_empty() { Ok(()) } else { disk.sync_folder() }
}

fn remove(disk: &impl Disk, name: &str) -> io::Result<()> {
    disk.remove(&format!("{name}{OWN}"))?;
    disk.remove(&format!("{name}{REWRITE}"))
}

/// Keeps files written by x0d under another name, before files of this program replace them.
pub(super) fn keep_originals(disk: &impl Disk, names: &HashSet<Box<str>>) -> io::Result<()> {
    for name in names {
        for ending in [OWN, REWRITE] {
            disk.link(&format!("{name}{ending}"), &format!("{name}{ending}{ORIGINAL}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
