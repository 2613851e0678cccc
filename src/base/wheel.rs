//! A timer wheel: moving a deadline, which happens with every request, costs one store.
//!
//! Most deadlines are extended before they expire. So an entry whose deadline moves *later* stays in its slot; when the
//! slot comes round, the entry moves to the slot of its deadline. Only a deadline that moves *earlier* changes the slot
//! at once. The deadline is stored in the [`Timer`], with its owner, so extending it touches no memory of the wheel.

use super::clock::Moment;
use slab::Slab;

/// A tick is 2^14 microseconds, about 16 ms: a deadline is reported up to that much late, never early.
const TICK_BITS: u32 = 14;
const SLOTS: usize = 4096;
const NIL: u32 = u32::MAX;

/// The entries of one core, each with an owner and at most one deadline.
#[derive(Debug)]
pub struct Wheel<T> {
    entries: Slab<Entry<T>>,
    /// The first entry of each slot's list.
    heads: Box<[u32; SLOTS]>,
    /// The slots whose lists are not empty.
    occupied: Box<Places>,
    /// The last tick whose slot was emptied of expired deadlines.
    tick: u64,
}

/// An owner's deadline, and its entry in the wheel. [`Wheel::remove`] ends it and leaves it [`Timer::DEAD`].
#[derive(Debug, PartialEq, Eq)]
pub struct Timer {
    deadline: Moment,
    entry: u32,
    /// The slot whose list holds the entry, if any. The wheel looks at it no later than the deadline.
    slot: Option<Slot>,
}

/// Access to the timers.
pub trait Owners<T> {
    /// The timer of an owner, if it has one.
    fn timer_of(&mut self, owner: T) -> Option<&mut Timer>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot(u16);

/// A set of slots: a bit for each slot, and a bit for each word of those that is not zero. So the next slot is found
/// without a search, and a worker asks for it in every turn.
#[derive(Debug)]
struct Places {
    bits: [u64; SLOTS / 64],
    words: u64,
}

#[derive(Debug)]
struct Entry<T> {
    owner: T,
    previous: u32,
    next: u32,
}

impl Timer {
    /// A timer without an entry, which never expires.
    pub const DEAD: Self = Self { deadline: Moment::NEVER, entry: NIL, slot: None };

    /// The deadline; [`Moment::NEVER`] if there is none.
    pub fn deadline(&self) -> Moment {
        self.deadline
    }
}

impl Slot {
    fn at(tick: u64) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "there are 4096 slots")]
        Self((tick % SLOTS as u64) as u16)
    }

    fn index(self) -> usize {
        usize::from(self.0)
    }

    /// Ticks from this one until the slot comes round: less than `SLOTS`.
    fn distance_from(self, tick: u64) -> u64 {
        (SLOTS as u64 + u64::from(self.0) - tick % SLOTS as u64) % SLOTS as u64
    }
}

impl Places {
    const NONE: Self = Self { bits: [0; SLOTS / 64], words: 0 };

    fn insert(&mut self, slot: usize) {
        self.bits[slot / 64] |= 1 << (slot % 64);
        self.words |= 1 << (slot / 64);
    }

    fn remove(&mut self, slot: usize) {
        let word = &mut self.bits[slot / 64];
        *word &= !(1 << (slot % 64));
        if *word == 0 {
            self.words &= !(1 << (slot / 64));
        }
    }

    /// The first slot of the set from `start` on, wrapping around.
    fn next(&self, start: usize) -> Option<usize> {
        const { assert!(SLOTS / 64 == 64, "a word of words") };
        let (first, from) = (start / 64, u64::MAX << (start % 64));
        let ahead = self.bits[first] & from;
        if ahead != 0 {
            return Some(first * 64 + ahead.trailing_zeros() as usize);
        }
        if self.words == 0 {
            return None;
        }
        // The word of the start comes last: only its bits before the start are left then.
        let word = (first + 1 + self.words.rotate_right(first as u32 + 1).trailing_zeros() as usize) % 64;
        Some(word * 64 + self.bits[word].trailing_zeros() as usize)
    }
}

impl<T: Copy> Wheel<T> {
    /// An empty wheel that has seen all ticks up to `now`.
    pub fn new(now: Moment) -> Self {
        Self {
            entries: Slab::new(),
            heads: Box::new([NIL; SLOTS]),
            occupied: Box::new(Places::NONE),
            tick: now.as_micros() >> TICK_BITS,
        }
    }

    /// Adds an entry without a deadline.
    pub fn insert(&mut self, owner: T) -> Timer {
        let index = u32::try_from(self.entries.insert(Entry { owner, previous: NIL, next: NIL })).unwrap_or(NIL);
        assert!(index != NIL, "more than 2^32 timers in use");
        Timer { deadline: Moment::NEVER, entry: index, slot: None }
    }

    /// Ends an entry. Its timer is dead from then on; a second call changes nothing.
    pub fn remove(&mut self, timer: &mut Timer) {
        self.unlink(timer);
        self.entries.try_remove(timer.entry as usize);
        *timer = Timer::DEAD;
    }

    /// Sets the owner's deadline, in place of an earlier one; [`Moment::NEVER`] for none.
    pub fn set(&mut self, timer: &mut Timer, deadline: Moment) {
        debug_assert!(timer.entry != NIL, "a deadline of a dead timer");
        timer.deadline = deadline;
        // The entry stays in its list until its slot comes round, unless that would be too late.
        let wait = due_tick(deadline).saturating_sub(self.tick);
        let stays = timer.slot.is_some_and(|slot| slot.distance_from(self.tick) <= wait);
        if !stays && deadline != Moment::NEVER {
            self.unlink(timer);
            self.link(timer);
        }
    }

    /// Moves the owners of expired deadlines into `due`, each once, and clears their deadlines.
    pub fn advance(&mut self, now: Moment, due: &mut Vec<T>, owners: &mut impl Owners<T>) {
        let target = now.as_micros() >> TICK_BITS;
        while self.tick < target {
            let Some(distance) = self.next_occupied() else { break };
            if self.tick + distance > target {
                break;
            }
            self.tick += distance;
            self.visit_slot(now, due, owners);
        }
        self.tick = self.tick.max(target);
    }

    /// The time of the next slot with an entry; [`Moment::NEVER`] if there is no deadline.
    pub fn next_visit(&self) -> Moment {
        let tick = self.next_occupied().map(|distance| self.tick + distance);
        tick.map_or(Moment::NEVER, |tick| Moment::from_micros(tick << TICK_BITS))
    }

    /// Frees memory, as far as possible, if far more is allocated than used.
    pub fn trim(&mut self) {
        if self.entries.capacity() > 64 && self.entries.len() < self.entries.capacity() / 4 {
            self.entries.shrink_to_fit();
        }
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn visit_slot(&mut self, now: Moment, due: &mut Vec<T>, owners: &mut impl Owners<T>) {
        let slot = Slot::at(self.tick).index();
        let mut index = std::mem::replace(&mut self.heads[slot], NIL);
        self.occupied.remove(slot);
        while index != NIL {
            let entry = &mut self.entries[index as usize];
            let (owner, next) = (entry.owner, entry.next);
            (entry.previous, entry.next) = (NIL, NIL);
            index = next;
            let Some(timer) = owners.timer_of(owner) else { continue };
            timer.slot = None;
            if timer.deadline <= now {
                timer.deadline = Moment::NEVER;
                due.push(owner);
            } else if timer.deadline != Moment::NEVER {
                self.link(timer);
            }
        }
    }

    /// Ticks from the last one seen to the next slot with an entry: from 1 to `SLOTS`.
    fn next_occupied(&self) -> Option<u64> {
        let start = Slot::at(self.tick + 1).index();
        let slot = self.occupied.next(start)?;
        Some(((slot + SLOTS - start) % SLOTS) as u64 + 1)
    }

    fn link(&mut self, timer: &mut Timer) {
        // A deadline beyond the horizon is kept at its edge, and moved on from there.
        let slot = Slot::at(due_tick(timer.deadline).clamp(self.tick + 1, self.tick + SLOTS as u64 - 1));
        let index = slot.index();
        let head = std::mem::replace(&mut self.heads[index], timer.entry);
        if head != NIL {
            self.entries[head as usize].previous = timer.entry;
        }
        self.occupied.insert(index);
        let entry = &mut self.entries[timer.entry as usize];
        (entry.previous, entry.next) = (NIL, head);
        timer.slot = Some(slot);
    }

    fn unlink(&mut self, timer: &mut Timer) {
        let Some(slot) = timer.slot.take().map(Slot::index) else { return };
        let entry = &mut self.entries[timer.entry as usize];
        let (previous, next) = (entry.previous, entry.next);
        (entry.previous, entry.next) = (NIL, NIL);
        if next != NIL {
            self.entries[next as usize].previous = previous;
        }
        if previous != NIL {
            self.entries[previous as usize].next = next;
        } else {
            self.heads[slot] = next;
            if next == NIL {
                self.occupied.remove(slot);
            }
        }
    }
}

/// The first tick that begins at or after the deadline.
fn due_tick(deadline: Moment) -> u64 {
    (deadline.as_micros() >> TICK_BITS) + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::time::Duration;

    const TICK: Duration = Duration::from_micros(1 << TICK_BITS);

    impl Owners<u32> for HashMap<u32, (Timer, Moment)> {
        fn timer_of(&mut self, owner: u32) -> Option<&mut Timer> {
            self.get_mut(&owner).map(|(timer, _)| timer)
        }
    }

    /// Random schedules against a plain map: no deadline is reported early, more than a tick late, twice or never.
    #[test]
    fn agrees_with_a_map_of_deadlines() {
        for seed in 0..200 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut now = Moment::from_micros(rng.u64(..1 << 40));
            let mut wheel = Wheel::new(now);
            let mut model: HashMap<u32, (Timer, Moment)> = HashMap::new();
            let mut due = Vec::new();
            for step in 0..400 {
                match rng.u32(..10) {
                    0..=2 => {
                        model.insert(step, (wheel.insert(step), Moment::NEVER));
                    }
                    3..=6 => {
                        if let Some(owner) = rng.choice(model.keys().copied().collect::<Vec<_>>()) {
                            let span = Duration::from_millis(1 << rng.u32(..20));
                            let deadline = if rng.u8(..8) == 0 { Moment::NEVER } else { now + span };
                            let entry = model.get_mut(&owner).expect("chosen from the map");
                            entry.1 = deadline;
                            wheel.set(&mut entry.0, deadline);
                        }
                    }
                    7 => {
                        if let Some(owner) = rng.choice(model.keys().copied().collect::<Vec<_>>()) {
                            wheel.remove(&mut model.remove(&owner).expect("chosen from the map").0);
                        }
                    }
                    _ => {
                        let first = model.values().map(|entry| entry.1).min().unwrap_or(Moment::NEVER);
                        assert!(wheel.next_visit() <= first + TICK, "seed {seed}: would wake too late");
                        now = now + Duration::from_millis(1 << rng.u32(..20));
                        due.clear();
                        wheel.advance(now, &mut due, &mut model);
                        for owner in &due {
                            let entry = model.get_mut(owner).expect("not removed");
                            assert!(entry.1 <= now, "seed {seed}: {owner} early or told twice");
                            entry.1 = Moment::NEVER;
                        }
                        let late = model.values().find(|entry| entry.1 + TICK <= now);
                        assert_eq!(late, None, "seed {seed}: late at {now:?}");
                    }
                }
            }
            assert_eq!(wheel.len(), model.len());
        }
    }

    /// From each start, the set finds the same next slot as a linear search, for few, many and all slots.
    #[test]
    fn the_next_place_is_found_from_everywhere() {
        let search = |model: &[bool], start: usize| (start..start + SLOTS).map(|at| at % SLOTS).find(|at| model[*at]);
        let edges = [0, 1, 62, 63, 64, 65, 127, 128, 2047, 2048, 4031, 4032, 4033, 4094, 4095];
        for place in 0..SLOTS {
            let mut places = Places::NONE;
            places.insert(place);
            assert!((0..SLOTS).all(|start| places.next(start) == Some(place)), "{place} alone");
            for other in edges.into_iter().filter(|other| *other != place) {
                places.insert(other);
                let (low, high) = (place.min(other), place.max(other));
                let expected = |start| if start > low && start <= high { high } else { low };
                assert!((0..SLOTS).all(|start| places.next(start) == Some(expected(start))), "{place} and {other}");
                places.remove(other);
            }
            places.remove(place);
            assert_eq!((places.next(place), places.words), (None, 0));
        }
        let mut rng = fastrand::Rng::with_seed(1);
        let (mut places, mut model) = (Places::NONE, vec![false; SLOTS]);
        for round in 0..2000 {
            // The wheel alternately grows and shrinks.
            for _ in 0..rng.usize(1..64) {
                let place = rng.usize(..SLOTS);
                model[place] = rng.u32(..1000) < round % 1000;
                if model[place] { places.insert(place) } else { places.remove(place) }
            }
            for start in edges.into_iter().chain([rng.usize(..SLOTS)]) {
                assert_eq!(places.next(start), search(&model, start), "round {round}, from {start}");
            }
        }
        (0..SLOTS).for_each(|place| places.insert(place));
        assert!((0..SLOTS).all(|start| places.next(start) == Some(start)), "all");
    }

    /// A wheel that was not polled for long, because no deadline was near, still reports in time.
    #[test]
    fn a_wheel_that_stood_still_wakes_in_time() {
        let mut model: HashMap<u32, (Timer, Moment)> = HashMap::new();
        let mut wheel = Wheel::new(Moment::ZERO);
        let start = Moment::ZERO + Duration::from_secs(100_000);
        let due_at = start + Duration::from_secs(60);
        let mut timer = wheel.insert(1);
        wheel.set(&mut timer, due_at);
        model.insert(1, (timer, due_at));
        let (mut now, mut due, mut turns) = (start, Vec::new(), 0);
        while due.is_empty() {
            turns += 1;
            now = now.max(wheel.next_visit());
            wheel.advance(now, &mut due, &mut model);
        }
        assert!(now >= due_at && now <= due_at + TICK, "told at {now:?}");
        assert!(turns <= 3, "{turns} turns");
    }

    #[test]
    fn a_timer_ends_once() {
        let mut wheel = Wheel::new(Moment::ZERO);
        let (mut timer, mut other) = (wheel.insert(1), wheel.insert(2));
        wheel.set(&mut timer, Moment::ZERO + TICK);
        wheel.remove(&mut timer);
        wheel.remove(&mut timer);
        assert_eq!((timer, wheel.len(), wheel.next_visit()), (Timer::DEAD, 1, Moment::NEVER));
        wheel.remove(&mut other);
        assert!(wheel.is_empty());
    }
}
