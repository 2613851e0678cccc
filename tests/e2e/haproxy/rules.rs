//! Rules: where requests go, what becomes of their heads, and what this node responds itself.

use super::{at, named, serve, server, setup};
use crate::support::backend::Backend;
use crate::support::{canned, until, unused_address};
use sluice::base::clock::Clock;
use std::time::Duration;

fn get(path: &str, lines: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: www.example.org\r\n{lines}\r\n")
}

#[test]
fn two_servers_have_their_turns() {
    let (a, b) = (named("a"), named("b"));
    let backend = format!("backend web\n balance roundrobin\n{}{}", server("a", &a, ""), server("b", &b, ""));
    let proxy = serve(" default_backend web", &backend);
    let mut client = proxy.client();
    let mut names: Vec<_> = (0..4).map(|_| client.get("any.example", "/x").text()).collect();
    names.sort();
    assert_eq!(names, ["a /x", "a /x", "b /x", "b /x"]);
    // Nothing is added to what servers get that the file does not ask for.
    let request = a.requests().remove(0);
    assert_eq!(request.head.names(), ["Host"], "{request:?}");
}

#[test]
fn rules_choose_the_backend() {
    let (web, api, images) = (named("web"), named("api"), named("img"));
    let frontend = " acl is_api hdr(host) -i api.example.org api2.example.org\n use_backend api if is_api\n \
                    use_backend images if { path_beg /img/ } !{ method POST }\n use_backend %[req.hdr(x-backend)] if { req.hdr(x-backend) -m found }\n \
                    default_backend web";
    let rest = format!(
        "backend web\n{}backend api\n{}backend images\n{}",
        server("s", &web, ""),
        server("s", &api, ""),
        server("s", &images, "")
    );
    let proxy = serve(frontend, &rest);
    let mut client = proxy.client();
    client.get("API.example.org", "/").expect_ok("api /");
    client.get("api2.example.org", "/img/x").expect_ok("api /img/x");
    client.get("www.example.org", "/img/x?y").expect_ok("img /img/x?y");
    client.get("www.example.org", "/").expect_ok("web /");
    client.exchange(canned::post("www.example.org", "/img/x", "body")).expect_ok("web /img/x");
    client.exchange(get("/", "X-Backend: images\r\n")).expect_ok("img /");
    client.exchange(get("/", "X-Backend: nowhere\r\n")).expect_ok("web /");
}

#[test]
fn heads_are_changed_in_order() {
    let web =
        Backend::serve(|_, conn| conn.send(b"HTTP/1.1 200 OK\r\nServer: x\r\nX-Old: 1\r\nContent-Length: 2\r\n\r\nok"));
    let frontend = " option forwardfor\n http-request set-header X-Proto https if { ssl_fc }\n \
                    http-request set-header X-Proto http unless { ssl_fc }\n http-request del-header X-Secret\n \
                    http-request set-var(txn.path) path\n http-request replace-path /old/(.*) /new/\\1\n \
                    http-request add-header X-Path \"%[var(txn.path)] %[path]\"\n \
                    http-request set-header Connection close\n \
                    http-response del-header Server\n http-response set-header X-Path %[var(txn.path)]\n \
                    http-response set-status 418 reason Teapot if { path_beg /tea }\n default_backend web";
    let rest = format!("backend web\n http-request set-query a=b if {{ query x }}\n{}", server("s", &web, ""));
    let proxy = serve(frontend, &rest);
    let mut client = proxy.client();
    let response = client.exchange(get("/old/a?x", "X-Secret: s\r\nX-Forwarded-For: 1.2.3.4\r\nX-Proto: evil\r\n"));
    response.expect_ok("ok");
    assert_eq!((response.head.get("server"), response.head.get("x-path")), (None, Some("/old/a")));
    assert_eq!(response.head.get("x-old"), Some("1"));
    let request = web.only_request();
    let head = &request.head;
    assert_eq!(head.target(), "/new/a?a=b");
    assert_eq!(head.all("x-forwarded-for"), ["1.2.3.4", "127.0.0.1"]);
    assert_eq!((head.all("x-proto"), head.get("x-secret")), (vec!["http"], None));
    assert_eq!(head.get("x-path"), Some("/old/a /new/a"));
    assert_eq!(client.exchange(get("/tea", "")).status(), 200, "a response has no path in HAProxy's rules either");
}

#[test]
fn this_node_responds_itself() {
    let web = named("web");
    let frontend = " monitor-uri /alive\n http-request redirect scheme https code 301 if { hdr(host) -m beg secure }\n \
                    http-request deny if { path_beg /private }\n http-request deny deny_status 429 if { path /busy }\n \
                    http-request return status 200 content-type text/plain lf-string \"hello %[src]\" if { path /hello }\n \
                    http-request return status 404 if { path /gone }\n http-request auth realm Staff if { path_beg /staff } !{ http_auth(staff) }\n \
                    http-request reject if { path /reject }\n \
                    redirect prefix https://new.example.org code 302 drop-query if { path_beg /moved }\n \
                    redirect location /login if { path /old-login }\n \
                    http-after-response set-header X-After 1\n use_backend empty if { path /maintenance }\n default_backend web";
    let address = unused_address();
    let rest = format!(
        "backend web\n{}backend empty\n errorfile 503 PATH/maintenance.http\nuserlist staff\n user ann insecure-password secret\n",
        server("s", &web, "")
    );
    let setup = at(address, setup(|_| format!("frontend www\n bind {address}\n{frontend}\n{rest}")));
    let setup = setup.file(
        "maintenance.http",
        "HTTP/1.0 200 OK\r\nConnection: close\r\nContent-Type: text/plain\r\n\r\nback soon\n",
    );
    let text = std::fs::read_to_string(setup.dir().join("haproxy.cfg")).expect("the file");
    let folder = setup.dir().display().to_string();
    let proxy = setup.file("haproxy.cfg", &text.replace("PATH", &folder)).start();
    let mut client = proxy.client();
    let table = [
        ("secure.example", "/x?y", 301, Some("https://secure.example/x?y"), ""),
        ("www", "/moved/x?y", 302, Some("https://new.example.org/moved/x"), ""),
        ("www", "/old-login", 302, Some("/login"), ""),
        ("www", "/hello", 200, None, "hello 127.0.0.1"),
        ("www", "/gone", 404, None, ""),
        ("www", "/maintenance", 200, None, "back soon\n"),
    ];
    for (host, path, status, location, body) in table {
        let response = client.get(host, path);
        let found = (response.status(), response.head.get("location"), response.text());
        assert_eq!(found, (status, location, body.to_owned()), "{path}");
        assert_eq!(response.head.get("x-after"), Some("1"), "{path}");
    }
    for (path, status) in [("/private/x", 403), ("/busy", 429), ("/staff", 401), ("/alive", 200)] {
        assert_eq!(client.get("www", path).status(), status, "{path}");
    }
    assert_eq!(client.get("www", "/staff").head.get("www-authenticate"), Some("Basic realm=\"Staff\""));
    // ann:secret
    client.exchange(get("/staff", "Authorization: Basic YW5uOnNlY3JldA==\r\n")).expect_ok("web /staff");
    assert_eq!(client.exchange(get("/staff", "Authorization: Basic YW5uOndyb25n\r\n")).status(), 401);
    client.send(get("/reject", ""));
    client.expect_closed();
    assert_eq!(web.requests().len(), 1, "no other request has left this node");
}

/// `errorfile 408 /dev/null` and its kin, in old files.
#[test]
fn an_empty_error_file_closes_the_connection() {
    let web = named("web");
    let frontend = " errorfile 403 /dev/null\n errorfile 503 /dev/null\n http-request deny if { path /denied }\n \
                    http-request deny deny_status 429 if { path /busy }\n use_backend empty if { path /empty }\n \
                    http-response deny deny_status 403 if { res.hdr(content-length) -m found } { var(txn.late) -m found }\n \
                    http-request set-var(txn.late) path if { path /late }\n default_backend web";
    let proxy = serve(frontend, &format!("backend web\n{}backend empty\n", server("s", &web, "")));
    for path in ["/denied", "/empty", "/late"] {
        let mut client = proxy.client();
        client.get("www", "/").expect_ok("web /");
        client.send(get(path, ""));
        client.expect_closed();
    }
    assert_eq!(proxy.client().get("www", "/busy").status(), 429);
    let ended = proxy.stderr();
    assert!(!ended.contains("panicked"), "{ended}");
}

#[test]
fn a_cookie_keeps_a_client_at_its_server() {
    let (a, b) = (named("a"), named("b"));
    let rest = format!(
        "backend web\n balance roundrobin\n cookie SRV insert indirect nocache\n use-server b if {{ path /b }}\n{}{}",
        server("a", &a, "cookie sa"),
        server("b", &b, "cookie sb")
    );
    let proxy = serve(" default_backend web", &rest);
    let mut client = proxy.client();
    let response = client.get("www", "/");
    let cookie = response.head.get("set-cookie").expect("a cookie").to_owned();
    let own = response.text();
    let value = cookie.strip_prefix("SRV=").and_then(|rest| rest.strip_suffix("; path=/")).expect("HAProxy's form");
    for _ in 0..3 {
        let response = client.exchange(get("/", &format!("Cookie: x=1; SRV={value}; y=2\r\n")));
        assert_eq!((response.text(), response.head.get("set-cookie")), (own.clone(), None));
    }
    let seen =
        [&a, &b].into_iter().flat_map(Backend::requests).filter_map(|one| one.head.get("cookie").map(str::to_owned));
    assert!(seen.into_iter().all(|cookie| cookie == "x=1; y=2"), "it is between the client and this node");
    client.get("www", "/b").expect_ok("b /b");
}

/// HAProxy's example of `use-server` has servers of weight 0, which serve nothing else.
#[test]
fn rules_and_cookies_lead_to_servers_that_serve_nothing_else() {
    for words in ["weight 0", "backup"] {
        let (a, b) = (named("a"), named("b"));
        let rest = format!(
            "backend web\n cookie SRV insert indirect\n use-server b if {{ path /b }}\n{}{}",
            server("a", &a, "cookie sa"),
            server("b", &b, &format!("cookie sb {words}"))
        );
        let proxy = serve(" default_backend web", &rest);
        let mut client = proxy.client();
        for _ in 0..3 {
            client.get("www", "/b").expect_ok("b /b");
            client.get("www", "/").expect_ok("a /");
            client.exchange(get("/", "Cookie: SRV=sb\r\n")).expect_ok("b /");
        }
    }
}

/// HAProxy reads a time of zero as none at all, and a server may take its time.
#[test]
fn a_timeout_of_zero_ends_nothing() {
    let web = Backend::serve(|_, conn| {
        let clock = Clock::new();
        let began = clock.now();
        until("the server has taken its time", || clock.now().since(began) >= Duration::from_millis(50));
        conn.send(canned::ok("late"));
    });
    let zero = " timeout server 0\n timeout queue 0\n timeout tunnel 0\n";
    let rest = format!("backend web\n{zero}{}", server("s", &web, ""));
    let proxy = serve(" timeout client 0\n timeout http-request 0\n default_backend web", &rest);
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\n");
    client.send("Host: www\r\n\r\n");
    client.response_to("GET").expect_ok("late");
}

#[test]
fn a_failure_has_haproxys_status_and_its_errorfile() {
    let setup = setup(|address| {
        format!(
            "frontend www\n bind {address}\n use_backend web if {{ path /web }}\nbackend web\n retries 0\n server s {}\n",
            unused_address()
        )
    });
    let proxy = setup.start();
    let mut client = proxy.client();
    assert_eq!(client.get("www", "/web").status(), 503, "a server that cannot be reached");
    assert_eq!(client.get("www", "/").status(), 503, "no backend");
    assert_eq!(client.exchange(get("/", "X-Debug: 1\r\n")).head.get("x-debug-error"), Some("no_backend_rule"));
}

#[test]
fn a_switch_of_protocols_is_a_response_to_rules_too() {
    let web = Backend::serve(|_, conn| {
        conn.send(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nServer: x\r\n\r\nhello",
        );
    });
    let frontend = " http-request set-var(txn.path) path\n http-response deny deny_status 403 if { status 101 } { var(txn.path) /no }\n \
                    http-response del-header Server\n http-response set-header X-Path %[var(txn.path)]\n default_backend web";
    let proxy = serve(frontend, &format!("backend web\n{}", server("s", &web, "")));
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    let mut client = proxy.client();
    client.send(get("/yes", upgrade));
    let head = client.head();
    assert_eq!((head.status(), head.get("server"), head.get("x-path")), (101, None, Some("/yes")));
    assert_eq!((head.get("upgrade"), client.bytes(5)), (Some("websocket"), b"hello".to_vec()));
    let mut client = proxy.client();
    let response = client.exchange(get("/no", upgrade));
    assert_eq!((response.status(), response.head.get("upgrade")), (403, None));
}

#[test]
fn a_status_without_a_body_has_none() {
    let frontend = " http-request return status 204 content-type text/plain string gone if { path /204 }\n \
                    http-request return status 205 content-type text/plain string gone if { path /205 }\n \
                    http-request return status 304 content-type text/plain string gone if { path /304 }\n \
                    http-request return status 200 content-type text/plain string here";
    let proxy = serve(frontend, "");
    let mut client = proxy.client();
    for (path, length) in [("/204", None), ("/205", Some("0")), ("/304", None)] {
        client.send(get(path, ""));
        let head = client.head();
        assert_eq!((head.status().to_string(), head.get("content-length")), (path[1..].to_owned(), length));
        client.get("www", "/").expect_ok("here");
    }
}
