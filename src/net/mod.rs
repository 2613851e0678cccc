//! Sockets, polling and mail between threads. No HTTP.

pub mod listener;
pub mod mailbox;
mod sys;
pub mod transport;
