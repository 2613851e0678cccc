//! The stream of events (`/v1/events`) by which dashboards are live: the state of the node, a page of its clusters, and those
//! of them that are open.
//!
//! What is shown is gathered once a second for all streams together, and not at all while there is none. Streams that ask for
//! the same share one text. A client that does not take its text misses the next ones, and is dropped at
//! `server.bodyTimeout`.

use super::marks::MarkIndex;
use super::query::Query;
use super::reply::{answer, busy, finished, split};
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

/// How often all is gathered.
const PERIOD: Duration = Duration::from_secs(1);

/// A gathering that takes its time is followed by a pause of so many times that: it takes a tenth of a core at most.
const REST: u32 = 9;

/// Every so many gatherings the source of routes and the certificates are told of.
const SOURCE_TURNS: u64 = 10;

/// The greatest number of streams; others are refused, and ask the views instead.
const MAX_STREAMS: usize = 32;

/// Clusters that one stream may have open.
const MAX_OPEN: usize = 20;

/// How long is waited where there is no stream.
const LONG: Duration = Duration::from_secs(3600);

/// One client that watches.
struct Stream {
    /// The query, by which streams that ask for the same are known.
    asked: String,
    parts: PartSender,
    is_new: bool,
}

/// All of them.
#[derive(Default)]
struct Streams {
    list: Vec<Stream>,
    /// When the next gathering is due.
    next: Moment,
    turns: u64,
}

/// Serves the streams: the work of one thread.
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
        // Streams that are dropped end, and their clients ask anew.
        if catch_unwind(AssertUnwindSafe(|| streams.gather(service))).is_err() {
            streams.list.clear();
        }
        service.state.set_streams(streams.list.len());
        let ended = service.clock.now();
        streams.next = (started + PERIOD).max(ended + ended.since(started) * REST);
    }
}

impl Streams {
    /// Begins a stream, or says why not.
    fn begin(&mut self, call: ServiceCall, service: &Service) {
        self.list.retain(|stream| stream.parts.is_open());
        let (_, asked) = split(&call.request.target);
        let asked = asked.to_owned();
        let refusal = match self.list.len() < MAX_STREAMS {
            true => check(&Query::parse(&asked), service).err(),
            false => Some(busy()),
        };
        if let Some(refusal) = refusal {
            return answer(call, refusal, service);
        }
        // A proxy on the way has to pass on each event as it comes.
        let head = Response::new(200, "text/event-stream", "retry: 2000\n\n").with_field("X-Accel-Buffering: no");
        let parts = call.begin_stream(finished(head, service));
        self.list.push(Stream { asked, parts, is_new: true });
        service.state.set_streams(self.list.len());
    }

    /// Gathers what the streams ask for, and sends it.
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
                    let view = frontends::one(key, &mut index, service);
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

/// Where routes come from, and the certificates that end first.
fn source(service: &Service) -> Value {
    let certificates = views::certificates(&Query::parse("per_page=5"), service).unwrap_or_default();
    json!({ "redis": views::redis(service), "certificates": certificates })
}

/// An event of one line of data: JSON has its line feeds escaped.
fn event(name: &str, data: &Value) -> String {
    let mut text = String::new();
    // A text takes all that is written to it.
    let _ = write!(text, "event: {name}\ndata: {data}\n\n");
    text
}
