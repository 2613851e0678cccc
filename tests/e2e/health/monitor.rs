//! Which backends are probed, and what follows.

use super::{CLOCK, Site, monitor, served_by, setup, until_said, write};
use crate::admin::Admin;
use crate::support::backend::Backend;
use crate::support::client::Client;
use crate::support::proxy::{Proxy, Setup};
use crate::support::{HOST, canned, until, unused_address};
use serde_json::{Value, json};

#[test]
fn a_backend_goes_down_after_fall_and_comes_up_after_rise() {
    for method in ["OPTIONS", "HEAD", "GET"] {
        let (one, other) = (Site::new("one"), Site::new("other"));
        let health = json!({"method": method, "path": "/health?x=1", "host": "a.test", "rise": 3, "fall": 2});
        let proxy = setup([one.url(), other.url()], &monitor("paranoid", health)).start();
        served_by(&proxy);
        one.until_probes(4);
        let probe = one.probes().remove(0).head;
        assert!(probe.start.starts_with(&format!("{method} /health?x=1 HTTP/1.1")), "{}", probe.start);
        assert_eq!((probe.get("Host"), probe.get("Connection")), (Some("a.test"), Some("close")));
        one.fail();
        until_said(&proxy, "is down: 2 health probes in a row failed: it responded with 503", 1);
        (0..20).for_each(|_| assert_eq!(served_by(&proxy), "other"));
        one.recover();
        until_said(&proxy, "is up again: 3 health probes in a row were good", 1);
        until("it serves again", || served_by(&proxy) == "one");
        assert!(!proxy.stderr().contains(&format!("{} is down", other.url())), "{}", proxy.stderr());
    }
}

#[test]
fn status_and_body_are_as_expected_or_the_probe_fails() {
    let table = [
        (json!({"expect": "200-299,404"}), canned::sized("404 Not Found", ""), true),
        (json!({"expect": "200-299"}), canned::sized("302 Found", ""), false),
        (json!({"method": "GET", "body": "is well"}), canned::ok("all is well"), true),
        (json!({"method": "GET", "body": "is well"}), canned::ok("all is lost"), false),
        (json!({"method": "GET", "body": "is well"}), canned::chunked(&["all is", " well"]), true),
        (json!({"method": "GET", "body": "is well"}), canned::chunked(&["all is", " lost"]), false),
        (json!({}), b"nonsense\r\n\r\n".to_vec(), false),
        (json!({}), Vec::new(), false),
    ];
    for (health, response, is_good) in table {
        let site = Site::new("ok");
        // It is found to be the other way before it is found to be so.
        if is_good {
            site.respond(b"nonsense".to_vec());
        }
        let proxy = setup([site.url()], &monitor("paranoid", health.clone())).start();
        proxy.client().get(HOST, "/");
        if is_good {
            until_said(&proxy, "is down", 1);
        }
        site.respond(response.clone());
        until_said(&proxy, if is_good { "is up again" } else { "is down: a health probe failed" }, 1);
        let expected = if is_good { 200 } else { 502 };
        assert_eq!(proxy.client().get(HOST, "/").status(), expected, "{health}: {}", response.escape_ascii());
    }
}

#[test]
fn a_request_that_waits_gets_a_backend_that_comes_up() {
    let site = Site::new("late");
    site.fail();
    let mut options = monitor("paranoid", json!({}));
    options["enqueueOnUnavailable"] = json!(true);
    let proxy = setup([site.url()], &options).start();
    served_by(&proxy);
    until_said(&proxy, "is down", 1);
    let mut client = proxy.client();
    client.send(canned::get(HOST, "/"));
    site.tick(2);
    site.recover();
    client.response_to("GET").expect_ok("late");
}

#[test]
fn lazy_probes_what_failed_and_ends_its_mark() {
    let (clock, one) = (Site::new("clock"), Site::new("one"));
    let mut dies = Site::new("dies");
    let proxy = Setup::new().set("deadBackendTTL", 3600).start();
    write(&proxy, [one.url(), dies.url()], &monitor("lazy", json!({})), &clock);
    until("both serve", || {
        proxy.client().get(HOST, "/").text() == "dies" && proxy.client().get(CLOCK, "/").status() == 200
    });
    clock.tick(20);
    assert_eq!((one.probes().len(), dies.probes().len()), (0, 0), "nothing has failed");
    dies.backend.kill();
    until("a request has met it", || {
        assert_eq!(served_by(&proxy), "one");
        proxy.stderr().contains("is marked dead for 3600 s")
    });
    until_said(&proxy, "is down: a health probe failed: it did not accept the connection", 1);
    assert_eq!(one.probes().len(), 0, "it is well");
    dies.backend.start();
    until_said(&proxy, "is up again", 1);
    until("its mark has ended", || served_by(&proxy) == "dies");
    let before = dies.probes().len();
    clock.tick(20);
    assert_eq!((one.probes().len(), dies.probes().len()), (0, before), "it is judged");
}

#[test]
fn a_mark_for_a_response_ends_by_good_probes() {
    let (one, ill) = (Site::new("one"), Site::with(canned::sized("501 Not Implemented", "ill")));
    let setup = setup([one.url(), ill.url()], &monitor("lazy", json!({}))).set("deadBackendTTL", 3600);
    let proxy = setup.start();
    for count in 1..=2 {
        until("it serves", || proxy.client().get(HOST, "/").status() == 501);
        until_said(&proxy, "is alive: 2 health probes in a row were good, so its dead marks end", count);
    }
    assert!(!proxy.stderr().contains("is down"), "{}", proxy.stderr());
}

#[test]
fn the_only_backend_is_judged_by_probes_and_not_by_requests() {
    // A request to it fails, and its probes are good.
    let backend = Backend::serve(|request, conn| {
        if super::is_probe(request) {
            conn.send(canned::ok(""));
        }
        conn.finish();
    });
    let proxy = setup([backend.url()], &monitor("lazy", json!({}))).start();
    for _ in 0..10 {
        assert_eq!(proxy.client().get(HOST, "/").status(), 502);
    }
    until("it was probed", || backend.requests().iter().filter(|request| super::is_probe(request)).count() >= 2);
    assert!(!proxy.stderr().contains("is down"), "{}", proxy.stderr());
}

#[test]
fn opportunistic_leaves_busy_backends_alone() {
    let site = Site::new("ok");
    let proxy = setup([site.url()], &monitor("opportunistic", json!({"interval": "3s"}))).start();
    (0..50).for_each(|_| proxy.client().get(HOST, "/").expect_ok("ok"));
    assert_eq!(site.probes().len(), 0);
    site.until_probes(1);
}

#[test]
fn without_a_mode_nothing_is_probed_and_options_count_at_once() {
    let (site, clock) = (Site::new("ok"), Site::new("clock"));
    let proxy = Setup::new().start();
    write(&proxy, [site.url()], &json!({}), &clock);
    until("both serve", || [HOST, CLOCK].iter().all(|host| proxy.client().get(host, "/").status() == 200));
    clock.tick(20);
    assert_eq!(site.probes().len(), 0);
    write(&proxy, [site.url()], &monitor("paranoid", json!({"path": "/first"})), &clock);
    site.until_probes(3);
    write(&proxy, [site.url()], &monitor("paranoid", json!({"path": "/second"})), &clock);
    until("the new path is probed", || site.probes().last().is_some_and(|probe| probe.head.target() == "/second"));
    site.fail();
    until_said(&proxy, "is down", 1);
    assert_eq!(proxy.client().get(HOST, "/").status(), 502);
    write(&proxy, [site.url()], &json!({}), &clock);
    until_said(&proxy, "was down and serves again: probes are off", 1);
    served_by(&proxy);
    let before = site.probes().len();
    clock.tick(20);
    assert_eq!(site.probes().len(), before);
}

#[test]
fn a_backend_that_left_is_probed_no_more_and_the_others_stay_as_they_are() {
    let (site, other, clock) = (Site::new("ok"), Site::new("other"), Site::new("clock"));
    let proxy = Setup::new().start();
    let options = monitor("paranoid", json!({}));
    write(&proxy, [site.url(), other.url()], &options, &clock);
    until("both serve", || [HOST, CLOCK].iter().all(|host| proxy.client().get(host, "/").status() == 200));
    site.until_probes(2);
    other.fail();
    until_said(&proxy, "is down", 1);
    write(&proxy, [other.url(), clock.url()], &options, &clock);
    until("the new one serves", || proxy.client().get(HOST, "/").text() == "clock");
    let is_quiet = |site: &Site| {
        let before = site.probes().len();
        clock.tick(20);
        site.probes().len() == before
    };
    until("it is probed no more", || is_quiet(&site));
    (0..20).for_each(|_| assert_eq!(served_by(&proxy), "clock", "the other one is still down"));
    // A frontend that leaves takes its probes with it.
    proxy
        .write_routes_text(&json!({"frontends": {CLOCK: ["x", clock.url()]}, "options": {CLOCK: options}}).to_string());
    until("the host is gone", || proxy.client().get(HOST, "/").status() == 400);
    until("it is probed no more", || is_quiet(&other));
}

fn backend_of(admin: &Admin, url: &str) -> Value {
    let view = admin.json(&format!("/v1/frontends/{HOST}"));
    let backends = view["backends"].as_array().cloned().unwrap_or_default();
    backends.into_iter().find(|backend| backend["url"] == url).unwrap_or_else(|| panic!("no {url}: {view}"))
}

#[test]
fn a_sticky_backend_comes_back_disabled_and_the_views_tell() {
    let (one, other) = (Site::new("one"), Site::new("other"));
    let options = monitor("paranoid", json!({"stickyOffline": true}));
    let admin = Admin::start(setup([one.url(), other.url()], &options));
    let served_by = || served_by(&admin.proxy);
    served_by();
    one.fail();
    until_said(&admin.proxy, "is down", 1);
    let view = backend_of(&admin, &one.url());
    assert_eq!((&view["state"], &view["judge"]), (&json!("down"), &json!("probes")));
    assert_eq!(view["reason"], "it responded with 503, which is not in health.expect");
    one.recover();
    until_said(&admin.proxy, "stays disabled until an operator enables it (health.stickyOffline)", 1);
    let view = backend_of(&admin, &one.url());
    assert_eq!((&view["state"], &view["judge"]), (&json!("disabled"), &json!("probes")), "{view}");
    (0..20).for_each(|_| assert_eq!(served_by(), "other"));
    let path = format!("/v1/frontends/{HOST}/enable?backend={}", one.url());
    let post = format!("POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\n\r\n", admin.host());
    let mut client: Client = admin.client();
    assert_eq!(client.exchange(post).status(), 202);
    until("it serves again", || served_by() == "one");
    let metrics = admin.get("/metrics").text();
    let count = |name: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(&format!("sluice_{name}_total ")));
        line.unwrap_or_else(|| panic!("no {name} in {metrics}")).parse::<f64>().expect("a number")
    };
    assert!(count("health_probes") > count("failed_health_probes") && count("failed_health_probes") >= 1.0);
    assert_eq!(count("backends_probed_down"), 1.0);
}

#[test]
fn a_backend_that_never_was_there_is_down_and_not_tried() {
    let (here, gone) = (Site::new("here"), format!("http://{}", unused_address()));
    let proxy: Proxy = setup([here.url(), gone.clone()], &monitor("paranoid", json!({}))).start();
    served_by(&proxy);
    until_said(&proxy, &format!("backend {gone} is down: a health probe failed: it did not accept the connection"), 1);
    (0..20).for_each(|_| assert_eq!(served_by(&proxy), "here"));
}
