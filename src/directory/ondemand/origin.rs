//! The Redis that keeps the clusters, in the view of edits by this node, and the comparison of known clusters with it.

use super::definition::ClusterDefinition;
use super::edits::{Failure, taken};
use super::{Refusal, file};
use crate::directory::redis::{Edit, MAX_RECORD, Outcome, Record, SharedClusters, Stop, Target};
use crossbeam_channel::Sender;
use redis::RedisError;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The connection to Redis for edits.
pub(super) struct Origin {
    pub(super) target: Target,
    clusters: Mutex<SharedClusters>,
    /// All edits of other nodes were read, up to the last moments.
    is_followed: AtomicBool,
    /// The newest edit that was taken over together with all earlier ones.
    seen: Mutex<u64>,
    has_seen: Condvar,
    /// Held until the process ends.
    guard: Mutex<Option<Sender<Infallible>>>,
    pub(super) stop: Stop,
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Origin({})", self.target)
    }
}

impl Origin {
    pub(super) fn new(target: &Target) -> Self {
        let clusters = Mutex::new(SharedClusters::new(target));
        let (guard, stop) = Stop::new();
        let guard = Mutex::new(Some(guard));
        Self {
            target: target.clone(),
            clusters,
            is_followed: AtomicBool::new(false),
            seen: Mutex::default(),
            has_seen: Condvar::new(),
            guard,
            stop,
        }
    }

    /// Sets whether Redis is connected and the known clusters match it. Returns whether that is a change.
    pub(super) fn set_followed(&self, is_followed: bool) -> bool {
        self.is_followed.swap(is_followed, Ordering::AcqRel) != is_followed
    }

    /// Records that all edits up to this one are taken over.
    pub(super) fn set_seen(&self, revision: u64) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = revision;
        self.has_seen.notify_all();
    }

    /// Waits until all present edits of Redis are taken over. Returns whether they are.
    pub(super) fn catch_up(&self, patience: Duration) -> bool {
        let newest = || self.is_followed.load(Ordering::Acquire).then(|| self.lock().newest().ok()).flatten();
        let Some(newest) = newest() else { return false };
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.has_seen.wait_timeout_while(seen, patience, |seen| *seen < newest);
        *waited.unwrap_or_else(PoisonError::into_inner).0 >= newest
    }

    /// Ends the following of edits.
    pub(super) fn stop(&self) {
        *self.guard.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The record of a cluster in Redis.
    pub(super) fn read(&self, name: &str) -> Result<Option<Record>, Refusal> {
        if !self.is_followed.load(Ordering::Acquire) {
            return Err(Refusal::Unavailable(format!(
                "{}, where clusters on demand are kept, is away: they serve on, and cannot be edited",
                self.target
            )));
        }
        let records = self.lock().read(&[name.to_owned()]).map_err(|error| self.refusal(&error))?;
        Ok(records.into_iter().next().and_then(|(_, record)| record))
    }

    /// Makes an edit. Returns its revision, and that of the creation of the cluster.
    pub(super) fn write(
        &self,
        name: &str,
        before: Option<&ClusterDefinition>,
        after: Option<&ClusterDefinition>,
    ) -> Result<(u64, u64), Failure> {
        let texts = Texts::new(before, after)?;
        let known = before.map_or(0, |before| before.revision);
        let created = after.or(before).map_or(0, |cluster| cluster.created);
        let edit = Edit { known, created, ..texts.edit(name) };
        match self.lock().write(&edit) {
            Ok(Outcome::Made { revision, created }) => Ok((revision, created)),
            Ok(Outcome::Changed) => Err(Failure::Overtaken),
            Ok(Outcome::Taken(rival)) => Err(taken(&rival).into()),
            Err(error) if error.is_io_error() => Err(Failure::Refused(Refusal::Unavailable(format!(
                "{} was lost during the edit ({error}): look whether it was made before you try again",
                self.target
            )))),
            Err(error) => Err(self.refusal(&error).into()),
        }
    }

    fn refusal(&self, error: &RedisError) -> Refusal {
        Refusal::Unavailable(format!("{}, where clusters on demand are kept: {error}", self.target))
    }

    fn lock(&self) -> MutexGuard<'_, SharedClusters> {
        self.clusters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The texts of an edit.
pub(super) struct Texts {
    match_before: String,
    match_after: String,
    text: String,
}

impl Texts {
    /// It fails for a cluster that is too large.
    pub(super) fn new(before: Option<&ClusterDefinition>, after: Option<&ClusterDefinition>) -> Result<Self, Refusal> {
        let text = after.map(file::render_record).unwrap_or_default();
        if text.len() > MAX_RECORD {
            return Err(Refusal::bad(format!(
                "the text of the cluster has {} bytes, and {MAX_RECORD} are the most that are kept in Redis",
                text.len()
            )));
        }
        let matched = |cluster: Option<&ClusterDefinition>| cluster.map(match_of).unwrap_or_default();
        Ok(Self { match_before: matched(before), match_after: matched(after), text })
    }

    pub(super) fn edit<'e>(&'e self, name: &'e str) -> Edit<'e> {
        let (match_before, match_after) = (&*self.match_before, &*self.match_after);
        Edit { name, match_before, match_after, text: &self.text, ..Edit::default() }
    }
}

/// The requests that a cluster serves, as `host:port`; empty for none.
fn match_of(cluster: &ClusterDefinition) -> String {
    match (cluster.hostname.as_deref().unwrap_or_default(), cluster.port) {
        ("", None) => String::new(),
        (host, None) => format!("{host}:"),
        (host, Some(port)) => format!("{host}:{port}"),
    }
}

/// A comparison of the known clusters with Redis.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Comparison {
    /// Clusters that Redis lacks, or has in an older version: it has lost their last edits, or never had them. In the
    /// order of their edits.
    pub(super) lost: Vec<Box<str>>,
    /// Clusters that were removed.
    pub(super) removed: Vec<Box<str>>,
}

impl Comparison {
    /// Compares clusters and their revisions with those in Redis, whose newest edit has the revision `newest`. A known
    /// edit with a higher revision was made before Redis lost its last data. All other clusters are as in Redis.
    pub(super) fn new<'k>(
        known: impl Iterator<Item = (&'k str, u64)>,
        records: &BTreeMap<String, Record>,
        newest: u64,
    ) -> Self {
        let (mut lost, mut removed) = (Vec::new(), Vec::new());
        for (name, revision) in known {
            match records.get(name) {
                None if revision == 0 => lost.push((revision, name)),
                _ if revision > newest => lost.push((revision, name)),
                None => removed.push(name.into()),
                Some(_) => {}
            }
        }
        lost.sort_unstable();
        Self { lost: lost.into_iter().map(|(_, name)| name.into()).collect(), removed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_clusters_are_distinguished_from_removed_ones() {
        let record = |revision| Record { revision, created: 0, text: String::new() };
        let records: BTreeMap<_, _> =
            [("same", record(5)), ("newer", record(9)), ("older", record(7))].map(|(n, r)| (n.to_owned(), r)).into();
        let known = [("same", 5), ("newer", 6), ("older", 12), ("removed", 8), ("lost", 11), ("of a file", 0)];
        let compared = Comparison::new(known.into_iter(), &records, 10);
        let lost = ["of a file", "lost", "older"].map(Box::from).to_vec();
        assert_eq!(compared, Comparison { lost, removed: vec!["removed".into()] });
        // An empty Redis has lost all of them.
        let compared = Comparison::new(known.into_iter(), &BTreeMap::new(), 0);
        assert_eq!((compared.lost.len(), compared.removed.len()), (6, 0));
    }

    #[test]
    fn a_match_is_one_key() {
        let table = [("", None, ""), ("a", None, "a:"), ("", Some(80), ":80"), ("a", Some(80), "a:80")];
        for (host, port, expected) in table {
            let hostname = Some(host).filter(|host| !host.is_empty()).map(Into::into);
            assert_eq!(match_of(&ClusterDefinition { hostname, port, ..ClusterDefinition::new("x") }), expected);
        }
    }
}
