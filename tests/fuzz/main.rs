//! Inputs that nobody thought of, and what must hold for each of them whatever it is: not only that nothing panics.
//!
//! The ordinary test run plays the corpus of each target (`corpus/<target>/`), then mutations of it by a fixed seed:
//! seconds. The long run lets libFuzzer look for inputs that reach new code: `loadtest/fuzz`, which tells how. An input
//! that fails is to be kept in the corpus when the fault is mended.
//!
//! `FUZZ_INPUT=file cargo test --test fuzz <target>` plays one input; `FUZZ_MUTATIONS=n` sets how many are played.

mod mutate;
mod play;
#[path = "../sim/scene/mod.rs"]
mod scene;
mod targets;

macro_rules! plays {
    ($( $target:ident )*) => {
        $( #[test] fn $target() { play::play(stringify!($target)); } )*

        #[test]
        fn every_target_is_played_and_has_a_corpus() {
            let known: Vec<_> = targets::ALL.iter().map(|(name, _)| *name).collect();
            assert_eq!(known, [$( stringify!($target), )*]);
            play::check_corpora(&known);
        }
    };
}

plays! {
    request_head
    response_head
    chunked
    differential_request
    differential_response
    exchange
    proxy_header
    routes_file
    config_file
    redis_records
    snapshot
    haproxy_config
}
