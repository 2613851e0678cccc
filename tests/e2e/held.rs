//! `hold`: the requests of a disabled frontend wait until it is enabled.

use crate::clusters::{sends, write};
use crate::support::backend::Backend;
use crate::support::proxy::Setup;
use crate::support::{HOST, canned, worker_has_caught_up};
use serde_json::json;

#[test]
fn a_frontend_that_is_enabled_lets_its_requests_go_in_order() {
    let backend = Backend::serve(|request, conn| conn.send(canned::ok(request.head.target())));
    let setup = Setup::for_backends([backend.url()]).option(HOST, "disabled", true).option(HOST, "hold", true);
    let proxy = setup.option(HOST, "queueLimit", 8).workers(1).set("maxSockets", 1).start();
    let mut clients: Vec<_> = (0..8)
        .map(|number| {
            let client = sends(&proxy, &format!("/{number}"));
            worker_has_caught_up(&proxy);
            client
        })
        .collect();
    let refused = sends(&proxy, "/8").response_to("GET");
    assert_eq!((refused.status(), refused.head.get("x-debug-error")), (503, Some("queue_full")));
    assert_eq!(backend.heads(), 0);
    write(&proxy, &[backend.url()], &json!({"hold": true, "queueLimit": 8}));
    for (number, client) in clients.iter_mut().enumerate() {
        client.response_to("GET").expect_ok(&format!("/{number}"));
    }
    let order: Vec<String> = backend.requests().iter().map(|request| request.head.target().to_owned()).collect();
    assert_eq!(order, (0..8).map(|number| format!("/{number}")).collect::<Vec<_>>());
}

#[test]
fn a_request_is_not_held_for_ever() {
    let backend = Backend::always(canned::ok("late"));
    let setup = Setup::for_backends([backend.url()]).option(HOST, "disabled", true).option(HOST, "hold", true);
    let setup = setup.option(HOST, "queueTimeout", "200ms").option(HOST, "retryAfter", 9);
    let proxy = setup.start();
    let late = sends(&proxy, "/").response_to("GET");
    let found = (late.status(), late.head.get("x-debug-error"), late.head.get("retry-after"));
    assert_eq!(found, (503, Some("cluster_disabled"), Some("9")));
}

#[test]
fn a_request_that_is_let_go_gets_its_token() {
    let backend = Backend::always(canned::ok("late"));
    let options = |is_disabled: bool| {
        let buckets = json!({"VIP": "50..100 %"});
        json!({"disabled": is_disabled, "hold": true, "queueTimeout": "1m", "maxRequests": 1, "buckets": buckets})
    };
    let mut setup = Setup::for_backends([backend.url()]).workers(1);
    for (name, value) in options(true).as_object().expect("an object") {
        setup = setup.option(HOST, name, value.clone());
    }
    let proxy = setup.start();
    let mut clients: Vec<_> = (0..3).map(|_| sends(&proxy, "/")).collect();
    worker_has_caught_up(&proxy);
    assert_eq!(backend.heads(), 0);
    write(&proxy, &[backend.url()], &options(false));
    for client in &mut clients {
        client.response_to("GET").expect_ok("late");
    }
}
