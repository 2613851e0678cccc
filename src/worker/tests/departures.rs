//! Tunnels and responses under way that leave for another process, or do not.

use super::migration::{SWITCH, UPGRADE};
use super::*;
use std::io::ErrorKind;

const STREAM: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n";

/// A client as another process gets it: its state as text, its connections as handles of their own.
fn carried(client: &RunningClient<'_>) -> PortableClient {
    let handle = |place: usize| client.sockets[place].try_clone_to_owned().expect("a handle").into();
    let state = serde_json::to_string(client.state).expect("text");
    let exchange = ForeignExchange {
        upstream: handle(1),
        upstream_session: client.sessions[1].cloned(),
        state: serde_json::from_str(&state).expect("the same state"),
        closing: client.closing,
        bytes: RunningBytes::from_parts(client.bytes.parts().map(|part| part.to_vec())),
    };
    let (peer, told) = (client.peer.clone(), client.told.copied());
    let session = client.sessions[0].cloned();
    PortableClient { stream: handle(0), session, peer, served: client.served, told, exchange: Some(Box::new(exchange)) }
}

/// Two clients, one with a tunnel and one with a response under way, and the ends of their backends; both have left.
struct Leaving {
    stage: Stage,
    tunnel: [TcpStream; 2],
    stream: [TcpStream; 2],
    batch: DepartingBatch,
    outside: crossbeam_channel::Receiver<Departure>,
}

impl Leaving {
    fn new(test: &str) -> Self {
        Self::after(test, |_| ())
    }

    /// The same, with this change of the worker before they leave.
    fn after(test: &str, change: impl Fn(&mut Worker)) -> Self {
        let mut stage = Stage::new(test, 10);
        let mut tunnel = stage.client(UPGRADE);
        let mut tunnel_end = stage.accepted();
        tunnel_end.write_all(SWITCH).expect("a switch");
        stage.expect_response(&mut tunnel, "HTTP/1.1 101 ");
        let mut stream = stage.client(&request("/stream"));
        let mut stream_end = stage.accepted();
        stream_end.write_all(STREAM).expect("a response");
        expect(&mut stage, &mut stream, b"\r\n\r\n4\r\nfour\r\n");
        change(&mut stage.worker);
        let (sender, outside) = crossbeam_channel::unbounded();
        stage.replace(Some(DrainTarget::Outside(OutsideTarget { sender, takes_running: true })));
        let batch = stage.until("they leave", |_| match outside.try_recv() {
            Ok(Departure::Running(batch)) => Some(batch),
            Ok(other) => panic!("{other:?}"),
            Err(_) => None,
        });
        assert_eq!(batch.clients().count(), 2);
        // Nothing of them is read meanwhile, and their worker waits.
        tunnel.write_all(b"up").expect("bytes");
        stream_end.write_all(b"4\r\nmore\r\n").expect("an event");
        (0..5).for_each(|_| stage.turn());
        assert_eq!((stage.old.len(), stage.old[0].clients.len()), (1, 0));
        Self { stage, tunnel: [tunnel, tunnel_end], stream: [stream, stream_end], batch, outside }
    }
}

/// Waits for bytes with this end.
#[track_caller]
fn expect(stage: &mut Stage, from: &mut TcpStream, end: &[u8]) {
    from.set_nonblocking(true).expect("a stream that can be asked");
    let (mut got, mut room) = (Vec::new(), [0; 4096]);
    stage.until("bytes", |_| {
        match from.read(&mut room) {
            Ok(count) => got.extend_from_slice(&room[..count]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        got.ends_with(end).then_some(())
    });
}

fn tunnels_and_requests(worker: &Worker) -> (u32, u32) {
    let permit = worker.jobs.values().find_map(|job| job.exchange.permit());
    permit.map_or((0, 0), |permit| (permit.cluster().admission.tunnels(), permit.cluster().admission.in_flight()))
}

#[test]
fn those_that_are_taken_go_on_elsewhere_and_the_others_here() {
    let Leaving {
        mut stage,
        tunnel: [mut tunnel, mut tunnel_end],
        stream: [mut stream, mut stream_end],
        batch,
        outside,
    } = Leaving::new("departure");
    let taken: Vec<_> = (0..).zip(batch.clients().map(|client| carried(&client))).collect();
    let (places, mut clients): (Vec<u32>, Vec<PortableClient>) = taken.into_iter().unzip();
    let is_tunnel = |client: &PortableClient| {
        let state = &client.exchange.as_ref().expect("an exchange").state;
        serde_json::to_string(state).expect("text").contains("\"tunnel\":{\"client")
    };
    let place = clients.iter().position(is_tunnel).expect("the tunnel");
    batch.settle(&[places[place]]);
    // Both workers have the queue of one slot.
    stage.until("the other one returns", |stage| (stage.old[0].clients.len() == 1).then_some(()));
    stage.handoff.put(vec![clients.swap_remove(place).into()]);
    stage.commands.send(WorkerCommand::Arrivals);
    drop(clients);
    expect(&mut stage, &mut tunnel_end, b"up");
    tunnel_end.write_all(b"down").expect("bytes");
    expect(&mut stage, &mut tunnel, b"down");
    stage.until("it counts", |stage| (tunnels_and_requests(&stage.worker).0 == 1).then_some(()));
    // The other client has returned, and is not offered again.
    expect(&mut stage, &mut stream, b"4\r\nmore\r\n");
    stream_end.write_all(b"0\r\n\r\n").expect("the end");
    expect(&mut stage, &mut stream, b"0\r\n\r\n");
    let idle = stage.until("it leaves when it is idle", |_| match outside.try_recv() {
        Ok(Departure::Idle(clients)) => Some(clients.len()),
        Ok(other) => panic!("{other:?}"),
        Err(_) => None,
    });
    assert_eq!(idle, 1);
    stage.until_left();
    drop((tunnel, tunnel_end));
    stage.until("the tunnel ends", |stage| stage.worker.clients.is_empty().then_some(()));
    assert!(stage.worker.jobs.is_empty() && stage.worker.upstreams.is_empty() && stage.worker.timers.is_empty());
    assert_eq!(stage.worker.core.buffers.lent(), 0);
}

#[test]
fn a_response_that_was_taken_ends_there_and_its_client_is_kept() {
    let Leaving { mut stage, stream: [mut stream, mut stream_end], tunnel: _tunnel, batch, outside: _outside } =
        Leaving::new("response");
    let (places, clients): (Vec<u32>, Vec<MigratingConnection>) =
        (0..).zip(batch.clients().map(|client| carried(&client).into())).unzip();
    batch.settle(&places);
    stage.until_left();
    stage.handoff.put(clients);
    stage.commands.send(WorkerCommand::Arrivals);
    expect(&mut stage, &mut stream, b"4\r\nmore\r\n");
    stage.until("they count", |stage| (tunnels_and_requests(&stage.worker) == (1, 1)).then_some(()));
    stream_end.write_all(b"0\r\n\r\n").expect("the end");
    expect(&mut stage, &mut stream, b"0\r\n\r\n");
    stream.set_nonblocking(false).expect("a stream that blocks");
    stream.write_all(request("/next").as_bytes()).expect("a request");
    stage.accepted().write_all(OK).expect("a response");
    stage.expect_response(&mut stream, "HTTP/1.1 200 ");
}

/// The other process has ended, or the thread for it has.
#[test]
fn those_that_nobody_takes_go_on_here() {
    let Leaving { mut stage, tunnel: [mut tunnel, mut tunnel_end], stream: [mut stream, _], batch, outside } =
        Leaving::new("return");
    drop((batch, outside));
    expect(&mut stage, &mut tunnel_end, b"up");
    expect(&mut stage, &mut stream, b"4\r\nmore\r\n");
    tunnel_end.write_all(b"down").expect("bytes");
    expect(&mut stage, &mut tunnel, b"down");
    assert_eq!(stage.old[0].clients.len(), 2);
}

/// The end of a tunnel that is expected stays expected when the tunnel has been away.
#[test]
fn a_tunnel_that_returns_ends_when_it_was_to_end() {
    let due = Moment::from_micros(u64::MAX / 2);
    let Leaving { mut stage, tunnel: _tunnel, stream: _stream, batch, outside: _outside } =
        Leaving::after("retire", |worker| {
            let tunnel =
                worker.jobs.keys().find(|key| worker.jobs.get(*key).is_some_and(|job| job.exchange.is_tunnel()));
            worker.tunnel_drain.expect(tunnel.expect("a tunnel"), due);
        });
    assert_eq!(stage.old[0].tunnel_drain.next(), Moment::NEVER);
    drop(batch);
    stage.until("they return", |stage| (stage.old[0].clients.len() == 2).then_some(()));
    assert_eq!(stage.old[0].tunnel_drain.next(), due);
}

/// A tunnel from another process whose host is unknown here, and the worker that has it.
fn of_unknown_host(test: &str, tunnel_drain: Duration) -> (Stage, [TcpStream; 2], [TcpStream; 2]) {
    let Leaving { mut stage, tunnel, stream, batch, outside: _outside } = Leaving::new(test);
    stage.worker.settings.tunnel_drain = Some(tunnel_drain);
    let clients = batch.clients().map(|client| carried(&client)).map(|mut client| {
        let exchange = client.exchange.as_mut().expect("an exchange");
        let state = serde_json::to_string(&exchange.state).expect("text").replace("\"host\":\"a\"", "\"host\":\"b\"");
        exchange.state = serde_json::from_str(&state).expect("a state");
        client.into()
    });
    let clients: Vec<MigratingConnection> = clients.collect();
    batch.settle(&[0, 1]);
    stage.until_left();
    stage.handoff.put(clients);
    stage.commands.send(WorkerCommand::Arrivals);
    stage.until("the host is unknown", |stage| (stage.worker.tunnel_drain.next() != Moment::NEVER).then_some(()));
    (stage, tunnel, stream)
}

#[test]
fn a_tunnel_of_an_unknown_host_is_ended_like_those_of_removed_backends() {
    let (mut stage, [mut tunnel, _end], [mut stream, mut stream_end]) =
        of_unknown_host("unknown", Duration::from_millis(50));
    tunnel.set_nonblocking(true).expect("a stream that can be asked");
    stage.until("its end", |_| matches!(tunnel.read(&mut [0]), Ok(0)).then_some(()));
    // A response has its own end.
    stream_end.write_all(b"0\r\n\r\n").expect("the end");
    expect(&mut stage, &mut stream, b"0\r\n\r\n");
}

#[test]
fn a_tunnel_is_counted_when_its_host_becomes_known() {
    let (mut stage, [mut tunnel, mut tunnel_end], _stream) = of_unknown_host("known", Duration::from_secs(3600));
    assert_eq!(tunnels_and_requests(&stage.worker), (0, 0));
    let routes = stage.folder.join("routes.json");
    let text = std::fs::read_to_string(&routes).expect("routes").replace("\"a\"", "\"b\"");
    std::fs::write(&routes, text).expect("other routes");
    stage.directory.reload();
    stage.until("they count", |stage| (tunnels_and_requests(&stage.worker) == (1, 1)).then_some(()));
    tunnel.write_all(b"on").expect("bytes");
    expect(&mut stage, &mut tunnel_end, b"on");
    tunnel_end.write_all(b"and on").expect("bytes");
    expect(&mut stage, &mut tunnel, b"and on");
}

/// Within a process a response under way goes to the next worker, as a tunnel does: a stream of events has no end that could
/// be waited for.
#[test]
fn a_stream_goes_to_the_next_worker() {
    let mut stage = Stage::new("stream", 10);
    let mut stream = stage.client(&request("/stream"));
    let mut stream_end = stage.accepted();
    stream_end.write_all(STREAM).expect("a response");
    expect(&mut stage, &mut stream, b"\r\n\r\n4\r\nfour\r\n");
    stream.set_nonblocking(false).expect("a stream that blocks");
    // Its response has yet to begin.
    let mut late = stage.client(&request("/late"));
    let mut late_end = stage.accepted();
    stage.replace(None);
    stage.turn();
    assert_eq!(stage.old.len(), 1);
    late_end.write_all(STREAM).expect("a response");
    expect(&mut stage, &mut late, b"\r\n\r\n4\r\nfour\r\n");
    stage.until_left();
    assert_eq!(tunnels_and_requests(&stage.worker), (0, 2));
    for (end, client) in [(&mut stream_end, &mut stream), (&mut late_end, &mut late)] {
        end.write_all(b"4\r\nmore\r\n0\r\n\r\n").expect("an event");
        expect(&mut stage, client, b"4\r\nmore\r\n0\r\n\r\n");
    }
    assert_eq!((stage.worker.jobs.len(), stage.worker.core.buffers.lent()), (0, 0));
    stream.set_nonblocking(false).expect("a stream that blocks");
    stream.write_all(request("/next").as_bytes()).expect("a request");
    stage.accepted().write_all(OK).expect("a response");
    stage.expect_response(&mut stream, "HTTP/1.1 200 ");
}
