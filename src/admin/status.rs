//! Whether the process is ready, and how it is.

use super::{Response, Sources};
use crate::base::counters::{Counter, Counters};
use crate::base::reason::FailureReason;
use serde_json::{Map, Value, json};

/// Ready is a process that serves, can route, and is not about to end.
pub(super) fn readiness(sources: &Sources) -> Response {
    match unready(sources) {
        None => Response::text(200, "ready\n"),
        Some(why) => Response::text(503, &format!("{why}\n")),
    }
}

fn unready(sources: &Sources) -> Option<&'static str> {
    let roster = &sources.roster;
    if roster.is_draining() {
        Some("draining")
    } else if !roster.is_ready() {
        Some("starting")
    } else if !sources.directory.status().is_warm() {
        Some("the source of routes has not been reached yet")
    } else if roster.workers().iter().all(|worker| worker.is_leaving) {
        Some("no worker runs")
    } else {
        None
    }
}

pub(super) fn status(sources: &Sources) -> Response {
    let (roster, now) = (&sources.roster, sources.clock.now());
    let totals = roster.totals();
    let workers: Vec<Value> = roster
        .workers()
        .iter()
        .map(|worker| {
            let usage = worker.stats.usage();
            json!({
                "worker": worker.number,
                "uptime_seconds": now.since(worker.started).as_secs_f64(),
                "draining": worker.is_leaving,
                "connections": usage.clients,
                "requests_in_flight": usage.requests,
                "upstream_connections": usage.upstreams,
                "memory_bytes": usage.bytes,
                "requests": worker.counters.get(Counter::Requests),
                "accepted_connections": worker.counters.get(Counter::Accepted),
            })
        })
        .collect();
    Response::json(&json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "uptime_seconds": now.since(roster.started()).as_secs_f64(),
        "ready": unready(sources).is_none(),
        "reason": unready(sources),
        "workers": workers,
        "replaced_workers": roster.replaced(),
        "lost_log_lines": roster.lost_log_lines(),
        "totals": counted(&totals),
        "failures": failures(&totals),
    }))
}

fn counted(totals: &Counters) -> Map<String, Value> {
    Counter::ALL.iter().map(|counter| (counter.name().to_owned(), totals.get(*counter).into())).collect()
}

/// The reasons for which requests have failed so far.
fn failures(totals: &Counters) -> Map<String, Value> {
    let counts = FailureReason::ALL.iter().map(|reason| (reason.name().to_owned(), totals.get_reason(*reason)));
    counts.filter(|(_, count)| *count > 0).map(|(name, count)| (name, count.into())).collect()
}
