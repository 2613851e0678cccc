//! The end of a connection that the proxy closes first: no response is lost by it, whatever the client still sends.

use crate::succession::{replaceable, upgrade};
use crate::support::backend::Backend;
use crate::support::client::{Client, connect_with_window};
use crate::support::message::How;
use crate::support::proxy::{Proxy, Setup};
use crate::support::tls::Authority;
use crate::support::{HOST, canned, until};
use nix::sys::signal::Signal;

/// More than the client's window, and less than the proxy's system takes at once.
const BODY_BYTES: usize = 300_000;

/// The client's window, in bytes.
const WINDOW: usize = 32_768;

struct Case {
    name: &'static str,
    keep_alive: bool,
    fields: &'static str,
    signal: Option<Signal>,
    more: String,
}

fn cases() -> [Case; 5] {
    let next = || canned::get(HOST, "/next");
    let case = |name, keep_alive, fields, signal, more| Case { name, keep_alive, fields, signal, more };
    [
        case("a stop and silence", true, "", Some(Signal::SIGTERM), String::new()),
        case("a stop and the next request", true, "", Some(Signal::SIGTERM), next()),
        case("no keep-alive and the next request", false, "", None, next()),
        case("no keep-alive and many requests", false, "", None, next().repeat(2000)),
        case("Connection: close and a stray CRLF", true, "Connection: close\r\n", None, "\r\n".to_owned()),
    ]
}

/// The system has all of a response, the client has next to nothing of it, and the exchange is over. Then the client sends
/// more, and reads.
fn check(case: &Case, proxy: &Proxy, mut client: Client) {
    client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{}\r\n", case.fields));
    proxy.log_lines("access.log", 1);
    if let Some(signal) = case.signal {
        proxy.signal(signal);
        until("the proxy takes no new connections", || !proxy.accepts());
    }
    if !case.more.is_empty() {
        client.send(&case.more);
    }
    let response = client.try_response_to("GET").unwrap_or_else(|ended| {
        panic!("{}: {:?} after {} bytes", case.name, ended.how, ended.received.len());
    });
    assert_eq!(response.body.len(), BODY_BYTES, "{}", case.name);
    let (rest, how) = client.rest();
    assert_eq!((rest.len(), how), (0, How::Closed), "{}", case.name);
}

fn setup(case: &Case, backend: &Backend) -> Setup {
    Setup::for_backends([backend.url()]).with_access_log().set("httpKeepAlive", case.keep_alive).set("drainTimeout", 60)
}

fn large() -> Backend {
    Backend::always(canned::ok(&"x".repeat(BODY_BYTES)))
}

#[test]
fn no_response_is_cut_where_the_proxy_closes_first() {
    let backend = large();
    for case in cases() {
        let mut proxy = setup(&case, &backend).start();
        check(&case, &proxy, Client::over(Box::new(connect_with_window(proxy.address(), WINDOW))));
        if case.signal.is_some() {
            assert_eq!(proxy.until_exit().code(), Some(0));
        }
    }
}

#[test]
fn no_encrypted_response_is_cut_where_the_proxy_closes_first() {
    let (backend, authority) = (large(), Authority::new());
    for case in cases() {
        let mut proxy = setup(&case, &backend).with_https().default_certificate(&authority.issue(&[HOST])).start();
        let socket = connect_with_window(proxy.secure_address(), WINDOW);
        let stream = authority.trust().shake_hands(socket, HOST).expect("a handshake");
        check(&case, &proxy, Client::over(Box::new(stream)));
        if case.signal.is_some() {
            assert_eq!(proxy.until_exit().code(), Some(0));
        }
    }
}

/// The old process keeps an encrypted connection for one more request, and closes it behind its response. The request that
/// comes behind that one resets nothing.
#[test]
fn no_encrypted_response_is_cut_by_an_upgrade() {
    let (backend, authority) = (large(), Authority::new());
    let setup = Setup::for_backends([backend.url()]).with_access_log().with_https();
    let mut proxy = replaceable(setup.default_certificate(&authority.issue(&[HOST]))).start();
    let socket = connect_with_window(proxy.secure_address(), WINDOW);
    let mut client = Client::over(Box::new(authority.trust().shake_hands(socket, HOST).expect("a handshake")));
    client.send(canned::get(HOST, "/"));
    proxy.log_lines("access.log", 1);
    upgrade(&mut proxy);
    client.send(canned::get(HOST, "/next").repeat(2));
    for closes in [false, true] {
        let response = client.try_response_to("GET").unwrap_or_else(|ended| {
            panic!("{:?} after {} bytes", ended.how, ended.received.len());
        });
        assert_eq!(response.body.len(), BODY_BYTES);
        assert_eq!(response.head.lists("connection", "close"), closes);
    }
    let (rest, how) = client.rest();
    assert_eq!((rest.len(), how), (0, How::Closed));
}

/// A client that never closes its side costs the proxy its time limit, and the stop no more than that.
#[test]
fn a_client_that_never_closes_holds_up_no_stop() {
    let backend = Backend::always(canned::ok("hello"));
    let mut proxy = Setup::for_backends([backend.url()]).set("httpKeepAlive", false).set("drainTimeout", 60).start();
    let mut client = proxy.client();
    client.get(HOST, "/").expect_ok("hello");
    client.expect_closed();
    proxy.signal(Signal::SIGTERM);
    assert_eq!(proxy.until_exit().code(), Some(0));
    assert!(proxy.stderr().contains("lingering_timeouts 1"), "{}", proxy.stderr());
    drop(client);
}

/// What lingers counts as a connection, and gives way to those that come.
#[test]
fn clients_that_never_close_keep_nobody_out() {
    let backend = Backend::always(canned::ok("hello"));
    let proxy =
        Setup::for_backends([backend.url()]).workers(1).set("httpKeepAlive", false).set("maxConnections", 4).start();
    let mut clients = Vec::new();
    for _ in 0..12 {
        let mut client = proxy.client();
        client.get(HOST, "/").expect_ok("hello");
        client.expect_closed();
        clients.push(client);
    }
}
