//! Large bodies: every byte arrives, a slow reader stops the other side, an early answer is seen.

use crate::support::backend::{Backend, Conn};
use crate::support::body::{Checker, pattern_at, write_pattern};
use crate::support::client::Client;
use crate::support::message::{Framing, How};
use crate::support::proxy::{Proxy, Setup};
use crate::support::{Gate, HOST, PATIENCE, canned};
use socket2::SockRef;
use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

const MIB: u64 = 1 << 20;
const LARGE: u64 = 64 * MIB;

/// What may be under way in the buffers of all the sockets and of the proxy when nobody reads.
const UNDER_WAY: u64 = 32 * MIB;

/// A writer is taken to be stopped when its socket takes nothing for this long.
const STOPPED: Duration = Duration::from_millis(300);

/// Writes to a chunked body.
struct Chunks<'a>(&'a mut TcpStream);

impl Write for Chunks<'_> {
    fn write(&mut self, piece: &[u8]) -> std::io::Result<usize> {
        write!(self.0, "{:x}\r\n", piece.len())?;
        self.0.write_all(piece)?;
        self.0.write_all(b"\r\n")?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

/// A backend that checks the body of each request and answers when it was right.
fn checking() -> Backend {
    Backend::raw(|conn| {
        while let Some(head) = conn.head() {
            let mut checker = Checker::default();
            conn.body(&head, &mut |piece| checker.take(piece)).expect("the whole body");
            checker.expect(LARGE);
            conn.send(canned::ok("complete"));
        }
    })
}

fn send_on_a_thread(client: &Client, write: impl FnOnce(&mut TcpStream) + Send + 'static) -> thread::JoinHandle<()> {
    let mut writer = client.writer();
    thread::spawn(move || write(&mut writer))
}

#[test]
fn a_large_upload_arrives() {
    let backend = checking();
    let proxy = Setup::for_backends([backend.url()]).start();
    let mut client = proxy.client();
    client.send(format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {LARGE}\r\n\r\n"));
    write_pattern(&mut client.writer(), LARGE).expect("sending the body");
    client.response_to("POST").expect_ok("complete");
    client.send(format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n"));
    write_pattern(&mut Chunks(&mut client.writer()), LARGE).expect("sending the body");
    client.send("0\r\n\r\n");
    client.response_to("POST").expect_ok("complete");
}

#[test]
fn a_large_download_arrives() {
    let backend = Backend::raw(|conn| {
        while let Some(head) = conn.head() {
            send_large(conn, head.target());
            if head.target() == "/close" {
                return;
            }
        }
    });
    let proxy = Setup::for_backends([backend.url()]).start();
    for target in ["/sized", "/chunked", "/close"] {
        let mut client = proxy.client();
        client.send(canned::get(HOST, target));
        let head = client.head();
        let mut checker = Checker::default();
        client.body(head.response_framing("GET"), &mut |piece| checker.take(piece));
        checker.expect(LARGE);
    }
}

fn send_large(conn: &mut Conn, target: &str) {
    let framing = match target {
        "/sized" => format!("Content-Length: {LARGE}\r\n"),
        "/chunked" => "Transfer-Encoding: chunked\r\n".to_owned(),
        _ => "Connection: close\r\n".to_owned(),
    };
    conn.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n"));
    if target == "/chunked" {
        write_pattern(&mut Chunks(conn.socket()), LARGE).expect("sending the answer");
        conn.send("0\r\n\r\n");
    } else {
        write_pattern(conn.socket(), LARGE).expect("sending the answer");
    }
}

#[test]
fn large_bodies_pass_both_ways_at_once() {
    let backend = Backend::raw(|conn| {
        let Some(head) = conn.head() else { return };
        conn.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n"));
        let mut sent = 0;
        let mut echo = conn.socket().try_clone().expect("a second handle");
        let ended = conn.body(&head, &mut |piece| {
            sent += piece.len();
            echo.write_all(piece).expect("echoing");
        });
        ended.expect("the whole body");
        assert_eq!(sent as u64, LARGE);
    });
    let proxy = Setup::for_backends([backend.url()]).start();
    let mut client = proxy.client();
    client.send(format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {LARGE}\r\n\r\n"));
    let sender = send_on_a_thread(&client, |writer| write_pattern(writer, LARGE).expect("sending the body"));
    assert_eq!(client.head().status(), 200);
    let mut checker = Checker::default();
    client.body(Framing::Length(LARGE), &mut |piece| checker.take(piece));
    checker.expect(LARGE);
    sender.join().expect("the sender");
}

/// Writes the pattern until the socket takes no more for [`STOPPED`], reports how far it came, and goes on.
fn write_and_report(to: &mut TcpStream, report: impl FnOnce(u64)) {
    to.set_write_timeout(Some(STOPPED)).expect("setting the write timeout");
    let (mut written, mut report) = (0, Some(report));
    while written < LARGE {
        match to.write(pattern_at(written, LARGE - written)) {
            Ok(length) => written += length as u64,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if let Some(report) = report.take() {
                    to.set_write_timeout(Some(PATIENCE)).expect("setting the write timeout");
                    report(written);
                }
            }
            Err(error) => panic!("writing after {written} bytes: {error}"),
        }
    }
    if let Some(report) = report {
        report(written);
    }
}

fn expect_stopped(reports: &Receiver<u64>) {
    let written = reports.recv_timeout(PATIENCE).expect("the writer comes to a stop");
    assert!(written < UNDER_WAY, "{written} of {LARGE} bytes were taken though nobody read");
}

#[test]
fn a_client_that_does_not_read_stops_the_backend() {
    let (reporter, reports) = channel();
    let reporter = Mutex::new(reporter);
    let backend = Backend::raw(move |conn| {
        if conn.head().is_some() {
            conn.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n"));
            let reporter = reporter.lock().expect("no panic").clone();
            write_and_report(conn.socket(), |written| reporter.send(written).expect("the test listens"));
        }
    });
    let proxy = Setup::for_backends([backend.url()]).workers(1).start();
    let mut client = proxy.client();
    SockRef::from(client.socket()).set_recv_buffer_size(64 * 1024).expect("setting SO_RCVBUF");
    client.send(canned::get(HOST, "/"));
    expect_stopped(&reports);
    assert_eq!(proxy.client().get("__ping__", "/").status(), 200, "the worker must not wait for the reader");
    assert_eq!(client.head().status(), 200);
    let mut checker = Checker::default();
    client.body(Framing::Length(LARGE), &mut |piece| checker.take(piece));
    checker.expect(LARGE);
}

#[test]
fn a_backend_that_does_not_read_stops_the_client() {
    let gate = Arc::new(Gate::default());
    let inner = Arc::clone(&gate);
    let backend = Backend::raw(move |conn| {
        let Some(head) = conn.head() else { return };
        inner.pass();
        let mut checker = Checker::default();
        conn.body(&head, &mut |piece| checker.take(piece)).expect("the whole body");
        checker.expect(LARGE);
        conn.send(canned::ok("complete"));
    });
    let proxy = Setup::for_backends([backend.url()]).workers(1).start();
    let mut client = proxy.client();
    client.send(format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {LARGE}\r\n\r\n"));
    let (reporter, reports) = channel();
    let sender = send_on_a_thread(&client, move |writer| {
        write_and_report(writer, |written| reporter.send(written).expect("the test listens"));
    });
    expect_stopped(&reports);
    assert_eq!(proxy.client().get("__ping__", "/").status(), 200, "the worker must not wait for the backend");
    gate.open();
    client.response_to("POST").expect_ok("complete");
    sender.join().expect("the sender");
}

const REFUSED: &str = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 7\r\nConnection: close\r\n\r\ntoo big";

/// Sends a body of 8 MiB in full before it reads a byte, as simple clients do.
#[track_caller]
fn expect_413_for_a_whole_upload(proxy: &Proxy) {
    let length = 8 * MIB;
    let mut client = proxy.client();
    client.send(format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {length}\r\n\r\n"));
    let sent = write_pattern(&mut client.writer(), length);
    let response = client.try_response_to("POST");
    let response = response.unwrap_or_else(|ended| panic!("no 413 (sending gave {sent:?}): {ended}"));
    assert_eq!(response.status(), 413, "sending gave {sent:?}");
}

#[test]
fn an_early_response_reaches_a_client_that_still_sends() {
    let backend = Backend::raw(|conn| {
        let Some(head) = conn.head() else { return };
        conn.send(REFUSED);
        // It reads on for a while, as RFC 9112 advises, so that the answer is not lost.
        let _ = conn.body(&head, &mut |_| ());
    });
    let proxy = Setup::for_backends([backend.url()]).start();
    expect_413_for_a_whole_upload(&proxy);
}

#[test]
fn an_early_response_survives_a_backend_that_closes_at_once() {
    let backend = Backend::raw(|conn| {
        if conn.head().is_some() {
            // Closing with the body unread resets the connection.
            conn.send(REFUSED);
        }
    });
    let proxy = Setup::for_backends([backend.url()]).start();
    expect_413_for_a_whole_upload(&proxy);
}

#[test]
fn a_refusal_of_the_proxy_itself_reaches_a_client_that_still_sends() {
    let backend = checking();
    let proxy = Setup::for_backends([backend.url()]).set("maxBodyBytes", MIB).start();
    expect_413_for_a_whole_upload(&proxy);
    assert_eq!(backend.requests().len(), 0);
}

#[test]
fn an_early_response_is_seen_while_the_body_still_waits() {
    let gate = Arc::new(Gate::default());
    let inner = Arc::clone(&gate);
    let backend = Backend::raw(move |conn| {
        let Some(head) = conn.head() else { return };
        conn.send(canned::ok("already"));
        inner.pass();
        let mut body = Vec::new();
        let ended = conn.body(&head, &mut |piece| body.extend_from_slice(piece));
        // The proxy may end the upload with the answer, or bring it to its end.
        assert!(matches!(ended, Ok(()) | Err(How::Closed | How::Reset)), "{ended:?} after {body:?}");
    });
    let proxy = Setup::for_backends([backend.url()]).start();
    let mut client = proxy.client();
    client.send(format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 10\r\n\r\nhello"));
    client.response_to("POST").expect_ok("already");
    gate.open();
}
