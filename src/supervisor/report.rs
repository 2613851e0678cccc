//! The report of a worker that has ended (reason, statistics, outcome), and the totals of all workers.

use crate::admin::ReplaceCause;
use crate::base::clock::Moment;
use crate::base::counters::{Counter, Counters};
use crate::base::reason::FailureReason;
use crate::config::Origin;
use crate::worker::WorkerStats;
use std::fmt;

const MIB: u64 = 1024 * 1024;

/// Why a worker was replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ReplaceReason {
    /// The process used `resident` bytes, with a limit of `limit` bytes.
    Memory { resident: u64, limit: u64 },
    /// It made no progress.
    Stuck,
    /// An operator ordered it.
    Ordered,
    /// It panicked, or its poll failed.
    Failed(String),
}

impl ReplaceReason {
    /// The cause for metrics.
    pub(super) fn cause(&self) -> ReplaceCause {
        match self {
            Self::Memory { .. } => ReplaceCause::Memory,
            Self::Stuck => ReplaceCause::Stuck,
            Self::Ordered => ReplaceCause::Ordered,
            Self::Failed(_) => ReplaceCause::Failed,
        }
    }
}

impl fmt::Display for ReplaceReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory { resident, limit } => {
                write!(f, "the process holds {} MiB of {} MiB", resident / MIB, limit / MIB)
            }
            Self::Ordered => f.write_str("an operator ordered it"),
            Self::Stuck => f.write_str("it made no progress"),
            Self::Failed(how) => f.write_str(how),
        }
    }
}

/// The life of one worker, as one log line.
pub(super) struct Report<'a> {
    pub(super) number: usize,
    pub(super) why: &'a ReplaceReason,
    pub(super) started: Moment,
    /// The time at which its successor took over.
    pub(super) replaced: Moment,
    pub(super) now: Moment,
    pub(super) counters: &'a Counters,
    pub(super) stats: &'a WorkerStats,
    /// The current resident memory of the process in bytes.
    pub(super) resident: u64,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usage = self.stats.usage();
        let counted = |counter| self.counters.get(counter);
        let how = match (self.why, self.stats.forced()) {
            (ReplaceReason::Failed(_), _) => "by failure".to_owned(),
            (_, 0) => "gracefully".to_owned(),
            (_, count) => format!("by force with {count} requests under way"),
        };
        write!(
            f,
            "worker {} was replaced ({}): up {:.1} s, {} connections accepted and {} taken over, {} requests; at last {} \
             connections and {} requests under way, {} MiB held; ended {how} after {:.3} s; the process holds {} MiB",
            self.number,
            self.why,
            self.replaced.since(self.started).as_secs_f64(),
            counted(Counter::Accepted),
            counted(Counter::MigratedConnections),
            counted(Counter::Requests),
            usage.clients,
            usage.requests,
            usage.bytes / MIB,
            self.now.since(self.replaced).as_secs_f64(),
            self.resident / MIB,
        )
    }
}

/// Logs the settings of the file that have changed since the start: a reload does not apply them.
pub(super) fn tell_changed_settings(origin: &Origin) {
    let file = origin.file().display();
    match origin.changed_settings() {
        Ok(changed) if changed.is_empty() => {}
        Ok(changed) => log::warn!(
            "{file}: changed since the start, and in effect only after a restart or an upgrade (SIGUSR2): {}",
            changed.join(", ")
        ),
        Err(failure) => {
            failure.to_string().lines().for_each(|line| log::error!("{line}"));
            log::error!("{file}: with these faults a restart would fail; the settings stay as they were");
        }
    }
}

/// Logs the backends that operators have disabled in this process and that the successor serves from again.
pub(super) fn tell_back_in_service(backends: &[String]) {
    if !backends.is_empty() {
        log::warn!(
            "upgrade: operators have disabled these backends, and the new process serves from them until they are \
             disabled again: {}",
            backends.join(", ")
        );
    }
}

/// Logs the counters, and the number of connections accepted in each slot.
pub(super) fn tell_totals(when: &str, counters: &Counters, accepted: &[u64], lost_lines: u64) {
    let totals = Counter::ALL.iter().map(|counter| (counter.name(), counters.get(*counter)));
    let reasons = FailureReason::ALL.iter().map(|reason| (reason.name(), counters.get_reason(*reason)));
    let counted: Vec<String> = totals
        .chain(reasons)
        .chain([("lost_log_lines", lost_lines)])
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    let accepted: Vec<String> = accepted.iter().map(u64::to_string).collect();
    log::info!("connections of each worker: {}", accepted.join(", "));
    log::info!("{when}; {}", counted.join(", "));
}
