//! Functions for tools that query Redis themselves.

use super::certificates;
use super::reading::{self, Reading};
use super::target::Target;
use super::tool_connection::ToolConnection;
use crate::route;
use std::collections::BTreeMap;
use std::time::Duration;

/// The parsed record of a host in Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedListing {
    /// The pattern whose list it is.
    pub pattern: String,
    /// Item 0 of the list, in its displayed form.
    pub id: String,
    /// Each usable backend, with its index in the list, counted from 0 as in dead marks.
    pub backends: Vec<(usize, String)>,
    /// Number of backends in the list.
    pub total: usize,
    /// Faults of the other backends.
    pub faults: Vec<String>,
    /// Names and values of the usable options.
    pub options: BTreeMap<String, String>,
    /// Faults of the options.
    pub option_faults: Vec<String>,
    /// The dead marks.
    pub dead: Vec<usize>,
    /// Remaining life of the dead marks.
    pub ttl: Option<Duration>,
}

/// A connection for a tool, with limited waits.
pub fn connect(target: &Target) -> ::redis::RedisResult<ToolConnection> {
    ToolConnection::open(target)
}

/// Parses the replies about a host, for [`crate::directory::test_api`].
pub(in crate::directory) fn read_listing(
    host: &str,
    replies: &[::redis::Value],
) -> Result<Option<ParsedListing>, String> {
    let patterns: Vec<_> = route::patterns(host).collect();
    let (pattern, listing, dead) = match reading::read(patterns.iter().map(|pattern| &**pattern), replies) {
        Reading::Unknown => return Ok(None),
        Reading::Bad(problem) => return Err(problem.into()),
        Reading::Unread(_) => return Err("the list was not read".to_owned()),
        Reading::Found { pattern, listing, dead } => (pattern, listing, dead),
    };
    let (options, wrong) = listing.read_options(&pattern, None);
    let option_faults = listing.option_faults.iter().cloned().chain(wrong).collect();
    let urls = listing.record.backends.iter().enumerate();
    Ok(Some(ParsedListing {
        pattern: pattern.into(),
        id: listing.record.id.clone().into(),
        backends: urls.map(|(index, url)| (listing.place_of(index), url.as_str().to_owned())).collect(),
        total: listing.total,
        faults: listing.faults,
        options: options.pairs().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        option_faults,
        dead: dead.indexes,
        ttl: dead.ttl,
    }))
}

/// Whether a reply contains a usable certificate, for [`crate::directory::test_api`].
pub(in crate::directory) fn read_certificate(reply: &::redis::Value) -> Result<bool, String> {
    certificates::read(reply)
}
