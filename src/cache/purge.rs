//! Which objects a purge takes, and which fills it meets.

use super::object::Object;
use std::sync::Arc;

/// The objects that a purge takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// All of a host.
    Host(Box<[u8]>),
    /// All of a host whose request target begins with this.
    Prefix {
        /// The host's name in small letters, without a port.
        host: Box<[u8]>,
        /// The beginning of the request target.
        prefix: Box<[u8]>,
    },
    /// All with this tag (`Surrogate-Key`, `Cache-Tag`) of one frontend, or of every one.
    Tag {
        /// The frontend.
        frontend: Option<Arc<str>>,
        /// The tag.
        tag: Box<[u8]>,
    },
    /// All of a frontend.
    Frontend(Arc<str>),
    /// All.
    All,
}

/// When a fill began. What was purged since is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(pub(super) u64);

/// What becomes of the objects that a purge takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PurgeMode {
    /// They are dropped.
    Hard,
    /// They are stale at once, and may still be served as shadows (x0d's PURGE).
    Soft,
}

impl Selector {
    /// Whether an object is one of them.
    pub fn has(&self, object: &Object) -> bool {
        let origin = &object.origin;
        match self {
            Self::Host(host) => origin.host == *host,
            Self::Prefix { host, prefix } => origin.host == *host && origin.target.starts_with(prefix),
            Self::Tag { frontend, tag } => {
                frontend.as_ref().is_none_or(|frontend| *frontend == origin.frontend) && object.tags.contains(tag)
            }
            Self::Frontend(frontend) => *frontend == origin.frontend,
            Self::All => true,
        }
    }
}
