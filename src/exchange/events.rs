//! The interface between an exchange and its owner: inputs and effects.

use super::service::{ServiceBody, ServiceResponse};
use crate::base::clock::Moment;
use crate::base::reason::FailureReason;
use crate::cache::fill::{FillEnd, FillStart};
use crate::cluster::{HeldToken, Notice, Permit, Route, Ticket};
use crate::health::Observation;
use crate::wire::lenient_response::Repairs;
use std::ops::Deref;
use std::sync::Arc;

/// One of the two sides of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The client.
    Client,
    /// The backend.
    Upstream,
}

impl Side {
    /// The opposite side.
    pub fn other(self) -> Self {
        match self {
            Self::Client => Self::Upstream,
            Self::Upstream => Self::Client,
        }
    }
}

/// An input of an exchange.
#[derive(Debug)]
pub enum Input<'a> {
    /// Bytes from a side: all that are available and were not consumed.
    Bytes(Side, &'a [u8]),
    /// The first bytes of a client that sends plaintext to a TLS port; it gets an error response. They are the first
    /// input and are not offered again.
    PlaintextOnTlsPort(&'a [u8]),
    /// A side has sent its last byte.
    End(Side),
    /// The connection to a side is broken.
    Broken(Side),
    /// The upstream connection is closed, and the backend's kernel has acknowledged no byte of this request, so the
    /// backend has read none of it. It replaces [`Input::End`] or [`Input::Broken`] if [`Exchange::wants_ack_check`].
    ///
    /// [`Exchange::wants_ack_check`]: super::Exchange::wants_ack_check
    UpstreamClosedUnacked,
    /// The backend accepts no more bytes; its response may still be read.
    UpstreamWriteClosed,
    /// All bytes for a side have been sent.
    Drained(Side),
    /// The result of [`Effect::Resolve`].
    Route(Result<Arc<Route>, FailureReason>),
    /// The request has a place in the queue of its cluster ([`Effect::Enqueue`]).
    Enqueued(Ticket),
    /// The request has a place in the queue of its bucket, until this moment at most.
    EnqueuedUntil(Ticket, Moment),
    /// The queued request gets a slot of this member.
    Granted(Permit),
    /// The queued request gets a token and may now take a slot.
    GrantedToken(HeldToken),
    /// The part of the request in the fill of its object ([`Effect::AskStore`]).
    Fill(FillStart),
    /// An event of the fill that the request waits for or reads, or that reads the request's response.
    FillEnded(FillEnd),
    /// The queue of the cluster, or of the bucket, is full.
    QueueFull,
    /// A change for the request while it waits, or when it joins the queue.
    Notice(Notice),
    /// The response to [`Effect::AskService`].
    Service(Box<ServiceResponse>),
    /// The next part of that response, where it is a stream; `None` for its end. A part that arrives while the client has
    /// not yet taken the previous one is skipped.
    ServicePart(Option<ServiceBody>),
    /// All sockets to the backend are in use: the request waits in the backend's queue.
    Queued,
    /// The wait in the queue is over: a connection is being opened.
    Dialling,
    /// A connection to the backend is established.
    Connected {
        /// The connection has served another request before.
        reused: bool,
    },
    /// No connection could be established.
    ConnectFailed(FailureReason),
    /// The moment that [`Exchange::deadline`](super::Exchange::deadline) named has come.
    Deadline,
    /// The exchange is to end now.
    Abort(FailureReason),
}

/// An action for the owner of an exchange, in the order given.
#[derive(Clone, Copy, Debug)]
pub enum Effect {
    /// Look up the route of the request's host ([`Request::host`](super::Request::host)) and return it with
    /// [`Input::Route`].
    Resolve,
    /// Pass the request of [`Exchange::take_service_request`](super::Exchange::take_service_request) to this node's
    /// service and return its response with [`Input::Service`].
    AskService,
    /// Get a connection to the backend of [`Exchange::permit`](super::Exchange::permit) and report it with
    /// [`Input::Connected`] or [`Input::ConnectFailed`].
    Connect {
        /// Open a new connection: pooled ones seem to be stale.
        fresh: bool,
    },
    /// Do what [`Exchange::store_request`](super::Exchange::store_request) says: have the request join a fill and say it by
    /// [`Input::Fill`], or have the disk tier say it by [`Input::FillEnded`].
    AskStore,
    /// Make the request join a queue ([`Exchange::join_queue`](super::Exchange::join_queue)) and report it with
    /// [`Input::Enqueued`], [`Input::EnqueuedUntil`], [`Input::Granted`], [`Input::GrantedToken`], [`Input::QueueFull`]
    /// or [`Input::Notice`].
    Enqueue,
    /// A request waits, as no backend of its frontend serves: a message asks for one to be started.
    Wake,
    /// The member of [`Exchange::permit`](super::Exchange::permit) was marked dead after a failure.
    MarkedDead {
        /// Index of the member in its list.
        member: usize,
        /// The observation that caused the mark.
        why: Observation,
    },
    /// A member marked dead has sent a good response.
    Revived {
        /// Index of the member in its list.
        member: usize,
    },
    /// The responses of a member have ejected it for a while.
    Ejected {
        /// Index of the member in its list.
        member: usize,
    },
    /// The request is retried.
    Retry {
        /// The only cause is a stale pooled connection.
        stale: bool,
    },
    /// The head of a response was read as the option `lenient` allows.
    Repaired(Repairs),
    /// The whole body of the request has arrived, or the rest is not needed.
    Uploaded,
    /// The exchange no longer needs its upstream connection, or its claim to one.
    Release {
        /// The connection may serve the next exchange.
        reuse: bool,
    },
    /// The upstream connection is a tunnel now and will not return to the pool.
    Tunnel,
    /// Shut down writing to a side, behind the bytes that are queued for it.
    CloseWrite(Side),
    /// Close the client's connection with a reset: a proper end would mark an incomplete response as complete. Only
    /// [`Effect::Finish`] follows.
    Reset,
    /// The exchange is over; only its log line is left to write.
    Finish(Disposition),
}

/// What happens to the client's connection after an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// It may carry the next request.
    KeepAlive,
    /// A lingering close: writing is shut down at once, and bytes that the client still sends are discarded. After an
    /// immediate close the kernel would reset the connection as soon as one more byte arrives, and a reset destroys the
    /// part of the response that is not acknowledged (RFC 9112 section 9.6).
    Linger {
        /// The client may send more: another request, or the rest of this one. Otherwise only the acknowledgement of
        /// the response is waited for.
        client_may_send: bool,
    },
    /// An immediate close: the client is gone, has ended its side, does not read its response, or is to see a reset.
    Close,
}

/// Effects to perform, in order.
#[derive(Debug, Default)]
pub struct Effects {
    /// The first `taken` effects are done.
    list: Vec<Effect>,
    taken: usize,
}

impl Effects {
    pub(super) fn push(&mut self, effect: Effect) {
        self.list.push(effect);
    }

    /// Takes the first effect.
    pub fn take_first(&mut self) -> Option<Effect> {
        let first = self.list.get(self.taken).copied();
        if first.is_some() {
            self.taken += 1;
        } else {
            self.clear();
        }
        first
    }

    /// Drops all effects.
    pub fn clear(&mut self) {
        self.list.clear();
        self.taken = 0;
    }
}

impl Deref for Effects {
    type Target = [Effect];

    fn deref(&self) -> &[Effect] {
        self.list.get(self.taken..).unwrap_or_default()
    }
}
