//! Reports of panics: place, message and backtrace.

use std::backtrace::Backtrace;
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Reports panics of all threads in the program's log.
///
/// Another thread resolves the addresses of the backtrace. Resolving takes long for a large program, about 200 ms, and
/// the worker is replaced only after the panicking thread has ended. A second backtrace would have to wait for the
/// first one, so a panic that follows at once is logged without one.
pub(super) fn log_them() {
    static IS_BUSY: AtomicBool = AtomicBool::new(false);
    panic::set_hook(Box::new(|info| {
        let name = thread::current().name().unwrap_or("a thread").to_owned();
        log::error!("{name}: {info}");
        if IS_BUSY.swap(true, Ordering::AcqRel) {
            return log::error!("{name}: no backtrace, because another panic is being resolved");
        }
        let trace = Backtrace::force_capture();
        let tell = move || {
            // The addresses are resolved here, and not while other threads wait to write to the log.
            let trace = trace.to_string();
            IS_BUSY.store(false, Ordering::Release);
            log::error!(backtrace = trace.as_str(); "{name}: backtrace of the panic");
        };
        if let Err(error) = thread::Builder::new().name("backtrace".into()).spawn(tell) {
            IS_BUSY.store(false, Ordering::Release);
            log::error!("the backtrace of the panic cannot be resolved: {error}");
        }
    }));
}
