//! Sockets, polling and mail between threads. No HTTP.

pub mod listener;
pub mod mailbox;
pub mod transport;
