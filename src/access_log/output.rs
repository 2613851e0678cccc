//! The output of the log: a file, a FIFO, or standard output.

use super::Target;
use super::daemon::{self, Daemon};
use super::sink::Sink;
use crossbeam_channel::Receiver;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write, stdout};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The interval, in milliseconds, at which the wait for a full output checks for a command.
const LOOK_EVERY_MS: u16 = 100;

/// An output. A write waits while it is full, unless another one is to be opened in its place.
#[derive(Debug)]
pub(super) struct Output {
    file: File,
    /// The daemon and its path, if the output is a daemon's socket.
    daemon: Option<(Daemon, PathBuf)>,
    /// Commands to open it again.
    reopens: Receiver<()>,
}

/// Opens the log, before the process drops the privileges that this may take. `None` if the log is off.
pub fn open(target: &Target) -> io::Result<Option<File>> {
    match target {
        Target::Off => Ok(None),
        // `io::stdout()` is not used: its buffer would hide how much was written before an error.
        Target::Stdout => stdout().as_fd().try_clone_to_owned().map(|fd| Some(fd.into())),
        Target::File(path) => open_file(path).map(Some),
        Target::Syslog(path) | Target::Journald(path) => daemon::connect(path).map(Some),
    }
}

/// Opens a file for appending.
pub(super) fn open_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // `O_NONBLOCK`, because opening a FIFO for writing waits for a reader, for ever if there is none. A FIFO opened for
    // both directions does not wait, and keeps the bytes until a reader comes. For a file the flag has no effect.
    options.append(true).create(true).custom_flags(libc::O_NONBLOCK);
    let opened = match options.clone().read(true).open(path) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => options.open(path),
        other => other,
    };
    opened.map_err(|error| {
        let hint = match error.raw_os_error() {
            Some(libc::ENXIO) => ": it has no reader, and this account may not read it itself; start its reader first",
            _ => "",
        };
        let path = path.display();
        io::Error::new(error.kind(), format!("opening the access log {path} (server.accessLog): {error}{hint}"))
    })
}

/// A sink that writes to this file. After a full disk the file may end within a line, whichever process wrote it.
pub(super) fn sink(file: File, target: &Target, reopens: &Receiver<()>) -> Sink<Output> {
    let is_torn = ends_within_a_line(&file);
    let daemon = Daemon::of(target).map(|(daemon, path)| (daemon, path.to_owned()));
    Sink::new(Output { file, daemon, reopens: reopens.clone() }, is_torn)
}

impl Output {
    /// Writes some bytes to a file, or a line to a daemon. A daemon that was restarted has a new socket.
    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some((daemon, path)) = &mut self.daemon else { return self.file.write(bytes) };
        match daemon.send(&self.file, bytes) {
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotConnected) => {
                self.file = daemon::connect(path)?;
                daemon.send(&self.file, bytes)
            }
            other => other,
        }
    }
}

/// Whether the next bytes would continue the last line of a file. A file that cannot be read counts as complete.
fn ends_within_a_line(file: &File) -> bool {
    let Ok(found) = file.metadata() else { return false };
    let mut last = [b'\n'];
    found.is_file() && found.len() > 0 && file.read_at(&mut last, found.len() - 1).is_ok() && last != [b'\n']
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.write_some(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if !self.reopens.is_empty() {
                        return Err(io::Error::new(ErrorKind::TimedOut, "it accepted nothing until it was reopened"));
                    }
                    let mut ready = [PollFd::new(self.file.as_fd(), PollFlags::POLLOUT)];
                    // An error of the output appears at the next write.
                    let _ = poll(&mut ready, PollTimeout::from(LOOK_EVERY_MS));
                }
                other => return other,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
