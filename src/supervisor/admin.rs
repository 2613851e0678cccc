//! The admin service: what it reads, and what it has the supervisor do.

use super::{Error, Event, Supervisor};
use crate::admin::{Action, Roster, Sources, start as start_service};
use crate::base::clock::Clock;
use crate::config::Settings;
use crate::directory::{Directory, Source};
use crate::worker::ServiceSender;
use crossbeam_channel::Sender;
use std::sync::Arc;

/// Starts the admin service, where one is wanted.
pub(super) fn start(
    settings: &Settings,
    directory: &Directory,
    roster: &Arc<Roster>,
    events: &Sender<Event>,
    clock: Clock,
) -> Result<Option<ServiceSender>, Error> {
    if settings.admin.bind.is_none() {
        return Ok(None);
    }
    let events = events.clone();
    let sources = Sources {
        settings: settings.admin.clone(),
        clock,
        roster: Arc::clone(roster),
        directory: directory.clone(),
        source_kind: match settings.directory.source {
            Source::Nothing => "none",
            Source::File(_) => "file",
            Source::Redis(_) => "redis",
        },
        // Fails only when the supervisor has gone.
        order: Box::new(move |action| drop(events.send(Event::Action(action)))),
    };
    start_service(sources).map(Some).map_err(|error| Error::System("starting the admin service", error))
}

impl Supervisor {
    /// Does what an operator has asked for.
    pub(super) fn act(&mut self, action: &Action) {
        match action {
            Action::ReopenLogs => self.reopen_log(),
            Action::Reload => self.reload(),
            Action::DrainWorker(number) => self.pool.renew(*number),
        }
    }
}
