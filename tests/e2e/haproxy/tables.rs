//! Stick tables: rates of clients, general counters, and keys that stick to servers.

use super::{named, serve, server};
use crate::support::backend::Backend;
use crate::support::until;

fn get(path: &str, lines: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: www.example.org\r\n{lines}\r\n")
}

#[test]
fn a_client_that_asks_too_often_is_refused_by_all_workers() {
    let web = named("web");
    let frontend = " stick-table type ip size 100k expire 30s store http_req_rate(100s),http_err_cnt\n \
                    http-request track-sc0 src\n http-request deny deny_status 429 if { sc_http_req_rate(0) gt 6 }\n \
                    http-request set-header X-Errors %[sc0_http_err_cnt]\n default_backend web";
    let proxy = serve(frontend, &format!("backend web\n{}", server("s", &web, "")));
    // Each connection may come to another worker.
    let statuses: Vec<_> = (0..8).map(|_| proxy.client().get("www", "/").status()).collect();
    assert_eq!(statuses, [200, 200, 200, 200, 200, 200, 429, 429]);
    let errors: Vec<_> =
        web.requests().iter().filter_map(|request| request.head.get("x-errors").map(str::to_owned)).collect();
    assert!(errors.iter().all(|errors| errors == "0"), "{errors:?}");
}

#[test]
fn connections_are_counted_once_and_for_as_long_as_they_last() {
    let web = named("web");
    let frontend = " stick-table type ip size 1k expire 1m store conn_cur,conn_cnt,http_req_cnt,gpc0\n \
                    tcp-request connection track-sc1 src\n tcp-request connection reject if { sc1_conn_cur gt 2 }\n \
                    http-request return status 200 content-type text/plain lf-string \
                    \"%[sc1_conn_cur] %[sc1_conn_cnt] %[sc1_http_req_cnt] %[sc1_get_gpc0] %[src_conn_cur]\" if { path /counts }\n \
                    http-request sc-inc-gpc0(1) if { path /more }\n default_backend web";
    let proxy = serve(frontend, &format!("backend web\n{}", server("s", &web, "")));
    let (mut one, mut two) = (proxy.client(), proxy.client());
    one.get("www", "/counts").expect_ok("1 1 1 0 1");
    one.get("www", "/more").expect_ok("web /more");
    one.get("www", "/counts").expect_ok("1 1 3 1 1");
    two.get("www", "/counts").expect_ok("2 2 4 1 2");
    let mut three = proxy.client();
    three.send(get("/", ""));
    three.expect_closed();
    drop((two, three));
    until("the others are gone", || one.get("www", "/counts").text().starts_with("1 3 "));
}

#[test]
fn a_key_sticks_to_the_server_that_served_it() {
    let (a, b) = (named("a"), named("b"));
    let rest = format!(
        "backend web\n balance roundrobin\n stick-table type string len 20 size 1k expire 1m\n stick on req.hdr(x-user)\n{}{}",
        server("a", &a, ""),
        server("b", &b, "")
    );
    let proxy = serve(" default_backend web", &rest);
    let mut client = proxy.client();
    for user in ["ann", "bob", "cat"] {
        let mut ask = || client.exchange(get("/", &format!("X-User: {user}\r\n"))).text();
        let first = ask();
        assert!((0..4).all(|_| ask() == first), "{user} stays");
    }
    let turns: Vec<_> = (0..4).map(|_| client.exchange(get("/", "")).text()).collect();
    assert!(turns.iter().any(|text| *text != turns[0]), "without a key there are turns: {turns:?}");
    drop((a, b));
}

#[test]
fn a_key_of_the_response_sticks() {
    let named = |name: &'static str| {
        Backend::serve(move |_, conn| {
            conn.send(format!("HTTP/1.1 200 OK\r\nSet-Cookie: SID={name}1; path=/\r\nContent-Length: 1\r\n\r\n{name}"));
        })
    };
    let (a, b) = (named("a"), named("b"));
    let rest = format!(
        "backend web\n balance roundrobin\n stick-table type string len 32 size 1k expire 1m\n \
         stick store-response res.cook(SID)\n stick match req.cook(SID)\n{}{}",
        server("a", &a, ""),
        server("b", &b, "")
    );
    let proxy = serve(" default_backend web", &rest);
    let mut client = proxy.client();
    let names: Vec<_> = (0..4).map(|_| client.get("www", "/").text()).collect();
    assert!(names.contains(&"a".to_owned()) && names.contains(&"b".to_owned()), "{names:?}");
    for name in ["a", "b", "b", "a"] {
        client.exchange(get("/", &format!("Cookie: SID={name}1\r\n"))).expect_ok(name);
    }
}
