//! Sockets that the service manager listens on for this process (sd_listen_fds(3)).

use super::listener::Listener;
use super::sys;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

/// The listening sockets that were handed to this process. To be called before it listens on any of its own. They can be
/// taken once; afterwards there are none.
pub fn take_sockets() -> io::Result<Vec<Listener>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    sd_notify::listen_fds()?.map(|number| sys::inherited_listener(number).and_then(Listener::adopt)).collect()
}
