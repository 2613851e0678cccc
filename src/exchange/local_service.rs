//! A request to this node itself. Its body is collected here, another thread makes the response, and the response is
//! sent from memory in pieces, as fast as the client reads it.

use super::body_forwarder::BodyForwarder;
use super::events::{Disposition, Effect, Input, Side};
use super::local_reply::LocalReply;
use super::output_queue::ByteSink;
use super::request_context::RequestContext;
use super::service::{RuledPage, ServiceBody, ServiceRequest, ServiceResponse, ServiceStream};
use super::step_context::StepContext;
use super::transition::{Failure, Next, ResponseEnd, Step, Transition};
use crate::base::reason::FailureReason;
use crate::base::slice_ext::SliceExt;
use crate::wire::body::BodyLength;
use crate::wire::forwarded::Peer;
use crate::wire::request::RequestHead;
use std::time::Duration;

/// The greatest body of a request to this node, in bytes.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// Bytes of a response in the output at once: the next piece follows when the client's socket has accepted this one.
const PIECE_BYTES: usize = 64 * 1024;

/// The state of a request to this node.
#[derive(Debug)]
pub(super) struct LocalService {
    pub(super) context: Box<RequestContext>,
    stage: Box<Stage>,
}

#[derive(Debug)]
enum Stage {
    /// The body of the request is still arriving.
    ReadingBody(ServiceRequest),
    /// The service is to be asked: the owner of the exchange takes the request with the effect.
    Asking(ServiceRequest),
    /// The service makes the response.
    Waiting,
    /// The response is being sent; `sent` bytes of its body are in the output or beyond.
    Sending { response: Box<ServiceResponse>, sent: usize, disposition: Disposition },
    /// The response has no end of its own; `sent` bytes of this part are in the output or beyond. Without a part, the
    /// exchange waits for the next one.
    Streaming { _stream: ServiceStream, part: Option<ServiceBody>, sent: usize, disposition: Disposition },
}

impl LocalService {
    /// Collects the body of the request, which has this length.
    #[cold]
    pub(super) fn start(
        mut context: Box<RequestContext>,
        request: Box<ServiceRequest>,
        body: BodyLength,
        cx: &mut StepContext<'_>,
    ) -> Step<Self> {
        // The body is collected decoded.
        context.upload = BodyForwarder::new(body, false, &cx.core.settings.limits);
        let mut state = Self { context, stage: Box::new(Stage::ReadingBody(*request)) };
        if state.context.upload.is_done() {
            return Ok(Next::Stay(state.ask(cx)));
        }
        if state.context.request.expects_continue() && !state.context.is_here {
            cx.core.output.client.make(|out| out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n"));
        }
        state.context.on_continue(cx.core.now);
        cx.deadline_in(cx.core.settings.body_timeout);
        Ok(Next::Stay(state))
    }

    pub(super) fn step(mut self, input: Input<'_>, cx: &mut StepContext<'_>) -> Step<Self> {
        match (input, &mut *self.stage) {
            (Input::Bytes(Side::Client, bytes), Stage::ReadingBody(_)) => self.read(bytes, cx),
            (Input::End(Side::Client), Stage::ReadingBody(_)) => {
                Err(Failure::silent(Some(self.context), FailureReason::ClientTruncated))
            }
            (Input::Service(response), Stage::Waiting | Stage::Asking(_)) => Ok(self.respond(response, cx)),
            (Input::Drained(Side::Client), Stage::Sending { .. }) => Ok(self.send_on(cx)),
            (Input::Drained(Side::Client), Stage::Streaming { .. }) => Ok(Next::Stay(self.send_part(cx))),
            (Input::ServicePart(next), Stage::Streaming { part, sent, .. }) => {
                match (next, &part) {
                    (None, _) => return Ok(self.end_stream()),
                    (Some(_), Some(_)) => return Ok(Next::Stay(self)),
                    (next, None) => (*part, *sent) = (next, 0),
                }
                Ok(Next::Stay(self.send_part(cx)))
            }
            (Input::Deadline, Stage::ReadingBody(_)) => Err(Failure::new(self.context, FailureReason::BodyTimeout)),
            (Input::Deadline, Stage::Waiting | Stage::Asking(_)) => {
                Err(Failure::new(self.context, FailureReason::ServiceTimeout))
            }
            (Input::Deadline, Stage::Sending { .. } | Stage::Streaming { part: Some(_), .. }) => {
                Err(Failure::silent(Some(self.context), FailureReason::ClientStalled))
            }
            // The service ends the stream: the client reconnects.
            (Input::Deadline, Stage::Streaming { .. }) => Ok(self.end_stream()),
            _ => Ok(Next::Stay(self)),
        }
    }

    fn read(mut self, bytes: &[u8], cx: &mut StepContext<'_>) -> Step<Self> {
        let Stage::ReadingBody(request) = &mut *self.stage else { return Ok(Next::Stay(self)) };
        let fed = self.context.upload.feed(bytes, &mut request.body);
        let is_large = request.body.len() > MAX_BODY_BYTES;
        if let Err(reason) = cx.judge_upload(&mut self.context, fed) {
            return Err(Failure::new(self.context, reason));
        }
        if is_large {
            return Err(Failure::new(self.context, FailureReason::BodyTooLarge));
        }
        Ok(Next::Stay(if self.context.upload.is_done() { self.ask(cx) } else { self }))
    }

    fn ask(mut self, cx: &mut StepContext<'_>) -> Self {
        if let Stage::ReadingBody(request) = &mut *self.stage {
            *self.stage = Stage::Asking(std::mem::take(request));
        }
        cx.effect(Effect::AskService);
        cx.deadline_in(cx.core.settings.response_timeout);
        self
    }

    /// The request, for the owner that performs [`Effect::AskService`].
    pub(super) fn take_request(&mut self) -> Option<ServiceRequest> {
        match std::mem::replace(&mut *self.stage, Stage::Waiting) {
            Stage::Asking(request) => Some(request),
            other => {
                *self.stage = other;
                None
            }
        }
    }

    /// Bytes of the response that are not in the output yet.
    pub(super) fn bytes_left(&self) -> usize {
        match &*self.stage {
            Stage::Sending { response, sent, .. } => response.body.len().saturating_sub(*sent),
            Stage::Streaming { part: Some(part), sent, .. } => part.len().saturating_sub(*sent),
            _ => 0,
        }
    }

    /// Whether the response has begun.
    pub(super) fn is_sending(&self) -> bool {
        matches!(&*self.stage, Stage::Sending { .. } | Stage::Streaming { .. })
    }

    /// Whether the response has begun and has no end of its own.
    pub(super) fn is_stream(&self) -> bool {
        matches!(&*self.stage, Stage::Streaming { .. })
    }

    /// Whether bytes of the client are needed.
    pub(super) fn wants(&self, side: Side) -> bool {
        side == Side::Client && matches!(&*self.stage, Stage::ReadingBody(_)) && !self.context.upload.is_done()
    }

    fn respond(mut self, response: Box<ServiceResponse>, cx: &mut StepContext<'_>) -> Next<Self> {
        let reply = LocalReply {
            status: response.status,
            fields: response.fields.as_bytes(),
            retry_after: Duration::ZERO,
            error: None,
            body: &response.body,
        };
        if response.stream.is_some() {
            let disposition = reply.put_head_until_close(&self.context.request, cx);
            return self.start_stream(*response, disposition, cx);
        }
        let uploaded = self.context.upload.is_done();
        let disposition = reply.put_head(Some(&self.context.request), uploaded, cx);
        let sent = if self.context.request.is_head() { response.body.len() } else { 0 };
        *self.stage = Stage::Sending { response, sent, disposition };
        self.send_on(cx)
    }

    /// Puts the next piece of the body into the output; behind the last one only the sending is left.
    fn send_on(mut self, cx: &mut StepContext<'_>) -> Next<Self> {
        let Stage::Sending { response, sent, disposition } = &mut *self.stage else { return Next::Stay(self) };
        let end = response.body.len().min(*sent + PIECE_BYTES);
        cx.core.output.client.make(|out| out.extend_from_slice(response.body.slice(*sent..end)));
        *sent = end;
        if end < response.body.len() {
            cx.deadline_in(cx.core.settings.body_timeout);
            return Next::Stay(self);
        }
        let connection = *disposition;
        Transition::Flush { context: Some(self.context), connection, end: ResponseEnd::Framed }.into()
    }
}

/// Streams.
impl LocalService {
    #[cold]
    fn start_stream(
        mut self,
        response: ServiceResponse,
        disposition: Disposition,
        cx: &mut StepContext<'_>,
    ) -> Next<Self> {
        let Some(stream) = response.stream.filter(|_| !self.context.request.is_head()) else {
            let end = ResponseEnd::UntilClose;
            return Transition::Flush { context: Some(self.context), connection: disposition, end }.into();
        };
        *self.stage = Stage::Streaming { _stream: stream, part: Some(response.body), sent: 0, disposition };
        Next::Stay(self.send_part(cx))
    }

    /// Puts the next piece of the part into the output; after the last piece the exchange waits for the next part.
    fn send_part(mut self, cx: &mut StepContext<'_>) -> Self {
        let Stage::Streaming { part, sent, .. } = &mut *self.stage else { return self };
        match part {
            Some(bytes) if *sent < bytes.len() => {
                let end = bytes.len().min(*sent + PIECE_BYTES);
                cx.core.output.client.make(|out| out.extend_from_slice(bytes.slice(*sent..end)));
                *sent = end;
                cx.deadline_in(cx.core.settings.body_timeout);
            }
            _ => {
                *part = None;
                cx.deadline_in(cx.core.settings.response_timeout);
            }
        }
        self
    }

    fn end_stream(self) -> Next<Self> {
        let connection = match &*self.stage {
            Stage::Streaming { disposition, .. } => *disposition,
            _ => Disposition::Close,
        };
        Transition::Flush { context: Some(self.context), connection, end: ResponseEnd::UntilClose }.into()
    }
}

/// The request to this node, without its body.
#[cold]
pub(super) fn request_of(head: &RequestHead<'_, '_>, target: &[u8], peer: &Peer) -> Box<ServiceRequest> {
    let value = |name| head.value_of(name).map(<[u8]>::to_vec);
    Box::new(ServiceRequest {
        method: head.method.to_owned(),
        target: String::from_utf8_lossy(target).into_owned(),
        host: value("host"),
        origin: value("origin"),
        accept: value("accept"),
        authorization: value("authorization"),
        fetch_site: value("sec-fetch-site"),
        fetch_mode: value("sec-fetch-mode"),
        peer: Some(peer.address),
        uid: peer.local_user(),
        body: Vec::new(),
        ruled: None,
    })
}

/// Requests a page that rules let the client see. The request's body is read and ignored.
#[cold]
pub(super) fn show(context: Box<RequestContext>, page: RuledPage) -> Transition {
    let (text, body) = (|bytes| String::from_utf8_lossy(bytes).into_owned(), context.request.body());
    let (method, target) = (text(context.request.method()), text(context.request.target()));
    let request = ServiceRequest { method, target, ruled: Some(page), ..ServiceRequest::default() };
    Transition::Serve(context, Box::new(request), body)
}
