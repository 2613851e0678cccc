use super::*;
use crate::cache::conditional::{Outcome, Representation, evaluate};
use crate::cache::reply::Reply;
use crate::cache::status::{Served, State};

fn outcome(request: &str, stored: &str) -> Outcome {
    evaluate(Fields(&parse(request)), false, &Representation::from(&object(stored)))
}

/// RFC 9110 section 13.
#[test]
fn conditions_in_their_order() {
    use Outcome::{Full, NotModified, PreconditionFailed};
    let modified = http_date(-100);
    let stored = format!("Cache-Control: max-age=60\nETag: \"a\"\nLast-Modified: {modified}");
    let weak = "Cache-Control: max-age=60\nETag: W/\"a\"";
    let bare = "Cache-Control: max-age=60";
    let earlier = http_date(-101);
    let ims = |date: &str| format!("If-Modified-Since: {date}");
    let ius = |date: &str| format!("If-Unmodified-Since: {date}");
    let table: &[(String, &str, Outcome)] = &[
        ("If-None-Match: \"a\"".into(), &stored, NotModified),
        ("If-None-Match: W/\"a\"".into(), &stored, NotModified),
        ("If-None-Match: \"b\", \"a\"".into(), &stored, NotModified),
        ("If-None-Match: \"b\"\nIf-None-Match: \"a\"".into(), &stored, NotModified),
        ("If-None-Match: *".into(), bare, NotModified),
        ("If-None-Match: \"b\"".into(), &stored, Full),
        ("If-None-Match: \"a\"".into(), weak, NotModified),
        ("If-None-Match: \"A\"".into(), &stored, Full),
        ("If-None-Match: \"x,\", \"a\"".into(), &stored, NotModified),
        (ims(&modified), &stored, NotModified),
        (ims(&earlier), &stored, Full),
        (ims("nonsense"), &stored, Full),
        (ims(&http_date(0)), bare, NotModified),
        (ims(&http_date(-1)), bare, Full),
        // If-None-Match overrides If-Modified-Since.
        (format!("If-None-Match: \"b\"\n{}", ims(&modified)), &stored, Full),
        (format!("If-None-Match: \"a\"\n{}", ims(&earlier)), &stored, NotModified),
        ("If-Match: \"a\"".into(), &stored, Full),
        ("If-Match: *".into(), bare, Full),
        ("If-Match: \"b\"".into(), &stored, PreconditionFailed),
        ("If-Match: \"a\"".into(), weak, PreconditionFailed),
        ("If-Match: W/\"a\"".into(), weak, PreconditionFailed),
        (ius(&modified), &stored, Full),
        (ius(&earlier), &stored, PreconditionFailed),
        (ius(&earlier), bare, Full),
        // If-Match overrides If-Unmodified-Since, and precedes If-None-Match.
        (format!("If-Match: \"a\"\n{}", ius(&earlier)), &stored, Full),
        ("If-Match: \"b\"\nIf-None-Match: \"a\"".into(), &stored, PreconditionFailed),
        ("If-Match: \"a\"\nIf-None-Match: \"a\"".into(), &stored, NotModified),
        ("If-None-Match: \"a\"\nRange: bytes=0-1".into(), &stored, NotModified),
    ];
    for (request, stored, expected) in table {
        assert_eq!(outcome(request, stored), *expected, "{request} of {stored}");
    }
    let error = store_with("", 404, &stored, b"", &options()).expect("cacheable");
    let request = parse("If-None-Match: \"a\"");
    assert_eq!(evaluate(Fields(&request), false, &Representation::from(&error)), Full);
}

/// RFC 9110 section 14, for ten bytes.
#[test]
fn ranges() {
    use Outcome::{Full, Partial, RangeNotSatisfiable};
    let old = http_date(-100);
    let stored = format!("Cache-Control: max-age=60\nETag: \"a\"\nLast-Modified: {old}");
    let table = [
        ("bytes=0-3", Partial(0..4)),
        ("BYTES=2-2", Partial(2..3)),
        ("bytes=5-", Partial(5..10)),
        ("bytes=-3", Partial(7..10)),
        ("bytes=-99", Partial(0..10)),
        ("bytes=0-99999999999999999999999", Partial(0..10)),
        ("bytes=9-9", Partial(9..10)),
        ("bytes=10-", RangeNotSatisfiable),
        ("bytes=10-12, 11-", RangeNotSatisfiable),
        ("bytes=-0", RangeNotSatisfiable),
        ("bytes=10-12, 0-1", Partial(0..2)),
        ("bytes=0-1, 2-3", Partial(0..4)),
        ("bytes=2-5, 0-3", Partial(0..6)),
        ("bytes=0-1, 4-5", Full),
        ("bytes=3-2", Full),
        ("bytes=a-2", Full),
        ("bytes=", Full),
        ("bytes=1", Full),
        ("bytes=-", Full),
        ("items=0-1", Full),
        ("bytes=0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0", Full),
    ];
    for (range, expected) in table {
        assert_eq!(outcome(&format!("Range: {range}"), &stored), expected, "{range}");
    }
    let request = parse("Range: bytes=0-1");
    assert_eq!(evaluate(Fields(&request), true, &Representation::from(&object(&stored))), Full);
    let if_range = [
        ("\"a\"", Partial(0..2)),
        ("\"b\"", Full),
        ("W/\"a\"", Full),
        (&old, Partial(0..2)),
        (&http_date(-99), Full),
        ("nonsense", Full),
    ];
    for (value, expected) in if_range {
        assert_eq!(outcome(&format!("Range: bytes=0-1\nIf-Range: {value}"), &stored), expected, "{value}");
    }
    let changing = format!("Cache-Control: max-age=60\nLast-Modified: {}", http_date(0));
    assert_eq!(outcome(&format!("Range: bytes=0-1\nIf-Range: {}", http_date(0)), &changing), Full);
}

fn reply(method: &str, request: &str, stored: &Object, now: u64) -> (u16, String, String) {
    let fields = parse(request);
    let request = CacheRequest { method: method.as_bytes(), ..get("/", &fields) };
    let served =
        Served { state: State::Hit, is_shadow: false, backend_status: None, waited: None, hits: stored.count_hit() };
    let reply = Reply::new(&request, stored, served);
    let mut head = Vec::new();
    reply.write_head(at(now), &mut head);
    let body: Vec<u8> = stored.body.slices(reply.body()).flatten().copied().collect();
    let text = |bytes| String::from_utf8(bytes).expect("text").replace("\r\n", "\n");
    (reply.status(), text(head), text(body))
}

#[test]
fn replies_are_whole_heads() {
    let lines = format!("Content-Type: text/plain\nCache-Control: max-age=60\nETag: \"a\"\nDate: {}", http_date(0));
    let object = object(&lines);
    let tail = |age, ttl, hits| {
        format!("Age: {age}\nCache-Status: sluice; hit; ttl={ttl}\nX-Cache-Lookup: hit\nX-Cache-Hits: {hits}\n")
    };
    let full = format!("HTTP/1.1 200 OK\n{lines}\nContent-Length: 10\n");
    assert_eq!(reply("GET", "", &object, 5), (200, full.clone() + &tail(5, "55", 1), "0123456789".into()));
    assert_eq!(reply("HEAD", "", &object, 60), (200, full + &tail(60, "0", 2), String::new()));
    let partial = format!("HTTP/1.1 206 Partial Content\n{lines}\nContent-Range: bytes 2-4/10\nContent-Length: 3\n");
    assert_eq!(reply("GET", "Range: bytes=2-4", &object, 62), (206, partial + &tail(62, "-2", 3), "234".into()));
    let not_modified = format!("HTTP/1.1 304 Not Modified\n{}\n", lines.replace("Content-Type: text/plain\n", ""));
    let expected = (304, not_modified + &tail(0, "60", 4), String::new());
    assert_eq!(reply("GET", "If-None-Match: \"a\"", &object, 0), expected);
    let unsatisfiable = "HTTP/1.1 416 Range Not Satisfiable\nContent-Range: bytes */10\nContent-Length: 0\n";
    let expected = (416, unsatisfiable.to_owned() + &tail(0, "60", 5), String::new());
    assert_eq!(reply("GET", "Range: bytes=10-", &object, 0), expected);
    let (status, head, _) = reply("GET", "If-Match: \"b\"", &object, 0);
    assert_eq!((status, head.contains("Content-Length: 0\n")), (412, true));
}

#[test]
fn fields_of_a_shadow_name_it() {
    let object = object("Cache-Control: max-age=60");
    let mut out = Vec::new();
    Served { state: State::Stale, is_shadow: true, backend_status: Some(503), waited: None, hits: 3 }.put(
        &object,
        at(100),
        &mut out,
    );
    let expected = "Age: 100\r\nCache-Status: sluice; fwd=stale; fwd-status=503; ttl=-40; detail=shadow\r\nX-Director-Cache: shadow\r\n\
                    X-Cache-Lookup: stale\r\nX-Cache-Hits: 3\r\n";
    assert_eq!(String::from_utf8(out).expect("text"), expected);
}
