//! Which view or action a request is for.

use super::{Response, Sources, access, status};
use crate::exchange::{ServiceRequest, ServiceResponse};

/// The response to a request.
pub(super) fn respond(request: &ServiceRequest, sources: &Sources) -> ServiceResponse {
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    let response = match access::check(request, path, &sources.settings) {
        Err(refusal) => refusal,
        Ok(()) => match request.method.as_str() {
            "GET" | "HEAD" => view(path, query, sources),
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

fn view(path: &str, _query: &str, sources: &Sources) -> Response {
    match path {
        "/healthz" => Response::text(200, "ok\n"),
        "/readyz" => status::readiness(sources),
        "/v1/status" => status::status(sources),
        _ => Response::problem(404, "no such view; /v1/openapi.json names them all"),
    }
}
