//! What the end-to-end tests stand on: the proxy as a child process, scripted backends, a raw client.

pub(crate) mod backend;
pub(crate) mod body;
pub(crate) mod browser;
pub(crate) mod canned;
pub(crate) mod client;
pub(crate) mod launch;
pub(crate) mod message;
pub(crate) mod proxy;
pub(crate) mod secrets;
pub(crate) mod tls;

use sluice::base::clock::Clock;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// The host that most tests ask for.
pub(crate) const HOST: &str = "www.example.com";

/// How long a test waits for something that must happen: long, because the machine may be busy, and never reached when
/// all is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Says that a test is skipped, past the harness, which hides what a test prints that passes.
pub(crate) fn skipped(why: &str) {
    let line = format!("skipped: {why}\n");
    io::stderr().write_all(line.as_bytes()).expect("standard error");
}

/// Waits until `condition` holds; a test fails that waits for longer than [`PATIENCE`].
#[track_caller]
pub(crate) fn until(what: &str, condition: impl FnMut() -> bool) {
    assert!(holds_within(PATIENCE, condition), "waited {PATIENCE:?} in vain: {what}");
}

/// Whether `condition` came to hold in time. The one place where a test lets time pass.
pub(crate) fn holds_within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let clock = Clock::new();
    let deadline = clock.now() + limit;
    loop {
        if condition() {
            return true;
        }
        if clock.now() > deadline {
            return false;
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// A door that is closed at first. Whoever passes waits until it is open.
#[derive(Default)]
pub(crate) struct Gate {
    open: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    /// Opens the door, for good.
    pub(crate) fn open(&self) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Waits until the door is open.
    #[track_caller]
    pub(crate) fn pass(&self) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let (open, _) =
            self.changed.wait_timeout_while(open, PATIENCE, |open| !*open).unwrap_or_else(PoisonError::into_inner);
        assert!(*open, "waited {PATIENCE:?} in vain for a gate to open");
    }
}

/// A loopback address with a port that nobody uses and nobody else will be given: each call has an IP address of its
/// own, so neither another test nor the local end of some connection can take the port before it is used, or while a
/// backend is down.
pub(crate) fn unused_address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let host = (std::process::id() & 0x3fff) << 10 | (1 + NEXT.fetch_add(1, Ordering::Relaxed) % 1022);
    let ip = IpAddr::V4(Ipv4Addr::from(127 << 24 | host));
    let probe = TcpListener::bind((ip, 0)).expect("finding a free port");
    probe.local_addr().expect("the address of the probe")
}

/// Waits until the other side of an idle connection must have had its say: two answers to a request of no consequence,
/// on connections of their own, of a proxy of one worker. Whatever reached the worker before has been handled then.
pub(crate) fn worker_has_caught_up(proxy: &proxy::Proxy) {
    for _ in 0..2 {
        assert_eq!(proxy.client().get("__ping__", "/").status(), 200, "the ping of {proxy}");
    }
}
