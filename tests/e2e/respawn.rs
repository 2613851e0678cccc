//! Workers that are renewed because the process holds too much: a limit that no process can keep makes them turn again
//! and again, and nobody outside notices.

use crate::moving::{Ticks, UPGRADES, begun, event, source};
use crate::support::backend::Backend;
use crate::support::body::{Checker, write_pattern};
use crate::support::client::Client;
use crate::support::proxy::{Proxy, Setup};
use crate::support::tls::Authority;
use crate::support::{Gate, HOST, canned, until};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

const ASKING: &str = "GET /tunnel HTTP/1.1\r\nHost: www.example.com\r\nConnection: Upgrade\r\nUpgrade: lines\r\n\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: lines\r\n\r\n";

/// Two workers, of which one is renewed each 50 milliseconds or so, later more slowly.
pub(crate) fn restless(setup: Setup) -> Setup {
    setup.workers(2).set("memoryLimit", "1MB").set("memoryCheckInterval", 0.01)
}

fn respawns(proxy: &Proxy) -> usize {
    proxy.stderr().matches(" was replaced (").count()
}

#[track_caller]
pub(crate) fn until_respawns(proxy: &Proxy, count: usize) {
    let target = respawns(proxy) + count;
    until("workers are renewed", || respawns(proxy) >= target);
}

#[test]
fn nothing_is_lost_under_load() {
    let backend = Backend::always(canned::ok("ok"));
    let proxy = restless(Setup::for_backends([backend.url()])).start();
    let (stop, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    let is_on = || !stop.load(Ordering::Relaxed);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut client = proxy.client();
                while is_on() {
                    client.get(HOST, "/kept").expect_ok("ok");
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
            scope.spawn(|| {
                while is_on() {
                    proxy.client().get(HOST, "/once").expect_ok("ok");
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        until_respawns(&proxy, 8);
        stop.store(true, Ordering::Relaxed);
    });
    assert!(served.load(Ordering::Relaxed) > 100, "{served:?} requests");
    let log = proxy.stderr();
    let line = log.lines().find(|line| line.contains("was replaced")).expect("a report");
    for part in ["up ", " connections accepted", " requests", "MiB held", "ended gracefully", "the process holds "] {
        assert!(line.contains(part), "{part:?} in {line}");
    }
    assert!(log.contains("is the limit too low?"), "{log}");
    assert!(!log.contains("by force"), "{log}");
}

#[test]
fn tunnels_and_idle_clients_encrypted_or_not_live_on() {
    let backend = Backend::raw(|conn| {
        while let Some(request) = conn.request() {
            if request.head.target() != "/tunnel" {
                conn.send(canned::ok("ok"));
                continue;
            }
            conn.send(SWITCHED);
            loop {
                let bytes = conn.bytes(1);
                if bytes.is_empty() {
                    return;
                }
                conn.send(bytes);
            }
        }
    });
    let authority = Authority::new();
    let setup = Setup::for_backends([backend.url()]).with_https().default_certificate(&authority.issue(&[HOST]));
    let proxy = restless(setup).start();
    let trust = authority.trust();
    let mut clients = [proxy.client(), trust.client(&proxy, HOST)];
    let mut tunnels = [proxy.client(), trust.client(&proxy, HOST)];
    for tunnel in &mut tunnels {
        tunnel.send(ASKING);
        assert_eq!(tunnel.head().status(), 101);
    }
    for _ in 0..4 {
        clients.iter_mut().for_each(|client| client.get(HOST, "/").expect_ok("ok"));
        let mut sent = Vec::new();
        write_pattern(&mut sent, 5000).expect("writing to memory");
        for tunnel in &mut tunnels {
            tunnel.send(&sent);
            let mut checker = Checker::default();
            checker.take(&tunnel.bytes(sent.len()));
            checker.expect(5000);
        }
        until_respawns(&proxy, 2);
    }
}

/// What cannot move and does not finish is ended, once the grace is over, and the client is told.
#[test]
fn what_does_not_finish_is_ended_by_force() {
    let gate = Arc::new(Gate::default());
    let inner = Arc::clone(&gate);
    let backend = Backend::serve(move |_, conn| {
        inner.pass();
        conn.send(canned::ok("too late"));
    });
    let proxy = restless(Setup::for_backends([backend.url()])).set("drainTimeout", 0.3).start();
    let mut client = proxy.client();
    client.send(canned::get(HOST, "/"));
    backend.until_heads(1);
    assert_eq!(client.response_to("GET").status(), 503);
    client.expect_closed();
    until("the report", || proxy.stderr().contains("ended by force with 1 requests under way"));
    gate.open();
    proxy.client().get(HOST, "/").expect_ok("too late");
}

/// What an address may have is counted where its connections are, wherever they have moved.
#[test]
fn an_address_has_so_many_connections_wherever_they_move() {
    let backend = Backend::always(canned::ok("ok"));
    let proxy = restless(Setup::for_backends([backend.url()])).set("maxConnectionsPerAddress", 4).start();
    let crowd = IpAddr::from([127, 0, 0, 7]);
    let is_let_in = || {
        let mut client = proxy.client_from(crowd);
        client.try_send(canned::get(HOST, "/")) && client.try_response_to("GET").is_ok()
    };
    let mut held: Vec<Client> = (0..4).map(|_| proxy.client_from(crowd)).collect();
    for _ in 0..3 {
        held.iter_mut().for_each(|client| client.get(HOST, "/").expect_ok("ok"));
        assert!(!is_let_in(), "a fifth one");
        until_respawns(&proxy, 2);
    }
    held.iter_mut().for_each(|client| client.get(HOST, "/").expect_ok("ok"));
    held.truncate(3);
    until("a place is free again", is_let_in);
    drop(held);
    // Nothing is left of them: four again, and no more.
    until("all are free", || {
        let mut clients: Vec<Client> = (0..4).map(|_| proxy.client_from(crowd)).collect();
        clients
            .iter_mut()
            .all(|client| client.try_send(canned::get(HOST, "/")) && client.try_response_to("GET").is_ok())
    });
}

/// Streams of events have no end that a worker could wait for: they go to its successor, encrypted or not.
#[test]
fn streams_go_from_worker_to_worker() {
    let ticks = Arc::new(Ticks::default());
    let source = source(&ticks);
    let authority = Authority::new();
    let setup = Setup::for_backends([source.url()]).with_https().certificate(HOST, &authority.issue(&[HOST]));
    let proxy = restless(setup).set("drainTimeout", 1).start();
    let clients = (0..8).map(|place| match place % 2 {
        0 => proxy.client(),
        _ => authority.trust().client(&proxy, HOST),
    });
    let mut streams: Vec<Client> = clients.map(|client| begun(client, "/chunked", "HTTP/1.1")).collect();
    for round in 1..=UPGRADES {
        until_respawns(&proxy, 2);
        assert_eq!(ticks.tick(), round);
        let event = event(round);
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        for (place, client) in streams.iter_mut().enumerate() {
            let got = client.bytes(chunk.len());
            assert_eq!(String::from_utf8_lossy(&got), chunk, "stream {place} in round {round}");
        }
    }
    for client in &mut streams {
        assert_eq!(client.bytes(5), b"0\r\n\r\n");
        client.get(HOST, "/small").expect_ok("small");
    }
}
