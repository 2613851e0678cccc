//! Lost lines: how many, and when to report them.

use super::Target;
use crate::base::clock::Moment;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The shortest time between two reports of losses: a full disk stays full for a while.
const REPORT_PAUSE: Duration = Duration::from_secs(10);

/// Number of lines lost since the start. Cores and the log's thread count them; any thread reads them.
#[derive(Debug, Default)]
pub(super) struct Losses {
    overflowed: AtomicU64,
    unwritten: AtomicU64,
}

impl Losses {
    /// Counts lines lost because the queue was full, or its reader had ended.
    pub(super) fn add_overflowed(&self, lines: u64) {
        self.overflowed.fetch_add(lines, Ordering::Relaxed);
    }

    /// Counts lines lost because the file did not accept them.
    pub(super) fn add_unwritten(&self, lines: u64) {
        self.unwritten.fetch_add(lines, Ordering::Relaxed);
    }

    pub(super) fn total(&self) -> u64 {
        let tally = self.tally();
        tally.overflowed + tally.unwritten
    }

    fn tally(&self) -> Tally {
        Tally { overflowed: self.overflowed.load(Ordering::Relaxed), unwritten: self.unwritten.load(Ordering::Relaxed) }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    overflowed: u64,
    unwritten: u64,
}

/// The state of reporting: the losses reported so far.
#[derive(Debug, Default)]
pub(super) struct Reporter {
    told: Tally,
    quiet_until: Option<Moment>,
    last_error: Option<io::Error>,
}

impl Reporter {
    /// Records the error of the file, for the next report.
    pub(super) fn note(&mut self, error: io::Error) {
        self.last_error = Some(error);
    }

    /// Time until the next report is due; `None` if there is nothing new.
    pub(super) fn pause(&self, losses: &Losses, now: Moment) -> Option<Duration> {
        let is_new = losses.tally() != self.told;
        is_new.then(|| self.quiet_until.map_or(Duration::ZERO, |until| until.since(now)))
    }

    /// The report, if it is due now.
    pub(super) fn report(&mut self, losses: &Losses, target: &Target, now: Moment) -> Option<String> {
        let is_due = self.pause(losses, now)?.is_zero();
        is_due.then(|| {
            self.quiet_until = Some(now + REPORT_PAUSE);
            self.tell(losses.tally(), target)
        })
    }

    /// The report at the end, due or not.
    pub(super) fn last_report(&mut self, losses: &Losses, target: &Target) -> Option<String> {
        let tally = losses.tally();
        (tally != self.told).then(|| self.tell(tally, target))
    }

    fn tell(&mut self, tally: Tally, target: &Target) -> String {
        let overflowed = tally.overflowed - self.told.overflowed;
        let unwritten = tally.unwritten - self.told.unwritten;
        self.told = tally;
        let mut causes = Vec::new();
        if unwritten > 0 {
            let error = self.last_error.take().map_or_else(|| "unknown error".to_owned(), |error| error.to_string());
            causes.push(format!("{unwritten} lines could not be written ({error})"));
        }
        if overflowed > 0 {
            causes.push(format!("{overflowed} lines were dropped because writing did not keep up"));
        }
        format!("access log {target}: {}", causes.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_reported_at_most_every_ten_seconds_and_none_is_forgotten() {
        let losses = Losses::default();
        let mut reporter = Reporter::default();
        let second = |seconds| Moment::ZERO + Duration::from_secs(seconds);
        let target = Target::File("/var/log/access.log".into());
        assert_eq!(reporter.report(&losses, &target, second(1)), None);
        assert_eq!(reporter.pause(&losses, second(1)), None);

        losses.add_overflowed(3);
        assert_eq!(reporter.pause(&losses, second(1)), Some(Duration::ZERO));
        let report = reporter.report(&losses, &target, second(1)).expect("a report");
        assert_eq!(report, "access log /var/log/access.log: 3 lines were dropped because writing did not keep up");

        losses.add_overflowed(4);
        losses.add_unwritten(5);
        reporter.note(io::Error::other("disk full"));
        assert_eq!(reporter.report(&losses, &target, second(3)), None);
        assert_eq!(reporter.pause(&losses, second(3)), Some(Duration::from_secs(8)));
        let report = reporter.report(&losses, &target, second(11)).expect("a report");
        assert!(report.contains("5 lines could not be written (disk full); 4 lines were dropped"), "{report}");
        assert_eq!(losses.total(), 12);

        assert_eq!(reporter.last_report(&losses, &target), None);
        losses.add_overflowed(1);
        assert!(reporter.last_report(&losses, &target).is_some());
    }
}
