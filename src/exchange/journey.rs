//! What a request carries from backend to backend until an answer begins.

use super::pace::Pace;
use super::request::Request;
use super::transfer::Transfer;
use super::{Core, Cx, Disposition, Effect, Side, State, answer, connecting, resolving};
use crate::balance;
use crate::base::buffer::BufferPool;
use crate::base::clock::Moment;
use crate::base::reason::Reason;
use crate::cluster::{BackendId, Frontend, Member};
use crate::health::{self, Observation};
use crate::wire::body::BodyLength;
use crate::wire::chunked::ChunkFault;
use crate::wire::forwarded::Peer;
use crate::wire::request::RequestHead;
use std::sync::Arc;

/// How often the route is asked for again because every backend of the list found had just been retired. A list that
/// comes back retired so often is stale where it is kept, and to ask on would be a loop without end.
const MAX_RESOLVES: u32 = 32;

/// How many boxes are kept for requests to come.
const MOST_SPARES: usize = 1024;

/// It goes from state to state, so it is boxed, and as boxes are used again ([`Spares`]), that costs no allocation.
#[derive(Debug, Default)]
pub(super) struct Journey {
    pub(super) request: Request,
    pub(super) upload: Transfer,
    /// The body of the answer, once its head has come.
    pub(super) download: Transfer,
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
    /// How the client sends its body, and how it takes its answer.
    pub(super) upload_pace: Pace,
    pub(super) download_pace: Pace,
}

/// The boxes of requests that are over: a core has one stock and uses it again and again.
#[derive(Debug, Default)]
#[expect(clippy::vec_box, reason = "it is the boxes that are used again")]
pub struct Spares(Vec<Box<Journey>>);

impl Spares {
    fn take(&mut self) -> Box<Journey> {
        self.0.pop().unwrap_or_default()
    }

    /// Takes back a box, and what is in it.
    pub(super) fn take_back(&mut self, mut journey: Box<Journey>, buffers: &mut BufferPool) {
        journey.request.recycle(buffers);
        if self.0.len() < MOST_SPARES {
            journey.forget();
            self.0.push(journey);
        }
    }
}

/// The member of a frontend that the request goes to.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) frontend: Arc<Frontend>,
    /// Its place in the list.
    pub(super) place: usize,
}

impl Journey {
    /// That of the request with this head, of whose body `behind` bytes have come with it.
    pub(super) fn begin(
        head: &RequestHead<'_, '_>,
        behind: u64,
        peer: &Peer,
        cx: &mut Cx<'_>,
    ) -> Result<Box<Self>, Reason> {
        let mut journey = cx.core.spares.take();
        match journey.request.take(head, peer, cx) {
            Ok(()) => {
                let body = journey.request.body();
                journey.upload = Transfer::new(body, body == BodyLength::Chunked, &cx.core.settings.limits);
                journey.is_here = matches!(body, BodyLength::Sized(length) if length <= behind);
                Ok(journey)
            }
            Err(reason) => {
                cx.core.spares.take_back(journey, &mut cx.core.buffers);
                Err(reason)
            }
        }
    }

    /// Makes a used box as good as new. The request and the bodies are made anew with the next head.
    fn forget(&mut self) {
        let Self {
            request: _,
            upload: _,
            download: _,
            is_here: _,
            tried,
            resolves,
            goes_on,
            interim_answers,
            failure,
            upload_pace,
            download_pace,
        } = self;
        tried.clear();
        (*resolves, *goes_on, *interim_answers, *failure) = (0, false, 0, None);
        (*upload_pace, *download_pace) = (Pace::default(), Pace::default());
    }

    /// That of a request which has been where it was to go, or goes nowhere.
    pub(super) fn past(request: Request) -> Self {
        Self { request, ..Self::default() }
    }

    /// Whether a part of the body has yet to come from the client.
    pub(super) fn is_uploading(&self) -> bool {
        !self.is_here && !self.upload.is_done()
    }

    /// The body that comes from a side.
    pub(super) fn body_from(&self, side: Side) -> &Transfer {
        match side {
            Side::Client => &self.upload,
            Side::Upstream => &self.download,
        }
    }

    /// Notes how much of the input was of the body, and says what there is against it.
    pub(super) fn judge_upload(&mut self, fed: Result<usize, ChunkFault>, cx: &mut Cx<'_>) -> Result<(), Reason> {
        cx.consumed = fed?;
        self.upload_pace.count(cx.consumed);
        let settings = &cx.core.settings;
        if !self.upload_pace.keeps_up(cx.core.now, settings) {
            return Err(Reason::BodyTooSlow);
        }
        if settings.max_body_bytes.is_some_and(|limit| self.upload.received() > limit) {
            return Err(Reason::BodyTooLarge);
        }
        if self.upload.is_done() {
            cx.effect(Effect::Uploaded);
        }
        Ok(())
    }

    /// Whether the client takes its answer as fast as it has to.
    pub(super) fn download_keeps_up(&mut self, core: &Core) -> bool {
        self.download_pace.keeps_up(core.now, &core.settings)
    }

    /// Whether the client waits for the backend's 100 with the body (RFC 9110 section 10.1.1): it is the backend that is
    /// waited for then.
    pub(super) fn awaits_continue(&self) -> bool {
        self.request.expects_continue() && !self.goes_on
    }

    /// The client goes on with the body: from now on it is waited for.
    pub(super) fn go_on(&mut self, cx: &mut Cx<'_>) {
        if self.awaits_continue() {
            self.upload_pace = Pace::default();
            self.upload_pace.restart(cx.core.now);
        }
        self.goes_on = true;
    }

    /// The future of the client's connection behind a response, if `client_stays` as far as that is concerned.
    pub(super) fn disposition(&self, client_stays: bool) -> Disposition {
        let is_uploaded = self.upload.is_done();
        match client_stays && is_uploaded {
            true => Disposition::KeepAlive,
            false => Disposition::Linger { client_may_send: !is_uploaded || self.request.keep_alive() },
        }
    }

    /// Asks for the route.
    pub(super) fn resolve(mut self: Box<Self>, cx: &mut Cx<'_>) -> State {
        self.resolves += 1;
        cx.effect(Effect::Resolve);
        cx.deadline_in(cx.core.settings.connect_timeout);
        State::Resolving(resolving::Resolving { journey: self })
    }

    /// Chooses a backend and asks for a connection to it.
    pub(super) fn connect(self: Box<Self>, frontend: Arc<Frontend>, cx: &mut Cx<'_>) -> State {
        match balance::pick(&frontend, &self.tried, cx.core.now, &mut cx.core.rng) {
            Some(place) => {
                cx.own.ledger.chose_backend(cx.core.now);
                cx.own.target = Some(Target { frontend, place });
                if !self.tried.is_empty() {
                    cx.effect(Effect::Retry { stale: false });
                }
                self.dial(false, cx)
            }
            // The list was changed while the request was under way: the new one has the backends to try.
            None if self.resolves < MAX_RESOLVES && frontend.is_outdated() => self.resolve(cx),
            None => {
                let reason = self.failure.unwrap_or(Reason::NoBackend);
                self.refuse(reason, cx)
            }
        }
    }

    fn dial(self: Box<Self>, fresh: bool, cx: &mut Cx<'_>) -> State {
        cx.connect(fresh);
        cx.deadline_in(cx.core.settings.connect_timeout);
        State::Connecting(connecting::Connecting { journey: self, queued: false })
    }

    /// The target failed before anything of its answer was passed on: tries another backend, if there is one and
    /// `server.retryOnError` allows.
    #[cold]
    pub(super) fn try_another(mut self: Box<Self>, failure: Reason, cx: &mut Cx<'_>) -> State {
        self.failure = Some(failure);
        cx.release(false);
        let Some(target) = &cx.own.target else { return self.refuse(failure, cx) };
        self.tried.push(target.member().backend.id());
        if self.tried.len() > cx.core.settings.retry_limit as usize {
            return self.refuse(failure, cx);
        }
        let frontend = Arc::clone(&target.frontend);
        self.connect(frontend, cx)
    }

    /// A connection of the pool turned out to be closed: that says nothing about the backend, so the request goes
    /// there again, by a new connection.
    #[cold]
    pub(super) fn try_fresh(self: Box<Self>, cx: &mut Cx<'_>) -> State {
        cx.release(false);
        cx.effect(Effect::Retry { stale: true });
        self.dial(true, cx)
    }

    /// Sends the client to where connections are encrypted.
    pub(super) fn redirect(self: Box<Self>, cx: &mut Cx<'_>) -> State {
        answer::redirect(self, cx)
    }

    /// Ends the journey with an answer of this node's own.
    #[cold]
    pub(super) fn refuse(self: Box<Self>, reason: Reason, cx: &mut Cx<'_>) -> State {
        cx.release(false);
        let uploaded = self.upload.is_done();
        answer::refuse(Some((self, uploaded)), reason, cx)
    }
}

impl Target {
    #[expect(clippy::indexing_slicing, reason = "the place is the one that `balance` picked in this list")]
    pub(super) fn member(&self) -> &Member {
        &self.frontend.members[self.place]
    }

    /// Marks the member dead if what was seen of it says so; whether that is so, and to be told. An only member never is:
    /// there is nothing to go to instead. A mark is made, and told, anew when half of its time is over: where all members
    /// are marked, each request meets one.
    pub(super) fn is_marked_by(&self, seen: Observation, now: Moment, settings: &health::Settings) -> bool {
        if self.frontend.members.len() < 2 || !health::is_dead(seen, settings, now) {
            return false;
        }
        let is_fresh = |until: Moment| until.since(now) > settings.dead_ttl / 2;
        if self.member().dead_until(now).is_some_and(is_fresh) {
            return false;
        }
        self.member().mark_dead(now + settings.dead_ttl);
        true
    }
}
