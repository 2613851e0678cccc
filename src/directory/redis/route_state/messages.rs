//! What the keeper is told, and what it says.

use super::super::reading::Reading;
use crate::base::clock::Moment;
use crate::directory::{LookupResult, SubscriberId};
use std::sync::Arc;
use std::time::Duration;

/// What is to be told or done, in this order.
#[derive(Debug)]
pub(in crate::directory::redis) enum Output {
    /// The answer to a question.
    LookedUp { core: SubscriberId, host: Arc<str>, result: LookupResult, keep: bool },
    /// What cores hold of these hosts, or of unknown ones, is no longer true.
    Changed { hosts: Vec<Arc<str>>, unknowns: bool },
    /// An active checker is at work until then.
    Checker { until: Moment },
}

/// What was written to in Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::directory::redis) enum ChangedKey {
    /// The list of this pattern.
    Route(Box<str>),
    /// The options of this pattern.
    Options(Box<str>),
    /// The dead marks of this host.
    Dead(Box<str>),
    /// The certificate of this pattern, which is another clerk's.
    Certificate(Box<str>),
    /// The sign of life of the active checker.
    Checker,
    /// Anything: the database was emptied, or it cannot be told.
    All,
}

/// What is to be read in one go.
#[derive(Clone, Debug)]
pub(in crate::directory::redis) struct Batch {
    /// Goes with the replies.
    pub(in crate::directory::redis) ticket: u64,
    pub(in crate::directory::redis) hosts: Vec<Arc<str>>,
    /// Whether the sign of life of the active checker is to be read too.
    pub(in crate::directory::redis) checker: bool,
}

/// What was read: a reading for each host of the batch.
#[derive(Debug)]
pub(in crate::directory::redis) struct Replies {
    pub(in crate::directory::redis) ticket: u64,
    pub(in crate::directory::redis) hosts: Vec<(Arc<str>, Reading)>,
    /// Hosts of the batch that were not come to: they have to be asked for again.
    pub(in crate::directory::redis) unread: Vec<Arc<str>>,
    /// How long the active checker has been silent; outer `None` if not asked for.
    pub(in crate::directory::redis) checker: Option<Option<Duration>>,
    /// How far the data had come when this was read, in bytes of replication.
    pub(in crate::directory::redis) offset: Option<u64>,
}
