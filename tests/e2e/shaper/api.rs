//! Buckets of a cluster on demand, changed by x0d's API while requests hold tokens.

use super::Doors;
use crate::admin::Admin;
use crate::support::backend::Backend;
use crate::support::client::Client;
use crate::support::proxy::Setup;
use crate::support::{canned, until};
use serde_json::Value;
use std::sync::Arc;

/// Sends a request of the API that has to get this status.
#[track_caller]
fn expect(admin: &Admin, method: &str, path: &str, body: &str, status: u16) {
    let (host, length) = (admin.host(), body.len());
    let head = format!("{method} /x0/director{path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n");
    let response = admin.client().exchange(head + body);
    assert_eq!(response.status(), status, "{method} {path} {body}: {}", response.text());
}

/// The view of the bucket `vip`; null where there is none.
fn vip(admin: &Admin) -> Value {
    let view = admin.json("/v1/frontends/app");
    let buckets = view["buckets"]["buckets"].as_array().cloned().unwrap_or_default();
    buckets.into_iter().find(|bucket| bucket["name"] == "vip").unwrap_or_default()
}

#[track_caller]
fn until_vip(admin: &Admin, pairs: &[(&str, u64)]) {
    until(&format!("{pairs:?}"), || {
        let bucket = vip(admin);
        pairs.iter().all(|(name, number)| bucket[*name].as_u64() == Some(*number))
    });
}

#[test]
fn buckets_are_added_changed_and_drained_by_the_api() {
    let doors = Arc::new(Doors::default());
    let inner = Arc::clone(&doors);
    let backend = Backend::serve(move |request, conn| {
        inner.pass(request.head.target());
        conn.send(canned::ok(request.head.target()));
    });
    let admin = Admin::start(Setup::new().workers(2));
    expect(&admin, "PUT", "/app?host=app.test", "queue-limit=10", 201);
    let address = backend.address();
    let one =
        format!("role=active&enabled=true&capacity=4&protocol=http&hostname={}&port={}", address.ip(), address.port());
    expect(&admin, "PUT", "/app/backends/one", &one, 201);
    expect(&admin, "PUT", "/app/buckets", "name=vip&rate=0.25&ceil=0.5", 204);
    expect(&admin, "PUT", "/app/buckets/other", "rate=0.25&ceil=0.5", 204);
    let rules: String =
        br#"[{"header":["X-Class","vip"],"bucket":"vip"}]"#.iter().map(|byte| format!("%{byte:02x}")).collect();
    expect(&admin, "POST", "/app", &format!("classify={rules}"), 202);
    let send = |name: &str| {
        let mut client = admin.proxy.client();
        client.send(format!("GET /{name} HTTP/1.1\r\nHost: app.test\r\nX-Class: vip\r\n\r\n"));
        client
    };
    let mut clients: Vec<Client> = ["1", "2"].map(send).into();
    backend.until_heads(2);
    until_vip(&admin, &[("rate", 1), ("ceil", 2), ("actual", 2), ("over", 1)]);
    clients.push(send("3"));
    until_vip(&admin, &[("waiting", 1)]);
    // A higher ceil has the one that waits served at once.
    expect(&admin, "POST", "/app/buckets/vip", "ceil=0.75", 204);
    backend.until_heads(3);
    clients.push(send("4"));
    until_vip(&admin, &[("ceil", 3), ("actual", 3), ("waiting", 1)]);
    expect(&admin, "DELETE", "/app/buckets/vip", "", 400);
    expect(&admin, "POST", "/app", "classify=%5B%5D", 202);
    expect(&admin, "DELETE", "/app/buckets/vip", "", 204);
    // It is gone for new requests and ends with its own, also with the one that waits.
    until_vip(&admin, &[("rate", 0), ("actual", 3), ("waiting", 1)]);
    assert_eq!(vip(&admin)["draining"], true);
    for (name, client) in ["1", "2", "3", "4"].iter().zip(&mut clients) {
        doors.open(&format!("/{name}"));
        client.response_to("GET").expect_ok(&format!("/{name}"));
    }
    until("the bucket is gone", || vip(&admin).is_null());
}
