//! The pages of one frontend, from a folder of its own.

use super::load::read_limited;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

/// Pages by their status, in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnPages {
    by_status: Vec<(u16, Arc<[u8]>)>,
    default: Option<Arc<[u8]>>,
}

impl OwnPages {
    /// Reads `error_<status>.html` of statuses from 400 to 599, and `error_default.html`. Fails where the folder, or one of
    /// the files that are there, cannot be read or has more than 1 MiB.
    pub fn read(folder: &Path) -> io::Result<Self> {
        if !folder.metadata()?.is_dir() {
            return Err(ErrorKind::NotADirectory.into());
        }
        let page = |name: String| match read_limited(&folder.join(name)) {
            Ok(body) => Ok(Some(Arc::from(body))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        let mut by_status = Vec::new();
        for status in 400..600 {
            by_status.extend(page(format!("error_{status}.html"))?.map(|body| (status, body)));
        }
        Ok(Self { by_status, default: page("error_default.html".to_owned())? })
    }

    /// The page of this status alone.
    pub fn of(&self, status: u16) -> Option<&[u8]> {
        self.by_status.iter().find(|(of, _)| *of == status).map(|(_, body)| &**body)
    }

    /// The page of all other statuses.
    pub fn default(&self) -> Option<&[u8]> {
        self.default.as_deref()
    }
}
