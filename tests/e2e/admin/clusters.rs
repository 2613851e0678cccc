//! What the views tell of hosts and backends, and what is done with a backend.

use super::Admin;
use crate::succession::{replaceable, upgrade};
use crate::support::backend::Backend;
use crate::support::client::Client;
use crate::support::proxy::{Setup, frontend};
use crate::support::{HOST, canned, until, unused_address};
use serde_json::{Value, json};

/// A proxy with this host, of one backend that lives and one that does not, which a request has found dead.
fn with_a_dead_backend() -> (Admin, Backend, String) {
    let backend = Backend::always(canned::ok("ok"));
    let dead = format!("http://{}", unused_address());
    let admin = Admin::start(Setup::for_backends([backend.url(), dead.clone()]));
    let mut client = admin.proxy.client();
    until("the dead backend is found", || {
        client.get(HOST, "/").expect_ok("ok");
        backend_of(&admin.json(&format!("/v1/frontends/{HOST}")), &dead)["state"] == "dead"
    });
    (admin, backend, dead)
}

#[track_caller]
fn backend_of(view: &Value, url: &str) -> Value {
    let backends = view["backends"].as_array().unwrap_or_else(|| panic!("no backends: {view}"));
    let found = backends.iter().find(|backend| backend["url"] == url);
    found.unwrap_or_else(|| panic!("no {url}: {view}")).clone()
}

#[test]
fn a_host_tells_which_of_its_backends_is_dead_and_why() {
    let (admin, backend, dead) = with_a_dead_backend();
    let view = admin.json(&format!("/v1/frontends/{HOST}"));
    assert_eq!((&view["backends_total"], &view["up"], &view["key"]), (&json!(2), &json!(1), &json!(HOST)), "{view}");
    let (good, bad) = (backend_of(&view, &backend.url()), backend_of(&view, &dead));
    assert_eq!((&good["state"], &good["reason"]), (&json!("up"), &Value::Null));
    assert!(good["requests"].as_u64().is_some_and(|count| count >= 1), "{good}");
    assert_eq!(bad["reason"], "it cannot be reached, or does not respond in time", "{bad}");
    let left = bad["seconds_left"].as_f64().expect("a time");
    assert!(left > 0.0 && left <= 30.0, "{bad}");
    assert!(bad["failures"].as_u64().is_some_and(|count| count >= 1), "{bad}");
    assert_eq!(view["history"].as_array().map(Vec::len), Some(60));
    assert_eq!(view["hosts"], json!([HOST]));
    until("the requests are in the last minute", || {
        admin.json(&format!("/v1/frontends/{HOST}"))["requests_60s"].as_u64().is_some_and(|count| count > 0)
    });
    assert_eq!(admin.get("/v1/frontends/nobody.test").status(), 404);
}

#[test]
fn hosts_are_listed_with_search_and_pages() {
    let backend = Backend::always(canned::ok("ok"));
    let mut setup = Setup::new();
    for number in 0..25 {
        setup = setup.route(&format!("host-{number:02}.test"), [backend.url()]);
    }
    let admin = Admin::start(setup);
    let mut client = admin.proxy.client();
    (0..25).for_each(|number| client.get(&format!("host-{number:02}.test"), "/").expect_ok("ok"));
    let keys = |path: &str| -> Vec<String> {
        let view = admin.json(path);
        let rows = view["frontends"].as_array().expect("rows");
        rows.iter().map(|row| row["key"].as_str().expect("a key").to_owned()).collect()
    };
    assert_eq!(
        keys("/v1/frontends?per_page=10&page=3"),
        ["host-20.test", "host-21.test", "host-22.test", "host-23.test", "host-24.test"]
    );
    assert_eq!(keys("/v1/frontends?search=T-07"), ["host-07.test"]);
    assert_eq!(keys("/v1/frontends?search=site+of+host-11"), ["host-11.test"], "by the identifier");
    assert_eq!(
        keys(&format!("/v1/frontends?per_page=1&search={}", backend.address())),
        ["host-00.test"],
        "by a backend"
    );
    assert!(keys("/v1/frontends?search=nothing").is_empty());
    assert!(keys("/v1/frontends?trouble=1").is_empty());
    let view = admin.json("/v1/frontends?per_page=10&page=99");
    assert_eq!((&view["total"], &view["page"], &view["pages"]), (&json!(25), &json!(3), &json!(3)));
    let view = admin.json("/v1/backends?per_page=3&search=host-1");
    assert_eq!((&view["total"], &view["backends"][2]["frontend"]), (&json!(10), &json!("host-12.test")));
}

#[test]
fn backends_can_be_asked_for_by_their_state() {
    let (admin, _backend, dead) = with_a_dead_backend();
    let view = admin.json("/v1/backends?state=dead");
    assert_eq!((&view["total"], &view["backends"][0]["url"]), (&json!(1), &json!(dead)));
    assert_eq!(admin.json("/v1/backends?state=up")["total"], 1);
    assert_eq!(admin.json("/v1/frontends?trouble=1")["frontends"][0]["key"], HOST);
}

#[test]
fn a_backend_is_taken_out_of_service_and_put_back() {
    let (one, two) = (Backend::always(canned::ok("one")), Backend::always(canned::ok("two")));
    let admin = Admin::start(Setup::for_backends([one.url(), two.url()]));
    let mut client = admin.proxy.client();
    client.get(HOST, "/");
    let path = |verb: &str, url: &str| format!("/v1/frontends/{HOST}/{verb}?backend={url}");
    for _ in 0..2 {
        assert_eq!(admin.post(&path("disable", &one.url())), 202, "as often as one likes");
    }
    (0..20).for_each(|_| client.get(HOST, "/").expect_ok("two"));
    let view = backend_of(&admin.json(&format!("/v1/frontends/{HOST}")), &one.url());
    assert_eq!((&view["state"], &view["reason"]), (&json!("disabled"), &json!("an operator has disabled it")));
    assert_eq!(admin.post(&path("enable", &one.url())), 202);
    until("it serves again", || client.get(HOST, "/").text() == "one");
    assert_eq!(admin.post(&path("dead", &two.url())), 202);
    (0..20).for_each(|_| client.get(HOST, "/").expect_ok("one"));
    let view = backend_of(&admin.json(&format!("/v1/frontends/{HOST}")), &two.url());
    assert_eq!(view["state"], "dead");
    assert!(view["seconds_left"].as_f64().is_some_and(|left| left > 30.0 && left <= 60.0), "{view}");
    assert_eq!(admin.post(&path("alive", &two.url())), 202);
    until("it is alive again", || client.get(HOST, "/").text() == "two");
    for (path, status) in [
        (path("disable", "http://10.9.9.9"), 404),
        (format!("/v1/frontends/{HOST}/disable"), 400),
        (format!("/v1/frontends/nobody.test/disable?backend={}", one.url()), 404),
        (path("dead", &one.url()) + "&seconds=-1", 400),
        (path("dance", &one.url()), 404),
    ] {
        assert_eq!(admin.post(&path), status, "{path}");
    }
}

#[test]
fn the_statistics_are_those_that_tools_of_haproxy_read() {
    let (admin, backend, dead) = with_a_dead_backend();
    let text = admin.get("/haproxy?stats;csv").text();
    let mut lines = text.lines();
    let header = lines.next().and_then(|line| line.strip_prefix("# ")).expect("a header");
    let names: Vec<&str> = header.split(',').collect();
    assert_eq!((names.len(), names[0], names[32], names[50]), (52, "pxname", "type", "srv_abrt"));
    let place = |name: &str| names.iter().position(|known| *known == name).expect("a column");
    let rows: Vec<Vec<&str>> = lines.map(|line| line.split(',').collect()).collect();
    assert!(rows.iter().all(|row| row.len() == 52), "{text}");
    let row = |server: &str| {
        let found = rows.iter().find(|row| row[0] == HOST && row[1] == server);
        found.unwrap_or_else(|| panic!("no {server} in {text}"))
    };
    let types: Vec<&str> = rows.iter().map(|row| row[32]).collect();
    assert_eq!(types, ["0", "2", "2", "1"]);
    assert_eq!(row("FRONTEND")[17], "OPEN");
    assert_eq!((row(&backend.url())[17], row(&dead)[17], row("BACKEND")[17]), ("UP", "DOWN", "UP"));
    assert_eq!((row("BACKEND")[place("act")], row("BACKEND")[place("bck")]), ("1", "0"));
    assert!(row(&backend.url())[place("stot")].parse::<u64>().is_ok_and(|count| count >= 1), "{text}");
    assert!(row(&dead)[place("eresp")].parse::<u64>().is_ok_and(|count| count >= 1), "{text}");
    for path in ["/;csv", "/stats;csv"] {
        assert!(admin.get(path).text().starts_with("# pxname,svname,"), "{path}");
    }
}

#[test]
fn metrics_have_series_of_clusters_by_their_pattern() {
    let backend = Backend::always(canned::ok("ok"));
    let admin = Admin::start(Setup::new().route("*.wild.test", [backend.url()]));
    let mut client = admin.proxy.client();
    (0..3).for_each(|number| client.get(&format!("h{number}.wild.test"), "/").expect_ok("ok"));
    // A request is counted behind its response.
    let counted = "sluice_cluster_requests_total{cluster=\"*.wild.test\"} 3";
    until("the requests are counted", || admin.get("/metrics").text().lines().any(|line| line == counted));
    let text = admin.get("/metrics").text();
    for line in [
        "sluice_clusters 1",
        "sluice_cluster_requests_total{cluster=\"*.wild.test\"} 3",
        "sluice_cluster_failures_total{cluster=\"*.wild.test\"} 0",
        "sluice_cluster_backends_up{cluster=\"*.wild.test\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
    }
    assert!(!text.contains("h1.wild.test"), "a host that a client chose: {text}");
    let view = admin.json("/v1/frontends/*.wild.test");
    assert_eq!(view["host_count"], 3, "{view}");
    assert_eq!(admin.json("/v1/frontends/h1.wild.test")["key"], "*.wild.test", "a host leads to its list");
}

#[test]
fn the_dashboard_is_a_page_of_its_own() {
    let admin = Admin::start(Setup::new());
    let page = admin.get("/");
    assert_eq!(page.head.get("Content-Type"), Some("text/html; charset=utf-8"));
    let policy = page.head.get("Content-Security-Policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"), "{policy}");
    let text = page.text();
    let mut size = page.body.len();
    let assets: Vec<&str> = text.split("=\"/assets/").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(assets, ["icon.svg", "app.css", "app.js", "host.js", "demand.js"]);
    for asset in assets {
        let response = admin.get(&format!("/assets/{asset}"));
        assert_eq!(response.status(), 200, "{asset}");
        size += response.body.len();
    }
    assert!(size < 100 * 1024, "{size} bytes");
    let inline = ["<style", " style=", " onclick=", "javascript:", "//cdn", "http://", "https://"];
    assert!(inline.iter().all(|what| !text.contains(what)), "{text}");
    assert!(!text.contains("<script>"), "{text}");
}

#[test]
fn a_draining_backend_serves_its_sessions_alone() {
    let (one, two) = (Backend::always(canned::ok("one")), Backend::always(canned::ok("two")));
    let admin = Admin::start(Setup::for_backends([one.url(), two.url()]).option(HOST, "sticky.cookie", "node"));
    let mut client = admin.proxy.client();
    let response =
        std::iter::repeat_with(|| client.get(HOST, "/")).find(|response| response.text() == "one").expect("it");
    let cookie =
        response.head.get("Set-Cookie").and_then(|cookie| cookie.split(';').next()).expect("a session").to_owned();
    let path = |verb: &str| format!("/v1/frontends/{HOST}/{verb}?backend={}", one.url());
    let of_session = |client: &mut Client| {
        client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nCookie: {cookie}\r\n\r\n"));
        client.response_to("GET")
    };
    assert_eq!(admin.post(&path("drain")), 202);
    for _ in 0..20 {
        client.get(HOST, "/").expect_ok("two");
        let response = of_session(&mut client);
        response.expect_ok("one");
        assert_eq!(response.head.get("Set-Cookie"), None, "the session stays");
    }
    let view = backend_of(&admin.json(&format!("/v1/frontends/{HOST}")), &one.url());
    assert_eq!((&view["state"], &view["judge"]), (&json!("draining"), &json!("operator")), "{view}");
    assert_eq!(admin.json("/v1/backends?state=draining")["total"], 1);
    assert_eq!(admin.json(&format!("/v1/frontends/{HOST}"))["state"], "degraded");
    assert!(admin.get("/;csv").text().contains(",DRAIN,"));
    // An edit of the list leaves it so, and a backend that is disabled serves no session.
    let list = |urls: &[String]| json!({HOST: frontend(HOST, urls.iter().cloned())});
    let options = json!({HOST: {"sticky.cookie": "node"}});
    let edit = |urls: &[String]| {
        admin.proxy.write_routes_text(&json!({"frontends": list(urls), "options": options}).to_string())
    };
    edit(&[two.url()]);
    until("it was removed from the list", || admin.json(&format!("/v1/frontends/{HOST}"))["backends_total"] == 1);
    edit(&[one.url(), two.url()]);
    until("it is back", || admin.json(&format!("/v1/frontends/{HOST}"))["backends_total"] == 2);
    (0..20).for_each(|_| client.get(HOST, "/").expect_ok("two"));
    of_session(&mut client).expect_ok("one");
    assert_eq!(admin.post(&path("disable")), 202);
    of_session(&mut client).expect_ok("two");
    assert_eq!(admin.post(&path("enable")), 202);
    until("it serves all again", || client.get(HOST, "/").text() == "one");
}

#[test]
fn what_an_operator_has_taken_out_of_service_stays_so_when_its_list_changes() {
    let (one, two) = (Backend::always(canned::ok("one")), Backend::always(canned::ok("two")));
    let admin = Admin::start(replaceable(Setup::for_backends([one.url(), two.url()])));
    let mut client = admin.proxy.client();
    client.get(HOST, "/");
    assert_eq!(admin.post(&format!("/v1/frontends/{HOST}/disable?backend={}", one.url())), 202);
    (0..20).for_each(|_| client.get(HOST, "/").expect_ok("two"));
    admin.proxy.write_routes(&json!({HOST: frontend(HOST, [two.url()])}));
    until("it was removed from the list", || admin.json(&format!("/v1/frontends/{HOST}"))["backends_total"] == 1);
    admin.proxy.write_routes(&json!({HOST: frontend(HOST, [one.url(), two.url()])}));
    until("it is back", || admin.json(&format!("/v1/frontends/{HOST}"))["backends_total"] == 2);
    (0..20).for_each(|_| client.get(HOST, "/").expect_ok("two"));
    let backend = backend_of(&admin.json(&format!("/v1/frontends/{HOST}")), &one.url());
    assert_eq!(backend["state"], "disabled", "{backend}");
    assert_eq!(admin.post(&format!("/v1/frontends/{HOST}/enable?backend={}", one.url())), 202);
    until("it serves again", || client.get(HOST, "/").text() == "one");
    assert_eq!(admin.post(&format!("/v1/frontends/{HOST}/disable?backend={}", one.url())), 202);
    let mut admin = admin;
    upgrade(&mut admin.proxy);
    let told = format!("the new process serves from them until they are disabled again: {} of {HOST}", one.url());
    until("the end of it is told", || admin.proxy.stderr().contains(&told));
}

#[test]
fn an_operator_names_a_backend_and_is_named_as_the_reason() {
    let (one, two) = (Backend::always(canned::ok("one")), Backend::always(canned::ok("two")));
    let list = [format!("{}/?token=geheim", one.url()), two.url()];
    let admin = Admin::start(Setup::for_backends(list));
    let mut client = admin.proxy.client();
    client.get(HOST, "/");
    let view = admin.json(&format!("/v1/frontends/{HOST}"));
    assert!(!view.to_string().contains("geheim"), "{view}");
    // What is shown in place of the entry names the backend.
    let shown = view["backends"][0]["url"].as_str().expect("a name").to_owned();
    assert_eq!(shown, one.url());
    assert_eq!(admin.post(&format!("/v1/frontends/{HOST}/dead?backend={shown}")), 202);
    (0..20).for_each(|_| client.get(HOST, "/").expect_ok("two"));
    let backend = backend_of(&admin.json(&format!("/v1/frontends/{HOST}")), &shown);
    assert_eq!(backend["reason"], "marked dead by an operator of this node", "{backend}");
    assert!(admin.get("/haproxy?stats;csv").text().contains(&format!("{HOST},{shown},")));
}

#[test]
fn a_pattern_tells_for_how_many_hosts_a_backend_is_dead() {
    let well = Backend::always(canned::ok("ok"));
    let dead = format!("http://{}", unused_address());
    let admin = Admin::start(Setup::new().route("*.wild.test", [well.url(), dead.clone()]));
    let mut client = admin.proxy.client();
    let state = || backend_of(&admin.json("/v1/frontends/*.wild.test"), &dead);
    until("a host has found it dead", || {
        client.get("a.wild.test", "/").expect_ok("ok");
        state()["state"] == "dead"
    });
    // It is up for the next host, until that finds it dead too.
    until("another host is in use", || {
        client.get("b.wild.test", "/").expect_ok("ok");
        admin.json("/v1/frontends/*.wild.test")["host_count"] == 2
    });
    assert_eq!(admin.post(&format!("/v1/frontends/*.wild.test/alive?backend={dead}")), 202);
    assert_eq!(state()["state"], "up");
    until("one of two hosts has found it dead", || {
        client.get("a.wild.test", "/").expect_ok("ok");
        state()["state"] == "partly_dead"
    });
    let reason = state()["reason"].as_str().expect("a reason").to_owned();
    assert!(reason.ends_with("(for 1 of 2 hosts, among them a.wild.test)"), "{reason}");
    let view = admin.json("/v1/frontends/*.wild.test");
    assert_eq!((&view["up"], &view["state"]), (&json!(2), &json!("degraded")), "{view}");
    assert_eq!(admin.json("/v1/frontends?trouble=1")["total"], 1);
    assert_eq!(admin.json("/v1/backends?state=partly_dead")["backends"][0]["url"], json!(dead));
    until("both hosts have found it dead", || {
        client.get("b.wild.test", "/").expect_ok("ok");
        state()["state"] == "dead"
    });
    let list = admin.json("/v1/frontends");
    assert_eq!((&list["frontends"][0]["up"], &list["frontends"][0]["state"]), (&json!(1), &json!("degraded")));
    let up = "sluice_cluster_backends_up{cluster=\"*.wild.test\"} 1";
    assert!(admin.get("/metrics").text().contains(up), "{}", admin.get("/metrics").text());
    let text = admin.get("/;csv").text();
    let row = text.lines().find(|line| line.starts_with(&format!("*.wild.test,{dead},"))).expect("a row");
    assert_eq!(row.split(',').nth(17), Some("DOWN"), "{row}");
}

#[test]
fn a_cluster_that_is_disabled_is_not_up() {
    let backend = Backend::always(canned::ok("ok"));
    let admin = Admin::start(Setup::for_backends([backend.url()]).option(HOST, "disabled", "true"));
    assert_eq!(admin.proxy.client().get(HOST, "/").status(), 503);
    let view = admin.json(&format!("/v1/frontends/{HOST}"));
    assert_eq!((&view["state"], &view["up"]), (&json!("disabled"), &json!(0)), "{view}");
    assert_eq!(admin.json("/v1/frontends?trouble=1")["total"], 1);
    let text = admin.get("/;csv").text();
    let row = text.lines().find(|line| line.starts_with(&format!("{HOST},BACKEND,"))).expect("a row");
    assert_eq!(row.split(',').nth(17), Some("MAINT"), "{row}");
    assert!(admin.get("/metrics").text().contains(&format!("sluice_cluster_backends_up{{cluster=\"{HOST}\"}} 0")));
}

#[test]
fn the_statistics_have_one_row_an_endpoint_and_can_be_narrowed() {
    let backend = Backend::always(canned::ok("ok"));
    let twice = [backend.url(), format!("{}/app", backend.url()), format!("{}/mail@host", backend.url())];
    let admin = Admin::start(Setup::for_backends(twice).route("other.test", [backend.url()]));
    let mut client = admin.proxy.client();
    client.get(HOST, "/").expect_ok("ok");
    client.get("other.test", "/").expect_ok("ok");
    let servers = |text: &str, host: &str| -> Vec<String> {
        let rows = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
        rows.filter(|row| row[0] == host && row[32] == "2").map(|row| row[1].to_owned()).collect()
    };
    for path in ["/haproxy?stats;csv", "/stats/;csv;norefresh", "/haproxy/?stats;csv", "/?stats;csv"] {
        let text = admin.get(path).text();
        assert_eq!(servers(&text, HOST), [backend.url()], "{path}: {text}");
        assert_eq!(servers(&text, "other.test"), [backend.url()], "{path}: {text}");
    }
    let text = admin.get("/haproxy?stats;csv&scope=other").text();
    assert!(servers(&text, HOST).is_empty() && servers(&text, "other.test").len() == 1, "{text}");
    let view = admin.json(&format!("/v1/frontends/{HOST}"));
    assert_eq!(view["backends"][2]["url"], json!(backend.url()), "an @ says nothing to a reader: {view}");
}

#[test]
fn what_a_view_hides_is_not_found_by_a_search() {
    let backend = Backend::always(canned::ok("ok"));
    let admin = Admin::start(
        Setup::new()
            .file("routes.json", &json!({"frontends": {HOST: ["http://user:geheim@host", backend.url()]}}).to_string()),
    );
    admin.proxy.client().get(HOST, "/").expect_ok("ok");
    let view = admin.json("/v1/frontends");
    assert!(view["total"] == 1 && !view.to_string().contains("geheim"), "{view}");
    for part in ["geheim", "geh", "user:"] {
        assert_eq!(admin.json(&format!("/v1/frontends?search={part}"))["total"], 0, "{part}");
    }
    assert_eq!(admin.json("/v1/frontends?search=http")["total"], 1);
}
