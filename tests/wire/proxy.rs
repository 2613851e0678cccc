//! The table against the program, with real sockets.

use crate::support::backend::Backend;
use crate::support::canned;
use crate::support::client::Client;
use crate::support::message::How;
use crate::support::proxy::{Proxy, Setup};
use crate::support::{HOST, until};
use crate::table::{Fate, Given, REQUESTS, RESPONSES, Response, Then, To, Used};
use crate::text;
use sluice::base::reason::FailureReason;

const BEHIND: &str = "GET /behind HTTP/1.1\r\nHost: a\r\n\r\n";

/// A proxy whose every host is served by this backend. Only what the tests have in hand goes into messages.
fn in_front_of(backend: &Backend) -> Proxy {
    Setup::new().route("*", [backend.url()]).set("via", false).workers(1).start()
}

/// The forwarded headers of a client of this proxy.
fn forwarded(proxy: &Proxy, client: &Client) -> String {
    let ip = client.socket().local_addr().expect("the client's address").ip();
    let port = proxy.address().port();
    format!(
        "X-Forwarded-For: {ip}\r\nX-Real-IP: {ip}\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Protocol: http\r\n\
         X-Forwarded-Port: {port}\r\n"
    )
}

#[test]
fn a_backend_never_sees_another_request_than_the_one_that_was_judged() {
    let backend = Backend::always(canned::ok("ok"));
    let proxy = in_front_of(&backend);
    // A backend of its own for what is refused: the other one may still be counting the heads of an earlier row.
    let unheard = Backend::always(canned::ok("ok"));
    let refusing = in_front_of(&unheard);
    for class in REQUESTS.iter().flat_map(|classes| classes.iter()) {
        for (input, fate) in class.rows {
            let what = format!("{}: {input:?}", class.name);
            let is_refused = matches!(fate, Fate::Refused(_) | Fate::Cut(_));
            let (backend, proxy) = if is_refused { (&unheard, &refusing) } else { (&backend, &proxy) };
            let before = backend.requests().len();
            let mut client = proxy.client();
            let forwarded = forwarded(proxy, &client);
            client.send([input, BEHIND].concat());
            let (expected, reason) = match *fate {
                Fate::Refused(reason) | Fate::Cut(reason) => (String::new(), Some(reason)),
                Fate::Passed(bytes) => (format!("{bytes}GET /behind HTTP/1.1\r\nHost: a\r\n{{f}}\r\n"), None),
                Fate::Last(bytes) => (bytes.to_owned(), None),
                Fate::Responded(_) => ("GET /behind HTTP/1.1\r\nHost: a\r\n{f}\r\n".to_owned(), None),
            };
            expect_responses(&mut client, *fate, reason, input, &what);
            let seen: Vec<u8> = backend.requests().drain(before..).flat_map(|request| request.wire).collect();
            assert_eq!(text(&seen), expected.replace("{f}", &forwarded), "{what}");
            assert_eq!(unheard.heads(), 0, "a backend has heard of {what}");
        }
    }
}

/// Reads the answers to a row and to the request behind it, which is answered last if at all.
#[track_caller]
fn expect_responses(client: &mut Client, fate: Fate, reason: Option<FailureReason>, input: &str, what: &str) {
    let method = input.trim_start().split(' ').next().unwrap_or_default();
    let first = client.response_to(method);
    let Some(reason) = reason else {
        let expected = if let Fate::Responded(status) = fate { status } else { 200 };
        assert_eq!(first.status(), expected, "{what}");
        if !matches!(fate, Fate::Last(_)) {
            for _ in 0..input.matches("GET /next ").count() + 1 {
                assert_eq!(client.response_to("GET").status(), 200, "the request behind {what}");
            }
            client.finish_writing();
        }
        return client.expect_closed();
    };
    assert_eq!((first.status(), first.head.lists("connection", "close")), (reason.status(), true), "{what}");
    let is_told = method == "HEAD" || first.text().contains(reason.sentence());
    assert!(is_told, "{reason} is not the reason for {what}: {}", first.text());
    client.expect_closed();
}

#[test]
fn a_client_never_sees_another_response_than_the_one_that_was_judged() {
    for class in RESPONSES {
        for row in class.rows {
            expect_response(row, &format!("{}: {:?}", class.name, row.1));
        }
    }
}

fn expect_response(Response(to, bytes, then, given): &Response, what: &str) {
    let (bytes, closes) = (bytes.to_string(), *then == Then::Closes);
    let backend = Backend::serve(move |request, conn| {
        if request.head.target() == "/behind" {
            return conn.send(canned::ok("behind"));
        }
        conn.send(&bytes);
        if closes {
            conn.finish();
        }
    });
    let proxy = in_front_of(&backend);
    let mut client = proxy.client();
    let debug = if matches!(given, Given::Refused(_)) { "X-Debug: 1\r\n" } else { "" };
    client.send(to.request(debug));
    let used = match given {
        Given::Refused(reason) => {
            let response = client.response_to(to.method());
            let found = (response.status(), response.head.get("x-debug-error"));
            assert_eq!(found, (reason.status(), Some(reason.name())), "{what}");
            Used::Once
        }
        Given::Passed(expected, used) => {
            assert_eq!(text(&client.bytes(expected.len())), *expected, "{what}");
            if expected.contains("\r\nConnection: close\r\n") {
                client.expect_closed();
                client = proxy.client();
            }
            *used
        }
        Given::Cut(expected, _) => {
            let (received, how) = client.rest();
            assert_eq!((text(&received), how), ((*expected).to_owned(), How::Closed), "{what}");
            client = proxy.client();
            Used::Once
        }
    };
    if used == Used::Once {
        until(&format!("the connection is given up: {what}"), || backend.open_connections() == 0);
    }
    client.get(HOST, "/behind").expect_ok("behind");
    let expected = if used == Used::Again { 1 } else { 2 };
    assert_eq!(backend.connections(), expected, "connections to the backend: {what}");
}

impl To {
    /// The request, with these lines.
    pub(crate) fn request(self, lines: &str) -> String {
        let (start, end) = match self {
            Self::Get => ("GET / HTTP/1.1", ""),
            Self::Head => ("HEAD / HTTP/1.1", ""),
            Self::Old => ("GET / HTTP/1.0", "Connection: keep-alive\r\n"),
            Self::Upgrade => ("GET / HTTP/1.1", "Connection: Upgrade\r\nUpgrade: websocket\r\n"),
        };
        format!("{start}\r\nHost: a\r\n{lines}{end}\r\n")
    }

    /// Its method.
    pub(crate) fn method(self) -> &'static str {
        if self == Self::Head { "HEAD" } else { "GET" }
    }
}
