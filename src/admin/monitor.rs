//! Pages for tools of other load balancers.

use super::{Response, Sources, status};

/// x0's monitor page. Source: x0's `HaproxyMonitor`, after HAProxy's `monitor-uri`: tools search for this text.
pub(super) fn page(sources: &Sources) -> Response {
    match status::unready(sources) {
        None => {
            Response::new(200, "text/html", "<html><body><h1>200 OK</h1>\nHAProxy: service ready.\n</body></html>\n")
        }
        Some(_) => Response::new(
            503,
            "text/html",
            "<html><body><h1>503 Service Unavailable</h1>\nHAProxy: service not ready.\n</body></html>\n",
        ),
    }
}
