//! The program's own log, in both forms.

use crate::admin::Admin;
use crate::support::proxy::Setup;
use crate::support::{HOST, until, unused_address};
use serde_json::Value;

/// A pattern that would be a line of its own if nothing escaped it.
const FORGED: &str = "a\n[2026-01-01T00:00:00Z ERROR sluice] forged\u{2028}\u{1b}[31m";

fn objects(log: &str) -> Vec<Value> {
    let read = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}\n{log}"));
    log.lines().map(read).collect()
}

/// A routes file with a pattern that is none, and quoted in the log.
fn forged_routes() -> String {
    serde_json::json!({"frontends": {FORGED: ["x", "http://127.0.0.1:1"]}}).to_string()
}

#[test]
fn json_has_fields_and_an_event_is_one_line() {
    let dead = format!("http://{}", unused_address());
    let admin = Admin::start(Setup::for_backends([dead.clone()]).set("logFormat", "json"));
    assert_eq!(admin.proxy.client().get(HOST, "/").status(), 502);
    let host = admin.host();
    let reload = format!("POST /v1/actions/reload HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n");
    let status = admin.client().exchange(reload).status();
    let find = |key: &str| objects(&admin.proxy.stderr()).into_iter().find(|line| !line[key].is_null());
    until("both are logged", || find("reason").is_some() && find("request").is_some());
    let failure = find("reason").expect("the failure");
    for (name, expected) in [("host", HOST), ("backend", &dead), ("reason", "connect_failed"), ("status", "502")] {
        assert_eq!(failure[name], expected, "{failure}");
    }
    assert_eq!((&failure["level"], &failure["target"]), (&"warn".into(), &"sluice::worker::failure_log".into()));
    assert_eq!(failure["pid"], admin.proxy.pid().as_raw());
    let action = find("request").expect("the action");
    assert_eq!(
        (&action["request"], &action["status"]),
        (&"POST /v1/actions/reload".into(), &status.to_string().into())
    );
    admin.proxy.write_routes_text(&forged_routes());
    until("the pattern is complained of", || admin.proxy.stderr().contains("forged"));
    let log = admin.proxy.stderr();
    assert_eq!(objects(&log).iter().filter(|line| line.to_string().contains("forged")).count(), 1, "{log}");
    assert!(!log.contains(['\u{1b}', '\u{2028}']), "{log:?}");
}

#[test]
fn a_line_of_text_cannot_be_forged() {
    let setup = Setup::new().file("routes.json", &forged_routes()).env("SLUICE_LOG_FORMAT", "xml");
    let (_, log) = setup.start_in_vain();
    assert!(log.contains("forged"), "{log}");
    assert!(log.contains("SLUICE_LOG_FORMAT is \"xml\""), "{log}");
    assert!(log.lines().all(|line| line.starts_with("[20")), "{log}");
    assert!(!log.contains("\n[2026-01-01T00:00:00Z ERROR sluice] forged"), "{log}");
    assert!(!log.contains(['\u{1b}', '\u{2028}']), "{log:?}");
}

#[test]
fn faults_of_the_configuration_are_json_where_the_environment_says_so() {
    let setup = Setup::new().set("retryOnError", "three").set("nonsense", 1).env("SLUICE_LOG_FORMAT", "json");
    let (status, log) = setup.start_in_vain();
    assert_eq!(status.code(), Some(1));
    let lines = objects(&log);
    let has = |level: &str, part: &str| {
        lines
            .iter()
            .any(|line| line["level"] == level && line["message"].as_str().is_some_and(|text| text.contains(part)))
    };
    assert!(has("warn", "server.nonsense: unknown setting"), "{log}");
    assert!(has("error", "server.retryOnError: found \"three\""), "{log}");
}
