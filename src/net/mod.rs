//! Sockets, encryption, polling and mail between threads. No HTTP.

pub mod activation;
pub mod listener;
pub mod mailbox;
mod socket;
mod sys;
pub mod tls;
pub mod transport;
