//! One scenario: what the seeded simulation and the fuzz targets play.

mod backend;
mod check;
mod client;
pub(crate) mod decoder;
pub(crate) mod dice;
mod events;
pub(crate) mod message;
mod peer;
mod plan;
mod turn;
mod verdict;
pub(crate) mod world;

use dice::Dice;
use world::World;

/// Plays what `dice` decide to its end, and hands the world to `look` before it is taken apart.
pub(crate) fn play(dice: Dice, trace: bool, look: impl FnOnce(&World)) {
    let mut world = World::new(dice, trace);
    world.note(|| format!("{:#?}", world.plan.describe()));
    world.run();
    let world = verdict::at_end(world);
    look(&world);
    verdict::all_is_given_back(world);
}
