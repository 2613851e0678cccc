//! Workers that hand over to others at any moment.

use super::*;
use crate::base::counters::Counter;
use std::io::ErrorKind;

pub(super) const UPGRADE: &str = "GET /t HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n";
pub(super) const SWITCH: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n";

/// Another process, which accepts idle clients only.
fn outside_target(sender: crossbeam_channel::Sender<Departure>) -> DrainTarget {
    DrainTarget::Outside(OutsideTarget { sender, takes_running: false })
}

/// The idle clients of a departure.
fn idle_clients(departure: Departure) -> Vec<MigratingConnection> {
    match departure {
        Departure::Idle(clients) => clients,
        other => panic!("not idle: {other:?}"),
    }
}

impl Stage {
    /// Puts a successor in the worker's slot, and has the worker hand over to this drain target, or to the successor.
    pub(super) fn replace(&mut self, drain_target: Option<DrainTarget>) {
        let (mut worker, commands) = self.another();
        worker.begin();
        self.old.push(std::mem::replace(&mut self.worker, worker));
        let old_orders = std::mem::replace(&mut self.commands, commands);
        old_orders.send(WorkerCommand::HandOver(
            drain_target.unwrap_or_else(|| DrainTarget::Worker(self.handoff.clone(), self.commands.clone())),
        ));
    }

    /// A worker of the same slot.
    fn another(&self) -> (Worker, MailboxSender<WorkerCommand>) {
        worker(&self.listener, &self.handoff, &self.directory, self.clock, self.max_sockets, self.drain_timeout)
    }

    #[track_caller]
    pub(super) fn until_left(&mut self) {
        self.until("the old worker's end", |stage| stage.old.is_empty().then_some(()));
    }

    /// A client that has a tunnel, and the backend's end of it.
    fn tunnel(&mut self) -> (TcpStream, TcpStream) {
        let mut client = self.client(UPGRADE);
        let mut backend = self.accepted();
        backend.write_all(SWITCH).expect("a switch");
        self.expect_response(&mut client, "HTTP/1.1 101 ");
        (client, backend)
    }

    /// Bytes sent on `from` arrive at `to`.
    #[track_caller]
    fn expect_passage(&mut self, from: &mut TcpStream, to: &mut TcpStream, bytes: &[u8]) {
        let pair = [&*from, &*to];
        pair.iter().for_each(|stream| stream.set_nonblocking(true).expect("a stream that can be asked"));
        let (mut sent, mut got, mut room) = (0, Vec::new(), [0; 65_536]);
        self.until("the bytes arrive", |_| {
            sent += from.write(&bytes[sent..]).unwrap_or(0);
            match to.read(&mut room) {
                Ok(count) => got.extend_from_slice(&room[..count]),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "after {} bytes", got.len()),
            }
            (got.len() >= bytes.len()).then_some(())
        });
        assert!(got == bytes, "other bytes arrived");
    }
}

#[test]
fn tunnels_are_counted_where_they_are() {
    let mut stage = Stage::new("counted", 10);
    let (client, backend) = stage.tunnel();
    assert_eq!(stage.worker.tally.tunnels, 1);
    stage.replace(None);
    stage.until_left();
    assert_eq!(stage.worker.tally.tunnels, 1, "it has moved");
    drop((client, backend));
    stage.until("the tunnel ends", |stage| (stage.worker.tally.tunnels == 0).then_some(()));
    assert_eq!(stage.worker.tally, stats::Tally::default());
}

#[test]
fn an_idle_client_is_served_on_by_the_successor() {
    let mut stage = Stage::new("idle", 10);
    let mut silent = TcpStream::connect(stage.address).expect("a connection");
    stage.until("the silent one is let in", |stage| (stage.worker.clients.len() == 1).then_some(()));
    let mut client = stage.client(&request("/first"));
    stage.accepted().write_all(OK).expect("a response");
    stage.expect_response(&mut client, "HTTP/1.1 200 ");
    stage.replace(None);
    stage.until_left();
    assert_eq!(stage.worker.clients.len(), 2, "a client without any bytes moves too");
    assert_eq!(stage.worker.counters.get(Counter::MigratedConnections), 2);
    for client in [&mut client, &mut silent] {
        patient(client.try_clone().expect("a handle")).write_all(request("/next").as_bytes()).expect("a request");
        stage.accepted().write_all(OK).expect("a response");
        stage.expect_response(client, "HTTP/1.1 200 ");
    }
}

#[test]
fn a_request_under_way_ends_where_it_began_and_then_its_client_moves() {
    let mut stage = Stage::new("under-way", 10);
    let mut client = stage.client(&request("/first"));
    let mut backend = stage.accepted();
    stage.replace(None);
    stage.turn();
    assert_eq!(stage.old.len(), 1, "it waits for the response");
    client.write_all(request("/second").as_bytes()).expect("a request");
    backend.write_all(OK).expect("a response");
    stage.expect_response(&mut client, "HTTP/1.1 200 ");
    drop(backend);
    stage.accepted().write_all(OK).expect("a response");
    stage.expect_response(&mut client, "HTTP/1.1 200 ");
    stage.until_left();
    assert_eq!(stage.worker.clients.len(), 1);
}

#[test]
fn a_tunnel_goes_on_with_what_is_under_way_in_it() {
    let mut stage = Stage::new("tunnel", 10);
    let (mut client, mut backend) = stage.tunnel();
    // Both sockets are full, and each side has buffered bytes of the other one.
    for stream in [&client, &backend] {
        stream.set_nonblocking(true).expect("a stream that can be asked");
    }
    let flood = vec![b'x'; 1 << 20];
    let mut floods = [0_usize; 2];
    for _ in 0..400 {
        for (stream, sent) in [&mut client, &mut backend].into_iter().zip(&mut floods) {
            *sent += stream.write(&flood).unwrap_or(0);
        }
        stage.turn();
    }
    assert!(stage.worker.core.buffers.lent() >= 2, "there are backlogs");
    let grown = stage.worker.core.buffers.grown();
    let kept: usize = stage.worker.jobs.values().map(|job| job.exchange.buffer_usage().grown).sum();
    assert_eq!(grown, kept, "what the tunnel keeps is all that there is");
    assert!(grown > 50_000 && stage.worker.held_bytes() > grown, "they are accounted for: {grown} bytes");
    stage.replace(None);
    stage.until_left();
    assert!(stage.worker.core.buffers.lent() >= 2, "the backlogs came along");
    let mut room = vec![0; 1 << 20];
    for (stream, expected) in [(&mut backend, floods[0]), (&mut client, floods[1])] {
        let mut got = 0;
        stage.until("the flood", |_| {
            got += stream.read(&mut room).unwrap_or(0);
            (got == expected).then_some(())
        });
    }
    for _ in 0..3 {
        stage.expect_passage(&mut client, &mut backend, b"up");
        stage.expect_passage(&mut backend, &mut client, b"down");
        stage.replace(None);
    }
    drop(backend);
    stage.until("the tunnel ends", |stage| stage.worker.clients.is_empty().then_some(()));
    assert_eq!(stage.worker.core.buffers.lent(), 0);
    assert!(stage.worker.jobs.is_empty() && stage.worker.upstreams.is_empty() && stage.worker.timers.is_empty());
}

/// One side of the tunnel has ended before the move; the other ends after it.
#[test]
fn half_a_tunnel_goes_on_too() {
    let mut stage = Stage::new("half", 10);
    let (mut client, mut backend) = stage.tunnel();
    client.shutdown(std::net::Shutdown::Write).expect("an end");
    backend.set_nonblocking(true).expect("a backend that can be asked");
    stage.until("the end", |_| matches!(backend.read(&mut [0]), Ok(0)).then_some(()));
    stage.replace(None);
    stage.until_left();
    stage.expect_passage(&mut backend, &mut client, b"last words");
    drop(backend);
    stage.until("the tunnel ends", |stage| stage.worker.clients.is_empty().then_some(()));
}

#[test]
fn a_tunnel_that_is_to_end_knows_it_after_the_move() {
    let mut stage = Stage::new("retiring", 10);
    let (_client, _backend) = stage.tunnel();
    let job = stage.worker.jobs.keys().next().expect("a tunnel");
    let due = stage.clock.now() + PATIENCE;
    stage.worker.tunnel_drain.expect(job, due);
    stage.replace(None);
    stage.until_left();
    assert_eq!(stage.worker.tunnel_drain.next(), due);
}

/// A target outside the process takes idle clients without TLS; the others get a last response, or end by force.
#[test]
fn an_idle_client_leaves_the_process_and_returns_by_its_socket_alone() {
    let mut stage = Stage::new("outside", 10);
    stage.drain_timeout = Duration::from_millis(100);
    stage.replace(None);
    stage.until_left();
    let mut idle = stage.client(&request("/idle"));
    stage.accepted().write_all(OK).expect("a response");
    stage.expect_response(&mut idle, "HTTP/1.1 200 ");
    let mut busy = stage.client(&request("/busy"));
    let mut response = stage.accepted();
    let mut stuck = stage.client(&request("/stuck"));
    let _never = stage.accepted();
    let (mut tunnel, _other_end) = stage.tunnel();
    let (out, outside) = crossbeam_channel::unbounded();
    stage.replace(Some(outside_target(out)));
    let mut plain = Vec::new();
    stage.turn();
    plain.extend(outside.try_iter().flat_map(idle_clients).filter_map(MigratingConnection::into_portable));
    assert_eq!(plain.len(), 1);
    response.write_all(OK).expect("a response");
    stage.until_left();
    plain.extend(outside.try_iter().flat_map(idle_clients).filter_map(MigratingConnection::into_portable));
    assert_eq!(plain.len(), 2, "the busy clients come later");
    stage.expect_response(&mut stuck, "HTTP/1.1 503 ");
    stage.until("the tunnel's end", |_| matches!(tunnel.read(&mut [0]), Ok(0)).then_some(()));
    stage.expect_response(&mut busy, "HTTP/1.1 200 ");
    stage.handoff.put(plain.into_iter().map(MigratingConnection::from).collect());
    stage.commands.send(WorkerCommand::Arrivals);
    for client in [&mut idle, &mut busy] {
        client.write_all(request("/again").as_bytes()).expect("a request");
        stage.accepted().write_all(OK).expect("a response");
        stage.expect_response(client, "HTTP/1.1 200 ");
    }
}

/// A worker ends before it has read its handoff queue: its successor imports those clients.
#[test]
fn a_client_that_arrives_between_two_workers_waits_for_the_next() {
    let mut stage = Stage::new("between", 10);
    let mut client = stage.client(&request("/first"));
    stage.accepted().write_all(OK).expect("a response");
    stage.expect_response(&mut client, "HTTP/1.1 200 ");
    stage.replace(None);
    let mut first = stage.old.pop().expect("the first worker");
    first.turn(&mut Events::with_capacity(EVENTS)).expect("a turn");
    assert!(first.has_drained() && !stage.handoff.is_empty());
    stage.replace(None);
    drop(stage.old.pop());
    client.write_all(request("/next").as_bytes()).expect("a request");
    stage.accepted().write_all(OK).expect("a response");
    stage.expect_response(&mut client, "HTTP/1.1 200 ");
}

/// A worker that never ran, for lack of a thread, takes no client with it.
#[test]
fn a_client_that_arrives_waits_for_a_worker_that_runs() {
    let mut stage = Stage::new("unborn", 10);
    let mut client = stage.client(&request("/first"));
    stage.accepted().write_all(OK).expect("a response");
    stage.expect_response(&mut client, "HTTP/1.1 200 ");
    stage.commands.send(WorkerCommand::HandOver(DrainTarget::Worker(stage.handoff.clone(), stage.another().1)));
    stage.turn();
    assert!(stage.worker.has_drained() && !stage.handoff.is_empty());
    drop(stage.another());
    stage.replace(None);
    client.write_all(request("/next").as_bytes()).expect("a request");
    stage.accepted().write_all(OK).expect("a response");
    stage.expect_response(&mut client, "HTTP/1.1 200 ");
}

/// Without any drain time requests end, and clients that can move do.
#[test]
fn clients_move_even_with_a_drain_time_of_zero() {
    let mut stage = Stage::new("no-grace", 10);
    stage.drain_timeout = Duration::ZERO;
    stage.replace(None);
    stage.until_left();
    let (mut tunnel, mut other_end) = stage.tunnel();
    let mut idle = stage.client(&request("/idle"));
    stage.accepted().write_all(OK).expect("a response");
    stage.expect_response(&mut idle, "HTTP/1.1 200 ");
    let mut busy = stage.client(&request("/busy"));
    let _never = stage.accepted();
    stage.replace(None);
    stage.until_left();
    stage.expect_response(&mut busy, "HTTP/1.1 503 ");
    assert_eq!(stage.worker.clients.len(), 2);
    stage.expect_passage(&mut tunnel, &mut other_end, b"up");
    idle.write_all(request("/next").as_bytes()).expect("a request");
    stage.accepted().write_all(OK).expect("a response");
    stage.expect_response(&mut idle, "HTTP/1.1 200 ");
    // Tunnels cannot leave the process: they end, and the idle client goes.
    let (out, outside) = crossbeam_channel::unbounded();
    stage.replace(Some(outside_target(out)));
    stage.until_left();
    assert_eq!(outside.try_iter().flat_map(idle_clients).filter_map(MigratingConnection::into_portable).count(), 1);
    stage.until("the tunnel's end", |_| matches!(tunnel.read(&mut [0]), Ok(0)).then_some(()));
}

/// Another slot has no worker: its listeners are served here until it has one again.
#[test]
fn listeners_are_replaced_while_clients_come() {
    let mut stage = Stage::new("doors", 10);
    let elsewhere = Listener::open(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
    let mut waiting = TcpStream::connect(elsewhere.local_address().expect("an address")).expect("a connection");
    waiting.write_all(request("/waits").as_bytes()).expect("a request");
    stage.commands.send(WorkerCommand::Listeners([&stage.listener, &elsewhere].map(batch::listener_socket).into()));
    let mut own = stage.client(&request("/own"));
    for _ in 0..2 {
        stage.accepted().write_all(OK).expect("a response");
    }
    stage.expect_response(&mut waiting, "HTTP/1.1 200 ");
    stage.expect_response(&mut own, "HTTP/1.1 200 ");
    stage.commands.send(WorkerCommand::Listeners(vec![batch::listener_socket(&stage.listener)]));
    stage.turn();
    let mut queued = TcpStream::connect(elsewhere.local_address().expect("an address")).expect("a connection");
    queued.write_all(b"\r\n").expect("a first word");
    let _served = TcpStream::connect(stage.address).expect("a connection");
    stage.until("the own door is open", |stage| (stage.worker.clients.len() == 3).then_some(()));
    assert!(crate::net::listener::has_pending(&elsewhere), "no worker accepts there any more");
}

/// Without a drain target clients are closed as at the end of the process.
#[test]
fn without_a_drain_target_idle_clients_are_closed() {
    let mut stage = Stage::new("no-heir", 10);
    let mut idle = stage.client(&request("/idle"));
    stage.accepted().write_all(OK).expect("a response");
    stage.expect_response(&mut idle, "HTTP/1.1 200 ");
    let mut busy = stage.client(&request("/busy"));
    stage.replace(Some(outside_target(crossbeam_channel::unbounded().0)));
    stage.until("the idle one's end", |_| matches!(idle.read(&mut [0]), Ok(0)).then_some(()));
    stage.accepted().write_all(OK).expect("a response");
    stage.expect_response(&mut busy, "HTTP/1.1 200 ");
    stage.until_left();
}

/// Clients that send requests whole, in pieces and ahead of the responses, a backend that responds at random moments,
/// and a successor at any moment: each request gets its own response, in order.
#[test]
fn no_request_is_lost_at_any_moment_of_a_handover() {
    for seed in 0..8 {
        play(seed);
    }
}

struct Visitor {
    stream: TcpStream,
    number: usize,
    asked: usize,
    /// The rest of a request that was sent in part.
    rest: Vec<u8>,
    responses: Vec<u8>,
}

fn play(seed: u64) {
    const VISITORS: usize = 6;
    const REQUESTS: usize = 12;
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut stage = Stage::new(&format!("play-{seed}"), rng.usize(1..8));
    let connect = |number| {
        let stream = TcpStream::connect(stage.address).expect("a connection");
        stream.set_nonblocking(true).expect("a client that can be asked");
        Visitor { stream, number, asked: 0, rest: Vec::new(), responses: Vec::new() }
    };
    let mut visitors: Vec<Visitor> = (0..VISITORS).map(connect).collect();
    let mut backends: Vec<(TcpStream, Vec<u8>)> = Vec::new();
    let expected = |number| (0..REQUESTS).map(|nth| format!("/{number}/{nth};")).collect::<String>();
    let deadline = stage.clock.now() + PATIENCE;
    loop {
        match rng.u8(..10) {
            0..3 => speak(&mut visitors[rng.usize(..VISITORS)], REQUESTS, &mut rng),
            3..6 => response(&stage.backend, &mut backends, &mut rng),
            6 if rng.u8(..4) == 0 && stage.old.len() < 3 => stage.replace(None),
            _ => stage.turn(),
        }
        visitors.iter_mut().for_each(|visitor| listen(visitor, seed));
        let bodies = |visitor: &Visitor| {
            let text = String::from_utf8_lossy(&visitor.responses).into_owned();
            text.split("\r\n\r\n")
                .skip(1)
                .filter_map(|rest| rest.split_inclusive(';').next().map(str::to_owned))
                .collect::<String>()
        };
        if visitors.iter().all(|visitor| bodies(visitor) == expected(visitor.number)) {
            return;
        }
        let late = stage.clock.now() >= deadline;
        assert!(!late, "seed {seed}: {:?}", visitors.iter().map(bodies).collect::<Vec<_>>());
    }
}

fn speak(visitor: &mut Visitor, requests: usize, rng: &mut fastrand::Rng) {
    if visitor.rest.is_empty() && visitor.asked < requests {
        visitor.rest = request(&format!("/{}/{}", visitor.number, visitor.asked)).into_bytes();
        visitor.asked += 1;
    }
    let len = if rng.bool() { visitor.rest.len() } else { rng.usize(..=visitor.rest.len()) };
    let sent = visitor.stream.write(&visitor.rest[..len]).unwrap_or(0);
    visitor.rest.drain(..sent);
}

fn listen(visitor: &mut Visitor, seed: u64) {
    let mut room = [0; 4096];
    match visitor.stream.read(&mut room) {
        Ok(0) => panic!("seed {seed}: visitor {} was closed", visitor.number),
        Ok(count) => visitor.responses.extend_from_slice(&room[..count]),
        Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "seed {seed}: visitor {}", visitor.number),
    }
}

/// One connection of the backend reads, and responds to each complete request with its path.
fn response(listener: &TcpListener, backends: &mut Vec<(TcpStream, Vec<u8>)>, rng: &mut fastrand::Rng) {
    while let Ok((stream, _)) = listener.accept() {
        stream.set_nonblocking(true).expect("a connection that can be asked");
        backends.push((stream, Vec::new()));
    }
    if backends.is_empty() {
        return;
    }
    let place = rng.usize(..backends.len());
    let (stream, heard) = &mut backends[place];
    let mut room = [0; 4096];
    match stream.read(&mut room) {
        Ok(0) => return drop(backends.swap_remove(place)),
        Ok(count) => heard.extend_from_slice(&room[..count]),
        Err(_) => {}
    }
    if let Some(end) = heard.windows(4).position(|window| window == b"\r\n\r\n") {
        let head: Vec<u8> = heard.drain(..end + 4).collect();
        let head = String::from_utf8_lossy(&head);
        let path = head.split(' ').nth(1).unwrap_or_default();
        let body = format!("{path};");
        let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        // Fails where the proxy has closed a connection that it no longer needed.
        let _ = stream.write(response.as_bytes());
    }
}
