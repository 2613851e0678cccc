//! The workers that run: begun, replaced and ended, each on a thread of its own.
//!
//! A worker has a *place*: its processor, its listening sockets and its landing. They outlive it, so whoever waits in the
//! queue of a socket, or is on the way from one worker to another, never notices that one goes and the next one comes.

use super::doors::Doors;
use super::memory::{Candidate, Decision, Ebb, Policy};
use super::report::{Report, Why};
use super::watchdog::{Finding, Pace, Watch};
use super::{Error, Event, affinity, certificates, limits};
use crate::access_log::Log;
use crate::base::clock::{Clock, Moment};
use crate::base::counters::{Counter, Counters};
use crate::config::Settings;
use crate::directory::Directory;
use crate::net::mailbox::Post;
use crate::net::quota::Quota;
use crate::net::release_free_memory;
use crate::page::Pages;
use crate::worker::{Heir, Landing, Order, Parts, PlainClient, Vitals, Worker};
use crossbeam_channel::Sender;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// When it is tried again to begin a worker for which the system had no thread, no file or no memory.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// One worker's life. Never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LoopId(pub(super) u64);

/// What workers are made of.
pub(super) struct Stock {
    pub(super) settings: Settings,
    pub(super) directory: Directory,
    pub(super) log: Log,
    pub(super) pages: Arc<Pages>,
    /// The certificates of the addresses.
    pub(super) certificates: certificates::Keeper,
    /// How many connections each client's address may have.
    pub(super) quota: Option<Arc<Quota>>,
    pub(super) clock: Clock,
}

/// All workers, and who they were.
pub(super) struct Loops {
    pub(super) stock: Stock,
    /// The listening sockets, until the end begins. The workers accept from handles of their own: a socket listens while
    /// any handle is left.
    pub(super) doors: Option<Doors>,
    places: Vec<Place>,
    running: BTreeMap<LoopId, Loop>,
    begun: u64,
    /// What those have counted that have ended.
    past: Counters,
    /// Where the next client from outside arrives.
    next_landing: usize,
    policy: Option<Policy>,
    ebb: Ebb,
    pace: Pace,
    is_stopping: bool,
    events: Sender<Event>,
}

/// Where a worker works.
struct Place {
    cpu: affinity::Place,
    landing: Landing,
    /// Who accepts there.
    current: Option<LoopId>,
    /// Nobody does, and somebody will from this moment on.
    empty_until: Option<Moment>,
    /// How many connections those have accepted there that have ended.
    accepted: u64,
}

/// A worker that runs.
struct Loop {
    number: usize,
    orders: Post<Order>,
    counters: Arc<Counters>,
    vitals: Arc<Vitals>,
    started: Moment,
    watch: Watch,
    /// When and why it was told to hand over.
    replaced: Option<(Moment, Why)>,
    /// It does not turn, so nobody waits for it.
    is_stuck: bool,
}

impl Loops {
    /// No workers yet, and places for them at these doors.
    pub(super) fn new(stock: Stock, doors: Doors, cpus: &[affinity::Place], events: Sender<Event>) -> Self {
        let place = |cpu| Place { cpu, landing: Landing::default(), current: None, empty_until: None, accepted: 0 };
        let supervision = &stock.settings.supervision;
        let limit = limits::memory(supervision.memory_limit, cpus.len());
        let policy = limit.map(|limit| Policy::new(limit, supervision.memory_check_interval));
        Self {
            stock,
            doors: Some(doors),
            places: cpus.iter().copied().map(place).collect(),
            running: BTreeMap::new(),
            begun: 0,
            past: Counters::default(),
            next_landing: 0,
            policy,
            ebb: Ebb::default(),
            pace: Pace::default(),
            is_stopping: false,
            events,
        }
    }

    /// Begins a worker at each place.
    pub(super) fn start(&mut self) -> Result<(), Error> {
        (0..self.places.len())
            .try_for_each(|number| self.begin(number))
            .map_err(|error| Error::System("starting a worker", error))
    }

    /// How often [`Loops::look`] is to be called.
    pub(super) fn interval(&self) -> Duration {
        let supervision = &self.stock.settings.supervision;
        supervision.memory_check_interval.min(supervision.watchdog / 4)
    }

    /// Begins a worker at this place. It accepts from now on; who leaves the place hands over to it.
    fn begin(&mut self, number: usize) -> io::Result<()> {
        let id = LoopId(self.begun);
        let (counters, vitals) = (Arc::<Counters>::default(), Arc::<Vitals>::default());
        let (worker, orders) = self.make_worker(number, &counters, &vitals)?;
        let Some(place) = self.places.get_mut(number) else { return Ok(()) };
        let (cpu, events) = (place.cpu, self.events.clone());
        let work = move || {
            cpu.take();
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| worker.run()));
            let result = match result {
                Ok(result) => result.map_err(|error| error.to_string()),
                Err(_) => Err("it panicked".to_owned()),
            };
            // Fails only when the supervisor has gone, and then nobody is left to be told.
            let _ = events.send(Event::WorkerEnded(id, result));
        };
        thread::Builder::new().name(format!("worker-{number}")).spawn(work)?;
        self.begun += 1;
        (place.current, place.empty_until) = (Some(id), None);
        for leaving in self.running.values().filter(|other| other.number == number) {
            leaving.orders.send(Order::HandOver(Heir::Worker(place.landing.clone(), orders.clone())));
        }
        let started = self.stock.clock.now();
        let watch = Watch::new(started);
        let (replaced, is_stuck) = (None, false);
        self.running.insert(id, Loop { number, orders, counters, vitals, started, watch, replaced, is_stuck });
        Ok(())
    }

    fn make_worker(
        &self,
        number: usize,
        counters: &Arc<Counters>,
        vitals: &Arc<Vitals>,
    ) -> io::Result<(Worker, Post<Order>)> {
        let (stock, settings) = (&self.stock, &self.stock.settings);
        Worker::new(Parts {
            number,
            listeners: self.doors.as_ref().map_or_else(|| Ok(Vec::new()), |doors| doors.of_worker(number))?,
            landing: self.places[number].landing.clone(),
            tls: stock.certificates.parts(),
            backend_tls: stock.certificates.backend_tls(),
            quota: stock.quota.clone(),
            settings: settings.worker.clone(),
            exchange: settings.exchange.clone(),
            upstream: settings.upstream.clone(),
            route: settings.route.clone(),
            directory: stock.directory.clone(),
            log: stock.log.clone(),
            pages: Arc::clone(&stock.pages),
            counters: Arc::clone(counters),
            vitals: Arc::clone(vitals),
            clock: stock.clock,
        })
    }

    /// Gives a worker a successor, and has it hand over. Where there can be no successor, it stays.
    fn replace(&mut self, id: LoopId, why: Why) {
        let Some(number) = self.running.get(&id).map(|old| old.number) else { return };
        match self.begin(number) {
            Ok(()) => {
                log::warn!("worker {number}: {why}; a successor has taken over");
                if let Some(old) = self.running.get_mut(&id) {
                    old.replaced = Some((self.stock.clock.now(), why));
                }
            }
            Err(error) => log::error!("worker {number}: {why}, but there can be no successor: {error}"),
        }
    }

    /// A worker's thread has ended.
    pub(super) fn ended(&mut self, id: LoopId, how: Result<(), String>) {
        let Some(old) = self.running.remove(&id) else { return };
        self.past.absorb(&old.counters);
        if let Some(place) = self.places.get_mut(old.number) {
            place.accepted += old.counters.get(Counter::Accepted);
        }
        if self.is_stopping && how.is_ok() {
            return;
        }
        let now = self.stock.clock.now();
        let (replaced, planned) = old.replaced.clone().unwrap_or_else(|| (now, Why::Failed("it ended".into())));
        let why = how.err().map_or(planned, Why::Failed);
        let (counters, vitals) = (&*old.counters, &*old.vitals);
        let resident = limits::resident_bytes().unwrap_or(0);
        let report =
            Report { number: old.number, why: &why, started: old.started, replaced, now, counters, vitals, resident };
        log::info!("{report}");
        let is_current = self.places.get(old.number).is_some_and(|place| place.current == Some(id));
        if is_current && !self.is_stopping {
            self.fill(old.number, &why, now);
        }
    }

    /// Somebody has to work again at a place whose worker has failed.
    fn fill(&mut self, number: usize, why: &Why, now: Moment) {
        let delay = self.pace.delay(now);
        if let Some(place) = self.places.get_mut(number) {
            (place.current, place.empty_until) = (None, Some(now + delay));
        }
        if delay.is_zero() {
            log::error!("worker {number}: {why}; another one begins");
            self.fill_places(now);
        } else {
            let (limit, seconds) = (Pace::AT_ONCE, delay.as_secs());
            log::error!(
                "worker {number}: {why}; MORE THAN {limit} WORKERS HAVE FAILED WITHIN A MINUTE: the next one begins in \
                 {seconds} s, and until then nobody accepts in its place"
            );
        }
    }

    fn fill_places(&mut self, now: Moment) {
        for number in 0..self.places.len() {
            let is_due = self.places.get(number).and_then(|place| place.empty_until).is_some_and(|due| due <= now);
            if is_due && let Err(error) = self.begin(number) {
                log::error!("worker {number}: beginning another one: {error}; trying again soon");
                self.places[number].empty_until = Some(now + TRY_AGAIN);
            }
        }
    }

    /// Looks after all: whether they turn, and what they hold. To be called again and again.
    pub(super) fn look(&mut self) {
        let now = self.stock.clock.now();
        if !self.is_stopping {
            self.fill_places(now);
            self.look_at_memory(now);
            self.give_back();
        }
        self.look_for_stuck(now);
    }

    fn look_for_stuck(&mut self, now: Moment) {
        let limit = self.stock.settings.supervision.watchdog;
        let mut stuck = Vec::new();
        for (id, each) in &mut self.running {
            match each.watch.look(now, each.vitals.answered(), limit) {
                Finding::Wait => {}
                Finding::Ask(question) => {
                    each.is_stuck = false;
                    each.orders.send(Order::Report(question));
                }
                Finding::Stuck(waited) => {
                    let (number, seconds) = (each.number, waited.as_secs_f64());
                    log::error!("worker {number}: no turn for {seconds:.1} s (server.watchdog)");
                    each.is_stuck = true;
                    stuck.push(*id);
                }
            }
        }
        if self.is_stopping {
            return;
        }
        for id in stuck {
            let current = |place: &&mut Place| place.current == Some(id);
            let Some(place) = self.places.iter_mut().find(current) else { continue };
            let delay = self.pace.delay(now);
            // It may come to itself, but nobody can count on it: its clients at least wait no longer than they have to.
            if delay.is_zero() {
                self.replace(id, Why::Stuck);
            } else {
                place.empty_until = Some(now + delay);
                log::error!("MORE THAN {} WORKERS HAVE FAILED WITHIN A MINUTE: waiting {delay:?}", Pace::AT_ONCE);
                if let Some(old) = self.running.get_mut(&id) {
                    old.replaced = Some((now, Why::Stuck));
                }
            }
        }
    }

    fn look_at_memory(&mut self, now: Moment) {
        let (Some(policy), Some(resident)) = (&mut self.policy, limits::resident_bytes()) else { return };
        let current: Vec<LoopId> = self.places.iter().filter_map(|place| place.current).collect();
        let candidate = |id: &LoopId| {
            let each = self.running.get(id)?;
            Some(Candidate { id: *id, started: each.started, bytes: each.vitals.holdings().bytes })
        };
        let candidates: Vec<Candidate> = current.iter().filter_map(candidate).collect();
        let is_draining = self.running.values().any(|each| each.replaced.is_some() && !each.is_stuck);
        let limit = policy.limit();
        match policy.decide(now, resident, &candidates, is_draining) {
            Decision::Rest => {}
            Decision::Renew(id) => self.replace(id, Why::Memory { resident, limit }),
            Decision::Exhausted => {
                let (resident, limit) = (resident >> 20, limit >> 20);
                log::warn!(
                    "all workers were renewed, and the process still holds {resident} MiB of {limit} MiB \
                     (server.memoryLimit): is the limit too low?"
                );
                if self.stock.settings.supervision.memory_upgrade {
                    // Fails only when the supervisor has gone.
                    let _ = self.events.send(Event::Renew);
                }
            }
        }
    }

    /// How many workers there are, when all places are filled.
    pub(super) fn places(&self) -> usize {
        self.places.len()
    }

    /// Takes on a client from outside, at each place in turn.
    pub(super) fn adopt(&mut self, client: PlainClient) {
        self.next_landing = (self.next_landing + 1) % self.places.len().max(1);
        let Some(place) = self.places.get(self.next_landing) else { return };
        // Where nobody works at the moment, the next one looks there first of all.
        place.landing.put(vec![client.into()]);
        if let Some(current) = place.current.and_then(|id| self.running.get(&id)) {
            current.orders.send(Order::Arrivals);
        }
    }

    /// How many connections were accepted at each place.
    pub(super) fn accepted(&self) -> Vec<u64> {
        let mut accepted: Vec<u64> = self.places.iter().map(|place| place.accepted).collect();
        for each in self.running.values() {
            if let Some(count) = accepted.get_mut(each.number) {
                *count += each.counters.get(Counter::Accepted);
            }
        }
        accepted
    }

    /// Gives the system back what workers, and those that have ended, hold no longer.
    fn give_back(&mut self) {
        let bytes = self.running.values().map(|each| each.vitals.holdings().bytes).sum();
        if self.ebb.look(bytes) {
            release_free_memory();
        }
    }

    /// Whether the order to stop is carried out, but for those who do not turn and so would never end.
    pub(super) fn have_ended(&self) -> bool {
        self.is_stopping && self.running.values().all(|each| each.is_stuck)
    }

    /// Has all workers end.
    pub(super) fn stop(&mut self) {
        self.is_stopping = true;
        self.doors = None;
        self.tell_all(|| Order::Stop);
    }

    /// Has all workers end, and their clients go to somebody outside.
    pub(super) fn hand_over(&mut self, heir: &Heir) {
        self.is_stopping = true;
        self.doors = None;
        self.tell_all(|| Order::HandOver(heir.clone()));
    }

    /// How many workers were begun so far.
    #[cfg(test)]
    pub(super) fn begun(&self) -> u64 {
        self.begun
    }

    /// Has who works at this place do something.
    #[cfg(test)]
    pub(super) fn tell(&self, number: usize, order: Order) {
        let current = self.places[number].current.and_then(|id| self.running.get(&id));
        current.expect("a worker there").orders.send(order);
    }

    /// How many workers have successors and have not ended yet.
    #[cfg(test)]
    pub(super) fn leaving(&self) -> usize {
        self.running.values().filter(|each| each.replaced.is_some()).count()
    }

    pub(super) fn tell_all(&self, order: impl Fn() -> Order) {
        for each in self.running.values() {
            if !each.orders.send(order()) {
                log::error!(
                    "worker {}: its mailbox is full of orders that it has not read; this one is lost",
                    each.number
                );
            }
        }
    }

    /// What all workers have counted, those included that have ended.
    pub(super) fn counters(&self) -> Counters {
        let sum = Counters::default();
        sum.absorb(&self.past);
        self.running.values().for_each(|each| sum.absorb(&each.counters));
        sum
    }
}
