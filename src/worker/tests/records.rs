//! What an encrypted connection keeps for a peer that is slow.

use super::*;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};

const BODY_BYTES: usize = 16 << 20;

/// A backend that shakes hands, reads a request's first bytes, and the others when it may; then it answers.
fn slow_backend(mut socket: TcpStream, may_read: Receiver<()>) -> JoinHandle<()> {
    let pair = rcgen::generate_simple_self_signed(["a".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::try_from(pair.signing_key.serialize_der()).expect("a key");
    let config = ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![pair.cert.der().clone()], key).expect("a pair");
    thread::spawn(move || {
        let mut session = ServerConnection::new(Arc::new(config)).expect("a session");
        session.complete_io(&mut socket).expect("hands are shaken");
        let mut stream = StreamOwned::new(session, socket);
        let mut room = vec![0; 65_536];
        let mut got = stream.read(&mut room).expect("a head");
        let head = room.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a whole head") + 4;
        // Nobody says so where the client leaves.
        if may_read.recv().is_ok() {
            while got < head + BODY_BYTES {
                got += stream.read(&mut room).expect("the body");
            }
            stream.write_all(OK).expect("an answer");
        }
    })
}

/// What is in use by all that there is.
fn lent(stage: &Stage) -> usize {
    let clients = stage.worker.clients.values().map(|client| client.stream.lent());
    let upstreams = stage.worker.upstreams.values().map(|upstream| upstream.stream.lent());
    let jobs = stage.worker.jobs.values().map(|job| job.exchange.lent_buffers());
    clients.chain(upstreams).chain(jobs).map(|lent| lent.grown).sum()
}

/// Of an upload to a slow backend, plaintext is kept and the records that were made of it; both count, until they have left
/// or nobody is left who could take them.
#[test]
fn records_for_a_slow_peer_count_among_the_buffers() {
    for leaves in [false, true] {
        let mut stage = Stage::with_backend("https", "records", 10);
        let mut client = stage.client(&format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {BODY_BYTES}\r\n\r\n"));
        let (connection, _) = stage.until("a dial", |stage| stage.backend.accept().ok());
        SockRef::from(&connection).set_recv_buffer_size(65_536).expect("a small buffer");
        let (go, may_read) = channel();
        let backend = slow_backend(patient(connection), may_read);
        client.set_nonblocking(true).expect("a client that can be asked");
        let (body, mut sent) = (vec![b'x'; BODY_BYTES], 0);
        let mut send = |client: &mut TcpStream| sent += client.write(&body[sent..]).unwrap_or(0);
        let kept = stage.until("records are kept", |stage| {
            send(&mut client);
            let upstream = stage.worker.upstreams.values().next()?;
            Some(upstream.stream.transport.kept().grown).filter(|kept| *kept > 0)
        });
        assert_eq!(stage.worker.core.buffers.grown(), lent(&stage));
        assert!(lent(&stage) > kept, "their plaintext is kept too");
        let key = stage.worker.jobs.keys().next().expect("a job");
        assert!(stage.worker.burden(key).is_some_and(|burden| burden > kept as u128));
        if leaves {
            drop(go);
            reset(client);
        } else {
            go.send(()).expect("a backend that waits");
            stage.until("an answer", |_| {
                send(&mut client);
                client.peek(&mut [0]).ok()
            });
        }
        stage.until("it is over", |stage| stage.worker.jobs.is_empty().then_some(()));
        assert_eq!((stage.worker.core.buffers.lent(), stage.worker.core.buffers.grown()), (0, 0));
        backend.join().expect("a backend that ends well");
    }
}
