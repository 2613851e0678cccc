//! Which view or action a request is for.

use super::query::{Query, decoded};
use super::{Response, Sources, access, actions, dashboard, frontends, metrics, monitor, stats_csv, status, views};
use crate::exchange::{ServiceRequest, ServiceResponse};

/// The response to a request.
pub(super) fn respond(request: &ServiceRequest, sources: &Sources) -> ServiceResponse {
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    let response = match access::check(request, path, &sources.settings) {
        Err(refusal) => refusal,
        Ok(()) => match request.method.as_str() {
            "GET" | "HEAD" => view(request, path, query, sources),
            "POST" => actions::act(request, path, &Query::parse(query), sources),
            _ => Response::problem(405, "views take GET and HEAD, actions take POST")
                .with_field("Allow: GET, HEAD, POST"),
        },
    };
    response.into()
}

/// What is said where making a response has failed.
pub(super) fn failed() -> ServiceResponse {
    Response::problem(500, "the view could not be made; the log of the process says why").into()
}

/// The description of this service for tools.
const OPENAPI: &str = include_str!("assets/openapi.json");

fn view(request: &ServiceRequest, path: &str, query: &str, sources: &Sources) -> Response {
    match path {
        "/healthz" => Response::text(200, "ok\n"),
        "/readyz" => status::readiness(sources),
        "/v1/status" => status::status(sources),
        "/v1/frontends" => frontends::list(&Query::parse(query), sources),
        "/v1/backends" => frontends::backends(&Query::parse(query), sources),
        "/;csv" | "/stats;csv" => stats_csv::statistics(sources),
        "/haproxy" if query.starts_with("stats") && query.contains(";csv") => stats_csv::statistics(sources),
        "/v1/config" => views::config(sources),
        "/v1/redis" => views::redis(sources),
        "/v1/certificates" => views::certificates(sources),
        "/v1/openapi.json" => Response::new(200, "application/json", OPENAPI),
        "/metrics" => metrics::metrics(request.accept.as_deref(), sources),
        "/haproxy/monitor" | "/monitor" => monitor::page(sources),
        _ => match path.strip_prefix("/v1/frontends/") {
            Some(key) => frontends::one(&decoded(key), sources),
            None => dashboard::asset(path)
                .unwrap_or_else(|| Response::problem(404, "no such view; /v1/openapi.json names them all")),
        },
    }
}
