//! What a worker is told.

use super::connection::Client;
use super::handoff::{HandoffQueue, MigratingConnection, PlainClient};
use super::{ListenerSocket, ServedFrontends, Worker, WorkerTlsConfig};
use crate::base::gen_slab::SlotKey;
use crate::exchange::{Input, KeepAlive, ServiceResponse};
use crate::net::mailbox::MailboxSender;
use crate::net::tls::BackendTls;
use crate::page::Pages;
use crossbeam_channel::Sender;
use std::sync::Arc;

/// What the supervisor, or another worker, tells a worker.
#[derive(Debug)]
pub enum WorkerCommand {
    /// Use these pages from now on.
    Pages(Arc<Pages>),
    /// Serve by these frontends of HAProxy's files from now on.
    Frontends(ServedFrontends),
    /// Receive clients so from now on.
    Tls(WorkerTlsConfig),
    /// Talk so to backends that are connected to from now on.
    BackendTls(BackendTls),
    /// Keep no client's connection behind its next response: the order to stop follows.
    KeepNoConnection,
    /// Accept nothing more, finish what is under way, end.
    Stop,
    /// The same, but clients are not closed: those that can move go to this heir. Told again, it is another heir.
    HandOver(DrainTarget),
    /// Somebody has arrived at the landing.
    Arrivals,
    /// Accept at these doors from now on, and at no others.
    Listeners(Vec<ListenerSocket>),
    /// The service of this node has made the response to the request of this exchange.
    ServiceResponse(SlotKey, Box<ServiceResponse>),
    /// Answer the question of this number in the [`WorkerStats`](super::WorkerStats).
    Report(u64),
    /// What a test has the worker's thread do.
    #[cfg(test)]
    Do(TestCommand),
}

/// Who gets the clients of a worker that ends.
#[derive(Clone, Debug)]
pub enum DrainTarget {
    /// Another worker of this process, which takes all that can move: where it finds them, and how it is told.
    Worker(HandoffQueue, MailboxSender<WorkerCommand>),
    /// Somebody outside, who takes what [`MigratingConnection::into_plain`] gives something for.
    Outside(Sender<Vec<MigratingConnection>>),
}

impl DrainTarget {
    /// Whether it takes this client as it is now. Its job, if it has one, is a tunnel.
    pub(super) fn takes(&self, client: &Client) -> bool {
        match self {
            Self::Worker(..) => true,
            Self::Outside(_) => {
                let is_plain = !client.stream.transport.is_encrypted() && client.awaits_header.is_none();
                client.job.is_none() && is_plain && client.stream.unread.is_empty()
            }
        }
    }

    /// Sends a client on that has come from outside. It is closed if nobody is there any more.
    pub fn pass_on(&self, client: PlainClient) {
        drop(self.send(vec![client.into()]));
    }

    /// Sends clients on their way. They come back if nobody is there any more.
    pub(super) fn send(&self, connections: Vec<MigratingConnection>) -> Result<(), Vec<MigratingConnection>> {
        match self {
            Self::Worker(handoff, commands) => {
                let _ = handoff.put(connections);
                let _ = commands.send(WorkerCommand::Arrivals);
                Ok(())
            }
            Self::Outside(sender) => sender.send(connections).map_err(|returned| returned.0),
        }
    }
}

/// Something for a worker's thread to do, such as to panic.
#[cfg(test)]
pub struct TestCommand(pub Box<dyn FnOnce() + Send>);

#[cfg(test)]
impl std::fmt::Debug for TestCommand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Deed")
    }
}

impl Worker {
    #[cold]
    pub(super) fn read_mail(&mut self) {
        self.read_route_events();
        self.read_request_mail();
        while let Some(command) = self.commands.receive() {
            match command {
                WorkerCommand::Pages(pages) => self.core.pages = pages,
                WorkerCommand::Frontends(frontends) => self.set_frontends(frontends),
                WorkerCommand::Tls(config) => self.set_certificates(config.tls_server, &config.default_certificates),
                WorkerCommand::BackendTls(tls) => self.backend_tls = Some(tls),
                WorkerCommand::KeepNoConnection => self.core.settings.keep_alive = KeepAlive::Never,
                WorkerCommand::Stop => self.begin_drain(None),
                WorkerCommand::HandOver(drain_target) => self.begin_drain(Some(drain_target)),
                WorkerCommand::Arrivals => {}
                WorkerCommand::Listeners(listener_sockets) => self.replace_listeners(listener_sockets),
                WorkerCommand::ServiceResponse(job, response) => self.dispatch(job, Input::Service(response)),
                WorkerCommand::Report(question) => self.report(question),
                #[cfg(test)]
                WorkerCommand::Do(TestCommand(run)) => run(),
            }
        }
        self.receive_arrivals();
    }
}
