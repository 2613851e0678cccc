//! Sending responses, and their log lines.

use super::query::decoded;
use super::{Body, Response, Service, access};
use crate::base::secret::redact_url;
use crate::exchange::{ServiceRequest, ServiceResponse};
use crate::worker::ServiceCall;

/// The refusal of a request for lack of room.
pub(super) fn busy() -> Response {
    Response::problem(503, "the admin service is overloaded").with_field("Retry-After: 1")
}

/// Sends a response. Each action is logged with its outcome.
pub(super) fn send_response(call: ServiceCall, response: Response, service: &Service) {
    let response = finished(response, service);
    if !matches!(call.request.method.as_str(), "GET" | "HEAD") && call.request.ruled.is_none() {
        let who = access::who(&call.request, &service.settings);
        let (asked, status) = (asked(&call.request), response.status);
        log::info!(request = asked.as_str(), status = status, client:% = who; "admin: {asked}: {status} for {who}");
    }
    call.respond(response);
}

/// Sends a refusal for lack of access, without a log line of its own: clients without access must not fill the log.
pub(super) fn send_refusal(call: ServiceCall, refusal: Response, service: &Service) {
    let response = finished(refusal, service);
    call.respond(response);
}

/// A request in the form of log lines, its URLs without passwords.
pub(super) fn asked(request: &ServiceRequest) -> String {
    let (path, query) = split(&request.target);
    let path = if path.contains('@') || path.contains("://") { redact_url(path) } else { path.into() };
    let shown = |pair: &str| match pair.split_once('=') {
        Some((name, value)) => format!("{name}={}", redact_url(&decoded(value))),
        None => pair.to_owned(),
    };
    let pairs: Vec<String> = query.split('&').map(shown).collect();
    let query = if query.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) };
    format!("{} {}{}", request.method.escape_debug(), path.escape_debug(), query.escape_debug())
}

/// The response in the form of the worker, with the fields of all responses.
pub(super) fn finished(response: Response, service: &Service) -> ServiceResponse {
    let response = match &response.body {
        Body::Own(bytes) if response.status == 200 && !service.state.has_room_for(bytes.len()) => busy(),
        _ => response,
    };
    let Response { status, content_type, fields, body } = response;
    // The fields forbid embedding of pages of this service, and guesses of content types.
    let fields = format!(
        "Content-Type: {content_type}\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
         X-Frame-Options: DENY\r\nReferrer-Policy: no-referrer\r\n{fields}"
    );
    let body = match body {
        Body::Own(bytes) => service.state.body(bytes),
        Body::Shared(body) => body,
    };
    ServiceResponse { status, fields, body, stream: None }
}

/// The path and the query of a target.
pub(super) fn split(target: &str) -> (&str, &str) {
    target.split_once('?').unwrap_or((target, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_of_a_url_reaches_the_log() {
        for (target, expected) in [
            ("/v1/actions/reload", "POST /v1/actions/reload"),
            (
                "/v1/frontends/a/dead?backend=http://10.0.0.7:80/&seconds=3",
                "POST /v1/frontends/a/dead?backend=http://10.0.0.7:80/&seconds=3",
            ),
            (
                "/v1/frontends/a/dead?backend=http://10.0.0.7:80/?token=geheim",
                "POST /v1/frontends/a/dead?backend=http://10.0.0.7:80/?***",
            ),
            (
                "/v1/frontends/a/dead?backend=http%3A%2F%2Fu%3Ageheim%40b",
                "POST /v1/frontends/a/dead?backend=http://***",
            ),
            ("/http://u:geheim@b", "POST ***"),
            ("/v1/frontends/[::1]:80/flush", "POST /v1/frontends/[::1]:80/flush"),
            ("/a?b\n=c", "POST /a?b\\n=c"),
        ] {
            let request = ServiceRequest { method: "POST".to_owned(), target: target.to_owned(), ..Default::default() };
            assert_eq!(asked(&request), expected);
        }
    }
}
