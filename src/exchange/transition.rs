//! Results of a step. States return them; `transitions` performs them.

use super::caching::Caching;
use super::events::Disposition;
use super::request_context::RequestContext;
use super::service::ServiceRequest;
use super::store_request::DiskWish;
use crate::base::clock::Moment;
use crate::base::reason::FailureReason;
use crate::cache::live::LiveReader;
use crate::cache::lookup::Cause;
use crate::cache::object::Object;
use crate::cache::status::Served;
use crate::cluster::Route;
use crate::wire::body::BodyLength;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The result of a step of the state `S`.
pub(super) type Step<S> = Result<Next<S>, Failure>;

/// What follows a step.
pub(super) enum Next<S> {
    /// The state does not change.
    Stay(S),
    /// The exchange moves on.
    Leave(Transition),
}

impl<S> From<Transition> for Next<S> {
    fn from(transition: Transition) -> Self {
        Self::Leave(transition)
    }
}

/// The next state of a request.
pub(super) enum Transition {
    /// The directory looks up its route.
    Resolve(Box<RequestContext>),
    /// The route is looked up again, unless that was tried too often.
    ResolveAgain(Box<RequestContext>),
    /// It waits for a slot or a token of its route's cluster.
    Wait(Box<RequestContext>),
    /// The same, but it stays out of the queue for a moment: its backend has just taken no connection.
    WaitToRetry(Box<RequestContext>),
    /// It has a slot, and waits for a token of this node.
    WaitForNode(Box<RequestContext>),
    /// It waits for its turn at this moment, given a limit of requests a second.
    AwaitTurn(Box<RequestContext>, Moment),
    /// It has a member: a connection is requested.
    Dial(Box<RequestContext>),
    /// It is sent to its member again: the failure concerns the connection alone.
    SendAgain {
        context: Box<RequestContext>,
        /// The connection may serve the next exchange.
        reuse: bool,
    },
    /// The connection is established: the request is sent.
    Send {
        context: Box<RequestContext>,
        /// The connection has served another request before.
        reused: bool,
    },
    /// The head of its response, of this length, was forwarded.
    Forward { context: Box<RequestContext>, course: ResponseCourse, head_len: usize },
    /// The part that a stored response lacks comes, with this length behind a head of this length.
    Gather {
        context: Box<RequestContext>,
        body: BodyLength,
        /// The backend's connection may carry the next request.
        upstream_stays: bool,
        head_len: usize,
    },
    /// A 101 was forwarded.
    Tunnel { context: Box<RequestContext>, is_websocket: bool },
    /// This node serves the request itself; its body has this length.
    Serve(Box<RequestContext>, Box<ServiceRequest>, BodyLength),
    /// The disk tier of the cache is asked first.
    AskDisk(Box<RequestContext>, Arc<Route>, DiskWish),
    /// Another request may be filling the cache with the object it asks for.
    JoinFill(Box<RequestContext>, Box<Caching>, Arc<Route>),
    /// A stored response is sent.
    ServeCached(Box<RequestContext>, Arc<Object>, Served),
    /// A response is sent while another request receives it; `cause` is why it was not served at once.
    ServeLive { context: Box<RequestContext>, cause: Cause, reader: LiveReader },
    /// The whole response is in the output.
    Flush { context: Option<Box<RequestContext>>, connection: Disposition, end: ResponseEnd },
    /// The exchange is over.
    End(Option<Box<RequestContext>>),
}

/// Facts about a response whose head was forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ResponseCourse {
    /// The client's connection may carry the next request.
    pub(super) client_stays: bool,
    /// The end of the connection marks the end of the response.
    pub(super) ends_with_connection: bool,
    /// It has no stated length: it may be a stream of events with pauses.
    pub(super) has_no_length: bool,
    /// The backend's connection may carry the next request.
    pub(super) upstream_stays: bool,
    /// The rest of the request's body is not needed, because of this response or the backend's end.
    pub(super) upload_irrelevant: bool,
    /// The client waits for permission to send the body, and may take the response as a refusal.
    pub(super) upload_is_optional: bool,
}

/// How the client recognises the end of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResponseEnd {
    /// By the framing of the response, so it notices a missing end.
    Framed,
    /// By the end of the connection.
    UntilClose,
    /// By the end of the connection, but the response is incomplete.
    Truncated,
}

/// The failure of a state.
#[derive(Debug)]
pub(super) struct Failure {
    /// The request, if there is one.
    pub(super) context: Option<Box<RequestContext>>,
    pub(super) reason: FailureReason,
    pub(super) remains: Remains,
}

/// What was sent before a failure, which determines the reaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remains {
    /// No head could be read, so the start of the next one is unknown.
    NoHead,
    /// No response has begun.
    NoResponse,
    /// No response has begun, and nothing of the request was sent to the member.
    NothingSent,
    /// No response has begun, and part of the request was sent to the member.
    Sent,
    /// The same, on a connection that the backend may have closed before.
    SentToStale,
    /// No response has begun, and the backend has read nothing of what was sent.
    SentUnread,
    /// A response has begun; its end can show the failure to the client.
    Response(ResponseEnd),
    /// The client cannot be notified, nor waited for. A response that has begun ends like this.
    Silence(ResponseEnd),
}

impl Failure {
    /// The failure of a request without a response so far.
    pub(super) fn new(context: Box<RequestContext>, reason: FailureReason) -> Self {
        Self { context: Some(context), reason, remains: Remains::NoResponse }
    }

    /// Sets what was sent.
    pub(super) fn leaving(self, remains: Remains) -> Self {
        Self { remains, ..self }
    }

    /// A failure that the client does not see, because it is gone or does not read.
    pub(super) fn silent(context: Option<Box<RequestContext>>, reason: FailureReason) -> Self {
        Self { context, reason, remains: Remains::Silence(ResponseEnd::Framed) }
    }
}
