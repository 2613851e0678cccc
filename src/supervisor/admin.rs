//! The admin service: its data, and the actions it requests from the supervisor.

use super::{Error, Event, Supervisor};
use crate::access_log::Target;
use crate::admin::{Action, ActionResult, Roster, Sources, purge_by_query, start as start_service};
use crate::base::clock::Clock;
use crate::cache::store::Store;
use crate::cluster::Tenants;
use crate::config::Settings;
use crate::directory::redis::purges;
use crate::directory::{Directory, Ports, Refusal, Source};
use crate::worker::ServiceSender;
use crossbeam_channel::Sender;
use std::sync::Arc;
use std::time::Duration;

/// The limit of the wait of an edit for a port to open.
const MAX_PORT_WAIT: Duration = Duration::from_secs(5);

/// Starts the admin service, if it is configured.
pub(super) fn start(
    settings: &Settings,
    directory: &Directory,
    roster: &Arc<Roster>,
    cache: Option<&Arc<Store>>,
    tenants: Option<&Arc<Tenants>>,
    events: &Sender<Event>,
    clock: Clock,
) -> Result<Option<ServiceSender>, Error> {
    let redis = match &settings.directory.source {
        Source::Redis(settings) => Some(settings.write.clone()),
        Source::Nothing | Source::File(_) => None,
    };
    if let (Some(target), Some(store)) = (&redis, cache) {
        let store = Arc::clone(store);
        let purge = move |query: &str| purge_by_query(query, &store);
        purges::listen(target.clone(), purge)
            .map_err(|error| Error::System("starting a thread for purges of other nodes", error))?;
    }
    // HAProxy files may have statistics pages, which the service makes without a listener of its own.
    if settings.admin.bind.is_none() && settings.haproxy.is_empty() {
        return Ok(None);
    }
    let events = events.clone();
    let sources = Sources {
        settings: settings.admin.clone(),
        clock,
        roster: Arc::clone(roster),
        tenants: tenants.cloned().and_then(Tenants::limited),
        cache: cache.cloned(),
        redis,
        directory: directory.clone(),
        source_kind: match settings.directory.source {
            Source::Nothing => "none",
            Source::File(_) => "file",
            Source::Redis(_) => "redis",
        },
        // It fails only after the supervisor has ended.
        order: Box::new(move |action, answer| drop(events.send(Event::Action(action, answer)))),
    };
    start_service(sources).map(Some).map_err(|error| Error::System("starting the admin service", error))
}

/// Opens and closes ports through events of the supervisor.
#[derive(Debug)]
pub(super) struct PortsByEvent(pub(super) Sender<Event>);

impl Ports for PortsByEvent {
    fn open(&self, port: u16) -> Result<(), Refusal> {
        let (reply, replied) = crossbeam_channel::bounded(1);
        let sent = self.0.send(Event::OpenPort(port, reply));
        let late = || Refusal::Unavailable(format!("port {port} was not opened within {MAX_PORT_WAIT:?}: try again"));
        sent.ok().and_then(|()| replied.recv_timeout(MAX_PORT_WAIT).ok()).ok_or_else(late)?
    }

    fn close(&self, port: u16) {
        // It fails only after the supervisor has ended.
        drop(self.0.send(Event::ClosePort(port)));
    }
}

impl Supervisor {
    /// Performs an operator's action, or returns why it cannot.
    pub(super) fn act(&mut self, action: &Action) -> ActionResult {
        if self.upgrade_state.is_replaced() {
            return Err("another process has replaced this one: ask that one".to_owned());
        }
        let writes_file = matches!(self.pool.deps.settings.access_log, Target::File(_));
        match action {
            Action::ReopenLogs if !writes_file => Err("no access log is written to a file".to_owned()),
            Action::ReopenLogs => {
                self.reopen_log();
                Ok("the access log is reopened".to_owned())
            }
            Action::Reload => {
                self.reload();
                Ok("routes, certificates and pages are read again".to_owned())
            }
            Action::Upgrade if self.is_ordered_to_stop => Err("the process is stopping".to_owned()),
            Action::Upgrade if !self.upgrade_state.is_none() => Ok("an upgrade is under way already".to_owned()),
            Action::Upgrade => {
                self.upgrade();
                Ok("an upgrade has begun; the log tells how it ends, and the pid in /v1/status".to_owned())
            }
            Action::DrainWorker(number) => {
                self.pool.renew(*number)?;
                Ok(format!("a successor of worker {number} accepts; it finishes what it has begun"))
            }
        }
    }
}
