//! The object cache as requests meet it: look-up, fill, validation, stale responses, purge and invalidation.

use super::awaiting_fill::AwaitingFill;
use super::awaiting_response::AwaitingResponse;
use super::forwarding_response::ForwardingResponse;
use super::local_reply::LocalReply;
use super::output_queue::{ByteSink, OutputQueue};
use super::request::Request;
use super::request_context::RequestContext;
use super::serving_cached::ServingCached;
use super::{State, StepContext};
use crate::base::clock::Moment;
use crate::base::slice_ext::SliceExt;
use crate::cache::fields::Fields;
use crate::cache::fill::FillLead;
use crate::cache::freshness::Times;
use crate::cache::invalidation;
use crate::cache::key::CacheRequest;
use crate::cache::lookup::{self, Bypass, Cause, Decision, Failure};
use crate::cache::object::Object;
use crate::cache::options::Options;
use crate::cache::purge::{PurgeMode, Selector};
use crate::cache::refresh::{self, Refresh};
use crate::cache::status::{self, Forwarded, Served};
use crate::cache::storability::{CacheResponse, PendingObject, Refusal, admit};
use crate::cache::store::{Store, Ticket};
use crate::cluster::Route;
use crate::health::Observation;
use crate::wire::MAX_FIELDS;
use crate::wire::body::BodyLength;
use crate::wire::response::ResponseHead;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The part of the cache in a request that is forwarded.
#[derive(Debug)]
pub(super) struct Caching {
    key: Box<[u8]>,
    /// The head as the client's conditions are in it.
    head: Box<[u8]>,
    ticket: Ticket,
    cause: Cause,
    /// The stored response that is validated, or stands in for an error.
    stale: Option<Arc<Object>>,
    /// The backend is asked whether `stale` is still good.
    validates: bool,
    requested_at: SystemTime,
    pending: Option<PendingObject>,
    stored: Result<(), Refusal>,
    /// Requests wait for this one to fill the cache.
    lead: Option<FillLead>,
    /// The key and the selection that a fill is waited for by.
    selection: Box<[u8]>,
}

/// What is done with a request.
enum Plan {
    Forward,
    Purge,
    Serve(Arc<Object>, status::State),
    OnlyIfCached,
    Fetch(Fetch),
}

/// A backend is asked.
struct Fetch {
    cause: Cause,
    stale: Option<Arc<Object>>,
    validates: bool,
    /// The key and the selection that a fill is waited for by; `None` where nothing may be stored.
    selection: Option<Box<[u8]>>,
}

/// What is done with a response.
enum Verdict {
    Forward,
    /// The client gets this object in place of the response.
    Serve(Arc<Object>, Served),
    /// The request is sent again without validators.
    Again,
}

/// Looks a request up, at a frontend whose cache is enabled.
#[inline(never)]
pub(super) fn start(context: Box<RequestContext>, route: Arc<Route>, cx: &mut StepContext<'_>) -> State {
    let Some(store) = cx.core.cache.clone() else { return context.connect(route, cx) };
    cx.common.route = Some(Arc::clone(&route));
    let options = &route.cluster.options.cache;
    let (now, wall) = (cx.core.now, cx.core.wall_time());
    let mut key = std::mem::take(&mut cx.core.cache_key);
    key.clear();
    let request = &context.request;
    let plan = with_view(request.head(), request, &route, |view| plan(view, options, &store, (now, wall), &mut key));
    let state = match plan.unwrap_or(Plan::Forward) {
        Plan::Forward => context.connect(route, cx),
        Plan::Serve(object, state) => {
            let served = Served { state, is_shadow: false, backend_status: None, hits: object.count_hit() };
            ServingCached::start(context, None, object, served, cx)
        }
        Plan::Purge => {
            let purged = store.purge(&Selector::Key(key.as_slice().into()), PurgeMode::Soft);
            give(context, if purged > 0 { 200 } else { 404 }, cx)
        }
        Plan::OnlyIfCached => give(context, 504, cx),
        Plan::Fetch(Fetch { cause, stale, validates, selection }) => {
            let may_wait = selection.is_some() && !context.has_waited;
            let caching = Caching {
                key: key.as_slice().into(),
                head: context.request.head().into(),
                ticket: store.ticket(),
                cause,
                stale,
                validates,
                requested_at: wall,
                pending: None,
                stored: Err(Refusal::Request),
                lead: None,
                selection: selection.unwrap_or_default(),
            };
            match may_wait {
                true => AwaitingFill::start(context, caching, route, cx),
                false => caching.forward(context, route, cx),
            }
        }
    };
    cx.core.cache_key = key;
    state
}

fn plan(
    view: &CacheRequest<'_>,
    options: &Options,
    store: &Store,
    (now, wall): (Moment, SystemTime),
    key: &mut Vec<u8>,
) -> Plan {
    if view.method == b"PURGE" && view.is_trusted {
        options.key.write(view, key);
        return Plan::Purge;
    }
    match lookup::bypass(view, options) {
        None => {}
        // What it changes is made invalid once it has succeeded.
        Some(Bypass::Method) => {
            return Plan::Fetch(Fetch { cause: Cause::Bypass, stale: None, validates: false, selection: None });
        }
        Some(_) => return Plan::Forward,
    }
    options.key.write(view, key);
    let found = store.get(key, view.fields);
    let other = found.other;
    let decision = lookup::decide(view, found.object.as_deref(), other.is_some(), options, wall);
    let (cause, object) = match (decision, found.object) {
        (Decision::OnlyIfCached, _) => return Plan::OnlyIfCached,
        (Decision::Hit, Some(object)) => return Plan::Serve(object, status::State::Hit),
        (Decision::Stale, Some(object)) => return Plan::Serve(object, status::State::Stale),
        (Decision::StaleWhileRevalidate, Some(object)) => {
            if !object.claim_refresh(now, options.update_lock_timeout) {
                return Plan::Serve(object, status::State::StaleUpdating);
            }
            (Cause::Stale, Some(object))
        }
        (Decision::Revalidate(Cause::Stale) | Decision::Miss(Cause::Stale), Some(object))
            if lookup::may_serve_while_updating(&object, options) =>
        {
            if !object.claim_refresh(now, options.update_lock_timeout) {
                return Plan::Serve(object, status::State::StaleUpdating);
            }
            (Cause::Stale, Some(object))
        }
        (Decision::Revalidate(cause) | Decision::Miss(cause), object) => (cause, object),
        // Only an object can be any of these.
        (Decision::Hit | Decision::Stale | Decision::StaleWhileRevalidate, None) => (Cause::UriMiss, None),
    };
    let fills = refresh::fills(view);
    let validates = fills && object.as_ref().is_some_and(|object| object.has_validator());
    let selection = fills.then(|| {
        let mut selection = key.clone();
        let learned = object.as_ref().or(other.as_ref());
        learned.inspect(|object| object.variant.write_selection(view.fields, &mut selection));
        selection.into()
    });
    Plan::Fetch(Fetch { cause, stale: object, validates, selection })
}

/// Reads a head as the cache does. `None` where it has more lines than nearly all heads have.
pub(super) fn with_view<T>(
    head: &[u8],
    request: &Request,
    route: &Route,
    read: impl FnOnce(&CacheRequest<'_>) -> T,
) -> Option<T> {
    let mut room = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(head, &mut room) {
        Ok(httparse::Status::Complete(_)) => {}
        _ => return None,
    }
    let fields = Fields(parsed.headers);
    let is_https = request.is_secure();
    Some(read(&CacheRequest {
        frontend: &route.cluster.key,
        method: request.method(),
        is_https,
        host: request.host().as_bytes(),
        port: port(fields, is_https),
        target: request.target(),
        has_body: request.body() != BodyLength::None,
        is_trusted: request.is_trusted(),
        fields,
    }))
}

/// The port in `Host`, or that of the scheme.
fn port(fields: Fields<'_>, is_https: bool) -> u16 {
    let stated = fields.first("host").and_then(|host| {
        let at = memchr::memrchr(b':', host).filter(|_| !host.ends_with(b"]"))?;
        std::str::from_utf8(host.suffix(at + 1)).ok()?.parse().ok()
    });
    stated.unwrap_or(if is_https { 443 } else { 80 })
}

/// A response of this node without a body.
#[cold]
fn give(context: Box<RequestContext>, status: u16, cx: &mut StepContext<'_>) -> State {
    let uploaded = context.upload.is_done();
    let reply = LocalReply { status, fields: b"", retry_after: Duration::ZERO, error: None, body: b"" };
    reply.give(Some(context), uploaded, cx)
}

impl Caching {
    /// Other requests wait for this one.
    pub(super) fn set_lead(&mut self, lead: FillLead) {
        self.lead = Some(lead);
    }

    /// The key and the selection that a fill is waited for by.
    pub(super) fn selection(&self) -> Box<[u8]> {
        self.selection.clone()
    }

    /// Sends the request to a backend.
    pub(super) fn forward(
        self,
        mut context: Box<RequestContext>,
        route: Arc<Route>,
        cx: &mut StepContext<'_>,
    ) -> State {
        if let (Some(stale), true) = (&self.stale, self.validates) {
            let mut validators = Vec::new();
            refresh::put_validators(stale, &mut validators);
            context.request.replace_conditions(&validators, &mut cx.core.buffers);
        }
        context.caching = Some(Box::new(self));
        context.connect(route, cx)
    }

    fn judge(
        &mut self,
        view: &CacheRequest<'_>,
        response: &CacheResponse<'_>,
        options: &Options,
        store: &Store,
        wall: SystemTime,
    ) -> Verdict {
        if !view.is_retrieval() {
            invalidate(view, response, options, store);
            return Verdict::Forward;
        }
        if let Some(stale) = &self.stale {
            let serve = |object: Arc<Object>, is_shadow| {
                let hits = object.count_hit();
                let (state, backend_status) = (status::State::Stale, Some(response.status));
                Verdict::Serve(object, Served { state, is_shadow, backend_status, hits })
            };
            if response.status == 304 && self.validates {
                return match refresh::refresh(stale, view, response, options) {
                    Refresh::Good(object) => {
                        let stored = store.insert(&self.key, object, self.ticket, options);
                        self.lead.take().into_iter().for_each(FillLead::stored);
                        serve(stored.unwrap_or_else(|_| Arc::clone(stale)), false)
                    }
                    Refresh::GoodOnce(object, _) => {
                        store.drop_object(&self.key, stale);
                        serve(Arc::new(object), false)
                    }
                    Refresh::Other => {
                        store.drop_object(&self.key, stale);
                        Verdict::Again
                    }
                };
            }
            if lookup::may_replace_error(view, stale, Failure::Status(response.status), options, wall) {
                return serve(Arc::clone(stale), true);
            }
        }
        if view.is_head() {
            self.update_by_head(view, response, options, store);
            return Verdict::Forward;
        }
        let admitted = admit(view, response, options).and_then(|mut pending| {
            pending.limit_to(store.largest()).map_err(|_| Refusal::TooLarge)?;
            Ok(pending)
        });
        match admitted {
            Ok(pending) => (self.pending, self.stored) = (Some(pending), Ok(())),
            Err(refusal) => {
                self.stored = Err(refusal);
                // An error says nothing about the next response: the fill has failed, and another request tries.
                let lead = self.lead.take().filter(|_| response.status < 500);
                lead.into_iter().for_each(FillLead::uncacheable);
                // What was stored is no longer what the backend would send.
                if let (Some(stale), 200..=499) = (&self.stale, response.status) {
                    store.drop_object(&self.key, stale);
                }
            }
        }
        Verdict::Forward
    }

    fn update_by_head(&self, view: &CacheRequest<'_>, response: &CacheResponse<'_>, options: &Options, store: &Store) {
        let Some(stale) = self.stale.as_ref().filter(|_| response.status == 200) else { return };
        match refresh::update_by_head(stale, view, response, options) {
            Refresh::Good(object) => drop(store.insert(&self.key, object, self.ticket, options)),
            Refresh::GoodOnce(..) => store.drop_object(&self.key, stale),
            Refresh::Other => stale.soft_purge(),
        }
    }

    /// The fields that tell what the cache did.
    pub(super) fn put_fields(&self, request: &Request, out: &mut Vec<u8>) {
        if matches!(request.method(), b"GET" | b"HEAD") {
            let (cause, stored) = (self.cause, self.stored);
            Forwarded { cause, backend_status: None, stored, is_collapsed: false }.put(out);
        }
    }

    /// Whether the body is to be stored.
    pub(super) fn is_filling(&self) -> bool {
        self.pending.is_some()
    }

    /// All of the response has come.
    pub(super) fn complete(self, cx: &StepContext<'_>) {
        let (Some(pending), Some(store), Some(route)) = (self.pending, &cx.core.cache, &cx.common.route) else {
            return;
        };
        // An object that is not stored, as it is too large or was purged meanwhile, has been forwarded all the same.
        if let Ok(object) = pending.finish() {
            let stored = store.insert(&self.key, object, self.ticket, &route.cluster.options.cache);
            match (self.lead, stored) {
                (Some(lead), Ok(_)) => lead.stored(),
                (Some(lead), Err(_)) => lead.uncacheable(),
                (None, _) => {}
            }
        }
    }
}

/// Drops what a request with an unsafe method has changed.
#[cold]
fn invalidate(view: &CacheRequest<'_>, response: &CacheResponse<'_>, options: &Options, store: &Store) {
    let mut key = Vec::new();
    for target in invalidation::targets(view, response.status, response.fields) {
        key.clear();
        options.key.write(&CacheRequest { method: b"GET", target: &target, ..*view }, &mut key);
        store.invalidate(&key);
    }
}

/// Passes a response on, or serves a stored one in its place.
#[inline(never)]
pub(super) fn on_response(
    mut awaiting: AwaitingResponse,
    head: &ResponseHead<'_, '_>,
    rest: &[u8],
    cx: &mut StepContext<'_>,
) -> State {
    let (store, route) = (cx.core.cache.clone(), cx.common.route.clone());
    let (Some(mut caching), Some(store), Some(route)) = (awaiting.context.caching.take(), store, route) else {
        return ForwardingResponse::start(awaiting, head, rest, cx);
    };
    let wall = cx.core.wall_time();
    let response = CacheResponse {
        status: head.status,
        phrase: head.phrase(),
        fields: Fields(head.headers()),
        body: head.body,
        times: Times { requested_at: caching.requested_at, received_at: wall },
    };
    let request_head = std::mem::take(&mut caching.head);
    let options = &route.cluster.options.cache;
    let verdict = with_view(&request_head, &awaiting.context.request, &route, |view| {
        caching.judge(view, &response, options, &store, wall)
    });
    match verdict {
        None | Some(Verdict::Forward) => {
            awaiting.context.caching = Some(caching);
            ForwardingResponse::start(awaiting, head, rest, cx)
        }
        Some(Verdict::Serve(object, served)) => {
            cx.observe(Observation::Responded { status: head.status, retry_after: head.retry_after });
            cx.common.stats.backend_done(cx.core.now);
            // The body of an error is not waited for.
            let stays = head.keep_alive && head.body == BodyLength::None && rest.is_empty() && !awaiting.write_closed;
            cx.release(stays);
            ServingCached::start(awaiting.context, Some(&request_head), object, served, cx)
        }
        Some(Verdict::Again) => {
            let stays = head.keep_alive && rest.is_empty() && !awaiting.write_closed;
            awaiting.context.request.replace_conditions(b"", &mut cx.core.buffers);
            awaiting.context.send_again(stays, cx)
        }
    }
}

/// Serves a stored response in place of this node's own error, where there is one that may.
#[cold]
pub(super) fn stand_in(
    context: &mut RequestContext,
    status: u16,
    cx: &StepContext<'_>,
) -> Option<(Arc<Object>, Box<[u8]>)> {
    let caching = context.caching.take().filter(|_| matches!(status, 502..=504))?;
    let (object, route) = (caching.stale?, cx.common.route.as_ref()?);
    let options = &route.cluster.options.cache;
    let wall = cx.core.wall_time();
    let may_serve = with_view(&caching.head, &context.request, route, |view| {
        view.is_retrieval() && lookup::may_replace_error(view, &object, Failure::NoResponse, options, wall)
    });
    (may_serve == Some(true)).then_some((object, caching.head))
}

/// Serves the stored response of [`stand_in`].
#[cold]
pub(super) fn serve_shadow(
    context: Box<RequestContext>,
    (object, head): (Arc<Object>, Box<[u8]>),
    cx: &mut StepContext<'_>,
) -> State {
    let hits = object.count_hit();
    let served = Served { state: status::State::Stale, is_shadow: true, backend_status: None, hits };
    ServingCached::start(context, Some(&head), object, served, cx)
}

/// Passes a body on and collects it.
pub(super) struct Tee<'a> {
    queue: &'a mut OutputQueue,
    caching: &'a mut Caching,
}

impl<'a> Tee<'a> {
    pub(super) fn new(queue: &'a mut OutputQueue, caching: &'a mut Caching) -> Self {
        Self { queue, caching }
    }
}

impl ByteSink for Tee<'_> {
    /// These are chunk sizes and trailers, not the body.
    fn make(&mut self, maker: impl FnOnce(&mut Vec<u8>)) {
        self.queue.make(maker);
    }

    fn pass(&mut self, input: &[u8], part: Range<usize>) {
        if let Some(pending) = &mut self.caching.pending
            && pending.push(input.slice(part.clone())).is_err()
        {
            self.caching.pending = None;
            self.caching.lead.take().into_iter().for_each(FillLead::uncacheable);
        }
        self.queue.pass(input, part);
    }
}
