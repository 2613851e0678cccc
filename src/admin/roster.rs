//! The workers of the process, for those who read what they have counted.

use crate::base::clock::Moment;
use crate::base::counters::Counters;
use crate::net::tls::CertificateInfo;
use crate::worker::WorkerStats;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// A worker that runs.
#[derive(Clone, Debug)]
pub struct WorkerEntry {
    /// The number of its life, never given twice.
    pub id: u64,
    /// The number of its place, from 0.
    pub number: usize,
    /// When it was started.
    pub started: Moment,
    /// Whether a successor has taken its place, and it finishes what is under way.
    pub is_leaving: bool,
    /// What it counts.
    pub counters: Arc<Counters>,
    /// What it holds, as of the supervisor's last question.
    pub stats: Arc<WorkerStats>,
}

impl WorkerEntry {
    /// The label of its series: its place, and of one that has a successor the number of its life too.
    pub(super) fn label(&self) -> String {
        if self.is_leaving { format!("{}.{}", self.number, self.id) } else { self.number.to_string() }
    }
}

/// Why a worker was replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplaceCause {
    /// The process held too much memory.
    Memory,
    /// It did not turn any more.
    Stuck,
    /// It panicked, or its poll failed.
    Failed,
    /// An operator wanted it.
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
    /// The counts of the thread of health probes.
    probes: OnceLock<Arc<Counters>>,
}

#[derive(Debug, Default)]
struct List {
    workers: Vec<WorkerEntry>,
    /// What those have counted that have ended.
    past: Counters,
}

impl Roster {
    /// That of a process that was started at `now`: no worker runs.
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

    /// Notes that a successor takes the place of this worker, and why.
    pub fn note_leaving(&self, id: u64, cause: ReplaceCause) {
        if let Some(count) = self.replaced.get(cause as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(entry) = self.list().workers.iter_mut().find(|entry| entry.id == id) {
            entry.is_leaving = true;
        }
    }

    /// Removes a worker that has ended. What it has counted stays.
    pub fn remove(&self, id: u64) {
        let mut list = self.list();
        if let Some(place) = list.workers.iter().position(|entry| entry.id == id) {
            let entry = list.workers.remove(place);
            list.past.absorb(&entry.counters);
        }
    }

    /// Notes where the thread of health probes counts.
    pub fn set_probe_counters(&self, counters: Arc<Counters>) {
        // Set once: there is one such thread.
        let _ = self.probes.set(counters);
    }

    /// Notes that the process serves.
    pub fn note_ready(&self) {
        self.is_ready.store(true, Ordering::Release);
    }

    /// Notes that the process is about to end.
    pub fn note_draining(&self) {
        self.is_draining.store(true, Ordering::Release);
    }

    /// Notes how many lines of the access log were lost so far.
    pub fn note_lost_log_lines(&self, count: u64) {
        self.lost_log_lines.store(count, Ordering::Relaxed);
    }

    /// Notes the certificates of the addresses.
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

    /// How many workers were replaced, for each cause.
    pub(super) fn replaced(&self) -> impl Iterator<Item = (ReplaceCause, u64)> {
        ReplaceCause::ALL.into_iter().zip(&self.replaced).map(|(cause, count)| (cause, count.load(Ordering::Relaxed)))
    }

    /// The labels of the workers that run, and the causes of all replacements.
    #[cfg(test)]
    pub fn seen(&self) -> (Vec<String>, Vec<&'static str>) {
        let causes = self.replaced().flat_map(|(cause, count)| (0..count).map(move |_| cause.name()));
        (self.workers().iter().map(WorkerEntry::label).collect(), causes.collect())
    }

    /// The workers that run, by their places.
    pub(super) fn workers(&self) -> Vec<WorkerEntry> {
        let mut workers = self.list().workers.clone();
        workers.sort_by_key(|entry| (entry.number, entry.id));
        workers
    }

    /// What all workers have counted, those included that have ended, and what health probes have.
    pub(super) fn totals(&self) -> Counters {
        let sum = Counters::default();
        let list = self.list();
        sum.absorb(&list.past);
        self.probes.get().into_iter().for_each(|probes| sum.absorb(probes));
        list.workers.iter().for_each(|entry| sum.absorb(&entry.counters));
        sum
    }
}
