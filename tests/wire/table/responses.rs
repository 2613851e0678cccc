//! Answers of backends that a client, or the next one on the same connection, would read in two ways.

use Given::{Cut, Passed, Refused};
use To::{Get, Head, Old, Upgrade};
use sluice::base::reason::FailureReason::{self, *};

/// Answers that are wrong in the same way.
pub(crate) struct ResponseClass {
    /// As in `docs/request-smuggling.md`.
    pub(crate) name: &'static str,
    /// The answers.
    pub(crate) rows: &'static [Response],
}

/// An answer: to what, the bytes, whether the backend then closes the connection, and what the client is given.
pub(crate) struct Response(pub(crate) To, pub(crate) &'static str, pub(crate) Then, pub(crate) Given);

/// What was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum To {
    /// A GET.
    Get,
    /// A HEAD.
    Head,
    /// A GET of HTTP/1.0 that wants to keep its connection.
    Old,
    /// A GET that offers WebSocket.
    Upgrade,
}

/// What the backend does behind its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// It waits for the next request.
    Waits,
    /// It closes the connection.
    Closes,
}

/// What the client is given.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Given {
    /// Exactly this; and whether the connection to the backend is used again.
    Passed(&'static str, Used),
    /// The page of this reason; the connection to the backend is not used again.
    Refused(FailureReason),
    /// This, and then the end of its connection where there should be more. Neither connection is used again.
    Cut(&'static str, FailureReason),
}

/// Whether a connection to a backend serves the next request too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Used {
    Again,
    Once,
}

use Then::{Closes, Waits};
use Used::{Again, Once};

macro_rules! ok {
    ($($lines:expr),*; $body:expr) => { concat!("HTTP/1.1 200 OK\r\n", $($lines, "\r\n",)* "\r\n", $body) };
}

const HELLO: &str = ok!("Content-Length: 5"; "hello");
const EMPTY: &str = ok!("Content-Length: 0"; "");
const CHUNKED: &str = ok!("Transfer-Encoding: chunked"; "5\r\nhello\r\n0\r\n\r\n");

/// Refused, whatever the backend does then.
const fn no(bytes: &'static str) -> Response {
    Response(Get, bytes, Waits, Refused(UpstreamMalformed))
}

/// The classes of answers.
pub(crate) const RESPONSES: &[ResponseClass] = &[
    ResponseClass {
        name: "responses with a faulty head",
        rows: &[
            no("HTTP/1.1 200 OK\nContent-Length: 5\r\n\r\nhello"),
            no("HTTP/1.1 200 OK\r\nContent-Length: 5\n\r\nhello"),
            no("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\nhello"),
            no(ok!("Content-Length: 5", "X: a\rSet-Cookie: b"; "hello")),
            no(ok!("Content-Length: 5", " folded"; "hello")),
            no(ok!("Content-Length : 5"; "hello")),
            no(ok!("Content-Length: 5", ": x"; "hello")),
            no(ok!("Content-Length: 5", "X Y: x"; "hello")),
            no(ok!("Content-Length: 5", "X: \0"; "hello")),
            no("HTTP/1.1 200 O\0K\r\nContent-Length: 5\r\n\r\nhello"),
            no("HTTP/1.1  200 OK\r\nContent-Length: 5\r\n\r\nhello"),
            no("HTTP/1.1 099 OK\r\nContent-Length: 5\r\n\r\nhello"),
            no("HTTP/1.1 20 OK\r\nContent-Length: 5\r\n\r\nhello"),
            no("HTTP/1.1 2000 OK\r\nContent-Length: 5\r\n\r\nhello"),
            no("HTTP/1.1 -20 OK\r\nContent-Length: 5\r\n\r\nhello"),
            no("HTTP/2.0 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
            no("HTTP/1.20 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
            no("HTTP/1.x 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
            Response(Get, "HTTP/1.2 200 OK\r\nContent-Length: 5\r\n\r\nhello", Waits, Passed(HELLO, Again)),
            Response(
                Get,
                "HTTP/1.9 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n000000000000000000005 \r\nhello\r\n0\r\n\r\n",
                Waits,
                Passed(CHUNKED, Again),
            ),
            no("ICY 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
            no("<html>hello</html>\r\n\r\n"),
            no("\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
            Response(
                Get,
                "HTTP/1.1 200\r\nContent-Length:05\r\n\r\nhello",
                Waits,
                Passed("HTTP/1.1 200 \r\nContent-Length: 5\r\n\r\nhello", Again),
            ),
        ],
    },
    ResponseClass {
        name: "responses with two lengths",
        rows: &[
            no(ok!("Content-Length: 5", "Content-Length: 5"; "hello")),
            no(ok!("Content-Length: 5", "Content-Length: 6"; "hello")),
            no(ok!("Content-Length: 5, 5"; "hello")),
            no(ok!("Content-Length: +5"; "hello")),
            no(ok!("Content-Length: 99999999999999999999"; "hello")),
            no(ok!("Content-Length: 9223372036854775808"; "hello")),
            no(ok!("Content-Length: 1000000000000000000"; "hello")),
            Response(Head, ok!("Content-Length: 9223372036854775808"; ""), Waits, Refused(UpstreamMalformed)),
            no(ok!("Content-Length: 5", "Transfer-Encoding: chunked"; "0\r\n\r\n")),
            no(ok!("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"; "0\r\n\r\n")),
            no(ok!("Transfer-Encoding: gzip, chunked"; "0\r\n\r\n")),
            no(ok!("Transfer-Encoding: chunked, gzip"; "0\r\n\r\n")),
            no(ok!("Transfer-Encoding: identity"; "hello")),
            no("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            Response(Head, ok!("Content-Length: 5", "Content-Length: 6"; ""), Waits, Refused(UpstreamMalformed)),
            Response(Get, "HTTP/1.1 204 No\r\nContent-Length: x\r\n\r\n", Waits, Refused(UpstreamMalformed)),
            Response(
                Get,
                "HTTP/1.1 304 No\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
                Waits,
                Refused(UpstreamMalformed),
            ),
        ],
    },
    ResponseClass {
        name: "bodies where there is none",
        rows: &[
            Response(
                Get,
                "HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\nhello",
                Waits,
                Passed("HTTP/1.1 204 No\r\n\r\n", Once),
            ),
            Response(
                Get,
                "HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                Waits,
                Passed("HTTP/1.1 204 No\r\n\r\n", Once),
            ),
            Response(
                Get,
                "HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\nhello",
                Waits,
                Passed("HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\n", Once),
            ),
            Response(
                Get,
                "HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\n",
                Waits,
                Passed("HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\n", Again),
            ),
            Response(
                Get,
                "HTTP/1.1 304 No\r\nTransfer-Encoding: chunked\r\n\r\n",
                Waits,
                Passed("HTTP/1.1 304 No\r\nTransfer-Encoding: chunked\r\n\r\n", Again),
            ),
            Response(
                Get,
                "HTTP/1.1 304 No\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                Waits,
                Passed("HTTP/1.1 304 No\r\nTransfer-Encoding: chunked\r\n\r\n", Once),
            ),
            Response(
                Get,
                "HTTP/1.1 205 No\r\nContent-Length: 5\r\n\r\nhello",
                Waits,
                Passed("HTTP/1.1 205 No\r\nContent-Length: 5\r\n\r\nhello", Again),
            ),
            Response(Head, HELLO, Waits, Passed(ok!("Content-Length: 5"; ""), Once)),
            Response(Head, ok!("Content-Length: 5"; ""), Waits, Passed(ok!("Content-Length: 5"; ""), Again)),
            Response(Head, CHUNKED, Waits, Passed(ok!("Transfer-Encoding: chunked"; ""), Once)),
            Response(Get, "HTTP/1.1 204 No\r\n\r\n", Waits, Passed("HTTP/1.1 204 No\r\n\r\n", Again)),
        ],
    },
    ResponseClass {
        name: "bytes behind a response",
        rows: &[
            Response(Get, concat!(ok!("Content-Length: 5"; "hello"), "!"), Waits, Passed(HELLO, Once)),
            Response(Get, concat!(ok!("Content-Length: 5"; "hello"), "\r\n"), Waits, Passed(HELLO, Once)),
            Response(
                Get,
                concat!(ok!("Content-Length: 5"; "hello"), ok!("Content-Length: 4"; "evil")),
                Waits,
                Passed(HELLO, Once),
            ),
            Response(
                Get,
                concat!(ok!("Content-Length: 0"; ""), ok!("Content-Length: 4"; "evil")),
                Waits,
                Passed(EMPTY, Once),
            ),
            Response(
                Get,
                concat!(ok!("Transfer-Encoding: chunked"; "5\r\nhello\r\n0\r\n\r\n"), "HTTP/1.1 200 OK\r\n\r\nevil"),
                Waits,
                Passed(CHUNKED, Once),
            ),
            Response(Get, HELLO, Waits, Passed(HELLO, Again)),
            Response(Get, CHUNKED, Waits, Passed(CHUNKED, Again)),
        ],
    },
    ResponseClass {
        name: "responses that the connection ends",
        rows: &[
            Response(Get, ok!(; "hello"), Closes, Passed(CHUNKED, Once)),
            Response(Get, ok!("Connection: close", "Content-Length: 5"; "hello"), Waits, Passed(HELLO, Once)),
            Response(Get, "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", Waits, Passed(HELLO, Once)),
            Response(
                Get,
                "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello",
                Waits,
                Passed(HELLO, Again),
            ),
            Response(Get, "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\nhello", Closes, Passed(CHUNKED, Once)),
            Response(Get, "HTTP/1.0 200 OK\r\n\r\nhello", Closes, Passed(CHUNKED, Once)),
            Response(Get, ok!("Connection: Content-Length", "Content-Length: 5"; "hello"), Waits, Passed(HELLO, Again)),
            Response(Old, CHUNKED, Waits, Passed("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello", Again)),
        ],
    },
    ResponseClass {
        name: "responses that end too early",
        rows: &[
            Response(
                Get,
                ok!("Content-Length: 10"; "hello"),
                Closes,
                Cut(ok!("Content-Length: 10"; "hello"), UpstreamTruncated),
            ),
            Response(
                Get,
                ok!("Transfer-Encoding: chunked"; "5\r\nhello\r\n"),
                Closes,
                Cut(ok!("Transfer-Encoding: chunked"; "5\r\nhello\r\n"), UpstreamTruncated),
            ),
            Response(
                Get,
                ok!("Transfer-Encoding: chunked"; "5\r\nhello\n0\r\n\r\n"),
                Waits,
                Cut(ok!("Transfer-Encoding: chunked"; "5\r\nhello\r\n"), UpstreamTruncated),
            ),
            Response(
                Get,
                ok!("Transfer-Encoding: chunked"; "5;\nhello\r\n0\r\n\r\n"),
                Waits,
                Cut(ok!("Transfer-Encoding: chunked"; ""), UpstreamTruncated),
            ),
            Response(
                Get,
                ok!("Transfer-Encoding: chunked"; "0\r\nX : 1\r\n\r\n"),
                Waits,
                Cut(ok!("Transfer-Encoding: chunked"; ""), UpstreamTruncated),
            ),
            Response(Get, "HTTP/1.1 200 OK\r\nContent-Le", Closes, Refused(UpstreamClosed)),
            Response(Get, "", Closes, Refused(UpstreamClosed)),
        ],
    },
    ResponseClass {
        name: "protocols not asked for",
        rows: &[
            Response(Get, SWITCH, Waits, Refused(UpgradeMismatch)),
            Response(Get, "HTTP/1.1 101 Switch\r\n\r\n", Waits, Refused(UpgradeMismatch)),
            Response(
                Upgrade,
                "HTTP/1.1 101 Switch\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
                Waits,
                Refused(UpgradeMismatch),
            ),
            Response(Upgrade, "HTTP/1.1 101 Switch\r\nUpgrade: websocket\r\n\r\n", Waits, Refused(UpgradeMismatch)),
            Response(Upgrade, "HTTP/1.1 101 Switch\r\nConnection: Upgrade\r\n\r\n", Waits, Refused(UpgradeMismatch)),
            Response(
                Upgrade,
                "HTTP/1.1 101 Switch\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n\r\n",
                Waits,
                Refused(UpgradeMismatch),
            ),
            Response(
                Upgrade,
                "HTTP/1.1 101 Switch\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 1, 2\r\n\r\n",
                Waits,
                Refused(UpstreamMalformed),
            ),
            Response(Upgrade, HELLO, Waits, Passed(HELLO, Again)),
            Response(Get, ok!("Upgrade: h2c", "Content-Length: 5"; "hello"), Waits, Passed(HELLO, Again)),
        ],
    },
    ResponseClass {
        name: "informational responses",
        rows: &[
            Response(
                Get,
                concat!("HTTP/1.1 103 Early\r\nLink: x\r\n\r\n", ok!("Content-Length: 5"; "hello")),
                Waits,
                Passed(concat!("HTTP/1.1 103 Early\r\nLink: x\r\n\r\n", ok!("Content-Length: 5"; "hello")), Again),
            ),
            Response(
                Get,
                concat!("HTTP/1.1 100 Go\r\nContent-Length: 5\r\n\r\n", ok!("Content-Length: 5"; "hello")),
                Waits,
                Passed(concat!("HTTP/1.1 100 Go\r\n\r\n", ok!("Content-Length: 5"; "hello")), Again),
            ),
            Response(
                Old,
                concat!("HTTP/1.1 103 Early\r\n\r\n", ok!("Content-Length: 5"; "hello")),
                Waits,
                Passed("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello", Again),
            ),
            Response(
                Get,
                concat!("HTTP/1.1 103 Early\r\nTransfer-Encoding: chunked\r\n\r\n", ok!("Content-Length: 5"; "hello")),
                Waits,
                Passed(concat!("HTTP/1.1 103 Early\r\n\r\n", ok!("Content-Length: 5"; "hello")), Again),
            ),
            Response(Get, "HTTP/1.1 103 Early\r\nContent-Length: 1, 2\r\n\r\n", Waits, Refused(UpstreamMalformed)),
            Response(Get, MANY_INFORMATIONAL, Waits, Refused(TooManyInformationalResponses)),
        ],
    },
];

const SWITCH: &str = "HTTP/1.1 101 Switch\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

macro_rules! eight {
    ($it:expr) => {
        concat!($it, $it, $it, $it, $it, $it, $it, $it)
    };
}

/// One more than are passed on.
const MANY_INFORMATIONAL: &str = concat!(eight!(eight!("HTTP/1.1 102 Wait\r\n\r\n")), "HTTP/1.1 102 Wait\r\n\r\n");
