//! How long connections stand still: the longest pause of each in each window of time.

use serde_json::{Value, json};
use sluice::base::clock::Moment;
use std::time::Duration;

pub(crate) struct Pauses {
    started: Moment,
    window: Duration,
    /// The window of each connection, and its longest pause there so far, in microseconds.
    present: Vec<(u128, u32)>,
    longest: Vec<u32>,
}

impl Pauses {
    pub(crate) fn new(connections: usize, started: Moment, window: Duration) -> Self {
        Self { started, window, present: vec![(0, 0); connections], longest: Vec::new() }
    }

    /// A connection has gone on after this pause.
    pub(crate) fn note(&mut self, connection: usize, now: Moment, pause: Duration) {
        let window = now.since(self.started).as_micros() / self.window.as_micros().max(1);
        let pause = u32::try_from(pause.as_micros()).unwrap_or(u32::MAX);
        let (present, longest) = &mut self.present[connection];
        if *present == window {
            *longest = pause.max(*longest);
        } else {
            self.longest.push(std::mem::replace(longest, pause));
            *present = window;
        }
    }

    pub(crate) fn report(&mut self) -> Value {
        self.longest.extend(self.present.iter().map(|(_, longest)| *longest));
        self.longest.sort_unstable();
        let rank = |share: f64| self.longest.get((self.longest.len() as f64 * share) as usize);
        json!({"p50": rank(0.5), "p99": rank(0.99), "p999": rank(0.999), "max": self.longest.last()})
    }
}
