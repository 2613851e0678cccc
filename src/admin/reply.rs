//! Sending responses, and their log lines.

use super::{Body, Response, Service, access};
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
        let (asked, status, who) = (asked(&call.request), response.status, access::who(&call.request));
        log::info!(request = asked.as_str(), status = status, client:% = who; "admin: {asked}: {status} for {who}");
    }
    call.respond(response);
}

/// A request in the form of log lines.
pub(super) fn asked(request: &ServiceRequest) -> String {
    format!("{} {}", request.method.escape_debug(), request.target.escape_debug())
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
