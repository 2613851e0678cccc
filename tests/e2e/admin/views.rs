//! What the views tell.

use super::Admin;
use crate::support::backend::Backend;
use crate::support::proxy::Setup;
use crate::support::tls::Authority;
use crate::support::{HOST, canned, until, unused_address};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The samples of a text of metrics, by name and labels.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}"));
        (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("no number: {line}")))
    };
    lines.map(sample).collect()
}

#[test]
fn metrics_count_requests_by_class_reason_and_phase() {
    let backend = Backend::always(canned::ok("ok"));
    let admin =
        Admin::start(Setup::for_backends([backend.url()]).route("dead.test", [format!("http://{}", unused_address())]));
    let mut client = admin.proxy.client();
    (0..3).for_each(|_| client.get(HOST, "/").expect_ok("ok"));
    assert_eq!(client.get("unknown-host.test", "/").status(), 400);
    assert_eq!(client.get("dead.test", "/").status(), 502);
    // A request is counted behind its response.
    let counted = "sluice_request_phase_seconds_count{phase=\"total\"} 5";
    until("the requests are counted", || admin.get("/metrics").text().contains(counted));
    let response = admin.get("/metrics");
    assert_eq!(response.head.get("Content-Type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = response.text();
    let found = samples(&text);
    let expected = [
        ("sluice_responses_total{class=\"2xx\"}", 3.0),
        ("sluice_responses_total{class=\"4xx\"}", 1.0),
        ("sluice_responses_total{class=\"5xx\"}", 1.0),
        ("sluice_failures_total{reason=\"unknown_host\"}", 1.0),
        ("sluice_failures_total{reason=\"connect_failed\"}", 1.0),
        ("sluice_failures_total{reason=\"no_backend_alive\"}", 0.0),
        ("sluice_requests_total", 5.0),
        ("sluice_request_phase_seconds_count{phase=\"total\"}", 5.0),
        ("sluice_request_phase_seconds_count{phase=\"first_byte\"}", 3.0),
        // The one that could not be opened counts too.
        ("sluice_request_phase_seconds_count{phase=\"connect\"}", 2.0),
        ("sluice_request_phase_seconds_bucket{phase=\"total\",le=\"+Inf\"}", 5.0),
        ("sluice_ready", 1.0),
        ("sluice_route_hits_total", 2.0),
    ];
    for (name, value) in expected {
        assert_eq!(found.get(name), Some(&value), "{name} in\n{text}");
    }
    assert!(found.contains_key("sluice_worker_memory_bytes{worker=\"1\"}"), "{text}");
    until("a worker has told how long it has worked", || {
        let found = samples(&admin.get("/metrics").text());
        let of = |name: &str| found[&format!("sluice_worker_{name}{{worker=\"0\"}}")];
        of("busy_seconds_total") > 0.0 && (0.0..5.0).contains(&of("longest_turn_seconds"))
    });
    assert!(found["sluice_resident_memory_bytes"] > 1e6, "{text}");
    assert!(!text.contains("unknown-host.test"), "a label that a client chose");
    let buckets: Vec<f64> = text
        .lines()
        .filter(|line| line.starts_with("sluice_request_phase_seconds_bucket{phase=\"total\""))
        .map(|line| line.rsplit_once(' ').expect("a value").1.parse().expect("a number"))
        .collect();
    assert!(buckets.len() > 20 && buckets.is_sorted(), "{buckets:?}");
}

/// The cache of routes, the pool and tunnels, each as the requests before have left it.
#[test]
fn metrics_tell_of_cached_routes_pooled_connections_and_tunnels() {
    let backend = Backend::always(canned::ok("ok"));
    let tunnel = Backend::raw(|conn| {
        if conn.request().is_some() {
            conn.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: lines\r\n\r\n");
            conn.bytes(4);
        }
    });
    let hosts = ["a.test", "b.test", "c.test"];
    let setup = hosts.iter().fold(Setup::new(), |setup, host| setup.route(host, [backend.url()]));
    let setup = setup.route("tunnel.test", [tunnel.url()]).workers(1).set("lruCache", json!({"size": 2}));
    let admin = Admin::start(setup);
    let mut client = admin.proxy.client();
    hosts.iter().for_each(|host| client.get(host, "/").expect_ok("ok"));
    let mut tunnelled = admin.proxy.client();
    tunnelled.send("GET / HTTP/1.1\r\nHost: tunnel.test\r\nConnection: upgrade\r\nUpgrade: lines\r\n\r\n");
    assert_eq!(tunnelled.head().status(), 101);
    let read = |name: &str| samples(&admin.get("/metrics").text()).get(name).copied();
    let shows = |expected: &[(&str, f64)]| {
        until(&format!("{expected:?}"), || {
            expected.iter().all(|(name, value)| read(&format!("sluice_{name}")) == Some(*value))
        });
    };
    shows(&[
        ("route_cache_entries{worker=\"0\"}", 2.0),
        ("route_cache_evictions_total", 2.0),
        ("route_invalidations_total", 0.0),
        ("dials_total", 2.0),
        ("reused_upstream_connections_total", 2.0),
        ("upstream_idle_connections{worker=\"0\"}", 1.0),
        ("upstream_connections{worker=\"0\"}", 2.0),
        ("open_tunnels{worker=\"0\"}", 1.0),
        ("worker_draining{worker=\"0\"}", 0.0),
    ]);
    // Each backend is told of too, whichever cluster leads to it: three of them share one.
    let pooled =
        |view: &Value| view["backends"].as_array().map(|rows| rows.iter().map(|row| row["pooled"].as_u64()).collect());
    assert_eq!(pooled(&admin.json("/v1/backends?search=a.test")), Some(vec![Some(1)]));
    assert_eq!(pooled(&admin.json("/v1/frontends/c.test")), Some(vec![Some(1)]));
    assert_eq!(pooled(&admin.json("/v1/frontends/tunnel.test")), Some(vec![Some(0)]));
    tunnelled.send("end\n");
    drop(tunnelled);
    shows(&[("open_tunnels{worker=\"0\"}", 0.0)]);
    admin.proxy.write_routes(&json!({"c.test": ["another", backend.url()], "a.test": ["x", backend.url()]}));
    until("c.test has changed", || read("sluice_route_invalidations_total") >= Some(1.0));
}

#[test]
fn the_source_of_every_option_is_told() {
    let backend = Backend::always(canned::ok("ok"));
    let setup = Setup::for_backends([backend.url()]).option(HOST, "queueLimit", "64").set("connectTimeout", 7);
    let admin = Admin::start(setup);
    admin.proxy.client().get(HOST, "/").expect_ok("ok");
    let sources = &admin.json(&format!("/v1/frontends/{HOST}"))["option_sources"];
    for (name, source, value) in [
        ("queueLimit", "frontend", json!("64")),
        ("queueTimeout", "built-in", json!("30")),
        ("connectTimeout", "server.connectTimeout", json!(7)),
        ("bodyTimeout", "server.bodyTimeout", Value::Null),
    ] {
        assert_eq!(sources[name], json!({ "source": source, "value": value }), "{name}");
    }
}

/// Alerts and dashboards name metrics: each of them is one of the program.
#[test]
fn the_files_for_prometheus_and_grafana_name_metrics_that_there_are() {
    let backend = Backend::always(canned::ok("ok"));
    let setup = Setup::for_backends([format!("{}#capacity=5", backend.url())]).with_https();
    let setup = setup.default_certificate(&Authority::new().issue(&[HOST]));
    let admin = Admin::start(setup.option(HOST, "buckets", json!({"VIP": "5..20 %"})));
    admin.proxy.client().get(HOST, "/").expect_ok("ok");
    let names: BTreeSet<String> = samples(&admin.get("/metrics").text())
        .keys()
        .map(|name| name.split('{').next().unwrap_or(name).to_owned())
        .collect();
    for file in ["config/prometheus/alerts.yml", "config/prometheus/alerts_test.yml", "config/grafana/dashboard.json"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
        let words = text.split(|letter: char| !(letter.is_ascii_lowercase() || letter == '_')).collect::<BTreeSet<_>>();
        let named: Vec<_> = words.iter().filter(|word| word.starts_with("sluice_")).collect();
        assert!(named.len() > 5, "{file}");
        for name in named {
            assert!(names.contains(*name), "{file} names {name}, which is no metric: {names:?}");
        }
    }
}

#[test]
fn metrics_are_open_metrics_for_whoever_takes_them() {
    let admin = Admin::start(Setup::new());
    let accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {}\r\n{accept}\r\n\r\n", admin.host());
    let response = admin.client().exchange(request);
    let expected = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(response.head.get("Content-Type"), Some(expected));
    let text = response.text();
    assert!(text.ends_with("\n# EOF\n"), "{text}");
    assert!(
        text.contains("\n# TYPE sluice_responses counter\n") && text.contains("# UNIT sluice_uptime_seconds seconds")
    );
    samples(&text);
}

#[test]
fn the_status_has_latency_by_phase() {
    let backend = Backend::always(canned::ok("ok"));
    let admin = Admin::start(Setup::for_backends([backend.url()]));
    admin.proxy.client().get(HOST, "/").expect_ok("ok");
    // A request is counted behind its response.
    until("the request is counted", || admin.json("/v1/status")["latency"]["total"]["count"] == 1);
    let status = admin.json("/v1/status");
    let total = &status["latency"]["total"];
    let p50 = total["p50"].as_f64().expect("a time");
    assert!(p50 > 0.0 && p50 < 10.0, "{status}");
    let buckets = total["buckets"].as_array().expect("buckets");
    assert_eq!(buckets.iter().filter_map(|bucket| bucket[1].as_u64()).sum::<u64>(), 1, "{status}");
    assert!(status["resident_bytes"].as_u64().is_some_and(|bytes| bytes > 1 << 20));
}

#[test]
fn the_configuration_is_shown_without_its_secrets() {
    let admin = Admin::start_with(Setup::new().set("retryOnError", 7), json!({"hosts": ["edge.test"]}));
    let config = admin.json("/v1/config");
    assert_eq!(config["written"]["server"]["retryOnError"], 7, "{config}");
    assert_eq!(config["admin"], json!({"bind": admin.host(), "hosts": ["edge.test"], "token": false}));
    assert_eq!(admin.client().get("edge.test:1", "/healthz").status(), 200);
}

#[test]
fn the_configuration_hides_the_password_of_every_driver() {
    for driver in ["unix:/nowhere/redis.sock?db=0&user=a&pass=geheim", "redis://:geheim@127.0.0.1:1/2"] {
        for driver in [json!(driver), json!([driver]), json!({"url": driver})] {
            let address = unused_address();
            let mut setup = Setup::new().driver(driver.clone());
            setup.launch.admin = json!({"bind": address.to_string()});
            let admin = Admin { proxy: setup.start(), address };
            let config = admin.get("/v1/config").text();
            assert!(
                !config.contains("geheim") && config.contains("db=0") | config.contains("127.0.0.1:1/2"),
                "{config}"
            );
        }
    }
}

#[test]
fn certificates_are_named_with_the_end_of_their_time_and_no_key() {
    let pair = Authority::new().issue(&["www.example.com"]);
    let admin = Admin::start(Setup::new().with_https().default_certificate(&pair));
    let response = admin.get("/v1/certificates");
    assert!(!response.text().contains("PRIVATE"));
    let view: Value = serde_json::from_slice(&response.body).expect("JSON");
    let rows = view["certificates"].as_array().expect("rows");
    assert_eq!((rows.len(), &view["total"], &view["pages"]), (1, &json!(1), &json!(1)), "{view}");
    assert_eq!(admin.json("/v1/certificates?search=nothing")["total"], 0);
    assert!(rows[0]["name"].as_str().is_some_and(|name| name.ends_with("default.crt")), "{view}");
    assert!(rows[0]["days_left"].as_f64().is_some_and(|days| days > 0.0), "{view}");
    assert!(rows[0]["not_after"].as_str().is_some_and(|time| time.ends_with('Z')), "{view}");
}

#[test]
fn the_source_of_routes_tells_how_it_is() {
    let admin = Admin::start(Setup::new());
    let source = admin.json("/v1/redis");
    assert_eq!((&source["kind"], &source["warm"], &source["losses"]), (&json!("file"), &json!(true), &json!(0)));
}

#[test]
fn the_monitor_page_is_the_one_that_tools_look_for() {
    let admin = Admin::start(Setup::new());
    let page = admin.get("/haproxy/monitor");
    assert_eq!(page.status(), 200);
    assert!(page.text().contains("service ready"), "{}", page.text());
}

/// Every path of the description is one of the service, and says what it says there.
#[test]
fn the_description_for_tools_names_what_there_is() {
    let admin = Admin::start(Setup::new());
    let description = admin.json("/v1/openapi.json");
    // All views and actions of the documentation are there.
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/admin.md")).expect("the page");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `/v1/")?.split(['`', '?']).next());
    let described = |row: &str| {
        let named = [("KEY", "{host}"), ("HOST", "{host}"), ("/N/", "/{number}/")];
        named.iter().fold(format!("/v1/{row}"), |path, (name, place)| path.replace(name, place))
    };
    let rows: Vec<String> = rows.map(described).collect();
    assert!(rows.len() > 15, "{rows:?}");
    for path in rows {
        assert!(description["paths"].get(&path).is_some(), "{path} is not described");
    }
    for (path, methods) in description["paths"].as_object().expect("paths") {
        let path = path
            .replace("{number}", "0")
            .replace("/haproxy", "/haproxy?stats;csv")
            .replace("/v1/why", "/v1/why?host=nobody.test");
        let named = ["{host}", "{cluster}", "{backend}", "{bucket}"];
        let path = named.iter().fold(path, |path, name| path.replace(name, "nobody.test"));
        let methods = methods.as_object().expect("methods");
        // What ends a worker or the process, or has no end itself.
        if ["/v1/workers/0/drain", "/v1/actions/upgrade", "/v1/events"].contains(&&*path) {
            continue;
        }
        if methods.contains_key("get") {
            let response = admin.get(&path);
            let is_known = response.status() == 200 || response.text().contains("nobody.test");
            assert!(is_known, "{path}: {}", response.text());
        } else {
            let response = admin.client().exchange(canned::post(&admin.host(), &path, ""));
            assert!(!response.text().contains("no such action"), "{path}: {}", response.text());
        }
    }
}
