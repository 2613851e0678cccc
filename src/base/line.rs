//! A line of those who wait, in the order in which they came: whoever came first is known, and anyone may leave, from
//! wherever they stand, at the same small price.

use super::clock::Moment;
use slab::Slab;

const NIL: u32 = u32::MAX;

/// Those who wait, each since some moment.
#[derive(Debug)]
pub struct Line<T> {
    places: Slab<Entry<T>>,
    first: u32,
    last: u32,
}

/// A place in a [`Line`]. It is dead after [`Line::leave`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(u32);

#[derive(Debug)]
struct Entry<T> {
    who: T,
    since: Moment,
    previous: u32,
    next: u32,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self { places: Slab::new(), first: NIL, last: NIL }
    }
}

impl<T: Copy> Line<T> {
    /// Joins at the end.
    pub fn join(&mut self, who: T, now: Moment) -> Place {
        let previous = self.last;
        let index = u32::try_from(self.places.insert(Entry { who, since: now, previous, next: NIL })).unwrap_or(NIL);
        assert!(index != NIL, "more than 2^32 places in use");
        match self.places.get_mut(previous as usize) {
            Some(entry) => entry.next = index,
            None => self.first = index,
        }
        self.last = index;
        Place(index)
    }

    /// Leaves.
    pub fn leave(&mut self, place: Place) {
        let Entry { previous, next, .. } = self.places.remove(place.0 as usize);
        match self.places.get_mut(previous as usize) {
            Some(entry) => entry.next = next,
            None => self.first = next,
        }
        match self.places.get_mut(next as usize) {
            Some(entry) => entry.previous = previous,
            None => self.last = previous,
        }
    }

    /// Who has waited the longest, and since when.
    pub fn first(&self) -> Option<(T, Moment)> {
        self.places.get(self.first as usize).map(|entry| (entry.who, entry.since))
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Random comings and goings against a plain list.
    #[test]
    fn agrees_with_a_list() {
        for seed in 0..200 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut line = Line::default();
            let mut model: Vec<(u64, Place)> = Vec::new();
            for step in 0..300 {
                if rng.u8(..5) < 3 {
                    model.push((step, line.join(step, Moment::from_micros(step))));
                } else if !model.is_empty() {
                    let (_, place) = model.remove(rng.usize(..model.len()));
                    line.leave(place);
                }
                let first = model.first().map(|(who, _)| (*who, Moment::from_micros(*who)));
                assert_eq!((line.first(), line.len()), (first, model.len()), "seed {seed}, step {step}");
            }
            // From either end: the links back are right as well.
            while let Some((_, place)) = model.pop() {
                line.leave(place);
                assert_eq!(line.first().map(|(who, _)| who), model.first().map(|(who, _)| *who), "seed {seed}");
            }
            assert!(line.is_empty());
        }
    }
}
