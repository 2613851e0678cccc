//! Sockets, encryption, polling and mail between threads. No HTTP.

pub mod activation;
pub mod alarm;
pub mod listener;
pub mod mailbox;
pub mod passing;
pub mod quota;
mod socket;
mod sys;
pub mod tls;
pub mod transport;

pub use sys::release_free_memory;
