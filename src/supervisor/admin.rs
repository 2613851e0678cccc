//! The admin service: what it reads, and what it has the supervisor do.

use super::{Error, Event, Supervisor};
use crate::access_log::Target;
use crate::admin::{Action, ActionResult, Roster, Sources, purge_by_query, start as start_service};
use crate::base::clock::Clock;
use crate::cache::store::Store;
use crate::config::Settings;
use crate::directory::redis::purges;
use crate::directory::{Directory, Ports, Refusal, Source};
use crate::worker::ServiceSender;
use crossbeam_channel::Sender;
use std::sync::Arc;
use std::time::Duration;

/// How long an edit waits for a port to be opened.
const MAX_PORT_WAIT: Duration = Duration::from_secs(5);

/// Starts the admin service, where one is wanted.
pub(super) fn start(
    settings: &Settings,
    directory: &Directory,
    roster: &Arc<Roster>,
    cache: Option<&Arc<Store>>,
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
    // Files of HAProxy's may have pages of statistics, which the service makes without a listener of its own.
    if settings.admin.bind.is_none() && settings.haproxy.is_empty() {
        return Ok(None);
    }
    let events = events.clone();
    let sources = Sources {
        settings: settings.admin.clone(),
        clock,
        roster: Arc::clone(roster),
        cache: cache.cloned(),
        redis,
        directory: directory.clone(),
        source_kind: match settings.directory.source {
            Source::Nothing => "none",
            Source::File(_) => "file",
            Source::Redis(_) => "redis",
        },
        // Fails only when the supervisor has gone.
        order: Box::new(move |action, answer| drop(events.send(Event::Action(action, answer)))),
    };
    start_service(sources).map(Some).map_err(|error| Error::System("starting the admin service", error))
}

/// Has the supervisor open and close ports.
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
        // Fails only when the supervisor has gone.
        drop(self.0.send(Event::ClosePort(port)));
    }
}

impl Supervisor {
    /// Does what an operator has asked for, or says why not.
    pub(super) fn act(&mut self, action: &Action) -> ActionResult {
        if self.upgrade_state.is_replaced() {
            return Err("another process has taken this one's place: ask that one".to_owned());
        }
        let writes_file = matches!(self.pool.deps.settings.access_log, Target::File(_));
        match action {
            Action::ReopenLogs if !writes_file => Err("no access log is written to a file".to_owned()),
            Action::ReopenLogs => {
                self.reopen_log();
                Ok("the access log is opened anew".to_owned())
            }
            Action::Reload => {
                self.reload();
                Ok("routes, certificates and pages are read again".to_owned())
            }
            Action::DrainWorker(number) => {
                self.pool.renew(*number)?;
                Ok(format!("a successor of worker {number} accepts; it finishes what it has begun"))
            }
        }
    }
}
