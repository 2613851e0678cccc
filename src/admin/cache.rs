//! The object cache: statistics and purges.

use super::query::Query;
use super::{Response, Sources};
use crate::cache::purge::{PurgeMode, Selector};
use crate::cache::store::Store;
use crate::cache::tier::TierCounts;
use crate::directory::redis::purges::{self, Purged};
use serde_json::{Value, json};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// How long the disk tier may take to purge.
const DISK_TIMEOUT: Duration = Duration::from_secs(10);

/// Statistics of the cache; null if there is none.
pub(super) fn summary(sources: &Sources) -> Value {
    sources.cache.as_ref().map_or(Value::Null, |store| {
        json!({
            "keys": store.len(),
            "stored_bytes": store.bytes(),
            "capacity_bytes": store.capacity(),
            "memory_bytes": store.memory(),
            "fills_in_flight": store.fills().under_way(),
            "disk": store.tier().map(|tier| disk(&tier.counts)),
        })
    })
}

fn disk(counts: &TierCounts) -> Value {
    let TierCounts { bytes, files, hits, written, skipped, evicted, corrupt, failed, leftovers } = counts;
    json!({
        "bytes": bytes, "files": files, "hits": hits, "written": written, "skipped": skipped, "evicted": evicted,
        "corrupt": corrupt, "failed": failed.load(Relaxed) > 0, "leftovers": leftovers,
    })
}

/// Purges the objects that the query selects, on this node or on all, and responds with their number.
pub(super) fn purge(query: &Query, sources: &Sources) -> Response {
    let Some(store) = &sources.cache else {
        return Response::problem(409, "there is no object cache: server.cacheBytes is 0");
    };
    let (selector, mode) = match read(query) {
        Ok(purge) => purge,
        Err(problem) => return Response::problem(400, problem),
    };
    match query.get("nodes") {
        None => match purge_here(&selector, mode, store) {
            Ok(purged) => Response::json(&json!({ "purged": purged })),
            Err(problem) => Response::problem(504, &problem),
        },
        Some("all") => purge_all(query, sources),
        Some(_) => Response::problem(400, "nodes= has to be all"),
    }
}

/// Makes all nodes that share a Redis purge, and responds with the result of each.
fn purge_all(query: &Query, sources: &Sources) -> Response {
    let Some(target) = &sources.redis else {
        return Response::problem(409, "nodes=all needs a driver of Redis, by which nodes know each other");
    };
    match purges::order(target, query.text()) {
        Ok(Purged { told, results }) => {
            let purged: usize = results.iter().filter_map(|result| result.purged).sum();
            let mut response = Response::json(&json!({
                "purged": purged,
                "nodes_told": told,
                "nodes_silent": told.saturating_sub(results.len()),
                "nodes": results,
            }));
            // A client that reads only the status has to notice that the purge is incomplete.
            if results.len() < told || results.iter().any(|result| result.error.is_some()) {
                response.status = 504;
            }
            response
        }
        Err(error) => {
            Response::problem(503, &format!("Redis: {error}; this node purged nothing: leave nodes= out for it alone"))
        }
    }
}

/// Purges the objects of a query that another node has received.
pub fn purge_by_query(query: &str, store: &Store) -> Result<usize, String> {
    let (selector, mode) = read(&Query::parse(query))?;
    purge_here(&selector, mode, store)
}

/// Purges in memory and on the disk: the number of objects in memory.
fn purge_here(selector: &Selector, mode: PurgeMode, store: &Store) -> Result<usize, String> {
    let purged = store.purge(selector, mode);
    match store.settle(DISK_TIMEOUT) {
        true => Ok(purged),
        false => Err(format!(
            "{purged} objects were purged in memory; the disk tier has not removed all of its files within {DISK_TIMEOUT:?}"
        )),
    }
}

fn read(query: &Query) -> Result<(Selector, PurgeMode), &'static str> {
    let mode = match query.get("mode") {
        None | Some("soft") => PurgeMode::Soft,
        Some("hard") => PurgeMode::Hard,
        Some(_) => return Err("mode= has to be soft or hard"),
    };
    let selector = selector(query).ok_or(
        "one of host=, host= with prefix=, tag=, tag= with frontend=, frontend= or all=1 has to say what is purged",
    )?;
    Ok((selector, mode))
}

/// The selector of a query; `None` if it selects nothing, or is ambiguous.
fn selector(query: &Query) -> Option<Selector> {
    let [host, prefix, tag, frontend, all] =
        ["host", "prefix", "tag", "frontend", "all"].map(|name| query.get(name).filter(|value| !value.is_empty()));
    match (host, prefix, tag, frontend, all) {
        (Some(host), None, None, None, None) => Some(Selector::Host(name_of(host))),
        (Some(host), Some(prefix), None, None, None) => {
            Some(Selector::Prefix { host: name_of(host), prefix: prefix.as_bytes().into() })
        }
        (None, None, Some(tag), frontend, None) => {
            Some(Selector::Tag { frontend: frontend.map(Into::into), tag: tag.as_bytes().into() })
        }
        (None, None, None, Some(frontend), None) => Some(Selector::Frontend(frontend.into())),
        (None, None, None, None, Some("1")) => Some(Selector::All),
        _ => None,
    }
}

fn name_of(host: &str) -> Box<[u8]> {
    host.to_ascii_lowercase().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_selects_one_thing_or_nothing() {
        let host = || b"a.test"[..].into();
        let tag = |frontend: Option<&str>| Selector::Tag { frontend: frontend.map(Into::into), tag: b"red"[..].into() };
        let table = [
            ("host=A.test", Some(Selector::Host(host()))),
            ("host=a.test&prefix=/x%3fy", Some(Selector::Prefix { host: host(), prefix: b"/x?y"[..].into() })),
            ("tag=red", Some(tag(None))),
            ("tag=red&frontend=*.test&mode=hard", Some(tag(Some("*.test")))),
            ("frontend=*.test", Some(Selector::Frontend("*.test".into()))),
            ("all=1", Some(Selector::All)),
            ("", None),
            ("all=0", None),
            ("all=1&host=a", None),
            ("prefix=/", None),
            ("host=", None),
            ("host=a&tag=red", None),
            ("host=a&frontend=a", None),
        ];
        for (query, expected) in table {
            assert_eq!(selector(&Query::parse(query)), expected, "{query}");
        }
    }
}
