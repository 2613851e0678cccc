//! The admin service for operators and their tools: views, metrics, HAProxy's statistics and actions, at its own
//! listener.
//!
//! The workers accept the requests and send them here by mail (`ServiceCall`); a few threads make all responses, from
//! cells that other threads write. So no view costs a client's request anything. The first thread checks access,
//! responds to readiness checks, and passes on the rest: views, metrics and actions have a thread each, so that none of
//! them waits for a slow one of another kind. These threads have a lower priority than the workers, and yield in the
//! middle of a long view.

mod access;
mod actions;
mod bind;
mod buckets;
mod cache;
mod clusters;
mod dashboard;
mod director;
mod events;
mod frontends;
mod haproxy_page;
mod marks;
mod metrics;
mod monitor;
mod option_sources;
mod page;
mod patience;
mod process;
mod query;
mod receipts;
mod reply;
mod roster;
mod router;
mod series;
mod state;
mod stats_csv;
mod status;
mod views;
mod why;
mod worker_series;

pub use actions::{Action, ActionResult};
pub use bind::{Bind, EXPECTED as EXPECTED_BIND};
pub use cache::purge_by_query;
pub use roster::{ReplaceCause, Roster, WorkerEntry};

use crate::base::clock::Clock;
use crate::base::secret::Secret;
use crate::cache::store::Store;
use crate::cluster::Tenants;
use crate::directory::{Directory, redis};
use crate::exchange::ServiceBody;
use crate::worker::{ServiceCall, ServiceSender};
use crossbeam_channel::{Receiver, Sender};
use state::State;
use std::io;
use std::ops::Deref;
use std::sync::Arc;
use std::thread;

/// The greatest number of requests that wait for a thread. A further one is refused with 503.
const MAX_WAITING: usize = 256;

/// The default permissions of the UNIX socket: access for its owner and group.
pub const DEFAULT_SOCKET_MODE: u32 = 0o660;

/// Settings of the admin service (`admin`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The listening address (`admin.bind`); `None` disables the service.
    pub bind: Option<Bind>,
    /// The permissions of a UNIX socket (`admin.socketMode`).
    pub socket_mode: u32,
    /// Its owner, `USER`, `USER:GROUP` or `:GROUP` (`admin.socketOwner`); `None` for the account of the process.
    pub socket_owner: Option<String>,
    /// The secret that a client has to send (`admin.token`, `admin.tokenFile`); `None` for no check.
    pub token: Option<Secret>,
    /// Host names under which clients may address this node, besides IP addresses and `localhost` (`admin.hosts`).
    pub hosts: Vec<String>,
    /// The path of x0d's API (`admin.directorPrefix`); `None` disables it.
    pub director_prefix: Option<String>,
    /// The configuration as written, without secrets.
    pub written: Written,
}

impl Settings {
    /// The settings of a process without the service.
    pub fn off() -> Self {
        Self {
            bind: None,
            socket_mode: DEFAULT_SOCKET_MODE,
            socket_owner: None,
            token: None,
            hosts: Vec::new(),
            director_prefix: None,
            written: Written::default(),
        }
    }
}

/// The text of the configuration, for the view. It does not count in comparisons: settings are equal whatever text they
/// come from.
#[derive(Clone, Debug, Default)]
pub struct Written(pub serde_json::Value);

impl PartialEq for Written {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Written {}

/// The data and the interfaces of the service.
pub struct Sources {
    /// The settings.
    pub settings: Settings,
    /// The clock of the process.
    pub clock: Clock,
    /// The workers.
    pub roster: Arc<Roster>,
    /// The tenants that share this node, where requests in flight have a limit for all.
    pub tenants: Option<Arc<Tenants>>,
    /// The object cache, if there is one.
    pub cache: Option<Arc<Store>>,
    /// The Redis of the fleet, if there is one.
    pub redis: Option<redis::Target>,
    /// The source of routes.
    pub directory: Directory,
    /// The kind of the source: `file` or `redis`.
    pub source_kind: &'static str,
    /// Sends an action to the supervisor, which sends back its result.
    pub order: Box<dyn Fn(Action, Sender<ActionResult>) + Send + Sync>,
}

/// The service: its data, and its state between requests.
struct Service {
    sources: Sources,
    state: State,
}

impl Deref for Service {
    type Target = Sources;

    fn deref(&self) -> &Sources {
        &self.sources
    }
}

/// Starts the threads of the service. They end when the last sender is dropped.
pub fn start(sources: Sources) -> io::Result<ServiceSender> {
    let service = Arc::new(Service { sources, state: State::default() });
    let lane_of = |name: &str, threads: usize, serve: fn(&Receiver<ServiceCall>, &Service)| {
        let (sender, calls) = crossbeam_channel::bounded(MAX_WAITING);
        for _ in 0..threads {
            let (calls, service) = (calls.clone(), Arc::clone(&service));
            let work = move || {
                patience::step_back();
                serve(&calls, &service);
            };
            thread::Builder::new().name(name.into()).spawn(work)?;
        }
        io::Result::Ok(sender)
    };
    let lane = |name: &str, threads: usize| lane_of(name, threads, router::serve);
    let receipts = lane("admin-receipts", receipts::THREADS)?;
    let events = lane_of("admin-events", 1, events::serve)?;
    let (views, metrics, actions) = (lane("admin-views", 1)?, lane("admin-metrics", 1)?, lane("admin-actions", 1)?);
    let lanes = router::Lanes { views, metrics, actions, receipts, events };
    let (sender, calls) = crossbeam_channel::bounded(MAX_WAITING);
    thread::Builder::new().name("admin".into()).spawn(move || router::dispatch(&calls, &lanes, &service))?;
    Ok(sender)
}

/// A response of the service.
struct Response {
    status: u16,
    content_type: &'static str,
    /// Further header lines, each with its CRLF.
    fields: String,
    body: Body,
}

enum Body {
    Own(Vec<u8>),
    /// A body shared with other responses.
    Shared(ServiceBody),
}

impl Response {
    fn new(status: u16, content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self { status, content_type, fields: String::new(), body: Body::Own(body.into()) }
    }

    fn shared(content_type: &'static str, body: ServiceBody) -> Self {
        Self { status: 200, content_type, fields: String::new(), body: Body::Shared(body) }
    }

    fn text(status: u16, body: &str) -> Self {
        Self::new(status, "text/plain; charset=utf-8", body)
    }

    fn json(value: &serde_json::Value) -> Self {
        Self::new(200, "application/json", format!("{value}\n"))
    }

    /// An error in JSON, for tools.
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
