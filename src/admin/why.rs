//! The path of a request, step by step, and the last failed requests.

use super::clusters::{health_of, name_of, state_of, up_of};
use super::marks::{HostMarks, MarkIndex};
use super::query::Query;
use super::{Response, Sources};
use crate::base::clock::Moment;
use crate::cluster::{Cluster, RecentFailure};
use crate::route::patterns;
use crate::shaper::RequestView;
use crate::wire::host::host_name;
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr};

/// The request in question.
struct Asked<'a> {
    host: String,
    method: &'a str,
    path: &'a str,
}

/// The steps of the request that the query describes (`host`, `path`, `method`).
pub(super) fn why(query: &Query, sources: &Sources) -> Response {
    let Some(host) = query.get("host").and_then(|host| host_name(host.as_bytes())) else {
        return Response::problem(400, "host= has to name a host");
    };
    let (method, path) = (query.get("method").unwrap_or("GET"), query.get("path").unwrap_or("/"));
    if !path.starts_with('/') {
        return Response::problem(400, "path= has to begin with a slash");
    }
    let asked = Asked { host, method, path };
    let now = sources.clock.now();
    let route = sources.directory.route(&asked.host);
    let mut steps = vec![step("host", format!("{} {} of {}", asked.method, asked.path, asked.host))];
    let Some(route) = route else {
        let patterns: Vec<_> = patterns(&asked.host).collect();
        let finding = format!(
            "not in use on this node: the request makes it ask its source ({}) for the lists of {}; without one it gets a 400 \
             (unknown_host)",
            sources.source_kind,
            patterns.join(", ")
        );
        steps.push(step("list", finding));
        return Response::json(&json!({ "host": asked.host, "key": null, "steps": steps, "last_failures": [] }));
    };
    let cluster = &route.cluster;
    let marks = MarkIndex::new(sources, now).marks(cluster);
    put_steps(&mut steps, &asked, cluster, (&marks, now));
    let failures: Vec<Value> =
        cluster.admission.failures().list().iter().map(|failure| ended(failure, cluster, now)).collect();
    let view = json!({ "host": asked.host, "key": cluster.key, "steps": steps, "last_failures": failures });
    Response::json(&view)
}

fn step(name: &str, finding: impl Into<String>) -> Value {
    json!({ "step": name, "finding": finding.into() })
}

fn put_steps(steps: &mut Vec<Value>, asked: &Asked<'_>, cluster: &Cluster, (marks, now): (&HostMarks, Moment)) {
    let options = &cluster.options;
    steps.push(step("list", format!("the list of {}, of {} backends", cluster.key, cluster.members.len())));
    match options.https_redirect {
        Some(true) => steps.push(step("redirect", "over plain HTTP it is redirected to https")),
        Some(false) => steps.push(step("redirect", "never, by the option httpsRedirect")),
        None => {}
    }
    if options.is_disabled {
        let finding = match options.holds() {
            true => format!(
                "the option disabled is set: it is held for up to {:?} until the frontend is enabled, then it gets a {} \
                 (cluster_disabled); beyond {} held requests it gets it at once",
                options.queue.timeout, options.statuses.disabled, options.queue.limit
            ),
            false => format!("the option disabled is set: it gets a {} (cluster_disabled)", options.statuses.disabled),
        };
        return steps.push(step("disabled", finding));
    }
    if options.cache.is_enabled {
        let may = matches!(asked.method, "GET" | "HEAD");
        let finding = if may {
            "it may be served from the cache, and its response may be stored"
        } else {
            "its method bypasses the cache"
        };
        steps.push(step("cache", finding));
    }
    if cluster.has_buckets() {
        let name = cluster.bucket_name(cluster.classify(&view_of(asked))).unwrap_or("-");
        steps.push(step("class", format!("the bucket {name}, as far as host, method and path decide")));
    }
    let limit = options.max_requests.map_or_else(|| "no limit".to_owned(), |limit| format!("at most {limit}"));
    let (in_flight, waiting) = (cluster.admission.in_flight(), cluster.admission.waiting());
    let line = match waiting {
        0 => "no request waits".to_owned(),
        waiting => format!(
            "it waits behind {waiting} others for up to {:?}; behind {} it gets a 503 (queue_full)",
            options.queue.timeout, options.queue.limit
        ),
    };
    steps.push(step("admission", format!("{in_flight} in flight, {limit}; {line}")));
    for (place, member) in cluster.members.iter().enumerate() {
        let health = health_of(member, marks.of_member(place), now);
        let reason = health.reason.map_or_else(String::new, |reason| format!(": {reason}"));
        let name = name_of(member);
        steps.push(step(
            "backend",
            format!("{name} is {}{reason}; {} in flight", health.state, member.state.in_flight()),
        ));
    }
    let up = up_of(cluster, marks);
    let finding = match (state_of(cluster, marks, up), cluster.members.len()) {
        ("down", _) if options.waits_for_backends() => {
            let wake = if options.wake { "a wake message is published, and " } else { "" };
            format!("no backend may serve: {wake}it waits for one for up to {:?}, then it gets a 503", options.queue.timeout)
        }
        (_, 0) => format!("the list has no backend: it gets a {} (no_backend_alive)", options.statuses.empty),
        ("down", _) => {
            "no backend may serve: it gets a 502 (no_backend_alive), unless only marks of this node are in the way: then the \
             backend whose mark ends first is tried"
                .to_owned()
        }
        _ => format!("one of {up} backends, by the scheduler {}", options.scheduler.name()),
    };
    steps.push(step("choice", finding));
}

/// The request in the form for class rules. Fields, client and encryption are unknown.
fn view_of<'a>(asked: &'a Asked<'_>) -> RequestView<'a> {
    RequestView {
        host: &asked.host,
        method: asked.method.as_bytes(),
        target: asked.path.as_bytes(),
        fields: b"\r\n",
        client: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        tls_name: None,
        is_trusted: false,
    }
}

fn ended(failure: &RecentFailure, cluster: &Cluster, now: Moment) -> Value {
    let mut members = cluster.members.iter().filter(|member| failure.is_of(member.identity()));
    // Two members with one identity have one endpoint.
    let backend = members.next().map(name_of);
    json!({
        "seconds_ago": now.since(failure.at).as_secs(),
        "status": failure.status,
        "reason": failure.reason.map(|reason| reason.name()),
        "meaning": failure.reason.map_or_else(|| "the response of the backend".to_owned(), |reason| reason.to_string()),
        "backend": backend,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_asked_for_as_requests_name_it() {
        for (text, expected) in [
            ("WWW.Example.com", "www.example.com"),
            ("a.test.:8080", "a.test"),
            ("a.test.", "a.test"),
            ("[::1]:80", "[::1]"),
            (":80", ""),
        ] {
            assert_eq!(host_name(text.as_bytes()).unwrap_or_default(), expected, "{text}");
        }
    }
}
