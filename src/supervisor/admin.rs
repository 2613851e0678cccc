//! The admin service: what it reads, and what it has the supervisor do.

use super::Error;
use crate::admin::{Roster, Sources, start as start_service};
use crate::base::clock::Clock;
use crate::config::Settings;
use crate::directory::Directory;
use crate::worker::ServiceSender;
use std::sync::Arc;

/// Starts the admin service, where one is wanted.
pub(super) fn start(
    settings: &Settings,
    directory: &Directory,
    roster: &Arc<Roster>,
    clock: Clock,
) -> Result<Option<ServiceSender>, Error> {
    if settings.admin.bind.is_none() {
        return Ok(None);
    }
    let sources =
        Sources { settings: settings.admin.clone(), clock, roster: Arc::clone(roster), directory: directory.clone() };
    start_service(sources).map(Some).map_err(|error| Error::System("starting the admin service", error))
}
