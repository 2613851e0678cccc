//! The data of a process for its successor: routes and certificates, in two memory files that the successor inherits. A
//! successor of an older version ignores them, and a predecessor of an older version has none.

use crate::directory::{Directory, Inherited};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::close;
use std::env;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::process::Command;
use std::time::Duration;

/// The environment variable with the descriptor numbers of the files.
const KNOWN: &str = "SLUICE_KNOWN";

/// The prefix of the file names, as the kernel shows them.
const SHOWN: &str = "/memfd:sluice-known";

/// The limit of the directory for each of the two files. Together it is less than a successor waits for its sockets.
const PATIENCE: Duration = Duration::from_secs(3);

/// The two files; `None` if the system does not support them.
#[derive(Debug, Default)]
pub(super) struct Known(Option<[File; 2]>);

impl Known {
    /// Makes empty files, inherited by child processes that start from now on.
    pub(super) fn create() -> Self {
        let create = || memfd_create(c"sluice-known", MFdFlags::empty()).map(File::from);
        match create().and_then(|routes| Ok([routes, create()?])) {
            Ok(files) => Self(Some(files)),
            Err(error) => {
                log::warn!(
                    "upgrade: making files for known routes and certificates: {error}; the new process has to read them \
                     itself"
                );
                Self(None)
            }
        }
    }

    /// Passes the descriptor numbers to a successor.
    pub(super) fn announce(&self, command: &mut Command) {
        match &self.0 {
            Some([routes, certificates]) => {
                command.env(KNOWN, format!("{},{}", routes.as_raw_fd(), certificates.as_raw_fd()));
            }
            None => {
                command.env_remove(KNOWN);
            }
        }
    }

    /// Writes the data to the files.
    pub(super) fn fill(&mut self, directory: &Directory) {
        let Some([routes, certificates]) = &mut self.0 else { return };
        if let Err(problem) = directory.hand_over(routes, certificates, PATIENCE) {
            log::error!(
                "upgrade: handing over known routes and certificates: {problem}; the new process has to read them \
                 itself"
            );
        }
    }

    /// The inherited files. To be taken once, at the start.
    pub(super) fn take() -> Self {
        let numbers = env::var(KNOWN).ok();
        let numbers = numbers.as_deref().and_then(|numbers| numbers.split_once(','));
        let Some((routes, certificates)) = numbers else { return Self(None) };
        match take_file(routes).and_then(|routes| Ok([routes, take_file(certificates)?])) {
            Ok(files) => Self(Some(files)),
            Err(error) => {
                log::warn!("upgrade: {KNOWN}: {error}; the data of the predecessor is not used");
                Self(None)
            }
        }
    }

    /// The files, for the directory.
    pub(super) fn inherit(&self) -> Inherited {
        let file = |place: usize| self.0.as_ref().and_then(|files| files[place].try_clone().ok());
        Inherited { routes: file(0), certificates: file(1), ..Inherited::default() }
    }
}

/// Takes the file with this descriptor number and sets it close-on-exec.
fn take_file(number: &str) -> io::Result<File> {
    let odd = |problem: String| io::Error::new(io::ErrorKind::InvalidInput, problem);
    let number: RawFd = number.parse().map_err(|_| odd(format!("{number:?} is no number")))?;
    let path = format!("/proc/self/fd/{number}");
    let shown = fs::read_link(&path)?;
    if !shown.to_string_lossy().starts_with(SHOWN) {
        return Err(odd(format!("file {number} is {}", shown.display())));
    }
    let file = File::options().read(true).write(true).open(&path)?;
    close(number)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::IntoRawFd;

    #[test]
    fn a_file_that_was_handed_down_is_taken_and_any_other_is_left() {
        let Known(files) = Known::create();
        let [mut file, _] = files.expect("files in memory");
        file.write_all(b"known").expect("writing");
        let number = file.into_raw_fd();
        let mut taken = take_file(&number.to_string()).expect("the file");
        let mut text = String::new();
        taken.read_to_string(&mut text).expect("reading");
        assert_eq!(text, "known");
        let other = File::open("/dev/null").expect("a file");
        assert!(take_file(&other.as_raw_fd().to_string()).is_err());
        assert!(other.metadata().is_ok(), "it is open still");
        assert!(take_file("x").is_err() && take_file("-1").is_err());
    }
}
