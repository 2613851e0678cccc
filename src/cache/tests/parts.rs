//! RFC 9111 sections 3.3 and 3.4, RFC 9110 sections 14.4 and 15.3.7.

use super::*;
use crate::cache::body::{Body, BodyBudget, BodyBuilder, MOST_PARTS};
use crate::cache::parts::{Part, are_alike, ask_for, may_complete, missing};
use crate::cache::store::{InsertError, NotStored, Store};
use std::ops::Range;
use std::sync::Arc;

const CONTENT: &[u8] = b"0123456789";

/// The object of a 206 with these lines beside `Content-Range`, of content of ten bytes.
fn part_of(range: Range<usize>, request: &str, lines: &str) -> Result<(Object, bool), Refusal> {
    let lines = format!("Content-Range: bytes {}-{}/10\n{lines}", range.start, range.end - 1);
    let (request, lines) = (parse(request), parse(&lines));
    let mut pending = admit(&get("/", &request), &response(206, &lines, range.len()), &options())?;
    pending.push(&CONTENT[range], Moment::ZERO).expect("a part of the length that is stated");
    let only_joins = pending.only_joins();
    Ok((pending.finish().expect("a whole part"), only_joins))
}

fn part(range: Range<usize>, lines: &str) -> Object {
    part_of(range, "Range: bytes=0-", &format!("Cache-Control: max-age=60\n{lines}")).expect("a part that is stored").0
}

fn content(body: &Body, range: Range<u64>) -> String {
    String::from_utf8(body.slices(range).flatten().copied().collect()).expect("text")
}

#[test]
fn content_range() {
    let table = [
        ("bytes 0-4/10", Some((0..5, 10))),
        ("BYTES 9-9/10", Some((9..10, 10))),
        ("bytes 4-10/10", None),
        ("bytes 5-4/10", None),
        ("bytes */10", None),
        ("bytes 0-4/*", None),
        ("bytes 0-4", None),
        ("bytes=0-4/10", None),
        ("items 0-4/10", None),
        ("bytes -4/10", None),
        ("bytes 0-18446744073709551615/18446744073709551616", None),
    ];
    for (value, expected) in table {
        let fields = [Header { name: "Content-Range", value: value.as_bytes() }];
        let found = Part::of(Fields(&fields)).map(|part| (part.range, part.whole));
        assert_eq!(found, expected, "{value}");
    }
    let twice = [Header { name: "Content-Range", value: b"bytes 0-4/10" }; 2];
    assert_eq!(Part::of(Fields(&twice)), None);
}

/// What is stored of a 206 is the 200 that it is a part of.
#[test]
fn a_part_is_stored_as_a_part_of_a_whole() {
    let object = part(2..5, "ETag: \"a\"\nX-A: 1");
    assert_eq!((object.status, &*object.phrase, object.body.len(), object.body.stored()), (200, "OK", 10, 3));
    assert!(!object.body.is_whole() && !object.fields.windows(13).any(|line| line == b"Content-Range"));
    let refused = |range: Range<usize>, len, status, lines: &str| {
        let lines = format!("Content-Range: bytes {}-{}/10\n{lines}", range.start, range.end - 1);
        let lines = parse(&lines);
        admit(&get("/", &[]), &response(status, &lines, len), &options()).err()
    };
    let table = [
        // Its length is another one than it says.
        (refused(4..10, 5, 206, "Cache-Control: max-age=60"), Some(Refusal::Framing)),
        (refused(4..10, 6, 206, "Cache-Control: max-age=60"), None),
        (refused(4..10, 6, 206, "Cache-Control: no-store"), Some(Refusal::NoStore)),
        // A part is never validated, so one that is never fresh is of no use.
        (refused(4..10, 6, 206, "ETag: \"a\""), Some(Refusal::Useless)),
        (refused(4..10, 6, 200, "Cache-Control: max-age=60"), Some(Refusal::Status)),
    ];
    for (number, (found, expected)) in table.into_iter().enumerate() {
        assert_eq!(found, expected, "row {number}");
    }
    let several = parse("Content-Type: multipart/byteranges; boundary=x\nCache-Control: max-age=60");
    let found = admit(&get("/", &[]), &response(206, &several, 10), &options()).err();
    assert_eq!(found, Some(Refusal::Status));
}

/// Which bytes a request wants that an object with the bytes 2 to 4, and 7, lacks.
#[test]
fn what_is_missing() {
    let budget = Arc::new(BodyBudget::new(1000));
    let one = part(2..5, "ETag: \"a\"");
    let object = Object { body: one.body.join(&part(7..8, "").body, &budget).expect("room"), ..one };
    let table = [
        ("", Some(0..10)),
        ("Range: bytes=2-4", None),
        ("Range: bytes=3-3", None),
        ("Range: bytes=7-7", None),
        ("Range: bytes=2-5", Some(5..6)),
        ("Range: bytes=2-7", Some(5..7)),
        ("Range: bytes=0-3", Some(0..2)),
        ("Range: bytes=-1", Some(9..10)),
        ("Range: bytes=3-", Some(5..10)),
        ("Range: bytes=20-", None),
        ("Range: bytes=2-4\nIf-Range: \"a\"", None),
        ("Range: bytes=2-4\nIf-Range: \"b\"", Some(0..10)),
        ("If-None-Match: \"a\"", None),
        ("If-Match: \"b\"", None),
    ];
    for (request, expected) in table {
        let fields = parse(request);
        assert_eq!(missing(&get("/", &fields), &object), expected, "{request}");
        let head = CacheRequest { method: b"HEAD", ..get("/", &fields) };
        assert_eq!(missing(&head, &object), None, "HEAD {request}");
    }
    assert_eq!(content(&object.body, 0..10), "2347", "holes are left out");
}

#[test]
fn a_backend_is_asked_for_what_is_missing() {
    let ask =
        |object: &Object, range: Range<u64>| String::from_utf8(ask_for(object, &range).lines.to_vec()).expect("text");
    let tagged = part(0..5, "ETag: \"a\"");
    assert_eq!(ask(&tagged, 5..10), "Range: bytes=5-\r\nIf-Range: \"a\"\r\n");
    assert_eq!(ask(&tagged, 5..8), "Range: bytes=5-7\r\nIf-Range: \"a\"\r\n");
    let (old, new) = (http_date(-60), http_date(0));
    let dated = part(0..5, &format!("Last-Modified: {old}\nDate: {new}"));
    assert_eq!(ask(&dated, 5..10), format!("Range: bytes=5-\r\nIf-Range: {old}\r\n"));
    let may = |lines: &str, options: &Options| may_complete(&get("/", &[]), &part(0..5, lines), &(5..10), options);
    assert!(may("ETag: \"a\"", &options()) && may(&format!("Last-Modified: {old}\nDate: {new}"), &options()));
    // Nothing tells for certain whether the rest is of the same content.
    assert!(!may("", &options()) && !may("ETag: W/\"a\"", &options()));
    assert!(!may(&format!("Last-Modified: {new}\nDate: {new}"), &options()));
    assert!(!may("ETag: \"a\"", &Options { max_object_bytes: 9, ..options() }));
    assert!(!may_complete(&get("/", &[]), &tagged, &(5..(1 << 20) + 6), &options()), "so much is not gathered");
    let none_of_it = parse("Range: bytes=5-7");
    assert!(!may_complete(&get("/", &none_of_it), &tagged, &(5..8), &options()), "the client's own part is joined");
}

#[test]
fn only_parts_of_one_representation_are_joined() {
    let (old, new) = (http_date(-60), http_date(0));
    let dated = format!("Last-Modified: {old}\nDate: {new}");
    let table = [
        ("ETag: \"a\"", "ETag: \"a\"", true),
        ("ETag: \"a\"", "ETag: \"b\"", false),
        ("ETag: W/\"a\"", "ETag: W/\"a\"", false),
        ("ETag: \"a\"", "", false),
        ("", "", false),
        (&dated, &dated, true),
        (&dated, "ETag: \"a\"", false),
    ];
    for (one, other, expected) in table {
        let (one, other) = (part(0..5, one), part(5..10, other));
        assert_eq!(are_alike(&(&one).into(), &(&other).into()), expected, "{:?}", (&one.etag, &other.etag));
    }
    let longer =
        store_with("", 200, "Cache-Control: max-age=60\nETag: \"a\"", b"01234567890", &options()).expect("stored");
    assert!(!are_alike(&(&longer).into(), &(&part(0..5, "ETag: \"a\"")).into()));
}

/// Puts a part into a store, and says what that has of it then.
fn put(store: &Store, object: Object, only_joins: bool) -> Result<Arc<Object>, InsertError> {
    let options = options();
    let stored = store.insert_part(&b"k"[..], object, store.ticket(), (&options, only_joins));
    stored.map_err(|NotStored { reason, .. }| reason)
}

#[test]
fn parts_are_joined_in_the_store() {
    let store = Store::new(64 << 20);
    put(&store, part(0..3, "ETag: \"a\"\nX-Old: 1\nX-Both: 1"), false).expect("stored");
    put(&store, part(6..10, "ETag: \"a\"\nX-Both: 2"), false).expect("joined");
    // What a client sees that has a part already, has few fields of its own.
    let (few, only_joins) =
        part_of(2..6, "Range: bytes=2-5\nIf-Range: \"a\"", "Cache-Control: max-age=99\nETag: \"a\"")
            .expect("a part that is stored");
    let whole = put(&store, few, only_joins).expect("joined");
    assert!(only_joins && whole.body.is_whole());
    assert_eq!(content(&whole.body, 0..10), "0123456789");
    assert_eq!(content(&whole.body, 2..7), "23456");
    let fields = String::from_utf8(whole.fields.to_vec()).expect("text");
    assert_eq!(fields.matches("X-Both: 2").count() + fields.matches("X-Old: 1").count(), 2, "{fields}");
    assert!(!fields.contains("X-Both: 1") && whole.freshness.lifetime.as_secs() == 99, "{fields}");
    // A part of another representation makes the whole one stale, and does not take its place.
    assert_eq!(put(&store, part(0..3, "ETag: \"b\""), false).err(), Some(InsertError::Present));
    let fields = parse("");
    let found = store.get(b"k", &mut RequestValues::of(Fields(&fields))).object.expect("still there");
    assert!(found.is_purged() && found.body.is_whole());
    // The newer of two parts stays, unless it lacks fields.
    let store = Store::new(64 << 20);
    put(&store, part(0..3, "ETag: \"a\""), false).expect("stored");
    assert_eq!(put(&store, part(4..6, "ETag: \"b\""), false).expect("stored").body.missing(4..6), None);
    assert_eq!(put(&store, part(4..6, "ETag: \"c\""), true).err(), Some(InsertError::Present));
    assert_eq!(put(&Store::new(64 << 20), part(4..6, "ETag: \"c\""), true).err(), Some(InsertError::Present));
}

/// However a body is asked for, it takes little more than its bytes, and has few parts.
#[test]
fn floods_of_ranges_are_bounded() {
    let body_of = |range: Range<usize>, len: usize, budget: &Arc<BodyBudget>| {
        let mut builder = BodyBuilder::new(0, Some(range.len() as u64)).expect("no limit");
        builder.set_part(range.start as u64, len as u64);
        builder.limit_to(u64::MAX, budget).expect("no limit");
        range.for_each(|at| builder.push(&[at as u8]).expect("room"));
        builder.finish().expect("whole")
    };
    let mut random = fastrand::Rng::with_seed(11);
    for seed in 0..200 {
        let budget = Arc::new(BodyBudget::new(10_000_000));
        let len = random.usize(1..3000);
        let mut body = body_of(0..1, len, &budget);
        let mut known = vec![false; len];
        known[0] = true;
        for _ in 0..100 {
            let start = random.usize(0..len);
            let end = random.usize(start..len) + 1;
            let mut next = known.clone();
            next[start..end].fill(true);
            let parts = next.iter().zip([&false].into_iter().chain(&next)).filter(|(is, was)| **is && !**was).count();
            match body.join(&body_of(start..end, len, &budget), &budget) {
                Ok(joined) => (body, known) = (joined, next),
                Err(_) => assert!(parts > MOST_PARTS, "{seed}"),
            }
            let expected: Vec<u8> = (0..len).filter(|at| known[*at]).map(|at| at as u8).collect();
            assert_eq!(body.slices(0..len as u64).flatten().copied().collect::<Vec<_>>(), expected, "{seed}");
            assert_eq!((body.stored(), body.is_whole()), (expected.len() as u64, expected.len() == len), "{seed}");
            let first = known[start..].iter().position(|is| !is).map(|at| (start + at) as u64);
            assert_eq!(body.missing(start as u64..len as u64).map(|hole| hole.start), first, "{seed}");
            assert!(budget.used() <= len as u64, "{seed}: {} bytes for {len}", budget.used());
        }
    }
    // Byte by byte from the front: one chunk grows, and there are not as many chunks as bytes.
    let budget = Arc::new(BodyBudget::new(10_000_000));
    let mut body = body_of(0..1, 100_000, &budget);
    for at in (1..100_000).step_by(50) {
        body = body.join(&body_of(at..(at + 50).min(100_000), 100_000, &budget), &budget).expect("one part");
    }
    assert!(body.is_whole() && body.slices(0..100_000).count() <= 3);
}
