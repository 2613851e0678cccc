//! The chunked coding, spoken in ways that somebody would read otherwise.

use super::Fate::Cut;
use super::{Class, chunked};
use sluice::base::reason::FailureReason::MalformedChunk;

/// A chunked POST with this body as a backend gets it.
macro_rules! sent_chunked {
    ($body:expr) => { $crate::table::sent!("Transfer-Encoding: chunked"; $body) };
}

pub(super) const CLASSES: &[Class] = &[
    Class {
        name: "sizes of chunks",
        rows: &[
            (chunked!("5\r\nhello\r\n0\r\n\r\n"), sent_chunked!("5\r\nhello\r\n0\r\n\r\n")),
            (chunked!("00005\r\nhello\r\n000\r\n\r\n"), sent_chunked!("5\r\nhello\r\n0\r\n\r\n")),
            (chunked!("A\r\n0123456789\r\n0\r\n\r\n"), sent_chunked!("a\r\n0123456789\r\n0\r\n\r\n")),
            (chunked!("+5\r\nhello\r\n0\r\n\r\n"), Cut(MalformedChunk)),
            (chunked!("-5\r\nhello\r\n0\r\n\r\n"), Cut(MalformedChunk)),
            (chunked!("-0\r\n\r\n"), Cut(MalformedChunk)),
            (chunked!("0x5\r\nhello\r\n0\r\n\r\n"), Cut(MalformedChunk)),
            (chunked!("0X0\r\n\r\n"), Cut(MalformedChunk)),
            (chunked!("5h\r\nhello\r\n0\r\n\r\n"), Cut(MalformedChunk)),
            (chunked!("5_0\r\nhello\r\n0\r\n\r\n"), Cut(MalformedChunk)),
            (chunked!(" 5\r\nhello\r\n0\r\n\r\n"), Cut(MalformedChunk)),
            (chunked!("\t5\r\nhello\r\n0\r\n\r\n"), Cut(MalformedChunk)),
            (chunked!("5 \r\nhello\r\n0\r\n\r\n"), sent_chunked!("5\r\nhello\r\n0\r\n\r\n")),
            (chunked!("5\t  \r\nhello\r\n0 \r\n\r\n"), sent_chunked!("5\r\nhello\r\n0\r\n\r\n")),
            (chunked!("5\x0c\r\nhello\r\n0\r\n\r\n"), Cut(MalformedChunk)),
            (chunked!("5 5\r\nhello\r\n0\r\n\r\n"), Cut(MalformedChunk)),
            (chunked!("5,\r\nhello\r\n0\r\n\r\n"), Cut(MalformedChunk)),
            (chunked!("\"5\"\r\nhello\r\n0\r\n\r\n"), Cut(MalformedChunk)),
            (chunked!("5\0\r\nhello\r\n0\r\n\r\n"), Cut(MalformedChunk)),
            (chunked!("\r\n5\r\nhello\r\n0\r\n\r\n"), Cut(MalformedChunk)),
            (chunked!(";x\r\nhello\r\n0\r\n\r\n"), Cut(MalformedChunk)),
            (chunked!("\u{665}\r\nhello\r\n0\r\n\r\n"), Cut(MalformedChunk)),
        ],
    },
    Class {
        name: "sizes beyond all numbers",
        rows: &[
            (chunked!("10000000000000005\r\nhello\r\n0\r\n\r\n"), Cut(MalformedChunk)),
            (chunked!("fffffffffffffffff\r\nhello\r\n0\r\n\r\n"), Cut(MalformedChunk)),
            (chunked!("00000000000000005\r\nhello\r\n0\r\n\r\n"), sent_chunked!("5\r\nhello\r\n0\r\n\r\n")),
            (
                chunked!(
                    "00000000000000000000000000000000000000000000005\r\nhello\r\n000000000000000000000000\r\n\r\n"
                ),
                sent_chunked!("5\r\nhello\r\n0\r\n\r\n"),
            ),
            (chunked!("0000000000000000000010000000000000005\r\nhello\r\n0\r\n\r\n"), Cut(MalformedChunk)),
            (chunked!("00000000000000000000x5\r\nhello\r\n0\r\n\r\n"), Cut(MalformedChunk)),
            (chunked!("0000000000000005\r\nhello\r\n0\r\n\r\n"), sent_chunked!("5\r\nhello\r\n0\r\n\r\n")),
        ],
    },
    Class {
        name: "ends of chunks",
        rows: &[
            (chunked!("5\r\nhello0\r\n\r\n"), Cut(MalformedChunk)),
            (chunked!("5\r\nhello\n0\r\n\r\n"), Cut(MalformedChunk)),
            (chunked!("5\r\nhello\r0\r\n\r\n"), Cut(MalformedChunk)),
            (chunked!("5\r\nhello\n\n0\r\n\r\n"), Cut(MalformedChunk)),
            (chunked!("5\r\nhelloxx0\r\n\r\n"), Cut(MalformedChunk)),
            (chunked!("5\r\nhello!\r\n0\r\n\r\n"), Cut(MalformedChunk)),
            (chunked!("5\r\nhello\r\n\r\n0\r\n\r\n"), Cut(MalformedChunk)),
            (chunked!("5\r\nhello \r\n0\r\n\r\n"), Cut(MalformedChunk)),
        ],
    },
    Class {
        name: "bare LF and CR in chunk lines",
        rows: &[
            (chunked!("5\nhello\r\n0\r\n\r\n"), Cut(MalformedChunk)),
            (chunked!("5\r\nhello\r\n0\n\r\n"), Cut(MalformedChunk)),
            (chunked!("5\r\nhello\r\n0\r\n\n"), Cut(MalformedChunk)),
            (chunked!("5\r\nhello\r\n0\n\n"), Cut(MalformedChunk)),
            (chunked!("5\rhello\r\n0\r\n\r\n"), Cut(MalformedChunk)),
            (chunked!("5\r\r\nhello\r\n0\r\n\r\n"), Cut(MalformedChunk)),
            (chunked!("5\n\r\nhello\r\n0\r\n\r\n"), Cut(MalformedChunk)),
            (chunked!("5\r\nhello\r\n0\r\n\r\r\n"), Cut(MalformedChunk)),
            (chunked!("5\r\nhello\r\n0\r\r\n\r\n"), Cut(MalformedChunk)),
        ],
    },
    Class {
        name: "extensions of chunks",
        rows: &[
            (chunked!("5;x=y\r\nhello\r\n0;z\r\n\r\n"), sent_chunked!("5\r\nhello\r\n0\r\n\r\n")),
            (chunked!("5 ;\tx = \"y;z\" ; v\r\nhello\r\n0\r\n\r\n"), sent_chunked!("5\r\nhello\r\n0\r\n\r\n")),
            (chunked!("5;\r\nhello\r\n0\r\n\r\n"), sent_chunked!("5\r\nhello\r\n0\r\n\r\n")),
            (chunked!("5;x=\"\u{e9}\"\r\nhello\r\n0\r\n\r\n"), sent_chunked!("5\r\nhello\r\n0\r\n\r\n")),
            (chunked!("5;x\nhello\r\n0\r\n\r\n"), Cut(MalformedChunk)),
            (chunked!("5;\nhello\r\n0\r\n\r\n"), Cut(MalformedChunk)),
            (chunked!("2;\nxx\r\n4c\r\n0\r\n\r\n"), Cut(MalformedChunk)),
            (chunked!("5;x=\"\n\"\r\nhello\r\n0\r\n\r\n"), Cut(MalformedChunk)),
            (chunked!("5;x=\"\r\nhello\r\n0\r\n\r\n"), sent_chunked!("5\r\nhello\r\n0\r\n\r\n")),
            (chunked!("1;x=\"\r\nhello\"\r\n0\r\n\r\n"), Cut(MalformedChunk)),
            (chunked!("5;x\ry\r\nhello\r\n0\r\n\r\n"), Cut(MalformedChunk)),
            (chunked!("5;x\r\r\nhello\r\n0\r\n\r\n"), Cut(MalformedChunk)),
            (chunked!("5;x\0\r\nhello\r\n0\r\n\r\n"), Cut(MalformedChunk)),
            (chunked!("5;x\x7f\r\nhello\r\n0\r\n\r\n"), Cut(MalformedChunk)),
            (chunked!("5\x0b;x\r\nhello\r\n0\r\n\r\n"), Cut(MalformedChunk)),
            (chunked!("5=x\r\nhello\r\n0\r\n\r\n"), Cut(MalformedChunk)),
        ],
    },
    Class {
        name: "trailers",
        rows: &[
            (chunked!("0\r\nX-Sum:  1 \r\n\r\n"), sent_chunked!("0\r\nX-Sum: 1\r\n\r\n")),
            (chunked!("1\r\na\r\n0\r\nX: 1\r\nY:\r\n\r\n"), sent_chunked!("1\r\na\r\n0\r\nX: 1\r\nY: \r\n\r\n")),
            (chunked!("0\r\nX: 1\n\r\n"), Cut(MalformedChunk)),
            (chunked!("0\r\nX: 1\r\n\n"), Cut(MalformedChunk)),
            (chunked!("0\r\nX: 1\ry\r\n\r\n"), Cut(MalformedChunk)),
            (chunked!("0\r\nX : 1\r\n\r\n"), Cut(MalformedChunk)),
            (chunked!("0\r\n X: 1\r\n\r\n"), Cut(MalformedChunk)),
            (chunked!("0\r\nX: 1\r\n y\r\n\r\n"), Cut(MalformedChunk)),
            (chunked!("0\r\nX\r\n\r\n"), Cut(MalformedChunk)),
            (chunked!("0\r\n: 1\r\n\r\n"), Cut(MalformedChunk)),
            (chunked!("0\r\nX: \0\r\n\r\n"), Cut(MalformedChunk)),
            (chunked!("0\r\nGET /hidden HTTP/1.1\r\n\r\n"), Cut(MalformedChunk)),
        ],
    },
    Class {
        name: "trailers that are no trailers",
        rows: &[
            (chunked!("0\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n"), sent_chunked!("0\r\n\r\n")),
            (chunked!("0\r\nContent-Length: x\r\nHost: b\r\n\r\n"), sent_chunked!("0\r\n\r\n")),
            (chunked!("0\r\nConnection: close\r\nUpgrade: x\r\nTE: x\r\n\r\n"), sent_chunked!("0\r\n\r\n")),
            (
                chunked!("0\r\nX-Forwarded-For: 1.1.1.1\r\nForwarded: for=1.1.1.1\r\nX-Real-IP: 1\r\n\r\n"),
                sent_chunked!("0\r\n\r\n"),
            ),
            (chunked!("0\r\nX_Forwarded_For: 1.1.1.1\r\ncontent_length: 5\r\n\r\n"), sent_chunked!("0\r\n\r\n")),
            (
                chunked!("0\r\nAuthorization: x\r\nCookie: x\r\nContent-Type: x\r\nRange: x\r\nIf-Match: x\r\n\r\n"),
                sent_chunked!("0\r\n\r\n"),
            ),
            (
                chunked!("0\r\nExpect: 100-continue\r\nMax-Forwards: 1\r\nX-SSL-Client-S-DN: x\r\nX: 1\r\n\r\n"),
                sent_chunked!("0\r\nX: 1\r\n\r\n"),
            ),
        ],
    },
];
