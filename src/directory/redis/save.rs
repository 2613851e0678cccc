//! What is known, on its way to the snapshot and back.

use super::keeper::Remembered;
use crate::base::clock::{Clock, Moment};
use crate::cluster::{BackendUrl, Frontend, Options};
use crate::directory::Error;
use crate::directory::frontends::Record;
use crate::directory::snapshot::{self, Snapshot};
use crossbeam_channel::Sender;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// How long changes are gathered before they are written.
const GATHER: Duration = Duration::from_secs(5);

/// What the snapshot had at the start.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) routes: Remembered,
    pub(super) histories: Vec<String>,
}

/// The thread that writes, and what it has to do next.
#[derive(Debug)]
pub(super) struct Saver {
    work: Sender<Work>,
    thread: JoinHandle<()>,
    due: Option<Moment>,
}

#[derive(Debug)]
struct Work {
    frontends: Vec<Arc<Frontend>>,
    histories: Vec<String>,
}

/// Reads the snapshot and starts the thread that writes it; nothing without a path. A snapshot that is no good is left
/// as it is, for whoever wants to know why, until there is a better one.
pub(super) fn start(path: Option<&Path>, clock: Clock) -> Result<(Known, Option<Saver>), Error> {
    let Some(path) = path else { return Ok((Known::default(), None)) };
    let begun = clock.now();
    let mut is_refused = false;
    let known = match snapshot::read(path) {
        Ok(snapshot) => {
            let known = revive(snapshot);
            let (hosts, took) = (known.routes.len(), clock.now().since(begun));
            log::info!("snapshot {}: {hosts} hosts, read in {took:?}", path.display());
            known
        }
        Err(snapshot::Fault::Io(error)) if error.kind() == io::ErrorKind::NotFound => Known::default(),
        Err(fault) => {
            log::error!("snapshot {}: {fault}; it is not used, and left as it is", path.display());
            is_refused = true;
            Known::default()
        }
    };
    let (work, works) = crossbeam_channel::bounded::<Work>(1);
    let owned: PathBuf = path.to_owned();
    let write = move || {
        for Work { frontends, histories } in works {
            if std::mem::take(&mut is_refused) {
                log::warn!("the refused snapshot {}", snapshot::set_aside(&owned));
            }
            if let Err(error) = snapshot::write(&owned, &render(&frontends, histories)) {
                log::error!("writing the snapshot {}: {error}", owned.display());
            }
        }
    };
    let thread = super::spawn("snapshot", write)?;
    Ok((known, Some(Saver { work, thread, due: None })))
}

impl Saver {
    /// Something that belongs into the snapshot has changed.
    pub(super) fn note_change(&mut self, now: Moment) {
        self.due.get_or_insert(now + GATHER);
    }

    /// When to save.
    pub(super) fn due(&self) -> Option<Moment> {
        self.due
    }

    /// Hands over what is known. If the last one is still being written, there will be another time.
    pub(super) fn save(&mut self, frontends: Vec<Arc<Frontend>>, histories: &[String], now: Moment) {
        let work = Work { frontends, histories: histories.to_vec() };
        self.due = self.work.try_send(work).is_err().then(|| now + GATHER);
    }

    /// Writes for the last time, if there is something to write, and waits for that.
    pub(super) fn finish(self, frontends: Option<Vec<Arc<Frontend>>>, histories: &[String]) {
        if let (Some(frontends), Some(_)) = (frontends, self.due) {
            let _ = self.work.send(Work { frontends, histories: histories.to_vec() });
        }
        drop(self.work);
        if self.thread.join().is_err() {
            log::error!("the thread that writes the snapshot had panicked");
        }
    }
}

fn render(frontends: &[Arc<Frontend>], histories: Vec<String>) -> Snapshot {
    let route = |frontend: &Arc<Frontend>| snapshot::Route {
        host: frontend.host.clone(),
        pattern: frontend.pattern.clone(),
        id: frontend.id.clone(),
        backends: frontend.members.iter().map(|member| member.backend.url().as_str().into()).collect(),
    };
    Snapshot { histories, routes: frontends.iter().map(route).collect() }
}

fn revive(snapshot: Snapshot) -> Known {
    let revive = |route: snapshot::Route| {
        let backends = route.backends.iter().filter_map(|url| BackendUrl::parse(url).ok()).collect();
        (Arc::from(route.host), (route.pattern, Record { id: route.id, backends, options: Options::default() }))
    };
    Known { routes: snapshot.routes.into_iter().map(revive).collect(), histories: snapshot.histories }
}
