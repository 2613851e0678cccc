//! HAProxy's files: every word has a finding with a place, the same text means the same, and every rule that was read
//! can be evaluated.

use sluice::haproxy::program::{List, Program, RequestView, Scratch};
use sluice::haproxy::rules::Side;
use sluice::haproxy::{Environment, Loaded, Source, Treatment, load};
use std::net::SocketAddr;
use std::path::Path;

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
}
