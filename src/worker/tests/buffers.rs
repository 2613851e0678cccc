//! Buffers of clients that send much at once, and of slow clients.

use super::*;
use crate::worker::read_size::SMALLEST_READ;

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const PING: &[u8] = b"GET / HTTP/1.1\r\nHost: __ping__\r\n\r\n";

/// Socket buffer size at either end of a connection.
const SYSTEM_BUFFER: usize = 64 * 1024;

/// Number of client bytes that the worker has read and not consumed.
fn unread(stage: &Stage) -> usize {
    let clients = stage.worker.clients.keys().filter_map(|key| stage.worker.clients.get(key));
    clients.map(|client| client.stream.unread.len()).sum()
}

#[test]
fn little_is_read_behind_a_request_that_is_under_way() {
    let mut stage = Stage::new("behind", 10);
    let upload = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n";
    for (request, body) in [(GET, 0), (upload, 100_000)] {
        let mut client = stage.client(std::str::from_utf8(request).expect("text"));
        client.set_nonblocking(true).expect("a client that can be asked");
        let mut backend = stage.accepted();
        backend.set_nonblocking(true).expect("a backend that can be asked");
        let all = [vec![b'x'; body], GET.repeat(20_000)].concat();
        let (mut sent, mut got, mut most) = (0, 0, 0);
        for _ in 0..500 {
            sent += client.write(&all[sent..]).unwrap_or(0);
            got += backend.read(&mut [0; 65_536]).unwrap_or(0);
            stage.turn();
            most = most.max(unread(&stage));
        }
        assert!(got >= body, "{got} of {body}");
        assert!(most <= SMALLEST_READ, "{most} bytes");
        stage.until("no one is left", |stage| {
            client.shutdown(std::net::Shutdown::Both).ok();
            drop(backend.write(OK));
            stage.worker.jobs.is_empty().then_some(())
        });
        assert_eq!((stage.worker.core.buffers.lent(), stage.worker.core.buffers.grown()), (0, 0));
    }
}

/// All requests get a response, and the rest of a read stays in place: as many copies as requests would be 80 MB.
#[test]
fn many_requests_in_one_read_are_served_where_they_lie() {
    const COUNT: usize = 5000;
    const END: &[u8] = b"\r\n\r\no";
    let mut stage = Stage::new("pipelined", 10);
    let mut client = patient(TcpStream::connect(stage.address).expect("a connection"));
    client.set_nonblocking(true).expect("a client that can be asked");
    let all = PING.repeat(COUNT);
    let (mut sent, mut places, mut responses) = (0, std::collections::HashSet::new(), Vec::new());
    let mut room = [0; 65_536];
    let (mut count, mut counted) = (0, 0);
    stage.until("the responses", |stage| {
        sent += client.write(&all[sent..]).unwrap_or(0);
        let clients = stage.worker.clients.keys().filter_map(|key| stage.worker.clients.get(key));
        places.extend(clients.map(|client| client.stream.unread.lent().grown));
        let read = client.read(&mut room).unwrap_or(0);
        responses.extend_from_slice(&room[..read]);
        // Only new bytes are checked: a full check each time takes longer than everything else.
        let new = &responses[counted..];
        count += new.windows(END.len()).filter(|it| *it == END).count();
        counted += new.len().saturating_sub(END.len() - 1);
        (count >= COUNT).then_some(())
    });
    // A copy of the rest would have the size of the rest, and each request would make another.
    assert!(places.len() < COUNT / 10, "{} sizes", places.len());
    drop(client);
    stage.until("it has left", |stage| stage.worker.clients.is_empty().then_some(()));
    assert_eq!(stage.worker.core.buffers.lent(), 0);
}

#[test]
fn half_a_head_leaves_nothing_behind() {
    let mut stage = Stage::new("half", 10);
    for _ in 0..3 {
        drop(stage.client("GET / HTTP/1.1\r\nHos"));
        stage.until("it has left", |stage| stage.worker.clients.is_empty().then_some(()));
        assert_eq!(stage.worker.core.buffers.lent(), 0);
    }
}

/// Many clients do not read their responses. The ones that have held most for the longest are ended, and a client that
/// reads is served.
#[test]
fn slow_readers_have_a_budget_together() {
    let mut stage = Stage::new("budget", 100);
    // Buffers of the system that do not grow: else it takes up to 10 MB of each response before any is kept here, in steps
    // that wait for its timers where the machine is busy.
    SockRef::from(&stage.listener).set_send_buffer_size(SYSTEM_BUFFER).expect("a size");
    let mut slow: Vec<(TcpStream, TcpStream)> = Vec::new();
    let body = vec![b'x'; 1 << 20];
    for _ in 0..20 {
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        client.set_recv_buffer_size(SYSTEM_BUFFER).expect("a size");
        client.connect(&stage.address.into()).expect("a connection");
        let mut client = patient(client.into());
        client.write_all(GET).expect("a request");
        let mut backend = stage.accepted();
        backend.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").expect("a head");
        backend.set_nonblocking(true).expect("a backend that can be asked");
        slow.push((client, backend));
    }
    stage.until("every client holds bytes", |stage| {
        slow.iter_mut().for_each(|(_, backend)| _ = backend.write(&body));
        stage.worker.jobs.keys().all(|job| stage.worker.buffered_bytes(job).is_some()).then_some(())
    });
    let held = stage.worker.core.buffers.grown();
    assert!(!stage.worker.is_short_of_buffers());
    stage.worker.settings.max_buffer_bytes = held / 2;
    assert!(stage.worker.is_short_of_buffers());
    let jobs: Vec<SlotKey> = stage.worker.jobs.keys().collect();
    let loads: Vec<_> = jobs.iter().map(|job| (*job, stage.worker.buffered_bytes(*job).expect("a burden"))).collect();
    stage.worker.shed_buffers();
    assert!(stage.worker.core.buffers.grown() <= held / 2, "{} of {held}", stage.worker.core.buffers.grown());
    let (left, gone): (Vec<_>, Vec<_>) = loads.iter().partition(|(job, _)| stage.worker.jobs.get(*job).is_some());
    assert_eq!(stage.worker.counters.get_reason(FailureReason::BufferLimit), gone.len() as u64);
    let most_left = left.iter().map(|(_, buffered_bytes)| *buffered_bytes).max().expect("a client that is left");
    assert!(
        gone.iter().all(|(_, buffered_bytes)| *buffered_bytes >= most_left),
        "{gone:?} have gone, {left:?} have not"
    );
    let mut quick = stage.client(std::str::from_utf8(GET).expect("text"));
    stage.accepted().write_all(OK).expect("a response");
    stage.expect_response(&mut quick, "HTTP/1.1 200 ");
}

/// Some clients send CRLF behind a body: it causes neither an endless request nor an error page.
#[test]
fn a_blank_line_is_no_request() {
    let mut stage = Stage::new("blank", 10);
    let mut client = stage.client(&["\r\n\r\n", std::str::from_utf8(GET).expect("text"), "\r\n"].concat());
    for lines in [&b"\r\n"[..], b"\r\n\r\n"] {
        stage.accepted().write_all(OK).expect("a response");
        stage.expect_response(&mut client, "HTTP/1.1 200 ");
        client.write_all(lines).expect("blank lines");
        for _ in 0..20 {
            stage.turn();
        }
        assert!(stage.worker.jobs.is_empty(), "no request has begun");
        assert_eq!((stage.worker.core.buffers.lent(), stage.worker.clients.len()), (0, 1));
        client.write_all(GET).expect("a request");
        stage.until("a request", |stage| (!stage.worker.jobs.is_empty()).then_some(()));
    }
}

/// Many new clients do not delay the accepted ones.
#[test]
fn one_turn_accepts_a_bounded_number_of_clients() {
    const COUNT: usize = 400;
    let mut stage = Stage::new("rush", 10);
    stage.worker.settings.max_connections = 2 * COUNT;
    let come = |_| {
        let mut client = TcpStream::connect(stage.address).expect("a connection");
        client.write_all(b"\r\n").expect("a first word");
        client
    };
    let clients: Vec<_> = (0..COUNT).map(come).collect();
    assert!(stage.worker.accept_some(0), "there are more");
    assert!(stage.worker.clients.len() < COUNT);
    stage.until("all are in", |stage| (stage.worker.clients.len() == COUNT).then_some(()));
    assert!(!stage.worker.accept_some(0));
    drop(clients);
}

/// The head of a response comes in two parts: with the second one the response is complete, and its connection free.
#[test]
fn a_connection_whose_response_came_in_parts_is_used_again() {
    let mut stage = Stage::new("parts", 10);
    let mut client = stage.client(std::str::from_utf8(GET).expect("text"));
    let mut backend = stage.accepted();
    backend.write_all(b"HTTP/1.1 200 OK\r\nContent-").expect("a part");
    stage.until("it is read", |stage| (stage.worker.core.buffers.lent() > 1).then_some(()));
    backend.write_all(b"Length: 2\r\n\r\nok").expect("the rest");
    stage.expect_response(&mut client, "HTTP/1.1 200 ");
    stage.until("it is over", |stage| stage.worker.jobs.is_empty().then_some(()));
    assert_eq!((stage.worker.upstreams.len(), stage.worker.core.buffers.lent()), (1, 0));
}

/// Reads of a long body come to fill whole segments of the client's connection, whatever their size.
#[test]
fn a_large_body_is_read_in_whole_segments() {
    const BYTES: usize = 4 << 20;
    for wanted in [536, 1400, 9000] {
        let mut stage = Stage::new("segments", 10);
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        client.set_tcp_mss(wanted).expect("segments of a size");
        client.connect(&stage.address.into()).expect("a connection");
        let mut client = patient(client.into());
        client.write_all(GET).expect("a request");
        let mut backend = stage.accepted();
        backend.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\n\r\n").as_bytes()).expect("a head");
        for stream in [&client, &backend] {
            stream.set_nonblocking(true).expect("a stream that can be asked");
        }
        let (body, mut room) = (vec![b'x'; 1 << 20], [0; 65_536]);
        let (mut sent, mut got, mut sizes) = (0, 0, Vec::new());
        stage.until("the body", |stage| {
            sent += backend.write(&body[..body.len().min(BYTES - sent)]).unwrap_or(0);
            got += client.read(&mut room).unwrap_or(0);
            let limit = stage.worker.jobs.values().next().map(|job| job.read_size.of(Side::Upstream, |_| 0));
            sizes.extend(limit.filter(|limit| sizes.last() != Some(limit)));
            (got > BYTES).then_some(())
        });
        let client = stage.worker.clients.values().next().expect("a client");
        let segment: usize = client.stream.transport.segment().expect("a size").into();
        assert!(segment <= wanted as usize, "{segment} instead of {wanted}");
        let is_whole = |limit: &usize| limit.is_multiple_of(segment) && *limit > SMALLEST_READ;
        assert!(sizes.iter().any(is_whole), "{sizes:?} of segments of {segment}");
    }
}
