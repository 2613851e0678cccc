//! The loop that drives an exchange: its steps, their effects in order, then the bytes for both sides, and what the exchange
//! is told of those.

use super::Exchange;
use super::events::{Effect, Input, Side};
use super::output_queue::Flushed;
use super::worker_context::{Output, WorkerContext};

/// Who has an exchange, performs its effects and has the sockets of both sides.
pub trait Driver {
    /// The exchange, and what it shares with others; `None` once it is over.
    fn exchange(&mut self) -> Option<(&mut Exchange, &mut WorkerContext)>;

    /// Where the results of steps are.
    fn output(&mut self) -> &mut Output;

    /// Does what is to be done. Steps that follow from it at once may be taken by [`Exchange::step`]: their effects come
    /// behind those that are there already.
    fn perform(&mut self, effect: Effect);

    /// Has the socket of a side take the bytes that the output has for it, by [`Exchange::flush`]. `None` where there is no
    /// such socket.
    fn send(&mut self, side: Side, input: &[u8]) -> Option<Flushed>;

    /// What was sent to a side ended so; the exchange has yet to be told.
    fn note_flushed(&mut self, side: Side, flushed: Flushed);

    /// Whether the exchange is to hear later, by [`tell`], that all bytes for a side have left.
    fn puts_off_drained(&mut self, _side: Side) -> bool {
        false
    }

    /// One step of the exchange; how many bytes it used.
    fn take_step(&mut self, input: Input<'_>, offset: usize) -> usize {
        self.exchange().map_or(0, |(exchange, core)| exchange.step(input, offset, core))
    }

    /// The order in which the sides get their bytes.
    fn sides(&mut self) -> [Side; 2] {
        [Side::Upstream, Side::Client]
    }
}

/// Tells an exchange what happened, does what it wants done, sends what it has to send.
pub fn tell(driver: &mut impl Driver, input: Input<'_>) {
    step(driver, input, 0);
    flush(driver, &[]);
}

/// A step and its effects; its bytes are left to [`flush`]. Returns how many bytes were used.
pub fn step<D: Driver>(driver: &mut D, input: Input<'_>, offset: usize) -> usize {
    let used = driver.take_step(input, offset);
    perform(driver);
    used
}

/// Performs the effects of the last steps, and of those that follow from them, in order.
pub fn perform(driver: &mut impl Driver) {
    while let Some(effect) = driver.output().effects.take_first() {
        driver.perform(effect);
    }
}

/// Offers bytes of a side for as long as the exchange uses them: how many it has used, and whether it wants more of them
/// before it can use the rest. What is left of one connection to a backend is nothing to the next one.
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

/// Sends what the steps of this turn have made, or passed on from `input`.
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
        // What is left is for somebody who is gone, or was made by the end of a flush.
        if driver.exchange().is_none() {
            driver.output().clear();
        }
    }
}

/// Tells an exchange what has become of the bytes for a side.
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
