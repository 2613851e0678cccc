//! Random changes to the rows of the table, sent to the program in front of a strict reader: do the two ever differ about
//! where a request ends?
//!
//! `WIRE_MUTATIONS=1000000 cargo test --test wire mutations` looks for longer, `WIRE_SEED=7` plays one change again.

use crate::support::PATIENCE;
use crate::support::backend::{Backend, Conn};
use crate::support::message::{Head, How, Inlet};
use crate::support::proxy::Setup;
use crate::table::REQUESTS;
use crate::text;
use fastrand::Rng;
use std::env;
use std::ops::Range;
use std::sync::{Arc, Mutex};

/// How many changes are tried where nothing else is said.
const USUAL: u64 = 500;

/// What is put in: ends, spaces, controls and words that frame a message.
const SPICE: &[&str] = &[
    "\r\n",
    "\n",
    "\r",
    "\0",
    " ",
    "\t",
    "\x0b",
    "\x0c",
    "\x7f",
    "\u{e9}",
    ":",
    ";",
    ",",
    "0",
    "5",
    "-",
    "+",
    "_",
    "0x",
    "\"",
    "\r\n\r\n",
    "0\r\n\r\n",
    "\r\n ",
    "chunked",
    "identity",
    "close",
    "TRACE",
    "HEAD",
    " HTTP/1.0",
    "Transfer-Encoding: chunked\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: 0\r\n",
    "Connection: Content-Length\r\n",
    "Expect: 100-continue\r\n",
    "Host: b\r\n",
    "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n",
];

/// What a backend has read since it was last asked: the targets of whole requests, and what is wrong with any.
#[derive(Default)]
struct Seen {
    targets: Vec<String>,
    faults: Vec<String>,
}

#[test]
fn mutations_have_one_reading() {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let inner = Arc::clone(&seen);
    let backend = Backend::raw(move |conn| read_strictly(conn, &inner));
    let setup = Setup::new().route("*", [backend.url()]).set("via", false);
    // The clients end their side right behind what they send.
    let proxy = setup.set("onClientAbort", "ignore").workers(1).start();
    let rows: Vec<&str> =
        REQUESTS.iter().flat_map(|classes| classes.iter()).flat_map(|class| class.rows).map(|row| row.0).collect();
    for seed in seeds(1) {
        let mut rng = Rng::with_seed(seed);
        let mut bytes = mutated(&rows, &mut rng);
        bytes.extend_from_slice(b"GET /behind HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut client = proxy.client();
        let (first, second) = bytes.split_at(rng.usize(..bytes.len()));
        // A refusal may come, and the connection go, before all is sent.
        let _ = client.try_send(first) && client.try_send(second);
        let _ = client.socket().shutdown(std::net::Shutdown::Write);
        let (responses, how) = client.rest();
        let what = format!("WIRE_SEED={seed}: {:?}", text(&bytes));
        assert_ne!(how, How::TimedOut, "no end within {PATIENCE:?} of {what}");
        let responses = text(&responses);
        let served: Vec<_> = responses.lines().filter_map(|line| line.strip_prefix("X-Target: ")).collect();
        let seen = std::mem::take(&mut *seen.lock().expect("what was seen"));
        assert!(seen.faults.is_empty(), "the backend has read {:?} of {what}", seen.faults);
        assert_eq!(seen.targets, served, "requests at the backend, and answers to the client, of {what}");
    }
}

/// The changes to play: `times` what is usual, unless somebody says otherwise.
pub(crate) fn seeds(times: u64) -> Range<u64> {
    let number = |name| env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    match number("WIRE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("WIRE_MUTATIONS").unwrap_or(times * USUAL),
    }
}

/// A row, or two of them one behind the other, with a few changes.
pub(crate) fn mutated(rows: &[&str], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = rows[rng.usize(..rows.len())].as_bytes().to_vec();
    for _ in 0..rng.usize(1..5) {
        let at = rng.usize(..=bytes.len());
        let end = bytes.len().min(at + rng.usize(1..12));
        match rng.u8(..8) {
            0 => drop(bytes.drain(at..end)),
            1 => {
                let copy = bytes[at..end].to_vec();
                let to = rng.usize(..=bytes.len());
                bytes.splice(to..to, copy);
            }
            2 if at < bytes.len() => bytes[at] ^= 0x20,
            3 => {
                let other = rows[rng.usize(..rows.len())].as_bytes();
                bytes.truncate(at);
                bytes.extend_from_slice(&other[rng.usize(..=other.len())..]);
            }
            4 => {
                let line = rows[rng.usize(..rows.len())].split_inclusive("\r\n").nth(rng.usize(1..4)).unwrap_or("\r\n");
                let starts = bytes
                    .windows(2)
                    .enumerate()
                    .filter(|(_, it)| it == b"\r\n")
                    .map(|(place, _)| place + 2)
                    .collect::<Vec<_>>();
                let to = rng.choice(&starts).copied().unwrap_or(at);
                bytes.splice(to..to, line.bytes());
            }
            _ => {
                let spice = SPICE[rng.usize(..SPICE.len())];
                bytes.splice(at..at, spice.bytes());
            }
        }
    }
    // The reader behind the proxy has no other text than UTF-8.
    if std::str::from_utf8(&bytes).is_err() {
        bytes.retain(u8::is_ascii);
    }
    bytes
}

/// A backend that takes nothing but the one form of a request, and answers with its target.
fn read_strictly(conn: &mut Conn, seen: &Mutex<Seen>) {
    let mut inlet = Inlet::default();
    loop {
        let fault = match inlet.head(conn.socket()) {
            Ok(head) => match fault_of(&head) {
                Some(fault) => format!("{fault}: {head:?}"),
                None => match inlet.body(conn.socket(), head.request_framing(), &mut |_| {}) {
                    Ok(_) => {
                        seen.lock().expect("what was seen").targets.push(head.target().to_owned());
                        let response =
                            format!("HTTP/1.1 200 OK\r\nX-Target: {}\r\nContent-Length: 0\r\n\r\n", head.target());
                        conn.send(response);
                        continue;
                    }
                    Err(How::Malformed(fault)) => format!("{fault}: the body of {head:?}"),
                    Err(_) => return,
                },
            },
            Err(ended) if matches!(ended.how, How::Malformed(_)) => ended.to_string(),
            Err(ended) if ended.received.is_empty() => return,
            Err(ended) => format!("a part of a head: {ended}"),
        };
        return seen.lock().expect("what was seen").faults.push(fault);
    }
}

/// What is wrong with a head, to a reader who forgives nothing.
fn fault_of(head: &Head) -> Option<&'static str> {
    let is_token = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
    };
    let words: Vec<_> = head.start.split(' ').collect();
    let length = head.get("content-length").unwrap_or("0");
    let has_zeros = length.len() > 1 && length.starts_with('0');
    let checks = [
        (!matches!(*words, [method, _, "HTTP/1.1"] if is_token(method)), "the first line"),
        (!head.names().into_iter().all(is_token), "a name"),
        (
            head.fields.iter().any(|(_, value)| value.contains(|it: char| it.is_ascii_control() && it != '\t')),
            "a value",
        ),
        (head.all("host").len() != 1, "the host"),
        (head.all("content-length").len() + head.all("transfer-encoding").len() > 1, "two lengths"),
        (!length.bytes().all(|byte| byte.is_ascii_digit()) || length.is_empty() || has_zeros, "the length"),
        (head.get("transfer-encoding").is_some_and(|coding| coding != "chunked"), "the coding"),
        (head.all("x-forwarded-for").len() != 1, "the client"),
    ];
    checks.into_iter().find_map(|(is_wrong, what)| is_wrong.then_some(what))
}
