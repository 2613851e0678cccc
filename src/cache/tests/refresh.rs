use super::*;
use crate::cache::conditional::OwnConditions;
use crate::cache::invalidation::targets;
use crate::cache::refresh::{Refresh, fills, refresh, update_by_head};

fn not_modified(stored: &Object, lines: &str, received: u64) -> Refresh {
    let fields = parse(lines);
    let times = Times { requested_at: at(received), received_at: at(received), received_at_wall: at(received) };
    refresh(stored, &get("/", &[]), &CacheResponse { times, ..response(304, &fields, 0) }, &options())
}

fn good(refresh: Refresh) -> Object {
    match refresh {
        Refresh::Good(object) => object,
        other => panic!("{other:?}"),
    }
}

/// RFC 9111 sections 3.2 and 4.3.4.
#[test]
fn a_304_updates_fields_and_freshness() {
    let stored =
        object("Cache-Control: max-age=60\nETag: \"a\"\nX-A: old\nX-B: kept\nContent-Type: t\nContent-Encoding: gzip");
    stored.count_hit();
    stored.soft_purge();
    let date = http_date(90);
    let lines = format!(
        "Date: {date}\nCache-Control: max-age=30\nETag: \"a\"\nX-A: new\nX-A: two\nContent-Encoding: br\nContent-Length: 3
        Set-Cookie: a=b\nConnection: x-hop\nX-Hop: 1"
    );
    let updated = good(not_modified(&stored, &lines, 90));
    let fields = String::from_utf8(updated.fields.to_vec()).expect("text");
    let expected = format!(
        "X-B: kept\r\nContent-Type: t\r\nContent-Encoding: gzip\r\nDate: {date}\r\nCache-Control: max-age=30\r\n\
         ETag: \"a\"\r\nX-A: new\r\nX-A: two\r\n"
    );
    assert_eq!(fields, expected);
    assert!(updated.is_fresh(at(119)) && !updated.is_fresh(at(120)));
    assert_eq!((updated.status, updated.hits(), updated.body.len()), (200, 1, 10));
}

#[test]
fn a_304_without_date_counts_from_when_it_came() {
    let stored = object(&format!("Date: {}\nCache-Control: max-age=60\nETag: \"a\"", http_date(0)));
    let updated = good(not_modified(&stored, "", 1000));
    assert!(updated.is_fresh(at(1059)) && !updated.is_fresh(at(1060)));
}

#[test]
fn a_304_about_another_representation_updates_nothing() {
    let modified = http_date(-10);
    let stored = object(&format!("Cache-Control: max-age=60\nETag: \"a\"\nLast-Modified: {modified}"));
    let is_other = |lines: &str| matches!(not_modified(&stored, lines, 1), Refresh::Other);
    assert!(is_other("ETag: \"b\""));
    assert!(is_other(&format!("Last-Modified: {}", http_date(-9))));
    assert!(!is_other("ETag: W/\"a\"") && !is_other(&format!("Last-Modified: {modified}")));
    let now_private = not_modified(&stored, "Cache-Control: private", 1);
    assert!(matches!(now_private, Refresh::GoodOnce(_, Refusal::Private)), "{now_private:?}");
}

/// RFC 9111 section 4.3.5.
#[test]
fn a_head_updates_or_contradicts() {
    let stored = object("Cache-Control: max-age=60\nETag: \"a\"");
    let by_head = |lines: &str| {
        let fields = parse(lines);
        let request = CacheRequest { method: b"HEAD", ..get("/", &[]) };
        update_by_head(&stored, &request, &response(200, &fields, 0), &options())
    };
    let updated = good(by_head("Cache-Control: max-age=99\nETag: \"a\"\nContent-Length: 10"));
    assert_eq!(updated.freshness.lifetime.as_secs(), 99);
    for lines in ["ETag: \"b\"", "ETag: \"a\"\nContent-Length: 11", "Cache-Control: max-age=99"] {
        assert!(matches!(by_head(lines), Refresh::Other), "{lines}");
    }
}

#[test]
fn validators_and_the_requests_that_fill() {
    let modified = http_date(-10);
    let stored = object(&format!("Cache-Control: max-age=60\nETag: W/\"a\"\nLast-Modified: {modified}"));
    let out = OwnConditions::to_validate(&stored).lines.into_vec();
    let expected = format!("If-None-Match: W/\"a\"\r\nIf-Modified-Since: {modified}\r\n");
    assert_eq!(String::from_utf8(out).expect("text"), expected);
    let range = parse("Range: bytes=0-1");
    assert!(fills(&get("/", &[])) && !fills(&get("/", &range)));
    assert!(!fills(&CacheRequest { method: b"HEAD", ..get("/", &[]) }));
}

/// RFC 9111 section 4.4.
#[test]
fn unsafe_methods_make_their_targets_invalid() {
    let table: &[(&str, u16, &str, &[&str])] = &[
        ("POST", 200, "", &["/d/a?x"]),
        ("PUT", 302, "Location: /b", &["/d/a?x", "/b"]),
        ("DELETE", 204, "Content-Location: c", &["/d/a?x", "/d/c"]),
        ("POST", 201, "Location: http://H:80/b#f\nContent-Location: //h/c", &["/d/a?x", "/b", "/c"]),
        ("POST", 201, "Location: http://h", &["/d/a?x", "/"]),
        ("POST", 201, "Location: http://other/b\nContent-Location: http://h:81/c", &["/d/a?x"]),
        ("POST", 201, "Location: https://h/b", &["/d/a?x"]),
        ("X-UNKNOWN", 200, "", &["/d/a?x"]),
        ("POST", 500, "Location: /b", &[]),
        ("POST", 404, "", &[]),
        ("GET", 200, "Location: /b", &[]),
        ("OPTIONS", 200, "", &[]),
    ];
    for (method, status, lines, expected) in table {
        let fields = parse(lines);
        let request = CacheRequest { method: method.as_bytes(), ..get("/d/a?x", &[]) };
        let found = targets(&request, *status, Fields(&fields));
        let found: Vec<_> = found.iter().map(|target| String::from_utf8_lossy(target)).collect();
        assert_eq!(found, *expected, "{method} {status} {lines}");
    }
}
