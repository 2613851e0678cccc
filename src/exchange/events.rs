//! The vocabulary between an exchange and its owner: what happened, and what is to be done.

use super::service::ServiceResponse;
use crate::base::clock::Moment;
use crate::base::reason::FailureReason;
use crate::cache::fill::{FillEnd, FillStart};
use crate::cluster::{HeldToken, Notice, Permit, Route, Ticket};
use crate::health::Observation;
use crate::wire::lenient_response::Repairs;
use std::ops::Deref;
use std::sync::Arc;

/// One of the two ends that an exchange stands between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Who asked.
    Client,
    /// Who answers.
    Upstream,
}

impl Side {
    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::Client => Self::Upstream,
            Self::Upstream => Self::Client,
        }
    }
}

/// What an exchange is told.
#[derive(Debug)]
pub enum Input<'a> {
    /// Bytes from a side: all that are there and no step has consumed.
    Bytes(Side, &'a [u8]),
    /// The first bytes of a client that should have shaken hands first, and is to be told so. Nothing has come before
    /// them, and they are not offered again.
    PlaintextOnTlsPort(&'a [u8]),
    /// A side has sent its last byte.
    End(Side),
    /// The connection to a side is no more.
    Broken(Side),
    /// The connection to the backend is no more, and the backend's system has not acknowledged a byte of what this
    /// exchange sent: so nobody has read any of it. Said instead of [`Input::End`] or [`Input::Broken`] where
    /// [`Exchange::wants_ack_check`].
    ///
    /// [`Exchange::wants_ack_check`]: super::Exchange::wants_ack_check
    UpstreamClosedUnacked,
    /// The backend takes no more bytes; what it has sent may still be read.
    UpstreamWriteClosed,
    /// All bytes for a side have left.
    Drained(Side),
    /// The answer to [`Effect::Resolve`].
    Route(Result<Arc<Route>, FailureReason>),
    /// The request has a place in the queue of its cluster ([`Effect::Enqueue`]).
    Enqueued(Ticket),
    /// The request has a place in the queue of its bucket, and until then it waits.
    EnqueuedUntil(Ticket, Moment),
    /// The request, which has joined the queue, has a slot of this member.
    Granted(Permit),
    /// The request, which has joined the queue, has a token: now it may have a slot.
    GrantedToken(HeldToken),
    /// The part of the request in the fill of its object ([`Effect::JoinFill`]).
    Fill(FillStart),
    /// News of the fill that the request waits for or reads, or that others read of it.
    FillEnded(FillEnd),
    /// The queue of the cluster, or of the bucket, is full.
    QueueFull,
    /// What has changed for the request while it waits, or when it joins the queue.
    Notice(Notice),
    /// The response to [`Effect::AskService`].
    Service(Box<ServiceResponse>),
    /// All sockets to the backend are in use: the request stands in its queue.
    Queued,
    /// The wait in the queue is over: a connection is being opened.
    Dialling,
    /// A connection to the backend is there; whether it has served before.
    Connected {
        /// It has.
        reused: bool,
    },
    /// There will be no connection.
    ConnectFailed(FailureReason),
    /// The moment that [`Exchange::deadline`](super::Exchange::deadline) named has come.
    Deadline,
    /// The exchange is to end now.
    Abort(FailureReason),
}

/// What the owner of an exchange is to do, in the order given.
#[derive(Clone, Copy, Debug)]
pub enum Effect {
    /// Find the route of the request's host ([`Request::host`](super::Request::host)); say it by [`Input::Route`].
    Resolve,
    /// Have the service of this node make the response to the request of
    /// [`Exchange::take_service_request`](super::Exchange::take_service_request); say it by [`Input::Service`].
    AskService,
    /// Get a connection to the backend of [`Exchange::permit`](super::Exchange::permit); say it by
    /// [`Input::Connected`] or [`Input::ConnectFailed`].
    Connect {
        /// Not one of the pool: those seem to be stale.
        fresh: bool,
    },
    /// Have the request join the fill of [`Exchange::fill_request`](super::Exchange::fill_request); say it by [`Input::Fill`].
    JoinFill,
    /// Have the request join a queue ([`Exchange::join_queue`](super::Exchange::join_queue)); say it by
    /// [`Input::Enqueued`], [`Input::EnqueuedUntil`], [`Input::Granted`], [`Input::GrantedToken`], [`Input::QueueFull`] or
    /// [`Input::Notice`].
    Enqueue,
    /// The member of [`Exchange::permit`](super::Exchange::permit) behaved as a dead backend does, and was
    /// marked.
    MarkedDead {
        /// The member's place in its list.
        member: usize,
        /// What was seen of it.
        why: Observation,
    },
    /// A member that was marked has given a good response.
    Revived {
        /// The member's place in the frontend.
        member: usize,
    },
    /// The responses of a member have taken it out of service for a while.
    Ejected {
        /// The member's place in its list.
        member: usize,
    },
    /// The request is tried again.
    Retry {
        /// Only because a connection of the pool was stale.
        stale: bool,
    },
    /// The head of a response was read as the option `lenient` allows.
    Repaired(Repairs),
    /// The whole body of the request has come, or nobody needs the rest of it.
    Uploaded,
    /// The exchange needs its connection to the backend, or the promise of one, no longer.
    Release {
        /// The next exchange may have it.
        reuse: bool,
    },
    /// The connection to the backend is a tunnel now and will not come back to the pool.
    Tunnel,
    /// Shut down the writing to a side behind the bytes that are for it.
    CloseWrite(Side),
    /// Close the client's connection by a reset: its end would be the answer's, and the answer is not whole. Only
    /// [`Effect::Finish`] follows.
    Reset,
    /// The exchange is over; what is left of it is its log line.
    Finish(Disposition),
}

/// The future of the client's connection behind an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// It may carry the next request.
    KeepAlive,
    /// A lingering close: the writing is shut down at once, and what the client still sends is discarded. To close at once
    /// would have the kernel reset the connection as soon as one more byte comes, and a reset takes away whatever of the
    /// response has not been acknowledged (RFC 9112 section 9.6).
    Linger {
        /// The client has not said that its request is its last one, or has yet to send a part of it. Otherwise there is
        /// nothing to wait for but the acknowledgement of the response.
        client_may_send: bool,
    },
    /// It is closed at once: the client is gone, has ended its side, does not take its response, or is to see a reset.
    Close,
}

/// What is to be done, first things first.
#[derive(Debug, Default)]
pub struct Effects {
    /// The first `taken` of them are done.
    list: Vec<Effect>,
    taken: usize,
}

impl Effects {
    pub(super) fn push(&mut self, effect: Effect) {
        self.list.push(effect);
    }

    /// Takes the first.
    pub fn take_first(&mut self) -> Option<Effect> {
        let first = self.list.get(self.taken).copied();
        if first.is_some() {
            self.taken += 1;
        } else {
            self.clear();
        }
        first
    }

    /// Forgets all of it.
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
