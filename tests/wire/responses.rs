//! Heads of answers: the one form in which they go to a client, and those that are refused.

use crate::{crlf, feed, text};
use sluice::wire::HeadFault;
use sluice::wire::body::BodyLength;
use sluice::wire::request::fields;
use sluice::wire::response::{Persistence, ResponseEncoding, ResponseHead};

const PLAIN: ResponseEncoding<'_> =
    ResponseEncoding { chunked: false, to_http11: true, persistence: Persistence::Implied, via: None };

fn read(bytes: &[u8], encoding: &ResponseEncoding<'_>) -> Option<(Result<String, HeadFault>, usize)> {
    let mut room = fields();
    match ResponseHead::parse(bytes, &mut room, false) {
        Ok(head) => head.map(|head| {
            let mut out = Vec::new();
            head.write(encoding, &mut out);
            (Ok(text(&out)), head.len)
        }),
        Err(fault) => Some((Err(fault), 0)),
    }
}

fn check(encoding: &ResponseEncoding<'_>, table: &[(&str, &str)]) {
    for (input, expected) in table {
        let found = feed(crlf(input).as_bytes(), |bytes| read(bytes, encoding));
        assert_eq!(found, Ok(crlf(expected)), "{input:?}");
    }
}

#[test]
fn lines_keep_their_case_and_order() {
    check(
        &PLAIN,
        &[
            ("HTTP/1.1 200 OK\n\n", "HTTP/1.1 200 OK\n"),
            ("HTTP/1.1 200\n\n", "HTTP/1.1 200 \n"),
            ("HTTP/1.0 404 Not  here\nX:y\n\n", "HTTP/1.1 404 Not  here\nX: y\n"),
            (
                "HTTP/1.1 999 ?\nset-cookie: a=1\nServer: x\nSet-Cookie: b=2\nCONTENT-LENGTH: 005\n\n",
                "HTTP/1.1 999 ?\nset-cookie: a=1\nServer: x\nSet-Cookie: b=2\nCONTENT-LENGTH: 5\n",
            ),
            ("HTTP/1.1 304 OK\nContent-Length: 5\nETag: x\n\n", "HTTP/1.1 304 OK\nContent-Length: 5\nETag: x\n"),
        ],
    );
}

#[test]
fn what_belongs_to_a_hop_ends_here() {
    check(
        &PLAIN,
        &[
            (
                "HTTP/1.1 200 OK\nConnection: close, X-Hop\nKeep-Alive: timeout=5\nX-HOP: 1\nProxy-Connection: x\n\
                 Upgrade: h2c\nX: 1\n\n",
                "HTTP/1.1 200 OK\nX: 1\n",
            ),
            (
                "HTTP/1.1 200 OK\nConnection: Content-Length, Transfer-Encoding\nContent-Length: 5\n\n",
                "HTTP/1.1 200 OK\nContent-Length: 5\n",
            ),
            // Neither stands in a 1xx or a 204.
            ("HTTP/1.1 204 OK\nContent-Length: 5\n\n", "HTTP/1.1 204 OK\n"),
            ("HTTP/1.1 204 OK\nTransfer-Encoding: chunked\n\n", "HTTP/1.1 204 OK\n"),
            ("HTTP/1.1 103 Early\nContent-Length: 5\nLink: x\n\n", "HTTP/1.1 103 Early\nLink: x\n"),
            (
                "HTTP/1.1 426 U\nUpgrade: x\nContent-Length: 0\n\n",
                "HTTP/1.1 426 U\nUpgrade: x\nContent-Length: 0\nConnection: Upgrade\n",
            ),
        ],
    );
}

#[test]
fn the_delivery_tells_what_is_added() {
    let sized = "HTTP/1.1 200 OK\nContent-Length: 5\nX: 1\n\n";
    let chunked = "HTTP/1.1 200 OK\nTransfer-encoding: CHUNKED\nX: 1\n\n";
    let open = "HTTP/1.0 200 OK\nX: 1\n\n";
    let close = ResponseEncoding { persistence: Persistence::Close, ..PLAIN };
    check(&close, &[(sized, "HTTP/1.1 200 OK\nContent-Length: 5\nX: 1\nConnection: close\n")]);
    check(&close, &[("HTTP/1.1 426 U\nUpgrade: x\n\n", "HTTP/1.1 426 U\nUpgrade: x\nConnection: close, Upgrade\n")]);
    let via = ResponseEncoding { via: Some("edge-1"), chunked: true, ..PLAIN };
    check(
        &via,
        &[
            (chunked, "HTTP/1.1 200 OK\nTransfer-encoding: chunked\nX: 1\nVia: 1.1 edge-1\n"),
            (open, "HTTP/1.1 200 OK\nX: 1\nTransfer-Encoding: chunked\nVia: 1.0 edge-1\n"),
        ],
    );
    let old = ResponseEncoding { to_http11: false, persistence: Persistence::KeepAlive, ..PLAIN };
    check(
        &old,
        &[
            (sized, "HTTP/1.1 200 OK\nContent-Length: 5\nX: 1\nConnection: keep-alive\n"),
            (chunked, "HTTP/1.1 200 OK\nX: 1\nConnection: keep-alive\n"),
        ],
    );
    let switch = ResponseEncoding { persistence: Persistence::Upgrade, ..PLAIN };
    check(
        &switch,
        &[(
            "HTTP/1.1 101 Switch\nconnection: upgrade\nupgrade: WebSocket\nSec-WebSocket-Accept: k\n\n",
            "HTTP/1.1 101 Switch\nupgrade: WebSocket\nSec-WebSocket-Accept: k\nConnection: Upgrade\n",
        )],
    );
}

#[test]
fn lengths_and_connections() {
    // The lines, HEAD or not, the length of the body, and whether the backend keeps the connection.
    let table = [
        ("HTTP/1.1 200 OK\nContent-Length: 5\n\n", false, BodyLength::Sized(5), true),
        ("HTTP/1.1 200 OK\nContent-Length: 5\n\n", true, BodyLength::None, true),
        ("HTTP/1.1 200 OK\nContent-Length: 0\n\n", false, BodyLength::None, true),
        ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n", false, BodyLength::Chunked, true),
        ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n", true, BodyLength::None, true),
        ("HTTP/1.1 200 OK\nConnection: close\nContent-Length: 5\n\n", false, BodyLength::Sized(5), false),
        ("HTTP/1.1 200 OK\n\n", false, BodyLength::UntilClose, false),
        ("HTTP/1.1 200 OK\nConnection: keep-alive\n\n", false, BodyLength::UntilClose, false),
        ("HTTP/1.1 200 OK\n\n", true, BodyLength::None, true),
        ("HTTP/1.0 200 OK\nContent-Length: 5\n\n", false, BodyLength::Sized(5), false),
        ("HTTP/1.0 200 OK\nContent-Length: 5\nConnection: Keep-Alive\n\n", false, BodyLength::Sized(5), true),
        ("HTTP/1.1 204 OK\n\n", false, BodyLength::None, true),
        ("HTTP/1.1 304 OK\nContent-Length: 5\n\n", false, BodyLength::None, true),
        ("HTTP/1.1 100 Go\n\n", false, BodyLength::None, true),
    ];
    for (input, to_head, length, keep_alive) in table {
        let bytes = crlf(input);
        let mut room = fields();
        let head = ResponseHead::parse(bytes.as_bytes(), &mut room, to_head).expect("good").expect("whole");
        assert_eq!((head.body, head.keep_alive), (length, keep_alive), "{input:?} to HEAD: {to_head}");
    }
}

#[test]
fn upgrades() {
    let table: [(&str, Option<&str>); 5] = [
        ("Connection: x, UPGRADE\nUpgrade: WebSocket\n", Some("WebSocket")),
        ("Upgrade: websocket\n", None),
        ("Connection: Upgrade\n", None),
        ("Connection: close\nUpgrade: websocket\n", None),
        // Two lines: the client would see both.
        ("Connection: Upgrade\nUpgrade: websocket\nUpgrade: h2c\n", None),
    ];
    for (lines, expected) in table {
        let bytes = crlf(&format!("HTTP/1.1 101 Switch\n{lines}\n"));
        let mut room = fields();
        let head = ResponseHead::parse(bytes.as_bytes(), &mut room, false).expect("good").expect("whole");
        assert_eq!(head.upgrade().map(text).as_deref(), expected, "{lines:?}");
        assert!(!head.is_informational());
    }
}
