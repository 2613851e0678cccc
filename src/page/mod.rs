//! Pages of this node's own.

use std::path::PathBuf;

/// What of the pages can be set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Where `error_<status>.html` and `error_default.html` are looked for (`server.staticDir`).
    pub static_dir: Option<PathBuf>,
}
