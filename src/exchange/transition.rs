//! What a step of a state leads to. States say it; `transitions` performs it.

use super::caching::Caching;
use super::events::Disposition;
use super::request_context::RequestContext;
use super::service::ServiceRequest;
use crate::base::clock::Moment;
use crate::base::reason::FailureReason;
use crate::cache::live::LiveReader;
use crate::cache::lookup::Cause;
use crate::cache::object::Object;
use crate::cache::status::Served;
use crate::cluster::Route;
use crate::wire::body::BodyLength;
use std::sync::Arc;

/// The result of a step of the state `S`.
pub(super) type Step<S> = Result<Next<S>, Failure>;

/// What comes behind a step.
pub(super) enum Next<S> {
    /// The exchange stays where it is.
    Stay(S),
    /// It goes on.
    Leave(Transition),
}

impl<S> From<Transition> for Next<S> {
    fn from(transition: Transition) -> Self {
        Self::Leave(transition)
    }
}

/// What a request goes on to.
pub(super) enum Transition {
    /// The directory is asked for its route.
    Resolve(Box<RequestContext>),
    /// The same again, for as long as that may help.
    ResolveAgain(Box<RequestContext>),
    /// It waits for a slot or a token of the cluster that its route leads to.
    Wait(Box<RequestContext>),
    /// It waits until it is its turn, as there are only so many a second.
    AwaitTurn(Box<RequestContext>, Moment),
    /// Its member is there: a connection to it is asked for.
    Dial(Box<RequestContext>),
    /// It goes to its member again, as the connection has nothing to do with that.
    SendAgain {
        context: Box<RequestContext>,
        /// The next exchange may have the connection.
        reuse: bool,
    },
    /// The connection is there: it leaves.
    Send {
        context: Box<RequestContext>,
        /// The connection has served before.
        reused: bool,
    },
    /// The head of its response, of this length, has been passed on.
    Forward { context: Box<RequestContext>, course: ResponseCourse, head_len: usize },
    /// A 101 has been passed on.
    Tunnel { context: Box<RequestContext>, is_websocket: bool },
    /// This node itself serves it; its body has this length.
    Serve(Box<RequestContext>, Box<ServiceRequest>, BodyLength),
    /// Another request may be filling the cache with what it asks for.
    JoinFill(Box<RequestContext>, Box<Caching>, Arc<Route>),
    /// A stored response leaves.
    ServeCached(Box<RequestContext>, Arc<Object>, Served),
    /// A response leaves while another request receives it; why it was not served at once.
    ServeLive { context: Box<RequestContext>, cause: Cause, reader: LiveReader },
    /// All of its response is in the output.
    Flush { context: Option<Box<RequestContext>>, connection: Disposition, end: ResponseEnd },
    /// Nothing is left to do.
    End(Option<Box<RequestContext>>),
}

/// What is known of a response once its head has been passed on.
#[derive(Clone, Copy, Debug)]
pub(super) struct ResponseCourse {
    /// The client's connection may carry the next request.
    pub(super) client_stays: bool,
    /// The client knows its end by the end of the connection.
    pub(super) ends_with_connection: bool,
    /// It does not say where it ends: it may be a stream of events, which is silent at times.
    pub(super) has_no_length: bool,
    /// The backend's connection may carry the next request.
    pub(super) upstream_stays: bool,
    /// It, or the backend's end, makes the rest of the request's body useless: that is not waited for.
    pub(super) upload_irrelevant: bool,
    /// The client waits to be told to send the body, and may take it for the end of that.
    pub(super) upload_is_optional: bool,
}

/// How the client knows that a response ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResponseEnd {
    /// By what the response says; so it sees as well if the end is missing.
    Framed,
    /// By the end of the connection.
    UntilClose,
    /// By the end of the connection too, but the response is not whole.
    Truncated,
}

/// Why a state cannot go on.
#[derive(Debug)]
pub(super) struct Failure {
    /// The request, where there is one.
    pub(super) context: Option<Box<RequestContext>>,
    pub(super) reason: FailureReason,
    pub(super) remains: Remains,
}

/// What a failure has left, which says what is done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remains {
    /// No head was read, so nobody knows where the next one begins.
    NoHead,
    /// No response has begun.
    NoResponse,
    /// No response has begun, and the member has got nothing of the request.
    NothingSent,
    /// No response has begun, and the member has got a part of the request.
    Sent,
    /// The same, on a connection that the backend may have closed before.
    SentToStale,
    /// No response has begun, and the backend has read nothing of what was sent.
    SentUnread,
    /// A response has begun, and the client can be told by how it ends.
    Response(ResponseEnd),
    /// The client cannot be told anything, nor waited for. A response that has begun would end so.
    Silence(ResponseEnd),
}

impl Failure {
    /// A request that is refused: no response has begun.
    pub(super) fn new(context: Box<RequestContext>, reason: FailureReason) -> Self {
        Self { context: Some(context), reason, remains: Remains::NoResponse }
    }

    /// Says what it has left.
    pub(super) fn leaving(self, remains: Remains) -> Self {
        Self { remains, ..self }
    }

    /// One of which the client, which is gone or does not move, learns nothing.
    pub(super) fn silent(context: Option<Box<RequestContext>>, reason: FailureReason) -> Self {
        Self { context, reason, remains: Remains::Silence(ResponseEnd::Framed) }
    }
}
