//! The harness against itself: the client talks to the backend with no proxy between.

use crate::support::backend::Backend;
use crate::support::client::{Client, connect};
use crate::support::message::{Framing, How};
use crate::support::{HOST, body, canned, unused_address};
use std::net::TcpStream;

fn client_of(backend: &Backend) -> Client {
    Client::over(Box::new(connect(backend.address(), None)))
}

#[test]
fn requests_are_recorded_byte_by_byte() {
    let backend = Backend::always(canned::ok("hello"));
    let mut client = client_of(&backend);
    let request = "POST /x HTTP/1.1\r\nHost: a\r\ntransfer-ENCODING: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nT: 1\r\n\r\n";
    client.exchange(request).expect_ok("hello");
    client.send_bytewise(canned::get(HOST, "/second"));
    client.response_to("GET").expect_ok("hello");
    let requests = backend.requests();
    assert_eq!(requests[0].wire, request.as_bytes());
    assert_eq!((requests[0].body.as_slice(), requests[0].trailers.len()), (&b"abc"[..], 1));
    assert_eq!(requests[0].head.names(), ["Host", "transfer-ENCODING"]);
    assert_eq!(requests[1].wire, canned::get(HOST, "/second").into_bytes());
    assert_eq!((requests[1].connection, requests[1].turn), (0, 1));
    assert_eq!((backend.connections(), backend.heads()), (1, 2));
}

#[test]
fn bodies_of_every_framing_are_read() {
    let informational = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    let table = [
        (canned::ok("abc"), Framing::Length(3)),
        (canned::chunked(&["a", "bc"]), Framing::Chunked),
        (b"HTTP/1.1 200 OK\r\n\r\nabc".to_vec(), Framing::UntilClose),
    ];
    for (response, framing) in table {
        let backend = Backend::closing([informational.as_bytes(), &response].concat());
        let mut client = client_of(&backend);
        let found = client.get(HOST, "/");
        found.expect_ok("abc");
        assert_eq!((found.framing, found.informational.len()), (framing, 1));
        client.expect_closed();
    }
}

#[test]
fn a_truncated_body_is_told_from_a_complete_one() {
    for response in ["Content-Length: 10\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"] {
        let backend = Backend::closing(format!("HTTP/1.1 200 OK\r\n{response}"));
        let mut client = client_of(&backend);
        client.send(canned::get(HOST, "/"));
        let ended = client.try_response_to("GET").expect_err("a truncated answer");
        assert_eq!((ended.how, ended.received.as_slice()), (How::Closed, &b"abc"[..]));
    }
}

#[test]
fn a_killed_backend_refuses_and_comes_back() {
    let mut backend = Backend::always(canned::ok("up"));
    let mut client = client_of(&backend);
    client.get(HOST, "/").expect_ok("up");
    backend.kill();
    assert!(client.try_response_to("GET").is_err(), "the connection should be over");
    assert!(TcpStream::connect(backend.address()).is_err(), "the port should be closed");
    backend.start();
    client_of(&backend).get(HOST, "/").expect_ok("up");
    assert!(TcpStream::connect(unused_address()).is_err(), "an unused address should refuse");
}

#[test]
fn a_reset_is_seen() {
    let backend = Backend::serve(|_, conn| conn.reset());
    let mut client = client_of(&backend);
    client.send(canned::get(HOST, "/"));
    assert_eq!(client.try_response_to("GET").expect_err("no answer").how, How::Reset);
}

#[test]
fn the_pattern_shows_a_wrong_byte() {
    let mut whole = Vec::new();
    body::write_pattern(&mut whole, 200_000).expect("writing to memory");
    let mut checker = body::Checker::default();
    whole.chunks(777).for_each(|piece| checker.take(piece));
    checker.expect(200_000);
    whole.swap(100_000, 100_001);
    let mut checker = body::Checker::default();
    checker.take(&whole);
    assert!(std::panic::catch_unwind(|| checker.expect(200_000)).is_err(), "two bytes are swapped");
}
