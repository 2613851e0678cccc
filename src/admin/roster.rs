//! The workers of the process, for readers of their counters.

use crate::base::clock::Moment;
use crate::base::counters::Counters;
use crate::net::tls::CertificateInfo;
use crate::worker::WorkerStats;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// A running worker.
#[derive(Clone, Debug)]
pub struct WorkerEntry {
    /// The id of its life, never reused.
    pub id: u64,
    /// The number of its slot, from 0.
    pub number: usize,
    /// The time of its start.
    pub started: Moment,
    /// Whether a successor has replaced it and it finishes its exchanges.
    pub is_leaving: bool,
    /// Its counters.
    pub counters: Arc<Counters>,
    /// Its resources, as of the supervisor's last check.
    pub stats: Arc<WorkerStats>,
}

impl WorkerEntry {
    /// The label of its series: its slot, or one that it shares with all others that have a successor.
    pub(super) fn label(&self) -> String {
        if self.is_leaving { "draining".to_owned() } else { self.number.to_string() }
    }
}

/// Why a worker was replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplaceCause {
    /// The process used too much memory.
    Memory,
    /// It made no progress.
    Stuck,
    /// It panicked, or its poll failed.
    Failed,
    /// An operator ordered it.
    Ordered,
}

impl ReplaceCause {
    const ALL: [Self; 4] = [Self::Memory, Self::Stuck, Self::Failed, Self::Ordered];

    /// The name in metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Stuck => "stuck",
            Self::Failed => "failed",
            Self::Ordered => "ordered",
        }
    }
}

/// All workers: the supervisor writes, the admin service reads. No worker waits for its lock.
#[derive(Debug)]
pub struct Roster {
    started: Moment,
    list: Mutex<List>,
    is_draining: AtomicBool,
    is_ready: AtomicBool,
    lost_log_lines: AtomicU64,
    replaced: [AtomicU64; ReplaceCause::ALL.len()],
    certificates: Mutex<Vec<CertificateInfo>>,
    /// The counters of the thread of health probes.
    probes: OnceLock<Arc<Counters>>,
}

#[derive(Debug, Default)]
struct List {
    workers: Vec<WorkerEntry>,
    /// The counters of workers that have ended.
    past: Counters,
    /// The time for which their loops have worked, by slot.
    past_busy: BTreeMap<usize, Duration>,
}

impl Roster {
    /// The roster of a process that started at `now`, without workers.
    pub fn new(now: Moment) -> Self {
        Self {
            started: now,
            list: Mutex::default(),
            is_draining: AtomicBool::new(false),
            is_ready: AtomicBool::new(false),
            lost_log_lines: AtomicU64::new(0),
            replaced: Default::default(),
            certificates: Mutex::default(),
            probes: OnceLock::new(),
        }
    }

    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a worker.
    pub fn add(&self, entry: WorkerEntry) {
        self.list().workers.push(entry);
    }

    /// Records that a successor replaces this worker, and why.
    pub fn note_leaving(&self, id: u64, cause: ReplaceCause) {
        if let Some(count) = self.replaced.get(cause as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(entry) = self.list().workers.iter_mut().find(|entry| entry.id == id) {
            entry.is_leaving = true;
        }
    }

    /// Removes a worker that has ended. Its counts stay.
    pub fn remove(&self, id: u64) {
        let mut list = self.list();
        if let Some(place) = list.workers.iter().position(|entry| entry.id == id) {
            let entry = list.workers.remove(place);
            list.past.absorb(&entry.counters);
            *list.past_busy.entry(entry.number).or_default() += entry.stats.usage().busy;
        }
    }

    /// Sets the counters of the thread of health probes.
    pub fn set_probe_counters(&self, counters: Arc<Counters>) {
        // It is set once: there is only one such thread.
        let _ = self.probes.set(counters);
    }

    /// Records that the process serves.
    pub fn note_ready(&self) {
        self.is_ready.store(true, Ordering::Release);
    }

    /// Records that the process is about to end.
    pub fn note_draining(&self) {
        self.is_draining.store(true, Ordering::Release);
    }

    /// Sets the number of access log lines lost so far.
    pub fn note_lost_log_lines(&self, count: u64) {
        self.lost_log_lines.store(count, Ordering::Relaxed);
    }

    /// Sets the certificates of the addresses.
    pub fn set_certificates(&self, certificates: Vec<CertificateInfo>) {
        *self.certificates.lock().unwrap_or_else(PoisonError::into_inner) = certificates;
    }

    pub(super) fn certificates(&self) -> Vec<CertificateInfo> {
        self.certificates.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn started(&self) -> Moment {
        self.started
    }

    pub(super) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Acquire)
    }

    pub(super) fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Acquire)
    }

    pub(super) fn lost_log_lines(&self) -> u64 {
        self.lost_log_lines.load(Ordering::Relaxed)
    }

    /// Number of replaced workers, for each cause.
    pub(super) fn replaced(&self) -> impl Iterator<Item = (ReplaceCause, u64)> {
        ReplaceCause::ALL.into_iter().zip(&self.replaced).map(|(cause, count)| (cause, count.load(Ordering::Relaxed)))
    }

    /// The labels of the running workers, and the causes of all replacements.
    #[cfg(test)]
    pub fn seen(&self) -> (Vec<String>, Vec<&'static str>) {
        let causes = self.replaced().flat_map(|(cause, count)| (0..count).map(move |_| cause.name()));
        (self.workers().iter().map(WorkerEntry::label).collect(), causes.collect())
    }

    /// The running workers, sorted by slot.
    pub(super) fn workers(&self) -> Vec<WorkerEntry> {
        self.workers_and_past().0
    }

    /// The running workers, sorted by slot, and the time for which the loops of ended ones have worked, by slot.
    pub(super) fn workers_and_past(&self) -> (Vec<WorkerEntry>, BTreeMap<usize, Duration>) {
        let list = self.list();
        let (mut workers, past) = (list.workers.clone(), list.past_busy.clone());
        drop(list);
        workers.sort_by_key(|entry| (entry.number, entry.id));
        (workers, past)
    }

    /// The counts of all workers, including ended ones, and of health probes.
    pub(super) fn totals(&self) -> Counters {
        let sum = Counters::default();
        let list = self.list();
        sum.absorb(&list.past);
        self.probes.get().into_iter().for_each(|probes| sum.absorb(probes));
        list.workers.iter().for_each(|entry| sum.absorb(&entry.counters));
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::super::worker_series::{WorkerSeries, busy};
    use super::*;
    use crate::worker::WorkerStats;

    #[test]
    fn replacements_make_no_new_series_and_no_counter_falls() {
        let roster = Roster::new(Moment::ZERO);
        let add = |id: u64| {
            let stats = Arc::new(WorkerStats::with_busy(Duration::from_secs(id)));
            let (number, started) = ((id % 2) as usize, Moment::ZERO);
            roster.add(WorkerEntry { id, number, started, is_leaving: false, counters: Arc::default(), stats });
        };
        (0..2).for_each(add);
        let mut before = BTreeMap::new();
        for id in 2..40 {
            roster.note_leaving(id - 2, ReplaceCause::Memory);
            add(id);
            // A worker drains while five later ones start.
            if id >= 7 {
                roster.remove(id - 7);
            }
            let (workers, past) = roster.workers_and_past();
            let mut labels: Vec<_> = WorkerSeries::of(&workers).into_iter().map(|series| series.label).collect();
            labels.sort_unstable();
            assert_eq!(labels, ["0", "1", "draining"], "{id}");
            let now = busy(&workers, &past);
            assert!(before.iter().all(|(slot, time)| now[slot] >= *time), "{id}: {now:?} after {before:?}");
            let all = (0..=id).filter(|other| other % 2 == 0).sum();
            assert_eq!(now[&0], Duration::from_secs(all), "{id}: all workers of the slot");
            before = now;
        }
    }
}
