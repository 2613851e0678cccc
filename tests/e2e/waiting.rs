//! Requests that wait for a slot of a member while lists, marks and members change.

use crate::clusters::{Holding, Turnstile, sends, write};
use crate::support::backend::Backend;
use crate::support::proxy::{Proxy, Setup, frontend};
use crate::support::{HOST, canned, until, unused_address, worker_has_caught_up};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The request holds the list of before the edit, and the slot that it is granted is one of the newer list.
#[test]
fn a_member_that_is_added_and_refuses_is_not_tried_without_end() {
    let holding = Holding::new();
    let list = [holding.with("capacity=1")];
    let proxy = Setup::for_backends(list.clone()).workers(1).start();
    let mut first = sends(&proxy, "/held/1");
    holding.backend.until_heads(1);
    let mut second = sends(&proxy, "/2");
    worker_has_caught_up(&proxy);
    let refusing = format!("http://{}", unused_address());
    proxy.write_routes(&json!({
        HOST: frontend(HOST, list.into_iter().chain([refusing])),
        "other.test": frontend("other.test", [holding.backend.url()]),
    }));
    let mut other = proxy.client();
    until("the edit is known", || other.get("other.test", "/").status() == 200);
    worker_has_caught_up(&proxy);
    holding.turnstile.let_through(1);
    first.response_to("GET").expect_ok("/held/1");
    second.response_to("GET").expect_ok("/2");
}

/// What `change` makes of a request that waits for the only slot of a member, which stays taken.
fn told_after(change: impl Fn(&Proxy, &Holding)) -> (u16, Option<String>) {
    let holding = Holding::new();
    let list = [holding.with("capacity=1")];
    let setup =
        Setup::for_backends(list).option(HOST, "queueTimeout", "10m").set("trustedNetworks", json!(["127.0.0.0/8"]));
    let proxy = setup.option(HOST, "backend.header", "X-Node").workers(1).start();
    let mut first = sends(&proxy, "/held/1");
    holding.backend.until_heads(1);
    let mut second = proxy.client();
    let node = holding.backend.address();
    second.send(format!("GET /2 HTTP/1.1\r\nHost: {HOST}\r\nX-Debug: 1\r\nX-Node: {node}\r\n\r\n"));
    worker_has_caught_up(&proxy);
    change(&proxy, &holding);
    let response = second.response_to("GET");
    let found = (response.status(), response.head.get("x-debug-error").map(str::to_owned));
    holding.turnstile.let_through(1);
    first.response_to("GET").expect_ok("/held/1");
    found
}

#[test]
fn a_request_that_has_nothing_to_wait_for_any_more_is_told_so_at_once() {
    let other = || format!("http://{}", unused_address());
    let down = (503, Some("named_backend_down".to_owned()));
    let named = json!({"backend.header": "X-Node"});
    assert_eq!(told_after(|proxy, _| write(proxy, &[other()], &named)), down, "the backend has left the list");
    let disabled = told_after(|proxy, holding| write(proxy, &[holding.with("capacity=1&disabled"), other()], &named));
    assert_eq!(disabled, down, "the backend is disabled");
    let closed = told_after(|proxy, holding| write(proxy, &[holding.with("capacity=1")], &json!({"disabled": true})));
    assert_eq!(closed, (503, Some("cluster_disabled".to_owned())), "the frontend is closed");
}

#[test]
fn a_request_waits_for_any_of_the_last_members_that_are_marked() {
    let holding = [(); 2].map(|()| Holding::new());
    let proxy = Setup::for_backends(holding.each_ref().map(|one| one.with("capacity=1"))).workers(1).start();
    // Each gets a mark of this node.
    until("both are marked", || {
        assert_eq!(sends(&proxy, "/fail").response_to("GET").status(), 500);
        proxy.stderr().matches("is marked dead").count() == 2
    });
    let mut clients: Vec<_> = (0..3).map(|number| sends(&proxy, &format!("/held/{number}"))).collect();
    // The second one goes to the member that the first has not taken.
    until("both have one", || holding.iter().all(|one| one.held() == 1));
    let before = holding[1].backend.heads();
    holding[1].turnstile.let_through(2);
    holding[1].backend.until_heads(before + 1);
    holding[0].turnstile.let_through(1);
    for (number, client) in clients.iter_mut().enumerate() {
        client.response_to("GET").expect_ok(&format!("/held/{number}"));
    }
}

/// Its member fails the oldest request, which has never waited. The queue is full, and others have come since.
#[test]
fn a_retry_comes_before_the_requests_that_arrived_later() {
    for buckets in [Value::Null, json!({"VIP": "50..100 %"})] {
        let (turnstile, has_failed) = (Arc::<Turnstile>::default(), AtomicBool::new(false));
        let inner = Arc::clone(&turnstile);
        let failing = Backend::serve(move |request, conn| {
            inner.pass();
            match has_failed.swap(true, Ordering::SeqCst) {
                true => conn.send(canned::ok(request.head.target())),
                false => conn.finish(),
            }
        });
        let holding = Holding::new();
        let urls = [format!("{}#capacity=1", failing.url()), holding.with("capacity=1")];
        let mut setup = Setup::for_backends(urls).option(HOST, "scheduler", "chance").option(HOST, "queueLimit", 2);
        if !buckets.is_null() {
            setup = setup.option(HOST, "buckets", buckets.clone());
        }
        let proxy = setup.workers(1).start();
        let mut first = sends(&proxy, "/held/1");
        failing.until_heads(1);
        let mut second = sends(&proxy, "/held/2");
        holding.backend.until_heads(1);
        let mut later: Vec<_> = [3, 4]
            .map(|number| {
                let client = sends(&proxy, &format!("/held/{number}"));
                worker_has_caught_up(&proxy);
                client
            })
            .into();
        turnstile.let_through(1);
        match buckets.is_null() {
            // The slot goes to the next one.
            true => failing.until_heads(2),
            // The token does not, so that one waits on.
            false => until("the connection is closed", || failing.open_connections() == 0),
        }
        worker_has_caught_up(&proxy);
        holding.turnstile.let_through(1);
        second.response_to("GET").expect_ok("/held/2");
        holding.backend.until_heads(2);
        until("its request is whole", || holding.backend.requests().len() == 2);
        assert_eq!(holding.backend.requests()[1].head.target(), "/held/1", "{buckets}");
        turnstile.let_through(2);
        holding.turnstile.let_through(3);
        first.response_to("GET").expect_ok("/held/1");
        for (client, number) in later.iter_mut().zip([3, 4]) {
            client.response_to("GET").expect_ok(&format!("/held/{number}"));
        }
    }
}
