//! Places where nobody works for a while: a neighbour accepts there meanwhile, and gets whoever arrives, so that nobody
//! waits in vain.

use super::{LoopId, Loops, Place};
use crate::worker::{Heir, Order};
use std::io;
use std::iter;

impl Loops {
    /// Has a neighbour stand in wherever nobody works, and nobody where somebody does again. To be called whenever that
    /// may have changed, and again and again.
    pub(super) fn mind_gaps(&mut self) {
        for number in 0..self.places.len() {
            let stand_in = self.places[number].empty_until.and_then(|_| self.neighbour(number));
            let before = std::mem::replace(&mut self.places[number].stand_in, stand_in);
            if before != stand_in {
                // Who has stood in so far may have ended.
                before.into_iter().for_each(|id| self.assign_doors(id));
                stand_in.into_iter().for_each(|id| self.assign_doors(id));
            }
            if let Some(id) = stand_in {
                self.redirect(number, id, before != stand_in);
            }
        }
    }

    /// Who would stand in for a place: whoever works at the next one where somebody does.
    pub(super) fn neighbour(&self, number: usize) -> Option<LoopId> {
        let places = self.places.iter().skip(number + 1).chain(self.places.iter().take(number));
        places.filter_map(|place| self.works_at(place)).next()
    }

    /// Who works at a place, and turns.
    pub(super) fn works_at(&self, place: &Place) -> Option<LoopId> {
        let current = place.current.filter(|_| place.empty_until.is_none());
        current.filter(|id| self.running.get(id).is_some_and(|each| !each.is_stuck))
    }

    /// Tells a worker all doors at which it accepts from now on.
    fn assign_doors(&mut self, id: LoopId) {
        let (Some(worker), Some(doors)) = (self.running.get(&id), &self.doors) else { return };
        let is_its = |number: &usize| self.places[*number].stand_in == Some(id);
        let numbers = iter::once(worker.number).chain((0..self.places.len()).filter(is_its));
        let entrances: io::Result<Vec<_>> = numbers.map(|number| doors.of_worker(number)).collect();
        let is_told = match entrances {
            Ok(entrances) => worker.orders.send(Order::Doors(entrances.into_iter().flatten().collect())),
            Err(error) => {
                log::error!("worker {}: giving it the doors of another place: {error}", worker.number);
                false
            }
        };
        if !is_told {
            // So it is tried again.
            let its = self.places.iter_mut().filter(|place| place.stand_in == Some(id));
            its.for_each(|place| place.stand_in = None);
        }
    }

    /// Sends to the stand-in who has arrived at a place, and who is about to.
    fn redirect(&self, number: usize, id: LoopId, is_new: bool) {
        let Some(stand_in) = self.running.get(&id) else { return };
        let landing = &self.places[stand_in.number].landing;
        if is_new {
            for leaving in self.running.values().filter(|each| each.number == number) {
                leaving.orders.send(Order::HandOver(Heir::Worker(landing.clone(), stand_in.orders.clone())));
            }
        }
        if self.places[number].landing.forward(landing) {
            stand_in.orders.send(Order::Arrivals);
        }
    }

    /// Before the end: who waits at a door that nobody looks after is let in.
    pub(super) fn look_behind_doors(&mut self) {
        for number in 0..self.places.len() {
            let is_empty = self.places[number].empty_until.is_some() && self.places[number].stand_in.is_none();
            if is_empty
                && self.ending.is_none()
                && let Err(error) = self.begin(number)
            {
                log::error!("worker {number}: beginning one for those who wait at its doors: {error}");
            }
        }
    }

    /// At the end: who has arrived when the last worker of a place had left already gets another one, which ends in the
    /// same way.
    pub(super) fn finish_landing(&mut self, number: usize) {
        let is_served = self.running.values().any(|each| each.number == number && !each.is_stuck);
        if is_served || self.places[number].landing.is_empty() {
            return;
        }
        let (Some(ending), begun) = (self.ending.clone(), self.begin(number)) else { return };
        match (begun, self.places[number].current.and_then(|id| self.running.get(&id))) {
            (Ok(()), Some(last)) => drop(last.orders.send(ending.order())),
            (Err(error), _) => log::error!("worker {number}: beginning one for those who came last: {error}"),
            (Ok(()), None) => {}
        }
    }
}
