//! The targets of tests/fuzz under libFuzzer; `loadtest/fuzz` builds it as it has to be built.

#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
#[path = "../tests/sim/scene/mod.rs"]
mod scene;
#[cfg(fuzzing)]
#[path = "../tests/fuzz/targets/mod.rs"]
mod targets;

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    static RUN: std::sync::LazyLock<fn(&[u8])> = std::sync::LazyLock::new(chosen);
    RUN(bytes);
});

/// The target that `FUZZ_TARGET` names.
#[cfg(fuzzing)]
fn chosen() -> fn(&[u8]) {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let target = targets::ALL.iter().find(|(known, _)| *known == name);
    target.unwrap_or_else(|| panic!("FUZZ_TARGET={name:?} is no target")).1
}

#[cfg(not(fuzzing))]
fn main() {
    eprintln!("loadtest/fuzz builds and runs this");
    std::process::exit(2);
}
