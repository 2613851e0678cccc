//! What a request carries from backend to backend until an answer begins.

use super::pace::Pace;
use super::request::Request;
use super::transfer::Transfer;
use super::{Cx, Effect, State, answer, connecting, resolving};
use crate::balance;
use crate::base::clock::Moment;
use crate::base::reason::Reason;
use crate::cluster::{BackendId, Frontend, Member};
use crate::health::{self, Observation};
use crate::wire::body::BodyLength;
use crate::wire::limits::Limits;
use std::sync::Arc;

/// How often the route is asked for again because every backend of the list found had just been retired. A list that
/// comes back retired so often is stale where it is kept, and to ask on would be a loop without end.
const MAX_RESOLVES: u32 = 32;

#[derive(Debug)]
pub(super) struct Journey {
    pub(super) request: Request,
    pub(super) upload: Transfer,
    /// All of the body came together with the head.
    pub(super) is_here: bool,
    /// The backends that failed this request.
    tried: Vec<BackendId>,
    resolves: u32,
    /// The client was told to go on with the body, or does so unasked.
    pub(super) goes_on: bool,
    /// Interim answers of all backends that were tried.
    pub(super) interim_answers: u32,
    /// The last failure.
    failure: Option<Reason>,
}

/// The member of a frontend that the request goes to.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) frontend: Arc<Frontend>,
    /// Its place in the list.
    pub(super) place: usize,
}

impl Journey {
    pub(super) fn new(request: Request, limits: &Limits) -> Self {
        let upload = Transfer::new(request.body(), request.body() == BodyLength::Chunked, limits);
        Self {
            request,
            upload,
            is_here: false,
            tried: Vec::new(),
            resolves: 0,
            goes_on: false,
            interim_answers: 0,
            failure: None,
        }
    }

    /// Whether a part of the body has yet to come from the client.
    pub(super) fn is_uploading(&self) -> bool {
        !self.is_here && !self.upload.is_done()
    }

    /// Whether the client waits for the backend's 100 with the body (RFC 9110 section 10.1.1): it is the backend that is
    /// waited for then.
    pub(super) fn awaits_continue(&self) -> bool {
        self.request.expects_continue() && !self.goes_on
    }

    /// The client goes on with the body: from now on it is waited for.
    pub(super) fn go_on(&mut self, cx: &mut Cx<'_>) {
        if self.awaits_continue() {
            *cx.upload_pace = Pace::default();
            cx.upload_pace.restart(cx.now);
        }
        self.goes_on = true;
    }

    /// Asks for the route.
    pub(super) fn resolve(mut self, cx: &mut Cx<'_>) -> State {
        self.resolves += 1;
        cx.effect(Effect::Resolve);
        cx.deadline_in(cx.settings.connect_timeout);
        State::Resolving(resolving::Resolving { journey: self })
    }

    /// Chooses a backend and asks for a connection to it.
    pub(super) fn connect(self, frontend: Arc<Frontend>, cx: &mut Cx<'_>) -> State {
        match balance::pick(&frontend, &self.tried, cx.now, cx.rng) {
            Some(place) => {
                cx.ledger.chose(&frontend, place, cx.now);
                if !self.tried.is_empty() {
                    cx.effect(Effect::Retry { stale: false });
                }
                self.dial(Target { frontend, place }, false, cx)
            }
            // The list was changed while the request was under way: the new one has the backends to try.
            None if self.resolves < MAX_RESOLVES && frontend.is_outdated() => self.resolve(cx),
            None => {
                let reason = self.failure.unwrap_or(Reason::NoBackend);
                self.refuse(reason, cx)
            }
        }
    }

    fn dial(self, target: Target, fresh: bool, cx: &mut Cx<'_>) -> State {
        cx.connect(fresh);
        cx.deadline_in(cx.settings.connect_timeout);
        State::Connecting(connecting::Connecting { journey: self, target, queued: false })
    }

    /// The target failed before anything of its answer was passed on: tries another backend, if there is one and
    /// `server.retryOnError` allows.
    pub(super) fn try_another(mut self, target: Target, failure: Reason, cx: &mut Cx<'_>) -> State {
        self.failure = Some(failure);
        self.tried.push(target.member().backend.id());
        cx.release(false);
        if self.tried.len() > cx.settings.retry_limit as usize {
            return self.refuse(failure, cx);
        }
        self.connect(target.frontend, cx)
    }

    /// A connection of the pool turned out to be closed: that says nothing about the backend, so the request goes
    /// there again, by a new connection.
    pub(super) fn try_fresh(self, target: Target, cx: &mut Cx<'_>) -> State {
        cx.release(false);
        cx.effect(Effect::Retry { stale: true });
        self.dial(target, true, cx)
    }

    /// Sends the client to where connections are encrypted.
    pub(super) fn redirect(self, cx: &mut Cx<'_>) -> State {
        answer::redirect(self.request, self.upload.is_done(), cx)
    }

    /// Ends the journey with an answer of this node's own.
    pub(super) fn refuse(self, reason: Reason, cx: &mut Cx<'_>) -> State {
        cx.release(false);
        answer::refuse(Some((self.request, self.upload.is_done())), reason, cx)
    }
}

impl Target {
    #[expect(clippy::indexing_slicing, reason = "the place is the one that `balance` picked in this list")]
    pub(super) fn member(&self) -> &Member {
        &self.frontend.members[self.place]
    }

    /// Marks the member dead if what was seen of it says so. An only member never is: there is nothing to go to instead.
    /// A mark is made, and told, anew when half of its time is over: where all members are marked, each request meets one.
    pub(super) fn observe(&self, observation: Observation, cx: &mut Cx<'_>) {
        let settings = &cx.settings.health;
        if self.frontend.members.len() > 1 && health::is_dead(observation, settings, cx.now) {
            let is_fresh = |until: Moment| until.since(cx.now) > settings.dead_ttl / 2;
            if self.member().dead_until(cx.now).is_some_and(is_fresh) {
                return;
            }
            self.member().mark_dead(cx.now + settings.dead_ttl);
            cx.effect(Effect::MarkedDead { frontend: Arc::clone(&self.frontend), member: self.place });
        }
    }
}
