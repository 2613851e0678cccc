//! Floor 0: what every room may use, and what uses no room.

pub mod buffer;
pub mod clock;
pub mod counters;
pub mod cut;
pub mod folders;
pub mod printable;
pub mod reason;
pub mod secret;
pub mod slots;
pub mod throttle;
pub mod wheel;
