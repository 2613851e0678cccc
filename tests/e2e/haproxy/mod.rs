//! HAProxy's configuration files, served.

mod bodies;
mod listeners;
mod reload;
mod rules;
mod stats;
mod tables;

use crate::support::backend::Backend;
use crate::support::proxy::{Proxy, Setup};
use crate::support::{canned, unused_address};
use std::net::SocketAddr;

/// What most files begin with.
const DEFAULTS: &str = "defaults\n mode http\n timeout connect 5s\n timeout client 10s\n timeout server 10s\n";

/// A backend that says its name, and what it was asked for.
fn named(name: &'static str) -> Backend {
    Backend::serve(move |request, conn| {
        let head = &request.head;
        conn.send(canned::ok(&format!("{name} {}", head.target())));
    })
}

/// A line `server` for a backend.
fn server(name: &str, backend: &Backend, words: &str) -> String {
    format!(" server {name} {} {words}\n", backend.address())
}

/// The setup of a proxy that serves a file, which is made for its address.
fn setup(text: impl FnOnce(SocketAddr) -> String) -> Setup {
    let address = unused_address();
    let text = format!("{DEFAULTS}{}", text(address));
    at(address, Setup::new().driver("haproxy:haproxy.cfg").file("haproxy.cfg", &text))
}

/// Has a proxy listen there.
fn at(address: SocketAddr, mut setup: Setup) -> Setup {
    setup.address = Some(address);
    setup
}

/// A proxy with one frontend of these lines, and what follows it.
#[track_caller]
fn serve(frontend: &str, rest: &str) -> Proxy {
    setup(|address| format!("frontend www\n bind {address}\n{frontend}\n{rest}")).start()
}
