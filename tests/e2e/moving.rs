//! Tunnels and responses under way go over to the next process of an upgrade.

use crate::succession::{replaceable, upgrade, write_program};
use crate::support::backend::Backend;
use crate::support::body::{Checker, write_pattern};
use crate::support::client::{Client, connect_with_window};
use crate::support::message::How;
use crate::support::proxy::{Proxy, Setup};
use crate::support::tls::Authority;
use crate::support::{HOST, canned, until};
use crate::upgrade::{open_web_socket, web_socket_echo};
use serde_json::{Value, json};
use sluice::net::tls::kernel_has_tls;
use std::fs;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Message, WebSocket};

pub(crate) const UPGRADES: u32 = 5;
const LARGE: u64 = 6 << 20;

/// Streams of events, as the backend sends them and as their client speaks.
const STREAMS: [(&str, &str); 3] =
    [("/chunked", "HTTP/1.1"), ("/until-close", "HTTP/1.0"), ("/until-close", "HTTP/1.1")];

/// Whether the client gets its events in chunks.
fn is_chunked(place: usize) -> bool {
    STREAMS[place % STREAMS.len()].1 == "HTTP/1.1"
}

/// The number of events that backends have sent, or are to send.
#[derive(Default)]
pub(crate) struct Ticks {
    count: Mutex<u32>,
    changed: Condvar,
}

impl Ticks {
    pub(crate) fn tick(&self) -> u32 {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        *count += 1;
        self.changed.notify_all();
        *count
    }

    /// Waits for more than these.
    fn beyond(&self, seen: u32) -> u32 {
        let count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        *self.changed.wait_while(count, |count| *count == seen).unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn event(number: u32) -> String {
    format!("data: event {number}\n\n")
}

/// The path says how it responds: by events, chunked or until the end of the connection, of which the last has number
/// [`UPGRADES`], or by a large body.
pub(crate) fn source(ticks: &Arc<Ticks>) -> Backend {
    let ticks = Arc::clone(ticks);
    Backend::serve(move |request, conn| {
        let target = request.head.target().to_owned();
        match &*target {
            "/large" => {
                conn.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n"));
                write_pattern(conn.socket(), LARGE).expect("the proxy takes it");
            }
            "/small" => conn.send(canned::ok("small")),
            _ => {
                let is_chunked = target == "/chunked";
                let coding = if is_chunked { "Transfer-Encoding: chunked\r\n" } else { "" };
                conn.send(format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{coding}\r\n"));
                let mut seen = 0;
                while seen < UPGRADES {
                    let now = ticks.beyond(seen);
                    for event in (seen + 1..=now).map(event) {
                        match is_chunked {
                            true => conn.send(format!("{:x}\r\n{event}\r\n", event.len())),
                            false => conn.send(event),
                        }
                    }
                    seen = now;
                }
                match is_chunked {
                    true => conn.send("0\r\n\r\n"),
                    false => conn.finish(),
                }
            }
        }
    })
}

/// A client that has read the head of its response.
pub(crate) fn begun(mut client: Client, path: &str, version: &str) -> Client {
    client.send(canned::get(HOST, path).replace("HTTP/1.1", version));
    assert_eq!(client.head().status(), 200);
    client
}

fn has_ended(pid: u32) -> bool {
    !fs::exists(format!("/proc/{pid}/exe")).unwrap_or(false)
}

/// Five upgrades over 60 WebSockets, 30 streams of events and 10 large responses whose clients read nothing meanwhile: none
/// ends, no byte is lost or doubled, and no process stays for them.
#[test]
fn upgrades_end_no_tunnel_and_no_response() {
    let ticks = Arc::new(Ticks::default());
    let (source, echo) = (source(&ticks), web_socket_echo());
    let setup = Setup::for_backends([source.url()]).route("ws", [echo.url()]);
    let mut proxy = replaceable(setup).with_access_log().set("accessLogFormat", "json").start();
    let mut sockets: Vec<_> = (0..60).map(|_| open_web_socket(&proxy, "ws")).collect();
    let mut streams: Vec<_> =
        STREAMS.iter().cycle().take(30).map(|(path, version)| begun(proxy.client(), path, version)).collect();
    let slow = || Client::over(Box::new(connect_with_window(proxy.address(), 8192)));
    let mut large: Vec<_> = (0..10).map(|_| begun(slow(), "/large", "HTTP/1.1")).collect();
    let mut before = u32::try_from(proxy.pid().as_raw()).expect("a process");
    for round in 1..=UPGRADES {
        // Half of them have a message under way.
        let message = Message::text(format!("{round} {}", "x".repeat(3000)));
        sockets[30..].iter_mut().for_each(|socket| socket.send(message.clone()).expect("a message"));
        let now = upgrade(&mut proxy);
        let number = ticks.tick();
        assert_eq!(number, round);
        sockets[..30].iter_mut().for_each(|socket| socket.send(message.clone()).expect("a message"));
        for socket in &mut sockets {
            assert_eq!(socket.read().expect("the echo"), message, "in round {round}");
        }
        for (place, client) in streams.iter_mut().enumerate() {
            let event = event(number);
            let event = if is_chunked(place) { format!("{:x}\r\n{event}\r\n", event.len()) } else { event };
            assert_eq!(String::from_utf8_lossy(&client.bytes(event.len())), event, "stream {place} in round {round}");
        }
        match round {
            1 => until("the first process ends", || proxy.first_has_ended()),
            _ => until("the process before ends", || has_ended(before)),
        }
        before = now;
    }
    for (place, client) in streams.iter_mut().enumerate() {
        match is_chunked(place) {
            true => {
                assert_eq!(client.bytes(5), b"0\r\n\r\n");
                client.get(HOST, "/small").expect_ok("small");
            }
            false => client.expect_closed(),
        }
    }
    for client in &mut large {
        let mut checker = Checker::default();
        (0..LARGE / 65_536).for_each(|_| checker.take(&client.bytes(65_536)));
        checker.expect(LARGE);
        client.get(HOST, "/small").expect_ok("small");
    }
    for mut socket in sockets {
        socket.close(None).expect("closing");
        while let Ok(message) = socket.read() {
            assert!(message.is_close(), "after the end: {message}");
        }
    }
    expect_log(&proxy, &[source.url(), echo.url()]);
}

/// The lines of requests that five processes have had.
#[track_caller]
fn expect_log(proxy: &Proxy, [source, echo]: &[String; 2]) {
    let mut lines: Vec<Value> = Vec::new();
    until("all lines are there", || {
        let text = proxy.read("access.log");
        lines = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        lines.len() >= 60 + 30 + 10 + 20 + 10
    });
    let events: usize = (1..=UPGRADES).map(|number| event(number).len()).sum();
    for line in &lines {
        let text = |name: &str| line[name].as_str().unwrap_or_default();
        let (host, path) = (text("host"), text("target"));
        let url = if host == "ws" { echo } else { source };
        assert_eq!(line["status"], if host == "ws" { 101 } else { 200 }, "{line}");
        assert_eq!((text("backend"), &line["reason"]), (&**url, &Value::Null), "{line}");
        assert!(path != "/large" || line["bytes"].as_u64() > Some(LARGE), "{line}");
        assert!(path != "/chunked" || line["bytes"].as_u64() > Some(events as u64), "{line}");
        assert!(line["total"].as_f64() > Some(0.0), "{line}");
    }
}

/// A process that does not take them leaves them where they are, until the end of the time for that.
#[test]
fn tunnels_stay_where_the_next_process_does_not_take_them() {
    let echo = web_socket_echo();
    let setup = Setup::for_backends([echo.url()]).route("ws", [echo.url()]);
    let mut proxy = replaceable(setup).set("drainTimeout", 3).start();
    let mut socket = open_web_socket(&proxy, "ws");
    let script = format!("#!/bin/sh\nunset SLUICE_EXCHANGES\nexec {} \"$@\"\n", env!("CARGO_BIN_EXE_sluice"));
    write_program(&proxy.path("sluice"), &script);
    upgrade(&mut proxy);
    socket.send(Message::text("still")).expect("a message");
    assert_eq!(socket.read().expect("the echo"), Message::text("still"));
    expect_restart(&mut socket);
    until("the first process ends", || proxy.first_has_ended());
}

/// An encrypted tunnel moves where the kernel has TLS. Elsewhere its client is told to come again.
#[test]
fn encrypted_tunnels_move_or_are_told_to_come_again() {
    let echo = web_socket_echo();
    let authority = Authority::new();
    let setup = Setup::for_backends([echo.url()]).with_https().certificate(HOST, &authority.issue(&[HOST]));
    let drain = if kernel_has_tls() { 60 } else { 1 };
    let mut proxy = replaceable(setup).set("drainTimeout", drain).start();
    let stream = authority.trust().connect(proxy.secure_address(), HOST);
    let (mut socket, _) = tungstenite::client(format!("wss://{HOST}/chat"), stream).expect("the handshake");
    upgrade(&mut proxy);
    socket.send(Message::text("still")).expect("a message");
    assert_eq!(socket.read().expect("the echo"), Message::text("still"));
    if !kernel_has_tls() {
        expect_restart(&mut socket);
        return until("the first process ends", || proxy.first_has_ended());
    }
    until("the first process ends", || proxy.first_has_ended());
    for round in 0..UPGRADES {
        // With a message under way, of several records.
        let message = Message::text(format!("{round} {}", "x".repeat(40_000)));
        socket.send(message.clone()).expect("a message");
        upgrade(&mut proxy);
        assert_eq!(socket.read().expect("the echo"), message, "in round {round}");
    }
    socket.close(None).expect("closing");
    while let Ok(message) = socket.read() {
        assert!(message.is_close(), "after the end: {message}");
    }
}

/// A stream of events of an encrypted client, from an encrypted backend, and what its client asks for next.
#[test]
fn encrypted_streams_move_where_the_kernel_has_tls() {
    if !kernel_has_tls() {
        return eprintln!("this kernel has no TLS (modprobe tls)");
    }
    let ticks = Arc::new(Ticks::default());
    let authority = Authority::new();
    let source = source(&ticks);
    let behind = Setup::for_backends([source.url()]).with_https();
    let ip = behind.secure_ip();
    let behind = behind.default_certificate(&authority.issue(&[&ip])).start();
    let url = format!("https://{ip}:{}", behind.secure_address().port());
    let setup = Setup::for_backends([url]).with_https().certificate(HOST, &authority.issue(&[HOST]));
    let setup = setup.file("authority.crt", &authority.pem()).set("backendTls", json!({"ca": "authority.crt"}));
    let mut proxy = replaceable(setup).start();
    let mut idle = authority.trust().client(&proxy, HOST);
    let mut client = begun(authority.trust().client(&proxy, HOST), "/chunked", "HTTP/1.1");
    idle.get(HOST, "/small").expect_ok("small");
    for number in 1..=UPGRADES {
        upgrade(&mut proxy);
        assert_eq!(ticks.tick(), number);
        let event = event(number);
        let event = format!("{:x}\r\n{event}\r\n", event.len());
        assert_eq!(String::from_utf8_lossy(&client.bytes(event.len())), event, "event {number}");
        idle.get(HOST, "/small").expect_ok("small");
    }
    until("the first process ends", || proxy.first_has_ended());
    assert_eq!(client.bytes(5), b"0\r\n\r\n");
    client.get(HOST, "/small").expect_ok("small");
}

#[track_caller]
fn expect_restart<S: std::io::Read + std::io::Write>(socket: &mut WebSocket<S>) {
    match socket.read() {
        Ok(Message::Close(Some(frame))) => assert_eq!(frame.code, CloseCode::Restart),
        other => panic!("expected a close frame: {other:?}"),
    }
}

/// A client that has ended its side, with bytes on their way, and an upload that is not over.
#[test]
fn half_closed_tunnels_move_and_uploads_stay() {
    let backend = Backend::raw(|conn| {
        let Some(head) = conn.head() else { return };
        if head.target() == "/upload" {
            let mut length = 0;
            if conn.body(&head, &mut |piece| length += piece.len()).is_ok() {
                conn.send(canned::ok(&format!("{length} bytes")));
            }
            return;
        }
        conn.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: lines\r\n\r\n");
        let heard = conn.bytes(u64::MAX);
        conn.send([b"heard: ".to_vec(), heard].concat());
    });
    let mut proxy = replaceable(Setup::for_backends([backend.url()])).start();
    let mut tunnel = proxy.client();
    tunnel.send(format!("GET /t HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: lines\r\n\r\n"));
    assert_eq!(tunnel.head().status(), 101);
    let mut upload = proxy.client();
    upload.send(format!("POST /upload HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 6\r\n\r\nabc"));
    backend.until_heads(2);
    upgrade(&mut proxy);
    tunnel.send("over");
    upgrade(&mut proxy);
    tunnel.finish_writing();
    assert_eq!(tunnel.rest(), (b"heard: over".to_vec(), How::Closed));
    upload.send("def");
    upload.response_to("POST").expect_ok("6 bytes");
    until("the first process ends", || proxy.first_has_ended());
}
