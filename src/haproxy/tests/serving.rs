//! Tests of requests and responses in the rules of a file.

use super::*;
use crate::base::clock::Moment;
use crate::cluster::{Backend, BackendId, Cluster, ClusterSpec, Route};
use crate::haproxy::serve::{Configuration, Dice, Evaluation, Outcome, Workspace};
use std::sync::Arc;

const DICE: Dice = Dice { unix_seconds: 0, random: 7, now: 0 };

/// A served file: frontend `f` with a backend `web` of two servers.
struct Served {
    configuration: Arc<Configuration>,
    routes: Vec<Option<Arc<Route>>>,
    work: Workspace,
}

impl Served {
    fn new(frontend: &str, backend: &str) -> Self {
        Self::of(&format!(
            "frontend f\n mode http\n bind :80\n{frontend}\ndefault_backend web\nbackend web\n mode http\n{backend}\n\
             server a 10.0.0.1:80 cookie sa\n server b 10.0.0.2:80 cookie sb\n"
        ))
    }

    fn of(text: &str) -> Self {
        let loaded = read(text);
        let bad: Vec<_> = remarks(&loaded).into_iter().filter(|remark| remark.1 > Treatment::Mapped).collect();
        assert!(bad.is_empty(), "{text}: {bad:#?}");
        let routes: Vec<_> = loaded.plan.clusters.iter().map(|cluster| cluster.as_ref().map(route)).collect();
        let configuration = Arc::new(loaded.plan.configuration.with_routes(routes.clone()));
        Self { configuration, routes, work: Workspace::default() }
    }

    /// Applies the rules to a request with these lines, and returns the decision.
    fn decide(&mut self, line: &str, lines: &str) -> (Box<Evaluation>, Outcome) {
        let mut evaluation = self.work.evaluation(&self.configuration, 0, facts());
        let head = format!("{line} HTTP/1.1\r\nHost: h.example\r\n{lines}\r\n");
        let outcome = evaluation.decide(head.as_bytes(), false, DICE, &mut self.work);
        (evaluation, outcome)
    }

    /// The head of the request after the rules.
    fn request(&self) -> String {
        text(self.work.changed_request().unwrap_or_default())
    }

    /// The head of a response by a server.
    fn respond(&mut self, evaluation: &mut Evaluation, place: usize) -> String {
        let heads = (&b"GET / HTTP/1.1\r\n\r\n"[..], &b"HTTP/1.1 200 OK\r\n\r\n"[..]);
        evaluation.respond(heads, Some(place), false, DICE, &mut self.work);
        text(self.work.response())
    }

    fn set_down(&self, proxy: usize, place: usize) {
        let route = self.routes[proxy].as_ref().expect("a route");
        route.cluster.members[place].state.set_down(true, Moment::ZERO);
    }
}

fn route(planned: &crate::haproxy::lower::PlannedCluster) -> Arc<Route> {
    let backends = planned.urls.iter().zip(1..);
    let backends = backends.map(|(url, id)| (url, Arc::new(Backend::new(BackendId::new(id), url.endpoint().clone()))));
    let spec = ClusterSpec { key: "web", id: "x", entries: backends.collect(), options: &planned.options };
    Arc::new(Route::new("web", Cluster::edit(None, spec, Moment::ZERO)))
}

fn text(head: &[u8]) -> String {
    String::from_utf8_lossy(head).replace("\r\n", "; ")
}

#[test]
fn a_failure_shows_nothing_of_another_request() {
    let rules = "http-after-response set-header X-Uri %[capture.req.uri]\nhttp-after-response set-header X-Url %[url]\n\
                 http-after-response set-header X-User %[http_auth_user]\nhttp-after-response set-header X-M %[method]";
    let mut served = Served::new(rules, "");
    let (mut first, _) = served.decide("GET /slow", "");
    let (_second, _) = served.decide("POST /reset?token=SECRET", "Authorization: Basic dXNlcjpwYXNz\r\n");
    first.fail(b"GET /slow HTTP/1.1\r\n\r\n", (504, "It took too long."), DICE, &mut served.work);
    let reply = served.work.take_reply();
    let fields = text(reply.fields());
    assert!(fields.contains("X-Uri: /slow; X-Url: ; X-User: ; X-M: GET; "), "{fields}");
    served.work.put_reply(reply);
    // There was no head.
    let (mut third, _) = served.decide("POST /reset?token=SECRET", "");
    third.fail(b"", (408, "It took too long."), DICE, &mut served.work);
    assert!(text(served.work.take_reply().fields()).contains("X-M: ; "));
}

#[test]
fn the_target_is_captured_as_it_came() {
    let rules = "http-request set-path /new\nhttp-request set-header X-Uri %[capture.req.uri]\n\
                 http-response set-header X-Uri %[capture.req.uri]\nhttp-response set-header X-Url 1 if { url -m found }";
    let mut served = Served::new(rules, "");
    let (mut evaluation, outcome) = served.decide("GET /old?q", "");
    assert_eq!(outcome, Outcome::Forward);
    assert_eq!(served.request(), "GET /new?q HTTP/1.1; Host: h.example; X-Uri: /old?q; ; ");
    assert_eq!(served.respond(&mut evaluation, 0), "HTTP/1.1 200 OK; X-Uri: /old?q; ; ", "it has no url");
}

#[test]
fn a_client_gets_a_new_cookie_after_a_server_failed() {
    for words in ["insert", "insert indirect"] {
        let mut served = Served::new("", &format!("cookie SRV {words}"));
        let (mut evaluation, _) = served.decide("GET /", "Cookie: x=1\r\nCookie: y=2; SRV=sa\r\n");
        assert_eq!(evaluation.wanted(), Some(0));
        assert_eq!(served.respond(&mut evaluation, 0), "HTTP/1.1 200 OK; ; ", "{words}");
        let told = served.respond(&mut evaluation, 1);
        assert_eq!(told, "HTTP/1.1 200 OK; Set-Cookie: SRV=sb; path=/; ; ", "{words}: its server has failed");
    }
}

#[test]
fn an_indirect_cookie_stays_here_whatever_it_says() {
    let mut served = Served::new("", "cookie SRV insert indirect");
    let (evaluation, _) = served.decide("GET /", "Cookie: x=1; SRV=gone\r\n");
    assert_eq!(
        (evaluation.wanted(), served.request().as_str()),
        (None, "GET / HTTP/1.1; Host: h.example; Cookie: x=1; ; ")
    );
}

#[test]
fn a_server_that_is_down_is_passed_over() {
    let lines = "cookie SRV insert\nuse-server a if { path /a }\nuse-server c if { path /a }\n\
                 server c 10.0.0.3:80 cookie sc\n server d 10.0.0.4:80 backup cookie sc";
    let mut served = Served::new("", lines);
    let wanted = |path: &str, lines: &str, served: &mut Served| served.decide(&format!("GET {path}"), lines).0.wanted();
    // The servers of these lines come before the others: c, d, a, b.
    assert_eq!(wanted("/a", "", &mut served), Some(2));
    served.set_down(1, 2);
    assert_eq!(wanted("/a", "", &mut served), Some(0), "the next rule");
    served.set_down(1, 0);
    assert_eq!(wanted("/", "Cookie: SRV=sc\r\n", &mut served), Some(1), "the backup has the cookie of its primary");
}

#[test]
fn a_frontend_that_asks_for_the_clients_address_has_it_added() {
    for (frontend, backend, is_added) in [
        ("option forwardfor", "option forwardfor if-none", true),
        ("option forwardfor if-none", "option forwardfor", true),
        ("option forwardfor if-none", "option forwardfor if-none", false),
        ("", "option forwardfor if-none", false),
    ] {
        let mut served = Served::new(frontend, backend);
        served.decide("GET /", "X-Forwarded-For: 127.0.0.1\r\n");
        let head = served.request();
        assert_eq!(head.contains("X-Forwarded-For: 192.0.2.1; "), is_added, "{frontend}, {backend}: {head}");
    }
}

#[test]
fn connection_rules_precede_the_monitor_response() {
    let mut served = Served::new("monitor-uri /alive\ntcp-request connection reject if { src 192.0.2.0/24 }", "");
    assert_eq!(served.decide("GET /alive", "").1, Outcome::Close);
    let mut served = Served::new("monitor-uri /alive\nhttp-request deny", "");
    assert_eq!(served.decide("GET /alive", "").1, Outcome::Respond);
}
