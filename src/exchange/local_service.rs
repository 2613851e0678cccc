//! A request that is for this node itself: its body is gathered here, another thread makes the response, and the response
//! leaves from memory, a piece at a time, as fast as the client takes it.

use super::body_forwarder::BodyForwarder;
use super::flushing_response::{FlushingResponse, ResponseEnd};
use super::local_reply::LocalReply;
use super::output_queue::ByteSink;
use super::request_context::RequestContext;
use super::{Disposition, Effect, Input, Side, State, StepContext};
use crate::base::reason::FailureReason;
use crate::base::slice_ext::SliceExt;
use crate::wire::forwarded::Peer;
use crate::wire::request::RequestHead;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The greatest body of a request for this node.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// How much of a response is in the output at once: the next piece follows when the client's socket has taken this one.
const PIECE_BYTES: usize = 64 * 1024;

/// A request for this node itself, as the service is told of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceRequest {
    /// The method, in the case in which it came.
    pub method: String,
    /// The target in origin form.
    pub target: String,
    /// The value of `Host`.
    pub host: Option<Vec<u8>>,
    /// The value of `Origin`.
    pub origin: Option<Vec<u8>>,
    /// The value of `Accept`.
    pub accept: Option<Vec<u8>>,
    /// The value of `Authorization`.
    pub authorization: Option<Vec<u8>>,
    /// The value of `Sec-Fetch-Site`, with which a browser tells whose page asks.
    pub fetch_site: Option<Vec<u8>>,
    /// The value of `Sec-Fetch-Mode`, with which it tells what for.
    pub fetch_mode: Option<Vec<u8>>,
    /// The address of the client.
    pub peer: Option<IpAddr>,
    /// The body, of at most 64 KiB.
    pub body: Vec<u8>,
}

/// The response of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceResponse {
    /// The status, final and with a body.
    pub status: u16,
    /// Header lines, each with its CRLF. `Content-Length` and `Connection` are not among them.
    pub fields: String,
    /// The body. A response to HEAD has one too, which is measured and not sent.
    pub body: ServiceBody,
}

/// Bytes that many responses may share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceBody(Arc<Bytes>);

#[derive(Debug)]
struct Bytes {
    bytes: Vec<u8>,
    /// Where they count for as long as they are held.
    held: Option<Arc<AtomicUsize>>,
}

impl ServiceBody {
    /// Bytes that count among those `held` until the last response with them has left.
    pub fn counted(bytes: Vec<u8>, held: &Arc<AtomicUsize>) -> Self {
        held.fetch_add(bytes.len(), Ordering::Relaxed);
        Self(Arc::new(Bytes { bytes, held: Some(Arc::clone(held)) }))
    }
}

impl From<Vec<u8>> for ServiceBody {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Bytes { bytes, held: None }))
    }
}

impl Deref for ServiceBody {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0.bytes
    }
}

impl PartialEq for Bytes {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Bytes {}

impl Drop for Bytes {
    fn drop(&mut self) {
        if let Some(held) = &self.held {
            held.fetch_sub(self.bytes.len(), Ordering::Relaxed);
        }
    }
}

/// The request is for this node.
#[derive(Debug)]
pub(super) struct LocalService {
    pub(super) context: Box<RequestContext>,
    stage: Box<Stage>,
}

#[derive(Debug)]
enum Stage {
    /// The body of the request has yet to come.
    ReadingBody(ServiceRequest),
    /// The service is to be asked: the owner of the exchange takes the request with the effect.
    Asking(ServiceRequest),
    /// The service makes the response.
    Waiting,
    /// The response leaves; `sent` bytes of its body are in the output, or have left.
    Sending { response: Box<ServiceResponse>, sent: usize, disposition: Disposition },
}

impl LocalService {
    /// Begins with the head of the request.
    #[cold]
    pub(super) fn start(
        mut context: Box<RequestContext>,
        head: &RequestHead<'_, '_>,
        peer: &Peer,
        cx: &mut StepContext<'_>,
    ) -> State {
        let value = |name| head.value_of(name).map(<[u8]>::to_vec);
        let request = ServiceRequest {
            method: head.method.to_owned(),
            target: String::from_utf8_lossy(context.request.target()).into_owned(),
            host: value("host"),
            origin: value("origin"),
            accept: value("accept"),
            authorization: value("authorization"),
            fetch_site: value("sec-fetch-site"),
            fetch_mode: value("sec-fetch-mode"),
            peer: Some(peer.address),
            body: Vec::new(),
        };
        // What is gathered here is data, without a coding.
        context.upload = BodyForwarder::new(head.body, false, &cx.core.settings.limits);
        if context.upload.is_done() {
            return Self { context, stage: Box::new(Stage::ReadingBody(request)) }.ask(cx);
        }
        if context.request.expects_continue() && !context.is_here {
            cx.core.output.client.make(|out| out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n"));
        }
        context.on_continue(cx);
        cx.deadline_in(cx.core.settings.body_timeout);
        State::LocalService(Self { context, stage: Box::new(Stage::ReadingBody(request)) })
    }

    pub(super) fn step(mut self, input: Input<'_>, cx: &mut StepContext<'_>) -> State {
        match (input, &mut *self.stage) {
            (Input::Bytes(Side::Client, bytes), Stage::ReadingBody(_)) => self.read(bytes, cx),
            (Input::End(Side::Client), Stage::ReadingBody(_)) => {
                State::LocalService(self).abort_silently(FailureReason::ClientTruncated, cx)
            }
            (Input::Service(response), Stage::Waiting | Stage::Asking(_)) => self.respond(response, cx),
            (Input::Drained(Side::Client), Stage::Sending { .. }) => self.send_on(cx),
            (Input::Deadline, Stage::ReadingBody(_)) => self.context.refuse(FailureReason::BodyTimeout, cx),
            (Input::Deadline, Stage::Waiting | Stage::Asking(_)) => {
                self.context.refuse(FailureReason::ServiceTimeout, cx)
            }
            (Input::Deadline, Stage::Sending { .. }) => {
                State::LocalService(self).abort_silently(FailureReason::ClientStalled, cx)
            }
            _ => State::LocalService(self),
        }
    }

    fn read(mut self, bytes: &[u8], cx: &mut StepContext<'_>) -> State {
        let Stage::ReadingBody(request) = &mut *self.stage else { return State::LocalService(self) };
        let fed = self.context.upload.feed(bytes, &mut request.body);
        let is_large = request.body.len() > MAX_BODY_BYTES;
        if let Err(reason) = self.context.judge_upload(fed, cx) {
            return self.context.refuse(reason, cx);
        }
        if is_large {
            return self.context.refuse(FailureReason::BodyTooLarge, cx);
        }
        if self.context.upload.is_done() { self.ask(cx) } else { State::LocalService(self) }
    }

    fn ask(mut self, cx: &mut StepContext<'_>) -> State {
        if let Stage::ReadingBody(request) = &mut *self.stage {
            *self.stage = Stage::Asking(std::mem::take(request));
        }
        cx.effect(Effect::AskService);
        cx.deadline_in(cx.core.settings.response_timeout);
        State::LocalService(self)
    }

    /// The request, for whoever performs [`Effect::AskService`].
    pub(super) fn take_request(&mut self) -> Option<ServiceRequest> {
        match std::mem::replace(&mut *self.stage, Stage::Waiting) {
            Stage::Asking(request) => Some(request),
            other => {
                *self.stage = other;
                None
            }
        }
    }

    /// The bytes of the response that have yet to be put into the output.
    pub(super) fn bytes_left(&self) -> usize {
        match &*self.stage {
            Stage::Sending { response, sent, .. } => response.body.len().saturating_sub(*sent),
            _ => 0,
        }
    }

    /// Whether the response has begun.
    pub(super) fn is_sending(&self) -> bool {
        matches!(&*self.stage, Stage::Sending { .. })
    }

    /// Whether bytes of the client are wanted.
    pub(super) fn wants(&self, side: Side) -> bool {
        side == Side::Client && matches!(&*self.stage, Stage::ReadingBody(_)) && !self.context.upload.is_done()
    }

    fn respond(mut self, response: Box<ServiceResponse>, cx: &mut StepContext<'_>) -> State {
        let reply = LocalReply {
            status: response.status,
            fields: response.fields.as_bytes(),
            retry_after: Duration::ZERO,
            error: None,
            body: &response.body,
        };
        let uploaded = self.context.upload.is_done();
        let disposition = reply.put_head(Some(&self.context.request), uploaded, cx);
        let sent = if self.context.request.is_head() { response.body.len() } else { 0 };
        *self.stage = Stage::Sending { response, sent, disposition };
        self.send_on(cx)
    }

    /// Puts the next piece of the body into the output; behind the last one there is nothing to do but to wait until it has
    /// left.
    fn send_on(mut self, cx: &mut StepContext<'_>) -> State {
        let Stage::Sending { response, sent, disposition } = &mut *self.stage else { return State::LocalService(self) };
        let end = response.body.len().min(*sent + PIECE_BYTES);
        cx.core.output.client.make(|out| out.extend_from_slice(response.body.slice(*sent..end)));
        *sent = end;
        if end < response.body.len() {
            cx.deadline_in(cx.core.settings.body_timeout);
            return State::LocalService(self);
        }
        let disposition = *disposition;
        FlushingResponse::new(Some(self.context), disposition, ResponseEnd::Framed).start(cx)
    }
}
