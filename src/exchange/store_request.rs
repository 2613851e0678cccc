//! What a request wants of the object cache that it cannot do by itself.

use std::sync::Arc;
use std::time::Duration;

/// What a request wants of the store that other requests, or the disk tier, have a part in.
#[derive(Debug)]
pub enum StoreRequest {
    /// To join a fill.
    Join {
        /// The key of the object, and the selection by the `Vary` of the one stored last.
        key: Arc<[u8]>,
        /// Whether the request may be the one that fills.
        may_lead: bool,
        /// How long a fill is waited for.
        timeout: Duration,
    },
    /// To be told once the disk tier has put its objects of a key into the store.
    Load {
        /// The key.
        key: Arc<[u8]>,
        /// The quota of the frontend in bytes; 0 for no limit.
        max_bytes: u64,
    },
    /// To be told once the disk tier has taken away what was purged.
    Settle,
}

/// What a request wants of the disk tier.
#[derive(Debug)]
pub(super) enum DiskWish {
    /// What it has of this key.
    Load(Arc<[u8]>),
    /// What was ordered before is to be done; then the client gets this status.
    Settle(u16),
}
