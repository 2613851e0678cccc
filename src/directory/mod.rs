//! Where routes come from. One thread serves all cores: they ask by mail and are answered by mail.
//!
//! The source of the routes is behind a seam ([`Source`]): today a file. Everything that cores see, [`Ask`] and
//! [`News`], is the same for every source.

use crate::base::reason::Reason;
use crate::cluster::{BackendId, Frontend};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What of the directory can be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where the routes come from.
    pub source: Source,
    /// How often the names of backends are looked up again.
    pub name_refresh: Duration,
}

/// A source of routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A JSON file, watched for changes.
    File(PathBuf),
}

/// What a core, or the supervisor, asks of the directory.
#[derive(Debug)]
pub enum Ask {
    /// Which frontend serves `host`? Answered by [`News::Answer`] to the core.
    Lookup {
        /// The number of the core that asks.
        core: usize,
        /// The host: lower case, no port, no trailing dot.
        host: Arc<str>,
    },
    /// Read the source again.
    Reload,
    /// End the directory's threads.
    Stop,
}

/// What the directory tells the cores. Mail to a core is in order: an answer that was true before a change arrives
/// before the news of the change.
#[derive(Clone, Debug)]
pub enum News {
    /// The answer to [`Ask::Lookup`].
    Answer {
        /// The host that was asked for.
        host: Arc<str>,
        /// What it resolves to.
        answer: Answer,
    },
    /// Whatever was answered for this host before is no longer true.
    Changed {
        /// The host that was asked for.
        host: Arc<str>,
    },
    /// The name of a backend was looked up for the first time, or has other addresses now.
    Addresses {
        /// The backend.
        backend: BackendId,
    },
}

/// What a host resolves to.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The frontend.
    Found(Arc<Frontend>),
    /// No pattern of the host's ladder has a list.
    Unknown,
    /// The look-up failed; not to be cached.
    Failed(Reason),
}
