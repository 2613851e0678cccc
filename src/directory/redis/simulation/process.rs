//! A simulated process: the directory's thread, the snapshot, and the succession of processes.

use super::super::Event;
use super::super::coordinator::{Action, Coordinator};
use super::super::route_state::{Limits, Output, RouteState};
use super::super::save::{self, SaveTimer};
use super::cores::{CORES, Core};
use super::faults::End;
use super::threads::{Reader, Step, Watcher};
use super::{Happening, World};
use crate::base::clock::Moment;
use crate::directory::SubscriberId;
use crate::directory::catalog::Clusters;
use crate::directory::snapshot;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug)]
pub(super) struct Process {
    pub(super) coordinator: Coordinator,
    /// The clusters and routes that every thread can see.
    pub(super) clusters: Clusters,
    events: VecDeque<Event>,
    pub(super) lookups: VecDeque<(usize, Arc<str>)>,
    pub(super) watcher: Watcher,
    pub(super) reader: Reader,
    pub(super) cores: Vec<Core>,
    timer: Option<SaveTimer>,
    is_writing: bool,
    /// The next turn of the directory's thread.
    turn_at: Moment,
    /// Number of successive turns that leave work for the same moment.
    turns_at_once: u32,
    /// The process is frozen until then.
    pub(super) frozen_until: Moment,
    frozen_at: Moment,
    /// Hosts below this wildcard are not requested while Redis is there: they stay in the snapshot alone.
    pub(super) unrequested: Option<&'static str>,
}

impl Process {
    /// The earliest time of reports: while the process is frozen, its time stands still.
    pub(super) fn thawed_at(&self, now: Moment) -> Moment {
        if now.since(self.frozen_until) < Duration::from_secs(15) { self.frozen_at } else { now }
    }
}

impl World {
    pub(super) fn start(&mut self, inherited: Option<Vec<u8>>) {
        let handed_over = inherited.is_some();
        let kept = self.file.clone().filter(|_| self.plan.keeps_snapshot);
        let known = inherited.or(kept).map(|bytes| {
            let snapshot = snapshot::parse::<snapshot::Route>(&bytes).expect("what was written can be read");
            save::revive(snapshot, self.now)
        });
        let known = known.unwrap_or_default();
        self.note(|_| format!("start with {} routes", known.routes.len()));
        let limits =
            Limits { unknown_rate: 1_000_000, resync_hold: self.plan.hold, mark_life: Duration::from_secs(30) };
        let clusters = Clusters::default();
        let state = RouteState::new(&limits, known.routes, clusters.clone());
        let mut timer = self.plan.keeps_snapshot.then(SaveTimer::default);
        if let Some(timer) = timer.as_mut().filter(|_| handed_over) {
            timer.note_change(self.now);
        }
        let unrequested = [None, None, Some("*.b.x"), Some("*.y")][self.rng.usize(..4)];
        self.generation += 1;
        self.disturb(self.now);
        self.process = Some(Process {
            coordinator: Coordinator::new(state, known.identity, self.plan.ttl),
            clusters,
            events: VecDeque::new(),
            lookups: VecDeque::new(),
            watcher: Watcher::default(),
            reader: Reader::default(),
            cores: (0..CORES).map(|_| Core::default()).collect(),
            timer,
            is_writing: false,
            turn_at: Moment::NEVER,
            turns_at_once: 0,
            frozen_until: Moment::ZERO,
            frozen_at: Moment::ZERO,
            unrequested,
        });
        self.checker.started(self.plan.hold, self.now);
        self.later(Duration::ZERO, Step::Watch);
    }

    /// Ends the process in this manner, and starts another one.
    pub(super) fn end_process(&mut self, end: End) {
        let Some(mut process) = self.process.take() else { return };
        self.note(|_| format!("the process is {end:?}"));
        self.disturb(self.now);
        let mut inherited = None;
        let mut delay = self.between(10_000, 5_000_000);
        match end {
            End::Orderly => {
                if process.timer.as_mut().is_some_and(|timer| timer.due().is_some() || process.is_writing) {
                    self.file = Some(encode(&process.coordinator, None));
                }
                self.checker.ended(self.plan.keeps_snapshot);
            }
            End::Killed => self.checker.killed(self.plan.keeps_snapshot, process.thawed_at(self.now)),
            End::Upgraded => {
                inherited = Some(encode(&process.coordinator, Some(self.now)));
                delay = Duration::ZERO;
            }
        }
        self.after(delay, Happening::Start(inherited));
    }

    /// Freezes the process for a while.
    pub(super) fn freeze(&mut self) {
        let delay = self.between(100_000, 90_000_000);
        let until = self.now + delay;
        let now = self.now;
        let Some(process) = self.process.as_mut().filter(|process| process.frozen_until <= now) else { return };
        (process.frozen_at, process.frozen_until) = (now, until);
        process.cores.iter_mut().for_each(|core| core.excuse(until));
        self.note(|_| format!("the process stands still for {delay:?}"));
        self.disturb(until);
    }

    pub(super) fn step(&mut self, generation: u32, step: Step) {
        let Some(process) = self.process.as_mut().filter(|_| generation == self.generation) else { return };
        if process.frozen_until > self.now {
            // Pushes that Redis has sent meanwhile precede its replies to what is sent from then on.
            let is_push = matches!(step, Step::Push(..));
            let delay = process.frozen_until.since(self.now) + Duration::from_micros(u64::from(!is_push));
            return self.later(delay, step);
        }
        match step {
            Step::Watch => self.watch(),
            Step::Watching(number) => self.watching(number),
            Step::WatchLost(number) => self.watch_lost(number),
            Step::WatchSilent(number) => self.watch_silent(number),
            Step::Push(number, changed) => self.push(number, changed),
            Step::Read => self.go_on_reading(),
            Step::Turn => self.turn(),
            Step::Mail(core) => self.read_mail(core),
            Step::Saved(bytes) => {
                process.is_writing = false;
                self.file = Some(bytes);
            }
        }
    }

    /// Sends an event of a thread to the directory's thread.
    pub(super) fn tell(&mut self, event: Event) {
        if let Some(process) = &mut self.process {
            process.events.push_back(event);
            self.wake();
        }
    }

    /// Schedules a turn of the directory's thread.
    pub(super) fn wake(&mut self) {
        let delay = self.between(5, 2_000);
        self.turn_in(delay);
    }

    fn turn_in(&mut self, delay: Duration) {
        let at = self.now + delay;
        let Some(process) = self.process.as_mut().filter(|process| process.turn_at > at) else { return };
        process.turn_at = at;
        self.later(delay, Step::Turn);
    }

    /// One turn of the directory's thread.
    fn turn(&mut self) {
        let (now, events_first) = (self.now, self.rng.bool());
        let Some(process) = &mut self.process else { return };
        if process.turn_at > now {
            return;
        }
        process.turn_at = Moment::NEVER;
        let coordinator = &mut process.coordinator;
        if events_first {
            process.events.drain(..).for_each(|event| coordinator.hear(event, now));
        }
        for (core, host) in process.lookups.drain(..) {
            coordinator.state.ask(SubscriberId(core), host, None, now);
        }
        process.events.drain(..).for_each(|event| coordinator.hear(event, now));
        coordinator.tick(now);
        self.save_if_due();
        self.perform();
        let Some(process) = &self.process else { return };
        self.checker.watch_hold(&process.coordinator.state, self.plan.hold, now);
        process.coordinator.state.check();
        let save = process.timer.as_ref().and_then(SaveTimer::due);
        if let Some(next) = process.coordinator.next_tick().into_iter().chain(save).min() {
            let turns = if next > now { 0 } else { process.turns_at_once + 1 };
            assert!(turns < 5, "the directory's thread turns in a circle");
            self.turn_in(next.since(now));
            if let Some(process) = &mut self.process {
                process.turns_at_once = turns;
            }
        }
    }

    fn save_if_due(&mut self) {
        let (now, delay) = (self.now, self.between(500, 400_000));
        let Some(process) = &mut self.process else { return };
        let Some(timer) = process.timer.as_mut().filter(|timer| timer.due().is_some_and(|due| due <= now)) else {
            return;
        };
        timer.note_saved(!process.is_writing, now);
        if !std::mem::replace(&mut process.is_writing, true) {
            let bytes = encode(&process.coordinator, None);
            self.later(delay, Step::Saved(bytes));
        }
    }

    fn perform(&mut self) {
        let Some(process) = &mut self.process else { return };
        for action in process.coordinator.take_actions() {
            let Some(process) = &mut self.process else { return };
            match (action, &mut process.timer) {
                (Action::Connect(watch), _) => self.give_connect(watch),
                (Action::Lost { .. }, Some(timer)) => timer.hurry(self.now),
                (Action::Learned, Some(timer)) => timer.note_change(self.now),
                (_, _) => {}
            }
        }
        let Some(process) = &mut self.process else { return };
        drop(process.coordinator.state.take_unresolved());
        for output in process.coordinator.state.take_outputs() {
            if let Output::LookedUp { host, result, .. } = &output {
                self.check_emitted(host, result);
            }
            self.mail(output);
        }
        let batch = self.process.as_mut().and_then(|process| process.coordinator.state.take_batch());
        if let Some(batch) = batch {
            self.give_batch(batch);
        }
    }
}

fn encode(coordinator: &Coordinator, now: Option<Moment>) -> Vec<u8> {
    let mut bytes = Vec::new();
    snapshot::encode(&save::render(coordinator.routes(), now), &mut bytes).expect("memory has room");
    bytes
}
