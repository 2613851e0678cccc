//! What the poll tells in one turn is done in stages: what becomes of those who are in one batch.

use super::*;
use crate::exchange::Input;
use std::io::ErrorKind;

/// One end of a connection of the test's: what it has to send, and what it has got.
pub(super) struct End {
    pub(super) stream: TcpStream,
    pub(super) outbox: Vec<u8>,
    pub(super) inbox: Vec<u8>,
    pub(super) is_over: bool,
    /// How many requests have come by it.
    pub(super) served: usize,
}

impl End {
    pub(super) fn new(stream: TcpStream) -> Self {
        stream.set_nonblocking(true).expect("a socket that can be asked");
        stream.set_nodelay(true).expect("an option");
        Self { stream, outbox: Vec::new(), inbox: Vec::new(), is_over: false, served: 0 }
    }

    /// Sends as much as there is room for.
    pub(super) fn send(&mut self) {
        let sent = self.stream.write(&self.outbox).unwrap_or(0);
        self.outbox.drain(..sent);
    }

    /// Sends what there is to send, and takes what has come.
    pub(super) fn work(&mut self) {
        self.send();
        let mut room = [0; 65_536];
        while !self.is_over {
            match self.stream.read(&mut room) {
                Ok(count @ 1..) => self.inbox.extend_from_slice(&room[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Ok(_) | Err(_) => self.is_over = true,
            }
        }
    }

    /// The number of the request that is coming, once that is here.
    pub(super) fn number(&self) -> Option<usize> {
        let line = self.inbox.split(|byte| *byte == b'\r').next().filter(|line| line.len() < self.inbox.len())?;
        Some(number(std::str::from_utf8(line).expect("a request line")))
    }

    /// Takes a message out of what has come, if one is there as a whole: its first line and its body.
    pub(super) fn take_message(&mut self) -> Option<(String, Vec<u8>)> {
        let head_len = self.inbox.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
        let (head, rest) = self.inbox.split_at(head_len);
        let head = std::str::from_utf8(head).expect("a head");
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let (body, len) = match length {
            Some(length) => {
                let length = length.parse().expect("a length");
                (rest.get(..length)?.to_vec(), length)
            }
            None if head.contains("Transfer-Encoding: chunked") => unchunked(rest)?,
            None => (Vec::new(), 0),
        };
        let line = head.lines().next().unwrap_or_default().to_owned();
        self.inbox.drain(..head_len + len);
        Some((line, body))
    }
}

/// The number that stands in a request line.
pub(super) fn number(line: &str) -> usize {
    line.split(['/', ' ']).nth(2).and_then(|number| number.parse().ok()).expect("a number")
}

/// The data of a whole chunked body, and how long it is as it stands.
fn unchunked(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut data, mut at) = (Vec::new(), 0);
    loop {
        let digits = bytes.get(at..)?.windows(2).position(|end| end == b"\r\n")?;
        let size = std::str::from_utf8(&bytes[at..at + digits]).expect("a size");
        let size = usize::from_str_radix(size, 16).expect("a size");
        at += digits + 2;
        data.extend_from_slice(bytes.get(at..at + size)?);
        assert_eq!(bytes.get(at + size..at + size + 2)?, b"\r\n", "the end of a chunk");
        at += size + 2;
        if size == 0 {
            return Some((data, at));
        }
    }
}

/// Whatever ends a request between the stages of its batch: what came for it is nobody's then.
#[test]
fn what_came_for_a_request_that_is_over_reaches_nobody() {
    let mut stage = Stage::new("gone", 10);
    let mut clients: Vec<_> = (0..3).map(|number| stage.client(&request(&format!("/{number}")))).collect();
    stage.watch();
    let jobs: Vec<Key> = stage.worker.jobs.keys().collect();
    let mut backends: Vec<_> = (0..3).map(|_| stage.accepted()).collect();
    for (number, backend) in backends.iter_mut().enumerate() {
        let answer = format!("HTTP/1.1 20{number} OK\r\nContent-Length: 2000\r\n\r\n{}", "x".repeat(2000));
        backend.write_all(answer.as_bytes()).expect("an answer");
    }
    let worker = &mut stage.worker;
    let mut events = Events::with_capacity(EVENTS);
    while worker.batch.len() < 3 {
        worker.poll.poll(&mut events, Some(PATIENCE)).expect("events");
        assert!(!events.is_empty(), "waited in vain for the answers");
        events.iter().for_each(|event| worker.take_event(event));
    }
    worker.tell(jobs[1], Input::Abort(Reason::NoSocket));
    assert!(worker.jobs.get(jobs[1]).is_none(), "it is over");
    worker.finish_batch();
    for (client, status) in clients.iter_mut().zip(["200", "503", "202"]) {
        stage.expect_answer(client, &format!("HTTP/1.1 {status} "));
    }
    assert_eq!((stage.worker.jobs.len(), stage.worker.core.buffers.lent()), (0, 0));
    assert_eq!(stage.worker.upstreams.len(), 2, "its connection is closed, and no other");
}

/// Clients of one batch that do not read: what their sockets do not take follows once they do, in order and to the end.
#[test]
fn what_full_sockets_do_not_take_in_a_batch_follows() {
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
    let answers = [0, 1, 2].map(|number| head.bytes().chain(body(number)).collect::<Vec<u8>>());
    let mut sent = [0; 3];
    let mut answer = |at_once: usize| {
        for ((backend, answer), sent) in backends.iter_mut().zip(&answers).zip(&mut sent) {
            backend.set_nonblocking(true).expect("a backend that can be asked");
            let end = answer.len().min(*sent + at_once);
            *sent += backend.write(&answer[*sent..end]).unwrap_or(0);
        }
    };
    // So little at a time that what comes for all of them is one batch.
    stage.until("all sockets are full", |stage| {
        answer(8000);
        let is_full = |job: &Job| !job.exchange.backlog(Side::Client).is_empty();
        stage.worker.jobs.values().all(is_full).then_some(())
    });
    assert_eq!(stage.worker.batch.largest(), 3, "they were in one batch");
    stage.until("the answers have come", |_| {
        answer(LENGTH);
        clients.iter_mut().for_each(End::work);
        clients.iter().all(|client| client.inbox.len() >= LENGTH).then_some(())
    });
    stage.until("all is over", |stage| {
        clients.iter_mut().for_each(End::work);
        (stage.worker.jobs.is_empty() && clients[2].is_over).then_some(())
    });
    for (number, client) in (0..).zip(&clients) {
        let (head, got) = client.inbox.split_at(client.inbox.len() - LENGTH);
        assert!(got.iter().copied().eq(body(number)), "the body of answer {number}");
        assert!(head.len() < 200, "one answer, {number}");
    }
    assert_eq!(stage.worker.core.buffers.lent(), 0);
}

/// An answer in very small chunks is copied as a whole, wherever in a batch it stands; that room is given back.
#[test]
fn a_batch_holds_no_memory_for_ever() {
    let mut stage = Stage::new("room", 10);
    let client = stage.client(&request("/"));
    let mut backend = stage.accepted();
    let before = stage.worker.held_bytes();
    let chunks = b"10\r\n0123456789abcdef\r\n".repeat(100_000);
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let answer = [&head[..], &chunks, b"0\r\n\r\n"].concat();
    backend.set_nonblocking(true).expect("a backend that can be asked");
    let mut sent = 0;
    let mut end = End::new(client);
    stage.until("the answer", |_| {
        sent += backend.write(&answer[sent..]).unwrap_or(0);
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
