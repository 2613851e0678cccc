//! Sessions with clients: tickets, versions, limits, ends, and records of every size.

use super::secure;
use crate::support::backend::Backend;
use crate::support::body::{Checker, write_pattern};
use crate::support::client::{Client, connect};
use crate::support::message::How;
use crate::support::proxy::Setup;
use crate::support::tls::Authority;
use crate::support::{HOST, PATIENCE, canned, until, worker_has_caught_up};
use std::io::{Read, Write};
use std::net::TcpStream;
use tungstenite::Message;

const MIB: u64 = 1 << 20;

#[test]
fn tickets_are_good_at_every_core_and_every_certificate_of_the_name() {
    let backend = Backend::always(canned::ok("hello"));
    let (proxy, trust) = secure(&backend);
    let mut resumed = 0;
    for _ in 0..12 {
        let stream = trust.connect(proxy.secure_address(), HOST);
        resumed += usize::from(stream.is_resumed());
        // Tickets come with the first answer.
        Client::over(Box::new(stream)).get(HOST, "/").expect_ok("hello");
    }
    assert_eq!(resumed, 11, "all but the first");
}

#[test]
fn without_tickets_every_handshake_is_a_whole_one() {
    let backend = Backend::always(canned::ok("hello"));
    let authority = Authority::new();
    let setup = Setup::for_backends([backend.url()]).with_https().default_certificate(&authority.issue(&[HOST]));
    let proxy = setup.set_https("secureOptions", "SSL_OP_NO_TICKET").start();
    let trust = authority.trust();
    for _ in 0..4 {
        let stream = trust.connect(proxy.secure_address(), HOST);
        assert!(!stream.is_resumed());
        Client::over(Box::new(stream)).get(HOST, "/").expect_ok("hello");
    }
}

#[test]
fn versions_and_suites_are_as_set() {
    let authority = Authority::new();
    let pair = authority.issue(&[HOST]);
    let setup = || Setup::new().with_https().default_certificate(&pair);
    let old = setup().set_https("secureProtocol", "TLSv1_2_method").start();
    let trust = authority.trust();
    let stream = trust.connect(old.secure_address(), HOST);
    assert_eq!(stream.session().protocol_version(), Some(rustls::ProtocolVersion::TLSv1_2));
    let new = setup().set_https("secureOptions", "SSL_OP_NO_TLSv1_2").start();
    let old_trust = authority.trust().of_version(&rustls::version::TLS12);
    assert!(old_trust.try_connect(new.secure_address(), HOST).is_err());
    let one = setup().set_https("ciphers", "TLS_CHACHA20_POLY1305_SHA256:ECDHE-ECDSA-AES128-GCM-SHA256").start();
    let suites = [trust, old_trust].map(|trust| {
        let stream = trust.connect(one.secure_address(), HOST);
        stream.session().negotiated_cipher_suite().expect("a suite").suite()
    });
    let expected = [
        rustls::CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
        rustls::CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ];
    assert_eq!(suites, expected);
}

#[test]
fn another_protocol_is_refused() {
    let backend = Backend::always(canned::ok("hello"));
    let (proxy, trust) = secure(&backend);
    let refused = trust.offering("h2").try_connect(proxy.secure_address(), HOST).err().expect("no common protocol");
    assert!(refused.to_string().contains("NoApplicationProtocol"), "the client is told why: {refused}");
}

#[test]
fn who_is_slow_to_shake_hands_is_let_go() {
    let authority = Authority::new();
    let setup = Setup::new().with_https().default_certificate(&authority.issue(&[HOST]));
    let proxy = setup.set_https("handshakeTimeout", 0.2).start();
    let mut silent = Client::over(Box::new(connect(proxy.secure_address(), None)));
    silent.expect_closed();
    let mut half = Client::over(Box::new(connect(proxy.secure_address(), None)));
    half.send([22, 3, 1, 0, 200, 1]);
    half.expect_closed();
}

#[test]
fn new_clients_get_the_places_of_those_who_only_stand_there() {
    let authority = Authority::new();
    let backend = Backend::always(canned::ok("hello"));
    let setup = Setup::for_backends([backend.url()]).with_https().default_certificate(&authority.issue(&[HOST]));
    let proxy = setup.workers(1).set_https("maxHandshakes", 8).start();
    let silent: Vec<TcpStream> = (0..30).map(|_| connect(proxy.secure_address(), None)).collect();
    authority.trust().client(&proxy, HOST).get(HOST, "/").expect_ok("hello");
    drop(silent);
}

#[test]
fn what_is_no_hello_ends_the_connection() {
    let backend = Backend::always(canned::ok("hello"));
    let (proxy, trust) = secure(&backend);
    let garbage: [&[u8]; 4] =
        [&[0x80, 46, 1, 3, 1], &[0; 64], &[22, 3, 1, 0x40, 1, 1, 0, 0xff, 0xff], &[21, 3, 3, 0, 2, 2, 0]];
    for bytes in garbage {
        let mut client = Client::over(Box::new(connect(proxy.secure_address(), None)));
        client.send(bytes);
        client.finish_writing();
        let (_, how) = client.rest();
        assert!(matches!(how, How::Closed | How::Reset), "{how:?}");
    }
    trust.client(&proxy, HOST).get(HOST, "/").expect_ok("hello");
}

#[test]
fn who_speaks_plainly_to_an_encrypted_door_is_told_so_and_the_other_way_round() {
    let backend = Backend::always(canned::ok("hello"));
    let authority = Authority::new();
    let proxy = Setup::for_backends([backend.url()])
        .with_https()
        .default_certificate(&authority.issue(&[HOST]))
        .with_access_log()
        .start();
    let head = format!("Host: {HOST}\r\nX-Debug: 1\r\nContent-Length: 3\r\n\r\n");
    for method in ["GET", "HEAD", "POST"] {
        let mut client = Client::over(Box::new(connect(proxy.secure_address(), None)));
        // Nothing of it reaches a backend, and nothing behind it is read as a request.
        client.send(format!("{method} /plain HTTP/1.1\r\n{head}abc{}", canned::get(HOST, "/second")));
        let response = client.response_to(method);
        assert_eq!((response.status(), response.head.get("X-Debug-Error")), (400, Some("plain_to_tls")), "{method}");
        assert_eq!(response.head.get("Connection"), Some("close"));
        assert_eq!(response.text().contains("This port speaks TLS"), method != "HEAD", "{}", response.text());
        client.finish_writing();
        client.expect_closed();
    }
    // As soon as it can be known, and whatever follows.
    let mut slow = Client::over(Box::new(connect(proxy.secure_address(), None)));
    slow.send("G");
    assert_eq!(slow.response_to("GET").status(), 400);
    slow.send([b'x'; 100_000]);
    slow.finish_writing();
    slow.expect_closed();
    let mut hello = Vec::new();
    authority.trust().session(HOST).write_tls(&mut hello).expect("a hello");
    let mut client = proxy.client();
    client.send(hello);
    assert_eq!(client.response_to("GET").status(), 400);
    client.expect_closed();
    let lines = proxy.log_lines("access.log", 5);
    let of_plain = lines.iter().filter(|line| line.contains("/plain HTTP/1.1\" 400 ")).count();
    assert_eq!((of_plain, lines.iter().filter(|line| line.contains(" 400 ")).count()), (3, 5), "{lines:#?}");
    assert!(backend.requests().is_empty());
    authority.trust().client(&proxy, HOST).get(HOST, "/").expect_ok("hello");
}

#[test]
fn a_hello_may_come_byte_by_byte() {
    let backend = Backend::always(canned::ok("hello"));
    let (proxy, trust) = secure(&backend);
    let mut socket = connect(proxy.secure_address(), None);
    socket.set_read_timeout(Some(PATIENCE)).expect("setting the read timeout");
    let mut session = trust.session(HOST);
    let mut hello = Vec::new();
    session.write_tls(&mut hello).expect("a hello");
    for byte in hello {
        socket.write_all(&[byte]).expect("sending a byte");
    }
    while session.is_handshaking() {
        session.complete_io(&mut socket).expect("a TLS handshake");
    }
}

#[test]
fn a_hello_may_come_in_records_of_any_size() {
    let backend = Backend::always(canned::ok("hello"));
    let (proxy, trust) = secure(&backend);
    for size in [1, 2, 3, 17, 100, 200] {
        let mut socket = connect(proxy.secure_address(), None);
        socket.set_read_timeout(Some(PATIENCE)).expect("setting the read timeout");
        let mut session = trust.session(HOST);
        let mut hello = Vec::new();
        session.write_tls(&mut hello).expect("a hello");
        let records = hello[5..].chunks(size).flat_map(|piece| {
            let length = u8::try_from(piece.len()).expect("a small piece");
            [&[22, 3, 1, 0, length], piece].concat()
        });
        socket.write_all(&records.collect::<Vec<u8>>()).expect("sending a hello");
        while session.is_handshaking() {
            session.complete_io(&mut socket).expect("a TLS handshake");
        }
    }
}

#[test]
fn keys_may_change_and_nobody_gathers_responses_that_are_not_read() {
    let backend = Backend::serve(|request, conn| conn.send(canned::ok(&request.body.len().to_string())));
    let (proxy, trust) = secure(&backend);
    let mut session = trust.session(HOST);
    let mut socket = connect(proxy.secure_address(), None);
    socket.set_read_timeout(Some(PATIENCE)).expect("setting the read timeout");
    while session.is_handshaking() {
        session.complete_io(&mut socket).expect("a TLS handshake");
    }
    const PIECES: usize = 1000;
    let head = format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {PIECES}\r\n\r\n");
    session.writer().write_all(head.as_bytes()).expect("room for a head");
    for _ in 0..PIECES {
        session.refresh_traffic_keys().expect("other keys");
        session.writer().write_all(b"x").expect("room for a byte");
        while session.wants_write() {
            session.write_tls(&mut socket).expect("sending");
        }
    }
    let mut stream = rustls::StreamOwned::new(session, socket);
    let mut response = [0; 15];
    stream.read_exact(&mut response).expect("an answer");
    assert_eq!(&response, b"HTTP/1.1 200 OK");
}

#[test]
fn keys_changed_without_end_or_empty_records_end_the_connection_or_do_no_harm() {
    let backend = Backend::always(canned::ok("hello"));
    let (proxy, trust) = secure(&backend);
    let mut session = trust.session(HOST);
    let mut socket = connect(proxy.secure_address(), None);
    socket.set_read_timeout(Some(PATIENCE)).expect("setting the read timeout");
    while session.is_handshaking() {
        session.complete_io(&mut socket).expect("a TLS handshake");
    }
    for _ in 0..200 {
        session.refresh_traffic_keys().expect("other keys");
        while session.wants_write() && session.write_tls(&mut socket).is_ok() {}
    }
    let mut heard = Vec::new();
    // The reset may overtake the alert.
    let _ = socket.read_to_end(&mut heard);
    for kind in 20..24 {
        let mut flood = connect(proxy.secure_address(), None);
        while flood.write_all(&[kind, 3, 3, 0, 0].repeat(100)).is_ok() {}
    }
    trust.client(&proxy, HOST).get(HOST, "/").expect_ok("hello");
}

#[test]
fn the_end_is_told_and_a_cut_is_not() {
    let backend = Backend::serve(|request, conn| {
        match request.head.target() {
            "/whole" => conn.send("HTTP/1.1 200 OK\r\n\r\nwhole"),
            _ => conn.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart"),
        }
        conn.finish();
    });
    let (proxy, trust) = secure(&backend);
    let ask = |target: &str| {
        let mut client = trust.client(&proxy, HOST);
        client.send(format!("GET {target} HTTP/1.0\r\nHost: {HOST}\r\n\r\n"));
        client.try_response_to("GET").map(|response| response.text())
    };
    assert_eq!(ask("/whole").expect("a whole answer"), "whole");
    assert!(ask("/part").is_err());
}

#[test]
fn large_bodies_pass_whatever_the_sizes_of_records_and_reads() {
    const LARGE: u64 = 24 * MIB;
    let backend = Backend::raw(|conn| {
        while let Some(head) = conn.head() {
            let mut checker = Checker::default();
            conn.body(&head, &mut |piece| checker.take(piece)).expect("the whole body");
            checker.expect(LARGE);
            conn.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n"));
            write_pattern(conn.socket(), LARGE).expect("sending the answer");
        }
    });
    let (proxy, trust) = secure(&backend);
    for record in [None, Some(600), Some(16_384)] {
        let mut stream = trust.with_records_of(record).connect(proxy.secure_address(), HOST);
        write!(stream, "POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {LARGE}\r\n\r\n").expect("sending a head");
        write_pattern(&mut stream, LARGE).expect("sending the body");
        let mut client = Client::over(Box::new(stream));
        let head = client.head();
        let mut checker = Checker::default();
        let mut pieces = 0_u32;
        client.body(head.response_framing("POST"), &mut |piece| {
            checker.take(piece);
            pieces += 1;
            // A reader that is slow now and then fills the socket on the other side.
            if pieces.is_multiple_of(64) {
                worker_has_caught_up(&proxy);
            }
        });
        checker.expect(LARGE);
    }
}

#[test]
fn a_client_that_has_said_its_last_word_gets_its_response_where_that_is_set() {
    let backend = Backend::always(canned::ok("hello"));
    let authority = Authority::new();
    let setup = Setup::for_backends([backend.url()]).set("onClientAbort", "ignore").with_https();
    let (proxy, trust) = (setup.default_certificate(&authority.issue(&[HOST])).start(), authority.trust());
    let mut client = trust.client(&proxy, HOST);
    client.send(canned::get(HOST, "/"));
    client.finish_writing();
    client.response_to("GET").expect_ok("hello");
    client.expect_closed();
}

#[test]
fn web_sockets_pass() {
    let backend = Backend::raw(|conn| {
        let stream = conn.socket().try_clone().expect("a second handle");
        let Ok(mut socket) = tungstenite::accept(stream) else { return };
        while let Ok(message) = socket.read() {
            if (message.is_text() || message.is_binary()) && socket.send(message).is_err() {
                return;
            }
        }
    });
    let (proxy, trust) = secure(&backend);
    let stream = trust.connect(proxy.secure_address(), HOST);
    let (mut socket, response) = tungstenite::client(format!("wss://{HOST}/chat"), stream).expect("the handshake");
    assert_eq!(response.status().as_u16(), 101);
    for length in [0, 5, 70_000, 300_000] {
        let message = Message::binary(vec![7; length]);
        socket.send(message.clone()).expect("sending a message");
        assert_eq!(socket.read().expect("reading the echo"), message);
    }
    drop(socket);
    until("the backend's side is closed too", || backend.open_connections() == 0);
}

#[test]
fn half_a_tunnel_may_end() {
    let backend = Backend::raw(|conn| {
        conn.request();
        conn.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: lines\r\n\r\n");
        let mut heard = Vec::new();
        conn.socket().read_to_end(&mut heard).expect("the client's end");
        conn.send(heard);
    });
    let (proxy, trust) = secure(&backend);
    let mut client = trust.client(&proxy, HOST);
    client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: lines\r\n\r\n"));
    assert_eq!(client.head().status(), 101);
    client.send("the last words");
    client.finish_writing();
    let (bytes, how) = client.rest();
    assert_eq!((bytes.as_slice(), how), (&b"the last words"[..], How::Closed));
}
