//! Floor 0: basic parts for every room, which import no room.

pub mod atomic;
pub mod base64;
pub mod buffer;
pub mod cache_line;
pub mod client_network;
pub mod client_rates;
pub mod clock;
pub mod counters;
pub mod file_watch;
pub mod gen_slab;
pub mod hash;
pub mod histogram;
pub mod node_mark;
pub mod pacer;
pub mod printable;
pub mod rate_limiter;
pub mod reason;
pub mod secret;
pub mod slice_ext;
pub mod thread_cells;
pub mod throttle;
pub mod wheel;
