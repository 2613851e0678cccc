//! The object cache and parts: stored, joined and completed.

use crate::support::HOST;
use crate::support::backend::Backend;
use crate::support::client::Response;
use crate::support::proxy::{Proxy, Setup};
use serde_json::{Value, json};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What the backend has: a letter that tells the version, and its place.
fn content(version: usize, len: usize) -> String {
    let letter = char::from(b'a' + u8::try_from(version).expect("few versions"));
    (0..len).map(|at| if at % 10 == 0 { letter } else { char::from(b'0' + (at % 10) as u8) }).collect()
}

/// A backend that serves ranges of a text of this length, whose version can be raised.
fn ranges(len: usize) -> (Backend, Arc<AtomicUsize>) {
    let version = Arc::new(AtomicUsize::new(0));
    let current = Arc::clone(&version);
    let backend = Backend::serve(move |request, conn| {
        let version = current.load(Ordering::SeqCst);
        let (text, tag) = (content(version, len), format!("\"{version}\""));
        let is_same = request.head.get("If-Range").is_none_or(|known| known == tag);
        let asked = request.head.get("Range").and_then(|range| wanted(range, len)).filter(|_| is_same);
        let fields = format!("Cache-Control: max-age=600\r\nETag: {tag}\r\n");
        conn.send(match asked {
            Some(range) => {
                let (first, last) = (range.start, range.end - 1);
                let body = &text[range];
                format!(
                    "HTTP/1.1 206 Partial Content\r\n{fields}Content-Range: bytes {first}-{last}/{len}\r\n\
                     Content-Length: {}\r\n\r\n{body}",
                    body.len()
                )
            }
            None => format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {len}\r\n\r\n{text}"),
        });
    });
    (backend, version)
}

fn wanted(range: &str, len: usize) -> Option<Range<usize>> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let last = if last.is_empty() { len - 1 } else { last.parse().ok()? };
    Some(first.parse().ok()?..last + 1)
}

fn cached(backend: &Backend, mut cache: Value) -> Proxy {
    cache["enabled"] = json!(true);
    Setup::for_backends([backend.url()]).option(HOST, "cache", cache).start()
}

fn ask(proxy: &Proxy, range: Option<Range<usize>>) -> Response {
    let range = range.map(|range| format!("Range: bytes={}-{}\r\n", range.start, range.end - 1)).unwrap_or_default();
    let mut client = proxy.client();
    client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{range}\r\n"));
    client.response_to("GET")
}

/// Asks, and compares what comes, and what the backend was asked for meanwhile, if it was.
#[track_caller]
fn expect(proxy: &Proxy, backend: &Backend, range: Option<Range<usize>>, text: &str, asked: Option<&str>) {
    let heads = backend.heads();
    let response = ask(proxy, range.clone());
    let status = if range.is_some() { 206 } else { 200 };
    let wanted = range.clone().map_or(text, |range| &text[range]);
    assert_eq!((response.status(), &*response.text()), (status, wanted), "{}", response.head);
    let stated = range.map(|range| format!("bytes {}-{}/{}", range.start, range.end - 1, text.len()));
    assert_eq!(response.head.get("Content-Range"), stated.as_deref());
    match asked {
        None => assert_eq!((response.head.get("X-Cache-Lookup"), backend.heads()), (Some("hit"), heads)),
        Some(asked) => {
            assert_eq!((response.head.get("X-Cache-Lookup"), backend.heads()), (Some("miss"), heads + 1));
            let head = backend.requests().last().expect("a request").head.clone();
            assert_eq!(head.get("Range").unwrap_or_default(), asked, "{head}");
        }
    }
}

#[test]
fn parts_are_stored_and_joined_until_the_whole_is_there() {
    let (backend, _) = ranges(100);
    let proxy = cached(&backend, json!({}));
    let text = content(0, 100);
    expect(&proxy, &backend, Some(10..20), &text, Some("bytes=10-19"));
    expect(&proxy, &backend, Some(10..20), &text, None);
    expect(&proxy, &backend, Some(12..15), &text, None);
    // What is missing is fetched alone, with the tag of what is there.
    expect(&proxy, &backend, Some(15..30), &text, Some("bytes=20-29"));
    let asked = backend.requests().last().expect("a request").head.clone();
    assert_eq!(asked.all("If-Range"), ["\"0\""], "{asked}");
    expect(&proxy, &backend, Some(10..30), &text, None);
    expect(&proxy, &backend, Some(50..60), &text, Some("bytes=50-59"));
    expect(&proxy, &backend, Some(12..55), &text, Some("bytes=30-49"));
    expect(&proxy, &backend, Some(0..10), &text, Some("bytes=0-9"));
    expect(&proxy, &backend, None, &text, Some("bytes=60-"));
    expect(&proxy, &backend, None, &text, None);
    expect(&proxy, &backend, Some(0..100), &text, None);
}

#[test]
fn a_whole_response_is_completed_from_its_end() {
    let (backend, _) = ranges(200_000);
    let proxy = cached(&backend, json!({}));
    let text = content(0, 200_000);
    expect(&proxy, &backend, Some(0..150_000), &text, Some("bytes=0-149999"));
    let heads = backend.heads();
    let response = ask(&proxy, None);
    assert_eq!((response.status(), response.text()), (200, text.clone()));
    let status = response.head.get("Cache-Status").unwrap_or_default();
    assert!(status.contains("fwd=partial; fwd-status=206"), "{}", response.head);
    assert_eq!(backend.requests().last().expect("a request").head.get("Range"), Some("bytes=150000-"));
    assert_eq!(backend.heads(), heads + 1);
    expect(&proxy, &backend, None, &text, None);
}

/// The part that is missing is of another version by now: nothing of the two is mixed.
#[test]
fn parts_of_two_versions_are_never_joined() {
    let (backend, version) = ranges(100);
    let proxy = cached(&backend, json!({}));
    let (old, new) = (content(0, 100), content(1, 100));
    expect(&proxy, &backend, Some(0..50), &old, Some("bytes=0-49"));
    version.store(1, Ordering::SeqCst);
    expect(&proxy, &backend, Some(0..50), &old, None);
    // The backend sends the whole new one, as the tag is another one.
    let response = ask(&proxy, Some(40..60));
    assert_eq!((response.status(), response.text()), (200, new.clone()));
    expect(&proxy, &backend, None, &new, None);
    expect(&proxy, &backend, Some(0..50), &new, None);
    version.store(2, Ordering::SeqCst);
    expect(&proxy, &backend, Some(0..50), &new, None);
}

/// A backend that takes no notice of `If-Range`, and one whose part ends too early.
#[test]
fn a_part_that_does_not_fit_is_dropped_and_the_client_served_all_the_same() {
    let turn = AtomicUsize::new(0);
    let part = |tag: &str, range: &str, body: &str| {
        format!(
            "HTTP/1.1 206 Partial Content\r\nCache-Control: max-age=60\r\nETag: {tag}\r\nContent-Range: bytes {range}/10\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let backend = Backend::serve(move |_, conn| match turn.fetch_add(1, Ordering::SeqCst) {
        0 => conn.send(part("\"a\"", "0-4", "01234")),
        1 => conn.send(part("\"b\"", "5-9", "vwxyz")),
        2 => conn.send(
            "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nETag: \"b\"\r\nContent-Length: 10\r\n\r\nqrstuvwxyz",
        ),
        3 => conn.send(part("\"a\"", "0-4", "01234")),
        4 => {
            conn.send(part("\"a\"", "5-9", "567").replace("Content-Length: 3", "Content-Length: 5"));
            conn.finish();
        }
        _ => conn.send("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nETag: \"c\"\r\nContent-Length: 3\r\n\r\nnew"),
    });
    for (expected, wholes) in [("qrstuvwxyz", 3), ("new", 6)] {
        let proxy = cached(&backend, json!({}));
        assert_eq!(ask(&proxy, Some(0..5)).text(), "01234");
        let response = ask(&proxy, None);
        assert_eq!((response.status(), &*response.text()), (200, expected));
        assert_eq!(backend.heads(), wholes);
        assert_eq!(ask(&proxy, None).head.get("X-Cache-Lookup"), Some("hit"));
    }
}

#[test]
fn a_flood_of_ranges_leaves_the_store_as_it_is() {
    let (backend, _) = ranges(100_000);
    let proxy = cached(&backend, json!({"maxObjectBytes": 65536}));
    let text = content(0, 100_000);
    // Every other byte: 16 parts are kept, and the others are passed on.
    let mut client = proxy.client();
    for at in (0..400).step_by(2) {
        client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nRange: bytes={at}-{at}\r\n\r\n"));
        let response = client.response_to("GET");
        assert_eq!((response.status(), &*response.text()), (206, &text[at..=at]));
    }
    let hits = |from: usize| ask(&proxy, Some(from..from + 1)).head.get("X-Cache-Lookup") == Some("hit");
    assert!((0..400).step_by(2).filter(|at| hits(*at)).count() <= 16);
    // Nor does a part that is larger than an object may be take a place.
    assert_eq!(ask(&proxy, Some(0..80_000)).text(), &text[..80_000]);
    assert!(!hits(1000));
}
