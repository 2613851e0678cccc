//! Random trees and random events against a slow reference, which computes everything from the tokens held and the
//! waiters. `SHAPER_SEED=n cargo test shaper::tests::simulation` replays one seed.

use super::{QUEUE, spec};
use crate::base::clock::Moment;
use crate::shaper::{Admission, Departure, Shaper, Token, WaiterKey};
use std::collections::VecDeque;

const SEEDS: u64 = 150;
const STEPS: usize = 1_500;

/// An amount in the reference: hundredths of a per cent, or tokens.
#[derive(Clone, Copy)]
enum Amount {
    Percent(u32),
    Tokens(u32),
}

impl Amount {
    fn of(self, parent: u32) -> u32 {
        match self {
            Self::Percent(percent) => parent * percent / 100,
            Self::Tokens(tokens) => tokens.min(parent),
        }
    }
}

/// A bucket of the reference; bucket 0 is the root.
struct Bucket {
    parent: usize,
    rate: Amount,
    ceil: Amount,
    queue: VecDeque<u64>,
    held: Vec<Token>,
    /// Grants to others since it last got one, or began to wait.
    hungry: u64,
    /// Grants to others after its patience had ended.
    late: usize,
}

/// A child as its parent sees it: a bucket with all in it, or the parent's own requests.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Unit {
    Bucket(usize),
    Own(usize),
}

struct Model {
    buckets: Vec<Bucket>,
    size: u32,
}

impl Model {
    fn random(random: &mut fastrand::Rng) -> Self {
        let new = |parent, rate, ceil| Bucket {
            parent,
            rate,
            ceil,
            queue: VecDeque::new(),
            held: Vec::new(),
            hungry: 0,
            late: 0,
        };
        let mut buckets = vec![new(0, Amount::Percent(100), Amount::Percent(100))];
        let mut left = vec![100];
        for _ in 0..random.usize(1..8) {
            let parent = if random.bool() { 0 } else { random.usize(0..buckets.len()) };
            let (rate, ceil) = match random.u8(0..4) {
                0 => {
                    let rate = random.u32(0..4);
                    (Amount::Tokens(rate), Amount::Tokens(rate + random.u32(1..6)))
                }
                _ => {
                    let rate = random.u32(0..=left[parent]);
                    left[parent] -= rate;
                    (Amount::Percent(rate), Amount::Percent(random.u32(rate.max(1)..=100)))
                }
            };
            left.push(100);
            buckets.push(new(parent, rate, ceil));
        }
        Self { buckets, size: random.u32(0..30) }
    }

    fn children(&self, of: usize) -> impl Iterator<Item = usize> {
        (1..self.buckets.len()).filter(move |bucket| self.buckets[*bucket].parent == of)
    }

    fn text(&self, of: usize) -> String {
        let write = |amount| match amount {
            Amount::Percent(percent) => format!("{percent} %"),
            Amount::Tokens(tokens) => format!("{tokens} t"),
        };
        let buckets = self.children(of).map(|child| {
            let bucket = &self.buckets[child];
            let (rate, ceil) = (write(bucket.rate), write(bucket.ceil));
            format!(r#""{child}": {{"share": "{rate}..{ceil}", "buckets": {}}}"#, self.text(child))
        });
        format!("{{{}}}", buckets.collect::<Vec<_>>().join(", "))
    }

    fn ceil(&self, bucket: usize) -> u32 {
        if bucket == 0 { self.size } else { self.buckets[bucket].ceil.of(self.ceil(self.buckets[bucket].parent)) }
    }

    /// The ceil in force.
    fn limit(&self, bucket: usize) -> u32 {
        if bucket == 0 {
            return self.size;
        }
        self.ceil(bucket).max(self.limit(self.buckets[bucket].parent).min(1))
    }

    fn rate(&self, unit: Unit) -> u32 {
        match unit {
            Unit::Bucket(0) => self.size,
            Unit::Bucket(bucket) => {
                let parent = self.rate(Unit::Bucket(self.buckets[bucket].parent));
                self.buckets[bucket].rate.of(parent).min(self.ceil(bucket))
            }
            Unit::Own(bucket) => {
                let children: u32 = self.children(bucket).map(|child| self.rate(Unit::Bucket(child))).sum();
                self.rate(Unit::Bucket(bucket)).saturating_sub(children).max(u32::from(bucket == 0))
            }
        }
    }

    fn held(&self, unit: Unit) -> u32 {
        match unit {
            Unit::Own(bucket) => u32::try_from(self.buckets[bucket].held.len()).expect("few"),
            Unit::Bucket(bucket) => {
                let below = self.children(bucket).map(|child| self.held(Unit::Bucket(child)));
                self.held(Unit::Own(bucket)) + below.sum::<u32>()
            }
        }
    }

    fn has_room(&self, bucket: usize) -> bool {
        self.held(Unit::Bucket(bucket)) < self.limit(bucket)
            && (bucket == 0 || self.has_room(self.buckets[bucket].parent))
    }

    /// Whether a request of this bucket waits and could get a token.
    fn is_eligible(&self, bucket: usize) -> bool {
        !self.buckets[bucket].queue.is_empty() && self.has_room(bucket)
    }

    fn has_eligible(&self, unit: Unit) -> bool {
        match unit {
            Unit::Own(bucket) => self.is_eligible(bucket),
            Unit::Bucket(bucket) => {
                self.is_eligible(bucket) || self.children(bucket).any(|child| self.has_eligible(Unit::Bucket(child)))
            }
        }
    }

    fn patience(&self) -> u64 {
        u64::from(self.size).max(16)
    }

    fn is_starving(&self, bucket: usize) -> bool {
        let found = &self.buckets[bucket];
        found.held.is_empty() && self.is_eligible(bucket) && found.hungry >= self.patience()
    }

    fn queued(&self) -> usize {
        self.buckets.iter().map(|bucket| bucket.queue.len()).sum()
    }

    /// Checks a grant to the first waiter of a bucket, and records it.
    fn grant(&mut self, bucket: usize, waiter: u64, token: Token, case: &str) {
        assert_eq!(self.buckets[bucket].queue.front(), Some(&waiter), "{case}: not the first of bucket {bucket}");
        assert!(self.has_room(bucket), "{case}: bucket {bucket} has no room");
        let starving: Vec<_> = (0..self.buckets.len()).filter(|bucket| self.is_starving(*bucket)).collect();
        if !starving.is_empty() {
            assert!(starving.contains(&bucket), "{case}: bucket {bucket} before {starving:?}, which starve");
        } else {
            self.check_order(bucket, case);
        }
        for other in starving {
            self.buckets[other].late += usize::from(other != bucket);
            let count = self.buckets.len();
            assert!(self.buckets[other].late < count, "{case}: bucket {other} waits beyond the bound");
        }
        self.buckets.iter_mut().filter(|bucket| !bucket.queue.is_empty()).for_each(|bucket| bucket.hungry += 1);
        let found = &mut self.buckets[bucket];
        (found.hungry, found.late) = (0, 0);
        found.queue.pop_front();
        found.held.push(token);
    }

    /// On each level from the bucket up: the child is below its rate, or none of its siblings is.
    fn check_order(&self, bucket: usize, case: &str) {
        let mut unit = if bucket == 0 || self.children(bucket).next().is_some() {
            Unit::Own(bucket)
        } else {
            Unit::Bucket(bucket)
        };
        loop {
            let parent = match unit {
                Unit::Bucket(0) => return,
                Unit::Bucket(bucket) => self.buckets[bucket].parent,
                Unit::Own(bucket) => bucket,
            };
            if self.held(unit) >= self.rate(unit) {
                let siblings = self.children(parent).map(Unit::Bucket).chain([Unit::Own(parent)]);
                for sibling in siblings.filter(|sibling| self.has_eligible(*sibling)) {
                    assert!(self.held(sibling) >= self.rate(sibling), "{case}: {unit:?} before {sibling:?}");
                }
            }
            unit = Unit::Bucket(parent);
        }
    }
}

struct World {
    shaper: Shaper<(usize, u64)>,
    model: Model,
    keys: Vec<(u64, WaiterKey)>,
    next: u64,
    random: fastrand::Rng,
    now: Moment,
    grants: usize,
}

impl World {
    fn step(&mut self, case: &str) {
        self.now = self.now + std::time::Duration::from_micros(7);
        let before: Vec<_> = self.limits().collect();
        let bucket = self.random.usize(0..self.model.buckets.len());
        let mut granted = Vec::new();
        match self.random.u8(0..100) {
            0..50 => self.arrive(bucket, case),
            50..92 => {
                let holders: Vec<_> = (0..self.model.buckets.len())
                    .filter(|bucket| !self.model.buckets[*bucket].held.is_empty())
                    .collect();
                let Some(holder) = self.random.choice(holders) else { return };
                let held = &mut self.model.buckets[holder].held;
                let token = held.swap_remove(self.random.usize(0..held.len()));
                self.shaper.give_back(token, self.now, |waiter, token| granted.push((waiter, token)));
            }
            92..97 => self.cancel(case),
            _ => {
                self.model.size = self.random.u32(0..30);
                self.shaper.resize(self.model.size, self.now, |waiter, token| granted.push((waiter, token)));
            }
        }
        for ((bucket, waiter), token) in granted {
            self.grants += 1;
            self.model.grant(bucket, waiter, token, case);
        }
        // No bucket is above its limit that was not before, and no token that a waiter could use is idle.
        for ((bucket, held, limit), (_, held_before, _)) in self.limits().zip(before) {
            assert!(held <= limit.max(held_before), "{case}: bucket {bucket} holds {held} of {limit}");
        }
        for bucket in 0..self.model.buckets.len() {
            assert!(!self.model.is_eligible(bucket), "{case}: bucket {bucket} waits for an idle token");
        }
        assert_eq!(self.shaper.queued(), self.model.queued(), "{case}");
    }

    fn limits(&self) -> impl Iterator<Item = (usize, u32, u32)> {
        let model = &self.model;
        (0..model.buckets.len()).map(|bucket| (bucket, model.held(Unit::Bucket(bucket)), model.limit(bucket)))
    }

    fn arrive(&mut self, bucket: usize, case: &str) {
        let id = self.shaper.bucket(&name(bucket)).expect("a bucket");
        let waiter = self.next;
        self.next += 1;
        let was_idle = self.model.queued() == 0;
        let admission =
            self.shaper.admit(id, (bucket, waiter), self.now, |_, _| panic!("{case}: an arrival frees nothing"));
        let found = &mut self.model.buckets[bucket];
        if found.queue.is_empty() {
            (found.hungry, found.late) = (0, 0);
        }
        found.queue.push_back(waiter);
        match admission {
            Admission::Token(token) if was_idle => {
                assert!(self.model.has_room(bucket), "{case}: bucket {bucket} has no room");
                let found = &mut self.model.buckets[bucket];
                found.queue.pop_back();
                found.held.push(token);
            }
            Admission::Token(token) => self.model.grant(bucket, waiter, token, case),
            Admission::Queued { key, .. } => self.keys.push((waiter, key)),
            Admission::QueueFull => panic!("{case}: a full queue"),
        }
    }

    fn cancel(&mut self, case: &str) {
        if self.keys.is_empty() {
            return;
        }
        let (waiter, key) = self.keys.swap_remove(self.random.usize(0..self.keys.len()));
        let found = self.model.buckets.iter_mut().find_map(|bucket| {
            let place = bucket.queue.iter().position(|queued| *queued == waiter)?;
            bucket.queue.remove(place)
        });
        let cancelled = self.shaper.cancel(key, Departure::Left).map(|(_, waiter)| waiter);
        assert_eq!(cancelled, found, "{case}");
    }

    fn check_views(&self, case: &str) {
        for view in self.shaper.snapshot() {
            let bucket = if view.name == "root" { 0 } else { view.name.parse().expect("a number") };
            let unit = Unit::Bucket(bucket);
            let expected =
                (self.model.rate(unit), self.model.ceil(bucket), self.model.limit(bucket), self.model.held(unit));
            assert_eq!((view.rate, view.ceil, view.limit, view.held), expected, "{case}: {}", view.name);
            assert_eq!(view.queued as usize, self.model.buckets[bucket].queue.len(), "{case}: {}", view.name);
        }
    }
}

fn name(bucket: usize) -> String {
    if bucket == 0 { "root".to_owned() } else { bucket.to_string() }
}

#[test]
fn every_choice_is_one_that_the_reference_allows() {
    let one = std::env::var("SHAPER_SEED").ok().map(|seed| seed.parse().expect("SHAPER_SEED is a number"));
    let seeds = one.map_or(0..SEEDS, |seed| seed..seed + 1);
    let mut grants = 0;
    for seed in seeds {
        let mut random = fastrand::Rng::with_seed(seed);
        let model = Model::random(&mut random);
        let text = model.text(0);
        let shaper = Shaper::new(model.size, &spec(&text), QUEUE);
        let mut world = World { shaper, model, keys: Vec::new(), next: 0, random, now: Moment::ZERO, grants: 0 };
        for step in 0..STEPS {
            let case = format!("SHAPER_SEED={seed}, step {step}, {text}");
            world.step(&case);
            if step % 100 == 0 {
                world.check_views(&case);
            }
        }
        grants += world.grants;
    }
    assert!(one.is_some() || grants > 10_000, "only {grants} waiters got a token");
}
