//! Requests for this node itself: they go to the admin service by mail, and their responses come back by mail.

use super::{Deferred, Worker, WorkerCommand};
use crate::base::counters::Counter;
use crate::base::gen_slab::SlotKey;
use crate::exchange::{Input, ServiceBody, ServiceRequest, ServiceResponse, ServiceStream, StreamWatch};
use crate::net::mailbox::MailboxSender;
use crossbeam_channel::Sender;

/// The queue of requests for this node, shared by the workers of a process.
pub type ServiceSender = Sender<ServiceCall>;

/// A request for this node, and the address for its response. If a call is dropped, the request ends at its deadline
/// (`server.responseTimeout`).
#[derive(Debug)]
pub struct ServiceCall {
    /// The request.
    pub request: ServiceRequest,
    job: SlotKey,
    commands: MailboxSender<WorkerCommand>,
}

impl ServiceCall {
    /// A call whose response a test reads as mail.
    #[cfg(test)]
    pub fn new(request: ServiceRequest, commands: MailboxSender<WorkerCommand>) -> Self {
        Self { request, job: SlotKey::unpack(0), commands }
    }

    /// Begins a stream, whose next parts are sent one by one.
    pub fn begin_stream(self, response: ServiceResponse) -> PartSender {
        let (stream, watch) = ServiceStream::new();
        let sender = PartSender { job: self.job, commands: self.commands.clone(), watch };
        self.respond(ServiceResponse { stream: Some(stream), ..response });
        sender
    }

    /// Sends the response to the worker that asked. The client may have left meanwhile.
    pub fn respond(self, response: ServiceResponse) {
        self.commands.send(WorkerCommand::ServiceResponse(self.job, Box::new(response)));
    }
}

/// The sender of a stream's parts. The stream ends when it is dropped.
#[derive(Debug)]
pub struct PartSender {
    job: SlotKey,
    commands: MailboxSender<WorkerCommand>,
    watch: StreamWatch,
}

impl PartSender {
    /// Whether the client is still connected.
    pub fn is_open(&self) -> bool {
        self.watch.is_open()
    }

    /// Sends a part. It is skipped if the client has not yet accepted the previous one.
    pub fn send(&self, part: ServiceBody) {
        self.commands.send(WorkerCommand::ServicePart(self.job, Some(part)));
    }
}

impl Drop for PartSender {
    fn drop(&mut self) {
        if self.is_open() {
            self.commands.send(WorkerCommand::ServicePart(self.job, None));
        }
    }
}

/// The limit of service clients of a worker. It is separate from the limit of other clients (`server.maxConnections`).
const MAX_CLIENTS: usize = 64;

/// The queue to the service of this node, and the service's clients.
#[derive(Debug)]
pub(super) struct ServiceLink {
    sender: Option<ServiceSender>,
    clients: Vec<SlotKey>,
}

impl ServiceLink {
    pub(super) fn new(sender: Option<ServiceSender>) -> Self {
        Self { sender, clients: Vec::new() }
    }

    pub(super) fn add(&mut self, client: SlotKey) {
        self.clients.push(client);
    }

    pub(super) fn remove(&mut self, client: SlotKey) {
        self.clients.retain(|known| *known != client);
    }
}

impl Worker {
    /// The clients outside the service of this node.
    pub(super) fn traffic_clients(&self) -> usize {
        self.clients.len().saturating_sub(self.service.clients.len())
    }

    /// The requests and tunnels of clients outside the service.
    pub(super) fn traffic_requests(&self) -> usize {
        let is_busy = |key: &&SlotKey| self.clients.get(**key).is_some_and(|client| client.job.is_some());
        self.jobs.len().saturating_sub(self.service.clients.iter().filter(is_busy).count())
    }

    /// Whether the limit of service clients is reached.
    pub(super) fn is_service_full(&self) -> bool {
        self.service.clients.len() >= MAX_CLIENTS
    }

    /// Closes the oldest idle client of the service, of those that have acknowledged their response if there are any.
    /// Returns whether there was one.
    pub(super) fn give_up_service_client(&mut self) -> bool {
        let is_idle = |key: &SlotKey| {
            let client = self.clients.get(*key).filter(|client| client.job.is_none() && !client.is_lingering);
            client.is_some_and(|client| client.stream.unread.is_empty() && client.stream.transport.is_silent())
        };
        let has_all = |key: &SlotKey| {
            self.clients.get(*key).is_some_and(|client| client.stream.transport.bytes_unacknowledged() == 0)
        };
        let idle: Vec<SlotKey> = self.service.clients.iter().copied().filter(is_idle).collect();
        let oldest = idle.iter().copied().find(has_all).or_else(|| idle.first().copied());
        oldest.into_iter().for_each(|key| self.close_client(key));
        oldest.is_some()
    }

    /// Whether this is a response of the service. It is sent in parts, one a turn, so that other exchanges do not wait
    /// for the whole of a long response.
    pub(super) fn puts_off_service(&mut self, job_key: SlotKey) -> bool {
        let is_its = self.jobs.get(job_key).is_some_and(|job| job.exchange.is_for_service());
        if is_its {
            self.deferred.push(Deferred::SendService(job_key));
        }
        is_its
    }

    /// Passes the response of the service to an exchange. A worker that drains begins no stream, because it would not end.
    pub(super) fn take_service_response(&mut self, job: SlotKey, response: Box<ServiceResponse>) {
        self.dispatch(job, Input::Service(response));
        if self.drain.is_some() {
            self.end_service_stream(job);
        }
    }

    /// Ends the response of an exchange if it is a stream: its client reconnects to a successor.
    pub(super) fn end_service_stream(&mut self, job: SlotKey) {
        if self.jobs.get(job).is_some_and(|job| job.exchange.is_service_stream()) {
            self.dispatch(job, Input::ServicePart(None));
        }
    }

    /// Asks the service for the response to the request of an exchange. It never waits: an overloaded service refuses
    /// the request.
    #[cold]
    pub(super) fn ask_service(&mut self, job_key: SlotKey) {
        let Some(job) = self.jobs.get_mut(job_key) else { return };
        let Some(request) = job.exchange.take_service_request() else { return };
        self.counters.count(Counter::AdminRequests);
        let call = ServiceCall { request, job: job_key, commands: self.own_commands.clone() };
        let is_sent = self.service.sender.as_ref().is_some_and(|service| service.try_send(call).is_ok());
        if !is_sent {
            let response = ServiceResponse {
                status: 503,
                fields: "Content-Type: text/plain\r\nRetry-After: 1\r\n".to_owned(),
                body: b"The admin service is overloaded.\n".to_vec().into(),
                stream: None,
            };
            self.step_only(job_key, Input::Service(Box::new(response)));
        }
    }
}
