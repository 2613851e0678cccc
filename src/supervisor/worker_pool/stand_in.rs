//! Slots that are empty for a while: a neighbour accepts there meanwhile and receives the clients that move there, so
//! that none is stranded.

use super::{WorkerId, WorkerPool, WorkerSlot};
use crate::worker::{DrainTarget, WorkerCommand};
use std::io;
use std::iter;

impl WorkerPool {
    /// Makes a neighbour stand in for each empty slot, and ends that for each slot that has a worker again. It is
    /// called after each possible change, and periodically.
    pub(super) fn assign_stand_ins(&mut self) {
        for number in 0..self.slots.len() {
            let stand_in = self.slots[number].empty_until.and_then(|_| self.neighbour(number));
            let before = std::mem::replace(&mut self.slots[number].stand_in, stand_in);
            if before != stand_in {
                // The previous stand-in may have ended.
                before.into_iter().for_each(|id| self.assign_listeners(id));
                stand_in.into_iter().for_each(|id| self.assign_listeners(id));
            }
            if let Some(id) = stand_in {
                self.redirect(number, id, before != stand_in);
            }
        }
    }

    /// The stand-in for a slot: the worker of the next slot that has one.
    pub(super) fn neighbour(&self, number: usize) -> Option<WorkerId> {
        let slots = self.slots.iter().skip(number + 1).chain(self.slots.iter().take(number));
        slots.filter_map(|slot| self.works_at(slot)).next()
    }

    /// The worker of a slot, if it makes progress.
    pub(super) fn works_at(&self, slot: &WorkerSlot) -> Option<WorkerId> {
        let current = slot.current.filter(|_| slot.empty_until.is_none());
        current.filter(|id| self.running.get(id).is_some_and(|each| !each.is_stuck))
    }

    /// Sends a worker the list of listeners at which it accepts from now on.
    pub(super) fn assign_listeners(&mut self, id: WorkerId) {
        let (Some(worker), Some(listeners)) = (self.running.get(&id), &self.listeners) else {
            self.unassigned.remove(&id);
            return;
        };
        let is_its = |number: &usize| self.slots[*number].stand_in == Some(id);
        let numbers = iter::once(worker.number).chain((0..self.slots.len()).filter(is_its));
        let listener_sockets: io::Result<Vec<_>> = numbers.map(|number| listeners.of_worker(number)).collect();
        #[cfg(test)]
        let listener_sockets = if self.starved_worker == Some(worker.number) {
            Err(io::ErrorKind::OutOfMemory.into())
        } else {
            listener_sockets
        };
        let is_told = match listener_sockets {
            Ok(listener_sockets) => {
                worker.commands.send(WorkerCommand::Listeners(listener_sockets.into_iter().flatten().collect()))
            }
            Err(error) => {
                log::error!("worker {}: giving it the listeners of another slot: {error}", worker.number);
                false
            }
        };
        if is_told {
            self.unassigned.remove(&id);
        } else {
            // This makes it retry.
            self.unassigned.insert(id);
            let its = self.slots.iter_mut().filter(|slot| slot.stand_in == Some(id));
            its.for_each(|slot| slot.stand_in = None);
        }
    }

    /// Redirects clients that have moved to a slot, or are about to, to the stand-in.
    fn redirect(&self, number: usize, id: WorkerId, is_new: bool) {
        let Some(stand_in) = self.running.get(&id) else { return };
        let handoff = &self.slots[stand_in.number].handoff;
        if is_new {
            for leaving in self.running.values().filter(|each| each.number == number) {
                leaving
                    .commands
                    .send(WorkerCommand::HandOver(DrainTarget::Worker(handoff.clone(), stand_in.commands.clone())));
            }
        }
        if self.slots[number].handoff.forward(handoff) {
            stand_in.commands.send(WorkerCommand::Arrivals);
        }
    }

    /// Accepts, before the end, connections that wait at a socket without a worker.
    pub(super) fn check_queues(&mut self) {
        for number in 0..self.slots.len() {
            let is_empty = self.slots[number].empty_until.is_some() && self.slots[number].stand_in.is_none();
            if is_empty
                && self.ending.is_none()
                && let Err(error) = self.begin(number)
            {
                log::error!("worker {number}: starting one for the connections in its queues: {error}");
            }
        }
    }

    /// At the end, passes clients that moved to a slot after its last worker had left to another worker, which ends in
    /// the same way.
    pub(super) fn finish_handoff(&mut self, number: usize) {
        let is_served = self.running.values().any(|each| each.number == number && !each.is_stuck);
        if is_served || self.slots[number].handoff.is_empty() {
            return;
        }
        let (Some(ending), begun) = (self.ending.clone(), self.begin(number)) else { return };
        match (begun, self.slots[number].current.and_then(|id| self.running.get(&id))) {
            (Ok(()), Some(last)) => drop(last.commands.send(ending.command())),
            (Err(error), _) => {
                log::error!("worker {number}: starting one for the last clients that moved there: {error}")
            }
            (Ok(()), None) => {}
        }
    }
}
