//! The upgrade of the process. A successor is started from the program file at its path; it takes the listening sockets
//! and serves; only then does this process end. Until the successor serves, this process runs unchanged, and a failed
//! upgrade has no effect.
//!
//! ```text
//! this process                          the successor
//!   starts it ─────────────────────────▶ finds the channel on its standard input, and memory files
//!   writes routes and certificates
//!   Begin, Socket, Socket, … ──────────▶ binds missing sockets; loads routes, certificates, pages
//!                       ◀────────────── TakesExchanges, if both have the same version of them
//!                       ◀────────────── Ready, or Failed
//!   Go ────────────────────────────────▶ its workers accept from the same queues as this process's
//!                       ◀────────────── Serving
//!   accepts no more, finishes requests
//!   stored objects, by their own stream ▶ stores them
//!   Client, Client, … as they are idle ▶ serves them
//!   Running and its bytes, … Confirm ──▶
//!                       ◀────────────── Taken
//!   drops those, keeps the others        continues them
//!   End ───────────────────────────────▶
//! ```
//!
//! A client with a tunnel or a response under way belongs to this process until `Taken` names it, or until this process ends.
//! After any failure before that, it continues here: the new process has neither read nor written a byte of it.

mod channel;
mod known;
mod message;
mod objects;
mod passing;
mod predecessor;
mod report;
mod running;
mod successor;

pub use predecessor::Predecessor;
pub use report::order;

pub(super) use predecessor::PredecessorLink;
pub(super) use successor::SuccessorEvent;

use super::listeners::Listeners;
use super::notify;
use crate::cache::store::Store;
use crate::directory::Directory;
use crate::worker::DrainTarget;
use crossbeam_channel::Receiver;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::convert::Infallible;
use std::process;
use std::sync::Arc;
use std::time::Duration;
use successor::Successor;

/// The environment variable with the id of the predecessor.
const PREDECESSOR: &str = "SLUICE_PREDECESSOR";

/// The limit of the hand-over of the last clients: longer than the limit of one message.
pub(super) const HANDOFF_TIMEOUT: Duration = Duration::from_secs(15);

/// The id of the first process of a machine or a container.
const INIT: u32 = 1;

const FIRST_PROCESS: &str = "this is process 1 of its container, which ends with it, and a successor in it too: restart the \
                             container, or have it start sluice by an init such as tini";

/// The state of this process's successor.
#[derive(Debug, Default)]
pub(super) enum UpgradeState {
    /// None.
    #[default]
    None,
    /// A successor that does not serve yet; and whether a command waits for it.
    Coming(Successor, bool),
    /// A successor that serves.
    There(u32, Successor),
}

impl UpgradeState {
    /// Starts a successor, unless there is one.
    pub(super) fn begin(
        &mut self,
        listeners: Option<&Listeners>,
        (directory, cache): (&Directory, Option<&Arc<Store>>),
        timeout: Duration,
        tell: impl Fn(SuccessorEvent) + Clone + Send + 'static,
    ) {
        let refused = match (&*self, listeners) {
            _ if process::id() == INIT => FIRST_PROCESS.to_owned(),
            (Self::Coming(..), _) => "an upgrade is under way already".to_owned(),
            (Self::There(pid, _), _) => format!("process {pid} has replaced this one; upgrade that one"),
            (Self::None, None) => "this process is stopping".to_owned(),
            (Self::None, Some(listeners)) => {
                notify::reloading("upgrading");
                // This is decided before the new process starts: a later command is refused with a reason.
                let is_awaited = report::is_awaited();
                let handles = || listeners.handles().map_err(|error| format!("making handles of the sockets: {error}"));
                let sockets = directory.suspend_edits().and_then(|()| handles());
                match sockets.and_then(|sockets| Successor::start(sockets, (directory, cache), timeout, tell)) {
                    Ok(successor) => return *self = Self::Coming(successor, is_awaited),
                    Err(why) => self.failed(&why),
                }
                return directory.resume_edits();
            }
        };
        log::warn!("upgrade: refused: {refused}");
        // At most one command waits: if one waits for the upgrade under way, this failure does not concern it.
        if !matches!(self, Self::Coming(_, true)) {
            report::tell(Err(&refused));
        }
    }

    /// Records that the upgrade failed; this process continues to serve.
    pub(super) fn failed(&mut self, why: &str) {
        if let Self::Coming(successor, _) = std::mem::take(self) {
            successor.finish(HANDOFF_TIMEOUT);
        }
        log::error!("upgrade: failed: {why}; this process serves on as before");
        notify::failed(&format!("serving; an upgrade failed: {why}"));
        report::tell(Err(why));
    }

    /// Records that the successor serves. Returns the drain target for clients.
    pub(super) fn succeeded(&mut self, pid: u32) -> Option<DrainTarget> {
        let Self::Coming(successor, _) = std::mem::take(self) else { return None };
        log::info!("upgrade: process {pid} serves; this one finishes its exchanges");
        notify::succeeded(pid);
        report::tell(Ok(pid));
        let drain_target = successor.drain_target();
        *self = Self::There(pid, successor);
        Some(drain_target)
    }

    /// Stops a successor that has just begun to serve, because this process was told to stop meanwhile.
    pub(super) fn stop_too(&self, pid: u32) {
        log::info!("upgrade: process {pid} serves, and is told to stop like this one");
        let told =
            i32::try_from(pid).map_err(|_| Errno::ESRCH).and_then(|pid| kill(Pid::from_raw(pid), Signal::SIGTERM));
        if let Err(error) = told {
            log::error!("upgrade: telling process {pid} to stop: {error}");
        }
        report::tell(Err("the process was told to stop"));
    }

    /// Whether there is no successor.
    pub(super) fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// Whether another process is the service now.
    pub(super) fn is_replaced(&self) -> bool {
        matches!(self, Self::There(..))
    }

    /// Makes a successor fail that does not serve yet.
    pub(super) fn give_up(&self) {
        if let Self::Coming(successor, _) = self {
            successor.give_up();
        }
    }

    /// The drain target for clients, if another process is the service now.
    pub(super) fn drain_target(&self) -> Option<DrainTarget> {
        match self {
            Self::There(_, successor) => Some(successor.drain_target()),
            _ => None,
        }
    }

    /// Announces that no more clients follow. The result disconnects when all have moved; it is `None` if no process
    /// receives them.
    pub(super) fn say_end(&self) -> Option<&Receiver<Infallible>> {
        match self {
            Self::None => None,
            Self::Coming(successor, _) | Self::There(_, successor) => Some(successor.say_end()),
        }
    }

    /// Releases a successor that is complete, or no longer waited for.
    pub(super) fn finish(self) {
        match self {
            Self::None => {}
            Self::Coming(successor, _) | Self::There(_, successor) => successor.finish(Duration::ZERO),
        }
    }
}
