//! Reports when a file is replaced or rewritten.
//!
//! The watch is on the file's folder: editors write a new file and rename it, and a watch on the file itself would stay
//! on the old one. If the path leads through symbolic links, the folder of the real file is watched too, and any change
//! in the folder that makes the path lead to another file counts (Kubernetes's volumes change like this).

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

/// Milliseconds without an event that end a change.
const QUIET_MS: u8 = 5;
/// The greatest number of waits for quiet before a change is reported all the same.
const MAX_WAITS: u32 = 5;
/// The interval in milliseconds at which a missing folder is looked for.
const LOST_MS: u16 = 1_000;

/// A watch that notices every change from now on.
#[derive(Debug)]
pub(super) struct Watch {
    inotify: Inotify,
    path: PathBuf,
    /// The folder of the path; `None` while there is none.
    folder: Option<Spot>,
    /// The folder of the real file, if it is another one.
    target: Option<Spot>,
    /// Device and inode of the file at its last reported change.
    identity: Option<(u64, u64)>,
}

/// A name in a watched folder.
#[derive(Debug)]
struct Spot {
    folder: PathBuf,
    name: OsString,
    watch: WatchDescriptor,
}

/// A watch running in its own thread, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Watching {
    /// Closing it ends the thread.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

enum Woken {
    Events,
    TimeOut,
    Stopped,
}

impl Watch {
    /// Begins to watch. The file need not exist, but its folder must.
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let mut watch = Self { inotify, path: path.to_owned(), folder: None, target: None, identity: None };
        watch.folder = Some(watch.spot(path)?);
        watch.follow();
        Ok(watch)
    }

    /// Calls `on_change` after each change, those since [`Watch::new`] included.
    pub(super) fn start(self, on_change: impl Fn() + Send + 'static) -> io::Result<Watching> {
        let (stop, stopped) = UnixStream::pair()?;
        let thread = std::thread::Builder::new().name("routes-watch".to_owned());
        let thread = thread.spawn(move || self.run(&stopped, on_change))?;
        Ok(Watching { stop: Some(stop), thread: Some(thread) })
    }

    fn run(mut self, stopped: &UnixStream, on_change: impl Fn()) {
        let mut has_changed = false;
        let mut waits = 0;
        loop {
            let timeout = match (has_changed, &self.folder) {
                (true, _) => PollTimeout::from(QUIET_MS),
                (false, None) => PollTimeout::from(LOST_MS),
                (false, Some(_)) => PollTimeout::NONE,
            };
            let woken = match self.wait(stopped, timeout) {
                Ok(woken) => woken,
                Err(error) => {
                    log::error!("watching {}: {error}; edits are read at SIGHUP only", self.path.display());
                    return;
                }
            };
            match woken {
                Woken::Stopped => return,
                Woken::Events => has_changed |= self.read_events(),
                Woken::TimeOut => has_changed |= self.find_folder(),
            }
            waits = if has_changed { waits + 1 } else { 0 };
            if has_changed && (matches!(woken, Woken::TimeOut) || waits > MAX_WAITS) {
                self.follow();
                on_change();
                (has_changed, waits) = (false, 0);
            }
        }
    }

    fn wait(&self, stopped: &UnixStream, timeout: PollTimeout) -> io::Result<Woken> {
        let events = PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN);
        let mut fds = [events, PollFd::new(stopped.as_fd(), PollFlags::POLLIN)];
        loop {
            match poll(&mut fds, timeout) {
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
                Ok(0) => return Ok(Woken::TimeOut),
                Ok(_) if fds[1].any().unwrap_or(true) => return Ok(Woken::Stopped),
                Ok(_) => return Ok(Woken::Events),
            }
        }
    }

    /// Reads what has happened. Returns whether the file may have changed.
    fn read_events(&mut self) -> bool {
        let mut has_changed = false;
        while let Ok(events) = self.inotify.read_events() {
            for event in &events {
                has_changed |= self.judge(event);
            }
        }
        has_changed
            || identity(&self.path).is_some_and(|identity| Some(identity) != self.identity && self.is_finished())
    }

    /// Whether the event alone says that the file has changed. Notes folders that have gone.
    fn judge(&mut self, event: &InotifyEvent) -> bool {
        if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            return true;
        }
        let is_of = |spot: &Option<Spot>| spot.as_ref().is_some_and(|spot| spot.watch == event.wd);
        if event.mask.intersects(AddWatchFlags::IN_IGNORED | AddWatchFlags::IN_MOVE_SELF) {
            if is_of(&self.folder) {
                log::warn!("the folder of {} has gone; edits are not seen until it is back", self.path.display());
                self.forget();
            } else if is_of(&self.target) {
                self.target = None;
            }
            return false;
        }
        let is_ours = |spot: &Option<Spot>| {
            spot.as_ref().is_some_and(|spot| spot.watch == event.wd && event.name.as_deref() == Some(&*spot.name))
        };
        let is_complete = event.mask.intersects(AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MOVED_TO);
        is_complete && (is_ours(&self.folder) || is_ours(&self.target))
    }

    /// Whether a file that came by no rename can be read: a link to one can, while a new file has its end of writing
    /// still to come.
    fn is_finished(&self) -> bool {
        let is_link = std::fs::symlink_metadata(&self.path).is_ok_and(|data| data.is_symlink());
        is_link || std::fs::metadata(&self.path).is_ok_and(|data| data.nlink() > 1)
    }

    /// Looks for a folder that has gone. Returns whether it is back.
    fn find_folder(&mut self) -> bool {
        if self.folder.is_some() {
            return false;
        }
        self.folder = self.spot(&self.path).ok();
        self.folder.is_some()
    }

    /// Notes which file the path means now, and watches the folder where that really lies.
    fn follow(&mut self) {
        self.identity = identity(&self.path);
        let Ok(real) = std::fs::canonicalize(&self.path) else { return };
        let is_known = |spot: &Option<Spot>| {
            let folder = spot.as_ref().and_then(|spot| Some((spot.folder.canonicalize().ok()?, &spot.name)));
            folder.is_some_and(|(folder, name)| real.parent() == Some(&folder) && real.file_name() == Some(name))
        };
        if is_known(&self.folder) || is_known(&self.target) {
            return;
        }
        let target = match self.spot(&real) {
            Ok(target) => Some(target),
            Err(error) => {
                log::warn!("watching the folder of {}: {error}; edits there are read at SIGHUP only", real.display());
                None
            }
        };
        let old = std::mem::replace(&mut self.target, target);
        self.unwatch(old);
    }

    fn forget(&mut self) {
        let (folder, target) = (self.folder.take(), self.target.take());
        self.unwatch(folder);
        self.unwatch(target);
    }

    fn unwatch(&self, spot: Option<Spot>) {
        let Some(spot) = spot else { return };
        let is_in_use = |other: &Option<Spot>| other.as_ref().is_some_and(|other| other.watch == spot.watch);
        if !is_in_use(&self.folder) && !is_in_use(&self.target) {
            // A folder that has gone took its watch along: that fails, and nothing is left to do.
            let _ = self.inotify.rm_watch(spot.watch);
        }
    }

    fn spot(&self, path: &Path) -> io::Result<Spot> {
        let name = path.file_name().map(OsStr::to_owned).ok_or(io::ErrorKind::InvalidFilename)?;
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        let mask = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        let watch = self.inotify.add_watch(&folder, mask)?;
        Ok(Spot { folder, name, watch })
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        drop(self.stop.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            log::error!("the thread that watches the routes file had panicked");
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|data| (data.dev(), data.ino()))
}
