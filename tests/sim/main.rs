//! The exchange in a world of its own: thousands of scenarios by seed, in virtual time.
//!
//! A seed decides on a request, on backends and their answers, on what goes wrong, and on the order and the size of
//! every event. At each step and at the end it is checked what must hold whatever happens (`check`, `verdict`).
//!
//! `SIM_SEED=n` plays one scenario and prints its events; `SIM_SEEDS=n` sets how many are played.

mod coverage;
mod scene;

use coverage::Coverage;
use scene::dice::Dice;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

/// How many scenarios the ordinary test run plays.
const SEEDS: u64 = 20_000;

#[test]
fn whatever_happens_the_invariants_hold() {
    if let Some(seed) = number("SIM_SEED") {
        return play(seed, true, &mut Coverage::default());
    }
    let seeds = number("SIM_SEEDS").unwrap_or(SEEDS);
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let mut coverage = Coverage::default();
    thread::scope(|scope| {
        let parts: Vec<_> =
            (0..threads).map(|first| scope.spawn(move || play_all((first as u64..seeds).step_by(threads)))).collect();
        for part in parts {
            coverage.merge(part.join().unwrap_or_else(|panic| panic!("{}", text_of(panic.as_ref()))));
        }
    });
    if seeds >= SEEDS {
        coverage.check();
    }
}

fn play_all(seeds: impl Iterator<Item = u64>) -> Coverage {
    let mut coverage = Coverage::default();
    for seed in seeds {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| play(seed, false, &mut coverage))) {
            let fault = text_of(panic.as_ref());
            panic!("seed {seed}: {fault}\nits events: SIM_SEED={seed} cargo test --test sim -- --nocapture");
        }
    }
    coverage
}

fn play(seed: u64, trace: bool, coverage: &mut Coverage) {
    scene::play(Dice::with_seed(seed), trace, |world| coverage.add(world));
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text}: expected a number")))
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}
