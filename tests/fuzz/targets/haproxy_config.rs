//! HAProxy's files: every word has a finding with a place, the same text means the same, every rule that was read can be
//! evaluated, and what the rules make of messages are messages, with the same bodies as before.

use super::heads::{read_request, read_response};
use sluice::base::reason::FailureReason;
use sluice::haproxy::program::{List, Program, RequestView, Scratch};
use sluice::haproxy::rules::Side;
use sluice::haproxy::serve::{Configuration, Dice, Facts, Outcome, Workspace};
use sluice::haproxy::{Environment, Loaded, Source, Treatment, load};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

/// A request with a little of everything.
struct Request;

impl RequestView for Request {
    fn method(&self) -> &[u8] {
        b"GET"
    }
    fn target(&self) -> &[u8] {
        b"/a/b.png?x=1&y=%20"
    }
    fn version(&self) -> (u8, u8) {
        (1, 1)
    }
    fn each_field(&self, _: Side, see: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> bool {
        see(b"Host", b"www.example.org:80") || see(b"X-A", b"1, \"2,\", 3") || see(b"Cookie", b"a=1; b")
    }
    fn source(&self) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], 4000))
    }
    fn destination(&self) -> SocketAddr {
        SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 80))
    }
    fn is_tls(&self) -> bool {
        false
    }
}

fn read(bytes: &[u8]) -> Loaded {
    let files = |path: &Path| match path.to_str() {
        Some("m") => Ok("a b\nwww.example.org web\n".into()),
        Some("e") => Ok("HTTP/1.0 503 Busy\r\nX-A: b\r\n\r\nbusy\n".into()),
        Some("none") => Ok(Vec::new()),
        _ => Err("there is none".to_owned()),
    };
    let mut environment = Environment::new([("A".to_owned(), "x y".to_owned())], &files);
    load(&[Source { name: "f".to_owned(), bytes: bytes.to_vec() }], &mut environment)
}

pub(crate) fn run(bytes: &[u8]) {
    let loaded = read(bytes);
    let lines = bytes.split(|byte| *byte == b'\n').count();
    for finding in &loaded.findings {
        let line = usize::try_from(finding.at.line).expect("a line");
        assert!((1..=lines).contains(&line) && finding.at.column >= 1, "{finding:?} is at no place");
        let is_explained = !finding.note.is_empty() || finding.treatment == Treatment::Honoured;
        assert!(is_explained, "{finding:?} has no reason");
    }
    assert_eq!(read(bytes).findings, loaded.findings, "the same text means another thing");
    let mut scratch = Scratch::default();
    for proxy in &loaded.model.proxies {
        let program = Program::new(proxy, &loaded.model);
        program.backend(&Request, &mut scratch);
        program.server(&Request, &mut scratch, |name| Some(name.len()));
        program.monitor_fails(&Request, &mut scratch);
        for list in
            [List::Connection, List::Content, List::Request, List::Redirects, List::Response, List::AfterResponse]
        {
            let mut from = 0;
            while let Some((index, _)) = program.next(list, from, &Request, &mut scratch) {
                assert!(index >= from, "rules go back");
                from = index + 1;
            }
        }
    }
    let count = loaded.model.proxies.len();
    let configuration = Arc::new(loaded.plan.configuration);
    (0..count).for_each(|frontend| serve(&configuration, frontend));
}

const REQUEST: &[u8] = b"POST /a/b.png?x=1&y=%20 HTTP/1.1\r\nHost: www.example.org:80\r\nX-A: 1, \"2,\", 3\r\n\
    Cookie: a=1; b; SRV=s~2\r\nX-A: 4\r\nContent-Length: 7\r\nAccept-Encoding: gzip\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nSet-Cookie: SRV=1; path=/\r\nX-A: 1\r\n\
    Content-Length: 5\r\nETag: \"a\"\r\n\r\n";

/// Applies the rules of a frontend to a request, and to the response to it.
fn serve(configuration: &Arc<Configuration>, frontend: usize) {
    let dice = Dice { unix_seconds: 1_700_000_000, subsec_millis: 7, random: 7, now: 1000 };
    let facts =
        Facts { source: Request.source(), destination: Request.destination(), is_tls: false, tls: None, visit: None };
    let mut work = Workspace::default();
    let mut evaluation = work.evaluation(configuration, frontend, facts);
    match evaluation.decide(REQUEST, false, dice, &mut work) {
        Outcome::Forward => {
            if let Some(head) = work.changed_request() {
                check_request(head);
            }
            let (outcome, coding) = evaluation.respond((REQUEST, RESPONSE), Some(0), true, dice, &mut work);
            match outcome {
                Outcome::Forward => check_response(work.response(), coding.is_some()),
                Outcome::Respond | Outcome::Deny => check_reply(&mut work),
                _ => {}
            }
        }
        Outcome::Respond | Outcome::Deny => check_reply(&mut work),
        Outcome::NoBackend => {
            evaluation.fail(REQUEST, (503, "No server."), dice, &mut work);
            if !evaluation.is_silent(503) {
                check_reply(&mut work);
            }
        }
        Outcome::Close | Outcome::Statistics | Outcome::Metrics => {}
    }
}

/// The head is one, and its body is as long as before.
fn check_request(head: &[u8]) {
    let text = String::from_utf8_lossy(head);
    match read_request(head) {
        // Rules may take the host away, or add another one: a server decides about that.
        Some(Err(FailureReason::BadHost)) => {}
        Some(Ok(made)) => {
            let as_before = read_request(REQUEST).expect("a whole head").expect("a good one");
            assert_eq!((made.len, made.body), (head.len(), as_before.body), "{text:?}");
        }
        other => panic!("{other:?}: {text:?}"),
    }
}

fn check_response(head: &[u8], is_coded: bool) {
    let text = String::from_utf8_lossy(head);
    let made = read_response(head, false).unwrap_or_else(|| panic!("part of a head: {text:?}"));
    let made = made.unwrap_or_else(|fault| panic!("{fault:?}: {text:?}"));
    assert_eq!(made.len, head.len(), "{text:?}");
    let as_before = read_response(RESPONSE, false).expect("a whole head").expect("a good one");
    assert!(is_coded || made.body == as_before.body, "{text:?}");
}

/// A response of this node has a status, and lines that are fields; it gets its framing later.
fn check_reply(work: &mut Workspace) {
    let reply = work.take_reply();
    let mut head = format!("HTTP/1.1 {} X\r\n", reply.status()).into_bytes();
    head.extend_from_slice(reply.fields());
    head.extend_from_slice(b"\r\n");
    let text = String::from_utf8_lossy(&head);
    let made = read_response(&head, true).unwrap_or_else(|| panic!("part of a head: {text:?}"));
    let made = made.unwrap_or_else(|fault| panic!("{fault:?}: {text:?}"));
    assert!(made.len == head.len() && reply.status() >= 200, "{text:?}");
    for framing in ["content-length:", "transfer-encoding:", "connection:"] {
        assert!(!text.to_ascii_lowercase().contains(&format!("\n{framing}")), "{text:?}");
    }
    work.put_reply(reply);
}
