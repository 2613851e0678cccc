//! The names of backends, looked up off the cores by a few threads, and again for as long as a backend lives.
//!
//! The schedule holds one entry a living backend and none alive. Names that were never looked up come before those
//! that are due again, and one thread serves nothing else, so names that hang do not hold up new ones.

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
/// After a failure a name is looked up again this soon, then after twice the time, up to the refresh.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Names are never looked up again sooner than this, whatever is set.
const MIN_REFRESH: Duration = Duration::from_millis(1);
/// More addresses than this of one name are not tried.
const MAX_ADDRESSES: usize = 32;
/// Below this number of entries no purge is worth its walk.
const MIN_PURGE: usize = 1024;
/// How long the end waits for look-ups under way. The system's resolver cannot be interrupted: a thread that still
/// hangs in it then is left to end by itself.
const STOP_PATIENCE: Duration = Duration::from_millis(200);

/// Asks the system, or whoever stands in for it in a test, for the addresses of a name.
pub(super) type Resolve = dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// The threads that look up names. They end when this is dropped.
#[derive(Debug)]
pub(super) struct DnsResolver {
    state: Arc<ResolverState>,
    threads: Vec<JoinHandle<()>>,
}

impl DnsResolver {
    /// Starts the threads. Each name is looked up again every `refresh`, and what is new is told to `cores`.
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

    /// Looks up the name of a backend, now and from time to time.
    pub(super) fn add(&self, backend: &Arc<Backend>) {
        self.state.add(backend);
    }

    /// Another way to these threads, which does not keep them at work.
    pub(super) fn names(&self) -> DnsNames {
        DnsNames(Arc::clone(&self.state))
    }
}

/// A way to the threads that look up names.
#[derive(Clone, Debug)]
pub(super) struct DnsNames(Arc<ResolverState>);

impl DnsNames {
    /// Looks up the name of a backend, now and from time to time.
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

/// The system's resolver.
pub(super) fn system_resolver() -> Box<Resolve> {
    Box::new(|host, port| std::net::ToSocketAddrs::to_socket_addrs(&(host, port)).map(Iterator::collect))
}

/// What the threads share.
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
    /// Never looked up so far.
    fresh: VecDeque<Weak<Backend>>,
    /// By the moment of the next look-up; the number tells entries of the same moment apart.
    due: BTreeMap<(Moment, u64), Task>,
    next_number: u64,
    purge_at: usize,
    running: usize,
    is_stopping: bool,
}

#[derive(Debug)]
struct Task {
    backend: Weak<Backend>,
    /// How long to wait after the next failure.
    retry: Duration,
}

impl Schedule {
    /// Drops the entries of backends that are gone, at a cost that the additions since the last time pay for.
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

    /// The life of one thread.
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

    /// Looks up one name. Returns the task again and how long to wait; `None` if the backend is gone.
    fn perform(&self, task: Task) -> Option<(Duration, Task)> {
        // A look-up that hangs must not keep its backend alive.
        let (host, port) =
            task.backend.upgrade().map(|backend| (backend.endpoint().host().to_owned(), backend.endpoint().port()))?;
        let found = (self.resolve)(&host, port);
        let backend = task.backend.upgrade()?;
        let (after, retry) = match found {
            Ok(mut addresses) if !addresses.is_empty() => {
                addresses.truncate(MAX_ADDRESSES);
                self.tell(&backend, addresses);
                (self.refresh, FIRST_RETRY.min(self.refresh))
            }
            failure => {
                let what = failure.err().map_or_else(|| "no address".to_owned(), |error| error.to_string());
                let known = backend.addresses();
                let note = if matches!(known, Addresses::Known(_)) { "; what was known is used on" } else { "" };
                log::warn!("looking up {host} of the backend {}: {what}{note}", backend.endpoint());
                if backend.set_addresses(Addresses::NotFound) {
                    self.subscribers.tell_all(&RouteEvent::Addresses { backend: backend.id() });
                }
                (task.retry, (2 * task.retry).min(self.refresh))
            }
        };
        Some((after, Task { backend: task.backend, retry }))
    }

    fn tell(&self, backend: &Backend, addresses: Vec<SocketAddr>) {
        // Servers of names change the order from answer to answer; that is no news.
        if let Addresses::Known(known) = backend.addresses()
            && known.len() == addresses.len()
            && known.iter().all(|address| addresses.contains(address))
        {
            return;
        }
        if backend.set_addresses(Addresses::Known(addresses.into())) {
            self.subscribers.tell_all(&RouteEvent::Addresses { backend: backend.id() });
        }
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
