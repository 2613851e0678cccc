//! One tree and several threads: the root is never exceeded, no token is lost, and no waiter is forgotten.

use super::{QUEUE, spec};
use crate::base::clock::Moment;
use crate::shaper::{Admission, Departure, Shaper, Token};
use crossbeam_channel::{Receiver, Sender, unbounded};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

const THREADS: usize = 4;
const ROUNDS: u32 = 20_000;
const LARGEST: u32 = 4;

struct Ring {
    shaper: Shaper<usize>,
    mail: Vec<(Sender<Token>, Receiver<Token>)>,
    /// Less than or equal to the number of tokens held.
    in_flight: AtomicU32,
    waits: AtomicU32,
}

impl Ring {
    fn new() -> Self {
        let text = r#"{"a": "50..100 %", "m": {"share": "25..75 %", "buckets": {"b": "50..100 %"}}}"#;
        Self {
            shaper: Shaper::new(LARGEST, &spec(text), QUEUE),
            mail: (0..THREADS).map(|_| unbounded()).collect(),
            in_flight: AtomicU32::new(0),
            waits: AtomicU32::new(0),
        }
    }

    fn deliver(&self, thread: usize, token: Token) {
        self.mail[thread].0.send(token).expect("an open mailbox");
    }

    fn use_token(&self, token: Token, now: Moment) {
        let held = self.in_flight.fetch_add(1, SeqCst) + 1;
        assert!(held <= LARGEST, "{held} of {LARGEST} tokens are held");
        self.in_flight.fetch_sub(1, SeqCst);
        self.shaper.give_back(token, now, |thread, token| self.deliver(thread, token));
    }

    fn receive(&self, thread: usize) -> Token {
        let received = self.mail[thread].1.recv_timeout(Duration::from_secs(30));
        received.unwrap_or_else(|_| panic!("a waiter was forgotten: {:#?}", self.shaper.snapshot()))
    }

    fn play(&self, thread: usize) {
        let mut random = fastrand::Rng::with_seed(thread as u64);
        let buckets = ["a", "b", "m", "root"].map(|name| self.shaper.bucket(name).expect("a bucket"));
        let mut kept = Vec::new();
        for round in 0..ROUNDS {
            let now = Moment::from_micros(round.into());
            match self.shaper.admit(buckets[random.usize(0..4)], thread, now, |other, token| self.deliver(other, token))
            {
                Admission::Token(token) if random.u8(0..4) == 0 => kept.push(token),
                Admission::Token(token) => self.use_token(token, now),
                Admission::Queued { key, .. } => {
                    self.waits.fetch_add(1, SeqCst);
                    // A thread that waits while it holds a token could wait for itself.
                    kept.drain(..).for_each(|token| self.use_token(token, now));
                    let left = random.bool() && self.shaper.cancel(key, Departure::Left).is_some();
                    if !left {
                        self.use_token(self.receive(thread), now);
                    }
                }
                Admission::QueueFull => panic!("a full queue"),
            }
        }
        kept.drain(..).for_each(|token| self.use_token(token, Moment::ZERO));
    }

    fn check_empty(&self) {
        for view in self.shaper.snapshot() {
            assert_eq!((view.held, view.queued), (0, 0), "{view:?}");
            assert!(view.held_max <= LARGEST, "{view:?}");
        }
        assert_eq!(self.shaper.queued(), 0);
        assert!(self.waits.load(SeqCst) > 100, "too few waits: {:?}", self.waits);
    }
}

#[test]
fn threads_share_the_tokens_exactly() {
    let ring = Ring::new();
    thread::scope(|scope| {
        (0..THREADS).for_each(|thread| {
            drop(scope.spawn({
                let ring = &ring;
                move || ring.play(thread)
            }))
        });
    });
    ring.check_empty();
}

#[test]
fn the_size_changes_under_load() {
    let ring = Ring::new();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let players: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn({
                    let ring = &ring;
                    move || ring.play(thread)
                })
            })
            .collect();
        let changer = scope.spawn(|| {
            let mut random = fastrand::Rng::with_seed(99);
            while !is_over.load(SeqCst) {
                let size = random.u32(1..=LARGEST);
                ring.shaper.resize(size, Moment::ZERO, |thread, token| ring.deliver(thread, token));
                thread::yield_now();
            }
        });
        let results: Vec<_> = players.into_iter().map(thread::ScopedJoinHandle::join).collect();
        is_over.store(true, SeqCst);
        changer.join().expect("no panic");
        results.into_iter().for_each(|result| result.expect("no panic"));
    });
    ring.check_empty();
}
