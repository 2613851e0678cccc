//! Heads of answers: the one form in which they go to a client, and those that are refused.

use crate::{crlf, feed, text};
use sluice::wire::HeadFault;
use sluice::wire::body::BodyLength;
use sluice::wire::lenient_response::{self, Repairs};
use sluice::wire::request::fields;
use sluice::wire::response::{Persistence, ResponseEncoding, ResponseHead};
use sluice::wire::response_fault;

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

const NO_REPAIRS: Repairs =
    Repairs { bare_lf: false, folded_line: false, repeated_length: false, length_beside_chunked: false };

/// Repairs a head that the strict parser refuses; the head as it leaves, what was repaired, and whether the connection may
/// carry another response.
fn repaired(head: &str) -> Option<(String, Repairs, bool)> {
    assert!(ResponseHead::parse(head.as_bytes(), &mut fields(), false).is_err(), "strictness refuses {head:?}");
    // What stands behind the head is no part of it.
    let with_body = format!("{head}5\n\nHTTP/1.1 200 OK\r\n\r\n");
    let repaired = lenient_response::repair(with_body.as_bytes())?;
    let mut room = fields();
    let parsed = repaired.parse(&mut room, false).ok()?.expect("a repaired head is complete");
    assert_eq!(parsed.len, head.len(), "{head:?}");
    let mut out = Vec::new();
    parsed.write(&PLAIN, &mut out);
    Some((text(&out), repaired.repairs, parsed.keep_alive))
}

#[test]
fn lenience_repairs_what_has_one_meaning() {
    let (bare_lf, folded_line) = (Repairs { bare_lf: true, ..NO_REPAIRS }, Repairs { folded_line: true, ..NO_REPAIRS });
    let repeated_length = Repairs { repeated_length: true, ..NO_REPAIRS };
    let length_beside_chunked = Repairs { length_beside_chunked: true, ..NO_REPAIRS };
    let table = [
        ("HTTP/1.1 200 OK\nContent-Length: 2\n\n", "HTTP/1.1 200 OK\nContent-Length: 2\n", bare_lf, true),
        (
            "HTTP/1.1 200 OK\r\nA: 1\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\nA: 1\nContent-Length: 2\n",
            bare_lf,
            true,
        ),
        ("HTTP/1.1 204 OK\r\nA: 1\r\n\n", "HTTP/1.1 204 OK\nA: 1\n", bare_lf, true),
        (
            "HTTP/1.1 204 OK\r\nA: 1,\r\n\t 2\r\n  3 \r\nB: 4\r\n\r\n",
            "HTTP/1.1 204 OK\nA: 1, 2 3\nB: 4\n",
            folded_line,
            true,
        ),
        (
            "HTTP/1.1 200 OK\nA: 1\n 2\nContent-Length: 3\n\n",
            "HTTP/1.1 200 OK\nA: 1 2\nContent-Length: 3\n",
            Repairs { bare_lf: true, ..folded_line },
            true,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nA: 1\r\ncontent-length: 02\r\n\r\n",
            "HTTP/1.1 200 OK\nA: 1\nContent-Length: 2\n",
            repeated_length,
            true,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\n",
            "HTTP/1.1 200 OK\nContent-Length: 2\n",
            repeated_length,
            true,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n",
            length_beside_chunked,
            false,
        ),
    ];
    for (head, expected, repairs, keep_alive) in table {
        assert_eq!(repaired(head), Some((crlf(expected), repairs, keep_alive)), "{head:?}");
    }
}

#[test]
fn lenience_leaves_refused_what_has_several_meanings() {
    let table = [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2x\r\nContent-Length: 2x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n 3\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.0 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\n folded: 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA b: 1\n\r\n",
        "HTTP/1.1 200 OK\r\nA : 1\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: 1\r2\n\r\n",
        "HTTP/1.1 200 OK\r\nA: 1\r\n \x01\r\n\r\n",
        "\nHTTP/1.1 200 OK\n\n",
    ];
    for head in table {
        assert_eq!(repaired(head), None, "{head:?}");
    }
    for whole in ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"] {
        assert!(lenient_response::repair(whole.as_bytes()).is_none(), "nothing is wrong with {whole:?}");
    }
    for part in ["HTTP/1.1 200 OK\nA: 1\n", "HTTP/1.1 200 OK\r\nA: 1\r\n 2"] {
        assert!(lenient_response::repair(part.as_bytes()).is_none(), "{part:?} is not complete");
    }
}

#[test]
fn the_first_fault_of_a_head_is_found() {
    let table = [
        ("SSH-2.0-x\r\n\r\n", "byte 0 of the response: the status line does not begin as HTTP/1.1 200 does"),
        ("HTTP/1.1 OK\r\n\r\n", "byte 9 of the response: the status line does not begin as HTTP/1.1 200 does"),
        ("HTTP/1.1 099 OK\r\n\r\n", "byte 9 of the response: the status is below 100"),
        ("HTTP/1.1 200 O\x01K\r\n\r\n", "byte 14 of the response: a control byte in the status line"),
        ("HTTP/1.1 200 OK\n\r\n", "byte 15 of the response: a line ends in LF without CR"),
        ("HTTP/1.1 200 OK\r\nA: 1\r\n 2\r\n\r\n", "byte 23 of the response: a folded line"),
        ("HTTP/1.1 200 OK\r\nX Y: 1\r\n\r\n", "byte 18 of the response: a byte that no name of a field may have"),
        ("HTTP/1.1 200 OK\r\nXY\r\n\r\n", "byte 19 of the response: a line without a colon"),
        ("HTTP/1.1 200 OK\r\n: 1\r\n\r\n", "byte 17 of the response: a field without a name"),
        ("HTTP/1.1 200 OK\r\nA: \x01\r\n\r\n", "byte 20 of the response: a control byte in A"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2x\r\n\r\n",
            "byte 17 of the response: a length that is no number in Content-Length",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\ncontent-length: 2\r\n\r\n",
            "byte 36 of the response: a second length in content-length",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
            "byte 36 of the response: a length beside chunked in Transfer-Encoding",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "byte 17 of the response: a transfer coding other than chunked, once in Transfer-Encoding",
        ),
    ];
    for (head, expected) in table {
        assert!(ResponseHead::parse(head.as_bytes(), &mut fields(), false).is_err(), "strictness refuses {head:?}");
        assert_eq!(response_fault::locate(head.as_bytes()).to_string(), expected, "{head:?}");
    }
}
