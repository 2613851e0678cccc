//! Resolution of backend names by a few threads, repeated for as long as a backend lives.
//!
//! The schedule has one entry for each living backend and keeps none alive. New names come before names that are due
//! again, and one thread serves only new names, so look-ups that hang do not delay new names.

mod client;
mod lookup;
mod system;

pub use lookup::DnsServers;
pub(super) use lookup::resolver;

use super::{RouteEvent, Subscribers};
use crate::base::clock::{Clock, Moment};
use crate::cluster::{Addresses, Backend};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

const THREADS: usize = 4;
/// Delay of the first retry after a failure; it doubles up to the refresh interval.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// The shortest refresh interval, whatever is configured.
const MIN_REFRESH: Duration = Duration::from_millis(1);
/// The greatest number of addresses used for one name.
const MAX_ADDRESSES: usize = 32;
/// Records are used for so long at least, whatever their time to live.
const MIN_TTL: Duration = Duration::from_secs(1);
/// Below this number of entries a purge is not worth its cost.
const MIN_PURGE: usize = 1024;
/// The limit of the wait for look-ups at the end. The system's resolver cannot be interrupted: a thread that still
/// hangs in it is left to end by itself.
const STOP_PATIENCE: Duration = Duration::from_millis(200);

/// Resolves a name, by the system or by a test's replacement.
pub(super) type Resolve = dyn Fn(&str, u16) -> io::Result<Found> + Send + Sync;

/// The addresses of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// The addresses, each with its weight: 1 where none has one (RFC 2782).
    addresses: Vec<(SocketAddr, u32)>,
    /// How long they are good, where that is known.
    ttl: Option<Duration>,
}

/// The resolver threads. They end when this is dropped.
#[derive(Debug)]
pub(super) struct DnsResolver {
    state: Arc<ResolverState>,
    threads: Vec<JoinHandle<()>>,
}

impl DnsResolver {
    /// Starts the threads. Each name is resolved again every `refresh`, and changes are sent to `cores`.
    pub(super) fn start(
        resolve: Box<Resolve>,
        refresh: Duration,
        subscribers: Subscribers,
        clock: Clock,
    ) -> io::Result<Self> {
        let schedule = Schedule { purge_at: MIN_PURGE, ..Schedule::default() };
        let refresh = refresh.max(MIN_REFRESH);
        let state = ResolverState {
            schedule: Mutex::new(schedule),
            changed: Condvar::new(),
            resolve,
            refresh,
            subscribers,
            clock,
        };
        let mut resolver = Self { state: Arc::new(state), threads: Vec::new() };
        for number in 0..THREADS {
            let state = Arc::clone(&resolver.state);
            let thread = std::thread::Builder::new().name(format!("names-{number}"));
            resolver.state.lock().running += 1;
            resolver.threads.push(thread.spawn(move || state.serve(number > 0))?);
        }
        Ok(resolver)
    }

    /// Resolves the name of a backend, now and periodically.
    pub(super) fn add(&self, backend: &Arc<Backend>) {
        self.state.add(backend);
    }

    /// A handle to these threads, which does not keep them running.
    pub(super) fn names(&self) -> DnsNames {
        DnsNames(Arc::clone(&self.state))
    }
}

/// A handle to the resolver threads.
#[derive(Clone, Debug)]
pub(super) struct DnsNames(Arc<ResolverState>);

impl DnsNames {
    /// Resolves the name of a backend, now and periodically.
    pub(super) fn add(&self, backend: &Arc<Backend>) {
        self.0.add(backend);
    }
}

impl Drop for DnsResolver {
    fn drop(&mut self) {
        let mut schedule = self.state.lock();
        schedule.is_stopping = true;
        self.state.changed.notify_all();
        let deadline = self.state.clock.now() + STOP_PATIENCE;
        while schedule.running > 0 {
            let left = deadline.since(self.state.clock.now());
            if left.is_zero() {
                break;
            }
            schedule = self.state.wait(schedule, Some(left));
        }
        drop(schedule);
        for thread in self.threads.drain(..).filter(JoinHandle::is_finished) {
            if thread.join().is_err() {
                log::error!("a thread that looks up names of backends had panicked");
            }
        }
    }
}

/// State shared by the threads.
struct ResolverState {
    schedule: Mutex<Schedule>,
    changed: Condvar,
    resolve: Box<Resolve>,
    refresh: Duration,
    subscribers: Subscribers,
    clock: Clock,
}

#[derive(Debug, Default)]
struct Schedule {
    /// Names that were never resolved.
    fresh: VecDeque<Weak<Backend>>,
    /// By the moment of the next look-up; a number distinguishes entries of the same moment.
    due: BTreeMap<(Moment, u64), Task>,
    next_number: u64,
    purge_at: usize,
    running: usize,
    is_stopping: bool,
}

#[derive(Debug)]
struct Task {
    backend: Weak<Backend>,
    /// Delay after the next failure.
    retry: Duration,
}

impl Schedule {
    /// Drops the entries of backends that are gone. The additions since the last purge pay for its cost.
    fn purge(&mut self) {
        if self.fresh.len() + self.due.len() < self.purge_at {
            return;
        }
        self.fresh.retain(|backend| backend.strong_count() > 0);
        self.due.retain(|_, task| task.backend.strong_count() > 0);
        self.purge_at = MIN_PURGE.max(2 * (self.fresh.len() + self.due.len()));
    }
}

impl ResolverState {
    fn add(&self, backend: &Arc<Backend>) {
        let mut schedule = self.lock();
        schedule.purge();
        schedule.fresh.push_back(Arc::downgrade(backend));
        self.changed.notify_all();
    }

    /// The loop of one thread.
    fn serve(&self, serves_due: bool) {
        while let Some(task) = self.next(serves_due) {
            if let Some((after, task)) = self.perform(task) {
                let mut schedule = self.lock();
                let number = schedule.next_number;
                schedule.next_number += 1;
                schedule.due.insert((self.clock.now() + after, number), task);
                self.changed.notify_all();
            }
        }
        self.lock().running -= 1;
        self.changed.notify_all();
    }

    /// Waits for the next task; `None` at the end.
    fn next(&self, serves_due: bool) -> Option<Task> {
        let mut schedule = self.lock();
        loop {
            if schedule.is_stopping {
                return None;
            }
            if let Some(backend) = schedule.fresh.pop_front() {
                return Some(Task { backend, retry: FIRST_RETRY.min(self.refresh) });
            }
            let now = self.clock.now();
            let wait = match schedule.due.first_key_value() {
                Some(((due, _), _)) if serves_due && *due <= now => {
                    return schedule.due.pop_first().map(|(_, task)| task);
                }
                Some(((due, _), _)) if serves_due => Some(due.since(now)),
                _ => None,
            };
            schedule = self.wait(schedule, wait);
        }
    }

    /// Resolves one name. Returns the task and its next delay; `None` if the backend is gone.
    fn perform(&self, task: Task) -> Option<(Duration, Task)> {
        // A look-up that hangs must not keep its backend alive.
        let (host, port) =
            task.backend.upgrade().map(|backend| (backend.endpoint().host().to_owned(), backend.endpoint().port()))?;
        let found = (self.resolve)(&host, port);
        let backend = task.backend.upgrade()?;
        let (after, retry) = match found {
            Ok(Found { mut addresses, ttl }) if !addresses.is_empty() => {
                addresses.truncate(MAX_ADDRESSES);
                if backend.set_weighted(&addresses) {
                    self.subscribers.tell_all(&RouteEvent::Addresses { backend: backend.id() });
                }
                let after = ttl.map_or(self.refresh, |ttl| ttl.clamp(MIN_TTL.min(self.refresh), self.refresh));
                (after, FIRST_RETRY.min(self.refresh))
            }
            failure => {
                let what = failure.err().map_or_else(|| "no address".to_owned(), |error| error.to_string());
                let known = backend.addresses();
                let note = if matches!(known, Addresses::Known(_)) { "; known addresses stay in use" } else { "" };
                log::warn!("looking up {host} of the backend {}: {what}{note}", backend.endpoint());
                if backend.set_addresses(Addresses::NotFound) {
                    self.subscribers.tell_all(&RouteEvent::Addresses { backend: backend.id() });
                }
                (task.retry, (2 * task.retry).min(self.refresh))
            }
        };
        Some((after, Task { backend: task.backend, retry }))
    }

    fn lock(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'s>(&self, schedule: MutexGuard<'s, Schedule>, at_most: Option<Duration>) -> MutexGuard<'s, Schedule> {
        match at_most {
            None => self.changed.wait(schedule).unwrap_or_else(PoisonError::into_inner),
            Some(at_most) => self.changed.wait_timeout(schedule, at_most).unwrap_or_else(PoisonError::into_inner).0,
        }
    }
}

impl std::fmt::Debug for ResolverState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Office")
            .field("schedule", &self.schedule)
            .field("refresh", &self.refresh)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
