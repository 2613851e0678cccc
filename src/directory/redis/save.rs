//! Saving of known data to a file, and loading.

use super::connect::Identity;
use super::route_state::{KnownRoutes, MAX_SNAPSHOT_ROUTES, SnapshotMark, SnapshotRoute, SnapshotRoutes};
use crate::base::clock::{Clock, Moment};
use crate::cluster::{BackendUrl, Options, Route};
use crate::directory::Error;
use crate::directory::catalog::FrontendRecord;
use crate::directory::handover::{self, Export};
use crate::directory::snapshot::{self, Snapshot, SnapshotEntry};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use nix::fcntl::Flock;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// The delay of a retry after a failed write, unless newer data comes earlier.
const RETRY: Duration = Duration::from_secs(30);

/// The limit of a start's wait for a snapshot to be read.
const READ: Duration = Duration::from_secs(10);

/// The limit of the end's wait for a snapshot to be written.
const LAST_WRITE: Duration = Duration::from_secs(10);

/// The time for which changes are collected before they are written.
const GATHER: Duration = Duration::from_secs(5);

/// The data of the snapshot at the start.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) routes: SnapshotRoutes,
    /// The identity of the Redis that it comes from.
    pub(super) identity: Option<Identity>,
}

/// The writing thread and its next job.
#[derive(Debug)]
pub(super) struct Saver<W> {
    work: Sender<W>,
    thread: JoinHandle<()>,
    /// It disconnects when the thread ends.
    is_over: Receiver<Infallible>,
    timer: SaveTimer,
}

/// The time of the next save.
#[derive(Debug, Default)]
pub(super) struct SaveTimer(Option<Moment>);

/// The routes as they are handed over.
#[derive(Debug)]
pub(super) struct Routes {
    pub(super) known: KnownRoutes,
    /// The histories of the Redis that they come from.
    pub(super) histories: Vec<String>,
}

/// Reads the routes handed over by the predecessor, or else the snapshot, and starts the thread that writes the
/// snapshot, if there is a path.
pub(super) fn start_routes(
    path: Option<&Path>,
    inherited: Option<File>,
    clock: Clock,
) -> Result<(Known, Option<Saver<Routes>>), Error> {
    let inherited = handover::read(inherited, "routes");
    let (kept, mut saver) = match path {
        Some(path) => {
            let (snapshot, saver) = start(path, "hosts", clock, |routes| render(routes, None))?;
            (snapshot, Some(saver))
        }
        None => (None, None),
    };
    if let (Some(_), Some(saver)) = (&inherited, &mut saver) {
        // It is newer than the file.
        saver.note_change(clock.now());
    }
    let known = inherited.or(kept).map(|snapshot| revive(snapshot, clock.now()));
    Ok((known.unwrap_or_default(), saver))
}

/// The known routes, for the successor process.
pub(super) fn export(routes: Routes, now: Moment) -> Export {
    handover::export(move || render(routes, Some(now)))
}

/// Reads a snapshot and starts the thread that writes it. An unusable file stays for inspection until there is a better
/// one. A path that is a symbolic link stays one: its target is read and replaced.
pub(super) fn start<T: SnapshotEntry + Send + 'static, W: Send + 'static>(
    path: &Path,
    what: &str,
    clock: Clock,
    render: impl Fn(W) -> Snapshot<T> + Send + 'static,
) -> Result<(Option<Snapshot<T>>, Saver<W>), Error> {
    let begun = clock.now();
    let path = snapshot::follow_link(path);
    let mut target = Target { path: path.clone(), is_refused: false, lock: None };
    let (read_out, read) = crossbeam_channel::bounded(1);
    let from = path.clone();
    super::spawn("snapshot-read", move || drop(read_out.send(snapshot::read::<T>(&from))))?;
    let late = || snapshot::Fault::Io(io::Error::new(io::ErrorKind::TimedOut, format!("not read within {READ:?}")));
    let known = match read.recv_timeout(READ).unwrap_or_else(|_| Err(late())) {
        Ok(snapshot) => {
            let (count, took) = (snapshot.items.len(), clock.now().since(begun));
            log::info!("snapshot {}: {count} {what}, read in {took:?}", path.display());
            Some(snapshot)
        }
        Err(snapshot::Fault::Io(error)) if error.kind() == io::ErrorKind::NotFound => None,
        Err(fault) => {
            log::error!("snapshot {}: {fault}; it is not used, and left as it is", path.display());
            target.is_refused = true;
            None
        }
    };
    let (work, works) = crossbeam_channel::bounded::<W>(1);
    let (lives, is_over) = crossbeam_channel::bounded(0);
    let thread = super::spawn("snapshot", move || {
        let _lives = lives;
        write_all(&works, &path, RETRY, render, |snapshot| target.write(snapshot));
    })?;
    Ok((known, Saver { work, thread, is_over, timer: SaveTimer::default() }))
}

/// The file for snapshots.
struct Target {
    path: PathBuf,
    /// Its content is unusable, and is kept next to it.
    is_refused: bool,
    /// Held by the one process that writes the file; others only read until it has ended.
    lock: Option<Flock<File>>,
}

impl Target {
    fn write<T: SnapshotEntry>(&mut self, snapshot: &Snapshot<T>) -> io::Result<()> {
        if self.lock.is_none() {
            self.lock = Some(snapshot::lock(&self.path)?);
        }
        if std::mem::take(&mut self.is_refused) {
            log::warn!("the refused snapshot {}", snapshot::set_aside(&self.path));
        }
        snapshot::write(&self.path, snapshot)
    }
}

/// Writes snapshots. A failed write is retried until newer data comes; a lasting fault is logged once.
fn write_all<W, S>(
    works: &Receiver<W>,
    path: &Path,
    retry: Duration,
    render: impl Fn(W) -> S,
    mut write: impl FnMut(&S) -> io::Result<()>,
) {
    let mut failed = None;
    loop {
        let next = match failed {
            Some(_) => works.recv_timeout(retry),
            None => works.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        let (snapshot, has_failed) = match (next, failed.take()) {
            (Ok(work), before) => (render(work), before.is_some()),
            (Err(RecvTimeoutError::Timeout), Some(snapshot)) => (snapshot, true),
            _ => return,
        };
        match (write(&snapshot), has_failed) {
            (Ok(()), false) => {}
            (Ok(()), true) => log::info!("the snapshot {} could be written again", path.display()),
            (Err(error), has_failed) => {
                if !has_failed {
                    log::error!("writing the snapshot {}: {error}; trying again", path.display());
                }
                failed = Some(snapshot);
            }
        }
    }
}

impl SaveTimer {
    /// Records a change of data in the snapshot.
    pub(super) fn note_change(&mut self, now: Moment) {
        self.0.get_or_insert(now + GATHER);
    }

    /// The time of the next save.
    pub(super) fn due(&self) -> Option<Moment> {
        self.0
    }

    /// Makes the next save due at once.
    pub(super) fn hurry(&mut self, now: Moment) {
        self.0 = self.0.map(|due| due.min(now));
    }

    /// Records the result of a save: if the last one is still being written, another save follows.
    pub(super) fn note_saved(&mut self, is_taken: bool, now: Moment) {
        self.0 = (!is_taken).then(|| now + GATHER);
    }
}

impl<W> Saver<W> {
    /// Records a change of data in the snapshot.
    pub(super) fn note_change(&mut self, now: Moment) {
        self.timer.note_change(now);
    }

    /// The time of the next save.
    pub(super) fn due(&self) -> Option<Moment> {
        self.timer.due()
    }

    /// Makes the next save due at once.
    pub(super) fn hurry(&mut self, now: Moment) {
        self.timer.hurry(now);
    }

    /// Passes the known data to the thread.
    pub(super) fn save(&mut self, known: W, now: Moment) {
        let is_taken = self.work.try_send(known).is_ok();
        self.timer.note_saved(is_taken, now);
    }

    /// Writes for the last time, if there are changes, and waits for it.
    pub(super) fn finish(self, known: impl FnOnce() -> W) {
        if self.due().is_some() {
            let _ = self.work.send_timeout(known(), LAST_WRITE);
        }
        drop(self.work);
        if self.is_over.recv_timeout(LAST_WRITE) == Err(RecvTimeoutError::Timeout) {
            return log::error!("the last snapshot is not written within {LAST_WRITE:?}; the one before it stays");
        }
        if self.thread.join().is_err() {
            log::error!("the thread that writes the snapshot had panicked");
        }
    }
}

fn pairs(options: &Options) -> BTreeMap<Box<str>, Box<str>> {
    options.pairs().map(|(name, value)| (name.into(), value.into())).collect()
}

/// A snapshot of the routes. Dead marks are rendered as of `now`. A file has none, since the time of its reading is
/// unknown.
pub(super) fn render(Routes { known, histories }: Routes, now: Option<Moment>) -> Snapshot<snapshot::Route> {
    let mark = |mark: &SnapshotMark| {
        let left_ms = u64::try_from(mark.until.since(now?).as_millis()).ok().filter(|left| *left > 0)?;
        Some(snapshot::Mark { member: mark.member, left_ms, is_external: mark.is_external })
    };
    let marks_in_use = |route: &Route| {
        let now = now.unwrap_or(Moment::NEVER);
        let marks = route.marks.iter().enumerate().flat_map(|(member, mark)| {
            let own = mark.dead_until(now).map(|until| SnapshotMark { member, until, is_external: false });
            let others = mark.dead_external_until(now).map(|until| SnapshotMark { member, until, is_external: true });
            own.into_iter().chain(others)
        });
        marks.filter_map(|found| mark(&found)).collect()
    };
    let in_use = |route: &Arc<Route>| snapshot::Route {
        host: route.host.clone(),
        pattern: route.cluster.key.clone(),
        id: route.cluster.id.clone(),
        backends: route.cluster.members.iter().map(|member| member.url.as_str().into()).collect(),
        options: pairs(&route.cluster.options),
        https_redirect: None,
        marks: marks_in_use(route),
    };
    let unused = |(host, route): &(Arc<str>, Arc<SnapshotRoute>)| snapshot::Route {
        host: (&**host).into(),
        pattern: route.pattern.clone(),
        id: route.record.id.clone(),
        backends: route.record.backends.iter().map(|url| url.as_str().into()).collect(),
        options: pairs(&route.record.options),
        https_redirect: None,
        marks: route.marks.iter().filter_map(mark).collect(),
    };
    // Routes in use come first: if the next start takes only a part, the others are left out.
    Snapshot { histories, items: known.routes.iter().map(in_use).chain(known.unused.iter().map(unused)).collect() }
}

/// The routes in a snapshot.
pub(super) fn revive(snapshot: Snapshot<snapshot::Route>, now: Moment) -> Known {
    let left_out = snapshot.items.len().saturating_sub(MAX_SNAPSHOT_ROUTES);
    if left_out > 0 {
        log::warn!("snapshot: {left_out} routes beyond the first {MAX_SNAPSHOT_ROUTES} are left out");
    }
    let revive = |route: snapshot::Route| {
        let backends: Box<[_]> = route.backends.iter().filter_map(|url| BackendUrl::parse(url).ok()).collect();
        let is_whole = backends.len() == route.backends.len();
        let marks = route.marks.iter().filter(|_| is_whole).map(|mark| SnapshotMark {
            member: mark.member,
            until: now + Duration::from_millis(mark.left_ms),
            is_external: mark.is_external,
        });
        let marks = marks.collect();
        // An older snapshot has only this option.
        let redirect = route.https_redirect.map(|flag| ("httpsRedirect", if flag { "true" } else { "false" }));
        let written = route.options.iter().map(|(name, value)| (&**name, &**value)).chain(redirect);
        let options = Arc::new(Options::read(written, &Options::none()).0);
        let record = FrontendRecord { id: route.id, backends, options, created: 0 };
        (Arc::from(route.host), Arc::new(SnapshotRoute { pattern: route.pattern, record, marks }))
    };
    let identity = Identity::from_lines(snapshot.histories);
    Known { routes: snapshot.items.into_iter().take(MAX_SNAPSHOT_ROUTES).map(revive).collect(), identity }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn what_could_not_be_written_is_tried_again() {
        let (sender, works) = crossbeam_channel::bounded(1);
        sender.send("one").expect("room");
        let (tries, sender) = (Cell::new(0), Cell::new(Some(sender)));
        let write = |snapshot: &&str| {
            assert_eq!(*snapshot, "one");
            tries.set(tries.get() + 1);
            if tries.get() < 3 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            drop(sender.take());
            Ok(())
        };
        write_all(&works, Path::new("snapshot"), Duration::from_millis(1), |work| work, write);
        assert_eq!(tries.get(), 3);
    }

    #[test]
    fn one_process_writes_and_a_folder_that_goes_costs_nothing_that_was_there() {
        let folder = std::env::temp_dir().join(format!("sluice-save-{}", std::process::id()));
        let (real, away) = (folder.join("real"), folder.join("away"));
        std::fs::create_dir_all(&real).expect("a folder");
        let link = folder.join("link");
        std::os::unix::fs::symlink("real/file", &link).expect("a link");
        let target = || Target { path: snapshot::follow_link(&link), is_refused: false, lock: None };
        let of = |history: &str| Snapshot::<snapshot::Route> { histories: vec![history.into()], items: Vec::new() };
        let read = || snapshot::read::<snapshot::Route>(&link).expect("a snapshot").histories;

        let (mut one, mut other) = (target(), target());
        one.write(&of("one")).expect("the file has no owner");
        assert_eq!(other.write(&of("other")).expect_err("it is the first one's").kind(), io::ErrorKind::ResourceBusy);
        assert_eq!(read(), ["one"]);
        assert!(link.is_symlink() && !real.join("file").is_symlink(), "the link stays one");
        std::fs::rename(&real, &away).expect("the folder goes");
        one.write(&of("lost")).expect_err("there is no folder");
        std::fs::rename(&away, &real).expect("it is back");
        assert_eq!(read(), ["one"]);
        drop(one);
        other.write(&of("other")).expect("the first one has ended");
        assert_eq!(read(), ["other"]);
        std::fs::remove_dir_all(&folder).expect("the folder goes");
    }
}
