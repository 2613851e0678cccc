//! What comes in, and the bytes or the reason that come out. Rows of heads alone are fed to `wire` whole, with something
//! behind them, and byte by byte; *the* table of attacks and mistakes is played with and without sockets.

#[path = "../exchange/support.rs"]
mod exchange_support;
mod exhaustive;
mod machine;
mod mutations;
mod proxy;
mod proxy_protocol;
mod readme;
mod requests;
mod response_mutations;
mod responses;
#[allow(dead_code, reason = "the support of the end-to-end tests has more than these need")]
#[path = "../e2e/support/mod.rs"]
mod support;
mod table;

use sluice::wire::has_blank_line;
use std::fmt::Debug;

/// The rows are written with plain line ends.
fn crlf(text: &str) -> String {
    text.replace('\n', "\r\n")
}

/// Feeds `input` in all the ways there are to `parse`, which tells what it has found of a complete head and how long
/// that is. Until it is complete, nothing is found, or already what is found in the end.
fn feed<F: PartialEq + Debug>(input: &[u8], parse: impl Fn(&[u8]) -> Option<(F, usize)>) -> F {
    let (found, len) = parse(input).unwrap_or_else(|| panic!("{:?} is not complete", text(input)));
    for end in 0..input.len() {
        if let Some((early, _)) = parse(&input[..end]) {
            assert!(early == found, "{early:?} of {:?}, and then {found:?}", text(&input[..end]));
        }
    }
    let behind = [input, b"GET /next HTTP/1.1\r\nHost: b\r\n\r\n"].concat();
    assert_eq!(parse(&behind), Some((found, len)), "{:?} with something behind", text(input));
    parse(input).expect("found before").0
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn blank_lines() {
    let table: &[(&str, bool)] = &[
        ("", false),
        ("\r\n", false),
        ("a\r\n", false),
        ("a\r\nb\r\n", false),
        ("a\r\n\r", false),
        ("a\r\n\r\n", true),
        ("a\r\n\r\nb", true),
        ("a\n\n", true),
        ("a\n\r\n", true),
        ("a\r\n\n", true),
        ("a\r\r\r", false),
    ];
    for (bytes, expected) in table {
        let bytes = bytes.as_bytes();
        for seen in 0..=bytes.len() {
            // What was looked through before had none.
            if !has_blank_line(&bytes[..seen], 0) {
                assert_eq!(has_blank_line(bytes, seen), *expected, "{:?} behind {seen}", text(bytes));
            }
        }
    }
}
