use super::*;
use crate::cache::lookup::{Cause, Decision, Failure, decide, may_replace_error, may_serve_while_updating};

fn decision(request: &str, stored: &str, now: u64, options: &Options) -> Decision {
    let object = store_with("", 200, stored, b"", options).expect("a cacheable response");
    decide(&get("/", &parse(request)), Some(&object), true, options, at(now))
}

/// RFC 9111 sections 4.2.1 to 4.2.3: the lifetime in seconds, and the age at time zero.
#[test]
fn lifetimes_and_ages() {
    let expires = |seconds| format!("Expires: {}", http_date(seconds));
    let dated = |seconds, lines: &str| format!("Date: {}\n{lines}", http_date(seconds));
    let table: &[(String, u64, u64)] = &[
        ("Cache-Control: max-age=60".into(), 60, 0),
        ("Cache-Control: max-age=60, s-maxage=10".into(), 10, 0),
        ("Cache-Control: s-maxage=10\nCDN-Cache-Control: max-age=5".into(), 5, 0),
        (format!("Cache-Control: max-age=60\n{}", expires(-9)), 60, 0),
        (expires(30), 30, 0),
        (expires(-30), 0, 0),
        ("Expires: 0".into(), 0, 0),
        ("Expires: Sat, 05 Sep 2026".into(), 0, 0),
        // The three forms of dates (RFC 9110 section 5.6.7).
        (dated(-1, "Expires: Sat, 05 Sep 2026 00:01:00 GMT"), 61, 1),
        (dated(0, "Expires: Saturday, 05-Sep-26 00:01:00 GMT"), 60, 0),
        (dated(0, "Expires: Sat Sep  5 00:01:00 2026"), 60, 0),
        // If there are two values, the first one counts, and an invalid one is stale.
        ("Cache-Control: max-age=60, max-age=1".into(), 60, 0),
        ("Cache-Control: max-age=1, max-age=60".into(), 1, 0),
        ("Cache-Control: max-age=x, max-age=60".into(), 0, 0),
        ("Cache-Control: max-age=-60".into(), 0, 0),
        ("Cache-Control: max-age=60.5".into(), 0, 0),
        ("Cache-Control: max-age".into(), 0, 0),
        ("Cache-Control: max-age=99999999999999999999".into(), 1 << 31, 0),
        ("Cache-Control: max-age=60\nAge: 7".into(), 60, 7),
        ("Cache-Control: max-age=60\nAge: 7, 90".into(), 60, 7),
        ("Cache-Control: max-age=60\nAge: x".into(), 60, 0),
        (dated(-20, "Cache-Control: max-age=60\nAge: 7"), 60, 20),
        (dated(20, "Cache-Control: max-age=60"), 60, 0),
    ];
    for (lines, lifetime, age) in table {
        let freshness = store_with("", 200, lines, b"", &options()).expect("cacheable").freshness;
        let found = (freshness.lifetime.as_secs(), freshness.age(at(0)).as_secs());
        assert_eq!(found, (*lifetime, *age), "{lines}");
        assert_eq!(freshness.age(at(5)).as_secs(), age + 5, "{lines}");
    }
}

/// RFC 9111 section 4.2.2.
#[test]
fn lifetimes_that_nothing_states() {
    let modified = format!("Last-Modified: {}", http_date(-1000));
    let heuristic = Options { heuristic: true, ..options() };
    let default = Options { default_ttl: Duration::from_secs(20), ..options() };
    let lifetime = |status, lines: &str, options: &Options| {
        let stored = store_with("", status, lines, b"", options);
        stored.map(|object| object.freshness.lifetime.as_secs())
    };
    assert_eq!(lifetime(200, &modified, &options()), Ok(0));
    assert_eq!(lifetime(200, &modified, &heuristic), Ok(100));
    let ancient = format!("Last-Modified: {}", http_date(-1_000_000_000));
    assert_eq!(lifetime(200, &ancient, &heuristic), Ok(24 * 3600));
    assert_eq!(lifetime(200, "", &default), Ok(20));
    assert_eq!(lifetime(404, "", &default), Ok(20));
    assert_eq!(lifetime(302, "", &default), Err(Refusal::NotCacheable));
    assert_eq!(lifetime(200, "Cache-Control: max-age=5", &default), Ok(5));
}

#[test]
fn a_response_is_delayed_by_the_network() {
    let fields = parse("Cache-Control: max-age=60\nAge: 5");
    let times = Times { requested_at: zero(), received_at: at(4), received_at_wall: at(4) };
    let head = CacheResponse { times, ..response(200, &fields, 0) };
    let object = admit(&get("/", &[]), &head, &options()).expect("cacheable").finish().expect("whole");
    assert_eq!(object.freshness.age(at(4)).as_secs(), 9);
}

/// RFC 9111 sections 4.2.4 and 5.2.2, RFC 5861 section 3.
#[test]
fn stored_responses_are_reused_as_they_allow() {
    use Cause::{Bypass, Stale};
    let table = [
        ("Cache-Control: max-age=60", 59, Decision::Hit),
        ("Cache-Control: max-age=60", 60, Decision::Miss(Stale)),
        ("Cache-Control: max-age=60\nETag: \"a\"", 60, Decision::Revalidate(Stale)),
        ("Cache-Control: max-age=60, no-cache\nETag: \"a\"", 1, Decision::Revalidate(Stale)),
        ("Cache-Control: max-age=60, no-cache=\"X-A\"", 1, Decision::Hit),
        ("Cache-Control: max-age=60, must-revalidate", 59, Decision::Hit),
        ("Cache-Control: max-age=60, stale-while-revalidate=5", 65, Decision::StaleWhileRevalidate),
        ("Cache-Control: max-age=60, stale-while-revalidate=5", 66, Decision::Miss(Stale)),
        ("Cache-Control: max-age=60, stale-while-revalidate=5, must-revalidate", 61, Decision::Miss(Stale)),
        ("Cache-Control: s-maxage=60, stale-while-revalidate=5", 61, Decision::Miss(Stale)),
    ];
    for (stored, now, expected) in table {
        assert_eq!(decision("", stored, now, &options()), expected, "{stored} at {now}");
        // By default a client's wishes are ignored.
        assert_eq!(decision("Cache-Control: no-cache", stored, now, &options()), expected, "{stored} at {now}");
    }
    let off = Options { deliver_active: false, ..options() };
    assert_eq!(decision("", "Cache-Control: max-age=60", 1, &off), Decision::Miss(Bypass));
    assert_eq!(decide(&get("/", &[]), None, false, &options(), at(0)), Decision::Miss(Cause::UriMiss));
    assert_eq!(decide(&get("/", &[]), None, true, &options(), at(0)), Decision::Miss(Cause::VaryMiss));
}

/// RFC 9111 section 5.2.1.
#[test]
fn clients_are_obeyed_where_that_is_switched_on() {
    use Cause::{Request, Stale};
    let fresh = "Cache-Control: max-age=60\nETag: \"a\"";
    let strict = "Cache-Control: max-age=60, must-revalidate\nETag: \"a\"";
    let immutable = "Cache-Control: max-age=60, immutable\nETag: \"a\"";
    let table = [
        ("Cache-Control: no-cache", fresh, 1, Decision::Revalidate(Request)),
        ("Pragma: no-cache", fresh, 1, Decision::Revalidate(Request)),
        ("Pragma: no-cache\nCache-Control: foo", fresh, 1, Decision::Hit),
        ("Cache-Control: max-age=0", fresh, 1, Decision::Revalidate(Request)),
        ("Cache-Control: max-age=0", immutable, 1, Decision::Hit),
        ("Cache-Control: no-cache", immutable, 1, Decision::Revalidate(Request)),
        ("Cache-Control: max-age=5", fresh, 5, Decision::Hit),
        ("Cache-Control: max-age=5", fresh, 6, Decision::Revalidate(Request)),
        ("Cache-Control: min-fresh=10", fresh, 50, Decision::Hit),
        ("Cache-Control: min-fresh=10", fresh, 51, Decision::Revalidate(Request)),
        ("Cache-Control: max-stale=5", fresh, 65, Decision::Stale),
        ("Cache-Control: max-stale=5", fresh, 66, Decision::Revalidate(Stale)),
        ("Cache-Control: max-stale", fresh, 9999, Decision::Stale),
        ("Cache-Control: max-stale, min-fresh=1", fresh, 61, Decision::Revalidate(Stale)),
        ("Cache-Control: max-stale", strict, 61, Decision::Revalidate(Stale)),
        ("Cache-Control: max-stale, max-age=5", fresh, 61, Decision::Revalidate(Stale)),
        ("Cache-Control: only-if-cached", fresh, 1, Decision::Hit),
        ("Cache-Control: only-if-cached", fresh, 61, Decision::OnlyIfCached),
    ];
    let obeying = Options { obey_clients: true, ..options() };
    for (request, stored, now, expected) in table {
        assert_eq!(decision(request, stored, now, &obeying), expected, "{request} {stored} at {now}");
    }
    let no_store = store_with("Cache-Control: no-store", 200, fresh, b"", &obeying);
    assert_eq!(no_store.err(), Some(Refusal::RequestNoStore));
}

/// RFC 9111 section 4.2.4, RFC 5861 section 4, x0d's shadows.
#[test]
fn stale_responses_stand_in_for_errors() {
    let shadows = options();
    let none = Options { deliver_shadow: false, ..options() };
    let short = Options { default_shadow_ttl: Duration::from_secs(10), ..options() };
    let table = [
        ("Cache-Control: max-age=60", &shadows, Failure::NoResponse, 99_999, true),
        ("Cache-Control: max-age=60", &none, Failure::NoResponse, 61, false),
        ("Cache-Control: max-age=60", &short, Failure::NoResponse, 70, true),
        ("Cache-Control: max-age=60", &short, Failure::NoResponse, 71, false),
        ("Cache-Control: max-age=60", &shadows, Failure::Status(503), 61, false),
        ("Cache-Control: max-age=60, stale-if-error=5", &none, Failure::Status(503), 65, true),
        ("Cache-Control: max-age=60, stale-if-error=5", &none, Failure::Status(503), 66, false),
        ("Cache-Control: max-age=60, stale-if-error=5", &none, Failure::Status(404), 61, false),
        ("Cache-Control: max-age=60, stale-if-error=5", &none, Failure::NoResponse, 61, true),
        ("Cache-Control: max-age=60, must-revalidate", &shadows, Failure::NoResponse, 61, false),
        ("Cache-Control: max-age=60, proxy-revalidate", &shadows, Failure::NoResponse, 61, false),
        ("Cache-Control: s-maxage=60", &shadows, Failure::NoResponse, 61, false),
        ("Cache-Control: no-cache\nETag: \"a\"", &shadows, Failure::NoResponse, 61, false),
        ("ETag: \"a\"", &shadows, Failure::NoResponse, 1, false),
    ];
    for (stored, options, failure, now, expected) in table {
        let object = object(stored);
        let found = may_replace_error(&get("/", &[]), &object, failure, options, at(now));
        assert_eq!(found, expected, "{stored} {failure:?} at {now}");
    }
    let unlocked = Options { lock_on_update: false, ..options() };
    let bounded = Options { default_shadow_ttl: Duration::from_secs(10), ..unlocked.clone() };
    let table = [
        ("Cache-Control: max-age=60", &unlocked, 99_999, true),
        ("Cache-Control: max-age=60", &options(), 61, false),
        ("Cache-Control: max-age=60, must-revalidate", &unlocked, 61, false),
        ("Cache-Control: max-age=60", &bounded, 70, true),
        ("Cache-Control: max-age=60", &bounded, 71, false),
    ];
    for (stored, options, now, expected) in table {
        assert_eq!(may_serve_while_updating(&object(stored), options, at(now)), expected, "{stored} at {now}");
    }
}

/// A client that accepts stale responses gets none that was purged, and none beyond the frontend's limit.
#[test]
fn max_stale_has_its_limits() {
    let request = parse("Cache-Control: max-stale");
    let obeying = Options { obey_clients: true, default_shadow_ttl: Duration::from_secs(10), ..options() };
    let stored = object("Cache-Control: max-age=60");
    let decision = |now| decide(&get("/", &request), Some(&stored), false, &obeying, at(now));
    assert_eq!((decision(70), decision(71)), (Decision::Stale, Decision::Miss(Cause::Stale)));
    stored.soft_purge();
    assert_eq!(decision(1), Decision::Miss(Cause::Stale));
}

/// RFC 9111 section 4.1.
#[test]
fn variants_are_selected_by_normalised_values() {
    let table = [
        ("Vary: X-A", "X-A: 1", "X-A: 1", true),
        ("Vary: X-A", "X-A: 1", "X-A: 2", false),
        ("Vary: X-A", "X-A: 1", "", false),
        ("Vary: X-A", "", "", true),
        ("Vary: X-A", "", "X-A:", false),
        ("Vary: x-a", "X-A: 1", "X-a: 1", true),
        ("Vary: X-A", "X-A: a", "X-A: A", false),
        // In a field that may not be a list, only the surrounding white space has no meaning.
        ("Vary: X-A", "X-A:  1,2 ", "X-A: 1,2", true),
        ("Vary: X-A", "X-A: 1,2", "X-A: 1 ,  2", false),
        ("Vary: Origin", "Origin: https://a.com", "Origin: https://a.com,", false),
        ("Vary: Origin", "Origin: https://a.com", "Origin: , https://a.com", false),
        ("Vary: Origin", "Origin: https://a.com", "Origin: https://a.com\nOrigin:", false),
        ("Vary: X-A", "X-A: 1, 2", "X-A: 1\nX-A: 2", true),
        ("Vary: X-A", "X-A: 1, 2", "X-A: 2, 1", false),
        ("Vary: Accept-Encoding", "Accept-Encoding: gzip, br", "Accept-Encoding: BR,gzip", true),
        ("Vary: Accept-Language", "Accept-Language: en;q=0.5, de", "Accept-Language: de, en; q=0.5", true),
        ("Vary: Accept-Encoding", "Accept-Encoding: gzip", "Accept-Encoding: br", false),
        // If two languages have equal quality, the first one is preferred.
        ("Vary: Accept-Language", "Accept-Language: de, en", "Accept-Language: en, de", false),
        ("Vary: Accept-Language", "Accept-Language: de, en;q=0.50", "Accept-Language: en;q=0.50,DE", true),
        ("Vary: Accept", "Accept: a;b=\"C, d\"", "Accept: a;b=\"c, d\"", false),
        ("Vary: X-A, X-B", "X-A: 1\nX-B: 2", "X-B: 2\nX-A: 1", true),
        ("Vary: X-A\nVary: X-B", "X-A: 1\nX-B: 2", "X-A: 1", false),
    ];
    for (vary, stored, presented, expected) in table {
        let lines = format!("Cache-Control: max-age=60\n{vary}");
        let object = store_with(stored, 200, &lines, b"", &options()).expect("cacheable");
        let presented_fields = parse(presented);
        let is_selected = object.variant.is_selected_by(&mut RequestValues::of(Fields(&presented_fields)));
        assert_eq!(is_selected, expected, "{vary} {stored} {presented}");
        // Requests that select each other's responses wait for each other's fills, and no others do.
        let selection = |fields: &[Header<'_>]| {
            let mut out = Vec::new();
            assert!(object.variant.write_selection(&mut RequestValues::of(Fields(fields)), &mut out));
            out
        };
        assert_eq!(selection(&parse(stored)) == selection(&presented_fields), expected, "{vary} {stored} {presented}");
    }
    let many: String = (0..17).map(|number| format!("Vary: X-{number}\n")).collect();
    let found = store_with("", 200, &format!("Cache-Control: max-age=60\n{many}"), b"", &options());
    assert_eq!(found.err(), Some(Refusal::Vary));
    let large = format!("X-A: {}", "x".repeat(3000));
    let found = store_with(&large, 200, "Cache-Control: max-age=60\nVary: X-A", b"", &options());
    assert_eq!(found.err(), Some(Refusal::LongSelection));
    let stored = store_with("X-A: 1", 200, "Cache-Control: max-age=60\nVary: X-A", b"", &options()).expect("cacheable");
    let fields = parse(&large);
    let mut values = RequestValues::of(Fields(&fields));
    assert!(
        !stored.variant.is_selected_by(&mut values) && !stored.variant.write_selection(&mut values, &mut Vec::new())
    );
}
