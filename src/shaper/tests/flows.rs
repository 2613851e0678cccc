//! Flows of one bucket: turns between them, and the tokens that they hold.

use super::{NO_QUEUE, spec};
use crate::base::clock::Moment;
use crate::shaper::{Admission, BucketId, Departure, Flow, QueueLimits, Shaper, Token, WaiterKey};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A waiter of a flow, and the tokens that all flows hold.
#[derive(Debug, Clone)]
struct Waiter {
    flow: u32,
    number: u32,
    held: Arc<[AtomicU32]>,
}

impl Flow for Waiter {
    fn flow(&self) -> u32 {
        self.flow
    }

    fn held(&self) -> u32 {
        self.held[self.flow as usize].load(Ordering::Relaxed)
    }
}

struct Bench {
    shaper: Shaper<Waiter>,
    held: Arc<[AtomicU32]>,
    next: u32,
}

impl Bench {
    fn new(size: u32, flows: usize, limit: u32) -> Self {
        let shaper = Shaper::new(size, &spec("{}"), QueueLimits { limit, ..NO_QUEUE });
        Self { shaper, held: (0..flows).map(|_| AtomicU32::new(0)).collect(), next: 0 }
    }

    /// A request of a flow, which notes its token where it gets one.
    fn admit(&mut self, flow: u32) -> Admission {
        self.next += 1;
        let waiter = Waiter { flow, number: self.next, held: Arc::clone(&self.held) };
        let admission = self.shaper.admit(BucketId::UNCLASSIFIED, waiter, Moment::ZERO, |_, _| {});
        if matches!(admission, Admission::Token(_)) {
            self.held[flow as usize].fetch_add(1, Ordering::Relaxed);
        }
        admission
    }

    fn enqueue(&mut self, flow: u32) -> (u32, WaiterKey) {
        match self.admit(flow) {
            Admission::Queued { key, .. } => (self.next, key),
            other => panic!("{other:?}, and no place in a queue"),
        }
    }

    /// Gives the token of a flow back; returns who has got it.
    fn give_back(&self, flow: u32, token: Token) -> Option<(Waiter, Token)> {
        self.held[flow as usize].fetch_sub(1, Ordering::Relaxed);
        let mut granted = None;
        self.shaper.give_back(token, Moment::ZERO, |waiter, token| {
            self.held[waiter.flow as usize].fetch_add(1, Ordering::Relaxed);
            assert!(granted.replace((waiter, token)).is_none(), "one token for two");
        });
        granted
    }
}

fn token(admission: Admission) -> Token {
    match admission {
        Admission::Token(token) => token,
        other => panic!("{other:?}, and no token"),
    }
}

#[test]
fn a_long_queue_of_one_flow_stands_before_no_other() {
    let mut bench = Bench::new(1, 3, 100);
    let mut held = (0, token(bench.admit(0)));
    let first: Vec<_> = (0..50).map(|_| bench.enqueue(0).0).collect();
    let [second, third] = [1, 2].map(|flow| [bench.enqueue(flow).0, bench.enqueue(flow).0]);
    let mut order = Vec::new();
    while let Some((waiter, token)) = bench.give_back(held.0, held.1) {
        order.push(waiter.number);
        held = (waiter.flow, token);
    }
    assert_eq!(order[..6], [first[0], second[0], third[0], first[1], second[1], third[1]]);
    assert_eq!(order[6..], first[2..], "first in, first out within a flow");
}

#[test]
fn the_flow_that_holds_the_fewest_tokens_is_next() {
    let mut bench = Bench::new(4, 2, 100);
    let mut tokens: Vec<_> = (0..4).map(|_| token(bench.admit(0))).collect();
    (0..10).for_each(|_| _ = bench.enqueue(0));
    (0..3).for_each(|_| _ = bench.enqueue(1));
    let mut flows = Vec::new();
    for _ in 0..3 {
        let (waiter, _token) = bench.give_back(0, tokens.pop().expect("one is left")).expect("a waiter");
        flows.push(waiter.flow);
    }
    // One has three and the other one; two and two; then it is the first one's turn.
    assert_eq!(flows, [1, 1, 0]);
}

#[test]
fn each_flow_has_a_queue_of_its_own_and_one_who_leaves_goes_from_any_place() {
    let mut bench = Bench::new(1, 2, 3);
    let held = token(bench.admit(0));
    let waiting: Vec<_> = (0..3).map(|_| bench.enqueue(0)).collect();
    assert_eq!(bench.admit(0), Admission::QueueFull);
    let (other, _) = bench.enqueue(1);
    assert!(bench.shaper.cancel(waiting[0].1, Departure::Left).is_some());
    assert!(bench.shaper.cancel(waiting[2].1, Departure::TimedOut).is_some());
    assert!(bench.shaper.cancel(waiting[2].1, Departure::Left).is_none());
    let (last, _) = bench.enqueue(0);
    let mut held = (0, held);
    let mut order = Vec::new();
    while let Some((waiter, token)) = bench.give_back(held.0, held.1) {
        order.push(waiter.number);
        held = (waiter.flow, token);
    }
    assert_eq!(order, [waiting[1].0, other, last]);
    assert_eq!((bench.shaper.queued(), bench.shaper.held()), (0, 0));
}

/// Beside a flow whose requests last a thousand times as long, others keep their part.
#[test]
fn slow_requests_of_one_flow_do_not_gather_all_tokens() {
    for seed in 0..4 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bench = Bench::new(12, 3, 20);
        let mut in_flight: Vec<(u64, u32, Token)> = Vec::new();
        let mut served = [0; 3];
        for time in 0..4_000_u64 {
            // Every flow always has requests that wait.
            for flow in [0, 1, 2].repeat(4) {
                if let Admission::Token(token) = bench.admit(flow) {
                    in_flight.push((time + random.u64(1..4), flow, token));
                }
            }
            while let Some(place) = in_flight.iter().position(|(end, ..)| *end <= time) {
                let (_, flow, token) = in_flight.swap_remove(place);
                if let Some((waiter, token)) = bench.give_back(flow, token) {
                    let length = if waiter.flow == 0 { 200 } else { random.u64(1..4) };
                    in_flight.push((time + length, waiter.flow, token));
                    served[waiter.flow as usize] += 1;
                }
            }
            let slow = in_flight.iter().filter(|(_, flow, _)| *flow == 0).count();
            assert!(slow <= 5, "seed {seed}: {slow} of 12 tokens are the slow flow's at {time}");
        }
        let [slow, one, other] = served;
        assert!(slow >= 4 * 15, "seed {seed}: the slow flow had {slow} tokens");
        assert!(one.min(other) * 10 >= one.max(other) * 9, "seed {seed}: {one} and {other}");
    }
}
