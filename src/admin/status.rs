//! Readiness and status of the process.

use super::{Response, Service, Sources, buckets, cache, process};
use crate::base::counters::{Counter, Counters};
use crate::base::histogram::Phase;
use crate::base::reason::FailureReason;
use crate::directory;
use serde_json::{Map, Value, json};

/// A process is ready if it serves, can route, and is not about to end.
pub(super) fn readiness(sources: &Sources) -> Response {
    match unready(sources) {
        None => Response::text(200, "ready\n"),
        Some(why) => Response::text(503, &format!("{why}\n")),
    }
}

pub(super) fn unready(sources: &Sources) -> Option<&'static str> {
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

pub(super) fn status(service: &Service) -> Value {
    let (roster, now) = (&service.roster, service.clock.now());
    let totals = roster.totals();
    let replaced: Map<String, Value> =
        roster.replaced().map(|(cause, count)| (cause.name().to_owned(), count.into())).collect();
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
                "busy_seconds": usage.busy.as_secs_f64(),
                "longest_turn_seconds": usage.longest_turn.as_secs_f64(),
                "requests": worker.counters.get(Counter::Requests),
                "accepted_connections": worker.counters.get(Counter::Accepted),
            })
        })
        .collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "uptime_seconds": now.since(roster.started()).as_secs_f64(),
        "ready": unready(service).is_none(),
        "reason": unready(service),
        "workers": workers,
        "replaced_workers": roster.replaced().map(|(_, count)| count).sum::<u64>(),
        "replaced_workers_by_cause": replaced,
        "lost_log_lines": roster.lost_log_lines(),
        "totals": counted(&totals),
        "failures": failures(&totals),
        "latency": latencies(&totals),
        "tenants": buckets::tenants(service.tenants.as_deref()),
        "cache": cache::summary(service),
        "resident_bytes": process::resident_bytes(),
        "open_files": service.state.open_files(now, process::open_files),
    })
}

fn counted(totals: &Counters) -> Map<String, Value> {
    Counter::ALL.iter().map(|counter| (counter.name().to_owned(), totals.get(*counter).into())).collect()
}

/// How changes of the routes are noticed.
pub(super) fn source_mode(source: &directory::Status) -> &'static str {
    match source.means() {
        3 => "client_tracking",
        2 => "keyspace_notifications",
        1 => "reading_again",
        _ => "none",
    }
}

/// Latencies of each phase: count, sum, and the buckets of the histogram, for comparisons of two moments.
fn latencies(totals: &Counters) -> Map<String, Value> {
    let latency = |phase: Phase| {
        let histogram = totals.latency(phase);
        let seconds = |part| histogram.quantile(part).map(|duration| duration.as_secs_f64());
        let buckets: Vec<Value> =
            histogram.buckets().map(|(bound, count)| json!([bound.as_secs_f64(), count])).collect();
        let value = json!({
            "count": histogram.count(),
            "sum_seconds": histogram.sum_seconds(),
            "p50": seconds(0.5),
            "p90": seconds(0.9),
            "p99": seconds(0.99),
            "buckets": buckets,
        });
        (phase.name().to_owned(), value)
    };
    Phase::ALL.into_iter().map(latency).collect()
}

/// The reasons for which requests have failed so far.
fn failures(totals: &Counters) -> Map<String, Value> {
    let counts = FailureReason::ALL.iter().map(|reason| (reason.name().to_owned(), totals.get_reason(*reason)));
    counts.filter(|(_, count)| *count > 0).map(|(name, count)| (name, count.into())).collect()
}
