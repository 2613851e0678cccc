//! The report of a panic: place, reason and backtrace.

use std::backtrace::Backtrace;
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Makes the program's own log report panics of all threads.
///
/// A backtrace consists of addresses at first. Resolving them takes as long as the program is large, some 200 ms, and
/// until the panicking thread has ended no worker takes its place; so another thread resolves them. A second backtrace
/// would have to wait for that, so a panic that follows at once is logged without one.
pub(super) fn log_them() {
    static IS_BUSY: AtomicBool = AtomicBool::new(false);
    panic::set_hook(Box::new(|info| {
        let name = thread::current().name().unwrap_or("a thread").to_owned();
        log::error!("{name}: {info}");
        if IS_BUSY.swap(true, Ordering::AcqRel) {
            return log::error!("{name}: what has led to it is not looked up, for another panic's sake");
        }
        let trace = Backtrace::force_capture();
        let tell = move || {
            // Now it is looked up, and not while others wait to write to the log.
            let trace = trace.to_string();
            IS_BUSY.store(false, Ordering::Release);
            log::error!("{name}: this has led to the panic:\n{trace}");
        };
        if let Err(error) = thread::Builder::new().name("backtrace".into()).spawn(tell) {
            IS_BUSY.store(false, Ordering::Release);
            log::error!("what has led to the panic cannot be looked up: {error}");
        }
    }));
}
