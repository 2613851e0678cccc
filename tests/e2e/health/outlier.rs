//! Ejection by the outcomes of requests.

use super::{Site, setup, until_said};
use crate::admin::Admin;
use crate::support::backend::Backend;
use crate::support::{HOST, canned, until};
use serde_json::json;
use std::sync::atomic::{AtomicUsize, Ordering};

fn failing() -> Site {
    Site::with(canned::sized("500 Internal Server Error", "ill"))
}

#[test]
fn failures_in_a_row_eject_a_backend_and_too_few_left_are_all_used() {
    let (ill, well) = (failing(), Site::new("well"));
    let options = json!({"health": {"maxFailures": 3}});
    let admin = Admin::start(setup([ill.url(), well.url()], &options).set("deadBackendOn500", false));
    let get = || admin.proxy.client().get(HOST, "/").status();
    until("it is ejected", || {
        get();
        admin
            .proxy
            .stderr()
            .contains("is ejected for 30 s: 3 requests in a row failed (health.maxFailures); it gets no")
    });
    (0..20).for_each(|_| assert_eq!(get(), 200));
    let view = admin.json(&format!("/v1/frontends/{HOST}"));
    let backend = view["backends"].as_array().and_then(|all| all.iter().find(|one| one["url"] == ill.url()));
    let backend = backend.unwrap_or_else(|| panic!("{view}")).clone();
    assert_eq!((&backend["state"], &backend["judge"]), (&json!("ejected"), &json!("requests")), "{backend}");
    assert_eq!(backend["reason"], "3 requests in a row failed (health.maxFailures)");
    assert!(backend["seconds_left"].as_f64().is_some_and(|left| left > 0.0 && left <= 30.0), "{backend}");
    until("it is counted", || admin.get("/metrics").text().contains("sluice_ejections_total 1"));
    assert_eq!((ill.probes().len(), well.probes().len()), (0, 0), "without a mode nothing is probed");
}

#[test]
fn the_last_backend_is_used_ejected_or_not() {
    let ill = failing();
    let options = json!({"health": {"maxFailures": 2}});
    let proxy = setup([ill.url()], &options).set("deadBackendOn500", false).start();
    (0..10).for_each(|_| assert_eq!(proxy.client().get(HOST, "/").status(), 500));
    until_said(&proxy, "it gets requests all the same: too few others serve (health.panicPercent)", 1);
}

#[test]
fn a_share_of_errors_ejects_a_backend() {
    let turn = AtomicUsize::new(0);
    let ill = Backend::serve(move |_, conn| {
        let is_good = turn.fetch_add(1, Ordering::SeqCst).is_multiple_of(2);
        conn.send(if is_good { canned::ok("ill") } else { canned::sized("500 Internal Server Error", "ill") });
    });
    let well = Site::new("well");
    let options = json!({"health": {"maxErrorPercent": 40, "maxFailures": 3}});
    let proxy = setup([ill.url(), well.url()], &options).set("deadBackendOn500", false).start();
    until("it is ejected", || {
        proxy.client().get(HOST, "/");
        proxy.stderr().contains("% of the responses within 10 s were 5xx (health.maxErrorPercent)")
    });
    (0..20).for_each(|_| proxy.client().get(HOST, "/").expect_ok("well"));
}

#[test]
fn without_rules_nothing_is_ejected() {
    let (ill, well) = (failing(), Site::new("well"));
    let proxy = setup([ill.url(), well.url()], &json!({})).set("deadBackendOn500", false).start();
    (0..100).for_each(|_| _ = proxy.client().get(HOST, "/"));
    assert!(ill.backend.heads() > 20 && !proxy.stderr().contains("ejected"), "{}", ill.backend.heads());
}

#[test]
fn rules_that_are_taken_back_end_the_ejections() {
    let (ill, well) = (failing(), Site::new("well"));
    let options = json!({"health": {"maxFailures": 2}});
    let proxy = setup([ill.url(), well.url()], &options).set("deadBackendOn500", false).start();
    until("it is ejected", || {
        proxy.client().get(HOST, "/");
        proxy.stderr().contains("is ejected for")
    });
    proxy.write_routes_text(&json!({"frontends": {HOST: ["x", ill.url(), well.url()]}}).to_string());
    until("it serves again", || proxy.client().get(HOST, "/").status() == 500);
}
