//! The loop that drives an exchange: its steps, their effects in order, then the bytes for both sides and the result of
//! sending them.

use super::Exchange;
use super::events::{Effect, Input, Side};
use super::output_queue::Flushed;
use super::worker_context::{Output, WorkerContext};

/// The owner of an exchange: it performs the effects and holds the sockets of both sides.
pub trait Driver {
    /// The exchange, and the context it shares with others; `None` once it is over.
    fn exchange(&mut self) -> Option<(&mut Exchange, &mut WorkerContext)>;

    /// The output of steps.
    fn output(&mut self) -> &mut Output;

    /// Performs an effect. It may call [`Exchange::step`] for steps that follow at once: their effects are queued
    /// behind the present ones.
    fn perform(&mut self, effect: Effect);

    /// Sends the bytes of the output for a side with [`Exchange::flush`]. `None` if the side has no socket.
    fn send(&mut self, side: Side, input: &[u8]) -> Option<Flushed>;

    /// Records the result of sending to a side; the exchange has yet to be notified.
    fn note_flushed(&mut self, side: Side, flushed: Flushed);

    /// Whether the exchange is notified later, by [`tell`], that all bytes for a side have been sent.
    fn puts_off_drained(&mut self, _side: Side) -> bool {
        false
    }

    /// Runs one step of the exchange. Returns the number of bytes it consumed.
    fn take_step(&mut self, input: Input<'_>, offset: usize) -> usize {
        self.exchange().map_or(0, |(exchange, core)| exchange.step(input, offset, core))
    }

    /// The order in which the sides get their bytes.
    fn sides(&mut self) -> [Side; 2] {
        [Side::Upstream, Side::Client]
    }
}

/// Passes an input to an exchange, performs its effects and sends its bytes.
pub fn tell(driver: &mut impl Driver, input: Input<'_>) {
    step(driver, input, 0);
    flush(driver, &[]);
}

/// Runs a step and performs its effects; the bytes are left to [`flush`]. Returns the number of consumed bytes.
pub fn step<D: Driver>(driver: &mut D, input: Input<'_>, offset: usize) -> usize {
    let used = driver.take_step(input, offset);
    perform(driver);
    used
}

/// Performs the effects of the last steps, and of the steps that follow from them, in order.
pub fn perform(driver: &mut impl Driver) {
    while let Some(effect) = driver.output().effects.take_first() {
        driver.perform(effect);
    }
}

/// Offers bytes of a side while the exchange consumes them. Returns the number of consumed bytes, and whether more
/// bytes are needed to use the rest. Bytes left from one upstream connection are never offered to the next one.
pub fn offer<D: Driver>(driver: &mut D, side: Side, bytes: &[u8]) -> (usize, bool) {
    let connection = |driver: &mut D| driver.exchange().map(|(exchange, _)| exchange.connections());
    let first = connection(driver);
    let mut at = 0;
    loop {
        let used = step(driver, Input::Bytes(side, bytes.get(at..).unwrap_or_default()), at);
        at += used;
        if at >= bytes.len() {
            return (at, false);
        }
        let is_same = side == Side::Client || connection(driver) == first;
        let wants_more = is_same && driver.exchange().is_some_and(|(exchange, _)| exchange.wants(side));
        if used == 0 || !wants_more {
            return (at, used == 0 && wants_more);
        }
    }
}

/// Sends the bytes that the steps of this turn have produced or forwarded from `input`.
pub fn flush(driver: &mut impl Driver, input: &[u8]) {
    while driver.output().has_bytes() {
        for side in driver.sides() {
            if driver.output().queue(side).is_empty() {
                continue;
            }
            if let Some(flushed) = driver.send(side, input) {
                after_flush(driver, side, flushed);
            }
        }
        // The remaining bytes are for a client that is gone, or were produced at the end of a flush.
        if driver.exchange().is_none() {
            driver.output().clear();
        }
    }
}

/// Reports the result of sending to a side.
pub fn after_flush<D: Driver>(driver: &mut D, side: Side, flushed: Flushed) {
    let waits = driver.exchange().is_some_and(|(exchange, _)| exchange.waits_for_drain(side));
    driver.note_flushed(side, flushed);
    let input = match (flushed, side) {
        (Flushed::All, _) if waits && driver.puts_off_drained(side) => return,
        (Flushed::All, _) if waits => Input::Drained(side),
        (Flushed::Broken, Side::Client) => Input::Broken(Side::Client),
        (Flushed::Broken, Side::Upstream) => Input::UpstreamWriteClosed,
        _ => return,
    };
    step(driver, input, 0);
}
