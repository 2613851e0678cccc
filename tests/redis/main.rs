//! Routes from a real Redis: the program as it is built, and servers that each test starts for itself on free ports.

mod buckets;
mod certificates;
mod changes;
mod cluster;
mod cluster_servers;
mod fake;
mod fleet;
mod hchecker;
mod health;
mod known;
mod marks;
mod ondemand;
mod operator;
mod options;
mod outage;
mod purges;
mod replies;
mod secrets;
mod sentinel;
mod server;
mod shared_probes;
mod spellings;
#[allow(dead_code, reason = "the support of the end-to-end tests has more than these need")]
#[path = "../e2e/support/mod.rs"]
mod support;
mod tools;
mod tunnels;
mod wake;
