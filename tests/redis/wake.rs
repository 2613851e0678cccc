//! `wake`: the first request that finds no backend has a message published that starts one, and is served by it.

use crate::server::Server;
use crate::support::backend::Backend;
use crate::support::client::Client;
use crate::support::proxy::{Proxy, Setup};
use crate::support::tls::Authority;
use crate::support::{HOST, PATIENCE, canned, until, unused_address};
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

/// The messages on the channel, from now on.
fn messages(redis: &Server) -> Receiver<String> {
    let (to, messages) = channel();
    let (ready, is_ready) = channel();
    let mut connection = redis.connect();
    thread::spawn(move || {
        let mut heard = connection.as_pubsub();
        heard.subscribe("sluice:wake").expect("subscribing");
        ready.send(()).expect("a listener");
        // It ends with the server.
        while let Ok(message) = heard.get_message() {
            let _ = to.send(message.get_payload().expect("a text"));
        }
    });
    is_ready.recv().expect("a subscription");
    messages
}

fn node(redis: &Server) -> Proxy {
    Setup::new().driver(redis.url()).workers(2).start()
}

fn sends(proxy: &Proxy) -> Client {
    let mut client = proxy.client();
    client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX-Debug: 1\r\n\r\n"));
    client
}

fn start_at(address: SocketAddr) -> Backend {
    Backend::raw_at(address, |conn| {
        while conn.request().is_some() {
            conn.send(canned::ok("awake"));
        }
    })
}

#[test]
fn one_message_over_all_nodes_wakes_an_application_and_its_requests_are_served() {
    let redis = Server::start();
    let address = unused_address();
    redis.set(HOST, &[format!("http://{address}")]);
    redis.run::<()>(&format!("HSET options:{HOST} wake true queueTimeout 1m"));
    let nodes = [node(&redis), node(&redis)];
    let messages = messages(&redis);
    // Neither who asks whether the node lives nor the page of another website wakes anybody.
    for proxy in &nodes {
        proxy.client().get("__ping__", "/").expect_ok("ok");
        assert_eq!(proxy.client().get("other.example.com", "/").status(), 400);
    }
    let mut clients: Vec<_> = (0..12).map(|number| sends(&nodes[number % 2])).collect();
    assert_eq!(messages.recv_timeout(PATIENCE).as_deref(), Ok(HOST));
    for proxy in &nodes {
        until("probes know that it sleeps", || proxy.stderr().contains("is down"));
    }
    let _awake = start_at(address);
    for client in &mut clients {
        client.response_to("GET").expect_ok("awake");
    }
    assert!(messages.try_recv().is_err(), "one message is enough");
    assert!((1..=10_000).contains(&redis.run::<i64>(&format!("PTTL wake:{HOST}"))), "and another one after a while");
}

/// Of more sleeping backends than a request may try, the one that is started serves it.
#[test]
fn more_backends_sleep_than_a_request_may_try() {
    let redis = Server::start();
    let addresses: Vec<SocketAddr> = (0..6).map(|_| unused_address()).collect();
    redis.set(HOST, &addresses.iter().map(|address| format!("http://{address}")).collect::<Vec<_>>());
    redis.run::<()>(&format!("HSET options:{HOST} wake true queueTimeout 1m retries 1 retryOn timeout"));
    let proxy = node(&redis);
    let messages = messages(&redis);
    let mut clients: Vec<_> = (0..4).map(|_| sends(&proxy)).collect();
    assert_eq!(messages.recv_timeout(PATIENCE).as_deref(), Ok(HOST));
    let _awake = start_at(addresses[3]);
    for client in &mut clients {
        client.response_to("GET").expect_ok("awake");
    }
}

#[test]
fn a_frontend_that_is_disabled_or_empty_is_woken_too_and_no_request_waits_for_ever() {
    const ENCRYPTED: &str = "encrypted.example.com";
    const EMPTY: &str = "empty.example.com";
    let redis = Server::start();
    let backend = Backend::always(canned::ok("awake"));
    redis.set(HOST, &[backend.url()]);
    redis.set(ENCRYPTED, &[format!("http://{}", unused_address())]);
    redis.set(EMPTY, &[]);
    redis.run::<()>(&format!("HSET options:{HOST} wake true queueTimeout 1m disabled true"));
    redis.run::<()>(&format!("HSET options:{ENCRYPTED} wake true httpsRedirect true"));
    redis.run::<()>(&format!("HSET options:{EMPTY} wake true queueTimeout 200ms retryAfter 7"));
    let setup = Setup::new().with_https().default_certificate(&Authority::new().issue(&[HOST]));
    let proxy = setup.driver(redis.url()).workers(1).start();
    let messages = messages(&redis);
    // A request that is sent elsewhere needs no backend.
    assert_eq!(proxy.client().get(ENCRYPTED, "/").status(), 301);
    let mut client = sends(&proxy);
    assert_eq!(messages.recv_timeout(PATIENCE).as_deref(), Ok(HOST));
    redis.run::<()>(&format!("HSET options:{HOST} disabled false"));
    client.response_to("GET").expect_ok("awake");
    let late = proxy.client().get(EMPTY, "/");
    assert_eq!((late.status(), late.head.get("retry-after")), (503, Some("7")));
    assert_eq!(messages.recv_timeout(PATIENCE).as_deref(), Ok(EMPTY));
}
