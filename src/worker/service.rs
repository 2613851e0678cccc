//! Requests for this node itself: they go to the admin service by mail, and their responses come back by mail.

use super::{Worker, WorkerCommand};
use crate::base::counters::Counter;
use crate::base::gen_slab::SlotKey;
use crate::exchange::{Input, ServiceRequest, ServiceResponse};
use crate::net::mailbox::MailboxSender;
use crossbeam_channel::Sender;
use std::sync::Arc;

/// Where the workers of a process send the requests that are for this node.
pub type ServiceSender = Sender<ServiceCall>;

/// A request for this node, and the way back. Where a call is dropped, the request ends at its deadline
/// (`server.responseTimeout`).
#[derive(Debug)]
pub struct ServiceCall {
    /// The request.
    pub request: ServiceRequest,
    job: SlotKey,
    commands: MailboxSender<WorkerCommand>,
}

impl ServiceCall {
    /// Sends the response to the worker that asked. A client that has gone meanwhile is not missed.
    pub fn respond(self, response: ServiceResponse) {
        self.commands.send(WorkerCommand::ServiceResponse(self.job, Box::new(response)));
    }
}

impl Worker {
    /// Asks the service for the response to the request of an exchange. Never waits: where the service has too much to do, the
    /// request is refused.
    #[cold]
    pub(super) fn ask_service(&mut self, job_key: SlotKey) {
        let Some(job) = self.jobs.get_mut(job_key) else { return };
        let Some(request) = job.exchange.take_service_request() else { return };
        self.counters.count(Counter::AdminRequests);
        let call = ServiceCall { request, job: job_key, commands: self.own_commands.clone() };
        let is_sent = self.service.as_ref().is_some_and(|service| service.try_send(call).is_ok());
        if !is_sent {
            let response = ServiceResponse {
                status: 503,
                fields: "Content-Type: text/plain\r\nRetry-After: 1\r\n".to_owned(),
                body: Arc::from(&b"The admin service has too much to do.\n"[..]),
            };
            self.step_only(job_key, Input::Service(Box::new(response)));
        }
    }
}
