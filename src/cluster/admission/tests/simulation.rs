//! Admission in virtual time: arrivals, ends, failures, edits and cores that end, against a slow reference.
//! `ADMISSION_SEED=n cargo test cluster::admission::tests::simulation` replays one seed.

use super::world::{CLASSES, CORES, World};
use std::sync::atomic::{AtomicU64, Ordering};

const SEEDS: u64 = 50;
const STEPS: usize = 700;

const BUCKETS: &str = r#"{"vip": "20..60 %", "upload": "30..80 %", "jail": "1..2 t"}"#;

fn seeds() -> std::ops::Range<u64> {
    let one = std::env::var("ADMISSION_SEED").ok().map(|seed| seed.parse().expect("ADMISSION_SEED is a number"));
    one.map_or(0..SEEDS, |seed: u64| seed..seed + 1)
}

/// Plays seeds, and reports the seed of a failure.
fn play(buckets: Option<&'static str>, check: impl Fn(&mut World) + Copy) {
    let (waited, served) = (AtomicU64::new(0), AtomicU64::new(0));
    for seed in seeds() {
        let step = AtomicU64::new(0);
        let run = std::panic::AssertUnwindSafe(|| {
            let options: &[_] = match seed % 4 {
                0 => &[],
                1 => &[("maxRequests", "4"), ("slowStart", "2s")],
                2 => &[("queueLimit", "5")],
                _ => &[("slowStart", "500ms"), ("queueLimit", "12")],
            };
            let mut world = World::new(seed, buckets, options);
            for _ in 0..STEPS {
                step.fetch_add(1, Ordering::Relaxed);
                event(&mut world);
                check(&mut world);
            }
            world.drain();
            waited.fetch_add(world.waited, Ordering::Relaxed);
            served.fetch_add(world.served, Ordering::Relaxed);
        });
        if let Err(panic) = std::panic::catch_unwind(run) {
            eprintln!("ADMISSION_SEED={seed}, step {}", step.into_inner());
            std::panic::resume_unwind(panic);
        }
    }
    let (waited, served) = (waited.into_inner(), served.into_inner());
    assert!(served > 50 * (seeds().end - seeds().start), "only {served} requests were served");
    assert!(waited > 20 * (seeds().end - seeds().start), "only {waited} requests waited");
}

fn event(world: &mut World) {
    match world.random.u8(..100) {
        0..38 => {
            let class = world.random.usize(..CLASSES.len());
            world.arrive(class);
        }
        38..66 => world.finish(),
        66..86 => {
            let core = world.random.usize(..CORES);
            world.read_mail(core);
        }
        86..90 => world.leave(),
        90..94 => world.turn_member(),
        94..97 => world.pass_time(800_000),
        97..99 => world.random_edit(),
        _ => world.lose_core(),
    }
}

#[test]
fn slots_are_never_exceeded_lost_or_idle_and_go_to_the_oldest() {
    play(None, World::check_slots);
}

#[test]
fn with_classes_tokens_are_not_either() {
    play(Some(BUCKETS), |world| {
        world.check_slots();
        world.check_tokens();
    });
}
