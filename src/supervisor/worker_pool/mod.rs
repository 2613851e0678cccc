//! The workers: started, replaced and ended, each on its own thread.
//!
//! A worker has a *slot*: its processor, its listening sockets and its hand-off queue. They outlive the worker, so a
//! replacement does not affect connections in the queue of a socket, or on their way from one worker to another.

mod monitor;
mod ports;
mod stand_in;

use super::haproxy::HaproxyManager;
use super::listeners::Listeners;
use super::memory::{MemoryPolicy, MemoryTrim, WorkerId};
use super::probes::ProbeThreads;
use super::report::{ReplaceReason, Report};
use super::watchdog::{RestartBackoff, WatchdogState};
use super::{Error, Event, affinity, certificates, limits};
use crate::access_log::Log;
use crate::admin::{ReplaceCause, Roster, WorkerEntry};
use crate::base::clock::{Clock, Moment};
use crate::base::counters::{Counter, Counters};
use crate::cache::store::Store;
use crate::cluster::Tenants;
use crate::config::Settings;
use crate::directory::Directory;
use crate::net::connection_limiter::ConnectionLimiter;
use crate::net::mailbox::MailboxSender;
use crate::page::Pages;
use crate::worker::{
    DrainTarget, HandoffQueue, PortableClient, RequestMail, ServiceSender, Worker, WorkerCommand, WorkerConfig,
    WorkerStats,
};
use crossbeam_channel::Sender;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// The interval of retries to start a worker for which the system had no thread, file or memory.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// The longest time for which a slot stays empty after repeated failures, if no other worker can stand in.
const ALONE: Duration = Duration::from_secs(1);

/// The data that workers share.
pub(super) struct WorkerDeps {
    pub(super) settings: Settings,
    pub(super) directory: Directory,
    pub(super) log: Log,
    pub(super) pages: Arc<Pages>,
    /// The certificates of the addresses.
    pub(super) certificates: certificates::CertificateManager,
    /// The served HAProxy files.
    pub(super) haproxy: HaproxyManager,
    /// The thread of health probes.
    pub(super) probes: ProbeThreads,
    /// The limit of connections for each client address.
    pub(super) limiter: Option<Arc<ConnectionLimiter>>,
    /// The tenants that share this node.
    pub(super) tenants: Option<Arc<Tenants>>,
    /// The workers in the view of the admin service.
    pub(super) roster: Arc<Roster>,
    /// The object cache of all workers.
    pub(super) cache: Option<Arc<Store>>,
    /// The sender of requests to this node.
    pub(super) service: Option<ServiceSender>,
    pub(super) clock: Clock,
}

/// All workers, and their history.
pub(super) struct WorkerPool {
    pub(super) deps: WorkerDeps,
    /// The listening sockets, until the end begins. The workers accept from handles of their own: a socket listens as
    /// long as a handle exists.
    pub(super) listeners: Option<Listeners>,
    slots: Vec<WorkerSlot>,
    running: BTreeMap<WorkerId, WorkerHandle>,
    begun: u64,
    /// The counts of workers that have ended.
    past: Counters,
    /// The slot for the next client from another process.
    next_handoff: usize,
    policy: Option<MemoryPolicy>,
    /// The time of the next memory check.
    memory_due: Moment,
    memory_trim: MemoryTrim,
    backoff: RestartBackoff,
    ending: Option<Ending>,
    events: Sender<Event>,
    /// Workers that have not got all their listening sockets.
    unassigned: BTreeSet<WorkerId>,
    /// For tests: no worker can start, as if the system had no resources.
    #[cfg(test)]
    pub(super) is_starved: bool,
    /// For tests: this worker cannot get its sockets, as if the process had no file left.
    #[cfg(test)]
    pub(super) starved_worker: Option<usize>,
}

/// How the workers end.
#[derive(Clone)]
enum Ending {
    Stop,
    /// Their clients move to another process.
    HandOver(DrainTarget),
}

impl Ending {
    fn command(&self) -> WorkerCommand {
        match self {
            Self::Stop => WorkerCommand::Stop,
            Self::HandOver(drain_target) => WorkerCommand::HandOver(drain_target.clone()),
        }
    }
}

/// The place of a worker.
struct WorkerSlot {
    cpu: affinity::CpuPlacement,
    handoff: HandoffQueue,
    /// The worker that accepts there.
    current: Option<WorkerId>,
    /// The slot is empty; a worker starts at this moment.
    empty_until: Option<Moment>,
    /// The worker that accepts there until then, besides its own slot.
    stand_in: Option<WorkerId>,
    /// Number of connections accepted by earlier workers of this slot.
    accepted: u64,
}

/// A worker that runs.
struct WorkerHandle {
    number: usize,
    commands: MailboxSender<WorkerCommand>,
    request_mail: Arc<RequestMail>,
    counters: Arc<Counters>,
    stats: Arc<WorkerStats>,
    started: Moment,
    watch: WatchdogState,
    /// When and why it was told to hand over.
    replaced: Option<(Moment, ReplaceReason)>,
    /// It makes no progress, so it is not waited for.
    is_stuck: bool,
}

impl WorkerPool {
    /// A pool without workers, with slots for these listeners.
    pub(super) fn new(
        deps: WorkerDeps,
        listeners: Listeners,
        cpus: &[affinity::CpuPlacement],
        events: Sender<Event>,
    ) -> Self {
        let slot = |cpu| WorkerSlot {
            cpu,
            handoff: HandoffQueue::default(),
            current: None,
            empty_until: None,
            stand_in: None,
            accepted: 0,
        };
        let supervision = &deps.settings.supervision;
        let cache = deps.cache.as_ref().map_or(0, |store| store.most_memory());
        let limit = limits::memory(supervision.memory_limit, cpus.len(), cache);
        let interval = supervision.memory_check_interval;
        let policy = limit.map(|limit| MemoryPolicy::new(limits::beside_cache(limit, cache), interval));
        Self {
            deps,
            listeners: Some(listeners),
            slots: cpus.iter().copied().map(slot).collect(),
            running: BTreeMap::new(),
            begun: 0,
            past: Counters::default(),
            next_handoff: 0,
            policy,
            memory_due: Moment::ZERO,
            memory_trim: MemoryTrim::new(interval),
            backoff: RestartBackoff::default(),
            ending: None,
            events,
            unassigned: BTreeSet::new(),
            #[cfg(test)]
            is_starved: false,
            #[cfg(test)]
            starved_worker: None,
        }
    }

    /// Starts a worker in each slot. If one could not start, it returns an error; others stand in then, and the start
    /// is retried.
    pub(super) fn start(&mut self) -> Result<(), Error> {
        let mut started = Ok(());
        for number in 0..self.slots.len() {
            if let Err(error) = self.begin(number) {
                self.slots[number].empty_until = Some(self.deps.clock.now() + TRY_AGAIN);
                started = started.and(Err(Error::System("starting a worker", error)));
            }
        }
        self.assign_stand_ins();
        started
    }

    /// The interval at which [`WorkerPool::look`] has to be called.
    pub(super) fn interval(&self) -> Duration {
        let supervision = &self.deps.settings.supervision;
        supervision.memory_check_interval.min(supervision.watchdog / 4)
    }

    /// Starts a worker in this slot. It accepts from now on; the worker that leaves the slot hands over to it.
    fn begin(&mut self, number: usize) -> io::Result<()> {
        #[cfg(test)]
        if self.is_starved {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let id = WorkerId(self.begun);
        let (counters, stats) = (Arc::<Counters>::default(), Arc::<WorkerStats>::default());
        let (worker, commands) = self.make_worker(number, &counters, &stats)?;
        let request_mail = worker.request_mail();
        let Some(slot) = self.slots.get_mut(number) else { return Ok(()) };
        let (cpu, events) = (slot.cpu, self.events.clone());
        let work = move || {
            cpu.take();
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| worker.run()));
            let result = match result {
                Ok(result) => result.map_err(|error| error.to_string()),
                Err(_) => Err("it panicked".to_owned()),
            };
            // It fails only after the supervisor has ended, and then there is no receiver.
            let _ = events.send(Event::WorkerEnded(id, result));
        };
        thread::Builder::new().name(format!("worker-{number}")).spawn(work)?;
        self.begun += 1;
        (slot.current, slot.empty_until) = (Some(id), None);
        for leaving in self.running.values().filter(|other| other.number == number) {
            leaving.commands.send(WorkerCommand::HandOver(DrainTarget::Worker(slot.handoff.clone(), commands.clone())));
        }
        let started = self.deps.clock.now();
        let watch = WatchdogState::new(started);
        self.deps.roster.add(WorkerEntry {
            id: id.0,
            number,
            started,
            is_leaving: false,
            counters: Arc::clone(&counters),
            stats: Arc::clone(&stats),
        });
        let (replaced, is_stuck) = (None, false);
        let handle =
            WorkerHandle { number, commands, request_mail, counters, stats, started, watch, replaced, is_stuck };
        self.running.insert(id, handle);
        Ok(())
    }

    fn make_worker(
        &self,
        number: usize,
        counters: &Arc<Counters>,
        stats: &Arc<WorkerStats>,
    ) -> io::Result<(Worker, MailboxSender<WorkerCommand>)> {
        let (deps, settings) = (&self.deps, &self.deps.settings);
        Worker::new(WorkerConfig {
            number,
            listeners: self
                .listeners
                .as_ref()
                .map_or_else(|| Ok(Vec::new()), |listeners| listeners.of_worker(number))?,
            frontends: deps.haproxy.frontends(),
            handoff: self.slots[number].handoff.clone(),
            tls: deps.certificates.worker_tls().or_else(|| deps.haproxy.worker_tls()),
            backend_tls: deps.certificates.backend_tls(),
            limiter: deps.limiter.clone(),
            settings: settings.worker.clone(),
            exchange: settings.exchange.clone(),
            upstream: settings.upstream.clone(),
            route: settings.route.clone(),
            directory: deps.directory.clone(),
            log: deps.log.clone(),
            pages: Arc::clone(&deps.pages),
            counters: Arc::clone(counters),
            stats: Arc::clone(stats),
            tenants: deps.tenants.clone(),
            cache: deps.cache.clone(),
            service: deps.service.clone(),
            clock: deps.clock,
        })
    }

    /// Replaces the worker of this slot. The error says why not: there is none, or it is leaving already.
    pub(super) fn renew(&mut self, number: usize) -> Result<(), String> {
        let is_leaving = self.running.values().any(|each| each.number == number && each.replaced.is_some());
        let current = self.slots.get(number).and_then(|slot| slot.current);
        match current {
            _ if self.ending.is_some() => Err("all workers are ending".to_owned()),
            _ if is_leaving => Err(format!("the previous worker in slot {number} still finishes its exchanges")),
            None => Err(format!("no worker runs in slot {number} at the moment")),
            Some(id) => self.replace(id, ReplaceReason::Ordered),
        }
    }

    /// Gives a worker a successor and makes it hand over. If no successor can start, it stays.
    fn replace(&mut self, id: WorkerId, why: ReplaceReason) -> Result<(), String> {
        let number = self.running.get(&id).map(|old| old.number).ok_or("it has ended")?;
        match self.begin(number) {
            Ok(()) => {
                log::warn!("worker {number}: {why}; a successor has taken over");
                if let Some(old) = self.running.get_mut(&id) {
                    self.deps.roster.note_leaving(id.0, why.cause());
                    old.replaced = Some((self.deps.clock.now(), why));
                }
                Ok(())
            }
            Err(error) => {
                log::error!("worker {number}: {why}, but there can be no successor: {error}");
                Err(format!("there can be no successor: {error}"))
            }
        }
    }

    /// Handles the end of a worker's thread.
    pub(super) fn ended(&mut self, id: WorkerId, how: Result<(), String>) {
        let Some(old) = self.running.remove(&id) else { return };
        self.past.absorb(&old.counters);
        let is_unplanned = old.replaced.is_none() && self.ending.is_none();
        if is_unplanned {
            self.deps.roster.note_leaving(id.0, ReplaceCause::Failed);
        }
        self.deps.roster.remove(id.0);
        let Some(slot) = self.slots.get_mut(old.number) else { return };
        slot.accepted += old.counters.get(Counter::Accepted);
        let is_current = slot.current == Some(id);
        if self.ending.is_some() {
            self.finish_handoff(old.number);
            if how.is_ok() {
                return;
            }
        }
        let now = self.deps.clock.now();
        let (replaced, planned) =
            old.replaced.clone().unwrap_or_else(|| (now, ReplaceReason::Failed("it ended".into())));
        let why = how.err().map_or(planned, ReplaceReason::Failed);
        if is_current && self.ending.is_none() {
            self.fill(old.number, &why, now);
        }
        // Its memory is free now, but would still count as used.
        self.release_memory();
        let (counters, stats) = (&*old.counters, &*old.stats);
        let resident = limits::resident_bytes().unwrap_or(0);
        let report =
            Report { number: old.number, why: &why, started: old.started, replaced, now, counters, stats, resident };
        log::info!("{report}");
    }

    /// Fills the slot of a worker that has failed.
    fn fill(&mut self, number: usize, why: &ReplaceReason, now: Moment) {
        let has_neighbour = self.neighbour(number).is_some();
        let delay = self.backoff.delay(now).min(if has_neighbour { Duration::MAX } else { ALONE });
        if let Some(slot) = self.slots.get_mut(number) {
            (slot.current, slot.empty_until) = (None, Some(now + delay));
        }
        if delay.is_zero() {
            log::error!("worker {number}: {why}; another one starts");
        } else {
            let (limit, seconds) = (RestartBackoff::AT_ONCE, delay.as_secs());
            let meanwhile = if has_neighbour { "another one accepts" } else { "no worker accepts" };
            log::error!(
                "worker {number}: {why}; MORE THAN {limit} WORKERS HAVE FAILED WITHIN A MINUTE: the next one starts in \
                 {seconds} s, and until then {meanwhile} in its slot"
            );
        }
        self.fill_slots(now);
    }

    fn fill_slots(&mut self, now: Moment) {
        for number in 0..self.slots.len() {
            let is_due = self.slots.get(number).and_then(|slot| slot.empty_until).is_some_and(|due| due <= now);
            if is_due && let Err(error) = self.begin(number) {
                log::error!("worker {number}: starting another one: {error}; trying again soon");
                self.slots[number].empty_until = Some(now + TRY_AGAIN);
            }
        }
        self.assign_stand_ins();
    }

    /// Number of slots.
    pub(super) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Imports a client from outside, rotating over the slots.
    pub(super) fn import(&mut self, client: PortableClient) {
        let count = self.slots.len().max(1);
        let next = (self.next_handoff + 1) % count;
        let works = |number: &usize| self.slots.get(*number).is_some_and(|slot| self.works_at(slot).is_some());
        self.next_handoff = (next..count).chain(0..next).find(works).unwrap_or(next);
        let Some(slot) = self.slots.get(self.next_handoff) else { return };
        // If the slot is empty at the moment, its next worker checks the queue first.
        let is_first = slot.handoff.put(vec![client.into()]);
        if let Some(current) = slot.current.and_then(|id| self.running.get(&id)).filter(|_| is_first) {
            current.commands.send(WorkerCommand::Arrivals);
        }
        if self.ending.is_some() {
            self.finish_handoff(self.next_handoff);
        }
    }

    /// Number of connections accepted in each slot.
    pub(super) fn accepted(&self) -> Vec<u64> {
        let mut accepted: Vec<u64> = self.slots.iter().map(|slot| slot.accepted).collect();
        for each in self.running.values() {
            if let Some(count) = accepted.get_mut(each.number) {
                *count += each.counters.get(Counter::Accepted);
            }
        }
        accepted
    }

    /// Whether the order to stop is complete, except for stuck workers, which would never end.
    pub(super) fn have_ended(&self) -> bool {
        self.ending.is_some() && self.running.values().all(|each| each.is_stuck)
    }

    /// Ends all workers.
    pub(super) fn stop(&mut self) {
        self.check_queues();
        self.end(Ending::Stop);
    }

    /// Ends all workers, and moves their clients to another process.
    pub(super) fn hand_over(&mut self, drain_target: &DrainTarget) {
        self.end(Ending::HandOver(drain_target.clone()));
    }

    fn end(&mut self, ending: Ending) {
        self.listeners = None;
        self.tell_all(|| ending.command());
        self.ending = Some(ending);
    }

    /// Number of workers started so far.
    pub(super) fn begun(&self) -> u64 {
        self.begun
    }

    /// Sends a command to the worker of this slot.
    #[cfg(test)]
    pub(super) fn tell(&self, number: usize, command: WorkerCommand) {
        let current = self.slots[number].current.and_then(|id| self.running.get(&id));
        current.expect("a worker there").commands.send(command);
    }

    /// The queue of clients that move to this slot.
    #[cfg(test)]
    pub(super) fn handoff(&self, number: usize) -> HandoffQueue {
        self.slots[number].handoff.clone()
    }

    /// Number of running workers.
    #[cfg(test)]
    pub(super) fn running(&self) -> usize {
        self.running.len()
    }

    /// Number of workers that have successors and have not ended yet.
    #[cfg(test)]
    pub(super) fn leaving(&self) -> usize {
        self.running.values().filter(|each| each.replaced.is_some()).count()
    }

    pub(super) fn tell_all(&self, command: impl Fn() -> WorkerCommand) {
        for each in self.running.values() {
            if !each.commands.send(command()) {
                log::error!("worker {}: its mailbox is full of unread commands; this one is lost", each.number);
            }
        }
    }

    /// The counts of all workers, including those that have ended.
    pub(super) fn counters(&self) -> Counters {
        let sum = Counters::default();
        sum.absorb(&self.past);
        sum.absorb(self.deps.probes.counters());
        self.running.values().for_each(|each| sum.absorb(&each.counters));
        sum
    }
}
