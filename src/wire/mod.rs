//! HTTP/1.1 as bytes. Nothing here knows a socket or the time.

pub mod forwarded;
