//! Sockets, TLS, polling and messages between threads. No HTTP.

pub mod activation;
pub mod connection_limiter;
pub mod fd_passing;
pub mod listener;
pub mod liveness;
pub mod mailbox;
mod socket;
mod sys;
pub mod tls;
pub mod transport;
pub mod wakeup_timer;

pub use sys::release_free_memory;
