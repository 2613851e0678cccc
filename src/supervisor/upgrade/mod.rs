//! The renewal of the whole process: a successor is started from the file that is there now, takes the listening sockets
//! and serves, and only then does this process end. Until the successor serves nothing changes here, and if it never
//! does, nothing has changed.
//!
//! ```text
//! this process                          the successor
//!   starts it ─────────────────────────▶ finds the line on its standard input
//!   Begin, Socket, Socket, … ──────────▶ binds what is missing; loads routes, certificates, pages
//!                       ◀────────────── Ready, or Failed
//!   Go ────────────────────────────────▶ its workers accept: from the same queues as this process's
//!                       ◀────────────── Serving
//!   accepts no more, finishes requests
//!   Client, Client, … as they are idle ▶ serves them
//!   End ───────────────────────────────▶
//! ```

mod line;
mod message;
mod predecessor;
mod report;
mod successor;

pub use predecessor::Predecessor;
pub use report::order;

pub(super) use predecessor::Elder;
pub(super) use successor::Word;

use super::doors::Doors;
use super::notify;
use crate::worker::Heir;
use std::time::Duration;
use successor::Successor;

/// The variable of the environment that has the number of the predecessor.
const PREDECESSOR: &str = "SLUICE_PREDECESSOR";

/// Who comes after this process.
#[derive(Debug, Default)]
pub(super) enum Succession {
    /// Nobody.
    #[default]
    None,
    /// Somebody who does not serve yet.
    Coming(Successor),
    /// Somebody who serves.
    There(u32, Successor),
}

impl Succession {
    /// Starts a successor, unless there is one.
    pub(super) fn begin(
        &mut self,
        doors: Option<&Doors>,
        timeout: Duration,
        tell: impl Fn(Word) + Clone + Send + 'static,
    ) {
        let refused = match (&*self, doors) {
            (Self::Coming(_), _) => "an upgrade is under way already".to_owned(),
            (Self::There(pid, _), _) => format!("process {pid} has taken this one's place; upgrade that one"),
            (Self::None, None) => "this process is stopping".to_owned(),
            (Self::None, Some(doors)) => {
                notify::reloading("upgrading");
                match doors.handles().map_err(|error| format!("making handles of the sockets: {error}")) {
                    Ok(sockets) => match Successor::start(sockets, timeout, tell) {
                        Ok(successor) => return *self = Self::Coming(successor),
                        Err(why) => return self.failed(&why),
                    },
                    Err(why) => return self.failed(&why),
                }
            }
        };
        log::warn!("upgrade: refused: {refused}");
        report::tell(Err(&refused));
    }

    /// There will be no successor, and this process serves on.
    pub(super) fn failed(&mut self, why: &str) {
        if let Self::Coming(successor) = std::mem::take(self) {
            successor.finish();
        }
        log::error!("upgrade: failed: {why}; this process serves on as before");
        notify::failed(&format!("serving; an upgrade failed: {why}"));
        report::tell(Err(why));
    }

    /// The successor serves. Returns the way for clients.
    pub(super) fn succeeded(&mut self, pid: u32) -> Option<Heir> {
        let Self::Coming(successor) = std::mem::take(self) else { return None };
        log::info!("upgrade: process {pid} serves; this one finishes what it has begun");
        notify::succeeded(pid);
        report::tell(Ok(pid));
        let heir = successor.heir();
        *self = Self::There(pid, successor);
        Some(heir)
    }

    /// Whether somebody else is the service now.
    pub(super) fn is_replaced(&self) -> bool {
        matches!(self, Self::There(..))
    }

    /// Has a successor that does not serve yet fail.
    pub(super) fn give_up(&self) {
        if let Self::Coming(successor) = self {
            successor.give_up();
        }
    }

    /// Waits until the clients have gone over. To be called when no worker is left.
    pub(super) fn finish(self) {
        match self {
            Self::None => {}
            Self::Coming(successor) | Self::There(_, successor) => successor.finish(),
        }
    }
}
