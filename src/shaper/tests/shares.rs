//! Shares under endless load: each class always has waiting requests, and each request takes a random time.

use super::{Bench, QUEUE, spec};
use crate::base::clock::Moment;
use crate::shaper::{Admission, BucketId, Shaper, Token};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Number of waiters that a busy class keeps in its queue.
const QUEUED: usize = 3;

/// A closed loop of requests; a waiter's handle is its class.
struct Load {
    shaper: Shaper<usize>,
    classes: Vec<(String, BucketId)>,
    queued: Vec<usize>,
    /// The times at which tokens are returned, with their classes.
    ends: BinaryHeap<Reverse<(u64, usize)>>,
    held: Vec<Vec<Token>>,
    now: u64,
    random: fastrand::Rng,
    mean: Vec<u64>,
    /// Sum of tokens times microseconds.
    usage: Vec<u64>,
}

impl Load {
    fn new(size: u32, text: &str, classes: &[&str], random: fastrand::Rng) -> Self {
        let shaper = Shaper::new(size, &spec(text), QUEUE);
        let classes: Vec<_> =
            classes.iter().map(|name| ((*name).to_owned(), shaper.bucket(name).expect("a bucket"))).collect();
        let count = classes.len();
        Self {
            shaper,
            classes,
            queued: vec![0; count],
            ends: BinaryHeap::new(),
            held: (0..count).map(|_| Vec::new()).collect(),
            now: 0,
            random,
            mean: vec![1_000; count],
            usage: vec![0; count],
        }
    }

    fn start(&mut self, class: usize, token: Token) {
        let length = 1 + self.random.u64(0..2 * self.mean[class]);
        self.ends.push(Reverse((self.now + length, class)));
        self.held[class].push(token);
    }

    fn feed(&mut self, class: usize) {
        while self.queued[class] < QUEUED {
            let moment = Moment::from_micros(self.now);
            match self.shaper.admit(self.classes[class].1, class, moment, |_, _| panic!("an arrival frees nothing")) {
                Admission::Token(token) => self.start(class, token),
                Admission::Queued { .. } => self.queued[class] += 1,
                Admission::QueueFull => panic!("a full queue"),
            }
        }
    }

    /// Runs for `duration` microseconds with the `hungry` classes; requests of other classes end.
    fn run(&mut self, duration: u64, hungry: &[usize]) {
        hungry.iter().for_each(|class| self.feed(*class));
        self.usage.fill(0);
        let end = self.now + duration;
        while let Some(Reverse((time, class))) = self.ends.peek().copied()
            && time < end
        {
            self.account(time);
            self.ends.pop();
            let token = self.held[class].pop().expect("a token");
            let mut granted = Vec::new();
            self.shaper.give_back(token, Moment::from_micros(time), |class, token| granted.push((class, token)));
            for (class, token) in granted {
                self.queued[class] -= 1;
                self.start(class, token);
                if hungry.contains(&class) {
                    self.feed(class);
                }
            }
        }
        self.account(end);
    }

    fn account(&mut self, time: u64) {
        for (usage, held) in self.usage.iter_mut().zip(&self.held) {
            *usage += held.len() as u64 * (time - self.now);
        }
        self.now = time;
    }

    /// The mean number of tokens of a class in the last run.
    #[expect(clippy::cast_precision_loss, reason = "the numbers are small")]
    fn average(&self, class: usize, duration: u64) -> f64 {
        self.usage[class] as f64 / duration as f64
    }
}

const RUN: u64 = 2_000_000;

/// Assured shares hold within one token, whichever class came first, and the root is in use to at least 98 %.
#[test]
fn a_rate_of_more_tokens_than_its_ceil_counts_as_the_ceil() {
    let bench = Bench::new(20, r#"{"a": "60 %..5 t", "b": "25 %"}"#, QUEUE);
    assert_eq!((bench.sizes("a"), bench.sizes("b")), ((5, 5), (5, 5)));
    let written = spec(r#"{"a": "60 %..5 t", "b": "25 %"}"#);
    let (weights, rest) = written.weights(20, 10_000);
    assert_eq!((weights, rest), (vec![("a", 2500), ("b", 2500)], 5000));
}

#[test]
fn hungry_classes_have_their_assured_shares() {
    let texts: [(&str, &[&str]); 4] = [
        (r#"{"a": "50..100 %", "b": "30..100 %", "c": "20..100 %"}"#, &["a", "b", "c", "root"]),
        (r#"{"a": "60..100 %", "b": "10..100 %"}"#, &["a", "b", "root"]),
        (
            r#"{"m": {"share": "50..80 %", "buckets": {"x": "50..100 %", "y": "20..100 %"}}, "v": "40..60 %"}"#,
            &["x", "y", "m", "v", "root"],
        ),
        (r#"{"a": "3..100 t", "b": "30..50 %"}"#, &["a", "b", "root"]),
    ];
    for seed in 0..24 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (text, classes) = texts[random.usize(0..texts.len())];
        let size = random.u32(8..80);
        let mut load = Load::new(size, text, classes, random.fork());
        let all: Vec<_> = (0..classes.len()).collect();
        // One class borrows all it can before the others start.
        load.run(RUN / 10, &[random.usize(0..classes.len())]);
        load.run(RUN / 10, &all);
        load.run(RUN, &all);
        let views = load.shaper.snapshot();
        for class in all {
            let name = &load.classes[class].0;
            let view = views.iter().find(|view| view.name == *name).expect("a view");
            let children = views.iter().filter(|child| child.parent.is_some_and(|parent| views[parent].name == *name));
            let own = view.rate - children.map(|child| child.rate).sum::<u32>();
            let average = load.average(class, RUN);
            assert!(average >= f64::from(own) - 1.0, "seed {seed}, {text} of {size}: {name} has {average} of {own}");
        }
        let total: f64 = (0..classes.len()).map(|class| load.average(class, RUN)).sum();
        assert!(total >= 0.98 * f64::from(size), "seed {seed}, {text}: {total} of {size} in use");
        assert!(total <= f64::from(size), "seed {seed}, {text}: {total} of {size} in use");
    }
}

/// Capacity beyond the rates is divided in proportion to the rates: within 2 % of the root.
#[test]
fn the_rest_is_shared_by_the_rates() {
    let text = r#"{"a": "30..100 %", "b": "20..100 %", "c": "10..100 %"}"#;
    let mut load = Load::new(100, text, &["a", "b", "c"], fastrand::Rng::with_seed(1));
    load.run(RUN, &[0, 1, 2]);
    for (class, expected) in [(0, 50.0), (1, 100.0 / 3.0), (2, 100.0 / 6.0)] {
        let average = load.average(class, RUN);
        assert!((average - expected).abs() < 2.0, "class {class} has {average}, expected {expected}");
    }
}

/// A class without a rate, beside classes whose rates use up the root, does not starve and takes at most one token for
/// that.
#[test]
fn a_class_without_a_rate_goes_on_beside_assured_ones() {
    let text = r#"{"a": "50..100 %", "b": "50..100 %", "poor": "0..50 %"}"#;
    let mut load = Load::new(20, text, &["a", "b", "poor"], fastrand::Rng::with_seed(2));
    load.run(RUN / 10, &[0, 1]);
    load.run(RUN, &[0, 1, 2]);
    let poor = load.average(2, RUN);
    assert!(poor > 0.3 && poor <= 1.0, "{poor}");
    assert!(load.average(0, RUN) >= 9.0 && load.average(1, RUN) >= 9.0);
}

#[test]
fn unclassified_requests_have_a_token_whatever_the_rates() {
    let text = r#"{"a": "50..100 %", "b": "50..100 %"}"#;
    let mut load = Load::new(10, text, &["a", "b", "root"], fastrand::Rng::with_seed(3));
    load.run(RUN / 10, &[0, 1]);
    load.run(RUN, &[0, 1, 2]);
    let root = load.average(2, RUN);
    assert!(root > 0.8, "{root}");
}
