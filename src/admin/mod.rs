//! What operators and their tools see of this node: views, metrics, HAProxy's statistics and actions, for a listener of
//! their own.
//!
//! The workers accept the requests and send them here by mail ([`ServiceCall`]); one thread makes all responses, from cells
//! that others write and it reads. So no view costs a request of a client anything.

mod access;
mod actions;
mod buckets;
mod clusters;
mod dashboard;
mod frontends;
mod metrics;
mod monitor;
mod process;
mod query;
mod roster;
mod router;
mod stats_csv;
mod status;
mod views;

pub use actions::Action;
pub use roster::{Roster, WorkerEntry};

use crate::base::clock::Clock;
use crate::base::secret::Secret;
use crate::directory::Directory;
use crate::exchange::ServiceResponse;
use crate::worker::{ServiceCall, ServiceSender};
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

/// Requests that wait for the thread. One that finds no room is refused with 503.
const MAX_WAITING: usize = 256;

/// Settings of the admin service (`admin`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where it listens (`admin.bind`); `None` for nowhere.
    pub bind: Option<SocketAddr>,
    /// What a client has to know (`admin.token`, `admin.tokenFile`); `None` where nothing has to be known.
    pub token: Option<Secret>,
    /// The host names by which clients may call this node, beside addresses and `localhost` (`admin.hosts`).
    pub hosts: Vec<String>,
    /// The configuration as it was written, its secrets hidden.
    pub written: Written,
}

/// The text of the configuration, for the view. It is no setting: settings are the same whatever text they were read from.
#[derive(Clone, Debug, Default)]
pub struct Written(pub serde_json::Value);

impl PartialEq for Written {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Written {}

/// What the service reads, and whom it has act.
pub struct Sources {
    /// The settings.
    pub settings: Settings,
    /// The clock of the process.
    pub clock: Clock,
    /// The workers.
    pub roster: Arc<Roster>,
    /// The source of routes.
    pub directory: Directory,
    /// What kind of source it is: `file` or `redis`.
    pub source_kind: &'static str,
    /// Has the supervisor do something.
    pub order: Box<dyn Fn(Action) + Send>,
}

/// Starts the thread of the service. It ends when the last sender is dropped.
pub fn start(sources: Sources) -> io::Result<ServiceSender> {
    let (sender, calls) = crossbeam_channel::bounded::<ServiceCall>(MAX_WAITING);
    let run = move || {
        for call in calls {
            let respond = AssertUnwindSafe(|| router::respond(&call.request, &sources));
            let response = catch_unwind(respond).unwrap_or_else(|_| router::failed());
            call.respond(response);
        }
    };
    thread::Builder::new().name("admin".into()).spawn(run)?;
    Ok(sender)
}

/// A response of this service.
struct Response {
    status: u16,
    content_type: &'static str,
    /// More header lines, each with its CRLF.
    fields: String,
    body: Vec<u8>,
}

impl Response {
    fn new(status: u16, content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self { status, content_type, fields: String::new(), body: body.into() }
    }

    fn text(status: u16, body: &str) -> Self {
        Self::new(status, "text/plain; charset=utf-8", body)
    }

    fn json(value: &serde_json::Value) -> Self {
        Self::new(200, "application/json", format!("{value}\n"))
    }

    /// What a tool can read that expected JSON.
    fn problem(status: u16, detail: &str) -> Self {
        let body = serde_json::json!({ "status": status, "detail": detail });
        Self::new(status, "application/problem+json", format!("{body}\n"))
    }

    fn with_field(mut self, line: &str) -> Self {
        self.fields.push_str(line);
        self.fields.push_str("\r\n");
        self
    }
}

impl From<Response> for ServiceResponse {
    fn from(response: Response) -> Self {
        let Response { status, content_type, fields, body } = response;
        // No page of this service is ever a part of another one, and nothing on it is to be guessed.
        let fields = format!(
            "Content-Type: {content_type}\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
             X-Frame-Options: DENY\r\nReferrer-Policy: no-referrer\r\n{fields}"
        );
        Self { status, fields, body: body.into() }
    }
}
