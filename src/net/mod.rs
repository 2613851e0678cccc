//! Sockets, polling and mail between threads. No HTTP.

pub mod mailbox;
