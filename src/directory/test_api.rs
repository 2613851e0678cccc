//! The directory's readers by themselves: what came in, and what was understood. For tests that try a great many texts.

use super::{Entry, Faults, catalog, parse, redis, snapshot};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// The frontends of a routes file by their pattern, as they stand in Redis.
pub fn routes(bytes: &[u8]) -> Result<BTreeMap<String, Entry>, Faults> {
    parse::parse(bytes, Path::new("")).map(|routes| entries(routes.records))
}

/// Records as they stand in Redis.
pub(super) fn entries(records: super::table::FrontendRecords) -> BTreeMap<String, Entry> {
    let entry = |record: catalog::FrontendRecord| {
        let urls = record.backends.iter().map(|url| url.as_str().to_owned());
        Entry {
            items: std::iter::once(record.id.into_string()).chain(urls).collect(),
            options: record.options.pairs().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        }
    };
    records.into_iter().map(|(pattern, record)| (pattern.into_string(), entry(record))).collect()
}

/// What Redis says of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedListing {
    /// The pattern whose list it is.
    pub pattern: String,
    /// Item 0 of the list, as it is shown.
    pub id: String,
    /// Each backend that can be used, and its place in the list, counted from 0 as dead marks are.
    pub backends: Vec<(usize, String)>,
    /// How many backends stand in the list.
    pub total: usize,
    /// What is wrong with the others.
    pub faults: Vec<String>,
    /// Names and values of the options that can be used.
    pub options: BTreeMap<String, String>,
    /// What is wrong with the options.
    pub option_faults: Vec<String>,
    /// The dead marks.
    pub dead: Vec<usize>,
    /// How long they hold.
    pub ttl: Option<Duration>,
}

/// Reads Redis's replies about `host`: a list and options for each pattern of its ladder, the dead marks, and their time in
/// milliseconds. `None` where there is no list.
pub fn redis_listing(host: &str, replies: &[::redis::Value]) -> Result<Option<ParsedListing>, String> {
    redis::read_listing(host, replies)
}

/// Reads Redis's reply about a certificate. Whether there is one, or what is wrong with it.
pub fn redis_certificate(reply: &::redis::Value) -> Result<bool, String> {
    redis::read_certificate(reply)
}

/// Reads a snapshot, and writes what was understood again.
pub fn snapshot(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let known = snapshot::parse::<snapshot::Route>(bytes).map_err(|fault| fault.to_string())?;
    let mut out = Vec::new();
    snapshot::encode(&known, &mut out).map_err(|error| error.to_string())?;
    Ok(out)
}
