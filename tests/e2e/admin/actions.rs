//! What operators have the node do.

use super::Admin;
use crate::succession::replaceable;
use crate::support::backend::Backend;
use crate::support::proxy::{Setup, frontend};
use crate::support::{HOST, canned, until};
use nix::sys::signal::Signal;
use serde_json::json;
use std::fs;

impl Admin {
    /// Has something done: the status.
    pub(super) fn post(&self, path: &str) -> u16 {
        self.client().exchange(canned::post(&self.host(), path, "")).status()
    }
}

#[test]
fn the_access_log_is_opened_anew() {
    let backend = Backend::always(canned::ok("ok"));
    let admin = Admin::start(Setup::for_backends([backend.url()]).with_access_log());
    admin.proxy.client().get(HOST, "/one").expect_ok("ok");
    admin.proxy.log_lines("access.log", 1);
    fs::rename(admin.proxy.path("access.log"), admin.proxy.path("old.log")).expect("another name");
    assert_eq!(admin.post("/v1/actions/reopen-logs"), 202);
    until("there is a new file", || admin.proxy.path("access.log").exists());
    assert_eq!(admin.post("/v1/actions/reopen-logs"), 202, "it may be said twice");
    admin.proxy.client().get(HOST, "/two").expect_ok("ok");
    assert!(admin.proxy.log_lines("access.log", 1)[0].contains("/two"));
    until("who asked is in the log", || admin.proxy.stderr().contains("admin: POST /v1/actions/reopen-logs: 202"));
}

#[test]
fn an_upgrade_is_begun_and_the_service_is_the_successors() {
    let backend = Backend::always(canned::ok("ok"));
    let mut admin = Admin::start(replaceable(Setup::for_backends([backend.url()])));
    let pid = |admin: &Admin| admin.json("/v1/status")["pid"].as_u64();
    let before = pid(&admin);
    assert_eq!(admin.post("/v1/actions/upgrade"), 202);
    let mut after = before;
    until("another process serves", || {
        after = pid(&admin);
        after != before
    });
    admin.proxy.follow(after.and_then(|pid| pid.try_into().ok()).expect("a process"));
    admin.proxy.client().get(HOST, "/").expect_ok("ok");
}

#[test]
fn what_cannot_be_done_is_refused_with_its_reason() {
    let backend = Backend::always(canned::ok("ok"));
    let admin = Admin::start(Setup::for_backends([backend.url()]).route("gone.test", [backend.url()]).workers(1));
    let refused = |path: &str| {
        let response = admin.client().exchange(canned::post(&admin.host(), path, ""));
        (response.status(), response.text())
    };
    let (status, why) = refused("/v1/actions/reopen-logs");
    assert!(status == 409 && why.contains("no access log is written to a file"), "{status} {why}");
    // A tunnel, or here an upload, holds the worker before.
    let mut client = admin.proxy.client();
    client.send(format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 2\r\n\r\nx"));
    until("the request is under way", || admin.json("/v1/status")["workers"][0]["requests_in_flight"] == 1);
    assert_eq!(admin.post("/v1/workers/0/drain"), 202);
    let (status, why) = refused("/v1/workers/0/drain");
    assert!(status == 409 && why.contains("still finishes its exchanges"), "{status} {why}");
    client.send("x");
    client.response_to("POST").expect_ok("ok");
    // A cluster that no host leads to any more has no host to mark a backend for.
    admin.proxy.client().get("gone.test", "/").expect_ok("ok");
    let dead = format!("/v1/frontends/gone.test/dead?backend={}", backend.url());
    let (status, what) = refused(&dead);
    assert!(status == 202 && what.contains("\"hosts\":1"), "{status} {what}");
    admin.proxy.write_routes(&json!({HOST: frontend(HOST, [backend.url()])}));
    until("no host is left to mark it for", || refused(&dead).0 == 409);
    assert_eq!(refused("/v1/frontends/nobody.test/flush").0, 404);
}

#[test]
fn pages_are_read_again_at_a_reload() {
    let setup = Setup::new();
    let pages = setup.dir().join("pages");
    let setup = setup.file("pages/error_default.html", "the old page");
    let admin = Admin::start(setup.set("staticDir", pages.to_str().expect("plain text")));
    assert_eq!(admin.proxy.client().get(HOST, "/").text(), "the old page");
    admin.proxy.replace("pages/error_default.html", "the new page");
    assert_eq!(admin.post("/v1/actions/reload"), 202);
    until("the new page is shown", || admin.proxy.client().get(HOST, "/").text() == "the new page");
}

#[test]
fn a_worker_is_replaced_and_nobody_notices() {
    let backend = Backend::always(canned::ok("ok"));
    let admin = Admin::start(Setup::for_backends([backend.url()]).workers(1));
    let mut client = admin.proxy.client();
    client.get(HOST, "/").expect_ok("ok");
    assert_eq!(admin.post("/v1/workers/0/drain"), 202);
    until("the worker is replaced", || admin.json("/v1/status")["replaced_workers"] == 1);
    client.get(HOST, "/").expect_ok("ok");
    until("the old one has ended", || admin.json("/v1/status")["workers"].as_array().map(Vec::len) == Some(1));
    assert_eq!(admin.json("/v1/status")["totals"]["requests"], 2, "what it has counted stays");
    for path in ["/v1/workers/7/drain", "/v1/workers/x/drain", "/v1/workers/0/dance"] {
        assert_eq!(admin.post(path), 404, "{path}");
    }
}

#[test]
fn a_flushed_host_is_asked_for_again() {
    let backend = Backend::always(canned::ok("ok"));
    let admin = Admin::start(Setup::for_backends([backend.url()]).workers(1));
    let misses = || admin.json("/v1/status")["totals"]["route_misses"].as_u64().expect("a count");
    admin.proxy.client().get(HOST, "/").expect_ok("ok");
    admin.proxy.client().get(HOST, "/").expect_ok("ok");
    let before = misses();
    assert_eq!(admin.post(&format!("/v1/frontends/{HOST}/flush")), 202);
    until("the route is looked up again", || {
        admin.proxy.client().get(HOST, "/").expect_ok("ok");
        misses() > before
    });
    admin.proxy.write_routes(&json!({HOST: frontend(HOST, [])}));
    until("a change is seen all the same", || admin.proxy.client().get(HOST, "/").status() == 502);
}

#[test]
fn before_a_drain_the_process_says_that_it_is_not_ready_and_still_serves() {
    let backend = Backend::always(canned::ok("ok"));
    let mut admin = Admin::start(Setup::for_backends([backend.url()]).set("lameDuck", 5));
    let mut client = admin.proxy.client();
    client.get(HOST, "/").expect_ok("ok");
    admin.proxy.signal(Signal::SIGTERM);
    until("the process is not ready", || admin.get("/readyz").status() == 503);
    assert_eq!(admin.get("/readyz").text(), "draining\n");
    assert_eq!(admin.get("/healthz").status(), 200);
    let response = admin.proxy.client().get(HOST, "/");
    response.expect_ok("ok");
    assert_eq!(response.head.get("Connection"), Some("close"));
    assert!(admin.proxy.until_exit().success());
}
