//! Actions: what an operator has this node do. Each may be repeated without harm, and is logged.

use super::clusters::all_routes;
use super::query::{Query, decoded};
use super::{Response, Sources};
use crate::base::clock::Moment;
use crate::cluster::{Cluster, Member};
use crate::exchange::ServiceRequest;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// For how long a backend is marked dead where nothing is said, and at the most.
const DEFAULT_MARK: Duration = Duration::from_secs(60);
const MAX_MARK: Duration = Duration::from_secs(86_400 * 365);

/// What the supervisor is to do on behalf of an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Open the access log anew, as SIGUSR1 does.
    ReopenLogs,
    /// Read routes, certificates and pages again, as SIGHUP does.
    Reload,
    /// Replace the worker at this place: it finishes what is under way.
    DrainWorker(usize),
}

pub(super) fn act(request: &ServiceRequest, path: &str, query: &Query, sources: &Sources) -> Response {
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let response = match segments.as_slice() {
        ["v1", "actions", "reopen-logs"] => order(Action::ReopenLogs, sources),
        ["v1", "actions", "reload"] => order(Action::Reload, sources),
        ["v1", "workers", number, "drain"] => drain(number, sources),
        ["v1", "frontends", host, "flush"] => flush(host, sources),
        ["v1", "frontends", host, verb] => treat(&decoded(host), verb, query, sources),
        _ => return Response::problem(404, "no such action; /v1/openapi.json names them all"),
    };
    let origin = request.origin.as_deref().unwrap_or(b"-").escape_ascii();
    log::info!("admin: POST {}: {} (origin {origin})", request.target.escape_debug(), response.status);
    response
}

fn accepted(what: &str) -> Response {
    let mut response = Response::json(&json!({ "accepted": what }));
    response.status = 202;
    response
}

fn order(action: Action, sources: &Sources) -> Response {
    let what = format!("{action:?}");
    (sources.order)(action);
    accepted(&what)
}

fn drain(number: &str, sources: &Sources) -> Response {
    let runs = |number: &usize| sources.roster.workers().iter().any(|worker| worker.number == *number);
    match number.parse().ok().filter(runs) {
        Some(number) => order(Action::DrainWorker(number), sources),
        None => Response::problem(404, "no worker has this number"),
    }
}

/// Has all workers ask for the route of a host again.
fn flush(host: &str, sources: &Sources) -> Response {
    let host = decoded(host).to_ascii_lowercase();
    sources.directory.flush(&host);
    accepted(&format!("flush {host}"))
}

/// Has a backend of a cluster serve, or not.
fn treat(key: &str, verb: &str, query: &Query, sources: &Sources) -> Response {
    if !matches!(verb, "disable" | "enable" | "dead" | "alive") {
        return Response::problem(404, "no such action; /v1/openapi.json names them all");
    }
    let Some(cluster) = sources.directory.cluster(key) else {
        return Response::problem(404, &format!("no cluster {key} is in use here"));
    };
    let Some(url) = query.get("backend") else { return Response::problem(400, "backend= has to name a backend") };
    let is_meant = |member: &&Member| member.url.as_str() == url || member.url.to_string() == url;
    let Some(member) = cluster.members.iter().find(is_meant) else {
        return Response::problem(404, &format!("{key} has no backend {url}"));
    };
    let now = sources.clock.now();
    match verb {
        "disable" => {
            member.state.set_disabled(true, now);
            cluster.serve(now);
        }
        "enable" if member.attributes.is_disabled => {
            return Response::problem(409, "the list says that this backend is disabled: it has to be changed there");
        }
        "enable" => {
            member.state.set_disabled(false, now);
            cluster.serve(now);
        }
        "dead" => {
            let seconds = query.get("seconds").map(|text| text.parse::<f64>().ok().filter(|seconds| *seconds > 0.0));
            let duration = match seconds {
                None => DEFAULT_MARK,
                Some(Some(seconds)) => Duration::from_secs_f64(seconds.min(MAX_MARK.as_secs_f64())),
                Some(None) => return Response::problem(400, "seconds= has to be a number above 0"),
            };
            mark(&cluster, member, now + duration, sources);
        }
        _ => {
            mark(&cluster, member, Moment::ZERO, sources);
            cluster.serve(now);
        }
    }
    accepted(&format!("{verb} {url} of {key}"))
}

/// Marks a backend for every host of its cluster that is in use. The mark is this node's alone.
fn mark(cluster: &Arc<Cluster>, member: &Member, until: Moment, sources: &Sources) {
    for route in all_routes(cluster, sources) {
        for mark in route.marks.iter().filter(|mark| Arc::ptr_eq(&mark.backend, &member.backend)) {
            if until == Moment::ZERO {
                mark.mark_dead(until);
            }
            mark.mark_dead_external(until);
        }
    }
}
