//! The PROXY protocol: whose word is taken on who a client is, and which backends are told.

use crate::respawn::{restless, until_respawns};
use crate::succession::{replaceable, upgrade};
use crate::support::backend::Backend;
use crate::support::client::{Client, connect};
use crate::support::proxy::{Proxy, Setup};
use crate::support::tls::Authority;
use crate::support::{HOST, PATIENCE, canned, until, unused_address};
use nix::sys::signal::Signal;
use serde_json::json;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::thread;
use tungstenite::Message;

/// The balancer, which may say who its clients are, and somebody else.
const BALANCER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 5));
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6));

const LINE: &str = "PROXY TCP4 192.0.2.1 198.51.100.2 56324 4430\r\n";

/// A proxy that takes the balancer's word alone.
fn behind_balancer(backend: &Backend) -> Setup {
    Setup::for_backends([backend.url()]).set_http("proxyProtocol", json!([BALANCER.to_string()])).workers(1)
}

/// A header of version 2.
fn block(version_and_command: u8, family: u8, content: &[u8]) -> Vec<u8> {
    let len = u16::try_from(content.len()).expect("a length of two bytes").to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[version_and_command, family][..], &len, content].concat()
}

/// Ends the proxy, which then says what it has counted: each of these so often.
#[track_caller]
fn expect_counted(mut proxy: Proxy, expected: &[(&str, usize)]) {
    proxy.signal(Signal::SIGTERM);
    proxy.until_exit();
    let said = proxy.stderr();
    let counted = said.lines().find_map(|line| Some(line.split_once("stopped; ")?.1)).expect("the counters");
    for (name, count) in expected {
        let found = counted.split(", ").find_map(|word| word.strip_prefix(name)?.trim().parse().ok()).unwrap_or(0);
        // Who looks whether the proxy accepts is a stranger too.
        let is_right = found == *count || (*name == "untrusted_proxies" && found > *count);
        assert!(is_right, "{name} {count} in {counted}");
    }
}

#[test]
fn a_client_is_who_the_header_says() {
    let v4 = [192, 0, 2, 1, 198, 51, 100, 2, 0xdc, 0x04, 0x11, 0x4e];
    let mut v6 = [0; 36];
    (v6[0], v6[1], v6[15]) = (0x20, 0x01, 1);
    v6[32..].copy_from_slice(&[0, 80, 0x1f, 0x90]);
    let tlvs = [&v4[..], &[0x04, 0, 3, 1, 2, 3], &[0x20; 700]].concat();
    let own = BALANCER.to_string();
    let table: Vec<(Vec<u8>, &str, Option<&str>)> = vec![
        (LINE.into(), "192.0.2.1", Some("4430")),
        ("PROXY TCP6 2001:db8::1 ::1 1 2\r\n".into(), "2001:db8::1", Some("2")),
        ("PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n".into(), "192.0.2.1", Some("2")),
        ("PROXY UNKNOWN\r\n".into(), &own, None),
        (block(0x21, 0x11, &v4), "192.0.2.1", Some("4430")),
        (block(0x21, 0x11, &tlvs), "192.0.2.1", Some("4430")),
        (block(0x21, 0x21, &v6), "2001::1", Some("8080")),
        (block(0x20, 0x11, &v4), &own, None),
        (block(0x21, 0x31, &[b'/'; 216]), &own, None),
    ];
    let backend = Backend::always(canned::ok("hello"));
    let proxy = behind_balancer(&backend).with_access_log().start();
    let own_port = proxy.address().port().to_string();
    for (header, address, port) in &table {
        let mut whole = proxy.client_from(BALANCER);
        whole.exchange([header, canned::get(HOST, "/").as_bytes()].concat());
        whole.get(HOST, "/again").expect_ok("hello");
        let mut split = proxy.client_from(BALANCER);
        split.send_bytewise(header);
        split.get(HOST, "/").expect_ok("hello");
        let requests = backend.requests();
        for request in &requests[requests.len() - 3..] {
            let found = ["X-Forwarded-For", "X-Real-IP", "X-Forwarded-Port"].map(|name| request.head.get(name));
            assert_eq!(found, [Some(*address), Some(*address), port.or(Some(&own_port))], "{}", header.escape_ascii());
        }
    }
    let lines = proxy.log_lines("access.log", 3 * table.len());
    for (place, (_, address, _)) in table.iter().enumerate() {
        assert!(lines[3 * place..][..3].iter().all(|line| line.starts_with(&format!("{address} - - "))), "{lines:#?}");
    }
    expect_counted(proxy, &[("proxy_headers", 2 * table.len())]);
}

#[test]
fn the_client_and_not_the_balancer_is_asked_for_its_headers() {
    let backend = Backend::always(canned::ok("hello"));
    let setup = behind_balancer(&backend).set("trustedNetworks", json!(["192.0.2.0/24"]));
    let proxy = setup.set("debugNetworks", json!(["192.0.2.0/24"])).start();
    let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX-Forwarded-For: 10.1.1.1\r\nX-Debug: 1\r\n\r\n");
    for (line, expected, is_debugged) in [
        (LINE, "10.1.1.1, 192.0.2.1", true),
        ("PROXY TCP4 203.0.113.1 198.51.100.2 1 2\r\n", "203.0.113.1", false),
        ("PROXY UNKNOWN\r\n", "127.0.0.5", false),
    ] {
        let response = proxy.client_from(BALANCER).exchange(format!("{line}{request}"));
        assert_eq!(response.head.get("X-Debug-Version").is_some(), is_debugged, "{line:?}");
        let last = backend.requests().pop().expect("a request");
        assert_eq!(last.head.get("X-Forwarded-For"), Some(expected), "{line:?}");
    }
}

#[test]
fn a_header_may_be_optional_by_network() {
    let backend = Backend::always(canned::ok("hello"));
    let networks = json!({"required": "127.0.0.0/8", "allowed": BALANCER.to_string(), "ignored": STRANGER.to_string()});
    let proxy = Setup::for_backends([backend.url()]).set_http("proxyProtocol", networks).workers(1).start();
    let plain = canned::get(HOST, "/");
    let with_header = format!("{LINE}{plain}");
    let other = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 7));
    let table = [
        (BALANCER, &plain, Some("127.0.0.5")),
        (BALANCER, &with_header, Some("192.0.2.1")),
        (STRANGER, &plain, Some("127.0.0.6")),
        (other, &with_header, Some("192.0.2.1")),
        (other, &plain, None),
    ];
    for (source, request, expected) in table {
        let mut client = proxy.client_from(source);
        client.send(request);
        match expected {
            // What was not read makes a reset of the end.
            None => assert!(client.try_response_to("GET").is_err(), "{source} {request:?}"),
            Some(expected) => {
                client.response_to("GET").expect_ok("hello");
                let last = backend.requests().pop().expect("a request");
                assert_eq!(last.head.get("X-Forwarded-For"), Some(expected), "{source} {request:?}");
                client.get(HOST, "/again").expect_ok("hello");
            }
        }
    }
    // Where no header is looked for, one is a bad request.
    assert_eq!(proxy.client_from(STRANGER).exchange(with_header).status(), 400);
    // A client's first bytes may be those of a header, up to a place.
    let mut slow = proxy.client_from(BALANCER);
    slow.send_bytewise(canned::get(HOST, "/").replace("GET", "PROPFIND").as_bytes());
    slow.response_to("PROPFIND").expect_ok("hello");
}

#[test]
fn of_whom_nothing_is_told_counts_as_who_has_connected() {
    let backend = Backend::always(canned::ok("hello"));
    let proxy = behind_balancer(&backend).set("maxConnectionsPerAddress", 1).start();
    let local = block(0x20, 0, b"");
    let mut first = proxy.client_from(BALANCER);
    first.send(&local);
    first.get(HOST, "/").expect_ok("hello");
    let mut second = proxy.client_from(BALANCER);
    second.send(&local);
    second.expect_closed();
    let mut told = proxy.client_from(BALANCER);
    told.send(LINE);
    told.get(HOST, "/").expect_ok("hello");
    expect_counted(proxy, &[("per_ip_rejections", 1), ("proxy_headers", 3)]);
}

#[test]
fn who_may_not_send_a_header_is_not_heard() {
    let backend = Backend::always(canned::ok("hello"));
    let proxy = behind_balancer(&backend).start();
    for _ in 0..3 {
        proxy.client_from(STRANGER).expect_closed();
    }
    let mut balancer = proxy.client_from(BALANCER);
    balancer.send(LINE);
    balancer.get(HOST, "/").expect_ok("hello");
    assert_eq!(backend.only_request().head.get("X-Forwarded-For"), Some("192.0.2.1"));
    expect_counted(proxy, &[("untrusted_proxies", 3), ("proxy_headers", 1)]);
}

#[test]
fn what_does_not_begin_with_a_header_is_closed_and_counted() {
    let backend = Backend::always(canned::ok("hello"));
    let proxy = behind_balancer(&backend).start();
    let table: [Vec<u8>; 7] = [
        canned::get(HOST, "/").into(),
        "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443 \r\n".into(),
        "PROXY TCP4 ::1 ::1 1 2\r\n".into(),
        "PROXY UNKNOWN\n".into(),
        format!("PROXY UNKNOWN {}", "x".repeat(200)).into(),
        block(0x11, 0x11, &[0; 12]),
        block(0x21, 0x11, &[0; 3]),
    ];
    for bytes in &table {
        let mut client = proxy.client_from(BALANCER);
        client.send(bytes);
        let (received, _) = client.rest();
        assert!(received.is_empty(), "an answer to {}: {}", bytes.escape_ascii(), received.escape_ascii());
    }
    // One that ends in the middle, and one who only looks whether somebody listens.
    let mut client = proxy.client_from(BALANCER);
    client.send("PROXY TCP4 192.0.2.1");
    client.finish_writing();
    assert!(client.rest().0.is_empty(), "an answer to a part");
    let mut client = proxy.client_from(BALANCER);
    client.finish_writing();
    client.expect_closed();
    assert!(backend.requests().is_empty());
    expect_counted(proxy, &[("bad_proxy_headers", table.len() + 1)]);
}

#[test]
fn a_header_has_its_time_and_trickling_does_not_add_to_it() {
    let backend = Backend::always(canned::ok("hello"));
    let proxy = behind_balancer(&backend).set("headTimeout", 0.3).start();
    let silent = proxy.client_from(BALANCER);
    let mut trickling = proxy.client_from(BALANCER);
    trickling.send("PROXY ");
    let mut writer = trickling.writer();
    let drip = thread::spawn(move || {
        // Ends with the connection.
        while writer.write_all(b"P").is_ok() {
            thread::park_timeout(PATIENCE / 200);
        }
    });
    for mut client in [silent, trickling] {
        assert!(client.rest().0.is_empty());
    }
    drip.join().expect("the dripping");
    expect_counted(proxy, &[("late_proxy_headers", 2)]);
}

#[test]
fn where_no_header_is_expected_it_is_a_bad_request() {
    let backend = Backend::always(canned::ok("hello"));
    let proxy = Setup::for_backends([backend.url()]).start();
    for header in [LINE.as_bytes(), &block(0x20, 0, b"")] {
        let mut client = proxy.client();
        client.send([header, canned::get(HOST, "/").as_bytes()].concat());
        assert!([400, 505].contains(&client.response_to("GET").status()));
    }
    assert!(backend.requests().is_empty());
}

#[test]
fn the_header_comes_before_the_handshake() {
    let (backend, authority) = (Backend::always(canned::ok("hello")), Authority::new());
    let setup = Setup::for_backends([backend.url()]).with_https().default_certificate(&authority.issue(&[HOST]));
    let proxy = setup.set_https("proxyProtocol", json!(["127.0.0.5"])).workers(1).start();
    for is_split in [false, true] {
        let mut socket = connect(proxy.secure_address(), Some(BALANCER));
        let pieces = if is_split { 1 } else { LINE.len() };
        LINE.as_bytes().chunks(pieces).for_each(|piece| socket.write_all(piece).expect("sending the header"));
        let stream = authority.trust().shake_hands(socket, HOST).expect("hands are shaken");
        let mut client = Client::over(Box::new(stream));
        client.get(HOST, "/").expect_ok("hello");
        client.get(HOST, "/").expect_ok("hello");
    }
    for request in backend.requests() {
        let found = ["X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Port"].map(|name| request.head.get(name));
        assert_eq!(found, [Some("192.0.2.1"), Some("https"), Some("4430")]);
    }
    let no_header = connect(proxy.secure_address(), Some(BALANCER));
    assert!(authority.trust().shake_hands(no_header, HOST).is_err(), "a handshake without a header");
    let stranger = connect(proxy.secure_address(), Some(STRANGER));
    assert!(authority.trust().shake_hands(stranger, HOST).is_err(), "a handshake of a stranger");
    // The plain address has no such setting.
    proxy.client().get(HOST, "/").expect_ok("hello");
    let counts = [("proxy_headers", 2), ("bad_proxy_headers", 1), ("untrusted_proxies", 1), ("handshakes", 2)];
    expect_counted(proxy, &counts);
}

/// A backend that is told by a line, which it answers with.
fn told_by_line() -> Backend {
    Backend::raw(|conn| {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            match conn.bytes(1).as_slice() {
                [] => return,
                byte => line.extend_from_slice(byte),
            }
        }
        while conn.request().is_some() {
            conn.send(canned::ok(&String::from_utf8_lossy(&line)));
        }
    })
}

#[test]
fn a_backend_is_told_of_each_client_on_a_connection_of_its_own() {
    let backend = told_by_line();
    // Where nobody listens, the next one is told.
    let urls = [backend.url(), format!("http://{}", unused_address())].map(|url| format!("{url}#proxy=v1"));
    let proxy = Setup::for_backends(urls).workers(1).start();
    let clients = [BALANCER, STRANGER].map(|address| (address, proxy.client_from(address)));
    for (address, mut client) in clients {
        let from = client.socket().local_addr().expect("an address");
        let to = proxy.address();
        let line = format!("PROXY TCP4 {address} {} {} {}\r\n", to.ip(), from.port(), to.port());
        for _ in 0..3 {
            client.get(HOST, "/").expect_ok(&line);
        }
    }
    assert_eq!(backend.connections(), 6, "a connection a request");
    until("all are closed", || backend.open_connections() == 0);
}

#[test]
fn what_was_told_to_this_node_is_told_to_the_backend() {
    let backend = told_by_line();
    let url = format!("{}#proxy=v1", backend.url());
    let proxy = Setup::for_backends([url]).set_http("proxyProtocol", json!("127.0.0.5")).start();
    let mut client = proxy.client_from(BALANCER);
    client.send(LINE);
    client.get(HOST, "/").expect_ok(LINE);
    let mut client = proxy.client_from(BALANCER);
    client.send(block(0x20, 0, b""));
    let from = client.socket().local_addr().expect("an address");
    let to = proxy.address();
    let line = format!("PROXY TCP4 127.0.0.5 {} {} {}\r\n", to.ip(), from.port(), to.port());
    client.get(HOST, "/").expect_ok(&line);
}

/// Two nodes, of which the first tells the second, in each version, with and without encryption between them.
#[test]
fn one_node_tells_the_next() {
    let (backend, authority) = (Backend::always(canned::ok("hello")), Authority::new());
    let setup = Setup::for_backends([backend.url()]).with_https();
    let certificate = authority.issue(&[&setup.secure_ip()]);
    let setup = setup.default_certificate(&certificate).set_https("proxyProtocol", "127.0.0.0/8");
    let second = setup.set_http("proxyProtocol", "127.0.0.0/8").start();
    for url in [format!("http://{}", second.address()), format!("https://{}", second.secure_address())] {
        for version in ["v1", "v2"] {
            let setup = Setup::for_backends([format!("{url}#proxy={version}")]).file("ca.crt", &authority.pem());
            let first = setup.set("backendTls", json!({"ca": "ca.crt"})).start();
            let mut client = first.client_from(STRANGER);
            for _ in 0..2 {
                client.get(HOST, "/").expect_ok("hello");
                let last = backend.requests().pop().expect("a request");
                assert_eq!(last.head.get("X-Forwarded-For"), Some("127.0.0.6"), "{url} by {version}");
                assert_eq!(last.head.get("X-Forwarded-Port"), Some(first.address().port().to_string().as_str()));
            }
        }
    }
}

#[test]
fn a_web_socket_passes_behind_a_header() {
    let echo = Backend::raw(|conn| {
        let mut line = [0; LINE.len()];
        conn.socket().read_exact(&mut line).expect("a header");
        assert_eq!(line, LINE.as_bytes());
        let stream = conn.socket().try_clone().expect("a second handle");
        let Ok(mut socket) = tungstenite::accept(stream) else { return };
        while let Ok(message) = socket.read() {
            if message.is_text() && socket.send(message).is_err() {
                return;
            }
        }
    });
    let url = format!("{}#proxy=v1", echo.url());
    let proxy = Setup::for_backends([url]).set_http("proxyProtocol", json!("127.0.0.5")).start();
    let mut stream = connect(proxy.address(), Some(BALANCER));
    stream.set_read_timeout(Some(PATIENCE)).expect("setting the read timeout");
    stream.write_all(LINE.as_bytes()).expect("sending the header");
    let (mut socket, _) = tungstenite::client(format!("ws://{HOST}/chat"), stream).expect("the handshake");
    for text in ["one", "two"] {
        socket.send(Message::text(text)).expect("sending a message");
        assert_eq!(socket.read().expect("reading the echo"), Message::text(text));
    }
}

/// Who was introduced once is the same one to another worker, and to another process.
#[test]
fn whoever_moves_keeps_the_address_that_was_told() {
    let backend = Backend::always(canned::ok("hello"));
    let mut proxy = replaceable(restless(behind_balancer(&backend))).start();
    let mut client = proxy.client_from(BALANCER);
    client.send(LINE);
    let expect_known = |client: &mut Client, when: &str| {
        client.get(HOST, "/").expect_ok("hello");
        let requests = backend.requests();
        let head = &requests.last().expect("the request").head;
        let found = ["X-Forwarded-For", "X-Real-IP", "X-Forwarded-Port"].map(|name| head.get(name));
        assert_eq!(found, [Some("192.0.2.1"), Some("192.0.2.1"), Some("4430")], "{when}");
    };
    expect_known(&mut client, "at first");
    until_respawns(&proxy, 3);
    expect_known(&mut client, "after workers were renewed");
    // One that is introduced when the first process is about to end, and then says nothing.
    let mut late = proxy.client_from(BALANCER);
    late.send(&LINE[..10]);
    until_respawns(&proxy, 1);
    upgrade(&mut proxy);
    late.send(&LINE[10..]);
    until("the first process ends, and both are elsewhere", || proxy.first_has_ended());
    expect_known(&mut client, "after an upgrade");
    expect_known(&mut late, "who came late");
}
