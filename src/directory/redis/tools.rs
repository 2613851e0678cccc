//! For tools that ask Redis themselves.

use super::reading::{self, Reading};
use super::target::Target;
use super::{certificates, connect as opening};
use crate::route;
use std::collections::BTreeMap;
use std::time::Duration;

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

/// A connection of a tool's own, opened and asked without long waits.
pub fn connect(target: &Target) -> ::redis::RedisResult<::redis::Connection> {
    opening::open_for_tool(target)
}

/// What replies about a host mean, for [`crate::directory::test_api`].
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

/// Whether a reply has a certificate that can be used, for [`crate::directory::test_api`].
pub(in crate::directory) fn read_certificate(reply: &::redis::Value) -> Result<bool, String> {
    certificates::read(reply)
}
