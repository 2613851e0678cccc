//! The directory's parsers by themselves, for tests with many inputs.

pub use super::redis::ParsedListing;
use super::{Entry, Faults, catalog, parse, redis, snapshot};
use std::collections::BTreeMap;
use std::path::Path;

/// The frontends of a routes file by pattern, in the form that they have in Redis.
pub fn routes(bytes: &[u8]) -> Result<BTreeMap<String, Entry>, Faults> {
    parse::parse(bytes, Path::new("")).map(|routes| entries(routes.records))
}

/// Records in the form that they have in Redis.
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

/// Parses Redis's replies about `host`: a list and options for each candidate pattern, the dead marks, and their time
/// in milliseconds. `None` if there is no list.
pub fn redis_listing(host: &str, replies: &[::redis::Value]) -> Result<Option<ParsedListing>, String> {
    redis::read_listing(host, replies)
}

/// Parses Redis's reply about a certificate. Returns whether there is one, or its fault.
pub fn redis_certificate(reply: &::redis::Value) -> Result<bool, String> {
    redis::read_certificate(reply)
}

/// Parses a snapshot, and writes it again.
pub fn snapshot(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let known = snapshot::parse::<snapshot::Route>(bytes).map_err(|fault| fault.to_string())?;
    let mut out = Vec::new();
    snapshot::encode(&known, &mut out).map_err(|error| error.to_string())?;
    Ok(out)
}
