//! One request from head to last byte, as an enum of states. No I/O and no clock.

mod settings;

pub use settings::Settings;
