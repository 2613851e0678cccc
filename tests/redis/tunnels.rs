//! What becomes of tunnels when their backend leaves the list.

use crate::changes::until_all_say;
use crate::server::Server;
use crate::support::backend::Backend;
use crate::support::client::Client;
use crate::support::proxy::{Proxy, Setup};
use crate::support::{HOST, canned, until};

/// The frames that a client gets when its backend leaves, with what the backend does after the handshake.
#[track_caller]
fn departure(drain: Option<f64>, protocol: &str, last_words: &'static [u8]) -> (Proxy, Client, Backend, Server) {
    let redis = Server::start();
    let upgrade = format!("HTTP/1.1 101 Switching Protocols\r\nUpgrade: {protocol}\r\nConnection: Upgrade\r\n\r\n");
    let leaves = Backend::raw(move |conn| {
        if conn.head().is_some() {
            conn.send(upgrade.as_bytes());
            conn.send(last_words);
            while !conn.bytes(1).is_empty() {}
        }
    });
    redis.set(HOST, &[leaves.url()]);
    let mut setup = Setup::new().driver(redis.url()).workers(1);
    if let Some(seconds) = drain {
        setup = setup.set("tunnelDrain", seconds);
    }
    let proxy = setup.start();
    let mut client = proxy.client();
    client.send(format!(
        "GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ));
    assert_eq!(client.head().status(), 101);
    assert_eq!(client.bytes(last_words.len()), last_words);
    let stays = Backend::always(canned::ok("stays"));
    redis.set(HOST, &[stays.url()]);
    until_all_say(&mut [proxy.client()], HOST, "stays");
    (proxy, client, leaves, redis)
}

#[test]
fn tunnels_of_a_backend_that_left_are_ended_only_after_their_time() {
    const HELLO: &[u8] = &[0x81, 2, b'h', b'i'];
    // WebSocket, between two frames: the client is told to come again.
    let (_proxy, mut client, leaves, _redis) = departure(Some(0.3), "websocket", HELLO);
    assert_eq!(client.rest().0, [0x88, 2, 0x03, 0xf4]);
    until("the backend's side is closed too", || leaves.open_connections() == 0);
    // Another protocol: nobody knows what could be said.
    let (_proxy, mut client, _leaves, _redis) = departure(Some(0.3), "other", b"hello");
    assert!(client.rest().0.is_empty());
    // Without the setting it goes on.
    let (proxy, mut client, leaves, _redis) = departure(None, "websocket", HELLO);
    client.send(b"still here");
    until("what is sent arrives", || leaves.open_connections() == 1);
    assert!(!proxy.stderr().contains("panicked"));
    leaves.close_connections();
    assert!(client.rest().0.is_empty());
}
