//! The state in which the head of the request is not complete.

use super::body_forwarder::BodyForwarder;
use super::events::{Input, Side};
use super::request::Request;
use super::request_context::RequestContext;
use super::settings::Settings;
use super::step_context::StepContext;
use super::transition::{Failure, Next, Remains, Step, Transition};
use super::{local_reply, local_service, rules};
use crate::base::reason::FailureReason;
use crate::base::slice_ext::SliceExt;
use crate::wire;
use crate::wire::body::BodyLength;
use crate::wire::forwarded::Peer;
use crate::wire::request::{RequestHead, fields, most_fields};

/// The host of Hipache's health check of the proxy itself: it gets a response even when nothing else works.
const PING_HOST: &str = "__ping__";

#[derive(Debug)]
pub(super) struct ReadingHead {
    /// The client. Its facts are written into the head for the backend.
    peer: Peer,
    /// Bytes of the head seen at the last look.
    seen: usize,
}

impl ReadingHead {
    /// The state before the first byte.
    pub(super) fn new(peer: Peer) -> Self {
        Self { peer, seen: 0 }
    }

    pub(super) fn step(self, input: Input<'_>, cx: &mut StepContext<'_>) -> Step<Self> {
        match input {
            Input::Bytes(Side::Client, bytes) => self.read(bytes, cx),
            Input::PlaintextOnTlsPort(bytes) => Err(refuse(bytes, FailureReason::PlainToTls, &self.peer, cx)),
            Input::End(Side::Client) => Err(Failure::silent(None, FailureReason::ClientTruncated)),
            Input::Deadline => {
                Err(Failure { context: None, reason: FailureReason::HeadTimeout, remains: Remains::NoHead })
            }
            _ => Ok(Next::Stay(self)),
        }
    }

    fn read(mut self, bytes: &[u8], cx: &mut StepContext<'_>) -> Step<Self> {
        // The first look parses whatever has arrived, so input that is not HTTP is refused at once.
        let may_be_complete = self.seen == 0 || wire::has_blank_line(bytes, self.seen);
        self.seen = bytes.len();
        let mut room = fields();
        let parsed = if may_be_complete { RequestHead::parse(bytes, &mut room) } else { Ok(None) };
        match parsed {
            Err(reason @ (FailureReason::TooManyHeaders | FailureReason::UnknownVersion)) => {
                self.read_odd(bytes, reason, cx)
            }
            parsed => self.judge(bytes, parsed, cx),
        }
    }

    /// Reads a head with many lines, or with a later minor version.
    #[cold]
    #[inline(never)]
    fn read_odd(self, bytes: &[u8], reason: FailureReason, cx: &mut StepContext<'_>) -> Step<Self> {
        let known = if reason == FailureReason::UnknownVersion { wire::version::as_http11(bytes) } else { None };
        let mut room = most_fields();
        let parsed = RequestHead::parse(known.as_deref().unwrap_or(bytes), &mut room);
        self.judge(bytes, parsed, cx)
    }

    #[inline]
    fn judge(
        self,
        bytes: &[u8],
        parsed: Result<Option<RequestHead<'_, '_>>, FailureReason>,
        cx: &mut StepContext<'_>,
    ) -> Step<Self> {
        let head = match parsed {
            Ok(head) => head,
            Err(reason) => return Err(refuse(bytes, reason, &self.peer, cx)),
        };
        match excess(bytes, head.as_ref(), &cx.core.settings) {
            Some(reason) => Err(refuse(bytes, reason, &self.peer, cx)),
            None => match head {
                Some(head) => Ok(begin(&head, bytes, &self.peer, cx)?.into()),
                None => Ok(Next::Stay(self)),
            },
        }
    }
}

/// The limit that a complete or incomplete head exceeds, if any.
fn excess(bytes: &[u8], head: Option<&RequestHead<'_, '_>>, settings: &Settings) -> Option<FailureReason> {
    let limits = &settings.limits;
    let (len, uri_len, fields) = match head {
        Some(head) => (head.len, head.uri_len, head.fields_len()),
        None => (bytes.len(), wire::request::uri_len_so_far(bytes), 0),
    };
    if uri_len > limits.uri_bytes {
        Some(FailureReason::UriTooLong)
    } else if fields > limits.fields {
        Some(FailureReason::TooManyHeaders)
    } else {
        (len > settings.max_head_bytes).then_some(FailureReason::HeadTooLarge)
    }
}

fn begin(
    head: &RequestHead<'_, '_>,
    bytes: &[u8],
    peer: &Peer,
    cx: &mut StepContext<'_>,
) -> Result<Transition, Failure> {
    let context = match take(head, (bytes.len() - head.len) as u64, peer, cx) {
        Ok(context) => context,
        Err(reason) => return Err(refuse(bytes, reason, peer, cx)),
    };
    cx.consumed = head.len;
    if let Err(fault) = context.upload.check_start(bytes.suffix(head.len)) {
        return Err(Failure::new(context, fault.into()));
    }
    if cx.common.is_for_service() {
        let request = local_service::request_of(head, context.request.target(), peer);
        return Ok(Transition::Serve(context, request, head.body));
    }
    if cx.common.rules.is_some() {
        return rules::decide(context, cx);
    }
    if context.request.is_for(PING_HOST) {
        return Ok(local_reply::plain(context, "ok", cx));
    }
    match (head.max_forwards, head.method) {
        (Some(0), "OPTIONS") => Ok(local_reply::plain(context, "", cx)),
        // This node does not echo requests.
        (Some(0), _) => Err(Failure::new(context, FailureReason::MethodRefused)),
        _ => Ok(Transition::Resolve(context)),
    }
}

/// Accepts the request with this head; `behind` bytes of its body have arrived with it.
fn take(
    head: &RequestHead<'_, '_>,
    behind: u64,
    peer: &Peer,
    cx: &mut StepContext<'_>,
) -> Result<Box<RequestContext>, FailureReason> {
    let mut context = cx.core.request_pool.take();
    match context.request.take(head, peer, cx.intake()) {
        Ok(()) => {
            let body = context.request.body();
            context.upload = BodyForwarder::new(body, body == BodyLength::Chunked, &cx.core.settings.limits);
            context.is_here = matches!(body, BodyLength::Sized(length) if length <= behind);
            Ok(context)
        }
        Err(reason) => {
            cx.core.request_pool.take_back(context, &mut cx.core.buffers);
            Err(reason)
        }
    }
}

/// Refuses a head. The start of the next head is unknown, so no byte behind it is read as one.
#[cold]
fn refuse(bytes: &[u8], reason: FailureReason, peer: &Peer, cx: &mut StepContext<'_>) -> Failure {
    let request = Request::glimpsed(bytes, peer, cx.intake());
    let context = request.map(|request| Box::new(RequestContext::past(request)));
    Failure { context, reason, remains: Remains::NoHead }
}
