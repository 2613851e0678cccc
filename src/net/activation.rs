//! Sockets that the service manager has opened for this process (sd_listen_fds(3)).

use super::listener::Listener;
use super::sys;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

/// The listening sockets handed to this process. Call it before the process listens on a socket of its own. The first
/// call takes the sockets; later ones return none.
pub fn take_sockets() -> io::Result<Vec<Listener>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    sd_notify::listen_fds()?.map(|number| sys::inherited_listener(number).and_then(Listener::adopt)).collect()
}
