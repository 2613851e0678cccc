//! The series of workers: one label for each slot, and one for all workers that a successor has replaced, so that
//! replacements make no new series.

use super::roster::WorkerEntry;
use crate::worker::ResourceUsage;
use std::collections::BTreeMap;
use std::time::Duration;

/// The resources of the workers that share a label.
#[derive(Debug)]
pub(super) struct WorkerSeries {
    pub(super) label: String,
    /// How many of them drain.
    pub(super) draining: u64,
    usages: Vec<ResourceUsage>,
}

impl WorkerSeries {
    /// The series of these workers, by label.
    pub(super) fn of(workers: &[WorkerEntry]) -> Vec<Self> {
        let mut series: Vec<Self> = Vec::new();
        for worker in workers {
            let label = worker.label();
            let (usage, draining) = (worker.stats.usage(), worker.is_leaving.into());
            match series.iter_mut().find(|series| series.label == label) {
                Some(series) => {
                    series.usages.push(usage);
                    series.draining += draining;
                }
                None => series.push(Self { label, draining, usages: vec![usage] }),
            }
        }
        series
    }

    /// The sum of a resource.
    pub(super) fn sum(&self, read: fn(&ResourceUsage) -> u64) -> u64 {
        self.usages.iter().map(read).sum()
    }

    /// The longest turn of a loop.
    pub(super) fn longest_turn(&self) -> Duration {
        self.usages.iter().map(|usage| usage.longest_turn).max().unwrap_or_default()
    }
}

/// The time for which the loops of each slot have worked, those of workers before the present one included: it never
/// falls.
pub(super) fn busy(workers: &[WorkerEntry], past: &BTreeMap<usize, Duration>) -> BTreeMap<usize, Duration> {
    workers.iter().fold(past.clone(), |mut sums, worker| {
        *sums.entry(worker.number).or_default() += worker.stats.usage().busy;
        sums
    })
}
