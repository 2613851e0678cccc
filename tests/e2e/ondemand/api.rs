//! x0d's requests, their codes and their fields.

use super::{API, Admin, arguments};
use crate::support::backend::Backend;
use crate::support::proxy::{Setup, frontend};
use crate::support::{Gate, HOST, canned, until};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;

#[test]
fn a_cluster_is_made_serves_and_goes() {
    let backend = Backend::always(canned::ok("of the cluster"));
    let admin = Admin::start(Setup::new());
    assert_eq!(admin.proxy.client().get("web.test", "/").status(), 400, "no such host");
    let made = admin.expect("PUT", "/web?hostname=Web.Test", "", 201);
    assert_eq!(made.head.get("Location"), Some("http://web.test/"));
    assert!(made.body.is_empty());
    admin.expect("PUT", "/web/backends/one", &arguments(&backend), 201);
    until("it serves", || admin.proxy.client().get("web.test", "/").status() == 200);
    admin.proxy.client().get("web.test", "/").expect_ok("of the cluster");
    let view = admin.json("/v1/frontends/web");
    assert_eq!((&view["source"], &view["up"]), (&json!("on demand"), &json!(1)), "{view}");
    admin.expect("DELETE", "/web", "", 204);
    until("it is gone", || admin.proxy.client().get("web.test", "/").status() == 400);
    admin.expect("GET", "/web", "", 404);
    admin.expect("DELETE", "/web", "", 404);
}

/// The requests of x0d's own tools and documents, in order: method, path, body and status. `{one}` stands for the arguments of
/// a backend, `{two}` for those of another one.
const REQUESTS: &[(&str, &str, &str, u16)] = &[
    ("GET", "/", "", 200),
    ("GET", "/app", "", 404),
    ("POST", "/app", "queue-limit=1", 404),
    ("PUT", "/app", "", 400),
    ("PUT", "/app?host=app.test", "queue-limit=64&scheduler=least-load", 201),
    ("PUT", "/app?host=app.test", "queue-limit=65", 201),
    ("PUT", "/other?hostname=app.test", "", 409),
    (
        "POST",
        "/app",
        "queue-timeout=5&retry-after=3&max-retry-count=2&connect-timeout=2&read-timeout=9&write-timeout=4",
        202,
    ),
    ("POST", "/app", "cache-enabled=true&cache-default-ttl=7&cache-deliver-shadow=0&on-client-abort=notify", 202),
    ("POST", "/app", "queue-limit=12abc", 400),
    ("POST", "/app", "scheduler=fastest", 400),
    ("POST", "/app", "que-limit=1", 400),
    ("POST", "/app", "enabled=yes", 400),
    ("POST", "/app", "queue-limit=1&queue-limit=2", 400),
    ("POST", "/app", "{\"queue-limit\": 66, \"enqueue-on-unavailable\": true}", 202),
    ("PUT", "/app/backends", "name=one&{one}", 201),
    ("PUT", "/app/backends", "name=one&{one}", 400),
    ("PUT", "/app/backends/again", "{one}", 400),
    ("PUT", "/app/backends", "{two}", 201),
    ("PUT", "/app/backends/three", "capacity=1", 400),
    ("PUT", "/app/backends/three", "hostname=127.0.0.1&port=0", 400),
    ("PUT", "/app/backends/three", "hostname=127.0.0.1&port=9&protocol=fastcgi", 400),
    ("PUT", "/app/backends/three", "path=/run/x.sock", 400),
    ("PUT", "/none/backends/three", "{one}", 404),
    ("GET", "/app/backends/one", "", 200),
    ("GET", "/app/backends/none", "", 404),
    ("POST", "/app/backends/one", "capacity=9&role=standby", 202),
    ("POST", "/app/backends/one", "port=1", 400),
    ("POST", "/app/backends/none", "capacity=9", 404),
    ("POST", "/app/backends/one", "capacity=-1", 400),
    ("LOCK", "/app/backends/one", "", 202),
    ("UNLOCK", "/app/backends/one", "", 202),
    ("LOCK", "/app/backends/none", "", 404),
    ("DELETE", "/app/backends/two", "", 403),
    ("POST", "/app/backends/two", "terminate-protection=false", 202),
    ("DELETE", "/app/backends/two", "", 202),
    ("DELETE", "/app/backends/two", "", 404),
    ("PUT", "/app/buckets", "name=vip&rate=0.1&ceil=0.3", 204),
    ("PUT", "/app/buckets/main", "rate=.5&ceil=.7", 204),
    ("PUT", "/app/buckets/upload", "rate=.5&ceil=.5&parent=main", 204),
    ("PUT", "/app/buckets/over", "rate=.41&ceil=1", 400),
    ("PUT", "/app/buckets/less", "rate=.1&ceil=.05", 400),
    ("PUT", "/app/buckets/bad", "rate=x&ceil=.05", 400),
    ("PUT", "/app/buckets/bad", "rate=.1", 400),
    ("PUT", "/app/buckets/root", "rate=.1&ceil=.1", 400),
    ("GET", "/app/buckets/upload", "", 200),
    ("POST", "/app/buckets/main", "rate=.6", 204),
    ("DELETE", "/app/buckets/vip", "", 204),
    ("DELETE", "/app/buckets/vip", "", 404),
    ("GET", "/app/buckets/vip", "", 404),
    ("LOCK", "/app", "", 204),
    ("UNLOCK", "/app", "", 204),
    ("PATCH", "/app", "", 405),
    ("POST", "/", "", 405),
    ("GET", "/app/nothing/at/all", "", 404),
    ("DELETE", "/app?wait=1", "", 400),
];

/// The arguments of a backend that is not there and cannot be removed.
const TWO: &str = "name=two&role=backup&enabled=true&capacity=1&protocol=http&health-check-mode=paranoid&\
    health-check-interval=2&hostname=127.0.0.1&port=1&terminate-protection=true";

#[test]
fn requests_of_x0d_have_its_codes_and_fields() {
    let backend = Backend::always(canned::ok("ok"));
    let admin = Admin::start(Setup::new());
    let one = arguments(&backend);
    for (method, path, body, status) in REQUESTS {
        let body = body.replace("{one}", &one).replace("{two}", TWO);
        let response = admin.expect(method, path, &body, *status);
        if (201..300).contains(status) {
            assert!(response.body.is_empty(), "{method} {path}");
        }
    }
    let cluster = admin.show("/app");
    check_fields(&cluster, backend.address());
    assert_eq!(admin.show("/app/backends/one"), cluster["members"][0]);
    assert_eq!(admin.show("/")["app"]["members"], cluster["members"]);
    until("it serves", || admin.proxy.client().get("app.test", "/").status() == 200);
    let load = admin.show("/app/backends/one")["stats"]["load"].clone();
    assert_eq!(load["max"], 1, "{load}");
    let options = admin.json("/v1/frontends/app")["options"].clone();
    for (name, expected) in
        [("queueLimit", "66"), ("bodyTimeout", "9000ms"), ("retries", "2"), ("cache.enabled", "true")]
    {
        assert_eq!(options[name], expected, "{options}");
    }
}

/// The fields of the cluster and of its member that [`REQUESTS`] leave.
fn check_fields(cluster: &Value, address: SocketAddr) {
    let settings = [
        ("mutable", json!(true)),
        ("enabled", json!(true)),
        ("queue-limit", json!(66)),
        ("queue-timeout", json!(5)),
        ("on-client-abort", json!("notify")),
        ("retry-after", json!(3)),
        ("max-retry-count", json!(2)),
        ("sticky-offline-mode", json!(false)),
        ("allow-x-sendfile", json!(false)),
        ("enqueue-on-unavailable", json!(true)),
        ("connect-timeout", json!(2)),
        ("read-timeout", json!(9)),
        ("write-timeout", json!(4)),
        ("health-check-host-header", json!("backend-healthcheck")),
        ("health-check-request-path", json!("/")),
        ("health-check-fcgi-script-name", json!("")),
        ("scheduler", json!("least-load")),
        ("hostname", json!("app.test")),
        ("port", json!(null)),
        ("terminate-protection", json!(false)),
    ];
    for (name, expected) in settings {
        assert_eq!(cluster[name], expected, "{name}");
    }
    let cache = json!({"enabled": true, "deliver-active": true, "deliver-shadow": false, "default-ttl": 7, "default-shadow-ttl": 0});
    assert_eq!(cluster["cache"], cache);
    assert_eq!(cluster["shaper"]["children"][0]["children"][0]["name"], "upload");
    let main = &cluster["shaper"]["children"][0];
    assert_eq!((&main["rate"], &main["stats"]["load"]["current"]), (&json!(0.6), &json!(0)), "{main}");
    let member = &cluster["members"][0];
    for (name, expected) in [
        ("name", json!("one")),
        ("capacity", json!(9)),
        ("terminate-protection", json!(false)),
        ("enabled", json!(true)),
        ("protocol", json!("http")),
        ("hostname", json!(address.ip().to_string())),
        ("port", json!(address.port())),
        ("health", json!({"mode": "lazy", "state": "online", "interval": 10})),
        ("role", json!("standby")),
    ] {
        assert_eq!(member[name], expected, "{name}");
    }
}

#[test]
fn a_removed_backend_finishes_its_requests_first() {
    let gate = Arc::new(Gate::default());
    let inner = Arc::clone(&gate);
    let backend = Backend::serve(move |_, conn| {
        inner.pass();
        conn.send(canned::ok("late"));
    });
    let admin = Admin::start(Setup::new());
    admin.expect("PUT", "/app?hostname=app.test", "", 201);
    admin.expect("PUT", "/app/backends/one", &arguments(&backend), 201);
    let mut client = admin.proxy.client();
    client.send(canned::get("app.test", "/"));
    backend.until_heads(1);
    admin.expect("DELETE", "/app/backends/one", "", 202);
    let member = admin.show("/app/backends/one");
    assert_eq!((&member["role"], &member["stats"]["load"]["current"]), (&json!("terminate"), &json!(1)));
    admin.expect("DELETE", "/app/backends/one", "", 400);
    gate.open();
    client.response_to("GET").expect_ok("late");
    until("it is gone", || admin.call("GET", "/app/backends/one", "").status() == 404);
    assert_eq!(admin.show("/app")["members"], json!([]));
}

#[test]
fn protected_and_disabled_clusters() {
    let backend = Backend::always(canned::ok("ok"));
    let admin = Admin::start(Setup::new());
    admin.expect("PUT", "/app?hostname=app.test&terminate-protection=true", "", 201);
    admin.expect("PUT", "/app/backends/one", &arguments(&backend), 201);
    until("it serves", || admin.proxy.client().get("app.test", "/").status() == 200);
    admin.expect("DELETE", "/app", "", 403);
    admin.expect("LOCK", "/app", "", 204);
    until("it serves no more", || admin.proxy.client().get("app.test", "/").status() == 503);
    assert_eq!(admin.proxy.client().get("app.test", "/").head.get("Retry-After"), Some("10"));
    admin.expect("UNLOCK", "/app", "", 204);
    until("it serves again", || admin.proxy.client().get("app.test", "/").status() == 200);
    admin.expect("POST", "/app", "terminate-protection=0", 202);
    admin.expect("DELETE", "/app", "", 204);
}

#[test]
fn clusters_of_other_sources_are_shown_and_their_backends_locked() {
    let [fixed, own] = ["of the file", "on demand"].map(|text| Backend::always(canned::ok(text)));
    let admin = Admin::start(Setup::for_backends([fixed.url()]));
    admin.proxy.client().get(HOST, "/").expect_ok("of the file");
    let name = fixed.address();
    let cluster = admin.show(&format!("/{HOST}"));
    assert_eq!((&cluster["mutable"], &cluster["members"][0]["name"]), (&json!(false), &json!(name.to_string())));
    for (method, path, body) in [
        ("POST", String::new(), "queue-limit=1"),
        ("DELETE", String::new(), ""),
        ("LOCK", String::new(), ""),
        ("PUT", "/backends/x".to_owned(), "hostname=127.0.0.1&port=1"),
        ("POST", format!("/backends/{name}"), "capacity=1"),
        ("DELETE", format!("/backends/{name}"), ""),
        ("PUT", "/buckets/x".to_owned(), "rate=.1&ceil=.1"),
    ] {
        admin.expect(method, &format!("/{HOST}{path}"), body, 403);
    }
    let backend = format!("/{HOST}/backends/{name}");
    admin.expect("LOCK", &backend, "", 202);
    assert_eq!(admin.show(&backend)["enabled"], false);
    assert_eq!(admin.proxy.client().get(HOST, "/").status(), 502);
    admin.expect("UNLOCK", &backend, "", 202);
    admin.proxy.client().get(HOST, "/").expect_ok("of the file");
    admin.expect("LOCK", &format!("/{HOST}/backends/none"), "", 404);

    // A cluster on demand comes before the other sources, and leaves their host to them when it goes.
    admin.expect("PUT", &format!("/mine?hostname={HOST}"), "", 201);
    admin.expect("PUT", "/mine/backends/one", &arguments(&own), 201);
    until("it comes first", || admin.proxy.client().get(HOST, "/").text() == "on demand");
    admin.proxy.write_routes(&json!({HOST: frontend(HOST, [fixed.url(), fixed.url()])}));
    assert_eq!(admin.proxy.client().get(HOST, "/").text(), "on demand");
    admin.expect("DELETE", "/mine", "", 204);
    until("the file's is back", || admin.proxy.client().get(HOST, "/").text() == "of the file");
}

#[test]
fn the_api_has_its_path_and_the_rules_of_the_admin_service() {
    let admin = Admin::start_with(Setup::new(), json!({"token": "s3cret", "directorPrefix": "/my/api"}));
    let call = |method: &str, path: &str, line: &str| {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n{line}Content-Length: 0\r\n\r\n", admin.host());
        admin.client().exchange(request).status()
    };
    let token = "Authorization: Bearer s3cret\r\n";
    assert_eq!(call("PUT", "/my/api/x?hostname=x.test", ""), 401);
    assert_eq!(call("PUT", "/my/api/x?hostname=x.test", token), 201);
    assert_eq!(call("PUT", "/director/y?hostname=y.test", token), 201);
    assert_eq!(call("PUT", &format!("{API}/z?hostname=z.test"), token), 404, "not the path of the settings");
    let foreign = format!("{token}Origin: http://evil.test\r\n");
    for method in ["PUT", "POST", "DELETE", "LOCK", "UNLOCK", "GET"] {
        assert_eq!(call(method, "/director/x", &foreign), 403, "{method}");
    }
    assert_eq!(call("DELETE", "/director/x/", token), 204);
    let off = Admin::start_with(Setup::new(), json!({"directorPrefix": false}));
    off.expect("PUT", "/x?hostname=x.test", "", 404);
    assert_eq!(off.get("/director/").status(), 404);
}

#[test]
fn clients_that_edit_at_once_lose_nothing() {
    const CLIENTS: u16 = 8;
    const EDITS: u16 = 25;
    let admin = Admin::start(Setup::new());
    admin.expect("PUT", "/shared?hostname=shared.test", "", 201);
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let admin = &admin;
            scope.spawn(move || {
                let mut connection = admin.client();
                for edit in 0..EDITS {
                    let port = 1 + client * EDITS + edit;
                    let put = admin.request(
                        "PUT",
                        &format!("/shared/backends/b{port}"),
                        &format!("host=127.0.0.1&port={port}"),
                    );
                    assert_eq!(connection.exchange(put).status(), 201);
                    let own = format!("/c{client}-{edit}?hostname=c{client}-{edit}.test");
                    assert_eq!(connection.exchange(admin.request("PUT", &own, "")).status(), 201);
                    if edit % 2 == 1 {
                        let before = admin.request("DELETE", &format!("/shared/backends/b{}", port - 1), "");
                        assert_eq!(connection.exchange(before).status(), 202);
                    }
                }
            });
        }
    });
    let all = admin.show("/");
    let members = all["shared"]["members"].as_array().map(Vec::len);
    assert_eq!(members, Some(usize::from(CLIENTS) * usize::from(EDITS / 2 + 1)));
    assert_eq!(all.as_object().map(serde_json::Map::len), Some(usize::from(CLIENTS * EDITS) + 1));
}

#[test]
fn odd_input_changes_nothing_and_ends_nothing() {
    let admin = Admin::start(super::with_state());
    let long = "x".repeat(200);
    let names = [
        "..",
        ".",
        "%2e%2e",
        "..%2f..%2fetc%2fpasswd",
        "a%2fb",
        "a%00b",
        "%00",
        "a%0ab",
        "a%0d%0aX-Y:1",
        "-",
        "_x",
        ".hidden",
        "a b",
        "a%20b",
        "%ff",
        "%",
        "%zz",
        "a%5cb",
        "a:b",
        "a=b",
        "%c3%bc",
        &long,
    ];
    for name in names {
        let status = admin.call("PUT", &format!("/{name}?hostname=odd.test"), "").status();
        assert_eq!(status, 400, "{name}");
    }
    for value in ["", "a b", "a/b", "a:80", "[::1", "%00", "a%0ab", "a..%2f", &"a.".repeat(200), "*", "*.x.test", "ü"]
    {
        let status = admin.call("PUT", &format!("/odd?hostname={value}"), "").status();
        assert_eq!(status, 400, "{value:?}");
    }
    for value in ["-1", "65536", "99999999999999999999", "80x", "0x50", "1e3", "+80", " 80", "8.0"] {
        assert_eq!(admin.call("PUT", &format!("/odd?port={}", value.replace('+', "%2B")), "").status(), 400, "{value}");
    }
    admin.expect("PUT", "/odd?hostname=odd.test", "", 201);
    let bodies = [
        "name=../x&hostname=127.0.0.1&port=1",
        "name=a%5Db&hostname=127.0.0.1&port=1",
        "name=a%0A[director]&hostname=127.0.0.1&port=1",
        "name=%00&hostname=127.0.0.1&port=1",
        "name=a&hostname=127.0.0.1%23x&port=1",
        "name=a&hostname=127.0.0.1/x&port=1",
        "name=a&hostname=u:p@127.0.0.1&port=1",
        "name=a&hostname=127.0.0.1&port=1&weight=1%26role=backup",
        "name=a&hostname=127.0.0.1&port=1&health-check-interval=0",
        "name=a&hostname=127.0.0.1&port=1&health-check-interval=inf",
        "{\"name\": \"a\", \"hostname\": [\"127.0.0.1\"], \"port\": 1}",
        "{\"name\": \"a\"",
        "{}{}",
    ];
    for body in bodies {
        assert_eq!(admin.call("PUT", "/odd/backends", body).status(), 400, "{body}");
    }
    for body in [
        "health-check-host-header=a%0Ab",
        "health-check-request-path=x",
        "sticky.cookie=a;b",
        "scheduler=",
        "buckets=%7B%7D",
    ] {
        assert_eq!(admin.call("POST", "/odd", body).status(), 400, "{body}");
    }
    admin.expect("POST", "/odd", &"x".repeat(65_537), 413);
    assert_eq!(admin.show("/odd")["members"], json!([]));
    assert_eq!(admin.show("/").as_object().map(serde_json::Map::len), Some(1));
    until("one file is there", || super::files::names(&admin) == ["odd.db"]);
}
