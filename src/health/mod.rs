//! Passive judgement: what an answer, or its absence, says about a backend.

mod passive;

pub use passive::{Observation, Settings, is_dead};
