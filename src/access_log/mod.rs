//! The access log: one line a request, written by its own thread.
//!
//! Each core formats its lines itself ([`Log`]) into a batch, so no borrowed data crosses threads and no line costs an
//! allocation or a system call. A full or old batch goes to the log's thread through a bounded queue. If the queue is
//! full, for example because a disk hangs, the lines of the batch are dropped and counted: a request never waits for
//! its line. [`Control`] is the supervisor's part.

mod batch;
mod daemon;
mod format;
mod losses;
mod output;
mod record;
mod sink;
mod stamp;
mod writer;

pub use batch::Log;
pub use format::{Format, Template, TemplateError};
pub use output::open;
pub use record::{LogRecord, TEXT_LIMIT_BYTES};
pub use writer::{Control, start};

use std::fmt;
use std::path::PathBuf;

/// Destination of the access log (`server.accessLog`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Nowhere.
    Off,
    /// Standard output (`-`).
    Stdout,
    /// A file, appended to.
    File(PathBuf),
    /// The socket of a syslog daemon (`syslog:`, followed by a path if it is not the usual one).
    Syslog(PathBuf),
    /// The socket of systemd's journal (`journald:`, followed by a path if it is not the usual one).
    Journald(PathBuf),
}

impl Target {
    /// The daemon named by a text.
    pub fn daemon(text: &str) -> Option<Self> {
        let path = |rest: &str, usual: &str| PathBuf::from(if rest.is_empty() { usual } else { rest });
        let syslog = text.strip_prefix("syslog:").map(|rest| Self::Syslog(path(rest, "/dev/log")));
        let journald = || text.strip_prefix("journald:");
        syslog.or_else(|| journald().map(|rest| Self::Journald(path(rest, "/run/systemd/journal/socket"))))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Stdout => f.write_str("standard output"),
            Self::File(path) => path.display().fmt(f),
            Self::Syslog(path) => write!(f, "syslog at {}", path.display()),
            Self::Journald(path) => write!(f, "journald at {}", path.display()),
        }
    }
}
