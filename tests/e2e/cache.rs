//! The object cache: hits, conditions, ranges, validation, stale responses, purge and invalidation.

use crate::respawn::{restless, until_respawns};
use crate::succession::{replaceable, upgrade};
use crate::support::backend::Backend;
use crate::support::client::{Client, Response};
use crate::support::proxy::{Proxy, Setup};
use crate::support::{Gate, HOST, canned, until, worker_has_caught_up};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// A proxy whose frontend has these options of the cache, beside being enabled.
fn proxy_of(backend: &Backend, mut cache: Value) -> Setup {
    cache["enabled"] = json!(true);
    Setup::for_backends([backend.url()]).option(HOST, "cache", cache)
}

fn with_fields(status: &str, fields: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn ask(proxy: &Proxy, method: &str, path: &str, fields: &str) -> Response {
    let mut client = proxy.client();
    client.send(format!("{method} {path} HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n"));
    client.response_to(method)
}

#[track_caller]
fn expect(response: &Response, status: u16, lookup: Option<&str>, body: &str) {
    let found = (response.status(), response.head.get("X-Cache-Lookup"), response.text());
    assert_eq!(found, (status, lookup, body.to_owned()), "{}", response.head);
}

#[test]
fn a_stored_response_is_served_by_every_worker_and_never_asked_for_again() {
    let backend = Backend::always(with_fields("200 OK", "Cache-Control: max-age=600\r\nETag: \"a\"\r\n", "0123456789"));
    let proxy = proxy_of(&backend, json!({})).start();
    expect(&proxy.client().get(HOST, "/a"), 200, Some("miss"), "0123456789");
    for number in 1..40 {
        let response = proxy.client().get(HOST, "/a");
        expect(&response, 200, Some("hit"), "0123456789");
        assert_eq!(response.head.get("X-Cache-Hits"), Some(&*number.to_string()));
        assert!(response.head.get("Age").is_some() && response.head.all("Content-Length") == ["10"]);
    }
    let mut client = proxy.client();
    client.send(canned::get(HOST, "/a").repeat(3));
    (0..3).for_each(|_| expect(&client.response_to("GET"), 200, Some("hit"), "0123456789"));
    expect(&ask(&proxy, "HEAD", "/a", ""), 200, Some("hit"), "");
    expect(&ask(&proxy, "GET", "/a", "If-None-Match: \"a\"\r\n"), 304, Some("hit"), "");
    expect(&ask(&proxy, "GET", "/a", "If-Match: \"b\"\r\n"), 412, Some("hit"), "");
    expect(&ask(&proxy, "GET", "/a", "Range: bytes=2-4\r\n"), 206, Some("hit"), "234");
    expect(&ask(&proxy, "GET", "/a", "Range: bytes=20-\r\n"), 416, Some("hit"), "");
    assert_eq!(backend.heads(), 1);
    // Another query is another object.
    expect(&proxy.client().get(HOST, "/a?"), 200, Some("miss"), "0123456789");
}

#[test]
fn a_large_body_leaves_whole_at_any_pace() {
    let body: String = (0..300_000).map(|number| format!("{number:07}")).collect();
    let chunks: Vec<&str> = vec![&body[..1_000_001], &body[1_000_001..]];
    let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunked = String::from_utf8(canned::chunked(&chunks)).expect("text");
    let (_, coded) = chunked.split_once("\r\n\r\n").expect("a body");
    let backend = Backend::always(format!("{head}{coded}"));
    let proxy = proxy_of(&backend, json!({})).start();
    expect(&proxy.client().get(HOST, "/"), 200, Some("miss"), &body);
    expect(&proxy.client().get(HOST, "/"), 200, Some("hit"), &body);
    let mut slow = Client::over(Box::new(crate::support::client::connect_with_window(proxy.address(), 4096)));
    expect(&slow.get(HOST, "/"), 200, Some("hit"), &body);
    let mut pipelined = proxy.client();
    pipelined.send(canned::get(HOST, "/").repeat(2));
    (0..2).for_each(|_| expect(&pipelined.response_to("GET"), 200, Some("hit"), &body));
    assert_eq!(backend.heads(), 1);
}

#[test]
fn a_stale_object_is_validated() {
    let (version, changed) = (Arc::new(AtomicUsize::new(1)), Arc::new(AtomicUsize::new(0)));
    let (version_seen, counter) = (Arc::clone(&version), Arc::clone(&changed));
    let backend = Backend::serve(move |request, conn| {
        let version = version_seen.load(Ordering::SeqCst);
        let tag = format!("\"{version}\"");
        let fields = format!(
            "Cache-Control: max-age=0\r\nETag: {tag}\r\nX-Turn: {}\r\n",
            counter.fetch_add(1, Ordering::SeqCst)
        );
        let is_same = request.head.get("If-None-Match") == Some(&tag);
        match is_same {
            true => conn.send(format!("HTTP/1.1 304 Not Modified\r\n{fields}\r\n")),
            false => conn.send(with_fields("200 OK", &fields, &format!("version {version}"))),
        }
    });
    let proxy = proxy_of(&backend, json!({})).start();
    let mut client = proxy.client();
    expect(&client.get(HOST, "/"), 200, Some("miss"), "version 1");
    // The client's own conditions are not the backend's.
    let agent = "User-Agent: agent\r\nIf-None-Match: \"other\"\r\nIf-Modified-Since: Sat, 05 Sep 2026 00:00:00 GMT\r\nX-A: 1\r\n";
    let response = ask(&proxy, "GET", "/", agent);
    expect(&response, 200, Some("stale"), "version 1");
    assert_eq!(response.head.get("X-Turn"), Some("1"), "the fields are those of the 304");
    let asked = backend.requests().last().expect("a request").head.clone();
    assert_eq!((asked.all("If-None-Match"), asked.all("If-Modified-Since").len()), (vec!["\"1\""], 0), "{asked}");
    assert_eq!((asked.get("User-Agent"), asked.get("X-A")), (Some("agent"), Some("1")));
    expect(&ask(&proxy, "GET", "/", "If-None-Match: \"1\"\r\n"), 304, Some("stale"), "");
    version.store(2, Ordering::SeqCst);
    expect(&client.get(HOST, "/"), 200, Some("stale"), "version 2");
    expect(&client.get(HOST, "/"), 200, Some("stale"), "version 2");
    assert_eq!(backend.heads(), 5);
}

#[test]
fn what_may_not_be_stored_is_not() {
    let backend = Backend::serve(|request, conn| {
        let fields = match request.head.target() {
            "/private" => "Cache-Control: private, max-age=60\r\n",
            "/cookie" => "Cache-Control: max-age=60\r\nSet-Cookie: a=b\r\n",
            "/none" => "",
            _ => "Cache-Control: max-age=60\r\n",
        };
        conn.send(with_fields("200 OK", fields, "x"));
    });
    let proxy = proxy_of(&backend, json!({})).start();
    for path in ["/private", "/cookie", "/none"] {
        (0..2).for_each(|_| expect(&proxy.client().get(HOST, path), 200, Some("miss"), "x"));
    }
    for fields in ["Authorization: x\r\n", "X-Forwarded-Host: evil\r\n", "X-HTTP-Method-Override: PUT\r\n"] {
        let path = format!("/{}", fields.len());
        ask(&proxy, "GET", &path, fields);
        expect(&proxy.client().get(HOST, &path), 200, Some("miss"), "x");
    }
    let off = Setup::for_backends([backend.url()]).start();
    (0..2).for_each(|_| expect(&off.client().get(HOST, "/"), 200, None, "x"));
}

#[test]
fn a_response_that_is_cut_short_is_not_stored() {
    let backend = Backend::serve(|request, conn| {
        if request.connection == 0 {
            conn.send("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 10\r\n\r\n01234");
            return conn.finish();
        }
        conn.send(with_fields("200 OK", "Cache-Control: max-age=60\r\n", "0123456789"));
    });
    let proxy = proxy_of(&backend, json!({})).start();
    let mut client = proxy.client();
    client.send(canned::get(HOST, "/"));
    assert!(client.try_response_to("GET").is_err());
    expect(&proxy.client().get(HOST, "/"), 200, Some("miss"), "0123456789");
    expect(&proxy.client().get(HOST, "/"), 200, Some("hit"), "0123456789");
}

#[test]
fn stale_objects_are_served_when_no_backend_lives() {
    let mut backend = Backend::serve(|request, conn| {
        let fields = match request.head.target() {
            "/strict" => "Cache-Control: max-age=0, must-revalidate\r\n",
            _ => "Cache-Control: max-age=0\r\n",
        };
        conn.send(with_fields("200 OK", fields, request.head.target()));
    });
    let proxy = proxy_of(&backend, json!({})).set("deadBackendTTL", 0.1).start();
    let paths: Vec<String> = (0..50).map(|number| format!("/{number}")).collect();
    paths.iter().for_each(|path| expect(&proxy.client().get(HOST, path), 200, Some("miss"), path));
    proxy.client().get(HOST, "/strict");
    backend.kill();
    for path in &paths {
        let response = proxy.client().get(HOST, path);
        expect(&response, 200, Some("stale"), path);
        assert_eq!(response.head.get("X-Director-Cache"), Some("shadow"));
    }
    assert!(proxy.client().get(HOST, "/strict").status() >= 500);
    assert!(proxy.client().get(HOST, "/unknown").status() >= 500);
}

#[test]
fn a_failing_backend_is_covered_as_the_response_allows() {
    let turn = AtomicUsize::new(0);
    let backend = Backend::serve(move |_, conn| match turn.fetch_add(1, Ordering::SeqCst) {
        0 => conn.send(with_fields("200 OK", "Cache-Control: max-age=0, stale-if-error=60\r\n", "good")),
        1 => conn.send(with_fields("503 Service Unavailable", "", "bad")),
        _ => conn.send(with_fields("404 Not Found", "", "gone")),
    });
    let proxy = proxy_of(&backend, json!({})).start();
    expect(&proxy.client().get(HOST, "/"), 200, Some("miss"), "good");
    let response = proxy.client().get(HOST, "/");
    expect(&response, 200, Some("stale"), "good");
    assert!(
        response.head.get("Cache-Status").is_some_and(|status| status.contains("fwd-status=503")),
        "{}",
        response.head
    );
    expect(&proxy.client().get(HOST, "/"), 404, Some("stale"), "gone");
}

#[test]
fn unsafe_methods_and_purges_take_objects_away() {
    let backend = Backend::serve(|request, conn| {
        let status = if request.head.target() == "/refused" { "403 Forbidden" } else { "200 OK" };
        conn.send(with_fields(status, "Cache-Control: max-age=600\r\nLocation: /other\r\n", "x"));
    });
    let proxy = proxy_of(&backend, json!({})).set("trustedNetworks", json!(["127.0.0.0/8"])).start();
    let is_hit = |path: &str| ask(&proxy, "GET", path, "").head.get("X-Cache-Lookup") == Some("hit");
    let fill = |path: &str| drop(ask(&proxy, "GET", path, ""));
    ["/a", "/other", "/refused"].into_iter().for_each(fill);
    assert!(is_hit("/a") && is_hit("/other") && is_hit("/refused"));
    let mut client = proxy.client();
    assert_eq!(client.exchange(canned::post(HOST, "/a", "data")).status(), 200);
    assert!(!is_hit("/other") && !is_hit("/a"), "Location is invalid too");
    assert_eq!(client.exchange(canned::post(HOST, "/refused", "data")).status(), 403);
    assert!(is_hit("/refused"), "a refusal changes nothing");
    assert_eq!(ask(&proxy, "PURGE", "/a", "").status(), 200);
    assert!(!is_hit("/a"));
    assert_eq!(ask(&proxy, "PURGE", "/never", "").status(), 404);
    let untrusted = proxy_of(&backend, json!({})).start();
    ask(&untrusted, "GET", "/a", "");
    let heads = backend.heads();
    ask(&untrusted, "PURGE", "/a", "");
    assert_eq!(backend.heads(), heads + 1, "the backend's to judge");
}

/// A validation that is under way while its object is purged does not bring that back, whatever the backend says: its client,
/// who asked before the purge, gets the object, and nobody after it.
#[test]
fn a_304_does_not_undo_a_purge() {
    let purges: [&dyn Fn(&Proxy); 2] = [&|proxy| assert_eq!(ask(proxy, "PURGE", "/", "").status(), 200), &|proxy| {
        assert_eq!(proxy.client().exchange(canned::post(HOST, "/", "x")).status(), 200)
    }];
    for purge in purges {
        let gate = Arc::new(Gate::default());
        let held = Arc::clone(&gate);
        let backend = Backend::serve(move |request, conn| {
            let fields = "Cache-Control: max-age=600\r\nETag: \"a\"\r\n";
            if request.head.get("X-First").is_some() {
                return conn.send(with_fields("200 OK", "Cache-Control: max-age=0\r\nETag: \"a\"\r\n", "old"));
            }
            match request.head.get("If-None-Match") {
                Some(_) => {
                    held.pass();
                    conn.send(format!("HTTP/1.1 304 Not Modified\r\n{fields}X-Turn: 2\r\n\r\n"));
                }
                None => conn.send(with_fields("200 OK", fields, "new")),
            }
        });
        let proxy = proxy_of(&backend, json!({})).set("trustedNetworks", json!(["127.0.0.0/8"])).start();
        expect(&ask(&proxy, "GET", "/", "X-First: 1\r\n"), 200, Some("miss"), "old");
        let mut client = proxy.client();
        client.send(canned::get(HOST, "/"));
        backend.until_heads(2);
        purge(&proxy);
        gate.open();
        let response = client.response_to("GET");
        expect(&response, 200, Some("stale"), "old");
        assert_eq!(response.head.get("X-Turn"), Some("2"), "with the fields of the 304");
        let heads = backend.heads();
        let lookup = proxy.client().get(HOST, "/").head.get("X-Cache-Lookup").map(str::to_owned);
        assert_ne!(lookup.as_deref(), Some("hit"));
        assert_eq!(backend.heads(), heads + 1, "the next one asks the backend");
    }
}

/// Has this many clients ask for one path, and returns what they get, once `release` has run while all of them wait.
fn ask_at_once(proxy: &Proxy, clients: usize, release: impl FnOnce()) -> Vec<Response> {
    thread::scope(|scope| {
        let asked: Vec<_> = (0..clients)
            .map(|_| {
                let mut client = proxy.client();
                client.send(canned::get(HOST, "/"));
                scope.spawn(move || client.response_to("GET"))
            })
            .collect();
        release();
        asked.into_iter().map(|client| client.join().expect("a response")).collect()
    })
}

#[test]
fn one_request_fills_for_all_that_ask_at_once() {
    let gate = Arc::new(Gate::default());
    let held = Arc::clone(&gate);
    let backend = Backend::serve(move |_, conn| {
        held.pass();
        conn.send(with_fields("200 OK", "Cache-Control: max-age=60\r\n", "x"));
    });
    let proxy = proxy_of(&backend, json!({})).start();
    let responses = ask_at_once(&proxy, 30, || {
        backend.until_heads(1);
        worker_has_caught_up(&proxy);
        gate.open();
    });
    responses.iter().for_each(|response| assert_eq!((response.status(), &*response.text()), (200, "x")));
    let misses = responses.iter().filter(|response| response.head.get("X-Cache-Lookup") == Some("miss")).count();
    assert_eq!((misses, backend.heads()), (1, 1));
}

#[test]
fn a_response_that_cannot_be_stored_lets_all_go_at_once() {
    let gate = Arc::new(Gate::default());
    let held = Arc::clone(&gate);
    let backend = Backend::serve(move |_, conn| {
        held.pass();
        conn.send(with_fields("200 OK", "Cache-Control: private\r\n", "x"));
    });
    let proxy = proxy_of(&backend, json!({})).start();
    let responses = ask_at_once(&proxy, 10, || {
        backend.until_heads(1);
        worker_has_caught_up(&proxy);
        gate.open();
    });
    responses.iter().for_each(|response| expect(response, 200, Some("miss"), "x"));
    assert_eq!(backend.heads(), 10);
}

/// The object cache moves to the next process, and what was purged there does not come back. With all backends gone, every
/// object is still served, stale.
#[test]
fn objects_survive_an_upgrade() {
    let mut backend = Backend::serve(|request, conn| {
        let body = request.head.target().repeat(10_000);
        conn.send(with_fields("200 OK", "Cache-Control: max-age=600\r\nETag: \"a\"\r\n", &body));
    });
    let setup = proxy_of(&backend, json!({})).set("trustedNetworks", json!(["127.0.0.0/8"]));
    let mut proxy = replaceable(setup).start();
    let paths: Vec<String> = (0..50).map(|number| format!("/{number}")).collect();
    for path in &paths {
        expect(&proxy.client().get(HOST, path), 200, Some("miss"), &path.repeat(10_000));
    }
    expect(&ask(&proxy, "PURGE", "/7", ""), 200, None, "");
    upgrade(&mut proxy);
    until("the objects have moved", || proxy.stderr().contains("50 objects of the cache were taken over, 0 left out"));
    backend.kill();
    for path in &paths {
        let lookup = if path == "/7" { "stale" } else { "hit" };
        expect(&proxy.client().get(HOST, path), 200, Some(lookup), &path.repeat(10_000));
    }
    expect(&ask(&proxy, "PURGE", "/8", ""), 200, None, "");
    expect(&proxy.client().get(HOST, "/8"), 200, Some("stale"), &"/8".repeat(10_000));
    upgrade(&mut proxy);
    until("they have moved again", || proxy.stderr().matches("50 objects of the cache were taken over").count() == 2);
    expect(&proxy.client().get(HOST, "/9"), 200, Some("hit"), &"/9".repeat(10_000));
    assert_eq!(backend.heads(), 50);
}

/// A backend that sends the first part of a response, and the second one once the gate is open.
fn in_two_parts(gate: &Arc<Gate>, first: &'static str, second: &'static str) -> Backend {
    let held = Arc::clone(gate);
    Backend::serve(move |_, conn| {
        conn.send(first);
        held.pass();
        match second {
            "" => conn.finish(),
            second => conn.send(second),
        }
    })
}

#[test]
fn those_who_wait_read_the_response_while_it_comes() {
    let gate = Arc::new(Gate::default());
    let first = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
    let backend = in_two_parts(&gate, first, "3\r\ndef\r\n0\r\n\r\n");
    let proxy = proxy_of(&backend, json!({})).workers(2).start();
    let mut clients: Vec<Client> = (0..20).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send(canned::get(HOST, "/"));
    }
    for client in &mut clients {
        assert_eq!(client.head().get("Transfer-Encoding"), Some("chunked"));
        assert_eq!(client.bytes(8), b"3\r\nabc\r\n");
    }
    gate.open();
    clients.iter_mut().for_each(|client| assert_eq!(client.bytes(13), b"3\r\ndef\r\n0\r\n\r\n"));
    // Their connections go on, and the object is there.
    clients.iter_mut().for_each(|client| expect(&client.get(HOST, "/"), 200, Some("hit"), "abcdef"));
    assert_eq!(backend.heads(), 1);
}

#[test]
fn a_fill_that_dies_cuts_those_who_read_and_no_one_else() {
    let gate = Arc::new(Gate::default());
    let backend =
        in_two_parts(&gate, "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 9\r\n\r\nabc", "");
    let proxy = proxy_of(&backend, json!({})).start();
    let mut clients: Vec<Client> = (0..5).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send(canned::get(HOST, "/"));
    }
    for client in &mut clients {
        assert_eq!(client.head().get("Content-Length"), Some("9"));
        assert_eq!(client.bytes(3), b"abc");
    }
    gate.open();
    clients.iter_mut().for_each(|client| assert!(client.rest().0.is_empty(), "the missing end is not made up"));
    assert_eq!(backend.heads(), 1);
    proxy.client().send(canned::get(HOST, "/"));
    backend.until_heads(2);
}

#[test]
fn a_fill_goes_on_without_its_client_for_those_who_read() {
    let gate = Arc::new(Gate::default());
    let first = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\n\r\n1";
    let backend = in_two_parts(&gate, first, "2");
    let proxy = proxy_of(&backend, json!({})).start();
    let mut leader = proxy.client();
    leader.send(canned::get(HOST, "/"));
    leader.head();
    let mut readers: Vec<Client> = (0..5).map(|_| proxy.client()).collect();
    for client in &mut readers {
        client.send(canned::get(HOST, "/"));
        client.head();
        assert_eq!(client.bytes(1), b"1");
    }
    leader.abort();
    worker_has_caught_up(&proxy);
    gate.open();
    readers.iter_mut().for_each(|client| assert_eq!(client.bytes(1), b"2"));
    expect(&proxy.client().get(HOST, "/"), 200, Some("hit"), "12");
    assert_eq!(backend.heads(), 1);
}

#[test]
fn a_fill_whose_client_leaves_hands_over() {
    let gate = Arc::new(Gate::default());
    let held = Arc::clone(&gate);
    let backend = Backend::serve(move |request, conn| {
        if request.connection > 0 {
            held.pass();
            return conn.send("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\n\r\n12");
        }
        // The first one never begins.
        while conn.request().is_some() {}
    });
    let proxy = proxy_of(&backend, json!({"updateLockTimeout": "60s"})).start();
    let mut first = proxy.client();
    first.send(canned::get(HOST, "/"));
    backend.until_heads(1);
    let responses = ask_at_once(&proxy, 10, || {
        worker_has_caught_up(&proxy);
        first.abort();
        backend.until_heads(2);
        gate.open();
    });
    responses.iter().for_each(|response| assert_eq!((response.status(), &*response.text()), (200, "12")));
    assert_eq!(backend.heads(), 2);
}

/// A rule of the frontend sends requests past the cache.
#[test]
fn requests_bypass_the_cache_by_rules() {
    let backend = Backend::always(with_fields("200 OK", "Cache-Control: max-age=600\r\n", "x"));
    let proxy = proxy_of(&backend, json!({"bypass": "cookie:session,path:/admin/"})).start();
    (0..2).for_each(|_| expect(&ask(&proxy, "GET", "/admin/", ""), 200, None, "x"));
    expect(&ask(&proxy, "GET", "/", "Cookie: session=1\r\n"), 200, None, "x");
    expect(&ask(&proxy, "GET", "/", ""), 200, Some("miss"), "x");
    expect(&ask(&proxy, "GET", "/", "Cookie: session=1\r\n"), 200, None, "x");
    expect(&ask(&proxy, "GET", "/", "Cookie: other=1\r\n"), 200, Some("hit"), "x");
    assert_eq!(backend.heads(), 5);
}

/// HEAD is served from the response to GET, and a HEAD that was forwarded updates or outdates that (RFC 9111 section 4.3.5).
#[test]
fn a_head_updates_the_stored_response() {
    let turn = AtomicUsize::new(0);
    let backend = Backend::serve(move |request, conn| {
        let (age, tag) = [(0, "a"), (600, "a"), (0, "a"), (600, "b"), (600, "b")][turn.fetch_add(1, Ordering::SeqCst)];
        let fields = format!("Cache-Control: max-age={age}\r\nETag: \"{tag}\"\r\nContent-Length: 1\r\n");
        let body = if request.head.start.starts_with("HEAD") { "" } else { tag };
        conn.send(format!("HTTP/1.1 200 OK\r\n{fields}\r\n{body}"));
    });
    let proxy = proxy_of(&backend, json!({})).start();
    expect(&ask(&proxy, "GET", "/", ""), 200, Some("miss"), "a");
    ask(&proxy, "HEAD", "/", "");
    expect(&ask(&proxy, "GET", "/", ""), 200, Some("hit"), "a");
    expect(&ask(&proxy, "GET", "/2", ""), 200, Some("miss"), "a");
    ask(&proxy, "HEAD", "/2", "");
    expect(&ask(&proxy, "GET", "/2", ""), 200, Some("stale"), "b");
    assert_eq!(backend.heads(), 5);
}

/// The objects belong to the process, not to a worker.
#[test]
fn objects_survive_the_renewal_of_all_workers() {
    let backend = Backend::always(with_fields("200 OK", "Cache-Control: max-age=600\r\n", "x"));
    let proxy = restless(proxy_of(&backend, json!({}))).start();
    expect(&ask(&proxy, "GET", "/", ""), 200, Some("miss"), "x");
    until_respawns(&proxy, 4);
    (0..8).for_each(|_| expect(&ask(&proxy, "GET", "/", ""), 200, Some("hit"), "x"));
    assert_eq!(backend.heads(), 1);
}
