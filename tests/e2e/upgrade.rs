//! Tunnels: WebSocket by a real implementation on both sides, and any other protocol as bytes.

use crate::support::backend::{Backend, Conn};
use crate::support::body::{Checker, write_pattern};
use crate::support::client::{Client, connect};
use crate::support::message::How;
use crate::support::proxy::{Proxy, Setup};
use crate::support::{Gate, HOST, canned, until};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use tungstenite::{Message, WebSocket};

const ASKING: &str = "GET /tunnel HTTP/1.1\r\nHost: www.example.com\r\nConnection: Upgrade\r\nUpgrade: lines\r\n\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: lines\r\n\r\n";

/// A backend that switches to WebSocket and echoes every message.
pub(crate) fn web_socket_echo() -> Backend {
    Backend::raw(|conn| {
        let stream = conn.socket().try_clone().expect("a second handle");
        let Ok(mut socket) = tungstenite::accept(stream) else { return };
        while let Ok(message) = socket.read() {
            if (message.is_text() || message.is_binary()) && socket.send(message).is_err() {
                return;
            }
        }
    })
}

/// A WebSocket over the proxy to this host.
pub(crate) fn open_web_socket(proxy: &Proxy, host: &str) -> WebSocket<TcpStream> {
    let stream = connect(proxy.address(), None);
    stream.set_read_timeout(Some(crate::support::PATIENCE)).expect("setting the read timeout");
    let (socket, response) = tungstenite::client(format!("ws://{host}/chat"), stream).expect("the WebSocket handshake");
    assert_eq!(response.status().as_u16(), 101);
    socket
}

#[track_caller]
fn expect_echo(socket: &mut WebSocket<TcpStream>, message: Message) {
    socket.send(message.clone()).expect("sending a message");
    assert_eq!(socket.read().expect("reading the echo"), message);
}

/// A backend that switches on the first request of a connection and then follows the script.
fn switching(script: impl Fn(&mut Conn) + Send + Sync + 'static) -> Backend {
    Backend::raw(move |conn| {
        if conn.request().is_some() {
            conn.send(SWITCHED);
            script(conn);
        }
    })
}

/// A switching backend that echoes bytes until the other side has finished.
fn byte_echo() -> Backend {
    switching(|conn| {
        loop {
            let bytes = conn.bytes(1);
            if bytes.is_empty() {
                return;
            }
            conn.send(bytes);
        }
    })
}

#[track_caller]
fn open_tunnel(proxy: &Proxy) -> Client {
    let mut client = proxy.client();
    client.send(ASKING);
    assert_eq!(client.head().status(), 101);
    client
}

#[test]
fn web_socket_messages_pass_both_ways() {
    let backend = web_socket_echo();
    let proxy = Setup::for_backends([backend.url()]).start();
    let mut socket = open_web_socket(&proxy, HOST);
    for length in [0, 1, 125, 126, 65_535, 65_536, 1 << 20] {
        expect_echo(&mut socket, Message::binary(vec![7; length]));
    }
    expect_echo(&mut socket, Message::text("grüße"));
    socket.close(None).expect("closing");
    while let Ok(message) = socket.read() {
        assert!(message.is_close(), "after the end: {message}");
    }
}

#[test]
fn many_tunnels_live_side_by_side() {
    let backend = web_socket_echo();
    let proxy = Setup::for_backends([backend.url()]).set("maxSockets", 2).start();
    let mut sockets: Vec<_> = (0..100).map(|_| open_web_socket(&proxy, HOST)).collect();
    for round in 0..3 {
        for (number, socket) in sockets.iter_mut().enumerate() {
            expect_echo(socket, Message::text(format!("{round}/{number}")));
        }
    }
    assert_eq!(backend.open_connections(), 100, "tunnels do not count towards maxSockets");
}

#[test]
fn a_handshake_is_forwarded_with_what_a_request_has() {
    let backend = byte_echo();
    let proxy = Setup::for_backends([backend.url()]).start();
    let mut client = proxy.client();
    client.send(ASKING);
    let response = client.head();
    assert_eq!(response.get("upgrade"), Some("lines"), "in {response}");
    assert!(response.lists("connection", "upgrade"), "in {response}");
    let head = backend.only_request().head;
    assert_eq!(head.start, "GET /tunnel HTTP/1.1");
    assert_eq!(head.get("upgrade"), Some("lines"), "in {head}");
    assert!(head.lists("connection", "upgrade"), "in {head}");
    for name in ["x-forwarded-for", "x-real-ip", "x-forwarded-proto", "x-forwarded-protocol", "x-forwarded-port"] {
        assert!(head.get(name).is_some(), "no {name} in {head}");
    }
}

#[test]
fn bytes_that_come_with_either_head_are_not_lost() {
    let backend = Backend::raw(|conn| {
        if conn.request().is_some() {
            conn.send([SWITCHED, "from the backend"].concat());
            let bytes = conn.bytes(15);
            conn.send(bytes);
        }
    });
    let proxy = Setup::for_backends([backend.url()]).start();
    for bytewise in [false, true] {
        let mut client = proxy.client();
        let request = [ASKING, "from the client"].concat();
        if bytewise {
            client.send_bytewise(request);
        } else {
            client.send(request);
        }
        assert_eq!(client.head().status(), 101);
        assert_eq!(client.bytes(16), b"from the backend");
        assert_eq!(client.bytes(15), b"from the client");
        client.expect_closed();
    }
}

#[test]
fn a_client_that_has_finished_still_hears_the_rest() {
    let backend = switching(|conn| {
        let heard = conn.bytes(u64::MAX);
        conn.send([b"heard: ".to_vec(), heard].concat());
    });
    let proxy = Setup::for_backends([backend.url()]).start();
    let mut client = open_tunnel(&proxy);
    client.send("over");
    client.finish_writing();
    assert_eq!(client.rest(), (b"heard: over".to_vec(), How::Closed));
}

#[test]
fn a_backend_that_has_finished_still_hears_the_rest() {
    let (heard, hearing) = std::sync::mpsc::channel();
    let heard = std::sync::Mutex::new(heard);
    let backend = switching(move |conn| {
        conn.send("bye");
        conn.socket().shutdown(std::net::Shutdown::Write).expect("half-closing");
        let rest = conn.bytes(u64::MAX);
        heard.lock().expect("no panic").send(rest).expect("the test listens");
    });
    let proxy = Setup::for_backends([backend.url()]).start();
    let mut client = open_tunnel(&proxy);
    assert_eq!(client.rest(), (b"bye".to_vec(), How::Closed));
    client.send("but wait");
    client.finish_writing();
    let rest = hearing.recv_timeout(crate::support::PATIENCE).expect("the backend hears the end");
    assert_eq!(rest, b"but wait");
}

#[test]
fn a_refused_upgrade_is_an_ordinary_response() {
    let backend = Backend::serve(|request, conn| match request.head.target() {
        "/tunnel" => conn.send(canned::sized("403 Forbidden", "no tunnels here")),
        _ => conn.send(canned::ok("ok")),
    });
    let proxy = Setup::for_backends([backend.url()]).start();
    let mut client = proxy.client();
    let response = client.exchange(ASKING);
    assert_eq!((response.status(), response.text().as_str()), (403, "no tunnels here"));
    client.get(HOST, "/").expect_ok("ok");
}

#[test]
fn an_upgrade_that_nobody_asked_for_is_502() {
    let backend = Backend::closing(SWITCHED);
    let proxy = Setup::for_backends([backend.url()]).start();
    let of_http_1_0 = ASKING.replace("HTTP/1.1", "HTTP/1.0");
    let to_another = ASKING.replace("lines", "words");
    for request in [canned::get(HOST, "/"), of_http_1_0, to_another] {
        let request = request.replace("\r\n\r\n", "\r\nX-Debug: 1\r\n\r\n");
        let response = proxy.client().exchange(&request);
        let found = (response.status(), response.head.get("x-debug-error"));
        assert_eq!(found, (502, Some("upgrade_mismatch")), "the answer to {request}");
    }
    for request in backend.requests() {
        let asks = request.head.get("upgrade").is_some();
        assert_eq!(asks, request.head.get("upgrade") == Some("words"), "in {}", request.head);
    }
}

#[test]
fn large_amounts_pass_both_ways_at_once() {
    const LARGE: u64 = 16 << 20;
    let backend = switching(|conn| {
        let mut echo = conn.socket().try_clone().expect("a second handle");
        let mut piece = vec![0; 64 * 1024];
        while let Ok(length) = conn.socket().read(&mut piece) {
            if length == 0 || echo.write_all(&piece[..length]).is_err() {
                return;
            }
        }
    });
    let proxy = Setup::for_backends([backend.url()]).start();
    let mut client = open_tunnel(&proxy);
    let mut writer = client.writer();
    let sender = thread::spawn(move || {
        write_pattern(&mut writer, LARGE).expect("sending");
        writer.shutdown(std::net::Shutdown::Write).expect("half-closing");
    });
    let mut checker = Checker::default();
    checker.take(&client.rest().0);
    checker.expect(LARGE);
    sender.join().expect("the sender");
}

/// Lets the proxy's `headTimeout` pass once, as seen by a connection that says half a word.
fn let_a_timeout_pass(proxy: &Proxy) {
    let mut client = proxy.client();
    client.send("GET /");
    assert_eq!(client.response_to("GET").status(), 408);
}

#[test]
fn a_tunnel_outlives_the_common_timeout() {
    let backend = byte_echo();
    let proxy = Setup::for_backends([backend.url()]).set("tcpTimeout", 0.1).start();
    let mut client = open_tunnel(&proxy);
    (0..3).for_each(|_| let_a_timeout_pass(&proxy));
    client.send("still here");
    assert_eq!(client.bytes(10), b"still here");
}

#[test]
fn an_idle_tunnel_ends_in_its_own_time() {
    let backend = byte_echo();
    let proxy = Setup::for_backends([backend.url()]).set("tunnelTimeout", 0.2).start();
    let mut client = open_tunnel(&proxy);
    client.send("x");
    assert_eq!(client.bytes(1), b"x");
    let (bytes, how) = client.rest();
    assert!(bytes.is_empty() && matches!(how, How::Closed | How::Reset), "{how:?} after {bytes:?}");
    until("the backend's side is closed too", || backend.open_connections() == 0);
}

#[test]
fn a_busy_tunnel_does_not_time_out() {
    let backend = byte_echo();
    let proxy = Setup::for_backends([backend.url()]).set("tunnelTimeout", 0.5).set("headTimeout", 0.1).start();
    let mut client = open_tunnel(&proxy);
    for _ in 0..8 {
        let_a_timeout_pass(&proxy);
        client.send("x");
        assert_eq!(client.bytes(1), b"x");
    }
}

#[test]
fn a_dead_side_ends_the_tunnel() {
    let gate = Arc::new(Gate::default());
    let inner = Arc::clone(&gate);
    let backend = switching(move |conn| {
        inner.pass();
        conn.reset();
    });
    let proxy = Setup::for_backends([backend.url()]).start();
    let mut client = open_tunnel(&proxy);
    gate.open();
    let (bytes, how) = client.rest();
    assert!(bytes.is_empty() && matches!(how, How::Closed | How::Reset), "{how:?} after {bytes:?}");

    let backend = byte_echo();
    let proxy = Setup::for_backends([backend.url()]).start();
    let client = open_tunnel(&proxy);
    client.abort();
    until("the backend's side is closed too", || backend.open_connections() == 0);
}
