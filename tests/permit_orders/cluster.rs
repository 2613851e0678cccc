//! The scenes: slots as the program has them, and a history and a queue as small as they can be.

mod history {
    use crate::base::atomic::{AtomicU64, Ordering};

    /// The cells of two threads, with the loads and stores of the real ones.
    #[derive(Debug, Default)]
    pub(crate) struct History {
        cells: [AtomicU64; 2],
    }

    impl History {
        fn add(&self, count: u64) {
            let cell = &self.cells[super::number()];
            cell.store(cell.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
        }

        pub(super) fn enter(&self) {
            self.add(1);
        }

        pub(super) fn leave(&self) {
            self.add(u64::MAX);
        }

        pub(super) fn peak(&self) -> u32 {
            0
        }

        pub(super) fn apart(&self) -> u32 {
            let counts = self.cells.iter().map(|cell| cell.load(Ordering::Relaxed));
            u32::try_from(counts.fold(0, u64::wrapping_add).cast_signed().max(0)).unwrap_or(u32::MAX)
        }
    }
}

#[path = "../../src/cluster/slots.rs"]
mod slots;

use crate::base::atomic::{AtomicU32, Ordering};
use shuttle::sync::{Arc, Mutex};
use shuttle::thread;
use slots::{Counted, Limit, Slots};
use std::num::NonZeroU32;

/// Slots, and a queue that keeps the two rules of `admission`.
#[derive(Default)]
struct World {
    slots: Slots,
    waiting: AtomicU32,
    queue: Mutex<Vec<usize>>,
    granted: Mutex<Vec<(usize, Counted)>>,
}

impl World {
    fn with_limit(limit: u32) -> Self {
        let world = Self::default();
        world.set_limit(limit);
        world
    }

    fn set_limit(&self, limit: u32) {
        self.slots.set_limit(NonZeroU32::new(limit).map_or(Limit::Apart, Limit::Most));
    }

    fn take(&self) -> Option<Counted> {
        self.slots.take(u32::MAX)
    }

    /// A slot is given back before the length of the queue is looked at.
    fn give_back(&self, counted: Counted) {
        self.slots.give_back(counted);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.serve();
        }
    }

    /// A request that joins looks for room once more behind that.
    fn join(&self, request: usize) {
        let mut queue = self.queue.lock().expect("no panic");
        queue.push(request);
        self.waiting.store(queue.len() as u32, Ordering::SeqCst);
        drop(queue);
        self.serve();
    }

    fn serve(&self) {
        let mut queue = self.queue.lock().expect("no panic");
        while let Some(first) = queue.first().copied() {
            let Some(counted) = self.take() else { break };
            queue.remove(0);
            self.granted.lock().expect("no panic").push((first, counted));
        }
        self.waiting.store(queue.len() as u32, Ordering::SeqCst);
    }

    /// One whole request that does not wait for its grant. Returns whether it had a slot at once.
    fn request(&self, number: usize, inside: &AtomicU32, limit: u32) -> bool {
        let slot = if self.waiting.load(Ordering::SeqCst) > 0 { None } else { self.take() };
        let Some(counted) = slot else {
            self.join(number);
            return false;
        };
        assert!(inside.fetch_add(1, Ordering::SeqCst) < limit, "more than the limit at once");
        inside.fetch_sub(1, Ordering::SeqCst);
        self.give_back(counted);
        true
    }

    /// What is left when all threads have ended.
    fn expect_settled(&self) {
        // The requests that were granted one end now, and so do those that get theirs.
        loop {
            let Some((_, counted)) = self.granted.lock().expect("no panic").pop() else { break };
            self.give_back(counted);
        }
        assert_eq!(self.queue.lock().expect("no panic").len(), 0, "a request waits though a slot is free");
        assert_eq!((self.slots.held(), self.waiting.load(Ordering::SeqCst)), (0, 0), "a slot is lost");
        assert!(!self.slots.has_apart());
    }
}

shuttle::thread_local! {
    static NUMBER: std::cell::Cell<usize> = std::cell::Cell::new(0);
}

/// The number of the present thread among those that count apart.
fn number() -> usize {
    NUMBER.with(std::cell::Cell::get)
}

/// Plays a scene in all orders, or in the first ones of them and as many at random.
fn explore(scene: fn()) {
    shuttle::check_dfs(scene, Some(10_000));
    shuttle::check_random(scene, 10_000);
    shuttle::check_pct(scene, 5_000, 3);
}

#[test]
fn no_more_slots_than_the_limit_and_none_is_lost() {
    explore(|| {
        let (world, inside) = (Arc::new(World::with_limit(1)), Arc::new(AtomicU32::new(0)));
        let threads = [0, 1].map(|number| {
            let (world, inside) = (Arc::clone(&world), Arc::clone(&inside));
            thread::spawn(move || world.request(number, &inside, 1))
        });
        world.request(2, &inside, 1);
        for thread in threads {
            thread.join().expect("no panic");
        }
        world.expect_settled();
    });
}

#[test]
fn a_slot_that_was_taken_before_there_was_a_limit_is_seen_when_it_is_given_back() {
    explore(|| {
        let world = Arc::new(World::with_limit(0));
        let apart = world.take().expect("no limit");
        world.set_limit(1);
        let other = Arc::clone(&world);
        let giver = thread::spawn(move || {
            NUMBER.with(|number| number.set(1));
            other.give_back(apart);
        });
        match world.take() {
            Some(counted) => world.give_back(counted),
            None => world.join(7),
        }
        giver.join().expect("no panic");
        world.expect_settled();
    });
}

#[test]
fn a_limit_that_rises_lets_in_who_waits() {
    explore(|| {
        let world = Arc::new(World::with_limit(1));
        let first = world.take().expect("a slot");
        let other = Arc::clone(&world);
        let editor = thread::spawn(move || {
            other.set_limit(2);
            // As an edit of the list does.
            other.join(1);
        });
        world.join(2);
        editor.join().expect("no panic");
        world.give_back(first);
        world.expect_settled();
    });
}
