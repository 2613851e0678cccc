//! What a cluster is: frontends, their members, the backends behind them, and what all cores share of these.

mod backend;
mod frontend;

pub use backend::{Addresses, Backend, BackendId, BackendUrl, BackendUrlError};
pub use frontend::{Frontend, Member, Options};
