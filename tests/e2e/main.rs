//! End-to-end tests: the program as it is built, real sockets, raw clients and scripted backends.
//!
//! A test waits for a condition with a deadline and never for a while; it has a proxy, a directory and ports of its
//! own, so all run side by side. One that fails prints the proxy's files and keeps them.

mod admin;
mod affinity;
mod bulk;
mod cache;
mod cache_disk;
mod cache_parts;
mod cache_refresh;
mod clients;
mod clock;
mod clusters;
mod departures;
mod dns;
mod failure;
mod forwarding;
mod frontend_options;
mod haproxy;
mod harness;
mod headers;
mod health;
mod held;
mod limits;
mod lingering;
mod log_choice;
mod logs;
mod loops;
mod matrix;
mod mishaps;
mod moving;
mod names;
mod ondemand;
mod outage;
mod pressure;
mod program_log;
mod proxy_protocol;
mod queueing;
mod respawn;
mod responses;
mod retries;
mod routes;
mod secrets;
mod service;
mod shaper;
mod slow_start;
mod start;
mod stop;
mod succession;
mod support;
mod tls;
mod upgrade;
mod waiting;
