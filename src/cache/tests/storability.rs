use super::*;
use crate::cache::body::{BodyBudget, BodyFault};
use crate::cache::lookup::{Bypass, bypass};
use crate::cache::object::not_modified_lines;
use std::sync::Arc;

fn verdict(request: &str, status: u16, lines: &str) -> Option<Refusal> {
    store_with(request, status, lines, b"", &options()).err()
}

/// RFC 9111 section 3.
#[test]
fn responses_that_are_stored_and_that_are_not() {
    let fresh = "Cache-Control: max-age=60";
    let table: &[(&str, u16, &str, Option<Refusal>)] = &[
        ("", 200, fresh, None),
        ("", 200, "Cache-Control: s-maxage=60", None),
        ("", 200, "Cache-Control: public, max-age=60", None),
        ("", 200, "Cache-Control: max-age=\"60\"", None),
        ("", 200, "CACHE-CONTROL: MAX-AGE=60", None),
        ("", 200, "Cache-Control: no-store, max-age=60", Some(Refusal::NoStore)),
        ("", 200, "Cache-Control: max-age=60\nCache-Control: No-Store", Some(Refusal::NoStore)),
        ("", 200, "Cache-Control: foo=\"no-store\", max-age=60", None),
        ("", 200, "Cache-Control: private, max-age=60", Some(Refusal::Private)),
        ("", 200, "Cache-Control: private=\"X-A\", max-age=60", None),
        ("", 200, "Cache-Control: private=X-A, max-age=60", Some(Refusal::Private)),
        // Section 5.2.2.4: it could only be validated.
        ("", 200, "Cache-Control: no-cache", Some(Refusal::Useless)),
        ("", 200, "Cache-Control: no-cache\nETag: \"a\"", None),
        // Section 5.2.2.3.
        ("", 200, "Cache-Control: must-understand, no-store, max-age=60", None),
        ("", 299, "Cache-Control: must-understand, no-store, max-age=60", Some(Refusal::Status)),
        ("", 299, fresh, None),
        // Section 3.5.
        ("Authorization: x", 200, fresh, Some(Refusal::Authorization)),
        ("Authorization: x", 200, "Cache-Control: max-age=60, public", None),
        ("Authorization: x", 200, "Cache-Control: max-age=60, must-revalidate", None),
        ("Authorization: x", 200, "Cache-Control: s-maxage=60", None),
        // A certificate identifies the client, too.
        ("X-SSL-Client-S-DN: CN=a", 200, fresh, Some(Refusal::Authorization)),
        ("X-SSL-Client-S-DN: CN=a", 200, "Cache-Control: max-age=60, public", None),
        // Section 7.3, and x0d.
        ("", 200, "Cache-Control: max-age=60\nSet-Cookie: a=b", Some(Refusal::SetCookie)),
        ("", 200, "Cache-Control: max-age=60, no-cache=\"Set-Cookie\"\nSet-Cookie: a=b", None),
        ("", 206, fresh, Some(Refusal::Status)),
        ("", 304, fresh, Some(Refusal::Status)),
        ("", 200, "Cache-Control: max-age=60\nContent-Range: bytes 0-1/2", Some(Refusal::Status)),
        ("", 103, fresh, Some(Refusal::Status)),
        ("", 500, "", Some(Refusal::NotCacheable)),
        ("", 500, fresh, None),
        ("", 302, "ETag: \"a\"", Some(Refusal::NotCacheable)),
        ("", 404, fresh, None),
        ("", 200, "", Some(Refusal::Useless)),
        ("", 200, "ETag: \"a\"", None),
        ("", 200, "Expires: 0", None),
        ("", 200, "Cache-Control: max-age=60\nVary: *", Some(Refusal::Vary)),
        ("", 200, "Cache-Control: max-age=60\nVary: a, *", Some(Refusal::Vary)),
        // Requests whose response depends on more than the key.
        ("X-HTTP-Method-Override: DELETE", 200, fresh, Some(Refusal::Request)),
        ("X-Forwarded-Host: evil", 200, fresh, Some(Refusal::Request)),
        ("X-Original-URL: /admin", 200, fresh, Some(Refusal::Request)),
        ("X_HTTP_Method_Override: DELETE", 200, fresh, Some(Refusal::Request)),
        ("X.Forwarded.Host: evil", 200, fresh, Some(Refusal::Request)),
        ("X-Forwarded-Ssl: on", 200, fresh, Some(Refusal::Request)),
        ("X-Forwarded-Whatever: x", 200, fresh, Some(Refusal::Request)),
        ("Front-End-Https: on", 200, fresh, Some(Refusal::Request)),
        ("X-Url-Scheme: https", 200, fresh, Some(Refusal::Request)),
        ("X-HTTP-Host-Override: evil", 200, fresh, Some(Refusal::Request)),
        (
            "X-Forwarded-For: 192.0.2.1\nX-Forwarded-Proto: http\nX-Forwarded-Port: 80\nX-Real-IP: 192.0.2.1",
            200,
            fresh,
            None,
        ),
        // RFC 9213.
        ("", 200, "Cache-Control: no-store\nCDN-Cache-Control: max-age=60", None),
        ("", 200, "Cache-Control: max-age=60\nCDN-Cache-Control: no-store", Some(Refusal::NoStore)),
        ("", 200, "Cache-Control: max-age=60\nCDN-Cache-Control: private", Some(Refusal::Private)),
        ("", 200, "Cache-Control: max-age=60\nCDN-Cache-Control: max-age=,", None),
        ("", 200, "Cache-Control: no-store\nCDN-Cache-Control: ", Some(Refusal::NoStore)),
    ];
    for (request, status, lines, expected) in table {
        assert_eq!(verdict(request, *status, lines), *expected, "{request:?} {status} {lines:?}");
    }
}

/// A directive that cannot be read may be one that forbids storing.
#[test]
fn a_directive_that_cannot_be_read_forbids() {
    let table = [
        ("Cache-Control: private; max-age=60", Some(Refusal::NoStore)),
        ("Cache-Control: max-age=60, no-store;x", Some(Refusal::NoStore)),
        ("Cache-Control: max-age=60, foo=\"bar, no-store", Some(Refusal::NoStore)),
        ("Cache-Control: max-age=60, foo=\"bar\"x", Some(Refusal::NoStore)),
        ("Cache-Control: max-age=60, foo=\"a\\\"b\"", None),
        ("Cache-Control: max-age=60, foo=\"a\\\"", Some(Refusal::NoStore)),
        ("Cache-Control: max-age=60, =", Some(Refusal::NoStore)),
    ];
    for (lines, expected) in table {
        assert_eq!(verdict("", 200, lines), expected, "{lines}");
    }
}

#[test]
fn a_body_whose_end_is_in_doubt_is_not_stored() {
    let fields = parse("Cache-Control: max-age=60");
    let until_close = CacheResponse { body: BodyLength::UntilClose, ..response(200, &fields, 0) };
    assert_eq!(admit(&get("/", &[]), &until_close, &options()).err(), Some(Refusal::Framing));
    let small = Options { max_object_bytes: 9, ..options() };
    assert_eq!(admit(&get("/", &[]), &response(200, &fields, 10), &small).err(), Some(Refusal::TooLarge));

    let any = Options { max_object_bytes: 0, ..options() };
    let mut limited = admit(&get("/", &[]), &response(200, &fields, 10), &any).expect("cacheable");
    let budget = Arc::new(BodyBudget::new(1 << 20));
    assert_eq!((limited.limit_to(10, &budget), limited.limit_to(9, &budget)), (Ok(()), Err(BodyFault::TooLarge)));

    let pending = || admit(&get("/", &[]), &response(200, &fields, 10), &options()).expect("cacheable");
    let mut cut = pending();
    assert_eq!(cut.push(b"012345678", Moment::ZERO), Ok(()));
    assert_eq!(cut.finish().err(), Some(BodyFault::Incomplete));
    let mut long = pending();
    assert_eq!(long.push(b"0123456789x", Moment::ZERO), Err(BodyFault::Incomplete));
    let chunked = CacheResponse { body: BodyLength::Chunked, ..response(200, &fields, 0) };
    let mut pending = admit(&get("/", &[]), &chunked, &small).expect("cacheable");
    assert_eq!(pending.push(b"01234567", Moment::ZERO), Ok(()));
    assert_eq!(pending.push(b"89", Moment::ZERO), Err(BodyFault::TooLarge));
}

/// Bodies count while they are filled, and while any response sends them.
#[test]
fn the_memory_of_bodies_is_bounded() {
    let budget = Arc::new(BodyBudget::new(100_000));
    let fields = parse("Cache-Control: max-age=60");
    let begin = |stated| {
        let head = CacheResponse { body: stated, ..response(200, &fields, 0) };
        let mut pending = admit(&get("/", &[]), &head, &options()).expect("cacheable");
        pending.limit_to(1 << 20, &budget).expect("room");
        pending
    };
    let mut whole = begin(BodyLength::Sized(60_000));
    assert_eq!((whole.push(&[0; 60_000], Moment::ZERO), budget.used()), (Ok(()), 60_000));
    let mut second = begin(BodyLength::Sized(60_000));
    assert_eq!((second.push(&[0; 10], Moment::ZERO), budget.used()), (Err(BodyFault::NoRoom), 60_000));
    drop(second);
    let body = whole.finish().expect("whole").body;
    let sent = body.clone();
    drop(body);
    assert_eq!(budget.used(), 60_000, "it is still being sent");
    drop(sent);
    assert_eq!(budget.used(), 0);
    // Memory reserved for bytes that did not arrive is returned.
    let mut short = begin(BodyLength::Chunked);
    assert_eq!((short.push(b"0123456789", Moment::ZERO), budget.used()), (Ok(()), 65_536));
    let object = short.finish().expect("whole");
    assert_eq!((object.body.len(), budget.used()), (10, 10));
    assert_eq!(begin(BodyLength::Chunked).push(&[0; 100], Moment::ZERO), Ok(()));
    drop(object);
    assert_eq!(budget.used(), 0);
}

/// An object's size covers everything that the store keeps of it.
#[test]
fn the_size_of_an_object_has_all_of_its_parts() {
    let plain = object("Cache-Control: max-age=60").size();
    let names: Vec<String> = (0..64).map(|number| format!("x-{number:0100}")).collect();
    let long = object(&format!("Cache-Control: max-age=60, no-cache=\"{}\"", names.join(","))).size();
    assert!(long > plain + 2 * 64 * 100, "{plain} {long}");
    let tagged = object(&format!("Cache-Control: max-age=60\nETag: \"{}\"", "x".repeat(10_000))).size();
    assert!(tagged > plain + 20_000, "{plain} {tagged}");
    let many: Vec<String> = (0..65).map(|number| format!("x-{number}")).collect();
    let directive = format!("Cache-Control: max-age=60, private=\"{}\"", many.join(","));
    assert_eq!(verdict("", 200, &directive), Some(Refusal::Private), "so many names are as good as none");
}

#[test]
fn requests_whose_host_is_written_otherwise_are_left_alone() {
    let table = [
        ("h", 80, false, None),
        ("h:80", 80, false, Some(Bypass::Host)),
        ("h:00080", 80, false, Some(Bypass::Host)),
        ("h:8080", 8080, false, None),
        ("h:08080", 8080, false, Some(Bypass::Host)),
        ("H", 80, false, Some(Bypass::Host)),
        ("h.", 80, false, Some(Bypass::Host)),
        ("h:", 80, false, Some(Bypass::Host)),
        ("h", 443, true, None),
        ("h:443", 443, true, Some(Bypass::Host)),
    ];
    for (stated, port, is_https, expected) in table {
        let fields = [Header { name: "Host", value: stated.as_bytes() }];
        let request = CacheRequest { port, is_https, ..get("/", &fields) };
        assert_eq!(bypass(&request, &options()), expected, "{stated} {port}");
    }
}

#[test]
fn requests_that_the_cache_takes_no_part_in() {
    let trusted = parse("X-Forwarded-Host: h");
    let upgrade = parse("Upgrade: websocket");
    let table = [
        (get("/", &[]), None),
        (CacheRequest { method: b"HEAD", ..get("/", &[]) }, None),
        (CacheRequest { method: b"POST", ..get("/", &[]) }, Some(Bypass::Method)),
        (CacheRequest { method: b"get", ..get("/", &[]) }, Some(Bypass::Method)),
        (CacheRequest { has_body: true, ..get("/", &[]) }, Some(Bypass::Body)),
        (get("/", &upgrade), Some(Bypass::Upgrade)),
        (get("/", &trusted), Some(Bypass::Unkeyed)),
        (CacheRequest { is_trusted: true, ..get("/", &trusted) }, None),
    ];
    for (request, expected) in table {
        assert_eq!(bypass(&request, &options()), expected, "{request:?}");
    }
    assert_eq!(bypass(&get("/", &[]), &Options::default()), Some(Bypass::Off));
}

/// RFC 9111 section 3.1.
#[test]
fn fields_that_end_at_a_hop_are_not_stored() {
    let lines = "Cache-Control: max-age=60, private=\"X-P\", no-cache=\"X-N\"\nX-P: 1\nX-N: 1\nConnection: x-a\nX-A: 1
        Keep-Alive: 1\nTransfer-Encoding: chunked\nTrailer: x\nAge: 1\nContent-Length: 10\nProxy-Authenticate: x
        X-Director-Cache: shadow\nX-Kept: 1\nETag: \"a\"";
    let object = object(lines);
    let stored = String::from_utf8(object.fields.to_vec()).expect("text");
    let expected = format!(
        "Cache-Control: max-age=60, private=\"X-P\", no-cache=\"X-N\"\r\nX-Kept: 1\r\nETag: \"a\"\r\nDate: {}\r\n",
        http_date(0)
    );
    assert_eq!(stored, expected);
    let not_modified =
        String::from_utf8(not_modified_lines(&object.fields).flatten().copied().collect()).expect("text");
    assert_eq!(not_modified, expected.replace("X-Kept: 1\r\n", ""));
}

#[test]
fn bodies_of_any_split_are_whole_and_cut_at_any_place() {
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..200 {
        let len = random.usize(0..200_000);
        let bytes: Vec<u8> = (0..len).map(|_| random.u8(..)).collect();
        let fields = parse("Cache-Control: max-age=60");
        let stated = if random.bool() { BodyLength::Chunked } else { BodyLength::Sized(len as u64) };
        let head = CacheResponse { body: stated, ..response(200, &fields, len) };
        let mut pending = admit(&get("/", &[]), &head, &options()).expect("cacheable");
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (part, behind) = rest.split_at(random.usize(1..=rest.len()));
            pending.push(part, Moment::ZERO).expect("room");
            rest = behind;
        }
        let body = pending.finish().expect("whole").body;
        let (a, b) = (random.usize(0..=len), random.usize(0..=len));
        let (from, to) = (a.min(b), a.max(b));
        let slices: Vec<u8> = body.slices(from as u64..to as u64).flatten().copied().collect();
        assert_eq!(slices, bytes[from..to]);
        assert_eq!(body.len(), len as u64);
    }
}
