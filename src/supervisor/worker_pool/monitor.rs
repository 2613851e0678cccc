//! Periodic checks of workers: progress and memory.

use super::{WorkerId, WorkerPool, WorkerSlot};
use crate::base::clock::Moment;
use crate::net::release_free_memory;
use crate::supervisor::memory::{Candidate, Decision};
use crate::supervisor::report::ReplaceReason;
use crate::supervisor::watchdog::Finding;
use crate::supervisor::{Event, limits};
use crate::worker::WorkerCommand;

impl WorkerPool {
    /// Checks the progress and the memory of all workers. To be called periodically.
    pub(in crate::supervisor) fn look(&mut self) {
        let now = self.deps.clock.now();
        if self.ending.is_none() {
            self.fill_slots(now);
            self.give_back(now);
            // Ticks come a little early or late.
            if now + self.interval() / 2 >= self.memory_due {
                self.memory_due = now + self.deps.settings.supervision.memory_check_interval;
                self.look_at_memory(now);
            }
        } else {
            // A batch for another process may have returned to a worker that has failed meanwhile.
            (0..self.slots.len()).for_each(|number| self.finish_handoff(number));
        }
        self.look_for_stuck(now);
    }

    fn look_for_stuck(&mut self, now: Moment) {
        let limit = self.deps.settings.supervision.watchdog;
        let mut stuck = Vec::new();
        for (id, each) in &mut self.running {
            match each.watch.look(now, each.stats.replied(), limit) {
                Finding::Wait => {}
                Finding::Ask(question) => {
                    if std::mem::take(&mut each.is_stuck) {
                        each.request_mail.resume();
                    }
                    each.commands.send(WorkerCommand::Report(question));
                }
                Finding::Stuck(waited) => {
                    let (number, seconds) = (each.number, waited.as_secs_f64());
                    log::error!("worker {number}: no turn for {seconds:.1} s (server.watchdog)");
                    each.is_stuck = true;
                    // Other workers use the slots that it does not.
                    each.request_mail.give_up();
                    stuck.push(*id);
                }
            }
        }
        if self.ending.is_some() {
            return;
        }
        for id in stuck {
            let current = |slot: &WorkerSlot| slot.current == Some(id);
            let Some(number) = self.slots.iter().position(current) else { continue };
            // It may recover, but that is uncertain: its clients should not wait longer than necessary.
            if let Some(old) = self.running.get_mut(&id) {
                old.replaced = Some((now, ReplaceReason::Stuck));
                self.deps.roster.note_leaving(id.0, ReplaceReason::Stuck.cause());
            }
            self.fill(number, &ReplaceReason::Stuck, now);
        }
    }

    fn look_at_memory(&mut self, now: Moment) {
        let (Some(policy), Some(resident)) = (&mut self.policy, limits::resident_bytes()) else { return };
        // No worker can free the memory of the object cache.
        let resident = resident.saturating_sub(self.deps.cache.as_ref().map_or(0, |store| store.memory()));
        let current: Vec<WorkerId> = self.slots.iter().filter_map(|slot| slot.current).collect();
        let candidate = |id: &WorkerId| {
            let each = self.running.get(id)?;
            Some(Candidate { id: *id, started: each.started, bytes: each.stats.usage().bytes })
        };
        let candidates: Vec<Candidate> = current.iter().filter_map(candidate).collect();
        let is_draining = self.running.values().any(|each| each.replaced.is_some() && !each.is_stuck);
        let limit = policy.limit();
        match policy.decide(now, resident, &candidates, is_draining) {
            Decision::Rest => {}
            // Errors are logged.
            Decision::Renew(id) => drop(self.replace(id, ReplaceReason::Memory { resident, limit })),
            Decision::Exhausted => {
                let (resident, limit) = (resident >> 20, limit >> 20);
                log::warn!(
                    "all workers were replaced, and the process still uses {resident} MiB of {limit} MiB besides its \
                     object cache (server.memoryLimit): is the limit too low?"
                );
                if self.deps.settings.supervision.memory_upgrade {
                    // It fails only after the supervisor has ended.
                    let _ = self.events.send(Event::Renew);
                }
            }
        }
    }

    /// Returns memory to the system that workers no longer use.
    fn give_back(&mut self, now: Moment) {
        let bytes = self.running.values().map(|each| each.stats.usage().bytes).sum();
        if self.memory_trim.look(now, bytes) {
            self.release_memory();
        }
    }

    /// Returns free memory to the system. Threads that allocate may have to wait for it.
    pub(super) fn release_memory(&self) {
        let resident = || limits::resident_bytes().unwrap_or(0) >> 20;
        let (began, before) = (self.deps.clock.now(), resident());
        release_free_memory();
        let took = self.deps.clock.now().since(began);
        log::debug!("memory was returned to the system: {before} MiB before, {} MiB after, in {took:?}", resident());
    }
}
