//! The event stream (`/v1/events`) of dashboards: the state of the node, a page of its clusters, and the open ones of
//! them.
//!
//! The data is gathered once a second for all streams together, and not without a stream. Streams with the same query
//! share one text. A client that has not accepted the previous text misses the next ones, and is closed at
//! `server.bodyTimeout`.

use super::marks::MarkIndex;
use super::patience::cpu_time;
use super::query::Query;
use super::reply::{busy, finished, send_response, split};
use super::{Response, Service, frontends, status, views};
use crate::base::clock::Moment;
use crate::exchange::ServiceBody;
use crate::worker::{PartSender, ServiceCall};
use crossbeam_channel::{Receiver, RecvTimeoutError};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// The path of the stream.
pub(super) const PATH: &str = "/v1/events";

/// The interval of gathering.
const PERIOD: Duration = Duration::from_secs(1);

/// The pause after a slow gathering, as a multiple of its CPU time: gathering uses at most a tenth of a core.
const REST: u32 = 9;

/// The longest of these pauses.
const MAX_REST: Duration = Duration::from_secs(10);

/// The source of routes and the certificates are sent with every gathering of this number.
const SOURCE_TURNS: u64 = 10;

/// The greatest number of streams; further ones are refused, and their clients use the views.
const MAX_STREAMS: usize = 32;

/// The greatest number of open clusters of a stream.
const MAX_OPEN: usize = 20;

/// The wait without a stream.
const LONG: Duration = Duration::from_secs(3600);

/// A stream of one client.
struct Stream {
    /// The query, which is the same for streams that share a text.
    asked: String,
    parts: PartSender,
    is_new: bool,
}

/// All streams.
#[derive(Default)]
struct Streams {
    list: Vec<Stream>,
    /// The time of the next gathering.
    next: Moment,
    turns: u64,
}

/// Serves the streams, on a thread of its own.
pub(super) fn serve(calls: &Receiver<ServiceCall>, service: &Service) {
    let mut streams = Streams::default();
    loop {
        let wait = if streams.list.is_empty() { LONG } else { streams.next.since(service.clock.now()) };
        match calls.recv_timeout(wait) {
            Ok(call) => streams.begin(call, service),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let started = service.clock.now();
        if streams.next > started || !calls.is_empty() {
            continue;
        }
        let worked = cpu_time();
        // Dropped streams end, and their clients reconnect.
        if catch_unwind(AssertUnwindSafe(|| streams.gather(service))).is_err() {
            streams.list.clear();
        }
        service.state.set_streams(streams.list.len());
        let rest = cpu_time().saturating_sub(worked) * REST;
        streams.next = (started + PERIOD).max(service.clock.now() + rest.min(MAX_REST));
    }
}

impl Streams {
    /// Begins a stream, or refuses it with a reason.
    fn begin(&mut self, call: ServiceCall, service: &Service) {
        self.list.retain(|stream| stream.parts.is_open());
        let (_, asked) = split(&call.request.target);
        let asked = asked.to_owned();
        let refusal = match self.list.len() < MAX_STREAMS {
            true => check(&Query::parse(&asked), service).err(),
            false => Some(busy()),
        };
        if let Some(refusal) = refusal {
            return send_response(call, refusal, service);
        }
        // Proxies must not buffer events.
        let head = Response::new(200, "text/event-stream", "retry: 2000\n\n").with_field("X-Accel-Buffering: no");
        let parts = call.begin_stream(finished(head, service));
        self.list.push(Stream { asked, parts, is_new: true });
        service.state.set_streams(self.list.len());
    }

    /// Gathers the data of all streams, and sends it.
    fn gather(&mut self, service: &Service) {
        self.list.retain(|stream| stream.parts.is_open());
        if self.list.is_empty() {
            return;
        }
        service.state.count_gathering();
        let is_turn_of_source = self.turns.is_multiple_of(SOURCE_TURNS);
        self.turns += 1;
        let status = event("status", &status::status(service));
        let clusters = service.directory.clusters();
        let mut index = MarkIndex::new(service, service.clock.now());
        let mut bodies: HashMap<(&str, bool), ServiceBody> = HashMap::new();
        for Stream { asked, parts, is_new } in &self.list {
            let has_source = *is_new || is_turn_of_source;
            let body = bodies.entry((asked, has_source)).or_insert_with(|| {
                let query = Query::parse(asked);
                let mut text = status.clone();
                if let Ok(list) = frontends::list(&query, &clusters, &mut index, service) {
                    text += &event("frontends", &list);
                }
                for key in query.all("open") {
                    let view = frontends::live(key, &mut index, service);
                    let detail = view.is_none().then(|| frontends::unused(key));
                    text += &event("frontend", &json!({ "asked": key, "view": view, "detail": detail }));
                }
                if has_source {
                    text += &event("source", &source(service));
                }
                service.state.body(text.into_bytes())
            });
            if service.state.has_room_for(0) {
                parts.send(body.clone());
            }
        }
        self.list.iter_mut().for_each(|stream| stream.is_new = false);
    }
}

/// Whether a stream with this query can be served.
fn check(query: &Query, service: &Service) -> Result<(), Response> {
    if query.all("open").count() > MAX_OPEN {
        return Err(Response::problem(400, &format!("open= may name {MAX_OPEN} clusters at most")));
    }
    frontends::list(query, &[], &mut MarkIndex::new(service, service.clock.now()), service).map(drop)
}

/// The source of routes, and the certificates with the first expiry.
fn source(service: &Service) -> Value {
    let certificates = views::certificates(&Query::parse("per_page=5"), service).unwrap_or_default();
    json!({ "redis": views::redis(service), "certificates": certificates })
}

/// An event with one line of data, because JSON escapes line feeds.
fn event(name: &str, data: &Value) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write!(text, "event: {name}\ndata: {data}\n\n");
    text
}
