//! The stream of events that keeps dashboards live.

use super::Admin;
use crate::support::backend::Backend;
use crate::support::client::connect;
use crate::support::proxy::Setup;
use crate::support::{HOST, canned, until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

/// A client that watches.
struct Watcher(BufReader<TcpStream>);

impl Watcher {
    #[track_caller]
    fn begin(admin: &Admin, query: &str) -> Self {
        let mut stream = connect(admin.address(), None);
        write!(stream, "GET /v1/events?{query} HTTP/1.1\r\nHost: {}\r\n\r\n", admin.host()).expect("the proxy listens");
        let mut watcher = Self(BufReader::new(stream));
        let head: String = std::iter::from_fn(|| watcher.line()).take_while(|line| !line.is_empty()).collect();
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("Content-Type: text/event-stream"), "{head}");
        assert!(!head.contains("Content-Length") && head.contains("Cache-Control: no-store"), "{head}");
        watcher
    }

    /// The next line without its end; `None` where the stream has ended.
    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let count = self.0.read_line(&mut line).expect("a line in time");
        (count > 0).then(|| line.trim_end().to_owned())
    }

    /// The next event of this name; `None` where the stream has ended.
    #[track_caller]
    fn try_next(&mut self, name: &str) -> Option<Value> {
        while self.line()? != format!("event: {name}") {}
        let line = self.line()?;
        let data = line.strip_prefix("data: ").unwrap_or_else(|| panic!("no data: {line}"));
        Some(serde_json::from_str(data).expect("JSON"))
    }

    #[track_caller]
    fn next(&mut self, name: &str) -> Value {
        self.try_next(name).unwrap_or_else(|| panic!("the stream has ended before an event {name}"))
    }
}

/// A value of the metrics.
#[track_caller]
fn metric(admin: &Admin, name: &str) -> u64 {
    let text = admin.get("/metrics").text();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in\n{text}"))
}

#[test]
fn all_who_watch_share_one_gathering_and_without_them_there_is_none() {
    let backend = Backend::always(canned::ok("ok"));
    let admin = Admin::start(Setup::for_backends([backend.url()]).route("other.test", [backend.url()]));
    let mut client = admin.proxy.client();
    client.get(HOST, "/").expect_ok("ok");
    client.get("other.test", "/").expect_ok("ok");
    assert_eq!(metric(&admin, "sluice_admin_event_gatherings_total"), 0);
    let mut watchers: Vec<Watcher> = (0..4).map(|_| Watcher::begin(&admin, "per_page=1&sort=requests")).collect();
    watchers.push(Watcher::begin(&admin, &format!("search=other&open={HOST}&open=nowhere.test")));
    let sum: usize = (0..3).map(|_| watchers.iter_mut().map(|watcher| watcher.next("status")).count()).sum();
    let gatherings = metric(&admin, "sluice_admin_event_gatherings_total");
    assert!(sum == 15 && gatherings <= 6, "{gatherings} gatherings for {sum} events");
    assert_eq!(metric(&admin, "sluice_admin_event_streams"), 5);
    (0..2).for_each(|_| client.get("other.test", "/").expect_ok("ok"));
    until("requests are told of, the busiest cluster first", || {
        let view = watchers[0].next("frontends");
        view["total"] == 2 && view["frontends"][0]["key"] == "other.test" && view["frontends"][0]["requests"] == 3
    });
    let selected = watchers[4].next("frontends");
    assert_eq!((selected["total"].as_u64(), &selected["frontends"][0]["key"]), (Some(1), &json!("other.test")));
    let opened = watchers[4].next("frontend");
    assert_eq!((&opened["asked"], &opened["view"]["backends"][0]["url"]), (&json!(HOST), &json!(backend.url())));
    let unused = watchers[4].next("frontend");
    assert!(unused["view"].is_null() && unused["detail"].as_str().is_some_and(|detail| detail.contains("not in use")));
    let mut new = Watcher::begin(&admin, "");
    assert_eq!(new.next("source")["redis"]["kind"], "file", "it is told at the beginning");
    drop((watchers, new));
    until("the service learns that they have left", || metric(&admin, "sluice_admin_event_streams") == 0);
    let before = metric(&admin, "sluice_admin_event_gatherings_total");
    Watcher::begin(&admin, "").next("status");
    let after = metric(&admin, "sluice_admin_event_gatherings_total");
    assert!(after - before <= 2, "{before} before, {after} after: nothing was gathered meanwhile");
}

#[test]
fn a_query_that_cannot_be_served_is_refused_and_so_are_too_many() {
    let admin = Admin::start(Setup::new());
    for query in ["page=x", "sort=beauty", &"open=a&".repeat(21)] {
        assert_eq!(admin.get(&format!("/v1/events?{query}")).status(), 400, "{query}");
    }
    let refused = admin.client().exchange(canned::post(&admin.host(), "/v1/events", ""));
    assert_eq!((refused.status(), refused.head.get("Allow")), (405, Some("GET, HEAD")));
    let head = admin.client().exchange(format!("HEAD /v1/events HTTP/1.1\r\nHost: {}\r\n\r\n", admin.host()));
    assert_eq!((head.status(), head.head.get("Content-Type")), (200, Some("text/event-stream")));
    let watchers: Vec<Watcher> = (0..32).map(|_| Watcher::begin(&admin, "")).collect();
    let refused = admin.get("/v1/events");
    assert_eq!((refused.status(), refused.head.get("Retry-After")), (503, Some("1")));
    admin.get("/readyz").expect_ok("ready\n");
    drop(watchers);
    until("others may watch", || metric(&admin, "sluice_admin_event_streams") == 0);
    Watcher::begin(&admin, "").next("status");
}

#[test]
fn a_stream_keeps_no_worker_and_no_process_from_ending() {
    let mut admin = Admin::start(Setup::new().set("drainTimeout", 600).workers(1));
    let mut watcher = Watcher::begin(&admin, "");
    watcher.next("status");
    let drained = admin.client().exchange(canned::post(&admin.host(), "/v1/workers/0/drain", ""));
    assert_eq!(drained.status(), 202, "{}", drained.text());
    while watcher.try_next("status").is_some() {}
    let mut watcher = Watcher::begin(&admin, "");
    watcher.next("status");
    until("the worker has been replaced", || admin.json("/v1/status")["workers"].as_array().map(Vec::len) == Some(1));
    admin.proxy.signal(Signal::SIGTERM);
    while watcher.try_next("status").is_some() {}
    assert!(admin.proxy.until_exit().success());
}
