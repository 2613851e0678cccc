//! Connections, addresses and descriptors run out: idle ones make room, requests under way are never touched.

use crate::support::backend::Backend;
use crate::support::client::Client;
use crate::support::message::How;
use crate::support::proxy::{Proxy, Setup};
use crate::support::tls::Authority;
use crate::support::{Gate, HOST, canned, until, worker_has_caught_up};
use nix::sys::signal::Signal;
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Shutdown};
use std::process::Command;
use std::sync::Arc;

fn plain() -> Backend {
    Backend::serve(|request, conn| conn.send(canned::ok(request.head.target())))
}

fn one_worker(backend: &Backend) -> Setup {
    Setup::for_backends([backend.url()]).workers(1)
}

#[track_caller]
fn served(proxy: &Proxy) -> Client {
    let mut client = proxy.client();
    client.get(HOST, "/served").expect_ok("/served");
    client
}

/// Whether the proxy has left the connection open, and said nothing.
fn is_open(client: &Client) -> bool {
    let socket = client.socket();
    socket.set_nonblocking(true).expect("a socket that can be asked");
    let is_open = socket.peek(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    socket.set_nonblocking(false).expect("a socket that waits");
    is_open
}

/// Ends the proxy: what it has counted.
fn counted(mut proxy: Proxy, name: &str) -> u64 {
    proxy.signal(Signal::SIGTERM);
    assert!(proxy.until_exit().success());
    let stderr = proxy.stderr();
    let counts = stderr.split("stopped; ").nth(1).unwrap_or_else(|| panic!("no counts: {stderr}"));
    let count = counts.trim().split(", ").find_map(|count| count.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    count.unwrap_or(0)
}

#[test]
fn at_the_limit_those_go_first_who_were_idle_longest() {
    let backend = plain();
    let proxy = one_worker(&backend).set("maxConnections", 3).start();
    let [mut first, mut second, mut third] = [(); 3].map(|()| served(&proxy));
    // Who speaks again is the youngest.
    first.get(HOST, "/again").expect_ok("/again");
    let mut fourth = served(&proxy);
    second.expect_closed();
    assert!(is_open(&first) && is_open(&third));
    let mut fifth = served(&proxy);
    third.expect_closed();
    for client in [&mut first, &mut fourth, &mut fifth] {
        client.get(HOST, "/still").expect_ok("/still");
    }
    assert_eq!(counted(proxy, "idle_clients_closed"), 2);
}

#[test]
fn where_nobody_is_idle_new_clients_wait_outside() {
    let gate = Arc::new(Gate::default());
    let backend = Backend::holding(&gate);
    let proxy = one_worker(&backend).set("maxConnections", 2).start();
    let mut busy = [(); 2].map(|()| proxy.client());
    busy.iter_mut().for_each(|client| client.send(canned::get(HOST, "/held")));
    backend.until_heads(2);
    let mut outside = proxy.client();
    outside.send(canned::get(HOST, "/outside"));
    // The worker has looked at its door before the answers come: what the system tells it of comes in order.
    gate.open();
    busy.iter_mut().for_each(|client| client.response_to("GET").expect_ok("/held"));
    outside.response_to("GET").expect_ok("/outside");
    assert!(counted(proxy, "accept_pauses") >= 1);
}

#[test]
fn who_has_sent_a_request_is_not_idle() {
    let backend = plain();
    let proxy = one_worker(&backend).set("maxConnections", 2).start();
    let [mut first, mut second] = [(); 2].map(|()| served(&proxy));
    let mut third = None;
    proxy.while_stopped(|| {
        // The worker may hear of the new client before it hears of the request.
        let mut client = proxy.client();
        client.send(canned::get(HOST, "/third"));
        third = Some(client);
        first.send(canned::get(HOST, "/first"));
    });
    first.response_to("GET").expect_ok("/first");
    third.expect("a client").response_to("GET").expect_ok("/third");
    second.expect_closed();
}

#[test]
fn who_has_yet_to_speak_is_given_a_while() {
    let backend = plain();
    let proxy = one_worker(&backend).set("maxConnections", 2).start();
    worker_has_caught_up(&proxy);
    // The system keeps who says nothing for a second; until then the connections of before have gone.
    let mut fewest = usize::MAX;
    let [mut first, mut second] = [1, 2].map(|inside| {
        let client = proxy.client();
        until("who says nothing is let in", || {
            let files = proxy.descriptors().len();
            fewest = fewest.min(files);
            files == fewest + inside
        });
        client
    });
    let mut third = proxy.client();
    third.send(canned::get(HOST, "/third"));
    third.response_to("GET").expect_ok("/third");
    first.expect_closed();
    second.get(HOST, "/second").expect_ok("/second");
    // The third is idle now, and goes before the second only where it has been so for longer.
    assert_eq!(counted(proxy, "idle_clients_closed"), 1);
}

/// Leaves the proxy no descriptor beyond those that it has. Clients that have begun a request take the numbers that are
/// free below the limit, for as long as they are kept.
fn exhaust_descriptors(proxy: &Proxy) -> Vec<Client> {
    let free = |open: &BTreeSet<usize>| open.last().map_or(0, |last| last + 1 - open.len());
    let mut busy = Vec::new();
    while free(&proxy.descriptors()) > 0 {
        let mut client = proxy.client();
        served_by_itself(&mut client);
        client.send("G");
        busy.push(client);
    }
    limit_descriptors(proxy, proxy.descriptors().len());
    busy
}

fn limit_descriptors(proxy: &Proxy, limit: usize) {
    let limit = format!("--nofile={limit}:");
    let status = Command::new("prlimit").args(["--pid", &proxy.pid().to_string(), &limit]).status();
    assert!(status.expect("prlimit of util-linux").success());
}

#[test]
fn out_of_descriptors_idle_connections_are_given_up() {
    let (backend, other) = (plain(), plain());
    let setup = Setup::new().workers(1).route(HOST, [backend.url()]).route("other.example.com", [other.url()]);
    let proxy = setup.start();
    let mut old = [(); 4].map(|()| served(&proxy));
    assert_eq!(backend.open_connections(), 1);
    let others = exhaust_descriptors(&proxy);
    // Each takes two: its own, and one to a backend that nobody has asked before.
    let mut new = proxy.client();
    new.get("other.example.com", "/other").expect_ok("/other");
    until("the oldest are gone", || {
        old.iter().filter(|client| is_open(client)).count() + backend.open_connections() <= 3
    });
    for _ in 0..20 {
        served(&proxy);
    }
    assert!(is_open(&new) || old.iter().all(|client| !is_open(client)), "the youngest goes last");
    drop(others);
    limit_descriptors(&proxy, 1000);
    let young: Vec<_> = (0..10).map(|_| served(&proxy)).collect();
    assert!(young.iter().all(is_open), "with descriptors again, nobody is given up");
    old.iter_mut().filter(|client| is_open(client)).for_each(|client| client.get(HOST, "/old").expect_ok("/old"));
    let warnings = proxy.stderr().matches("Too many open files").count();
    assert!((1..=2).contains(&warnings), "one shortage, not one line for each client: {warnings}");
    assert!(counted(proxy, "out_of_descriptors") >= 2);
}

#[test]
fn out_of_descriptors_who_is_under_way_is_served_and_others_wait() {
    let gate = Arc::new(Gate::default());
    let backend = Backend::holding(&gate);
    let proxy = one_worker(&backend).start();
    let mut busy = [(); 3].map(|()| proxy.client());
    busy.iter_mut().for_each(|client| client.send(canned::get(HOST, "/held")));
    backend.until_heads(3);
    let others = exhaust_descriptors(&proxy);
    let mut outside = proxy.client();
    outside.send(canned::get(HOST, "/outside"));
    until("a shortage is told", || proxy.stderr().contains("Too many open files"));
    gate.open();
    busy.iter_mut().for_each(|client| client.response_to("GET").expect_ok("/held"));
    outside.response_to("GET").expect_ok("/outside");
    drop(others);
}

#[test]
fn a_request_without_a_descriptor_to_its_backend_is_told_503() {
    let backend = plain();
    let proxy = one_worker(&backend).start();
    let mut client = proxy.client();
    served_by_itself(&mut client);
    let others = exhaust_descriptors(&proxy);
    let response = client.exchange(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX-Debug: 1\r\n\r\n"));
    assert_eq!((response.status(), response.head.get("x-debug-error")), (503, Some("sockets_exhausted")));
    assert!(response.head.get("retry-after").is_some());
    limit_descriptors(&proxy, 1000);
    drop(others);
    client.get(HOST, "/again").expect_ok("/again");
}

#[test]
fn the_last_request_of_a_connection_is_told_so() {
    let backend = plain();
    let proxy = one_worker(&backend).set("maxRequestsPerConnection", 2).start();
    let mut client = proxy.client();
    // What follows the last request is not answered, and does not take the last answer away.
    let pipelined: String = (1..=9).map(|number| canned::get(HOST, &format!("/{number}"))).collect();
    client.send(pipelined);
    let first = client.response_to("GET");
    first.expect_ok("/1");
    assert_eq!(first.head.get("connection"), None);
    let last = client.response_to("GET");
    last.expect_ok("/2");
    assert_eq!(last.head.get("connection"), Some("close"));
    client.expect_closed();
    assert_eq!(backend.heads(), 2);
    let mut other = proxy.client();
    for expected in [None, Some("close")] {
        assert_eq!(other.get("__ping__", "/").head.get("connection"), expected, "an answer of the proxy's own counts");
    }
    drop((client, other));
    assert_eq!(counted(proxy, "request_limits"), 2);
}

#[test]
fn an_address_has_so_many_connections_over_all_workers() {
    let backend = plain();
    let proxy = Setup::for_backends([backend.url()])
        .workers(2)
        .set("maxConnectionsPerAddress", 4)
        .set("trustedNetworks", ["127.0.3.0/24"].as_slice())
        .start();
    let [crowd, neighbour, balancer] = [2, 4, 3].map(|third| IpAddr::from([127, 0, third, 1]));
    let served_from = |source| {
        let mut client = proxy.client_from(source);
        client.try_send(canned::get(HOST, "/"));
        client.try_response_to("GET").is_ok().then_some(client)
    };
    let mut held: Vec<_> = (0..20).filter_map(|_| served_from(crowd)).collect();
    assert_eq!(held.len(), 4);
    assert!(served_from(neighbour).is_some(), "each address for itself");
    let trusted: Vec<_> = (0..6).filter_map(|_| served_from(balancer)).collect();
    assert_eq!(trusted.len(), 6, "the clients of a proxy in front are many");
    held.pop();
    until("a place is free again", || served_from(crowd).is_some());
    drop((held, trusted));
    assert!(counted(proxy, "per_ip_rejections") >= 16);
}

#[test]
fn of_whom_a_balancer_tells_counts_as_who_they_are() {
    let backend = plain();
    let balancer = IpAddr::from([127, 0, 0, 9]);
    let setup = one_worker(&backend).set_http("proxyProtocol", json!([balancer.to_string()]));
    let proxy = setup.set("maxConnectionsPerAddress", 2).start();
    let served_as = |address: &str| {
        let mut client = proxy.client_from(balancer);
        client.try_send(format!("PROXY TCP4 {address} 192.0.2.1 4000 80\r\n{}", canned::get(HOST, "/")));
        client.try_response_to("GET").is_ok().then_some(client)
    };
    let crowd = [(); 3].map(|()| served_as("192.0.2.7"));
    assert_eq!(crowd.each_ref().map(Option::is_some), [true, true, false]);
    assert!(served_as("192.0.2.8").is_some(), "the balancer is nobody's address");
    drop(crowd);
    assert_eq!(counted(proxy, "per_ip_rejections"), 1);
}

#[test]
fn handshakes_that_wait_keep_no_plain_client_outside() {
    let backend = plain();
    let authority = Authority::new();
    let setup = one_worker(&backend).with_https().default_certificate(&authority.issue(&[HOST]));
    let proxy = setup.set_https("maxHandshakes", 1).start();
    let connect = || std::net::TcpStream::connect(proxy.secure_address()).expect("a connection");
    let [silent, _outside] = [connect(), connect()];
    silent.set_nonblocking(true).expect("a socket that can be asked");
    let mut count = 0;
    // The first one's place is let alone for a second. A door that is closed with the other one's takes ten in that time.
    while silent.peek(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
        served(&proxy);
        count += 1;
    }
    assert!(count >= 40, "{count} plain clients were served while handshakes waited");
    assert!(counted(proxy, "handshake_pauses") >= 1);
}

#[test]
fn who_is_idle_for_too_long_is_closed_and_counted() {
    let backend = plain();
    let proxy = one_worker(&backend).set("idleTimeout", 0.1).start();
    served(&proxy).expect_closed();
    proxy.client().expect_closed();
    assert!(counted(proxy, "idle_timeouts") >= 2);
}

#[test]
fn a_full_disk_under_the_log_fails_no_request() {
    let backend = plain();
    let proxy = one_worker(&backend).set("accessLog", "/dev/full").start();
    for _ in 0..50 {
        served(&proxy);
    }
    until("it is told", || proxy.stderr().contains("could not be written"));
    let told = proxy.stderr().matches("could not be written").count();
    assert_eq!(told, 1, "told once in ten seconds");
    assert_eq!(counted(proxy, "lost_log_lines"), 50);
}

/// A slow reader of a large answer, and a backend that takes a large body slowly, hold what one read brings and no more.
#[test]
fn slow_sides_do_not_make_the_proxy_grow() {
    const SLOW: usize = 40;
    const BODY: usize = 16 << 20;
    let gate = Arc::new(Gate::default());
    let held = Arc::clone(&gate);
    let backend = Backend::raw(move |conn| {
        let Some(head) = conn.head() else { return };
        if head.target() == "/large" {
            conn.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY}\r\n\r\n"));
            // The client leaves before the end.
            let _ = conn.try_send(&vec![b'x'; BODY]);
        } else {
            held.pass();
        }
    });
    let proxy = one_worker(&backend).start();
    worker_has_caught_up(&proxy);
    let before = resident_kib(&proxy);
    let mut readers: Vec<_> = (0..SLOW).map(|_| proxy.client()).collect();
    readers.iter_mut().for_each(|client| client.send(canned::get(HOST, "/large")));
    let mut writers: Vec<_> = (0..SLOW).map(|_| proxy.client()).collect();
    for client in &mut writers {
        client.send(format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {BODY}\r\n\r\n"));
        client.socket().set_nonblocking(true).expect("a socket that can be asked");
        until("the proxy takes no more", || !client.try_send(vec![b'y'; 1 << 20]));
    }
    readers.iter_mut().for_each(|client| assert_eq!(client.head().status(), 200));
    worker_has_caught_up(&proxy);
    let grown = resident_kib(&proxy).saturating_sub(before);
    // Each keeps what one read of 128 KiB could bring at the most, of 16 MiB.
    assert!(grown < (2 * SLOW as u64) * 170 + 4096, "{grown} KiB for {} slow connections", 2 * SLOW);
    gate.open();
}

/// Heads that do not come to an end are kept; together no more of them than the worker has buffers for.
#[test]
fn heads_without_end_have_a_budget_together() {
    let backend = plain();
    let proxy = one_worker(&backend).set("maxBufferBytes", 1 << 20).start();
    let head = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX: {}", "x".repeat(60_000));
    let mut slow: Vec<_> = (0..40).map(|_| proxy.client()).collect();
    for client in &mut slow {
        client.send(&head);
        worker_has_caught_up(&proxy);
    }
    until("the first has gone", || !is_open(&slow[0]));
    assert!(is_open(slow.last().expect("the last")), "the last has held for the shortest time");
    let gone = slow.iter().filter(|client| !is_open(client)).count();
    served(&proxy);
    drop(slow);
    let ended = counted(proxy, "buffer_limit");
    assert!(ended >= gone as u64 && (15..40).contains(&gone), "{gone} of 40 have gone, {ended} were counted");
}

fn served_by_itself(client: &mut Client) {
    assert_eq!(client.get("__ping__", "/").status(), 200);
}

fn resident_kib(proxy: &Proxy) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", proxy.pid())).expect("the proxy runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn a_tunnel_that_breaks_behind_ends_cleanly_in_front() {
    let backend = Backend::raw(|conn| {
        if conn.request().is_some() {
            conn.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: lines\r\n\r\nlast words");
            conn.bytes(1);
            conn.reset();
        }
    });
    let proxy = one_worker(&backend).start();
    let mut client = proxy.client();
    client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: lines\r\n\r\n"));
    assert_eq!(client.head().status(), 101);
    // The client goes on sending all the while: what it sends after the break must not turn the end into a reset.
    let mut writer = client.writer();
    let (bytes, how) = std::thread::scope(|scope| {
        scope.spawn(move || {
            use std::io::Write;
            // Until the connection is over.
            while writer.write_all(&[b'x'; 4096]).is_ok() {}
        });
        let ended = client.rest();
        client.socket().shutdown(Shutdown::Both).expect("an end for the writer");
        ended
    });
    assert_eq!((bytes.as_slice(), how), (&b"last words"[..], How::Closed));
}
