//! Inputs and outputs of the route state.

use super::super::reading::Reading;
use crate::base::clock::Moment;
use crate::directory::{LookupResult, SubscriberId};
use std::sync::Arc;
use std::time::Duration;

/// An output, in this order.
#[derive(Debug)]
pub(in crate::directory::redis) enum Output {
    /// The result of a look-up.
    LookedUp { core: SubscriberId, host: Arc<str>, result: LookupResult, keep: bool },
    /// Cached results of cores for these hosts, or for unknown ones, are no longer valid.
    Changed { hosts: Vec<Arc<str>>, unknowns: bool },
    /// An active checker is at work until this moment.
    Checker { until: Moment },
}

/// A change reported by Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::directory::redis) enum ChangedKey {
    /// The list of this pattern.
    Route(Box<str>),
    /// The options of this pattern.
    Options(Box<str>),
    /// The dead marks of this host.
    Dead(Box<str>),
    /// The certificate of this pattern, for the certificate service.
    Certificate(Box<str>),
    /// The heartbeat of the active checker.
    Checker,
    /// Any key: the database was emptied, or the change is unknown.
    All,
}

/// Hosts to read at once.
#[derive(Clone, Debug)]
pub(in crate::directory::redis) struct Batch {
    /// It is returned with the replies.
    pub(in crate::directory::redis) ticket: u64,
    pub(in crate::directory::redis) hosts: Vec<Arc<str>>,
    /// Whether the heartbeat of the active checker is to be read too.
    pub(in crate::directory::redis) checker: bool,
    /// Whether it confirms denials: the data must still be that of the connection.
    pub(in crate::directory::redis) confirms: bool,
}

/// The result of a batch: a reading for each host.
#[derive(Debug)]
pub(in crate::directory::redis) struct Replies {
    pub(in crate::directory::redis) ticket: u64,
    pub(in crate::directory::redis) hosts: Vec<(Arc<str>, Reading)>,
    /// Hosts of the batch that were not read: they have to be queried again.
    pub(in crate::directory::redis) unread: Vec<Arc<str>>,
    /// Time since the active checker's heartbeat; the outer `None` if it was not queried.
    pub(in crate::directory::redis) checker: Option<Option<Duration>>,
    /// The position of the data at the time of the read, in bytes of replication.
    pub(in crate::directory::redis) offset: Option<u64>,
    /// The same for each server of a cluster, by id.
    pub(in crate::directory::redis) shard_offsets: Vec<(Box<str>, u64)>,
}

impl Replies {
    /// No reply to this batch yet.
    pub(in crate::directory::redis) fn none(batch: &Batch) -> Self {
        Self {
            ticket: batch.ticket,
            hosts: Vec::with_capacity(batch.hosts.len()),
            unread: Vec::new(),
            checker: None,
            offset: None,
            shard_offsets: Vec::new(),
        }
    }
}
