//! Events of one poll are handled in stages: the results for connections in the same batch.

use super::end::End;
use super::*;
use crate::exchange::Input;

/// A handle of this socket for a worker, of a plain listener.
pub(super) fn listener_socket(listener: &Listener) -> ListenerSocket {
    let socket = listener.for_worker().expect("a handle");
    ListenerSocket { socket, secure: None, is_for_service: false, is_ruled: false, is_local: false }
}

/// A request ends between the stages of its batch: its bytes go to no other connection.
#[test]
fn bytes_of_a_finished_request_reach_no_other_connection() {
    let mut stage = Stage::new("gone", 10);
    let mut clients: Vec<_> = (0..3).map(|number| stage.client(&request(&format!("/{number}")))).collect();
    stage.watch();
    let jobs: Vec<SlotKey> = stage.worker.jobs.keys().collect();
    let mut backends: Vec<_> = (0..3).map(|_| stage.accepted()).collect();
    for (number, backend) in backends.iter_mut().enumerate() {
        let response = format!("HTTP/1.1 20{number} OK\r\nContent-Length: 2000\r\n\r\n{}", "x".repeat(2000));
        backend.write_all(response.as_bytes()).expect("a response");
    }
    let worker = &mut stage.worker;
    let mut events = Events::with_capacity(EVENTS);
    while worker.batch.len() < 3 {
        worker.poll.poll(&mut events, Some(PATIENCE)).expect("events");
        assert!(!events.is_empty(), "waited in vain for the responses");
        events.iter().for_each(|event| worker.take_event(event));
    }
    worker.dispatch(jobs[1], Input::Abort(FailureReason::SocketsExhausted));
    assert!(worker.jobs.get(jobs[1]).is_none(), "it is over");
    worker.finish_batch();
    for (client, status) in clients.iter_mut().zip(["200", "503", "202"]) {
        stage.expect_response(client, &format!("HTTP/1.1 {status} "));
    }
    assert_eq!((stage.worker.jobs.len(), stage.worker.core.buffers.lent()), (0, 0));
    assert_eq!(stage.worker.upstreams.len(), 2, "its connection is closed, and no other");
}

/// Clients of one batch that do not read: bytes that their sockets refuse follow later, in order and complete.
#[test]
fn bytes_refused_by_full_sockets_follow_later() {
    const LENGTH: usize = 16 << 20;
    let mut stage = Stage::new("full", 10);
    let ask = |number: usize| match number {
        2 => format!("GET /{number} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
        _ => request(&format!("/{number}")),
    };
    let mut clients: Vec<_> = (0..3).map(|number| End::new(stage.client(&ask(number)))).collect();
    stage.watch();
    let mut backends: Vec<_> = (0..3).map(|_| stage.accepted()).collect();
    let body = |number: u8| (0..251).cycle().take(LENGTH).map(move |step| step ^ number);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n");
    let responses = [0, 1, 2].map(|number| head.bytes().chain(body(number)).collect::<Vec<u8>>());
    let mut sent = [0; 3];
    let mut response = |at_once: usize| {
        for ((backend, response), sent) in backends.iter_mut().zip(&responses).zip(&mut sent) {
            backend.set_nonblocking(true).expect("a backend that can be asked");
            let end = response.len().min(*sent + at_once);
            *sent += backend.write(&response[*sent..end]).unwrap_or(0);
        }
    };
    // The amounts are so small that the bytes for all of them are one batch.
    stage.until("all sockets are full", |stage| {
        response(8000);
        let is_full = |job: &ActiveExchange| !job.exchange.pending_write(Side::Client).is_empty();
        stage.worker.jobs.values().all(is_full).then_some(())
    });
    assert_eq!(stage.worker.batch.largest(), 3, "they were in one batch");
    stage.until("the responses have come", |_| {
        response(LENGTH);
        clients.iter_mut().for_each(End::work);
        clients.iter().all(|client| client.inbox.len() >= LENGTH).then_some(())
    });
    stage.until("all is over", |stage| {
        clients.iter_mut().for_each(End::work);
        (stage.worker.jobs.is_empty() && clients[2].is_over).then_some(())
    });
    for (number, client) in (0..).zip(&clients) {
        let (head, got) = client.inbox.split_at(client.inbox.len() - LENGTH);
        assert!(got.iter().copied().eq(body(number)), "the body of response {number}");
        assert!(head.len() < 200, "one response, {number}");
    }
    assert_eq!(stage.worker.core.buffers.lent(), 0);
}

/// A response in very small chunks is copied as a whole, wherever in a batch it stands; its memory is freed again.
#[test]
fn a_batch_holds_no_memory_for_ever() {
    let mut stage = Stage::new("room", 10);
    let client = stage.client(&request("/"));
    let mut backend = stage.accepted();
    let before = stage.worker.held_bytes();
    let chunks = b"10\r\n0123456789abcdef\r\n".repeat(100_000);
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let response = [&head[..], &chunks, b"0\r\n\r\n"].concat();
    backend.set_nonblocking(true).expect("a backend that can be asked");
    let mut sent = 0;
    let mut end = End::new(client);
    stage.until("the response", |_| {
        sent += backend.write(&response[sent..]).unwrap_or(0);
        end.work();
        end.inbox.ends_with(b"\r\n0\r\n\r\n").then_some(())
    });
    let grown = stage.worker.core.output.room() + stage.worker.batch.room();
    assert!(grown > 100_000, "{grown} bytes");
    stage.worker.report(1);
    let kept = stage.worker.core.output.room() + stage.worker.batch.room();
    assert!(kept <= 64 * 1024, "{kept} bytes");
    assert!(stage.worker.held_bytes() <= before + kept, "what is held is told");
}
