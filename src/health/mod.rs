//! Passive judgement: what an answer, or its absence, says about a backend.

mod passive;

pub use passive::{CLOSED_IN_A_ROW, Observation, Settings, is_dead};
