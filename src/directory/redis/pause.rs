//! Pauses between attempts, and the signal that ends a thread.

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::convert::Infallible;
use std::time::Duration;

/// The first pause between attempts to connect.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_millis(800);

/// The stop signal of a thread: it fires when the other side is dropped.
#[derive(Clone, Debug)]
pub(in crate::directory) struct Stop(pub(super) Receiver<Infallible>);

impl Stop {
    /// The side to hold, and the side to check.
    pub(in crate::directory) fn new() -> (Sender<Infallible>, Self) {
        let (guard, stop) = crossbeam_channel::bounded(0);
        (guard, Self(stop))
    }

    /// The channel that disconnects.
    pub(super) fn signal(&self) -> &Receiver<Infallible> {
        &self.0
    }

    /// Sleeps for this time. Returns whether to end.
    pub(super) fn wait(&self, time: Duration) -> bool {
        self.0.recv_timeout(time) == Err(RecvTimeoutError::Disconnected)
    }

    pub(in crate::directory) fn is_set(&self) -> bool {
        self.0.try_recv() == Err(TryRecvError::Disconnected)
    }
}

/// A pause that grows with each attempt, and differs between nodes.
#[derive(Debug, Default)]
pub(in crate::directory) struct Pause(u32);

impl Pause {
    /// Sleeps. Returns whether to end.
    pub(in crate::directory) fn wait(&mut self, stop: &Stop) -> bool {
        let most = (FIRST_PAUSE * 2_u32.saturating_pow(self.0)).min(LAST_PAUSE);
        self.0 = (self.0 + 1).min(16);
        let pause = most.mul_f64(0.5 + fastrand::f64() / 2.0);
        stop.wait(pause)
    }

    /// Resets the pause after a success.
    pub(in crate::directory) fn reset(&mut self) {
        self.0 = 0;
    }
}
