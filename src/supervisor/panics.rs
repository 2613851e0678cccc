//! What is told of a panic: where, why, and how it came to that.

use std::backtrace::Backtrace;
use std::panic;
use std::thread;

/// Has panics of all threads told by the program's own log.
pub(super) fn log_them() {
    panic::set_hook(Box::new(|info| {
        let thread = thread::current();
        let name = thread.name().unwrap_or("a thread");
        log::error!("{name}: {info}\n{}", Backtrace::force_capture());
    }));
}
