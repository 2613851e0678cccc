//! The exchange: bytes decide on a scenario of the simulation and on each of its events, and its invariants are the
//! oracle.

use crate::scene;
use crate::scene::dice::Dice;

pub(crate) fn run(bytes: &[u8]) {
    scene::play(Dice::with_bytes(bytes), false, |_| ());
}
