//! Limits that follow latency, and bytes a second.

use super::{Bench, fixture};
use crate::admin::Admin;
use crate::support::backend::Backend;
use crate::support::client::Client;
use crate::support::proxy::Setup;
use crate::support::{HOST, canned, until};
use serde_json::{Value, json};
use sluice::base::clock::{Clock, Moment};
use std::time::Duration;

fn view(admin: &Admin) -> Value {
    admin.json(&format!("/v1/frontends/{HOST}"))
}

#[test]
fn the_adaptive_root_holds_within_its_bounds_and_under_the_capacity() {
    let mut bench = Bench::start_with(100, fixture(), |setup| {
        setup.option(HOST, "adaptive.enabled", true).option(HOST, "adaptive.max", 3).option(HOST, "queueLimit", 5)
    });
    (1..=3).for_each(|number| bench.get("root", &format!("{number}")));
    bench.until_sizes(&[("root", 3, 3), ("main", 1, 2)]);
    assert_eq!(view(&bench.admin)["adaptive_limit"], 3);
    bench.enqueue("root", "4");
    bench.put("root", "1");
    bench.until_requests(4);
    // A capacity that is known is a limit beside it.
    bench.write(2, &json!({"adaptive.enabled": true, "adaptive.max": 3}));
    bench.until_sizes(&[("root", 2, 2)]);
    bench.write(100, &json!({"buckets": fixture()}));
    bench.until_sizes(&[("root", 100, 100)]);
    assert_eq!(view(&bench.admin)["adaptive_limit"], Value::Null);
}

#[test]
fn a_frontend_without_capacities_has_an_adaptive_root_with_or_without_buckets() {
    let backend = Backend::always(canned::ok("ok"));
    let admin = Admin::start(Setup::for_backends([backend.url()]).option(HOST, "adaptive.enabled", true).workers(1));
    admin.proxy.client().get(HOST, "/").expect_ok("ok");
    assert_eq!((&view(&admin)["buckets"]["rate"], &view(&admin)["buckets"]["taken"]), (&json!(20), &json!(1)));
}

/// The time since a clock was made.
fn since(clock: Clock) -> Duration {
    clock.now().since(Moment::ZERO)
}

/// Sends a request for a large response.
fn ask(client: &mut Client, path: &str) {
    client.send(canned::get(HOST, path));
}

#[test]
fn responses_of_a_frontend_share_its_bytes_a_second_over_all_workers() {
    let body = "x".repeat(60_000);
    let backend = Backend::always(canned::ok(&body));
    let setup = Setup::for_backends([backend.url()]).option(HOST, "bytesPerSecond.out", 100_000).workers(2);
    let admin = Admin::start(setup);
    let mut clients: Vec<_> = (0..3).map(|_| admin.proxy.client()).collect();
    let clock = Clock::new();
    clients.iter_mut().for_each(|client| ask(client, "/"));
    for client in &mut clients {
        client.response_to("GET").expect_ok(&body);
    }
    // 180 kB, of which 16 KiB are the burst, and one read of 16 KiB for each request may come early.
    let least = Duration::from_millis(1800 - 164 - 3 * 164);
    assert!(since(clock) > least, "{:?}", since(clock));
    let out = &view(&admin)["bytes_per_second"]["out"];
    assert_eq!(out["limit"], 100_000, "{out}");
    assert!(out["bytes"].as_u64() > Some(180_000) && out["waits"].as_u64() > Some(3), "{out}");
}

#[test]
fn an_upload_is_paced_and_a_pause_is_no_stall_of_either_side() {
    let backend = Backend::serve(|request, conn| conn.send(canned::ok(&request.body.len().to_string())));
    let setup = Setup::for_backends([backend.url()]).set("bodyTimeout", 0.4).set("responseTimeout", 0.4);
    let setup = setup.set("minBodyRate", 100_000).option(HOST, "bytesPerSecond.in", 20_000).workers(1);
    let admin = Admin::start(setup);
    let mut client = admin.proxy.client();
    let clock = Clock::new();
    let body = "x".repeat(60_000);
    let mut writer = client.writer();
    let request = canned::post(HOST, "/", &body);
    let sending = std::thread::spawn(move || std::io::Write::write_all(&mut writer, request.as_bytes()));
    client.response_to("POST").expect_ok("60000");
    sending.join().expect("no panic").expect("a whole request");
    // Each of its pauses is longer than the time-outs.
    assert!(since(clock) > Duration::from_millis(1300), "{:?}", since(clock));
    // The rate is taken away: nothing waits any more, and the connection is as good as ever.
    let frontends = json!({ HOST: crate::support::proxy::frontend(HOST, [backend.url()]) });
    admin.proxy.write_routes_text(&json!({ "frontends": frontends }).to_string());
    until("the rate is gone", || view(&admin)["bytes_per_second"]["in"]["limit"] == 0);
    client.exchange(canned::post(HOST, "/", "abc")).expect_ok("3");
}

#[test]
fn requests_of_a_frontend_take_turns_at_its_rate_over_all_workers() {
    let backend = Backend::always(canned::ok("ok"));
    let setup = Setup::for_backends([backend.url()]).option(HOST, "requestsPerSecond", 20).workers(2);
    let admin = Admin::start(setup);
    let clock = Clock::new();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = admin.proxy.client();
                (0..8).for_each(|_| client.get(HOST, "/").expect_ok("ok"));
            });
        }
    });
    // 32 requests, of which two make the burst.
    assert!(since(clock) > Duration::from_millis(1450), "{:?}", since(clock));
    assert!(view(&admin)["queued"].as_u64() >= Some(20), "{}", view(&admin)["queued"]);
}

#[test]
fn a_request_beyond_the_rate_is_refused_where_none_may_wait() {
    let backend = Backend::always(canned::ok("ok"));
    let setup = Setup::for_backends([backend.url()]).workers(1);
    let setup = setup.option(HOST, "requestsPerSecond", 1).option(HOST, "queueLimit", 0);
    let admin = Admin::start(setup);
    let mut client = admin.proxy.client();
    client.get(HOST, "/").expect_ok("ok");
    let response = client.exchange(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX-Debug: 1\r\n\r\n"));
    assert_eq!((response.status(), response.head.get("X-Debug-Error")), (503, Some("queue_full")));
    assert_eq!(view(&admin)["dropped"], 1);
    // The edit counts for the next request.
    let frontends = json!({ HOST: crate::support::proxy::frontend(HOST, [backend.url()]) });
    admin.proxy.write_routes_text(&json!({ "frontends": frontends }).to_string());
    until("the rate is gone", || client.get(HOST, "/").status() == 200 && client.get(HOST, "/").status() == 200);
}
