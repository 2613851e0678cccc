//! A simulation of the Redis part of the directory: seeded schedules in virtual time.
//!
//! The decisions are the program's own: [`Coordinator`] and its state, the parsing of replies, the comparison of
//! histories, the timer and the text of the snapshot. Models replace everything that waits: the watching and the
//! reading thread ([`threads`]), Redis and its fail-overs ([`server`]), the file, and the cores with their caches
//! ([`cores`]).
//!
//! [`checker`] holds the invariants:
//!
//! * A host that was served stays served until an edit in Redis removes it, or until its hold is over. Until then it is
//!   not served by less either: by a list without a backend, or by a wildcard behind the one that Redis has lost.
//! * No core serves a route that Redis never had, or an older one than was served before. Without faults, no route is
//!   older than the time that a change takes. After a loss of data the limit is `server.resyncHold`.
//! * No core uses a route that the directory has replaced, and each core that holds one is told.
//! * Each request gets its response within [`checker::MAX_WAIT`].
//! * At rest every core holds the state of Redis, nothing is pending, and every host leads to the newest list of its
//!   key.
//!
//! `DIRECTORY_SEED=7 cargo test --lib directory::redis::simulation -- --nocapture` replays one schedule;
//! `DIRECTORY_SEEDS=n` sets how many are played. `tests/mutations` reintroduces earlier faults, which the simulation
//! has to find.

mod checker;
mod cores;
mod faults;
mod orders;
mod process;
mod server;
mod threads;

use super::watcher::InvalidationMode;
use crate::base::clock::Moment;
use checker::Checker;
use fastrand::Rng;
use faults::Fault;
use process::Process;
use server::Redis;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;
use threads::Step;

/// Number of schedules in the ordinary test run.
const SEEDS: u64 = 150;
/// Duration of edits and faults.
const UNREST: Duration = Duration::from_secs(900);
/// The number of events that a failure shows.
const SHOWN: usize = 120;

#[test]
fn whatever_redis_does_the_invariants_hold() {
    if let Some(seed) = number("DIRECTORY_SEED") {
        return play(seed, true);
    }
    (0..number("DIRECTORY_SEEDS").unwrap_or(SEEDS)).for_each(|seed| play(seed, false));
}

fn play(seed: u64, is_traced: bool) {
    let mut world = World::new(seed, is_traced);
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| world.run())) {
        let text = panic.downcast_ref::<String>().map_or("see above", String::as_str);
        let first = world.schedule.len().saturating_sub(SHOWN);
        let schedule = world.schedule[first..].join("\n");
        panic!("{schedule}\nseed {seed}, {:?}: {text}\nDIRECTORY_SEED={seed} plays it again", world.plan);
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text}: expected a number")))
}

/// Parameters that a seed determines in advance.
#[derive(Debug)]
struct Plan {
    mode: InvalidationMode,
    /// `server.resyncHold`.
    hold: Duration,
    /// `server.lruCache.ttl`.
    ttl: Duration,
    keeps_snapshot: bool,
    /// Each look-up takes long.
    is_slow: bool,
    /// The mean time between two edits, and between two faults.
    order_every: Duration,
    fault_every: Duration,
    /// Out of ten hosts that Redis has lost, this many are written again.
    refilled: u32,
}

/// An event of the schedule.
#[derive(Debug)]
enum Happening {
    /// An edit.
    Order,
    /// A planned write: the items of a list, or none.
    Write(&'static str, Vec<String>),
    /// A host gets a list of its own in place of its wildcard's.
    Move(&'static str),
    /// A list expires, unless it was written since.
    Expire(&'static str, u64),
    Fault,
    /// The fault continues or ends.
    Next(Fault),
    /// A core gets a request for a host.
    Request(usize, &'static str),
    /// A core gets one for any host.
    AnyRequest(usize),
    /// The connections are lost.
    Cut,
    /// A process starts, with data handed over by another one.
    Start(Option<Vec<u8>>),
    /// A thread of the process with this number takes a step.
    Of(u32, Step),
    /// From now on there are neither edits nor faults.
    Rest,
}

struct World {
    rng: Rng,
    plan: Plan,
    now: Moment,
    ends_at: Moment,
    queue: BTreeMap<(Moment, u64), Happening>,
    count: u64,
    redis: Redis,
    process: Option<Process>,
    generation: u32,
    /// The snapshot.
    file: Option<Vec<u8>>,
    checker: Checker,
    /// Faults that have not ended, and the end of the last one.
    troubles: usize,
    trouble_at: Moment,
    is_resting: bool,
    is_traced: bool,
    schedule: Vec<String>,
}

impl World {
    fn new(seed: u64, is_traced: bool) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mode = match rng.u32(..10) {
            0 => InvalidationMode::Keyspace,
            1 => InvalidationMode::Rereading,
            _ => InvalidationMode::Tracking,
        };
        let plan = Plan {
            mode,
            hold: Duration::from_secs(rng.u64(20..150)),
            ttl: Duration::from_secs(rng.u64(3..20)),
            keeps_snapshot: rng.u32(..4) > 0,
            is_slow: rng.u32(..5) == 0,
            order_every: Duration::from_millis(rng.u64(300..8_000)),
            fault_every: Duration::from_secs(rng.u64(15..120)),
            refilled: rng.u32(..=10),
        };
        let now = Moment::ZERO + Duration::from_secs(1000);
        let mut world = Self {
            rng,
            plan,
            now,
            ends_at: Moment::NEVER,
            queue: BTreeMap::new(),
            count: 0,
            redis: Redis::new(),
            process: None,
            generation: 0,
            file: None,
            checker: Checker::new(),
            troubles: 0,
            trouble_at: now,
            is_resting: false,
            is_traced,
            schedule: Vec::new(),
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for pattern in server::PATTERNS {
            if self.rng.u32(..3) > 0 {
                let items = self.items();
                self.order(pattern, &items);
            }
        }
        self.after(Duration::ZERO, Happening::Start(None));
        for happening in [Happening::Order, Happening::Fault, Happening::AnyRequest(0), Happening::AnyRequest(1)] {
            self.after(Duration::from_millis(100), happening);
        }
        self.after(UNREST, Happening::Rest);
    }

    fn run(&mut self) {
        let rest = self.plan.hold + self.bound() + checker::SETTLE + Duration::from_secs(60);
        self.ends_at = self.now + UNREST + rest;
        while let Some(((at, _), happening)) = self.queue.pop_first()
            && at < self.ends_at
        {
            self.now = at;
            self.happen(happening);
        }
        self.check_rest();
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Order if self.is_resting => {}
            Happening::Order => self.give_order(),
            Happening::Write(pattern, items) => self.order(pattern, &items),
            Happening::Move(_) if self.is_resting => {}
            Happening::Move(host) => self.move_to_own(host),
            Happening::Expire(pattern, version) => self.expire(pattern, version),
            Happening::Fault if self.is_resting => {}
            Happening::Fault => self.begin_fault(),
            Happening::Next(fault) => self.go_on(fault),
            Happening::Request(core, host) => self.request(core, host),
            Happening::AnyRequest(core) => self.request_any(core),
            Happening::Cut if self.is_resting => {}
            Happening::Cut => self.cut(),
            Happening::Start(inherited) => self.start(inherited),
            Happening::Of(generation, step) => self.step(generation, step),
            Happening::Rest => {
                self.is_resting = true;
                self.note(|_| "rest".to_owned());
                self.refill_all();
            }
        }
    }

    fn after(&mut self, delay: Duration, happening: Happening) {
        self.count += 1;
        self.queue.insert((self.now + delay, self.count), happening);
    }

    /// A random duration between two others, in microseconds.
    fn between(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_micros(self.rng.u64(low..high))
    }

    /// A random duration around this mean.
    fn about(&mut self, mean: Duration) -> Duration {
        mean.mul_f64(self.rng.f64() * 2.0)
    }

    fn note(&mut self, text: impl FnOnce(&Self) -> String) {
        let line = format!("{:>9.3} {}", self.now.since(Moment::ZERO).as_secs_f64(), text(self));
        if self.is_traced {
            println!("{line}");
        }
        self.schedule.push(line);
    }

    fn note_if_traced(&mut self, text: impl FnOnce() -> String) {
        if self.is_traced {
            self.note(|_| text());
        }
    }

    /// The longest time until all cores see a change without faults.
    fn bound(&self) -> Duration {
        let slack = Duration::from_secs(3);
        match self.plan.mode {
            InvalidationMode::Tracking => slack,
            InvalidationMode::Keyspace => super::coordinator::KEYSPACE_REFRESH.max(self.plan.ttl) + slack,
            InvalidationMode::Rereading => self.plan.ttl + slack,
        }
    }

    /// Records a fault that lasts until then.
    fn disturb(&mut self, until: Moment) {
        self.trouble_at = self.trouble_at.max(until);
    }

    /// Whether no fault is active, and the last one is long over.
    fn is_calm(&self) -> bool {
        self.troubles == 0 && self.trouble_at + checker::SETTLE <= self.now && self.process.is_some()
    }
}
