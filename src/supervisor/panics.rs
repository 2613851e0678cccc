//! What is told of a panic: where, why, and how it came to that.

use std::backtrace::Backtrace;
use std::panic;
use std::thread;

/// Has panics of all threads told by the program's own log.
pub(super) fn log_them() {
    panic::set_hook(Box::new(|info| {
        let name = thread::current().name().unwrap_or("a thread").to_owned();
        log::error!("{name}: {info}");
        // So far these are addresses. To look up what they mean takes as long as the program is large, and until this
        // thread has ended nobody works in its place.
        let trace = Backtrace::force_capture();
        let tell = move || log::error!("{name}: this has led to the panic:\n{trace}");
        if let Err(error) = thread::Builder::new().name("backtrace".into()).spawn(tell) {
            log::error!("what has led to the panic cannot be looked up: {error}");
        }
    }));
}
