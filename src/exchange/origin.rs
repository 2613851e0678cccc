//! The route and the backend of a request that another process has begun: for its log line until the route is known here, and
//! for good if the route no longer contains the backend.

use crate::cluster::Timeouts;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::time::Duration;

/// The route and the member of a request, as names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// The host of the request.
    pub(super) host: Box<str>,
    /// The key of the frontend that serves it.
    pub(super) pattern: Box<str>,
    /// The identifier of the frontend.
    pub(super) frontend_id: Box<str>,
    /// The URL of the backend, without secrets.
    pub(super) backend_url: Box<str>,
    /// Scheme, host and port of the backend, by which the member is found again.
    pub(super) endpoint: Box<str>,
    /// The name of its bucket.
    pub(super) bucket: Option<Box<str>>,
    /// The client, or its network, if the frontend has a limit for each client (`maxRequestsPerClient`).
    pub(super) counted_client: Option<IpAddr>,
    /// The time that the request spent in other processes.
    pub(super) elapsed: Duration,
    /// The timeouts of the frontend.
    pub(super) timeouts: Timeouts,
    /// The route has yet to be looked up.
    #[serde(skip, default = "yes")]
    pub(super) awaits_route: bool,
}

fn yes() -> bool {
    true
}

impl Origin {
    /// The host of the request.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The key of the frontend.
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// The identifier of the frontend.
    pub fn frontend_id(&self) -> &str {
        &self.frontend_id
    }

    /// The URL of the backend, without secrets.
    pub fn backend_url(&self) -> &str {
        &self.backend_url
    }

    /// The name of the bucket.
    pub fn bucket(&self) -> Option<&str> {
        self.bucket.as_deref()
    }

    /// The time that the request spent in other processes. [`RequestStats`](super::RequestStats) do not contain it.
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// Scheme, host and port of the backend, as a URL.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }
}
