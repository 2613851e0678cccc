//! Receipts: responses that are sent once all nodes serve the present state of Redis. Separate threads wait for them.

use super::query::Query;
use super::{Response, Sources};
use crate::directory::redis;
use crate::wire::host::host_name;
use serde_json::{Value, json};
use std::time::Duration;

/// The path of the action.
pub(super) const PATH: &str = "/v1/receipts";

/// The greatest number of receipts that are waited for at once.
pub(super) const THREADS: usize = 4;

/// The default and the greatest wait for a receipt, in seconds.
const SECONDS: u64 = 10;
const MAX_SECONDS: u64 = 60;

/// Waits until every core of every node serves the present state of a host in Redis.
pub(super) fn receipt(query: &Query, sources: &Sources) -> Response {
    let Some(host) = query.get("host").and_then(|host| host_name(host.to_ascii_lowercase().as_bytes())) else {
        return Response::problem(400, "host= has to be a host name");
    };
    let seconds = query.get("timeout").map_or(Some(SECONDS), |text| text.parse().ok());
    let Some(seconds) = seconds.filter(|seconds| (1..=MAX_SECONDS).contains(seconds)) else {
        return Response::problem(400, &format!("timeout= has to be a number of seconds from 1 to {MAX_SECONDS}"));
    };
    let Some(target) = sources.directory.fleet() else { return no_fleet() };
    match redis::wait_until_served(target, &host, Duration::from_secs(seconds)) {
        Ok(served) if served.missing.is_empty() => Response::json(
            &json!({ "host": host, "nodes": served.nodes.iter().map(|node| &node.id).collect::<Vec<_>>() }),
        ),
        Ok(served) => Response::problem(504, &served.to_string()),
        Err(error) => Response::problem(503, &format!("{target}: {error}")),
    }
}

/// The living nodes.
pub(super) fn nodes(sources: &Sources) -> Response {
    let Some(target) = sources.directory.fleet() else { return Response::json(&json!({ "nodes": [] })) };
    match redis::nodes(target) {
        Ok(nodes) => Response::json(&json!({ "nodes": nodes.iter().map(redis::Node::json).collect::<Vec<Value>>() })),
        Err(error) => Response::problem(503, &format!("{target}: {error}")),
    }
}

fn no_fleet() -> Response {
    Response::problem(409, "routes do not come from Redis, so this node has no fleet")
}
