//! The access log elsewhere than in a file, its further fields, and which requests have a line; and what backends are told
//! of a request's beginning.

use crate::support::backend::Backend;
use crate::support::proxy::Setup;
use crate::support::tls::Authority;
use crate::support::{HOST, PATIENCE, canned, unused_address};
use nix::sys::signal::Signal;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A daemon that takes messages at this path.
fn daemon(path: &Path) -> UnixDatagram {
    let socket = UnixDatagram::bind(path).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket
}

#[track_caller]
fn message(socket: &UnixDatagram) -> String {
    let mut bytes = [0; 4096];
    let count = socket.recv(&mut bytes).expect("a message");
    String::from_utf8_lossy(&bytes[..count]).into_owned()
}

#[test]
fn each_line_is_a_message_of_syslog_and_a_daemon_may_come_back() {
    let backend = Backend::always(canned::ok("ok"));
    let setup = Setup::for_backends([backend.url()]);
    let path = setup.dir().join("log");
    let syslog = daemon(&path);
    let proxy = setup.set("accessLog", format!("syslog:{}", path.display())).start();
    let mut client = proxy.client();
    let start = format!("<30>sluice[{}]: 127.0.0.1 - - [", proxy.pid());
    for target in ["/one", "/two"] {
        client.get(HOST, target).expect_ok("ok");
        let message = message(&syslog);
        let request = format!("\"GET {target} HTTP/1.1\" 200 ");
        assert!(message.starts_with(&start) && message.contains(&request) && !message.ends_with('\n'), "{message}");
    }
    drop(syslog);
    fs::remove_file(&path).expect("the old socket");
    let syslog = daemon(&path);
    client.get(HOST, "/three").expect_ok("ok");
    assert!(message(&syslog).contains("\"GET /three HTTP/1.1\" 200 "));
}

#[test]
fn each_line_is_an_entry_of_the_journal() {
    let backend = Backend::always(canned::ok("ok"));
    let setup = Setup::for_backends([backend.url()]);
    let path = setup.dir().join("journal");
    let journal = daemon(&path);
    let setup = setup.set("accessLog", format!("journald:{}", path.display()));
    let proxy = setup.set("accessLogFormat", "$method $target").start();
    proxy.client().get(HOST, "/one").expect_ok("ok");
    let expected = "PRIORITY=6\nSYSLOG_FACILITY=3\nSYSLOG_IDENTIFIER=sluice\nMESSAGE=GET /one\n";
    assert_eq!(message(&journal), expected);
}

#[test]
fn a_daemon_that_is_not_there_is_named_at_the_start() {
    let (status, said) = Setup::new().set("accessLog", "syslog:/nowhere/log").start_in_vain();
    let expected = "connecting to /nowhere/log for the access log (server.accessLog): No such file";
    assert!(!status.success() && said.contains(expected), "{said}");
}

#[test]
fn of_many_requests_one_has_a_line_and_each_that_failed() {
    let backend = Backend::always(canned::ok("ok"));
    let setup = Setup::for_backends([backend.url()]).route("dead.test", [format!("http://{}", unused_address())]);
    let setup = setup.with_access_log().set("accessLogSample", 1_000_000).set("accessLogFormat", "$host $status");
    let mut proxy = setup.start();
    let mut client = proxy.client();
    (0..20).for_each(|_| client.get(HOST, "/").expect_ok("ok"));
    assert_eq!(client.get("unknown.test", "/").status(), 400);
    assert_eq!(client.get("dead.test", "/").status(), 502);
    proxy.signal(Signal::SIGTERM);
    proxy.until_exit();
    assert_eq!(proxy.read("access.log"), "unknown.test 400\ndead.test 502\n");
}

#[test]
fn a_frontend_may_have_no_lines() {
    let backend = Backend::always(canned::ok("ok"));
    let setup = Setup::for_backends([backend.url()]).route("quiet.test", [backend.url()]);
    let setup = setup.option("quiet.test", "accessLog", "false").with_access_log().set("accessLogFormat", "$host");
    let mut proxy = setup.start();
    let mut client = proxy.client();
    for host in [HOST, "quiet.test", HOST] {
        client.get(host, "/").expect_ok("ok");
    }
    proxy.signal(Signal::SIGTERM);
    proxy.until_exit();
    assert_eq!(proxy.read("access.log"), format!("{HOST}\n").repeat(2));
}

#[test]
fn bytes_of_both_ways_retries_chain_and_encryption_are_fields() {
    let backend = Backend::serve(|_, conn| conn.send(canned::ok("ok")));
    let dead = format!("http://{}", unused_address());
    let authority = Authority::new();
    let setup = Setup::new().route(HOST, [dead, backend.url()]).with_https();
    let setup = setup.default_certificate(&authority.issue(&[HOST])).option(HOST, "scheduler", "chance");
    let format = "$received $bytes $retries $forwarded_for $tls $tls_version $tls_cipher";
    let proxy = setup.with_access_log().set("accessLogFormat", format).set("trustedNetworks", "127.0.0.0/8").start();
    let request =
        format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nX-Forwarded-For: 192.0.2.1\r\nContent-Length: 3\r\n\r\nabc");
    let response = proxy.client().exchange(&request);
    assert_eq!(response.status(), 200);
    let lines = proxy.log_lines("access.log", 1);
    let fields: Vec<&str> = lines[0].split(' ').collect();
    assert_eq!(fields[0], request.len().to_string(), "{lines:?}");
    assert!(fields[1].parse::<usize>().is_ok_and(|bytes| bytes > 20), "{lines:?}");
    // The list is tried in its order.
    assert_eq!(&fields[2..], ["1", "192.0.2.1,", "127.0.0.1", "0", "-", "-"], "{lines:?}");
    authority.trust().client(&proxy, HOST).get(HOST, "/").expect_ok("ok");
    let lines = proxy.log_lines("access.log", 2);
    let fields: Vec<&str> = lines[1].split(' ').collect();
    assert_eq!(&fields[3..6], ["127.0.0.1", "1", "TLSv1.3"], "{lines:?}");
    assert!(fields[6].starts_with("TLS13_AES_"), "{lines:?}");
}

#[test]
fn a_trace_is_passed_on_and_the_beginning_of_a_request_is_told() {
    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let backend = Backend::always(canned::ok("ok"));
    let seen = |setup: Setup, field: &str| {
        let proxy = setup.start();
        let fields = format!("traceparent: {TRACE}\r\ntracestate: a=b\r\n{field}");
        proxy.client().exchange(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n")).expect_ok("ok");
        let requests = backend.requests();
        let head = &requests.last().expect("a request").head;
        assert_eq!(head.all("traceparent"), [TRACE]);
        assert_eq!(head.all("tracestate"), ["a=b"]);
        head.all("X-Request-Start").join(", ")
    };
    let setup = || Setup::for_backends([backend.url()]);
    assert_eq!(seen(setup(), ""), "");
    assert_eq!(seen(setup(), "X-Request-Start: t=1\r\n"), "t=1", "without the setting it is a field as any other");
    let told = seen(setup().set("requestStart", true), "X-Request-Start: t=1\r\n");
    let millis: u64 = told.strip_prefix("t=").expect(&told).parse().expect("a number");
    let said = UNIX_EPOCH + Duration::from_millis(millis);
    let age = now().duration_since(said).unwrap_or_default();
    assert!(age < PATIENCE, "{told} is {age:?} ago");
    let trusting = setup().set("requestStart", true).set("trustedNetworks", "127.0.0.0/8");
    assert_eq!(seen(trusting, "X-Request-Start: t=1\r\n"), "t=1");
}

#[expect(clippy::disallowed_methods, reason = "what the program has told is the time of day")]
fn now() -> SystemTime {
    SystemTime::now()
}
