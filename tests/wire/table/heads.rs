//! Bytes that are not allowed where they stand.

use super::Fate::{Last, Passed, Refused};
use super::{Class, get, got, post};
use sluice::base::reason::FailureReason::{BadHost, BadTarget, MalformedHead, TooManyHeaders, UnknownVersion};

macro_rules! forty {
    () => {
        concat!(ten!(), ten!(), ten!(), ten!())
    };
}

macro_rules! ten {
    () => {
        "X: 1\r\nX: 1\r\nX: 1\r\nX: 1\r\nX: 1\r\nX: 1\r\nX: 1\r\nX: 1\r\nX: 1\r\nX: 1\r\n"
    };
}

pub(super) const CLASSES: &[Class] = &[
    Class {
        name: "bare LF",
        rows: &[
            ("GET / HTTP/1.1\nHost: a\r\n\r\n", Refused(MalformedHead)),
            ("GET / HTTP/1.1\r\nHost: a\n\r\n", Refused(MalformedHead)),
            ("GET / HTTP/1.1\r\nHost: a\r\n\n", Refused(MalformedHead)),
            ("GET / HTTP/1.1\nHost: a\n\n", Refused(MalformedHead)),
            ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(MalformedHead)),
            ("\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(MalformedHead)),
            (post!("X: y\nContent-Length: 5"; "hello"), Refused(MalformedHead)),
            (post!("X: y\nTransfer-Encoding: chunked", "Content-Length: 5"; "hello"), Refused(MalformedHead)),
            (post!("X:\nTransfer-Encoding: chunked"; "0\r\n\r\n"), Refused(MalformedHead)),
        ],
    },
    Class {
        name: "bare CR",
        rows: &[
            ("GET / HTTP/1.1\rHost: a\r\n\r\n", Refused(MalformedHead)),
            (get!("X: y\rz"), Refused(MalformedHead)),
            (get!("X: \ry"), Refused(MalformedHead)),
            (get!("X\r: y"), Refused(MalformedHead)),
            (post!("X: y\rTransfer-Encoding: chunked"; "0\r\n\r\n"), Refused(MalformedHead)),
            ("GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", Refused(MalformedHead)),
            (get!("X: y\r"), Refused(MalformedHead)),
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\r\n", Refused(MalformedHead)),
            ("\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(MalformedHead)),
        ],
    },
    Class {
        name: "blank lines before a request",
        rows: &[
            ("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", got!()),
            ("\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", got!()),
            ("\0\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(MalformedHead)),
            ("\x01GET / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(MalformedHead)),
            ("\x7fGET / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(MalformedHead)),
            (" \r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(MalformedHead)),
        ],
    },
    Class {
        name: "folded lines",
        rows: &[
            (get!("X: y", " z"), Refused(MalformedHead)),
            (get!("X: y", "\tz"), Refused(MalformedHead)),
            ("GET / HTTP/1.1\r\n X: 1\r\nHost: a\r\n\r\n", Refused(MalformedHead)),
            ("GET / HTTP/1.1\r\n\tHost: a\r\n\r\n", Refused(MalformedHead)),
            (post!("Transfer-Encoding:", " chunked"; "0\r\n\r\n"), Refused(MalformedHead)),
            (post!("X: y", " Content-Length: 5"; "hello"), Refused(MalformedHead)),
            (post!(" Content-Length: 5"; "hello"), Refused(MalformedHead)),
            (get!("X:", " "), Refused(MalformedHead)),
        ],
    },
    Class {
        name: "names of fields",
        rows: &[
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", Refused(MalformedHead)),
            (post!("Content-Length : 5"; "hello"), Refused(MalformedHead)),
            (post!("Transfer-Encoding\t: chunked"; "0\r\n\r\n"), Refused(MalformedHead)),
            (post!("Transfer-Encoding\x0b: chunked"; "0\r\n\r\n"), Refused(MalformedHead)),
            (post!("Transfer Encoding: chunked"; "0\r\n\r\n"), Refused(MalformedHead)),
            (get!(": 1"), Refused(MalformedHead)),
            (get!(":"), Refused(MalformedHead)),
            (get!("X"), Refused(MalformedHead)),
            (get!("X Y: 1"), Refused(MalformedHead)),
            (get!("X(1): 1"), Refused(MalformedHead)),
            (get!("\"X\": 1"), Refused(MalformedHead)),
            (get!("X[1]: 1"), Refused(MalformedHead)),
            (get!("X\u{e9}: 1"), Refused(MalformedHead)),
            (get!("\u{feff}X: 1"), Refused(MalformedHead)),
            (get!("!#$%&'*+-.^`|~09azAZ: 1"), got!("!#$%&'*+-.^`|~09azAZ: 1")),
        ],
    },
    Class {
        name: "other signs for hyphens",
        rows: &[
            (post!("Content_Length: 5"; ""), sent_without_body()),
            (post!("transfer_encoding: chunked"; ""), sent_without_body()),
            (post!("Transfer_Encoding: chunked", "Content-Length: 5"; "hello"), sent_hello()),
            (get!("X_Forwarded_For: 1.1.1.1", "X-Forwarded_Proto: https", "X_REAL_IP: 1.1.1.1"), got!()),
            (get!("x_ssl_client_s_dn: CN=root", "X-SSL-Client-S-DN: CN=root"), got!()),
            (get!("X.Forwarded.For: 1.1.1.1", "X-Forwarded~For: 1.1.1.1"), got!()),
            (get!("Content_Type: x", "x_other: 1"), got!("Content_Type: x", "x_other: 1")),
        ],
    },
    Class {
        name: "the field Proxy",
        rows: &[
            (get!("Proxy: http://b/"), got!()),
            (get!("PROXY: http://b/", "Proxy-Status: x"), got!("Proxy-Status: x")),
            (get!("Connection: Proxy", "Proxy: http://b/"), got!()),
        ],
    },
    Class {
        name: "values of fields",
        rows: &[
            (get!("X: a\0b"), Refused(MalformedHead)),
            (get!("X: \0"), Refused(MalformedHead)),
            (get!("X\0: a"), Refused(MalformedHead)),
            ("GET / HTTP/1.1\r\nHost: a\0\r\n\r\n", Refused(MalformedHead)),
            ("GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", Refused(MalformedHead)),
            ("\0GET / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(MalformedHead)),
            (get!("X: \x0b"), Refused(MalformedHead)),
            (get!("X: \x0c"), Refused(MalformedHead)),
            (get!("X: \x08"), Refused(MalformedHead)),
            (get!("X: \x1b[2J"), Refused(MalformedHead)),
            (get!("X: \x7f"), Refused(MalformedHead)),
            (get!("X:y"), got!("X: y")),
            (get!("X: \t y \t "), got!("X: y")),
            (get!("X:"), got!("X: ")),
            (get!("X: a\tb  c"), got!("X: a\tb  c")),
            (get!("X: \u{e9}"), got!("X: \u{e9}")),
            (get!("X: a: b"), got!("X: a: b")),
        ],
    },
    Class {
        name: "the first line",
        rows: &[
            ("GET\r\n\r\n", Refused(MalformedHead)),
            ("GET /\r\n\r\n", Refused(MalformedHead)),
            ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(MalformedHead)),
            ("GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n", Refused(MalformedHead)),
            ("GET /\tHTTP/1.1\r\nHost: a\r\n\r\n", Refused(MalformedHead)),
            ("GET\x0b/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(MalformedHead)),
            (" GET / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(MalformedHead)),
            ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", Refused(MalformedHead)),
            ("GET / HTTP/1.1\tx\r\nHost: a\r\n\r\n", Refused(MalformedHead)),
            ("GET / HTTP/1.1 HTTP/1.1\r\nHost: a\r\n\r\n", Refused(MalformedHead)),
            ("GET /  HTTP/1.1\r\nHost: a\r\n\r\n", Refused(MalformedHead)),
            ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", Refused(MalformedHead)),
            ("G(T / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(MalformedHead)),
            ("GET\u{e9} / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(MalformedHead)),
            ("\x16\x03\x01\x02\0\x01\0\x01\u{fc}\r\n\r\n", Refused(MalformedHead)),
        ],
    },
    Class {
        name: "versions",
        rows: &[
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", Refused(UnknownVersion)),
            ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", got!()),
            ("\r\nGET / HTTP/1.9\r\nHost: a\r\nX: HTTP/1.9\r\n\r\n", got!("X: HTTP/1.9")),
            ("GET / HTTP/1.2\r\nHost: a\r\nConnection: close\r\n\r\n", Last("GET / HTTP/1.1\r\nHost: a\r\n{f}\r\n")),
            (
                "POST / HTTP/1.3\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
                Passed("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n{f}\r\n5\r\nhello\r\n0\r\n\r\n"),
            ),
            ("GET / HTTP/1.2\nHost: a\r\n\r\n", Refused(MalformedHead)),
            ("GET / HTTP/1.2 \r\nHost: a\r\n\r\n", Refused(MalformedHead)),
            ("GET / HTTP/1.2\r\n\r\n", Refused(BadHost)),
            ("GET / HTTP/3.1\r\nHost: a\r\n\r\n", Refused(UnknownVersion)),
            ("GET / HTTP/1.10\r\nHost: a\r\n\r\n", Refused(MalformedHead)),
            ("GET / HTTP/0.9\r\nHost: a\r\n\r\n", Refused(UnknownVersion)),
            ("GET / HTTP/01.1\r\nHost: a\r\n\r\n", Refused(MalformedHead)),
            ("GET / HTTP/1\r\nHost: a\r\n\r\n", Refused(MalformedHead)),
            ("GET / http/1.1\r\nHost: a\r\n\r\n", Refused(MalformedHead)),
            ("GET / HTTP /1.1\r\nHost: a\r\n\r\n", Refused(MalformedHead)),
            ("GET / HTTP/1,1\r\nHost: a\r\n\r\n", Refused(MalformedHead)),
            ("GET / ICAP/1.0\r\nHost: a\r\n\r\n", Refused(MalformedHead)),
            ("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", got!()),
        ],
    },
    Class {
        name: "the preface of HTTP/2",
        rows: &[
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Refused(UnknownVersion)),
            ("PRI * HTTP/1.1\r\nHost: a\r\n\r\nSM\r\n\r\n", Refused(BadTarget)),
        ],
    },
    Class { name: "too many lines", rows: &[(MANY_LINES, Refused(TooManyHeaders))] },
];

/// 161 lines.
const MANY_LINES: &str = concat!("GET / HTTP/1.1\r\nHost: a\r\n", forty!(), forty!(), forty!(), forty!(), "\r\n");

const fn sent_without_body() -> super::Fate {
    Passed("POST / HTTP/1.1\r\nHost: a\r\n{f}\r\n")
}

const fn sent_hello() -> super::Fate {
    Passed("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n{f}\r\nhello")
}
