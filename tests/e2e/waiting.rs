//! Requests that wait for a slot of a member while lists, marks and members change.

use crate::clusters::{Holding, sends};
use crate::support::proxy::{Setup, frontend};
use crate::support::{HOST, until, unused_address, worker_has_caught_up};
use serde_json::json;

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
