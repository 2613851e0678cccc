//! The length of a body, stated in ways that somebody would read otherwise.

use super::Fate::{Passed, Refused};
use super::{Class, get, got, post, sent};
use sluice::base::reason::FailureReason::{AmbiguousLength, MalformedHead, UnexpectedBody, UnknownCoding};

/// What the body hides for a reader who ends the request elsewhere.
macro_rules! hidden {
    () => {
        "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"
    };
}

pub(super) const CLASSES: &[Class] = &[
    Class {
        name: "both lengths",
        rows: &[
            (post!("Content-Length: 5", "Transfer-Encoding: chunked"; "0\r\n\r\n"), Refused(AmbiguousLength)),
            (post!("Transfer-Encoding: chunked", "Content-Length: 5"; "0\r\n\r\n"), Refused(AmbiguousLength)),
            (post!("Content-Length: 0", "Transfer-Encoding: chunked"; "0\r\n\r\n"), Refused(AmbiguousLength)),
            (
                post!("content-length: 43", "tRANSFER-eNCODING: CHUNKED"; concat!("0\r\n\r\n", hidden!())),
                Refused(AmbiguousLength),
            ),
            (
                post!("Content-Length: 4", "Transfer-Encoding: chunked"; concat!("21\r\n", hidden!(), "\r\n0\r\n\r\n")),
                Refused(AmbiguousLength),
            ),
            (post!("Content-Length: 5", "Transfer-Encoding: identity"; "hello"), Refused(UnknownCoding)),
            (post!("Content-Length: 5", "Transfer-Encoding:"; "hello"), Refused(AmbiguousLength)),
            (post!("Content-Length: 5", "Transfer-Encoding: xchunked"; "hello"), Refused(UnknownCoding)),
        ],
    },
    Class {
        name: "several Content-Lengths",
        rows: &[
            (post!("Content-Length: 5", "Content-Length: 5"; "hello"), Refused(AmbiguousLength)),
            (post!("Content-Length: 5", "Content-Length: 0"; "hello"), Refused(AmbiguousLength)),
            (post!("Content-Length: 0", "content-length: 5"; "hello"), Refused(AmbiguousLength)),
            (post!("Content-Length: 5, 5"; "hello"), Refused(AmbiguousLength)),
            (post!("Content-Length: 5, 6"; "hello"), Refused(AmbiguousLength)),
            (post!("Content-Length: 5,"; "hello"), Refused(AmbiguousLength)),
            (post!("Content-Length: ,5"; "hello"), Refused(AmbiguousLength)),
        ],
    },
    Class {
        name: "Content-Lengths that are no numbers",
        rows: &[
            (post!("Content-Length:"; "hello"), Refused(AmbiguousLength)),
            (post!("Content-Length: +5"; "hello"), Refused(AmbiguousLength)),
            (post!("Content-Length: -5"; "hello"), Refused(AmbiguousLength)),
            (post!("Content-Length: -0"; ""), Refused(AmbiguousLength)),
            (post!("Content-Length: 5 5"; "hello"), Refused(AmbiguousLength)),
            (post!("Content-Length: 5 ,"; "hello"), Refused(AmbiguousLength)),
            (post!("Content-Length: 0x5"; "hello"), Refused(AmbiguousLength)),
            (post!("Content-Length: 5.0"; "hello"), Refused(AmbiguousLength)),
            (post!("Content-Length: 5e0"; "hello"), Refused(AmbiguousLength)),
            (post!("Content-Length: 5_0"; "hello"), Refused(AmbiguousLength)),
            (post!("Content-Length: 5;"; "hello"), Refused(AmbiguousLength)),
            (post!("Content-Length: \"5\""; "hello"), Refused(AmbiguousLength)),
            (post!("Content-Length: \u{665}"; "hello"), Refused(AmbiguousLength)),
            (post!("Content-Length: \x0b5"; "hello"), Refused(MalformedHead)),
            (post!("Content-Length: 5\0"; "hello"), Refused(MalformedHead)),
            (post!("Content-Length: 1000000000000000000"; "hello"), Refused(AmbiguousLength)),
            (post!("Content-Length: 9223372036854775807"; "hello"), Refused(AmbiguousLength)),
            (post!("Content-Length: 9223372036854775808"; "hello"), Refused(AmbiguousLength)),
            (post!("Content-Length: 9223372036854775813"; concat!("hello", hidden!())), Refused(AmbiguousLength)),
            (post!("Content-Length: 9999999999999999999"; "hello"), Refused(AmbiguousLength)),
            (post!("Content-Length: 0000000000000000000x"; "hello"), Refused(AmbiguousLength)),
            (post!("Content-Length: 01000000000000000000"; "hello"), Refused(AmbiguousLength)),
            (post!("Content-Length: 18446744073709551621"; "hello"), Refused(AmbiguousLength)),
            (post!("Content-Length: 99999999999999999999"; "hello"), Refused(AmbiguousLength)),
        ],
    },
    Class {
        name: "Content-Lengths in another form",
        rows: &[
            (post!("Content-Length: 5"; "hello"), sent!("Content-Length: 5"; "hello")),
            (post!("Content-Length: 000000000000000005"; "hello"), sent!("Content-Length: 5"; "hello")),
            (post!("Content-Length: 0000000000000000005"; "hello"), sent!("Content-Length: 5"; "hello")),
            (
                post!("Content-Length: 000000000000000000000000000000000000000000000005"; "hello"),
                sent!("Content-Length: 5"; "hello"),
            ),
            (post!("Content-Length: 00000000000000000000"; ""), sent!("Content-Length: 0"; "")),
            (post!("Content-Length: 0005"; "hello"), sent!("Content-Length: 5"; "hello")),
            (post!("Content-Length: 010"; "0123456789"), sent!("Content-Length: 10"; "0123456789")),
            (post!("content-length:\t 5 "; "hello"), sent!("content-length: 5"; "hello")),
            (post!("Content-Length: 0"; ""), sent!("Content-Length: 0"; "")),
            (post!("Content-Length: 000"; ""), sent!("Content-Length: 0"; "")),
        ],
    },
    Class {
        name: "codings",
        rows: &[
            (post!("Transfer-Encoding: identity"; ""), Refused(UnknownCoding)),
            (post!("Transfer-Encoding: gzip"; ""), Refused(UnknownCoding)),
            (post!("Transfer-Encoding: gzip, chunked"; "0\r\n\r\n"), Refused(UnknownCoding)),
            (post!("Transfer-Encoding: gzip", "Transfer-Encoding: chunked"; "0\r\n\r\n"), Refused(UnknownCoding)),
            (post!("Transfer-Encoding: identity, chunked"; "0\r\n\r\n"), Refused(UnknownCoding)),
            (post!("Transfer-Encoding: xchunked"; "0\r\n\r\n"), Refused(UnknownCoding)),
            (post!("Transfer-Encoding: chunkedx"; "0\r\n\r\n"), Refused(UnknownCoding)),
            (post!("Transfer-Encoding: chunked;x=y"; "0\r\n\r\n"), Refused(UnknownCoding)),
            (post!("Transfer-Encoding: chunked x"; "0\r\n\r\n"), Refused(UnknownCoding)),
            (post!("Transfer-Encoding: \"chunked\""; "0\r\n\r\n"), Refused(UnknownCoding)),
            (post!("Transfer-Encoding: 'chunked'"; "0\r\n\r\n"), Refused(UnknownCoding)),
            (post!("Transfer-Encoding: [chunked]"; "0\r\n\r\n"), Refused(UnknownCoding)),
            (post!("Transfer-Encoding: chun\u{212a}ed"; "0\r\n\r\n"), Refused(UnknownCoding)),
            (post!("Transfer-Encoding: chunked\u{a0}"; "0\r\n\r\n"), Refused(UnknownCoding)),
            (post!("Transfer-Encoding: \x0bchunked"; "0\r\n\r\n"), Refused(MalformedHead)),
            (post!("Transfer-Encoding: chunked\x0c"; "0\r\n\r\n"), Refused(MalformedHead)),
            (post!("Transfer-Encoding: \0chunked"; "0\r\n\r\n"), Refused(MalformedHead)),
        ],
    },
    Class {
        name: "chunked not once and last",
        rows: &[
            (post!("Transfer-Encoding: chunked, chunked"; "0\r\n\r\n"), Refused(AmbiguousLength)),
            (post!("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"; "0\r\n\r\n"), Refused(AmbiguousLength)),
            (post!("Transfer-Encoding: chunked", "Transfer-Encoding: cow"; "0\r\n\r\n"), Refused(AmbiguousLength)),
            (post!("Transfer-Encoding: chunked, gzip"; "0\r\n\r\n"), Refused(AmbiguousLength)),
            (post!("Transfer-Encoding: chunked, identity"; "0\r\n\r\n"), Refused(AmbiguousLength)),
            (post!("Transfer-Encoding:"; ""), Refused(AmbiguousLength)),
            (post!("Transfer-Encoding: ,"; ""), Refused(AmbiguousLength)),
            (post!("Transfer-Encoding:", "Transfer-Encoding: chunked"; "0\r\n\r\n"), Refused(AmbiguousLength)),
        ],
    },
    Class {
        name: "chunked in another form",
        rows: &[
            (post!("Transfer-Encoding: cHuNkEd"; "0\r\n\r\n"), sent!("Transfer-Encoding: chunked"; "0\r\n\r\n")),
            (post!("tRaNsFeR-eNcOdInG:chunked"; "0\r\n\r\n"), sent!("tRaNsFeR-eNcOdInG: chunked"; "0\r\n\r\n")),
            (post!("Transfer-Encoding:\tchunked\t"; "0\r\n\r\n"), sent!("Transfer-Encoding: chunked"; "0\r\n\r\n")),
            (post!("Transfer-Encoding: , chunked ,"; "0\r\n\r\n"), sent!("Transfer-Encoding: chunked"; "0\r\n\r\n")),
        ],
    },
    Class {
        name: "chunked in HTTP/1.0",
        rows: &[
            ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refused(AmbiguousLength)),
            (
                "POST / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello",
                Refused(AmbiguousLength),
            ),
        ],
    },
    Class {
        name: "bodies where few expect one",
        rows: &[
            (
                concat!("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 33\r\n\r\n", hidden!()),
                Passed(concat!("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 33\r\n{f}\r\n", hidden!())),
            ),
            (
                concat!("HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 33\r\n\r\n", hidden!()),
                Passed(concat!("HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 33\r\n{f}\r\n", hidden!())),
            ),
            (
                concat!(
                    "OPTIONS / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n21\r\n",
                    hidden!(),
                    "\r\n0\r\n\r\n"
                ),
                Passed(concat!(
                    "OPTIONS / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n{f}\r\n21\r\n",
                    hidden!(),
                    "\r\n0\r\n\r\n"
                )),
            ),
            ("TRACE / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", Refused(UnexpectedBody)),
            ("TRACE / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refused(UnexpectedBody)),
            ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", Passed("TRACE / HTTP/1.1\r\nHost: a\r\n{f}\r\n")),
            (
                concat!("POST / HTTP/1.1\r\nHost: a\r\n\r\n", "GET /next HTTP/1.1\r\nHost: a\r\n\r\n"),
                Passed("POST / HTTP/1.1\r\nHost: a\r\n{f}\r\nGET /next HTTP/1.1\r\nHost: a\r\n{f}\r\n"),
            ),
            (get!(), got!()),
        ],
    },
];
