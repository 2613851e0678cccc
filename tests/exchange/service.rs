//! Requests for this node itself: a response from memory, at the client's pace.

use super::*;
use sluice::exchange::{ServiceBody, ServiceResponse, ServiceStream, StreamWatch};

fn asked(request: &str) -> Scene {
    let mut scene = Scene::new(settings());
    scene.exchange.make_for_service();
    assert_eq!(scene.tell(Input::Bytes(Side::Client, request.as_bytes())), request.len());
    assert!(matches!(scene.core.output.effects.take_first(), Some(Effect::AskService)));
    scene
}

fn response(len: usize) -> Box<ServiceResponse> {
    let body: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
    Box::new(ServiceResponse { status: 200, fields: "X: y\r\n".to_owned(), body: body.into(), stream: None })
}

#[test]
fn a_large_response_is_never_held_as_a_whole_and_comes_whole() {
    let mut scene = asked("GET /v1/x?y HTTP/1.1\r\nHost: a\r\n\r\n");
    let request = scene.exchange.take_service_request().expect("the request");
    assert_eq!((request.method.as_str(), request.target.as_str()), ("GET", "/v1/x?y"));
    assert_eq!(scene.exchange.take_service_request(), None, "it is taken once");
    let expected = response(1_000_000);
    scene.tell(Input::Service(expected.clone()));
    let head = b"HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 1000000\r\n\r\n";
    let mut received = Vec::new();
    let mut blocked = 0;
    while received.len() < expected.body.len() || scene.core.output.has_bytes() {
        let (flushed, bytes) = scene.send(Side::Client, 10_000);
        received.extend_from_slice(&bytes);
        blocked += usize::from(flushed == Flushed::Blocked);
        let left = expected.body.len() - received.len().saturating_sub(head.len());
        let held = scene.exchange.buffered_bytes();
        // All that has yet to leave counts as held, and no more than a piece of it lies in the output.
        assert!(held <= left + head.len() && held + 65 * 1024 >= left, "{held} bytes, {left} left");
        assert!(scene.exchange.pending_write(Side::Client).len() <= 65 * 1024);
        if flushed == Flushed::All && scene.exchange.waits_for_drain(Side::Client) {
            scene.tell(Input::Drained(Side::Client));
        }
    }
    assert!(received.starts_with(head));
    assert!(received[head.len()..] == *expected.body && blocked > 50);
    assert!(matches!(*scene.core.output.effects, [Effect::Finish(Disposition::KeepAlive)]));
}

#[test]
fn a_response_to_head_has_no_body_and_the_end_of_one_that_closes_is_its_clients() {
    let mut scene = asked("HEAD / HTTP/1.0\r\nHost: a\r\n\r\n");
    scene.exchange.take_service_request().expect("the request");
    scene.tell(Input::Service(response(5)));
    let (_, bytes) = scene.send(Side::Client, usize::MAX);
    assert!(bytes.ends_with(b"Content-Length: 5\r\nConnection: close\r\n\r\n"), "{}", bytes.escape_ascii());
}

#[test]
fn a_body_is_gathered_without_its_coding_and_has_a_limit() {
    let post = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut scene = Scene::new(settings());
    scene.exchange.make_for_service();
    scene.tell(Input::Bytes(Side::Client, post.as_bytes()));
    assert!(scene.exchange.wants(Side::Client) && scene.core.output.effects.is_empty());
    let body = b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    assert_eq!(scene.tell(Input::Bytes(Side::Client, body)), body.len());
    assert_eq!(scene.exchange.take_service_request().expect("the request").body, b"abcde");

    let mut scene = Scene::new(settings());
    scene.exchange.make_for_service();
    scene.tell(Input::Bytes(Side::Client, post.as_bytes()));
    scene.tell(Input::Bytes(Side::Client, format!("10001\r\n{}\r\n", "x".repeat(0x10001)).as_bytes()));
    assert_eq!(scene.exchange.stats().reason, Some(FailureReason::BodyTooLarge));
}

#[test]
fn a_service_that_does_not_respond_is_given_up_and_its_late_response_is_nobodys() {
    let mut scene = asked("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    scene.exchange.take_service_request().expect("the request");
    assert_eq!(scene.exchange.deadline(), Moment::ZERO + 20 * SECOND);
    scene.core.now = scene.exchange.deadline();
    scene.tell(Input::Deadline);
    assert_eq!(scene.exchange.stats().reason, Some(FailureReason::ServiceTimeout));
    let (_, page) = scene.send(Side::Client, usize::MAX);
    assert!(page.starts_with(b"HTTP/1.1 503 "));
    scene.tell(Input::Service(response(5)));
    assert!(!scene.core.output.has_bytes());
}

/// A scene whose response is a stream that begins with this part.
fn streaming(request: &str, first: &str) -> (Scene, StreamWatch) {
    let mut scene = asked(request);
    scene.exchange.take_service_request().expect("the request");
    let (stream, watch) = ServiceStream::new();
    let body = first.as_bytes().to_vec().into();
    scene.tell(Input::Service(Box::new(ServiceResponse { body, stream: Some(stream), ..*response(0) })));
    (scene, watch)
}

fn part(text: &str) -> Input<'static> {
    Input::ServicePart(Some(ServiceBody::from(text.as_bytes().to_vec())))
}

#[test]
fn parts_of_a_stream_leave_as_they_come_until_the_service_ends_it() {
    let (mut scene, watch) = streaming("GET /v1/events HTTP/1.1\r\nHost: a\r\n\r\n", "one\n");
    let (flushed, bytes) = scene.send(Side::Client, usize::MAX);
    assert_eq!(bytes, b"HTTP/1.1 200 OK\r\nX: y\r\nConnection: close\r\n\r\none\n");
    assert_eq!(flushed, Flushed::All);
    scene.tell(Input::Drained(Side::Client));
    assert_eq!(scene.exchange.deadline(), Moment::ZERO + 20 * SECOND, "the next part is waited for");
    scene.tell(part("two\n"));
    assert_eq!(scene.send(Side::Client, usize::MAX).1, b"two\n");
    scene.tell(Input::Drained(Side::Client));
    assert!(watch.is_open() && scene.exchange.is_service_stream() && !scene.exchange.wants(Side::Client));
    scene.tell(Input::ServicePart(None));
    assert!(!watch.is_open());
    assert!(matches!(*scene.core.output.effects, [Effect::Finish(Disposition::Linger { .. })]));
}

#[test]
fn a_client_that_does_not_take_a_part_misses_the_next_and_is_dropped_in_the_end() {
    let (mut scene, watch) = streaming("GET /v1/events HTTP/1.1\r\nHost: a\r\n\r\n", &"x".repeat(300_000));
    let (flushed, _) = scene.send(Side::Client, 1000);
    assert_eq!(flushed, Flushed::Blocked);
    let held = scene.exchange.buffered_bytes();
    scene.tell(part("left out"));
    assert!(!scene.core.output.has_bytes() && scene.exchange.buffered_bytes() == held, "nothing is added");
    scene.core.now = scene.exchange.deadline();
    scene.tell(Input::Deadline);
    assert_eq!(scene.exchange.stats().reason, Some(FailureReason::ClientStalled));
    assert!(!watch.is_open(), "the service learns of it");
}

#[test]
fn a_stream_ends_where_the_service_is_silent_or_only_the_head_was_asked_for() {
    let (mut scene, watch) = streaming("GET /v1/events HTTP/1.1\r\nHost: a\r\n\r\n", "");
    scene.send(Side::Client, usize::MAX);
    scene.tell(Input::Drained(Side::Client));
    scene.core.now = scene.exchange.deadline();
    scene.tell(Input::Deadline);
    assert!(!watch.is_open() && scene.exchange.stats().reason.is_none());
    let (mut scene, watch) = streaming("HEAD /v1/events HTTP/1.1\r\nHost: a\r\n\r\n", "one");
    assert!(!watch.is_open());
    assert!(scene.send(Side::Client, usize::MAX).1.ends_with(b"\r\nConnection: close\r\n\r\n"));
}
