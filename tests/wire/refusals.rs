//! Heads of requests that are refused, each with its reason.

use crate::feed;
use crate::requests::{hop, read, stranger};
use sluice::base::reason::Reason;
use sluice::wire::MAX_FIELDS;

fn check(expected: Reason, table: &[&str]) {
    let policy = stranger();
    let hop = hop(&policy, None);
    for input in table {
        let found = feed(input.as_bytes(), |bytes| read(bytes, &hop));
        assert_eq!(found, Err(expected), "{input:?}");
    }
}

#[test]
fn bytes_that_are_not_allowed_where_they_stand() {
    check(
        Reason::MalformedHead,
        &[
            // Bare LF and bare CR.
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
            "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: \ry\r\n\r\n",
            "GET / HTTP/1.1\rHost: a\r\n\r\n",
            // Folded lines.
            "GET / HTTP/1.1\r\nHost: a\r\n folded: 1\r\n\r\n",
            "GET / HTTP/1.1\r\n X: 1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n\t2\r\n\r\n",
            // Names.
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\t: chunked\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n: 1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX Y: 1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX\u{e9}: 1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX(1): 1\r\n\r\n",
            // NUL and its like.
            "GET / HTTP/1.1\r\nHost: a\0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: \x0b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX\0: 1\r\n\r\n",
            // The first line.
            "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n",
            " GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
            "GET /\r\n\r\n",
            "GET\r\n\r\n",
        ],
    );
}

#[test]
fn versions_that_are_not_spoken() {
    check(
        Reason::UnknownVersion,
        &[
            "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
            "GET / HTTP/0.9\r\nHost: a\r\n\r\n",
            "GET / http/1.1\r\nHost: a\r\n\r\n",
            // What follows the target and a space has to be a version.
            "GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ],
    );
}

#[test]
fn lengths_that_can_be_read_in_two_ways() {
    let head = |lines: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    let table: [(Reason, &[&str]); 2] = [
        (
            Reason::AmbiguousLength,
            &[
                "Content-Length: 5\r\nContent-Length: 5\r\n",
                "Content-Length: 5\r\nContent-Length: 6\r\n",
                "Content-Length: 5, 5\r\n",
                "Content-Length: \r\n",
                "Content-Length: +5\r\n",
                "Content-Length: -5\r\n",
                "Content-Length: 5 5\r\n",
                "Content-Length: 0x5\r\n",
                "Content-Length: 5.0\r\n",
                "Content-Length: 99999999999999999999\r\n",
                "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
                "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
                "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                "Transfer-Encoding: chunked, chunked\r\n",
                "Transfer-Encoding: chunked, identity\r\n",
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
                "Transfer-Encoding: \r\n",
                "Transfer-Encoding: ,\r\n",
            ],
        ),
        (
            Reason::UnknownCoding,
            &[
                "Transfer-Encoding: identity\r\n",
                "Transfer-Encoding: gzip, chunked\r\n",
                "Transfer-Encoding: xchunked\r\n",
                "Transfer-Encoding: chunked;x=y\r\n",
                "Transfer-Encoding: \"chunked\"\r\n",
                "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
            ],
        ),
    ];
    for (reason, lines) in table {
        let heads: Vec<_> = lines.iter().map(|lines| head(lines)).collect();
        check(reason, &heads.iter().map(String::as_str).collect::<Vec<_>>());
    }
    check(Reason::AmbiguousLength, &["POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"]);
}

#[test]
fn hosts_that_are_none() {
    check(
        Reason::BadHost,
        &[
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.0\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n",
            "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost:\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: http://a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a:80x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: \u{e9}\r\n\r\n",
            "GET http://a:80x/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://a,b/ HTTP/1.1\r\nHost: a\r\n\r\n",
            // One that is overridden has to be a host all the same.
            "GET http://a/ HTTP/1.1\r\nHost: b/c\r\n\r\n",
        ],
    );
}

#[test]
fn targets_and_methods() {
    check(
        Reason::BadTarget,
        &[
            "GET x HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
            "OPTIONS ** HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http:/a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://u:p@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /x#y HTTP/1.1\r\nHost: a\r\n\r\n",
        ],
    );
    check(Reason::MethodRefused, &["CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n"]);
}

#[test]
fn too_many_lines() {
    let head = |lines: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: 1\r\n".repeat(lines - 1));
    let policy = stranger();
    let hop = hop(&policy, None);
    let most = head(MAX_FIELDS);
    assert!(feed(most.as_bytes(), |bytes| read(bytes, &hop)).is_ok());
    check(Reason::HeadTooLarge, &[&head(MAX_FIELDS + 1)]);
}
