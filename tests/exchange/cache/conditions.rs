//! Conditions of clients while the cache is filled: a backend gets none, and they are evaluated on its response.

use super::*;

const TAGGED: &str = "Cache-Control: max-age=600\r\nETag: \"a\"\r\nLast-Modified: Sat, 05 Sep 2020 00:00:00 GMT\r\n";

fn with(fields: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a\r\nX-Before: 1\r\n{fields}X-Behind: 2\r\n\r\n")
}

/// RFC 9110 section 13.2.2, on a response that is not stored yet. Whatever the client gets, the cache has the object.
#[test]
fn a_conditional_request_fills_the_cache() {
    let table = [
        ("If-None-Match: \"a\"\r\n", 304),
        ("If-None-Match: \"b\"\r\n", 200),
        ("If-Modified-Since: Sat, 05 Sep 2020 00:00:00 GMT\r\n", 304),
        ("If-Modified-Since: Fri, 04 Sep 2020 00:00:00 GMT\r\n", 200),
        ("If-Match: \"a\"\r\n", 200),
        ("If-Match: \"b\"\r\nIf-None-Match: \"a\"\r\n", 412),
        ("If-Unmodified-Since: Fri, 04 Sep 2020 00:00:00 GMT\r\n", 412),
        ("If-None-Match: \"b\"\r\nIf-Modified-Since: Sat, 05 Sep 2020 00:00:00 GMT\r\n", 200),
    ];
    for (fields, status) in table {
        let stage = Stage::new();
        let (mut scene, head) = stage.forward(&with(fields));
        assert!(head.contains("X-Before: 1\r\nX-Behind: 2\r\n") && !head.contains("If-"), "{fields}: {head}");
        let got = respond(&mut scene, &response(TAGGED, "text"));
        assert!(got.starts_with(&format!("HTTP/1.1 {status} ")), "{fields}: {got}");
        assert_eq!(got.ends_with("text"), status == 200, "{fields}: {got}");
        assert!(got.contains("X-Cache-Lookup: miss\r\n"), "{fields}: {got}");
        assert_eq!(
            scene.core.output.effects.iter().filter(|effect| matches!(effect, Effect::Release { .. })).count(),
            1
        );
        let hit = stage.get("");
        assert!(hit.contains("X-Cache-Lookup: hit\r\n") && hit.ends_with("text"), "{fields}: {hit}");
    }
}

/// The body comes in pieces, and those who wait get the object, each by its own conditions.
#[test]
fn those_who_wait_for_a_conditional_request_get_the_object() {
    let stage = Stage::new();
    let (mut leader, _) = stage.forward(&with("If-None-Match: \"a\"\r\n"));
    let mut waiter = stage.ask(GET, &Stage::route("a", "site"));
    let whole = response(TAGGED, "0123456789");
    let (first, second) = whole.split_at(whole.len() - 5);
    assert_eq!(respond(&mut leader, first), "", "only the cache needs the body");
    let got = respond(&mut leader, second);
    assert!(got.starts_with("HTTP/1.1 304 ") && got.contains("fwd=uri-miss; fwd-status=200"), "{got}");
    let [FillEnd::Stored] = *stage.mail.take() else { panic!("not stored") };
    waiter.tell(Input::FillEnded(FillEnd::Stored));
    assert!(text(waiter.send(Side::Client, usize::MAX).1).ends_with("0123456789"));
}

/// A response that cannot be stored is forwarded; and for a while such requests are the backend's, conditions included.
#[test]
fn conditions_are_the_backends_where_nothing_is_stored() {
    let stage = Stage::new();
    let conditional = with("If-None-Match: \"a\"\r\n");
    let (mut scene, head) = stage.forward(&conditional);
    assert!(!head.contains("If-None-Match"), "{head}");
    let got = respond(&mut scene, &response("Cache-Control: private\r\nETag: \"a\"\r\n", "text"));
    assert!(got.starts_with("HTTP/1.1 200 ") && got.ends_with("text"), "{got}");
    let (mut scene, head) = stage.forward(&conditional);
    assert!(head.contains("If-None-Match: \"a\"\r\n"), "{head}");
    let got = respond(&mut scene, "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n");
    assert!(got.starts_with("HTTP/1.1 304 "), "{got}");
}

/// A response that is cut before its end leaves the client with its own request.
#[test]
fn a_body_that_is_cut_has_the_client_ask_by_itself() {
    let stage = Stage::new();
    let (mut scene, _) = stage.forward(&with("If-None-Match: \"a\"\r\n"));
    let whole = response(TAGGED, "0123456789");
    assert_eq!(respond(&mut scene, &whole[..whole.len() - 5]), "");
    scene.tell(Input::End(Side::Upstream));
    let head = sent(&mut scene);
    assert!(head.contains("If-None-Match: \"a\"\r\n"), "{head}");
    let got = respond(&mut scene, "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n");
    assert!(got.starts_with("HTTP/1.1 304 "), "{got}");
}

/// A validation is for the stored response; the client's conditions are evaluated on what comes of it.
#[test]
fn a_validation_leaves_the_clients_conditions_to_this_node() {
    let stage = Stage::new();
    stage.get(&response(STALE, "old"));
    let (mut scene, head) = stage.forward(&with("If-None-Match: \"b\"\r\n"));
    assert!(head.contains("If-None-Match: \"a\"\r\n") && !head.contains("\"b\""), "{head}");
    let got = respond(&mut scene, &response("Cache-Control: max-age=600\r\nETag: \"b\"\r\n", "new"));
    assert!(got.starts_with("HTTP/1.1 304 "), "{got}");
    assert!(stage.get("").ends_with("new"));
}
