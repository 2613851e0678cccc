//! Commands to a worker.

use super::connection::Client;
use super::departure::Departure;
use super::handoff::{HandoffQueue, MigratingConnection, PortableClient};
use super::{ListenerSocket, ServedFrontends, Worker, WorkerTlsConfig};
use crate::base::gen_slab::SlotKey;
use crate::exchange::{Input, KeepAlive, ServiceBody, ServiceResponse};
use crate::net::mailbox::MailboxSender;
use crate::net::tls::BackendTls;
use crate::page::Pages;
use crossbeam_channel::Sender;
use std::sync::Arc;

/// A command from the supervisor, or from another worker.
#[derive(Debug)]
pub enum WorkerCommand {
    /// Use these pages from now on.
    Pages(Arc<Pages>),
    /// Serve by these frontends of HAProxy's files from now on.
    Frontends(ServedFrontends),
    /// Use these TLS settings for clients from now on.
    Tls(WorkerTlsConfig),
    /// Use these TLS settings for new connections to backends from now on.
    BackendTls(BackendTls),
    /// Close the connection of every client behind its next response: the order to stop follows.
    KeepNoConnection,
    /// Accept nothing more, finish the exchanges under way, end.
    Stop,
    /// The same, but clients stay open: those that can move go to this drain target. A later command replaces the
    /// target.
    HandOver(DrainTarget),
    /// Clients have arrived in the handoff queue.
    Arrivals,
    /// Accept at these listeners from now on, and at no others.
    Listeners(Vec<ListenerSocket>),
    /// The service of this node has made the response to the request of this exchange.
    ServiceResponse(SlotKey, Box<ServiceResponse>),
    /// The next part of the response, if it is a stream; `None` for its end.
    ServicePart(SlotKey, Option<ServiceBody>),
    /// Write the report of this number to the [`WorkerStats`](super::WorkerStats).
    Report(u64),
    /// An action of a test on the worker's thread.
    #[cfg(test)]
    Do(TestCommand),
}

/// Destination of the clients of a worker that ends.
#[derive(Clone, Debug)]
pub enum DrainTarget {
    /// Another worker of this process, which takes every client that can move: its handoff queue and its mailbox.
    Worker(HandoffQueue, MailboxSender<WorkerCommand>),
    /// Another process.
    Outside(OutsideTarget),
}

/// Another process, which accepts clients without TLS.
#[derive(Clone, Debug)]
pub struct OutsideTarget {
    /// The sender of the clients.
    pub sender: Sender<Departure>,
    /// It also accepts clients with a tunnel or a response in progress.
    pub takes_running: bool,
}

impl DrainTarget {
    /// Whether the target accepts this client's connection.
    pub(super) fn takes(&self, client: &Client) -> bool {
        match self {
            Self::Worker(..) => true,
            Self::Outside(outside) => {
                let may_leave = outside.takes_running || !client.stream.transport.is_encrypted();
                let is_ready = may_leave && client.awaits_header.is_none();
                is_ready && (client.job.is_some() || client.stream.unread.is_empty())
            }
        }
    }

    /// Forwards a client that has come from outside. The client is closed if the target is gone.
    pub fn pass_on(&self, client: PortableClient) {
        drop(self.send(vec![client.into()]));
    }

    /// Sends clients to the target. The clients come back if the target is gone.
    pub(super) fn send(&self, connections: Vec<MigratingConnection>) -> Result<(), Vec<MigratingConnection>> {
        match self {
            Self::Worker(handoff, commands) => {
                let _ = handoff.put(connections);
                let _ = commands.send(WorkerCommand::Arrivals);
                Ok(())
            }
            Self::Outside(outside) => {
                outside.sender.send(Departure::Idle(connections)).map_err(|returned| match returned.0 {
                    Departure::Idle(connections) => connections,
                    Departure::Running(_) | Departure::End => Vec::new(),
                })
            }
        }
    }
}

/// An action on a worker's thread, such as a panic.
#[cfg(test)]
pub struct TestCommand(pub Box<dyn FnOnce() + Send>);

#[cfg(test)]
impl std::fmt::Debug for TestCommand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TestCommand")
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
                WorkerCommand::ServiceResponse(job, response) => self.take_service_response(job, response),
                WorkerCommand::ServicePart(job, part) => self.dispatch(job, Input::ServicePart(part)),
                WorkerCommand::Report(question) => self.report(question),
                #[cfg(test)]
                WorkerCommand::Do(TestCommand(run)) => run(),
            }
        }
        self.receive_arrivals();
    }
}
