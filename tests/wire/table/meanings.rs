//! Well-formed requests that somebody would take for another one.

use super::Fate::{Last, Passed, Refused, Responded};
use super::{Class, get, got, post, sent};
use sluice::base::reason::FailureReason::{BadHost, BadTarget, ExpectationFailed, MalformedHead, MethodRefused};

/// As many options as may be.
macro_rules! many_options {
    ($it:expr) => {
        concat!("Connection: ", eight!($it), eight!($it), eight!($it), eight!($it))
    };
}

macro_rules! eight {
    ($it:expr) => {
        concat!($it, ",", $it, ",", $it, ",", $it, ",", $it, ",", $it, ",", $it, ",", $it, ",")
    };
}

pub(super) const CLASSES: &[Class] = &[
    Class {
        name: "several hosts or none",
        rows: &[
            ("GET / HTTP/1.1\r\n\r\n", Refused(BadHost)),
            ("GET / HTTP/1.0\r\n\r\n", Refused(BadHost)),
            ("GET http://a/ HTTP/1.1\r\n\r\n", Refused(BadHost)),
            (get!("Host: a"), Refused(BadHost)),
            (get!("host: b"), Refused(BadHost)),
            ("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", Refused(BadHost)),
            ("GET http://a/ HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Refused(BadHost)),
        ],
    },
    Class {
        name: "hosts that are none",
        rows: &[
            ("GET / HTTP/1.1\r\nHost:\r\n\r\n", Refused(BadHost)),
            ("GET / HTTP/1.1\r\nHost: .\r\n\r\n", Refused(BadHost)),
            ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", Refused(BadHost)),
            ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", Refused(BadHost)),
            ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", Refused(BadHost)),
            ("GET / HTTP/1.1\r\nHost: a?b\r\n\r\n", Refused(BadHost)),
            ("GET / HTTP/1.1\r\nHost: a#b\r\n\r\n", Refused(BadHost)),
            ("GET / HTTP/1.1\r\nHost: a\\b\r\n\r\n", Refused(BadHost)),
            ("GET / HTTP/1.1\r\nHost: http://a\r\n\r\n", Refused(BadHost)),
            ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", Refused(BadHost)),
            ("GET / HTTP/1.1\r\nHost: a%00\r\n\r\n", Refused(BadHost)),
            ("GET / HTTP/1.1\r\nHost: a:80x\r\n\r\n", Refused(BadHost)),
            ("GET / HTTP/1.1\r\nHost: a:+80\r\n\r\n", Refused(BadHost)),
            ("GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", Refused(BadHost)),
            ("GET / HTTP/1.1\r\nHost: a:80:80\r\n\r\n", Refused(BadHost)),
            ("GET / HTTP/1.1\r\nHost: a:80, b\r\n\r\n", Refused(BadHost)),
            ("GET / HTTP/1.1\r\nHost: :80\r\n\r\n", Refused(BadHost)),
            ("GET / HTTP/1.1\r\nHost: ::1\r\n\r\n", Refused(BadHost)),
            ("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", Refused(BadHost)),
            ("GET / HTTP/1.1\r\nHost: [::1]x\r\n\r\n", Refused(BadHost)),
            ("GET / HTTP/1.1\r\nHost: \u{e9}\r\n\r\n", Refused(BadHost)),
            ("GET / HTTP/1.1\r\nHost: A:8080\r\n\r\n", Passed("GET / HTTP/1.1\r\nHost: A:8080\r\n{f}\r\n")),
            ("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", Passed("GET / HTTP/1.1\r\nHost: [::1]:80\r\n{f}\r\n")),
        ],
    },
    Class {
        name: "targets with a host of their own",
        rows: &[
            ("GET http://b/x HTTP/1.1\r\nHost: a\r\n\r\n", Passed("GET /x HTTP/1.1\r\nHost: b\r\n{f}\r\n")),
            ("GET HTTPS://b:81 HTTP/1.1\r\nHost: a\r\n\r\n", Passed("GET / HTTP/1.1\r\nHost: b:81\r\n{f}\r\n")),
            ("GET http://b?x HTTP/1.1\r\nHost: a\r\n\r\n", Passed("GET /?x HTTP/1.1\r\nHost: b\r\n{f}\r\n")),
            ("OPTIONS http://b HTTP/1.1\r\nHost: a\r\n\r\n", Passed("OPTIONS * HTTP/1.1\r\nHost: b\r\n{f}\r\n")),
            ("GET http://b/ HTTP/1.0\r\n\r\n", Last("GET / HTTP/1.1\r\nHost: b\r\n{f}\r\n")),
            (
                "GET http://b/http://c/ HTTP/1.1\r\nHost: a\r\n\r\n",
                Passed("GET /http://c/ HTTP/1.1\r\nHost: b\r\n{f}\r\n"),
            ),
            ("GET http://b/ HTTP/1.1\r\nHost: a/c\r\n\r\n", Refused(BadHost)),
            ("GET http://b:80x/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(BadHost)),
            ("GET http://b,c/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(BadHost)),
            ("GET http://b\\c/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(BadHost)),
        ],
    },
    Class {
        name: "userinfo",
        rows: &[
            ("GET http://u@b/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(BadTarget)),
            ("GET http://u:p@b/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(BadTarget)),
            ("GET http://b:80@c/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(BadTarget)),
            ("GET http://b\\@c/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(BadTarget)),
            ("GET http://@b/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(BadTarget)),
            ("GET /u@b HTTP/1.1\r\nHost: a\r\n\r\n", Passed("GET /u@b HTTP/1.1\r\nHost: a\r\n{f}\r\n")),
        ],
    },
    Class {
        name: "targets that are none",
        rows: &[
            ("GET x HTTP/1.1\r\nHost: a\r\n\r\n", Refused(BadTarget)),
            ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", Refused(BadTarget)),
            ("OPTIONS ** HTTP/1.1\r\nHost: a\r\n\r\n", Refused(BadTarget)),
            ("OPTIONS *x HTTP/1.1\r\nHost: a\r\n\r\n", Refused(BadTarget)),
            ("GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n", Refused(BadTarget)),
            ("GET @a/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(BadTarget)),
            ("GET ?x HTTP/1.1\r\nHost: a\r\n\r\n", Refused(BadTarget)),
            ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(BadTarget)),
            ("GET ws://a/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(BadTarget)),
            ("GET http:/a/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(BadTarget)),
            ("GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", Refused(BadTarget)),
            ("GET http://?x HTTP/1.1\r\nHost: a\r\n\r\n", Refused(BadTarget)),
            ("GET /x#y HTTP/1.1\r\nHost: a\r\n\r\n", Refused(BadTarget)),
            ("GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n", Refused(MalformedHead)),
            ("GET //b/../%2e HTTP/1.1\r\nHost: a\r\n\r\n", Passed("GET //b/../%2e HTTP/1.1\r\nHost: a\r\n{f}\r\n")),
            ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", Passed("OPTIONS * HTTP/1.1\r\nHost: a\r\n{f}\r\n")),
        ],
    },
    Class {
        name: "methods",
        rows: &[
            ("get / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(MethodRefused)),
            ("Head / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(MethodRefused)),
            ("post / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", Refused(MethodRefused)),
            ("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(MethodRefused)),
            (
                "ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEF / HTTP/1.1\r\nHost: a\r\n\r\n",
                Passed("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEF / HTTP/1.1\r\nHost: a\r\n{f}\r\n"),
            ),
            ("brew-!#$ / HTTP/1.1\r\nHost: a\r\n\r\n", Passed("brew-!#$ / HTTP/1.1\r\nHost: a\r\n{f}\r\n")),
        ],
    },
    Class {
        name: "CONNECT",
        rows: &[
            ("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", Refused(MethodRefused)),
            ("CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(MethodRefused)),
            ("connect a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", Refused(MethodRefused)),
            ("CONNECT http://a/ HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", Refused(MethodRefused)),
        ],
    },
    Class {
        name: "hops that are left",
        rows: &[
            ("OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n", Responded(200)),
            ("TRACE / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n", Responded(501)),
            (
                "OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 00000000000000000000000000007\r\n\r\n",
                Passed("OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 6\r\n{f}\r\n"),
            ),
            (
                "TRACE / HTTP/1.1\r\nHost: a\r\nmax-forwards: 007\r\n\r\n",
                Passed("TRACE / HTTP/1.1\r\nHost: a\r\nmax-forwards: 6\r\n{f}\r\n"),
            ),
            ("TRACE / HTTP/1.1\r\nHost: a\r\nMax-Forwards: -1\r\n\r\n", Refused(MalformedHead)),
            ("OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 1\r\nMax-Forwards: 9\r\n\r\n", Refused(MalformedHead)),
            (get!("Max-Forwards: 0"), got!("Max-Forwards: 0")),
        ],
    },
    Class {
        name: "expectations",
        rows: &[
            (
                post!("Expect: 100-continue", "Content-Length: 5"; "hello"),
                sent!("Expect: 100-continue", "Content-Length: 5"; "hello"),
            ),
            (
                post!("Expect: 100-CONTINUE", "Content-Length: 5"; "hello"),
                sent!("Expect: 100-CONTINUE", "Content-Length: 5"; "hello"),
            ),
            (post!("Expect: 100-continue"; ""), sent!(; "")),
            (post!("Expect: 100-continue", "Content-Length: 0"; ""), sent!("Content-Length: 0"; "")),
            (get!("Expect: 100-continue"), got!()),
            (post!("Expect: y 100-continue", "Content-Length: 5"; "hello"), Refused(ExpectationFailed)),
            (post!("Expect: 100-continue, x", "Content-Length: 5"; "hello"), Refused(ExpectationFailed)),
            (
                post!("Expect: 100-continue", "Expect: 100-continue", "Content-Length: 5"; "hello"),
                Refused(ExpectationFailed),
            ),
            (post!("Expect: x", "Expect: 100-continue", "Content-Length: 5"; "hello"), Refused(ExpectationFailed)),
            (post!("Expect:", "Content-Length: 5"; "hello"), sent!("Content-Length: 5"; "hello")),
            (
                post!("Expect:", "Expect: , 100-continue,", "Content-Length: 5"; "hello"),
                sent!("Expect: 100-continue", "Content-Length: 5"; "hello"),
            ),
            (get!("Expect: 200-ok"), Refused(ExpectationFailed)),
            (
                "POST / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nExpect: x\r\nContent-Length: 5\r\n\r\nhello",
                sent!("Content-Length: 5"; "hello"),
            ),
        ],
    },
    Class {
        name: "Connection naming fields",
        rows: &[
            (get!("Connection: X-One,, x-two ,", "x-one: 1", "X-TWO: 2", "X-Three: 3"), got!("X-Three: 3")),
            (get!("Connection: Host"), got!()),
            (post!("Connection: Content-Length", "Content-Length: 5"; "hello"), sent!("Content-Length: 5"; "hello")),
            (
                post!("Connection: Transfer-Encoding", "Transfer-Encoding: chunked"; "0\r\n\r\n"),
                sent!("Transfer-Encoding: chunked"; "0\r\n\r\n"),
            ),
            (get!("Connection: X-Forwarded-For, X-Real-IP, Forwarded", "X-Real-IP: 1.1.1.1"), got!()),
            (
                post!("Connection: Expect", "Expect: 100-continue", "Content-Length: 5"; "hello"),
                sent!("Expect: 100-continue", "Content-Length: 5"; "hello"),
            ),
            (get!(many_options!("x")), got!()),
            (get!(many_options!("x"), "Connection: x"), Refused(MalformedHead)),
            (get!(many_options!("close"), "Connection: close"), Refused(MalformedHead)),
            (get!("Connection: close, Host"), Last("GET / HTTP/1.1\r\nHost: a\r\n{f}\r\n")),
            (get!("Connection: keep-alive", "Keep-Alive: timeout=5", "Proxy-Connection: close"), got!()),
            (get!("Connection: CLOSE, keep-alive"), Last("GET / HTTP/1.1\r\nHost: a\r\n{f}\r\n")),
            (
                get!("TE: gzip, trailers", "Connection: TE"),
                Passed("GET / HTTP/1.1\r\nHost: a\r\n{f}Connection: TE\r\nTE: trailers\r\n\r\n"),
            ),
        ],
    },
    Class {
        name: "Upgrade",
        rows: &[
            (get!("Upgrade: websocket"), got!()),
            (get!("Connection: Upgrade"), got!()),
            (get!("Connection: Upgrade", "Upgrade: h2c"), got!()),
            (get!("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: x"), got!()),
            (get!("Connection: Upgrade", "Upgrade: websocket, H2C"), got!()),
            (get!("Connection: Upgrade", "Upgrade: websocket", "Upgrade: h2c"), got!()),
            (
                post!("Connection: Upgrade", "Upgrade: websocket", "Content-Length: 5"; "hello"),
                sent!("Content-Length: 5"; "hello"),
            ),
            ("GET / HTTP/1.0\r\nHost: a\r\nConnection: Upgrade, keep-alive\r\nUpgrade: websocket\r\n\r\n", got!()),
            (
                get!("upgrade: WebSocket", "connection: UPGRADE"),
                Passed("GET / HTTP/1.1\r\nHost: a\r\n{f}Connection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n"),
            ),
        ],
    },
];
