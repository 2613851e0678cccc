//! Tests of requests and responses in the rules of a file.

use super::*;
use crate::base::clock::Moment;
use crate::cluster::{Backend, BackendId, Cluster, ClusterSpec, Route};
use crate::haproxy::serve::{Configuration, Dice, Evaluation, Outcome, Workspace};
use std::sync::Arc;

const DICE: Dice = Dice { unix_seconds: 0, subsec_millis: 0, random: 7, now: 0 };

/// A served file: frontend `f` with a backend `web` of two servers.
pub(super) struct Served {
    configuration: Arc<Configuration>,
    routes: Vec<Option<Arc<Route>>>,
    pub(super) work: Workspace,
}

impl Served {
    pub(super) fn new(frontend: &str, backend: &str) -> Self {
        Self::of(&format!(
            "frontend f\n mode http\n bind :80\n{frontend}\ndefault_backend web\nbackend web\n mode http\n{backend}\n\
             server a 10.0.0.1:80 cookie sa\n server b 10.0.0.2:80 cookie sb\n"
        ))
    }

    pub(super) fn of(text: &str) -> Self {
        let loaded = read(text);
        let bad: Vec<_> = remarks(&loaded).into_iter().filter(|remark| remark.1 > Treatment::Ignored).collect();
        assert!(bad.is_empty(), "{text}: {bad:#?}");
        let routes: Vec<_> = loaded.plan.clusters.iter().map(|cluster| cluster.as_ref().map(route)).collect();
        let configuration = Arc::new(loaded.plan.configuration.with_routes(routes.clone()));
        Self { configuration, routes, work: Workspace::default() }
    }

    /// The same, whatever is lost or refused.
    fn lossy(rule: &str) -> Self {
        let text = format!(
            "frontend f\n mode http\n bind :80\n{rule}\ndefault_backend web\nbackend web\n mode http\n server a 10.0.0.1:80\n"
        );
        let loaded = read(&text);
        let routes: Vec<_> = loaded.plan.clusters.iter().map(|cluster| cluster.as_ref().map(route)).collect();
        let configuration = Arc::new(loaded.plan.configuration.with_routes(routes.clone()));
        Self { configuration, routes, work: Workspace::default() }
    }

    /// Applies the rules to a request with these lines, and returns the decision.
    pub(super) fn decide(&mut self, line: &str, lines: &str) -> (Box<Evaluation>, Outcome) {
        let mut evaluation = self.work.evaluation(&self.configuration, 0, facts());
        let head = format!("{line} HTTP/1.1\r\nHost: h.example\r\n{lines}\r\n");
        let outcome = evaluation.decide(head.as_bytes(), false, DICE, &mut self.work);
        (evaluation, outcome)
    }

    /// The head of the request after the rules.
    pub(super) fn request(&self) -> String {
        text(self.work.changed_request().unwrap_or_default())
    }

    /// The head of a response by a server.
    pub(super) fn respond(&mut self, evaluation: &mut Evaluation, place: usize) -> String {
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
    let spec = ClusterSpec { created: 0, key: "web", id: "x", entries: backends.collect(), options: &planned.options };
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

/// A common way to allow other origins: the request's header is kept for the response.
#[test]
fn values_of_a_request_are_kept_for_its_response() {
    let rules = "capture request header Origin len 20\ncapture response header X-R len 9\ndeclare capture request len 4\n\
                 http-request capture path len 3\nhttp-request capture query id 1\n\
                 http-request set-header X-New %[capture.req.hdr(2)]\n\
                 http-response set-header Access-Control-Allow-Origin %[capture.req.hdr(0)] if { capture.req.hdr(0) -m found }\n\
                 http-response set-header X %[capture.req.hdr(1)]-%[capture.req.hdr(2)]-%[capture.res.hdr(0)]-%[capture.req.hdr(9)]";
    let mut served = Served::new(rules, "http-request capture str(other) id 2");
    let (mut evaluation, _) =
        served.decide("GET /long?abcdef", "Origin: http://a.example\r\nORIGIN: http://b.example\r\n");
    assert!(served.request().contains("X-New: /lo; "), "{}", served.request());
    let told = served.respond(&mut evaluation, 0);
    let expected = "HTTP/1.1 200 OK; Access-Control-Allow-Origin: http://b.example; X: abcd-oth--; ; ";
    assert_eq!(told, expected);
    let (mut evaluation, _) = served.decide("GET /", "");
    assert_eq!(served.respond(&mut evaluation, 0), "HTTP/1.1 200 OK; X: -oth--; ; ");
}

#[test]
fn a_response_is_filled_in_from_a_file() {
    let mut served = Served::new("http-request return content-type text/plain lf-file page.lf", "");
    let (_, outcome) = served.decide("GET /x", "");
    let reply = served.work.take_reply();
    assert_eq!((outcome, reply.status(), reply.body()), (Outcome::Respond, 200, &b"path is /x\n"[..]));
}

#[test]
fn free_slots_are_those_of_limited_servers() {
    let rules = "http-request return status 200 hdr X %[connslots(web)]";
    for (words, expected) in [("maxconn 3 maxqueue 4", "14"), ("maxconn 3", "-1")] {
        let servers = format!(" server c 10.0.0.3:80 {words}\n server d 10.0.0.4:80 {words}\n");
        let mut served =
            Served::of(&format!("frontend f\n mode http\n bind :80\n{rules}\nbackend web\n mode http\n{servers}"));
        let (_, outcome) = served.decide("GET /", "");
        assert_eq!(outcome, Outcome::Respond);
        assert_eq!(text(served.work.take_reply().fields()), format!("X: {expected}; "), "{words}");
    }
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

/// Variables last as long as their scope: a connection's are there for its next request, those of requests are gone with
/// the response, and names may have dots.
#[test]
fn variables_have_scopes() {
    let rules = "tcp-request connection set-var(sess.first) str(1)\n\
                 http-request set-header X-Before %[var(sess.n.a)]|%[var(sess.first)]|%[var(proc.all)]|%[var(txn.a.b)]\n\
                 http-request set-var(sess.n.a) path if { path /one }\nhttp-request set-var(proc.all) path if { path /one }\n\
                 http-request set-var(txn.a.b) str(t)\nhttp-request set-var(req.r) str(r)\nhttp-request set-var(res.s) str(s)\n\
                 http-response set-header X-After %[var(sess.n.a)]|%[var(txn.a.b)]|%[var(req.r)]|%[var(res.s)]";
    let mut served = Served::of(&format!(
        "global\n set-var proc.all str(start)\nfrontend f\n mode http\n bind :80\n{rules}\n default_backend web\n\
         backend web\n mode http\n server a 10.0.0.1:80\n"
    ));
    let visit = std::sync::Arc::clone(served.configuration.load(0).expect("a frontend").0).enter(None);
    let mut ask = |line: &str, visit: &Option<Arc<crate::haproxy::serve::Visit>>| {
        let facts = Facts { visit: visit.clone(), ..facts() };
        let mut evaluation = served.work.evaluation(&served.configuration, 0, facts);
        evaluation.decide(format!("{line} HTTP/1.1\r\n\r\n").as_bytes(), false, DICE, &mut served.work);
        let before = served.request();
        let after = served.respond(&mut evaluation, 0);
        (before, after)
    };
    let (before, after) = ask("GET /one", &visit);
    assert!(before.contains("X-Before: |1|start|; "), "{before}");
    assert!(after.contains("X-After: /one|t||; "), "{after}");
    let (before, _) = ask("GET /two", &visit);
    assert!(before.contains("X-Before: /one|1|/one|; "), "{before}");
    let other = std::sync::Arc::clone(served.configuration.load(0).expect("a frontend").0).enter(None);
    let mut evaluation = served.work.evaluation(&served.configuration, 0, Facts { visit: other, ..facts() });
    evaluation.decide(b"GET /two HTTP/1.1\r\n\r\n", false, DICE, &mut served.work);
    assert!(served.request().contains("X-Before: |1|/one|; "), "another connection: {}", served.request());
}

/// The old words come after `http-request`, whatever that allows; `reqadd` comes last, `reqallow` only saves from `reqdeny`.
#[test]
fn old_words_have_their_place() {
    let table = [
        ("http-request allow\nreqideny ^X-Bad:", "X-Bad: 1\r\n", Outcome::Deny),
        ("reqideny ^X-Bad:\nreqiallow ^X-Good:", "X-Bad: 1\r\nX-Good: 1\r\n", Outcome::Deny),
        ("reqiallow ^X-Good:\nreqideny ^X-Bad:", "X-Bad: 1\r\nX-Good: 1\r\n", Outcome::Forward),
        ("reqipass ^X-Bad:\nreqideny ^X-Bad:", "X-Bad: 1\r\n", Outcome::Deny),
        ("http-request allow\nblock if { hdr(x-bad) 1 }", "X-Bad: 1\r\n", Outcome::Deny),
        ("reqadd X-Bad:\\ 1\nreqideny ^X-Bad:", "", Outcome::Forward),
    ];
    for (rules, lines, expected) in table {
        let mut served = Served::new(rules, "");
        let (_, outcome) = served.decide("GET /", lines);
        assert_eq!(outcome, expected, "{rules} with {lines:?}");
    }
    let mut served = Served::new("reqiallow ^X-Good:\nreqirep ^X-A:.* X-A:\\ new\nreqadd X-B:\\ 1\nreqidel ^X-C:", "");
    served.decide("GET /", "X-Good: 1\r\nX-A: old\r\nX-C: 1\r\n");
    assert_eq!(served.request(), "GET / HTTP/1.1; Host: h.example; X-Good: 1; X-A: new; X-B: 1; ; ");
}

/// Rules make no other message of a request or a response than the one that was judged when it came.
#[test]
fn rules_make_no_framing() {
    let head = "X-Len: 5\r\n";
    let table = [
        r"reqirep ^X-Len:(.*) Content-Length:\1",
        r"reqirep ^X-Len:(.*) Transfer-Encoding:\ chunked",
        r"reqirep ^X-L(.*):(.*) Content-L\1gth:\2",
        r"reqirep ^X-Len:(.*) X\ Y:\1",
        r"reqirep ^X-Len:(.*) no\ colon",
        r"reqirep ^GET(.*) HEAD\1",
        r"reqirep ^GET(.*) get\1",
        r"reqirep ^GET\ (.*)\ (.*) GET\ x\1\ \2",
        r"reqirep ^GET\ /(.*)\ (.*) GET\ /a\ b\ \2",
        "http-request set-method HEAD",
        "http-request set-method CONNECT",
        "http-request set-method pOST",
        "http-request set-method \"GET / HTTP/1.1\"",
        "http-request set-method %[hdr(none)]",
        "http-request set-uri %[str(x)]",
        "http-request set-path %[str(x)]",
        "http-request set-path %[str(*)]",
    ];
    for rule in table {
        let mut served = Served::lossy(rule);
        served.decide("GET /p", head);
        let request = if served.request().is_empty() { "unchanged".to_owned() } else { served.request() };
        let plain = "GET /p HTTP/1.1; Host: h.example; X-Len: 5; ; ";
        assert!(request == "unchanged" || request == plain, "{rule}: {request}");
    }
    let table = [
        ("http-request set-uri http://other.example/x?y", "/x?y"),
        ("http-request set-path %[str(\"/a b\")]", "/a%20b"),
        ("http-request set-path \"/a\\r\\nX: 1\"", "/a%0D%0AX:%201"),
        ("http-request set-path /a%[str(\"#b\")]", "/a%23b"),
        ("http-request set-path %[str(/é)]", "/%C3%A9"),
        ("http-request set-query a=%[str(\"b c\")]", "/p?a=b%20c"),
        (r"reqirep ^GET\ /p(.*) GET\ /q\1", "/q"),
    ];
    for (rule, target) in table {
        let mut served = Served::new(rule, "");
        served.decide("GET /p", "");
        let line = format!("GET {target} HTTP/1.1; ");
        assert!(served.request().starts_with(&line), "{rule}: {}", served.request());
    }
    let mut served = Served::new("http-request set-header X \"a\\r\\nContent-Length: 5\"", "");
    served.decide("GET /p", "");
    assert!(served.request().contains("X: a  Content-Length: 5; ; "), "{}", served.request());
    let mut served = Served::new(r"rsprep ^HTTP/1.1\ 200(.*) HTTP/1.1\ 204\1", "");
    let (mut evaluation, _) = served.decide("GET /p", "");
    assert!(served.respond(&mut evaluation, 0).starts_with("HTTP/1.1 200 "));
    let mut served = Served::new(r"rsprep ^HTTP/1.1\ 200(.*) HTTP/1.1\ 418\ Teapot", "");
    let (mut evaluation, _) = served.decide("GET /p", "");
    assert!(served.respond(&mut evaluation, 0).starts_with("HTTP/1.1 418 Teapot; "));
}

/// Cookies of servers with the values `sa`, `sb` and none at 1,700,000,000, as HAProxy 2.6's source has them.
#[test]
fn cookies_have_dates_and_modes() {
    const NOW: Dice = Dice { unix_seconds: 1_700_000_000, ..DICE };
    let set = "HTTP/1.1 200 OK\r\nSet-Cookie: SRV=app; path=/app\r\n\r\n";
    let plain = "HTTP/1.1 200 OK\r\n\r\n";
    let ask = |words: &str, cookie: &str, head: &str, place: usize| {
        let mut served = Served::new("", &format!("cookie SRV {words}\nserver c 10.0.0.3:80"));
        let facts = facts();
        let mut evaluation = served.work.evaluation(&served.configuration, 0, facts);
        let request = format!("GET / HTTP/1.1\r\n{cookie}\r\n");
        evaluation.decide(request.as_bytes(), false, NOW, &mut served.work);
        let sent = served.request();
        let wanted = evaluation.wanted();
        evaluation.respond((request.as_bytes(), head.as_bytes()), Some(place), false, NOW, &mut served.work);
        let told = text(served.work.response());
        (
            wanted,
            sent,
            told.split("; ")
                .filter_map(|line| line.strip_prefix("Set-Cookie: "))
                .map(str::to_owned)
                .collect::<Vec<_>>(),
        )
    };
    // The servers are c without a value, a, b.
    let date = |seconds: i64| {
        let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let number = seconds / 4;
        [24, 18, 12, 6, 0]
            .map(|shift| char::from(digits[usize::try_from(number >> shift & 63).expect("six bits")]))
            .iter()
            .collect::<String>()
    };
    let (fresh, old) = (date(NOW.unix_seconds + 3), date(NOW.unix_seconds - 400));
    let cookie = |value: &str| format!("Cookie: SRV={value}\r\n");
    let first = |told: &(Option<usize>, String, Vec<String>)| told.2.first().cloned().unwrap_or_default();
    assert_eq!(first(&ask("insert", "", plain, 1)), "SRV=sa");
    assert_eq!(first(&ask("insert", "", plain, 0)), "SRV=", "a server without a value ends the cookie");
    assert_eq!(first(&ask("insert maxidle 60", "", plain, 1)), format!("SRV=sa|{fresh}"));
    assert_eq!(first(&ask("insert maxidle 60 maxlife 1h", "", plain, 1)), format!("SRV=sa|{fresh}|{fresh}"));
    let told = ask("insert maxidle 60", &cookie(&format!("sa|{old}")), plain, 2);
    assert_eq!((told.0, first(&told)), (None, format!("SRV=sb|{fresh}")), "it was not used for too long");
    let told = ask("insert maxidle 1h", &cookie(&format!("sa|{old}")), plain, 1);
    assert_eq!((told.0, first(&told)), (Some(1), format!("SRV=sa|{fresh}")), "its date is set anew");
    let told = ask("insert maxidle 1h maxlife 2h", &cookie(&format!("sa|{old}|{old}")), plain, 1);
    assert_eq!((told.0, first(&told)), (Some(1), format!("SRV=sa|{fresh}|{old}")), "its first date stays");
    let told = ask("insert maxlife 60", &cookie(&format!("sa|{old}|{old}")), plain, 1);
    assert_eq!(told.0, None, "it has lived too long");
    let told = ask("insert", &cookie(&format!("sa|{old}")), plain, 1);
    assert_eq!((told.0, first(&told)), (Some(1), "SRV=sa".to_owned()), "a date that is not asked for goes");
    assert_eq!(ask("insert postonly", "", plain, 1).2, [""; 0]);
    // What the server itself says.
    assert_eq!(ask("insert", "", set, 1).2, ["SRV=sa"]);
    assert_eq!(ask("insert preserve", "", set, 1).2, ["SRV=app"]);
    assert_eq!(ask("rewrite", "", set, 1).2, ["SRV=sa"]);
    assert_eq!(ask("rewrite", "", plain, 1).2, [""; 0]);
    assert_eq!(ask("rewrite", "", set, 0).2, ["SRV=app"], "a server without a value");
    assert_eq!(ask("prefix", "", set, 2).2, ["SRV=sb~app"]);
    assert_eq!(ask("", "", set, 1).2, ["SRV=app"]);
    let told = ask("prefix", &cookie("sb~app; x=1"), plain, 2);
    assert_eq!((told.0, told.2.len()), (Some(2), 0));
    assert!(told.1.contains("Cookie: SRV=app; x=1; "), "{}", told.1);
    let told = ask("prefix", &cookie("app"), plain, 2);
    assert_eq!((told.0, told.1.as_str()), (None, ""), "it is not sluice's");
    assert_eq!(ask("", &cookie("sa"), plain, 1).0, Some(1));
    assert_eq!(ask("insert indirect", &cookie("sa"), set, 1).2, [""; 0], "the server's own is taken away");
}
