//! Messages to the service manager (sd_notify(3)); none are sent without one.

use sd_notify::NotifyState;
use std::process;

/// This process serves.
pub(super) fn ready() {
    tell(&[NotifyState::Ready, NotifyState::Status("serving")]);
}

/// A reload or an upgrade is under way: [`ready`] or [`succeeded`] follows.
pub(super) fn reloading(what: &str) {
    let mut states = vec![NotifyState::Reloading, NotifyState::Status(what)];
    states.extend(NotifyState::monotonic_usec_now().ok());
    tell(&states);
}

/// The announced step failed.
pub(super) fn failed(why: &str) {
    // The protocol is line-based.
    let status = why.replace('\n', "; ");
    tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

/// From now on the service is another process. The service manager ignores later messages of this one, so this is the
/// last.
pub(super) fn succeeded(successor: u32) {
    tell(&[NotifyState::MainPid(successor), NotifyState::Ready, NotifyState::Status("serving")]);
}

/// This process ends.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("finishing what is under way")]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::warn!("process {}: telling the service manager {states:?}: {error}", process::id());
    }
}
