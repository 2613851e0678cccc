//! The access log.

use crate::support::backend::Backend;
use crate::support::proxy::Setup;
use crate::support::{Gate, HOST, canned, skipped, until};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::process::Command;
use std::sync::Arc;

/// The parts of a line: `ip - - [time] "request" status bytes "referer" "agent" "vhost" total backend`.
#[derive(Debug)]
struct Line {
    ip: String,
    time: String,
    request: String,
    status: String,
    bytes: u64,
    referer: String,
    agent: String,
    vhost: String,
    total: String,
    backend: String,
}

impl Line {
    #[track_caller]
    fn parse(line: &str) -> Self {
        Self::try_parse(line).unwrap_or_else(|| panic!("not a line of the access log: {line}"))
    }

    fn try_parse(line: &str) -> Option<Self> {
        let (ip, rest) = line.split_once(" - - [")?;
        let (time, rest) = rest.split_once("] \"")?;
        let (request, rest) = rest.split_once("\" ")?;
        let (status, rest) = rest.split_once(' ')?;
        let (bytes, rest) = rest.split_once(" \"")?;
        let (referer, rest) = rest.split_once("\" \"")?;
        let (agent, rest) = rest.split_once("\" \"")?;
        let (vhost, rest) = rest.split_once("\" ")?;
        let (total, backend) = rest.split_once(' ')?;
        let [ip, time, request, status, referer, agent, vhost, total, backend] =
            [ip, time, request, status, referer, agent, vhost, total, backend].map(str::to_owned);
        Some(Self { ip, time, request, status, bytes: bytes.parse().ok()?, referer, agent, vhost, total, backend })
    }
}

/// Whether the text has the shape: `9` stands for a digit, `a` for a letter, `+` for a sign, all else for itself.
fn has_shape(text: &str, shape: &str) -> bool {
    text.len() == shape.len()
        && text.bytes().zip(shape.bytes()).all(|(byte, shape)| match shape {
            b'9' => byte.is_ascii_digit(),
            b'a' => byte.is_ascii_alphabetic(),
            b'+' => byte == b'+' || byte == b'-',
            other => byte == other,
        })
}

#[track_caller]
fn expect_seconds(text: &str) {
    let digits = text.len().saturating_sub(4);
    assert!(digits > 0 && has_shape(text, &format!("{}.999", "9".repeat(digits))), "no seconds: {text:?}");
}

#[test]
fn a_request_is_a_line() {
    let backend = Backend::always(canned::ok("hello"));
    let proxy = Setup::for_backends([backend.url()]).with_access_log().start();
    let source: IpAddr = "127.77.0.1".parse().expect("an address");
    let mut client = proxy.client_from(source);
    let request = format!(
        "GET /x?y=\"z\" HTTP/1.1\r\nHost: {HOST}\r\nReferer: http://a.test/\r\nUser-Agent: quoted \"agent\"/1\r\n\r\n"
    );
    client.exchange(request.replace('"', "'")).expect_ok("hello");
    let line = Line::parse(&proxy.log_lines("access.log", 1)[0]);
    assert_eq!(line.ip, "127.77.0.1", "{line:?}");
    assert!(has_shape(&line.time, "99/aaa/9999:99:99:99 +9999"), "{line:?}");
    assert_eq!(line.request, "GET /x?y='z' HTTP/1.1", "{line:?}");
    assert_eq!(line.status, "200", "{line:?}");
    assert!(line.bytes >= 5, "{line:?}");
    assert_eq!(line.referer, "http://a.test/", "{line:?}");
    assert_eq!(line.agent, "quoted 'agent'/1", "{line:?}");
    assert_eq!(line.vhost, format!("site of {HOST}"), "{line:?}");
    expect_seconds(&line.total);
    expect_seconds(&line.backend);
}

/// What the log wants of a tunnel's request is kept apart from the rest of its head, which an idle tunnel lets go.
#[test]
fn a_tunnel_is_a_line_when_it_ends() {
    let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: lines\r\n\r\n";
    let backend = Backend::serve(move |_, conn| {
        conn.send(switch);
        conn.finish();
    });
    let proxy = Setup::for_backends([backend.url()]).with_access_log().start();
    let mut client = proxy.client();
    client.send(format!(
        "GET /tunnel HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: lines\r\nX-Other: dropped\r\n\
         Referer: http://a.test/\r\nUser-Agent: agent/1\r\n\r\n"
    ));
    client.bytes(switch.len());
    client.finish_writing();
    let line = Line::parse(&proxy.log_lines("access.log", 1)[0]);
    assert_eq!(line.request, "GET /tunnel HTTP/1.1", "{line:?}");
    assert_eq!(line.status, "101", "{line:?}");
    assert_eq!((&*line.referer, &*line.agent), ("http://a.test/", "agent/1"), "{line:?}");
    assert_eq!(line.vhost, format!("site of {HOST}"), "{line:?}");
}

#[test]
fn a_request_cannot_forge_a_line() {
    let backend = Backend::always(canned::ok("ok"));
    let proxy = Setup::for_backends([backend.url()]).with_access_log().start();
    let request = format!("GET /a\"b HTTP/1.1\r\nHost: {HOST}\r\nUser-Agent: x\" \"y\\\tz\r\n\r\n");
    proxy.client().exchange(request);
    let lines = proxy.log_lines("access.log", 1);
    assert_eq!(lines.len(), 1);
    assert!(!lines[0].contains("x\" \"y"), "quotes must be escaped: {}", lines[0]);
}

#[test]
fn failures_are_logged_with_their_status() {
    let proxy = Setup::new().with_access_log().start();
    assert_eq!(proxy.client().get("nobody.test", "/lost").status(), 400);
    let line = Line::parse(&proxy.log_lines("access.log", 1)[0]);
    assert_eq!((line.request.as_str(), line.status.as_str()), ("GET /lost HTTP/1.1", "400"), "{line:?}");
    // A head that is refused as a whole tells what was asked for all the same.
    proxy.client().exchange("POST /odd HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n");
    let line = Line::parse(&proxy.log_lines("access.log", 2)[1]);
    assert_eq!((line.request.as_str(), line.status.as_str()), ("POST /odd HTTP/1.1", "400"), "{line:?}");
}

#[test]
fn every_request_of_a_connection_has_its_line_in_order() {
    let backend = Backend::always(canned::ok("ok"));
    let proxy = Setup::for_backends([backend.url()]).with_access_log().start();
    let mut client = proxy.client();
    client.send((0..50).map(|turn| canned::get(HOST, &format!("/{turn}"))).collect::<String>());
    (0..50).for_each(|_| client.response_to("GET").expect_ok("ok"));
    for (turn, line) in proxy.log_lines("access.log", 50).iter().enumerate() {
        assert_eq!(Line::parse(line).request, format!("GET /{turn} HTTP/1.1"));
    }
}

#[test]
fn a_client_that_leaves_is_logged() {
    let gate = Arc::new(Gate::default());
    let inner = Arc::clone(&gate);
    let backend = Backend::serve(move |_, _| inner.pass());
    let proxy = Setup::for_backends([backend.url()]).with_access_log().start();
    let mut client = proxy.client();
    client.send(canned::get(HOST, "/left"));
    backend.until_heads(1);
    client.abort();
    let line = Line::parse(&proxy.log_lines("access.log", 1)[0]);
    assert_eq!((line.request.as_str(), line.status.as_str()), ("GET /left HTTP/1.1", "499"), "{line:?}");
    gate.open();
}

#[test]
fn sigusr1_opens_the_log_again() {
    let backend = Backend::always(canned::ok("ok"));
    let proxy = Setup::for_backends([backend.url()]).with_access_log().start();
    let mut client = proxy.client();
    client.get(HOST, "/before").expect_ok("ok");
    proxy.log_lines("access.log", 1);
    fs::rename(proxy.path("access.log"), proxy.path("access.log.1")).expect("moving the log away");
    proxy.signal(Signal::SIGUSR1);
    until("the log is made anew", || proxy.path("access.log").exists());
    client.get(HOST, "/after").expect_ok("ok");
    let line = Line::parse(&proxy.log_lines("access.log", 1)[0]);
    assert_eq!(line.request, "GET /after HTTP/1.1");
    assert_eq!(proxy.log_lines("access.log.1", 1).len(), 1);
}

#[test]
fn a_dash_is_standard_output() {
    let backend = Backend::always(canned::ok("ok"));
    let proxy = Setup::for_backends([backend.url()]).set("accessLog", "-").start();
    proxy.client().get(HOST, "/shown").expect_ok("ok");
    until("the line is shown", || proxy.read("stdout").contains("\"GET /shown HTTP/1.1\" 200 "));
}

#[test]
fn what_was_logged_is_on_disk_when_the_proxy_ends() {
    let backend = Backend::always(canned::ok("ok"));
    let mut proxy = Setup::for_backends([backend.url()]).with_access_log().start();
    let mut client = proxy.client();
    (0..100).for_each(|_| client.get(HOST, "/").expect_ok("ok"));
    proxy.signal(Signal::SIGTERM);
    proxy.until_exit();
    assert_eq!(proxy.read("access.log").lines().count(), 100);
}

/// A limit of the process is a disk that is full: a signal would end a process that does not expect it.
#[test]
fn a_log_that_reaches_a_limit_costs_lines_and_nothing_else() {
    let backend = Backend::always(canned::ok("ok"));
    let mut proxy = Setup::for_backends([backend.url()]).with_access_log().start();
    let limit = |bytes: &str| {
        let (pid, bytes) = (proxy.pid().to_string(), format!("--fsize={bytes}:"));
        Command::new("prlimit").args(["--pid", &pid, &bytes]).status()
    };
    let mut client = proxy.client();
    // More than what it writes elsewhere.
    (0..100).for_each(|_| client.get(HOST, "/before").expect_ok("ok"));
    let before = proxy.log_lines("access.log", 100).iter().map(|line| line.len() + 1).sum::<usize>();
    match limit(&(before + 10).to_string()) {
        Ok(status) => assert!(status.success(), "prlimit failed"),
        Err(error) => return skipped(&format!("prlimit cannot be run: {error}")),
    }
    client.get(HOST, "/lost").expect_ok("ok");
    until("the loss is told", || proxy.stderr().contains("1 lines could not be written"));
    assert_eq!(proxy.read("access.log").len(), before + 10, "a part of the line");
    assert!(limit("unlimited").is_ok_and(|status| status.success()), "prlimit failed");
    client.get(HOST, "/after").expect_ok("ok");
    let lines = proxy.log_lines("access.log", 102);
    assert!(Line::try_parse(&lines[100]).is_none(), "a part of a line: {}", lines[100]);
    assert_eq!(Line::parse(&lines[101]).request, "GET /after HTTP/1.1");
    proxy.signal(Signal::SIGTERM);
    assert!(proxy.until_exit().success());
    assert!(proxy.stderr().contains("lost_log_lines 1"), "{}", proxy.stderr());
}

/// Nobody reads the FIFO until the proxy has served.
#[test]
fn a_fifo_without_a_reader_keeps_nobody_from_the_start() {
    let backend = Backend::always(canned::ok("ok"));
    let setup = Setup::for_backends([backend.url()]).with_access_log();
    let path = setup.dir().join("access.log");
    mkfifo(&path, Mode::S_IRWXU).expect("a FIFO");
    let proxy = setup.start();
    proxy.client().get(HOST, "/unread").expect_ok("ok");
    let mut line = String::new();
    BufReader::new(File::open(&path).expect("the FIFO")).read_line(&mut line).expect("a line");
    assert_eq!(Line::parse(line.trim_end()).request, "GET /unread HTTP/1.1");
}

/// The program's own log goes to a pipe that is full.
#[test]
fn a_log_that_nobody_reads_holds_nobody_up() {
    let backend = Backend::always(canned::ok("ok"));
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let setup = Setup::for_backends([backend.url()]).set("debug", true).stderr(writer);
    let proxy = setup.start();
    let mut client = proxy.client();
    // Each is a line, and a pipe has room for 64 KiB.
    let unknown = format!("{}.example.com", "x".repeat(60));
    for _ in 0..1000 {
        assert_eq!(client.get(&unknown, "/").status(), 400);
    }
    client.get(HOST, "/").expect_ok("ok");
    drop(reader);
    client.get(HOST, "/").expect_ok("ok");
}

#[test]
fn behind_a_trusted_proxy_the_log_shows_the_client() {
    let backend = Backend::always(canned::ok("ok"));
    let setup = Setup::for_backends([backend.url()]).with_access_log().set("trustedNetworks", "127.0.0.0/24");
    let proxy = setup.start();
    let stranger = IpAddr::from([127, 9, 9, 9]);
    let chain = "X-Forwarded-For: 6.6.6.6, 192.0.2.1\r\nX-Forwarded-For: 127.0.0.9\r\n";
    let request = |fields: &str| format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n");
    let trusted = IpAddr::from([127, 0, 0, 1]);
    let rows = [(trusted, chain, "192.0.2.1"), (trusted, "", "127.0.0.1"), (stranger, chain, "127.9.9.9")];
    for (number, (source, fields, expected)) in rows.into_iter().enumerate() {
        assert_eq!(proxy.client_from(source).exchange(request(fields)).status(), 200);
        let lines = proxy.log_lines("access.log", number + 1);
        let ips: Vec<_> = lines.iter().map(|line| Line::parse(line).ip).collect();
        assert!(ips.iter().any(|ip| ip == expected), "{expected} in {lines:?}");
    }
}

#[test]
fn failed_requests_are_logged_once_a_backend_and_reason() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent = (format!("http://{}", silent.local_addr().expect("an address")), silent);
    let refusing = format!("http://{}", crate::support::unused_address());
    let unreadable = Backend::always("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX Y: 1\r\n\r\nok");
    let cut = Backend::raw(|conn| {
        if conn.request().is_some() {
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok");
        }
    });
    let setup = Setup::new().route("silent.test", [silent.0.clone()]).route("refused.test", [refusing.clone()]);
    let setup = setup.route("unreadable.test", [unreadable.url()]).route("cut.test", [cut.url()]);
    let proxy = setup.set("responseTimeout", 0.1).set("retryOnError", 0).set("deadBackendTTL", 0.001).start();
    for _ in 0..3 {
        assert_eq!(proxy.client().get("silent.test", "/").status(), 504);
        assert_eq!(proxy.client().get("refused.test", "/").status(), 502);
        assert_eq!(proxy.client().get("unreadable.test", "/").status(), 502);
        let mut client = proxy.client();
        client.send(canned::get("cut.test", "/"));
        assert_eq!((client.head().status(), client.rest().0), (200, b"ok".to_vec()));
    }
    assert_eq!(proxy.client().get("unknown.test", "/").status(), 400);
    let expected = [
        format!(
            "silent.test: a request failed at backend {}: response_timeout (504, ended by server.responseTimeout (100ms))",
            silent.0
        ),
        format!("refused.test: a request failed at backend {refusing}: connect_failed (502)"),
        format!(
            "unreadable.test: a request failed at backend {}: upstream_malformed (502, byte 37 of the response: a byte that \
             no name of a field may have)",
            unreadable.url()
        ),
        format!("cut.test: a request failed at backend {}: upstream_truncated (response cut)", cut.url()),
    ];
    for line in &expected {
        until("the failure is logged", || proxy.stderr().contains(line));
    }
    assert_eq!(proxy.stderr().matches("a request failed").count(), 4, "{}", proxy.stderr());
}

/// The first line of the access log in this format, of a request that was answered and of one that failed.
fn lines_in(format: &str) -> (String, String) {
    let backend = Backend::always(canned::ok("hello"));
    let setup = Setup::for_backends([backend.url()]).with_access_log().set("accessLogFormat", format);
    let proxy = setup.start();
    let mut client = proxy.client();
    let fields = "Referer: http://a.test/\r\nUser-Agent: a \"quoted\" agent\r\n";
    client.exchange(format!("GET /x?y=1 HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n")).expect_ok("hello");
    assert_eq!(client.get("unknown.test", "/").status(), 400);
    let lines = proxy.log_lines("access.log", 2);
    (lines[0].clone(), lines[1].clone())
}

#[test]
fn the_combined_format_is_that_of_other_servers() {
    let (line, _) = lines_in("combined");
    let (start, rest) = line.split_once("] \"").expect("a line");
    assert!(start.starts_with("127.0.0.1 - - ["), "{line}");
    let rest = rest.strip_prefix("GET /x?y=1 HTTP/1.1\" 200 ").expect("the request and its status");
    assert!(rest.ends_with(" \"http://a.test/\" \"a \\x22quoted\\x22 agent\""), "{line}");
}

#[test]
fn a_line_of_json_is_an_object() {
    let (good, bad) = lines_in("json");
    let parse =
        |line: &str| -> serde_json::Value { serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")) };
    let (good, bad) = (parse(&good), parse(&bad));
    assert_eq!((&good["host"], &good["target"], &good["status"]), (&HOST.into(), &"/x?y=1".into(), &200.into()));
    assert_eq!(good["user_agent"], "a \"quoted\" agent");
    assert!(good["backend"].as_str().is_some_and(|url| url.starts_with("http://127.")), "{good}");
    for phase in ["total", "backend_time", "connect", "first_byte"] {
        assert!(good[phase].as_f64().is_some_and(|seconds| (0.0..10.0).contains(&seconds)), "{phase}: {good}");
    }
    assert!(good["reason"].is_null() && good["queue"].is_null(), "{good}");
    assert_eq!((&bad["reason"], &bad["status"]), (&"unknown_host".into(), &400.into()));
    assert!(bad["backend"].is_null(), "{bad}");
}

#[test]
fn a_template_has_its_fields_where_they_were_written() {
    let (good, bad) = lines_in("$status|${method} $host$target|$pattern|$reason|$tls");
    assert_eq!(good, format!("200|GET {HOST}/x?y=1|{HOST}|-|0"));
    assert_eq!(bad, "400|GET unknown.test/|-|unknown_host|0");
}

#[test]
fn a_template_with_an_unknown_field_is_refused_and_the_fields_are_named() {
    let (is_good, said) = Setup::new().set("accessLogFormat", "$stauts").dry();
    assert!(!is_good && said.contains("server.accessLogFormat: ") && said.contains("$status"), "{said}");
}

#[test]
fn a_request_has_an_identifier_that_is_trusted_or_made() {
    let backend = Backend::always(canned::ok("hello"));
    let id_of = |setup: Setup| {
        let proxy = setup.with_access_log().set("accessLogFormat", "$request_id").set("requestId", true).start();
        let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX-Request-Id: from-outside\r\n\r\n");
        proxy.client().exchange(request).expect_ok("hello");
        let requests = backend.requests();
        let sent = requests.last().expect("a request").head.all("X-Request-Id").join(", ");
        assert_eq!(proxy.log_lines("access.log", 1)[0], sent);
        sent
    };
    let setup = || Setup::for_backends([backend.url()]);
    assert_eq!(id_of(setup().set("trustedNetworks", vec!["127.0.0.0/8"])), "from-outside");
    let ids = [id_of(setup()), id_of(setup())];
    assert!(ids.iter().all(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())), "{ids:?}");
    assert_ne!(ids[0], ids[1]);
}
