//! Reports changes in a set of folders, which can grow.

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::collections::HashSet;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

/// Milliseconds without an event that end a change: a pair of files is written one after the other.
const QUIET_MS: u8 = 20;

/// The greatest number of waits for quiet before a change is reported all the same.
const MAX_WAITS: u32 = 10;

/// A watch on folders, run by its own thread, which ends when this is dropped.
#[derive(Debug)]
pub struct FileWatch {
    inotify: Arc<Inotify>,
    watched: HashSet<PathBuf>,
    /// Closing it ends the thread.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl FileWatch {
    /// Watches no folder yet. `on_change` is called after each change in the folders added later.
    pub fn watch(on_change: impl Fn() + Send + 'static) -> io::Result<Self> {
        let inotify = Arc::new(Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?);
        let (stop, stopped) = UnixStream::pair()?;
        let events = Arc::clone(&inotify);
        let thread = std::thread::Builder::new().name("folders".to_owned());
        let thread = thread.spawn(move || run(&events, &stopped, on_change))?;
        Ok(Self { inotify, watched: HashSet::new(), stop: Some(stop), thread: Some(thread) })
    }

    /// Watches the folder of `file`, and the folder of the file that a symbolic link leads to.
    pub fn add(&mut self, file: &Path) -> io::Result<()> {
        let real = file.canonicalize().ok();
        let folders = [Some(file), real.as_deref()].map(|file| file.and_then(Path::parent));
        for folder in folders.into_iter().flatten() {
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            if !self.watched.contains(folder) {
                let changes = AddWatchFlags::IN_CLOSE_WRITE
                    | AddWatchFlags::IN_MOVED_TO
                    | AddWatchFlags::IN_CREATE
                    | AddWatchFlags::IN_DELETE;
                self.inotify.add_watch(folder, changes)?;
                self.watched.insert(folder.to_owned());
            }
        }
        Ok(())
    }
}

impl Drop for FileWatch {
    fn drop(&mut self) {
        drop(self.stop.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            log::error!("the thread that watches folders had panicked");
        }
    }
}

fn run(inotify: &Inotify, stopped: &UnixStream, on_change: impl Fn()) {
    let mut waits = 0;
    loop {
        let timeout = if waits > 0 { PollTimeout::from(QUIET_MS) } else { PollTimeout::NONE };
        let mut fds =
            [PollFd::new(inotify.as_fd(), PollFlags::POLLIN), PollFd::new(stopped.as_fd(), PollFlags::POLLIN)];
        let woken = match poll(&mut fds, timeout) {
            Err(Errno::EINTR) => continue,
            Err(errno) => {
                log::error!("watching folders: {errno}; changes are read at SIGHUP only");
                return;
            }
            Ok(woken) => woken,
        };
        if fds[1].any().unwrap_or(true) {
            return;
        }
        if woken > 0 {
            while inotify.read_events().is_ok() {}
            waits += 1;
        }
        if woken == 0 || waits > MAX_WAITS {
            on_change();
            waits = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::time::Duration;

    #[test]
    fn a_rename_into_the_folder_and_a_write_through_a_link_are_reported() {
        let root = std::env::temp_dir().join(format!("sluice-folders-{}", std::process::id()));
        let (here, there) = (root.join("here"), root.join("there"));
        fs::create_dir_all(&here).expect("a folder");
        fs::create_dir_all(&there).expect("a folder");
        fs::write(there.join("real"), "1").expect("a file");
        std::os::unix::fs::symlink(there.join("real"), here.join("link")).expect("a link");
        let (told, tell) = std::sync::mpsc::channel();
        let mut folders = FileWatch::watch(move || told.send(()).unwrap_or_default()).expect("a watch");
        folders.add(&here.join("link")).expect("a folder that is there");
        fs::write(there.join("real"), "2").expect("a file");
        tell.recv_timeout(Duration::from_secs(10)).expect("the write behind the link");
        fs::write(here.join("new"), "3").expect("a file");
        fs::rename(here.join("new"), here.join("link")).expect("a rename");
        tell.recv_timeout(Duration::from_secs(10)).expect("the rename");
        drop(folders);
        fs::remove_dir_all(&root).expect("removing the folder");
    }
}
