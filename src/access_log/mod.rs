//! The access log.

use std::path::PathBuf;

/// Where the access log goes (`server.accessLog`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Nowhere.
    Off,
    /// Standard output (`-`).
    Stdout,
    /// A file, appended to.
    File(PathBuf),
}
