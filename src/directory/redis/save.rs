//! What is known, on its way to a file and back.

use super::connect::Identity;
use super::route_state::{KnownRoutes, MAX_SNAPSHOT_ROUTES, SnapshotRoute, SnapshotRoutes};
use crate::base::clock::{Clock, Moment};
use crate::cluster::{BackendUrl, Frontend, Options};
use crate::directory::Error;
use crate::directory::frontends::FrontendRecord;
use crate::directory::snapshot::{self, Snapshot, SnapshotEntry};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// How long it takes until what could not be written is tried again, if nothing newer is to be written until then.
const RETRY: Duration = Duration::from_secs(30);

/// How long changes are gathered before they are written.
const GATHER: Duration = Duration::from_secs(5);

/// What the snapshot had at the start.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) routes: SnapshotRoutes,
    /// Of the Redis that they are from.
    pub(super) identity: Option<Identity>,
}

/// The thread that writes, and what it has to do next.
#[derive(Debug)]
pub(super) struct Saver<W> {
    work: Sender<W>,
    thread: JoinHandle<()>,
    due: Option<Moment>,
}

/// The routes as they are handed over.
#[derive(Debug)]
pub(super) struct Routes {
    pub(super) known: KnownRoutes,
    /// Of the Redis that they are from.
    pub(super) histories: Vec<String>,
}

/// Reads the snapshot of the routes and starts the thread that writes it; nothing without a path.
pub(super) fn start_routes(path: Option<&Path>, clock: Clock) -> Result<(Known, Option<Saver<Routes>>), Error> {
    let Some(path) = path else { return Ok((Known::default(), None)) };
    let (snapshot, saver) = start(path, "hosts", clock, render)?;
    Ok((snapshot.map(revive).unwrap_or_default(), Some(saver)))
}

/// Reads a snapshot and starts the thread that writes it. One that is no good is left as it is, for whoever wants to
/// know why, until there is a better one.
pub(super) fn start<T: SnapshotEntry, W: Send + 'static>(
    path: &Path,
    what: &str,
    clock: Clock,
    render: impl Fn(W) -> Snapshot<T> + Send + 'static,
) -> Result<(Option<Snapshot<T>>, Saver<W>), Error> {
    let begun = clock.now();
    let mut is_refused = false;
    let known = match snapshot::read(path) {
        Ok(snapshot) => {
            let (count, took) = (snapshot.items.len(), clock.now().since(begun));
            log::info!("snapshot {}: {count} {what}, read in {took:?}", path.display());
            Some(snapshot)
        }
        Err(snapshot::Fault::Io(error)) if error.kind() == io::ErrorKind::NotFound => None,
        Err(fault) => {
            log::error!("snapshot {}: {fault}; it is not used, and left as it is", path.display());
            is_refused = true;
            None
        }
    };
    let (work, works) = crossbeam_channel::bounded::<W>(1);
    let target: PathBuf = path.to_owned();
    let write = move |snapshot: &Snapshot<T>| {
        if std::mem::take(&mut is_refused) {
            log::warn!("the refused snapshot {}", snapshot::set_aside(&target));
        }
        snapshot::write(&target, snapshot)
    };
    let owned = path.to_owned();
    let thread = super::spawn("snapshot", move || write_all(&works, &owned, RETRY, render, write))?;
    Ok((known, Saver { work, thread, due: None }))
}

/// Writes whatever comes. What could not be written is tried again until something newer comes; a fault that lasts is
/// told once.
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

impl<W> Saver<W> {
    /// Something that belongs into the snapshot has changed.
    pub(super) fn note_change(&mut self, now: Moment) {
        self.due.get_or_insert(now + GATHER);
    }

    /// When to save.
    pub(super) fn due(&self) -> Option<Moment> {
        self.due
    }

    /// What is known is to be written at once.
    pub(super) fn hurry(&mut self, now: Moment) {
        self.due = self.due.map(|due| due.min(now));
    }

    /// Hands over what is known. If the last one is still being written, there will be another time.
    pub(super) fn save(&mut self, known: W, now: Moment) {
        self.due = self.work.try_send(known).is_err().then(|| now + GATHER);
    }

    /// Writes for the last time, if there is something to write, and waits for that.
    pub(super) fn finish(self, known: impl FnOnce() -> W) {
        if self.due.is_some() {
            let _ = self.work.send(known());
        }
        drop(self.work);
        if self.thread.join().is_err() {
            log::error!("the thread that writes the snapshot had panicked");
        }
    }
}

fn render(Routes { known, histories }: Routes) -> Snapshot<snapshot::Route> {
    let in_use = |frontend: &Arc<Frontend>| snapshot::Route {
        host: frontend.host.clone(),
        pattern: frontend.pattern.clone(),
        id: frontend.id.clone(),
        backends: frontend.members.iter().map(|member| member.backend.url().as_str().into()).collect(),
        https_redirect: frontend.options.https_redirect,
    };
    let unused = |(host, route): &(Arc<str>, Arc<SnapshotRoute>)| snapshot::Route {
        host: (&**host).into(),
        pattern: route.pattern.clone(),
        id: route.record.id.clone(),
        backends: route.record.backends.iter().map(|url| url.as_str().into()).collect(),
        https_redirect: route.record.options.https_redirect,
    };
    // Those in use first: if there are too many for the next start, the others are left out.
    Snapshot { histories, items: known.frontends.iter().map(in_use).chain(known.unused.iter().map(unused)).collect() }
}

fn revive(snapshot: Snapshot<snapshot::Route>) -> Known {
    let left_out = snapshot.items.len().saturating_sub(MAX_SNAPSHOT_ROUTES);
    if left_out > 0 {
        log::warn!("snapshot: {left_out} routes beyond the first {MAX_SNAPSHOT_ROUTES} are left out");
    }
    let revive = |route: snapshot::Route| {
        let backends = route.backends.iter().filter_map(|url| BackendUrl::parse(url).ok()).collect();
        let options = Options { https_redirect: route.https_redirect };
        let record = FrontendRecord { id: route.id, backends, options };
        (Arc::from(route.host), Arc::new(SnapshotRoute { pattern: route.pattern, record, marks: Box::default() }))
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
}
