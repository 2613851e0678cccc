//! Pages of this node: the response to a request that ended without a backend's response.
//!
//! Hipache's rule: `error_<status>.html` of `server.staticDir`, else its `error_default.html`, else the built-in page.
//! The files are read once, by [`Pages::load`] at the start, so that a request never waits for a disk. An edit takes
//! effect when the pages are loaded again, at SIGHUP, and handed to the workers.

mod load;
mod own;
mod phrase;

pub use own::OwnPages;
pub use phrase::phrase;

use crate::base::reason::FailureReason;
use std::path::PathBuf;
use std::sync::Arc;

/// The header lines that every page is sent with, each with its line end.
pub const PAGE_HEADERS: &str =
    "Content-Type: text/html\r\nCache-Control: no-cache\r\nPragma: no-cache\r\nExpires: -1\r\n";

/// Settings of the pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Folder of `error_<status>.html` and `error_default.html` (`server.staticDir`).
    pub static_dir: Option<PathBuf>,
    /// The status of requests for a host without a route (`server.unknownHostStatus`), one of [`UNKNOWN_HOST_STATUSES`].
    pub unknown_host_status: u16,
}

/// The statuses that a request for a host without a route may get. The first is the default, and Hipache's.
pub const UNKNOWN_HOST_STATUSES: [u16; 4] = [400, 404, 421, 503];

impl Default for Settings {
    fn default() -> Self {
        Self { static_dir: None, unknown_host_status: UNKNOWN_HOST_STATUSES[0] }
    }
}

impl Settings {
    /// The status of the response for `reason`.
    fn status(&self, reason: FailureReason) -> u16 {
        if reason == FailureReason::UnknownHost { self.unknown_host_status } else { reason.status() }
    }
}

/// One page for each [`FailureReason`], ready to be sent. All cores share them behind one `Arc`.
#[derive(Debug)]
pub struct Pages {
    /// In the order of [`FailureReason::ALL`]. Reasons of one status share the text of its file.
    bodies: Box<[Arc<[u8]>]>,
    /// Which of them are built in.
    are_built_in: Box<[bool]>,
    settings: Settings,
}

impl Pages {
    /// Reads the pages from the disk. A page that cannot be read is logged, and the next page of the rule replaces it.
    pub fn load(settings: &Settings) -> Self {
        let (pages, faults) = load::load(settings);
        for fault in faults {
            log::warn!("{fault}");
        }
        pages
    }

    /// The status of the response for `reason`.
    pub fn status(&self, reason: FailureReason) -> u16 {
        self.settings.status(reason)
    }

    /// The page for `reason`. It is empty if no response carries it: the client is gone, or the response had begun.
    pub fn body(&self, reason: FailureReason) -> &[u8] {
        &self.bodies[reason as usize]
    }

    /// Whether that page is the built-in one.
    pub fn is_built_in(&self, reason: FailureReason) -> bool {
        self.are_built_in[reason as usize]
    }
}
