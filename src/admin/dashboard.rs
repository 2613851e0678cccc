//! The dashboard: a page, its script and its style. It gets all its data from the views.

use super::Response;

/// The page loads from this node alone, and has no inline script.
const POLICY: &str = "Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) fn asset(path: &str) -> Option<Response> {
    let (content_type, content) = match path {
        "/" => ("text/html; charset=utf-8", include_str!("assets/index.html")),
        "/assets/app.js" => ("text/javascript; charset=utf-8", include_str!("assets/app.js")),
        "/assets/host.js" => ("text/javascript; charset=utf-8", include_str!("assets/host.js")),
        "/assets/demand.js" => ("text/javascript; charset=utf-8", include_str!("assets/demand.js")),
        "/assets/icon.svg" => ("image/svg+xml", include_str!("assets/icon.svg")),
        "/assets/app.css" => ("text/css; charset=utf-8", include_str!("assets/app.css")),
        _ => return None,
    };
    Some(Response::new(200, content_type, content).with_field(POLICY))
}
