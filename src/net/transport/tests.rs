//! Sessions that leave, with real sockets and with peers that are rustls' own. On a kernel without TLS none leaves, and
//! that is all that these tests show there.

use super::*;
use crate::base::clock::Clock;
use crate::net::liveness::Liveness;
use crate::net::tls::{BackendSettings, BackendTls, Fault, Trust, Verification, kernel_has_tls};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    SupportedProtocolVersion,
};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// The ciphers of all suites.
const CIPHERS: [&str; 3] = ["AES_128_GCM", "AES_256_GCM", "CHACHA20_POLY1305"];

const PATIENCE: Duration = Duration::from_secs(20);

/// More than a socket accepts at once.
const MANY: usize = 3 << 20;

type Client = StreamOwned<ClientConnection, TcpStream>;
type Server = StreamOwned<ServerConnection, TcpStream>;

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 / 5) as u8).collect()
}

/// A server's settings, and those of a client that trusts it.
fn settings(version: &'static SupportedProtocolVersion, cipher: &str) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let pair = rcgen::generate_simple_self_signed(["a".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::try_from(pair.signing_key.serialize_der()).expect("a key");
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.retain(|suite| suite.suite().as_str().is_some_and(|name| name.contains(cipher)));
    let provider = Arc::new(provider);
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(&[version]);
    let server = server.expect("a version").with_no_client_auth();
    let mut server = server.with_single_cert(vec![pair.cert.der().clone()], key).expect("a pair");
    server.enable_secret_extraction = true;
    let mut roots = RootCertStore::empty();
    roots.add(pair.cert.der().clone()).expect("an authority");
    let client = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]);
    (Arc::new(server), Arc::new(client.expect("a version").with_root_certificates(roots).with_no_client_auth()))
}

/// One end of a connection, as a worker uses it.
struct End {
    transport: Transport,
    scratch: TlsScratch,
    clock: Clock,
}

impl End {
    fn new(transport: Transport) -> Self {
        Self { transport, scratch: TlsScratch::default(), clock: Clock::new() }
    }

    /// Repeats a step until it has a result.
    #[track_caller]
    fn until<T>(&mut self, what: &str, mut step: impl FnMut(&mut Transport, &mut TlsScratch) -> Option<T>) -> T {
        let due = self.clock.now() + PATIENCE;
        loop {
            self.transport.expect_bytes();
            if let Layer::Tls(session) = &mut self.transport.layer {
                session.writable(&mut self.transport.socket);
            }
            if let Some(result) = step(&mut self.transport, &mut self.scratch) {
                return result;
            }
            assert!(self.clock.now() < due, "{what}: {:?}", self.transport);
            thread::yield_now();
        }
    }

    #[track_caller]
    fn read(&mut self, length: usize) -> Vec<u8> {
        let (mut all, mut room) = (Vec::new(), vec![0; 10_000]);
        self.until("bytes", |transport, scratch| {
            match transport.receive(&mut room, scratch) {
                Received::Bytes(count) => all.extend_from_slice(&room[..count]),
                Received::Nothing => {}
                other => panic!("{other:?} after {} bytes: {:?}", all.len(), transport.fault()),
            }
            (all.len() >= length).then_some(())
        });
        all
    }

    /// What follows the last byte.
    #[track_caller]
    fn end(&mut self) -> Received {
        self.until("an end", |transport, scratch| {
            Some(transport.receive(&mut [0; 16], scratch)).filter(|received| *received != Received::Nothing)
        })
    }

    #[track_caller]
    fn write(&mut self, bytes: &[u8]) {
        let mut sent = 0;
        self.until("room", |transport, scratch| {
            match transport.send(&[IoSlice::new(&bytes[sent..])], scratch) {
                Ok(count) => sent += count,
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            (sent == bytes.len()).then_some(())
        });
    }

    /// The connection in another process. `None` if the kernel has no TLS, where it stays as it is.
    #[track_caller]
    fn moved(self) -> Option<Self> {
        self.moved_with(None)
    }

    /// The same, with this number of records that may still be sent.
    #[track_caller]
    fn moved_with(mut self, records_left: Option<u64>) -> Option<Self> {
        let is_ready = self.transport.prepare_to_leave();
        assert_eq!(is_ready, kernel_has_tls(), "{:?}", self.transport);
        if !is_ready {
            eprintln!("this kernel has no TLS (modprobe tls)");
            return None;
        }
        let agreed = self.transport.agreed_tls();
        self.transport.leave().expect("the kernel takes the keys");
        let mut state = serde_json::to_value(self.transport.portable_session().expect("a session")).expect("a value");
        let limit = state["records_left"].as_u64().expect("a number");
        assert!(
            ((1 << 24) - 100..=1 << 24).contains(&limit) || agreed.expect("a suite").1.contains("CHACHA"),
            "{limit}"
        );
        state["records_left"] = records_left.unwrap_or(limit).into();
        let socket = self.transport.into_portable().expect("a socket");
        let state = serde_json::from_value(state).expect("the same");
        let transport = Transport::arrived(mio::net::TcpStream::from_std(socket), Some(state));
        assert_eq!((transport.agreed_tls(), transport.is_encrypted()), (agreed, true));
        Some(Self::new(transport))
    }
}

fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let near = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
    (near, listener.accept().expect("a connection").0)
}

/// The proxy's end of a client's connection, and the client, after a byte from each.
fn with_client(version: &'static SupportedProtocolVersion, cipher: &str) -> (End, Client) {
    let (server, client) = settings(version, cipher);
    let (near, far) = connection();
    let client = thread::spawn(move || {
        let session = ClientConnection::new(client, ServerName::try_from("a").expect("a name")).expect("a session");
        let mut client = StreamOwned::new(session, far);
        client.write_all(b"?").expect("a write");
        client.read_exact(&mut [0]).expect("a read");
        client
    });
    near.set_nonblocking(true).expect("a socket");
    let mut end = End::new(Transport::accepted_tls(mio::net::TcpStream::from_std(near)));
    end.until("a hello", |transport, scratch| {
        (transport.receive(&mut [0; 16], scratch) == Received::Hello).then_some(())
    });
    end.transport.accept(server);
    assert_eq!(end.read(1), b"?");
    end.write(b"!");
    (end, client.join().expect("a client"))
}

/// Both directions at once, with more than the socket holds, and the end of each.
#[track_caller]
fn exchange<S: Read + Write + Send + 'static>(mut end: End, mut peer: S, finish: fn(&mut S)) {
    let peer: JoinHandle<()> = thread::spawn(move || {
        let mut got = vec![0; MANY];
        peer.read_exact(&mut got).expect("all of it");
        assert!(got == bytes(MANY), "the bytes differ");
        peer.write_all(&bytes(MANY)).expect("a write");
        assert_eq!(peer.read(&mut [0]).expect("an end that is no cut"), 0);
        finish(&mut peer);
    });
    end.write(&bytes(MANY));
    assert!(end.read(MANY) == bytes(MANY), "the bytes differ");
    end.transport.close_write();
    assert_eq!(end.end(), Received::End);
    assert_eq!(end.end(), Received::End, "it is told again");
    peer.join().expect("a peer");
}

fn say_goodbye(client: &mut Client) {
    client.conn.send_close_notify();
    client.flush().expect("a write");
}

#[test]
fn clients_of_all_versions_and_suites_continue() {
    for version in [&TLS12, &TLS13] {
        for cipher in CIPHERS {
            let (end, client) = with_client(version, cipher);
            let Some(end) = end.moved() else { continue };
            // The second process is upgraded too.
            exchange(end.moved().expect("a kernel with TLS"), client, say_goodbye);
        }
    }
}

/// Tickets of a backend may arrive after the move.
#[test]
fn backends_continue() {
    for version in [&TLS12, &TLS13] {
        let (server, _) = settings(version, CIPHERS[0]);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let backend = thread::spawn(move || {
            let session = ServerConnection::new(server).expect("a session");
            let mut server = StreamOwned::new(session, listener.accept().expect("a connection").0);
            server.conn.complete_io(&mut server.sock).expect("a handshake");
            server
        });
        let settings = BackendSettings { verification: Verification::Nothing, ..BackendSettings::default() };
        let tls = BackendTls::new(&settings).expect("settings");
        let target = tls.to("a", Trust::Settings).expect("a target");
        let options =
            SocketOptions { receive_buffer: None, liveness: Liveness { keep_alive: None, user_timeout: None } };
        let mut end = End::new(Transport::connect(address, options, Some(&target)).expect("a socket"));
        end.until("a handshake", |transport, scratch| transport.connected(&[], scratch)).expect("a handshake");
        let backend: Server = backend.join().expect("a backend");
        let Some(end) = end.moved() else { continue };
        exchange(end, backend, |server| {
            server.conn.send_close_notify();
            server.flush().expect("a write");
        });
    }
}

#[test]
fn a_cut_stream_is_no_end() {
    let (end, client) = with_client(&TLS13, CIPHERS[1]);
    let Some(mut end) = end.moved() else { return };
    drop(client.sock);
    assert_eq!(end.end(), Received::Broken);
    assert_eq!(end.transport.fault(), Some(&Fault::Truncated));
    assert!(!end.transport.start_lingering());
}

#[test]
fn a_peer_that_changes_its_key_is_named() {
    let (end, mut client) = with_client(&TLS13, CIPHERS[1]);
    let Some(mut end) = end.moved() else { return };
    client.conn.refresh_traffic_keys().expect("a change");
    client.write_all(b"more").expect("a write");
    assert_eq!(end.end(), Received::Broken);
    assert_eq!(end.transport.fault(), Some(&Fault::KeyChange));
}

/// The same number of records as without a move, however often the connection moves.
#[test]
fn no_more_records_are_sent_than_a_key_is_good_for() {
    let (end, _client) = with_client(&TLS13, CIPHERS[1]);
    let Some(mut end) = end.moved_with(Some(2)) else { return };
    end.write(&bytes((1 << 14) + 1));
    let refused = end.transport.send(&[IoSlice::new(b"x")], &mut end.scratch).expect_err("a limit");
    assert_eq!(refused.kind(), ErrorKind::ConnectionAborted);
}

/// A part of a record was read: the kernel would take the rest for a record.
#[test]
fn a_session_leaves_between_two_records_only() {
    let (mut end, mut client) = with_client(&TLS13, CIPHERS[1]);
    client.conn.writer().write_all(&bytes(1000)).expect("room");
    let mut record = Vec::new();
    client.conn.write_tls(&mut record).expect("a record");
    let (first, second) = record.split_at(500);
    client.sock.write_all(first).expect("a write");
    end.until("a part", |transport, scratch| {
        assert_eq!(transport.receive(&mut [0; 16], scratch), Received::Nothing);
        (!transport.prepare_to_leave()).then_some(())
    });
    assert!(!end.transport.prepare_to_leave());
    client.sock.write_all(second).expect("a write");
    assert_eq!(end.read(1000), bytes(1000));
    let Some(end) = end.moved() else { return };
    exchange(end, client, say_goodbye);
}

/// What a peer has sent before the move is in the socket, and what a reader has not taken is here.
#[test]
fn bytes_on_their_way_are_not_lost() {
    let (mut end, mut client) = with_client(&TLS13, CIPHERS[2]);
    client.write_all(&bytes(1000)).expect("a write");
    let mut room = [0; 10];
    let read = end.until("bytes", |transport, scratch| match transport.receive(&mut room, scratch) {
        Received::Bytes(count) => Some(count),
        _ => None,
    });
    assert_eq!(room[..read], bytes(1000)[..read]);
    assert!(!end.transport.prepare_to_leave(), "the rest was decrypted");
    assert_eq!(end.read(990), bytes(1000)[10..]);
    client.write_all(b"on its way").expect("a write");
    let Some(mut end) = end.moved() else { return };
    assert_eq!(end.read(10), b"on its way");
}
