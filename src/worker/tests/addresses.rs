//! Backends whose names have several addresses.

use super::*;

/// The addresses of a name are tried in turn; where all refuse the connection, its place is free again.
#[test]
fn where_one_address_refuses_the_next_is_tried() {
    let mut stage = Stage::new("addresses", 1);
    let real = stage.backend.local_addr().expect("an address");
    let [refuses, refuses_too] = [2, 3].map(|last| SocketAddr::from(([127, 0, 0, last], real.port())));
    let mut client = stage.client(&request("/first"));
    stage.accepted().write_all(OK).expect("a response");
    stage.expect_response(&mut client, "HTTP/1.1 200 ");
    let cached = stage.worker.routes.get("a").expect("the route is known");
    let route::Cached::Found(found) = cached else { panic!("{cached:?}") };
    let backend = Arc::clone(&found.marks[0].backend);
    for (addresses, is_there) in [(vec![refuses, refuses_too], false), (vec![refuses, refuses_too, real], true)] {
        backend.set_addresses(Addresses::Known(addresses.into()));
        for _ in 0..3 {
            stage.until("idle connections are gone", |stage| stage.worker.upstreams.is_empty().then_some(()));
            let mut client = stage.client(&request("/next"));
            if is_there {
                stage.accepted().write_all(OK).expect("a response");
            }
            stage.expect_response(&mut client, if is_there { "HTTP/1.1 200 " } else { "HTTP/1.1 502 " });
        }
    }
}

/// The first address does not respond: the next one is tried while there is time for it.
#[test]
fn an_address_that_hangs_leaves_time_for_the_next() {
    let mut stage = Stage::new("hangs", 1);
    stage.worker.core.settings.connect_timeout = Duration::from_millis(1500);
    let real = stage.backend.local_addr().expect("an address");
    let mut client = stage.client(&request("/first"));
    stage.accepted().write_all(OK).expect("a response");
    stage.expect_response(&mut client, "HTTP/1.1 200 ");
    stage.until("idle connections are gone", |stage| stage.worker.upstreams.is_empty().then_some(()));
    let Some(route::Cached::Found(found)) = stage.worker.routes.get("a") else { panic!("the route is known") };
    // An accept queue of one place that is taken: the kernel drops every SYN for it.
    let full = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    full.bind(&SocketAddr::from(([127, 0, 0, 4], 0)).into()).expect("a port");
    full.listen(0).expect("a queue");
    let hangs = full.local_addr().expect("an address").as_socket().expect("of IP");
    let _waiting = TcpStream::connect(hangs).expect("the one place");
    found.marks[0].backend.set_addresses(Addresses::Known(Arc::new([hangs, hangs, real])));
    let mut client = stage.client(&request("/next"));
    stage.accepted().write_all(OK).expect("a response");
    stage.expect_response(&mut client, "HTTP/1.1 200 ");
}

/// An address whose accept queue is full does not respond to a connection, like a machine that is gone.
#[test]
fn a_silent_address_costs_a_moment_once() {
    let mut stage = Stage::new("silent", 10);
    let silent = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    silent.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
    silent.listen(0).expect("a queue of one");
    let address = silent.local_addr().expect("an address").as_socket().expect("of TCP/IP");
    let short = Duration::from_millis(50);
    let _full: Vec<_> = (0..4).map(|_| TcpStream::connect_timeout(&address, short)).collect();

    let url = BackendUrl::parse("http://app.internal").expect("a good URL");
    let backend = Arc::new(Backend::new(BackendId::new(u64::MAX), url.endpoint().clone()));
    let well = stage.backend.local_addr().expect("an address");
    backend.set_addresses(Addresses::Known(Arc::new([address, well])));
    stage.worker.routes.put_found(Arc::from("a"), route_to(&url, Arc::clone(&backend)));

    let began = stage.clock.now();
    let mut clients = Vec::new();
    let mut connections = Vec::new();
    for number in 0..4 {
        clients.push(stage.client(&request("/")));
        let accepted = stage.until("a connection", |stage| stage.backend.accept().ok().map(|(stream, _)| stream));
        let waited = stage.clock.now().since(began);
        assert!(waited >= Duration::from_millis(200), "{number}: the silent one was first, {waited:?}");
        assert!(waited < Duration::from_secs(5), "{number}: {waited:?}");
        connections.push(accepted);
    }
    // Each address had its turn; the silent one comes last now.
    let expected: Arc<[SocketAddr]> = Arc::new([well, address]);
    for _ in 0..2 {
        let command = backend.next_addresses(stage.clock.now());
        assert_eq!(command, Addresses::Known(Arc::clone(&expected)));
    }
    stage.until("four connections", |stage| {
        let count = stage.worker.upstreams.values().filter(|upstream| upstream.dial.is_none()).count();
        (count == 4).then_some(())
    });
}

#[test]
fn each_address_of_a_name_has_its_share() {
    let mut stage = Stage::new("shares", 10);
    let others: Vec<TcpListener> = (0..2).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
    others.iter().for_each(|other| other.set_nonblocking(true).expect("one that can be asked"));
    let url = BackendUrl::parse("http://app.internal").expect("a good URL");
    let backend = Arc::new(Backend::new(BackendId::new(u64::MAX), url.endpoint().clone()));
    let listeners = [&stage.backend, &others[0], &others[1]].map(|one| one.local_addr().expect("an address"));
    backend.set_addresses(Addresses::Known(Arc::new(listeners)));
    stage.worker.routes.put_found(Arc::from("a"), route_to(&url, backend));
    let _clients: Vec<_> = (0..6).map(|_| stage.client(&request("/"))).collect();
    let mut counts = [0; 3];
    let mut kept = Vec::new();
    stage.until("two connections each", |stage| {
        for (count, listener) in counts.iter_mut().zip([&stage.backend, &others[0], &others[1]]) {
            while let Ok((stream, _)) = listener.accept() {
                *count += 1;
                kept.push(stream);
            }
        }
        (counts == [2, 2, 2]).then_some(())
    });
}
