//! `sluice status` and `sluice why`: views of a running node's admin service as text.

use super::admin_client::{AdminClient, Node};
use super::tools::fail;
use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

/// The greatest number of clusters in trouble that are named.
const MAX_NAMED: usize = 20;

/// Arguments of `sluice why`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Why {
    /// The host, or the key of a list
    #[arg(value_name = "HOST")]
    pub host: String,
    /// The path of the request
    #[arg(value_name = "PATH", default_value = "/")]
    pub path: String,
    /// Where the admin service is.
    #[command(flatten)]
    pub node: Node,
}

/// Prints the state of the node. The status is 1 if it is not ready.
pub(super) fn status(node: &Node, file: &Path) -> ExitCode {
    let told = AdminClient::find(node, file).and_then(|service| {
        let status = service.view("/v1/status")?.ok_or("this is not an admin service of sluice")?;
        let source = service.view("/v1/redis")?.unwrap_or_default();
        let trouble = service.view(&format!("/v1/frontends?trouble=1&per_page={MAX_NAMED}"))?.unwrap_or_default();
        Ok((status["ready"] == true, status_text(&status, &source, &trouble)))
    });
    print_outcome(told)
}

/// Prints the path of requests for a host. The status is 1 if no backend may serve them.
pub(super) fn why(arguments: &Why, file: &Path) -> ExitCode {
    let host = arguments.host.as_str();
    let told = AdminClient::find(&arguments.node, file).and_then(|service| {
        let path = format!("/v1/frontends/{}", utf8_percent_encode(host, NON_ALPHANUMERIC));
        Ok(match service.view(&path)? {
            Some(view) => {
                let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
                let path = format!("/v1/why?host={}&path={}", encoded(host), encoded(&arguments.path));
                let steps = service.view(&path)?.unwrap_or_default();
                (view["up"].as_u64() > Some(0), why_text(host, &view) + &steps_text(&steps))
            }
            None => (false, unused_text(host)),
        })
    });
    print_outcome(told)
}

fn print_outcome(told: Result<(bool, String), String>) -> ExitCode {
    match told {
        Ok((is_well, text)) => {
            print!("{text}");
            if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(problem) => fail(&problem),
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

fn rows(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

fn seconds(value: &Value) -> String {
    match value.as_f64() {
        Some(seconds) if seconds < 1.0 => format!("{:.1} ms", seconds * 1000.0),
        Some(seconds) => format!("{seconds:.1} s"),
        None => "-".to_owned(),
    }
}

// Writing to a string cannot fail.
fn status_text(status: &Value, source: &Value, trouble: &Value) -> String {
    let mut out = String::new();
    let state = status["reason"].as_str().map_or_else(|| "ready".to_owned(), |reason| format!("not ready: {reason}"));
    let (version, pid) = (text_of(&status["version"]), number(&status["pid"]));
    let uptime = status["uptime_seconds"].as_f64().unwrap_or_default();
    let _ = writeln!(out, "sluice {version}, process {pid}, up {uptime:.0} s: {state}");
    let _ = writeln!(out, "{:<8}{:>13}{:>11}{:>10}  state", "worker", "connections", "in flight", "MiB");
    for worker in rows(&status["workers"]) {
        let state = if worker["draining"] == true { "draining" } else { "serves" };
        let (place, clients) = (number(&worker["worker"]), number(&worker["connections"]));
        let (requests, bytes) = (number(&worker["requests_in_flight"]), number(&worker["memory_bytes"]));
        let _ = writeln!(out, "{place:<8}{clients:>13}{requests:>11}{:>10}  {state}", bytes >> 20);
    }
    let failures: Vec<String> = status["failures"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(reason, count)| format!("{reason} {count}"))
        .collect();
    let failures = if failures.is_empty() { "none".to_owned() } else { failures.join(", ") };
    let _ = writeln!(out, "requests: {}; failures: {failures}", number(&status["totals"]["requests"]));
    let total = &status["latency"]["total"];
    let _ = writeln!(
        out,
        "time: 50 % {}, 90 % {}, 99 % {}",
        seconds(&total["p50"]),
        seconds(&total["p90"]),
        seconds(&total["p99"])
    );
    let away = source["age_seconds"]
        .as_f64()
        .filter(|age| *age > 0.0)
        .map_or_else(String::new, |age| format!(", away for {age:.0} s"));
    let _ =
        writeln!(out, "routes: from {}, changes by {}{away}", text_of(&source["kind"]), text_of(&source["freshness"]));
    let count = number(&trouble["total"]);
    let _ = writeln!(out, "clusters with trouble: {count}");
    for cluster in rows(&trouble["frontends"]) {
        let _ = writeln!(
            out,
            "  {}: {}, {} of {} backends up, {} waiting, {} failed in the last minute",
            text_of(&cluster["key"]),
            text_of(&cluster["state"]),
            number(&cluster["up"]),
            number(&cluster["backends_total"]),
            number(&cluster["waiting"]),
            number(&cluster["failures_60s"]),
        );
    }
    if count > 0 {
        let _ = writeln!(out, "sluice why HOST shows details of one of them");
    }
    out
}

fn unused_text(host: &str) -> String {
    format!(
        "{host}: not in use on this node: no request has asked for it lately. A request for it makes the node ask its source; \
         sluice routes {host} shows what that has\n"
    )
}

fn why_text(host: &str, view: &Value) -> String {
    let mut out = String::new();
    let key = text_of(&view["key"]);
    let _ = writeln!(out, "{host}: served by the list of {key} ({})", text_of(&view["id"]));
    for (name, value) in view["options"].as_object().into_iter().flatten() {
        let _ = writeln!(out, "  option {name}: {}", text_of(value));
    }
    let (up, all) = (number(&view["up"]), number(&view["backends_total"]));
    for backend in rows(&view["backends"]) {
        let reason = backend["reason"].as_str().map_or_else(String::new, |reason| format!(": {reason}"));
        let left = &backend["seconds_left"];
        let left = if left.is_null() { String::new() } else { format!(", for another {}", seconds(left)) };
        let (url, state) = (text_of(&backend["url"]), text_of(&backend["state"]));
        let in_flight = number(&backend["in_flight"]);
        let _ = writeln!(out, "  backend {url}: {state}{reason}{left}; {in_flight} in flight");
    }
    let waiting = number(&view["waiting"]);
    let outcome = match (text_of(&view["state"]), all, up) {
        ("disabled", ..) => "the option disabled is set: every request gets a 503 (cluster_disabled)".to_owned(),
        (_, 0, _) => "the list has no backend: every request gets a 502 (no_backend_alive)".to_owned(),
        (_, _, 0) => {
            "no backend may serve: requests get a 502 (no_backend_alive), unless only marks of this node are in \
                      the way: then the backend whose mark ends first is tried"
                .to_owned()
        }
        _ if waiting > 0 => {
            format!("{up} of {all} backends may serve and none has room: a request waits behind {waiting}")
        }
        _ => format!("{up} of {all} backends may serve: a request goes to one of them"),
    };
    let _ = writeln!(out, "{outcome}");
    let (recent, failed) = (number(&view["requests_60s"]), number(&view["failures_60s"]));
    let _ = writeln!(out, "in the last minute {recent} requests, of which {failed} failed");
    out
}

/// The steps of a request, and the last ones that failed.
fn steps_text(view: &Value) -> String {
    let mut out = String::from("step by step:\n");
    for (number, step) in rows(&view["steps"]).enumerate() {
        let _ = writeln!(out, "  {}. {}: {}", number + 1, text_of(&step["step"]), text_of(&step["finding"]));
    }
    let mut failures = rows(&view["last_failures"]).peekable();
    if failures.peek().is_some() {
        out.push_str("the last that failed:\n");
    }
    for failure in failures {
        let (ago, status) = (number(&failure["seconds_ago"]), number(&failure["status"]));
        let at = failure["backend"].as_str().map_or_else(String::new, |backend| format!(" at {backend}"));
        let name = failure["reason"].as_str().map_or_else(String::new, |reason| format!(" ({reason})"));
        let _ = writeln!(out, "  {ago} s ago: {status}{name}{at}: {}", text_of(&failure["meaning"]));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn steps_are_numbered_and_failures_say_how_they_ended() {
        let view = json!({
            "steps": [{"step": "host", "finding": "GET / of a"}, {"step": "choice", "finding": "one of 2"}],
            "last_failures": [
                {"seconds_ago": 3, "status": 502, "reason": "connect_failed", "meaning": "No connection.", "backend": "http://b"},
                {"seconds_ago": 4, "status": 500, "reason": null, "meaning": "the response of the backend", "backend": null},
            ],
        });
        let expected = "step by step:\n  1. host: GET / of a\n  2. choice: one of 2\nthe last that failed:\n  3 s ago: 502 \
            (connect_failed) at http://b: No connection.\n  4 s ago: 500: the response of the backend\n";
        assert_eq!(steps_text(&view), expected);
    }

    #[test]
    fn the_outcome_of_a_request_is_named() {
        let view = |state: &str, all: u64, up: u64, waiting: u64| json!({"key": "a", "id": "x", "state": state, "backends_total": all, "up": up, "waiting": waiting});
        let table = [
            (view("up", 2, 2, 0), "2 of 2 backends may serve: a request goes to one of them"),
            (view("degraded", 2, 1, 7), "1 of 2 backends may serve and none has room: a request waits behind 7"),
            (view("down", 0, 0, 0), "the list has no backend"),
            (view("down", 2, 0, 0), "no backend may serve"),
            (view("disabled", 2, 0, 0), "the option disabled is set"),
        ];
        for (view, expected) in table {
            let text = why_text("a", &view);
            assert!(text.contains(expected), "{text}");
        }
    }
}
