//! Actions of an operator on this node. Each may be repeated without harm.

use super::clusters::name_of;
use super::query::{Query, decoded};
use super::{Response, Service, cache, frontends};
use crate::base::clock::Moment;
use crate::cluster::{AdminState, Cluster, Mark, Member, Route};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// The default duration of a dead mark.
const DEFAULT_MARK: Duration = Duration::from_secs(60);
const MAX_MARK: Duration = Duration::from_secs(86_400 * 365);

/// The limit of the wait for the supervisor. The supervisor performs the action all the same.
const PATIENCE: Duration = Duration::from_secs(2);

/// The greatest number of hosts that a refusal names.
const MAX_NAMED: usize = 5;

/// An action for the supervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Reopen the access log, as SIGUSR1 does.
    ReopenLogs,
    /// Read routes, certificates and pages again, as SIGHUP does.
    Reload,
    /// Upgrade the process, as SIGUSR2 does.
    Upgrade,
    /// Replace the worker of this slot: it finishes its exchanges.
    DrainWorker(usize),
}

/// A description of the started action, or why none was started.
pub type ActionResult = Result<String, String>;

/// The verbs of a frontend.
const VERBS: [&str; 5] = ["disable", "drain", "enable", "dead", "alive"];

/// Whether this is the path of an action.
pub(super) fn is_action(path: &str) -> bool {
    match segments(path).as_slice() {
        ["v1", "actions", verb] => matches!(*verb, "reopen-logs" | "reload" | "upgrade"),
        ["v1", "cache", verb] => *verb == "purge",
        ["v1", "workers", _, verb] => *verb == "drain",
        ["v1", "frontends", _, verb] => *verb == "flush" || VERBS.contains(verb),
        _ => false,
    }
}

fn segments(path: &str) -> Vec<&str> {
    path.trim_start_matches('/').split('/').collect()
}

pub(super) fn act(path: &str, query: &Query, service: &Service) -> Response {
    let segments = segments(path);
    match segments.as_slice() {
        ["v1", "actions", "reopen-logs"] => order(Action::ReopenLogs, service),
        ["v1", "actions", "reload"] => order(Action::Reload, service),
        ["v1", "actions", "upgrade"] => order(Action::Upgrade, service),
        ["v1", "cache", "purge"] => cache::purge(query, service),
        ["v1", "workers", number, "drain"] => drain(number, service),
        ["v1", "frontends", host, "flush"] => flush(&decoded(host), service),
        ["v1", "frontends", host, verb] => treat(&decoded(host), verb, query, service),
        _ => Response::problem(404, "no such action; /v1/openapi.json names them all"),
    }
}

fn accepted(what: &str) -> Response {
    let mut response = Response::json(&json!({ "accepted": what }));
    response.status = 202;
    response
}

/// The response to an action that affected this number of hosts.
fn done_for(what: &str, hosts: usize) -> Response {
    let mut response = Response::json(&json!({ "accepted": what, "hosts": hosts }));
    response.status = 202;
    response
}

fn order(action: Action, service: &Service) -> Response {
    let (answer, answers) = crossbeam_channel::bounded(1);
    (service.order)(action, answer);
    match answers.recv_timeout(PATIENCE) {
        Ok(Ok(what)) => accepted(&what),
        Ok(Err(why)) => Response::problem(409, &why),
        Err(_) => accepted("the supervisor does it after its present task"),
    }
}

fn drain(number: &str, service: &Service) -> Response {
    let runs = |number: &usize| service.roster.workers().iter().any(|worker| worker.number == *number);
    match number.parse().ok().filter(runs) {
        Some(number) => order(Action::DrainWorker(number), service),
        None => Response::problem(404, "no worker has this number"),
    }
}

/// Makes the source look up a host again.
fn flush(host: &str, service: &Service) -> Response {
    let host = host.to_ascii_lowercase();
    match service.directory.flush(&host) {
        Some(true) => accepted(&format!("flush {host}")),
        Some(false) => {
            Response::problem(404, &format!("{host} is not in use here: no request has asked for it lately"))
        }
        None => Response::problem(503, "the source of routes is overloaded").with_field("Retry-After: 1"),
    }
}

/// Enables a backend of a cluster, disables it or sets it to drain, or marks it dead or alive.
fn treat(key: &str, verb: &str, query: &Query, service: &Service) -> Response {
    if !VERBS.contains(&verb) {
        return Response::problem(404, "no such action; /v1/openapi.json names them all");
    }
    let Some(cluster) = frontends::cluster_of(key, service) else {
        return Response::problem(404, &format!("no cluster {key} is in use here"));
    };
    let Some(url) = query.get("backend") else { return Response::problem(400, "backend= has to name a backend") };
    let is_meant = |member: &&Member| {
        member.url.as_str() == url || name_of(member) == url || member.backend.endpoint().to_string() == url
    };
    let Some(member) = cluster.members.iter().find(is_meant) else {
        return Response::problem(404, &format!("{key} has no backend {url}"));
    };
    let now = service.clock.now();
    let what = format!("{verb} {} of {}", name_of(member), cluster.key);
    match verb {
        "enable" if member.attributes.is_disabled => {
            return Response::problem(409, "the list disables this backend: change the list");
        }
        "disable" | "drain" | "enable" => {
            let admin = match verb {
                "disable" => AdminState::Disabled,
                "drain" => AdminState::Drain,
                _ => AdminState::Ready,
            };
            if !service.directory.set_admin_state(&cluster, member, admin, now) {
                return Response::problem(
                    409,
                    "too many backends are disabled or draining already: enable some of them",
                );
            }
            cluster.serve(now);
        }
        "dead" => {
            let seconds = query.get("seconds").map(|text| text.parse::<f64>().ok().filter(|seconds| *seconds > 0.0));
            let duration = match seconds {
                None => DEFAULT_MARK,
                Some(Some(seconds)) => Duration::from_secs_f64(seconds.min(MAX_MARK.as_secs_f64())),
                Some(None) => return Response::problem(400, "seconds= has to be a number above 0"),
            };
            return mark_dead(&cluster, member, (&what, now + duration), service);
        }
        _ => return mark_alive(&cluster, member, (&what, now), service),
    }
    accepted(&what)
}

/// The routes of the hosts that lead to a cluster.
fn routes_of(cluster: &Cluster, service: &Service) -> Vec<Arc<Route>> {
    let directory = &service.directory;
    if cluster.key.starts_with('*') {
        directory.routes().into_iter().filter(|route| route.cluster.key == cluster.key).collect()
    } else {
        directory.route(&cluster.key).filter(|route| route.cluster.key == cluster.key).into_iter().collect()
    }
}

/// The marks of a backend, one for each of these hosts.
fn marks_of<'a>(routes: &'a [Arc<Route>], member: &'a Member) -> impl Iterator<Item = (&'a Route, &'a Arc<Mark>)> {
    routes.iter().filter_map(|route| Some((&**route, route.mark_of(member.backend.id())?)))
}

/// Marks a backend dead for every host of its cluster in use. The mark applies to this node alone.
fn mark_dead(cluster: &Cluster, member: &Member, (what, until): (&str, Moment), service: &Service) -> Response {
    let routes = routes_of(cluster, service);
    let hosts = marks_of(&routes, member).map(|(_, mark)| mark.mark_dead_by_operator(until)).count();
    // Waiting requests may now wait in vain.
    cluster.serve(service.clock.now());
    match hosts {
        0 => Response::problem(
            409,
            "no host of this cluster is in use, so there is none to mark it for; disable it instead",
        ),
        hosts => done_for(what, hosts),
    }
}

/// Removes the marks of this node, and reports marks in Redis.
fn mark_alive(cluster: &Cluster, member: &Member, (what, now): (&str, Moment), service: &Service) -> Response {
    let routes = routes_of(cluster, service);
    let (mut hosts, mut kept) = (0, Vec::new());
    for (route, mark) in marks_of(&routes, member) {
        mark.mark_dead(Moment::ZERO);
        mark.mark_dead_by_operator(Moment::ZERO);
        hosts += 1;
        if mark.is_dead_external(now) {
            kept.push(&*route.host);
        }
    }
    cluster.serve(now);
    if kept.is_empty() {
        return done_for(what, hosts);
    }
    let named: Vec<_> = kept.iter().take(MAX_NAMED).map(|host| format!("dead:{host}")).collect();
    Response::problem(
        409,
        &format!(
            "for {} of {hosts} hosts the mark stands in Redis, and it takes precedence: remove it there, from {}",
            kept.len(),
            named.join(", ")
        ),
    )
}
