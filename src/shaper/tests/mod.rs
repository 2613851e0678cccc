//! Tests of the tree as a whole.

mod classify;
mod edits;
mod flows;
mod gradient;
mod option;
mod queues;
mod shares;
mod simulation;
mod threads;
mod x0;

use super::{Admission, BucketView, Flow, QueueLimits, Shaper, Spec, Token};
use crate::base::clock::Moment;
use std::time::Duration;

/// x0's fixture.
const FIXTURE: &str = r#"{"vip": "10..30 %", "main": {"share": "50..70 %", "buckets": {"upload": "50 %"}}}"#;

impl Flow for () {}
impl Flow for usize {}
impl Flow for (usize, u64) {}

/// Long queues with a timeout of a minute.
const QUEUE: QueueLimits = QueueLimits { limit: 1_000, timeout: Duration::from_secs(60) };

const NO_QUEUE: QueueLimits = QueueLimits { limit: 0, timeout: Duration::from_secs(60) };

fn spec(text: &str) -> Spec {
    Spec::parse(text).unwrap_or_else(|faults| panic!("{text}: {faults:?}"))
}

/// A tree and its current time.
struct Bench {
    shaper: Shaper<u32>,
    now: Moment,
}

impl Bench {
    fn new(size: u32, text: &str, queue: QueueLimits) -> Self {
        Self { shaper: Shaper::new(size, &spec(text), queue), now: Moment::ZERO }
    }

    fn admit(&self, bucket: &str, waiter: u32) -> Admission {
        let bucket = self.shaper.bucket(bucket).unwrap_or_else(|| panic!("no bucket {bucket}"));
        self.shaper.admit(bucket, waiter, self.now, |other, _| panic!("{other} got a token of an arrival"))
    }

    /// A token, or `None` if the request would have to wait.
    fn take(&self, bucket: &str) -> Option<Token> {
        match self.admit(bucket, 0) {
            Admission::Token(token) => Some(token),
            Admission::QueueFull => None,
            Admission::Queued { .. } => panic!("{bucket}: a queue where there is to be none"),
        }
    }

    /// All tokens that a bucket can get.
    fn take_all(&self, bucket: &str) -> Vec<Token> {
        std::iter::from_fn(|| self.take(bucket)).collect()
    }

    fn enqueue(&self, bucket: &str, waiter: u32) {
        assert!(matches!(self.admit(bucket, waiter), Admission::Queued { .. }), "{bucket} has a token for {waiter}");
    }

    /// Returns a token; returns the waiters that got one.
    fn give_back(&self, token: Token) -> Vec<(u32, Token)> {
        let mut granted = Vec::new();
        self.shaper.give_back(token, self.now, |waiter, token| granted.push((waiter, token)));
        granted
    }

    fn resize(&self, size: u32) -> Vec<(u32, Token)> {
        let mut granted = Vec::new();
        self.shaper.resize(size, self.now, |waiter, token| granted.push((waiter, token)));
        granted
    }

    fn view(&self, bucket: &str) -> BucketView {
        let views = self.shaper.snapshot();
        views.into_iter().find(|view| view.name == bucket).unwrap_or_else(|| panic!("no view of {bucket}"))
    }

    fn sizes(&self, bucket: &str) -> (u32, u32) {
        let view = self.view(bucket);
        (view.rate, view.ceil)
    }

    fn held(&self, bucket: &str) -> (u32, u32) {
        let view = self.view(bucket);
        (view.held, view.over)
    }
}
