//! Selection of objects and fills by a purge.

use super::object::{Object, Origin};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The objects that a purge selects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Selector {
    /// All objects of a host.
    Host(Box<[u8]>),
    /// All objects of a host whose request target begins with a prefix.
    Prefix {
        /// The host name in lower case, without a port.
        host: Box<[u8]>,
        /// The prefix of the request target.
        prefix: Box<[u8]>,
    },
    /// All objects with a tag (`Surrogate-Key`, `Cache-Tag`) of one frontend, or of all.
    Tag {
        /// The frontend.
        frontend: Option<Arc<str>>,
        /// The tag.
        tag: Box<[u8]>,
    },
    /// All objects of a frontend.
    Frontend(Arc<str>),
    /// All objects.
    All,
}

/// The start of a fill. An object purged since then is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(pub(super) u64);

impl Ticket {
    /// The one of a fill that began behind the changes up to this epoch.
    pub fn at(epoch: u64) -> Self {
        Self(epoch)
    }

    /// The epoch at which the fill began.
    pub fn epoch(self) -> u64 {
        self.0
    }
}

/// The effect of a purge on the selected objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PurgeMode {
    /// They are dropped.
    Hard,
    /// They are stale at once, and may still be served as shadows (x0d's PURGE).
    Soft,
}

impl Selector {
    /// Whether an object is selected.
    pub fn has(&self, object: &Object) -> bool {
        self.selects(&object.origin, &object.tags)
    }

    /// Whether an object of this origin with these tags is one of them.
    pub fn selects(&self, origin: &Origin, tags: &[Box<[u8]>]) -> bool {
        match self {
            Self::Host(host) => origin.host == *host,
            Self::Prefix { host, prefix } => origin.host == *host && origin.target.starts_with(prefix),
            Self::Tag { frontend, tag } => {
                frontend.as_ref().is_none_or(|frontend| *frontend == origin.frontend) && tags.contains(tag)
            }
            Self::Frontend(frontend) => *frontend == origin.frontend,
            Self::All => true,
        }
    }
}
