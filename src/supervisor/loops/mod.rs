//! The workers that run: begun, replaced and ended, each on a thread of its own.
//!
//! A worker has a *place*: its processor, its listening sockets and its landing. They outlive it, so whoever waits in the
//! queue of a socket, or is on the way from one worker to another, never notices that one goes and the next one comes.

mod care;
mod gaps;

use super::doors::Doors;
use super::memory::{Ebb, Policy};
use super::report::{Report, Why};
use super::watchdog::{Pace, Watch};
use super::{Error, Event, affinity, certificates, limits};
use crate::access_log::Log;
use crate::base::clock::{Clock, Moment};
use crate::base::counters::{Counter, Counters};
use crate::config::Settings;
use crate::directory::Directory;
use crate::net::mailbox::Post;
use crate::net::quota::Quota;
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

/// The longest that a place stays empty whose worker has failed again and again, where nobody can stand in.
const ALONE: Duration = Duration::from_secs(1);

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
    /// When the memory is to be looked at again.
    memory_due: Moment,
    ebb: Ebb,
    pace: Pace,
    ending: Option<Ending>,
    events: Sender<Event>,
    /// Has no worker begin, as if the system had nothing for it.
    #[cfg(test)]
    pub(super) is_starved: bool,
}

/// How all workers end.
#[derive(Clone)]
enum Ending {
    Stop,
    /// Their clients go to somebody outside.
    HandOver(Heir),
}

impl Ending {
    fn order(&self) -> Order {
        match self {
            Self::Stop => Order::Stop,
            Self::HandOver(heir) => Order::HandOver(heir.clone()),
        }
    }
}

/// Where a worker works.
struct Place {
    cpu: affinity::Place,
    landing: Landing,
    /// Who accepts there.
    current: Option<LoopId>,
    /// Nobody does, and somebody will from this moment on.
    empty_until: Option<Moment>,
    /// Who accepts there until then, beside its own place.
    stand_in: Option<LoopId>,
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
        let place = |cpu| Place {
            cpu,
            landing: Landing::default(),
            current: None,
            empty_until: None,
            stand_in: None,
            accepted: 0,
        };
        let supervision = &stock.settings.supervision;
        let limit = limits::memory(supervision.memory_limit, cpus.len());
        let interval = supervision.memory_check_interval;
        let policy = limit.map(|limit| Policy::new(limit, interval));
        Self {
            stock,
            doors: Some(doors),
            places: cpus.iter().copied().map(place).collect(),
            running: BTreeMap::new(),
            begun: 0,
            past: Counters::default(),
            next_landing: 0,
            policy,
            memory_due: Moment::ZERO,
            ebb: Ebb::new(interval),
            pace: Pace::default(),
            ending: None,
            events,
            #[cfg(test)]
            is_starved: false,
        }
    }

    /// Begins a worker at each place. An error where one could not be begun; others stand in for it then, and it is tried
    /// again.
    pub(super) fn start(&mut self) -> Result<(), Error> {
        let mut started = Ok(());
        for number in 0..self.places.len() {
            if let Err(error) = self.begin(number) {
                self.places[number].empty_until = Some(self.stock.clock.now() + TRY_AGAIN);
                started = started.and(Err(Error::System("starting a worker", error)));
            }
        }
        self.mind_gaps();
        started
    }

    /// How often [`Loops::look`] is to be called.
    pub(super) fn interval(&self) -> Duration {
        let supervision = &self.stock.settings.supervision;
        supervision.memory_check_interval.min(supervision.watchdog / 4)
    }

    /// Begins a worker at this place. It accepts from now on; who leaves the place hands over to it.
    fn begin(&mut self, number: usize) -> io::Result<()> {
        #[cfg(test)]
        if self.is_starved {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
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
        let Some(place) = self.places.get_mut(old.number) else { return };
        place.accepted += old.counters.get(Counter::Accepted);
        let is_current = place.current == Some(id);
        if self.ending.is_some() {
            self.finish_landing(old.number);
            if how.is_ok() {
                return;
            }
        }
        let now = self.stock.clock.now();
        let (replaced, planned) = old.replaced.clone().unwrap_or_else(|| (now, Why::Failed("it ended".into())));
        let why = how.err().map_or(planned, Why::Failed);
        if is_current && self.ending.is_none() {
            self.fill(old.number, &why, now);
        }
        // What it held is free now, and yet would count as held.
        self.release_memory();
        let (counters, vitals) = (&*old.counters, &*old.vitals);
        let resident = limits::resident_bytes().unwrap_or(0);
        let report =
            Report { number: old.number, why: &why, started: old.started, replaced, now, counters, vitals, resident };
        log::info!("{report}");
    }

    /// Somebody has to work again at a place whose worker has failed.
    fn fill(&mut self, number: usize, why: &Why, now: Moment) {
        let has_neighbour = self.neighbour(number).is_some();
        let delay = self.pace.delay(now).min(if has_neighbour { Duration::MAX } else { ALONE });
        if let Some(place) = self.places.get_mut(number) {
            (place.current, place.empty_until) = (None, Some(now + delay));
        }
        if delay.is_zero() {
            log::error!("worker {number}: {why}; another one begins");
        } else {
            let (limit, seconds) = (Pace::AT_ONCE, delay.as_secs());
            let meanwhile = if has_neighbour { "another one accepts" } else { "nobody accepts" };
            log::error!(
                "worker {number}: {why}; MORE THAN {limit} WORKERS HAVE FAILED WITHIN A MINUTE: the next one begins in \
                 {seconds} s, and until then {meanwhile} in its place"
            );
        }
        self.fill_places(now);
    }

    fn fill_places(&mut self, now: Moment) {
        for number in 0..self.places.len() {
            let is_due = self.places.get(number).and_then(|place| place.empty_until).is_some_and(|due| due <= now);
            if is_due && let Err(error) = self.begin(number) {
                log::error!("worker {number}: beginning another one: {error}; trying again soon");
                self.places[number].empty_until = Some(now + TRY_AGAIN);
            }
        }
        self.mind_gaps();
    }

    /// How many workers there are, when all places are filled.
    pub(super) fn places(&self) -> usize {
        self.places.len()
    }

    /// Takes on a client from outside, at each place in turn.
    pub(super) fn adopt(&mut self, client: PlainClient) {
        let count = self.places.len().max(1);
        let next = (self.next_landing + 1) % count;
        let works = |number: &usize| self.places.get(*number).is_some_and(|place| self.works_at(place).is_some());
        self.next_landing = (next..count).chain(0..next).find(works).unwrap_or(next);
        let Some(place) = self.places.get(self.next_landing) else { return };
        // Where nobody works at the moment, the next one looks there first of all.
        let is_first = place.landing.put(vec![client.into()]);
        if let Some(current) = place.current.and_then(|id| self.running.get(&id)).filter(|_| is_first) {
            current.orders.send(Order::Arrivals);
        }
        if self.ending.is_some() {
            self.finish_landing(self.next_landing);
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

    /// Whether the order to stop is carried out, but for those who do not turn and so would never end.
    pub(super) fn have_ended(&self) -> bool {
        self.ending.is_some() && self.running.values().all(|each| each.is_stuck)
    }

    /// Has all workers end.
    pub(super) fn stop(&mut self) {
        self.look_behind_doors();
        self.end(Ending::Stop);
    }

    /// Has all workers end, and their clients go to somebody outside.
    pub(super) fn hand_over(&mut self, heir: &Heir) {
        self.end(Ending::HandOver(heir.clone()));
    }

    fn end(&mut self, ending: Ending) {
        self.doors = None;
        self.tell_all(|| ending.order());
        self.ending = Some(ending);
    }

    /// How many workers were begun so far.
    pub(super) fn begun(&self) -> u64 {
        self.begun
    }

    /// Has who works at this place do something.
    #[cfg(test)]
    pub(super) fn tell(&self, number: usize, order: Order) {
        let current = self.places[number].current.and_then(|id| self.running.get(&id));
        current.expect("a worker there").orders.send(order);
    }

    /// How many workers run.
    #[cfg(test)]
    pub(super) fn running(&self) -> usize {
        self.running.len()
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
