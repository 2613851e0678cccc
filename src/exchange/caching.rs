//! The part of the object cache in a forwarded request: fill, validation, stale responses and invalidation.

use super::fetch::{Completion, Fetch, Selection, Verdict};
use super::request::Request;
use crate::base::clock::Moment;
use crate::cache::body::BodyFault;
use crate::cache::conditional::{self, Outcome, OwnConditions};
use crate::cache::fill::FillLead;
use crate::cache::invalidation;
use crate::cache::key;
use crate::cache::live::{LiveFill, Sleeper};
use crate::cache::lookup::{self, Cause, Decision, Failure};
use crate::cache::object::Object;
use crate::cache::options::Options;
use crate::cache::parts;
use crate::cache::purge::Ticket;
use crate::cache::refresh::{self, Refresh};
use crate::cache::request::CacheRequest;
use crate::cache::status::{self, Forwarded, Served};
use crate::cache::storability::{CacheResponse, PendingObject, Refusal, admit_to_eligible};
use crate::cache::store::{InsertError, NotStored, Store};
use crate::cache::vary::RequestValues;
use crate::cluster::Route;
use std::sync::Arc;
use std::time::SystemTime;

/// The cache's part of a forwarded request.
#[derive(Debug)]
pub(super) struct Caching {
    key: Arc<[u8]>,
    ticket: Ticket,
    cause: Cause,
    /// The stored response that is being validated, or that may replace an error.
    stale: Option<Arc<Object>>,
    /// The backend is asked to validate `stale`.
    validates: bool,
    /// The validators sent in place of the client's conditions; `None` to send the client's.
    conditions: Option<OwnConditions>,
    /// The stored response of which the backend is asked for a part, and the part.
    completion: Option<Completion>,
    /// The backend is asked for the whole response, without the client's conditions.
    asks_for_whole: bool,
    /// If the request fills for others, its conditions are not sent, and evaluated here.
    keeps_conditions: bool,
    requested_at: SystemTime,
    pending: Option<PendingObject>,
    /// The body is no longer stored, and still forwarded to its readers.
    is_passing: bool,
    /// The readers have yet to catch up.
    is_held: bool,
    stored: Result<(), Refusal>,
    /// The lead of the fill, if other requests wait for it.
    lead: Option<FillLead>,
    /// The handle with which readers wake this request.
    sleeper: Option<Sleeper>,
    /// The key and selection under which other requests wait for the fill.
    selection: Arc<[u8]>,
    may_lead: bool,
}

impl Caching {
    /// The part for a request with this key.
    pub(super) fn new(key: Arc<[u8]>, ticket: Ticket, fetch: Fetch, steady: SystemTime) -> Self {
        let Fetch { cause, stale, validates, completion, asks_for_whole, keeps_conditions, selection, may_lead } =
            fetch;
        let conditions = match (&stale, &completion) {
            (_, Some((object, missing))) => Some(parts::ask_for(object, missing)),
            (Some(stale), None) if validates => Some(OwnConditions::to_validate(stale)),
            _ => None,
        };
        Self {
            selection: match selection {
                Some(Selection::OfVariant(selection)) => selection,
                Some(Selection::Key) | None => Arc::clone(&key),
            },
            key,
            ticket,
            cause,
            stale,
            validates,
            conditions,
            completion,
            asks_for_whole,
            keeps_conditions,
            requested_at: steady,
            pending: None,
            is_passing: false,
            is_held: false,
            stored: Err(Refusal::Request),
            lead: None,
            sleeper: None,
            may_lead,
        }
    }

    /// Other requests wait for this one, which fills from now on.
    pub(super) fn set_lead(&mut self, lead: FillLead, now: Moment) {
        lead.begin(now);
        self.lead = Some(lead);
        self.keep_conditions();
    }

    /// The request is sent without the conditions of its client.
    pub(super) fn keep_conditions(&mut self) {
        if self.keeps_conditions {
            (self.conditions, self.asks_for_whole) = (Some(OwnConditions::none()), true);
        }
    }

    /// Records the time at which the request is sent to a backend.
    pub(super) fn note_sent(&mut self, steady: SystemTime) {
        self.requested_at = steady;
    }

    /// The time at which the request was sent to a backend.
    pub(super) fn requested_at(&self) -> SystemTime {
        self.requested_at
    }

    /// The validators that a backend gets in place of the client's conditions; `None` to send the client's.
    pub(super) fn conditions(&self) -> Option<&OwnConditions> {
        self.conditions.as_ref()
    }

    /// The stored response does not match the backend's: the whole response is requested.
    fn request_whole(&mut self) -> Verdict {
        (self.stale, self.validates, self.conditions) = (None, false, Some(OwnConditions::none()));
        Verdict::Again
    }

    /// What was collected is of no use: the backend is asked for what the client wants.
    #[cold]
    pub(super) fn ask_as_client(&mut self) {
        (self.completion, self.pending, self.conditions) = (None, None, None);
        (self.asks_for_whole, self.keeps_conditions) = (false, false);
    }

    /// The stored response that may replace an error.
    pub(super) fn into_stale(self) -> Option<Arc<Object>> {
        self.stale
    }

    /// Whether it belongs to the frontend of this route.
    pub(super) fn is_of(&self, route: &Route) -> bool {
        let mut frontend = Vec::new();
        key::write_frontend(&route.cluster.key, route.cluster.app(), &mut frontend);
        self.key.starts_with(&frontend)
    }

    /// Why the request is forwarded.
    pub(super) fn cause(&self) -> Cause {
        self.cause
    }

    /// Whether other requests may wait for the response to this one.
    pub(super) fn may_lead(&self) -> bool {
        self.may_lead
    }

    /// The key and selection under which other requests wait for the fill.
    pub(super) fn selection(&self) -> Arc<[u8]> {
        Arc::clone(&self.selection)
    }

    /// Whether storing this response is independent of the request's fields.
    pub(super) fn judges_without_fields(&self, response: &CacheResponse<'_>) -> bool {
        let is_first = self.stale.is_none() && self.completion.is_none() && !self.keeps_conditions;
        self.may_lead && is_first && response.status != 206 && !response.fields.has("vary")
    }

    /// Decides about the response of a backend.
    pub(super) fn judge(
        &mut self,
        view: &CacheRequest<'_>,
        response: &CacheResponse<'_>,
        options: &Options,
        store: &Store,
        (now, steady): (Moment, SystemTime),
    ) -> Verdict {
        if !view.is_retrieval() {
            invalidate(view, response, options, store);
            return Verdict::Forward;
        }
        if let Some(verdict) = self.judge_completion(view, response, options, store) {
            return verdict;
        }
        if let Some(stale) = &self.stale {
            let serve = |object: Arc<Object>, is_shadow| {
                let hits = object.count_hit();
                let (state, backend_status) = (status::State::Stale, Some(response.status));
                Verdict::Serve(object, Served { state, is_shadow, backend_status, waited: None, hits })
            };
            if response.status == 304 && self.validates {
                return match refresh::refresh(stale, view, response, options) {
                    Refresh::Good(object) => {
                        let is_of_use = object.is_fresh(steady);
                        let object = self.store(object, is_of_use, (store, options), now);
                        // It may be that the conditions ask for more now.
                        if parts::missing(view, &object).is_some() {
                            self.request_whole()
                        } else {
                            serve(object, false)
                        }
                    }
                    Refresh::GoodOnce(object, refusal) => {
                        if !refusal.is_of_request() {
                            store.drop_object(&self.key, stale);
                            end_fill(self.lead.take(), false, now);
                        }
                        serve(Arc::new(object), false)
                    }
                    Refresh::Other => {
                        store.drop_object(&self.key, stale);
                        self.request_whole()
                    }
                };
            }
            if lookup::may_replace_error(view, stale, Failure::Status(response.status), options, steady) {
                return serve(Arc::clone(stale), true);
            }
        }
        if view.is_head() {
            self.update_by_head(view, response, options, store);
            return Verdict::Forward;
        }
        // A part that nothing has asked for stands for nothing.
        let is_unasked = response.status == 206 && !view.fields.has("range");
        match if is_unasked { Err(Refusal::Status) } else { admit_within(view, response, options, store) } {
            Ok(pending) => {
                // An object that must be validated each time is of no use to waiting requests.
                if !pending.can_be_fresh(steady) {
                    end_fill(self.lead.take(), false, now);
                }
                let needs_none = self.needs_no_body(view, &pending);
                (self.pending, self.stored) = (Some(pending), Ok(()));
                if needs_none {
                    return Verdict::Gather;
                }
            }
            Err(refusal) => self.note_refusal(refusal, response.status, store, now),
        }
        Verdict::Forward
    }

    /// Whether only the cache needs the body of a response: the client has it, or does not want it. The backend did not get the
    /// client's conditions.
    fn needs_no_body(&self, view: &CacheRequest<'_>, pending: &PendingObject) -> bool {
        let outcome = || conditional::evaluate(view.fields, false, &pending.representation());
        self.conditions.is_some() && matches!(outcome(), Outcome::NotModified | Outcome::PreconditionFailed)
    }

    /// What is done with the response to a request for a part alone. `None` where it is a response like others.
    fn judge_completion(
        &mut self,
        view: &CacheRequest<'_>,
        response: &CacheResponse<'_>,
        options: &Options,
        store: &Store,
    ) -> Option<Verdict> {
        let (stored, missing) = self.completion.as_ref()?;
        if !matches!(response.status, 206 | 304 | 416) {
            self.completion = None;
            return None;
        }
        let admitted = admit_within(view, response, options, store).ok().filter(|_| response.status == 206);
        if let Some(pending) = admitted.filter(|pending| pending.completes(stored, missing)) {
            self.pending = Some(pending);
            return Some(Verdict::Gather);
        }
        store.drop_object(&self.key, stored);
        self.ask_as_client();
        Some(Verdict::Again)
    }

    /// The body has been collected: the response as a whole, joined with the stored parts if it is one. `None` if it is of no use.
    pub(super) fn join(&mut self, store: &Store, options: &Options, now: Moment) -> Option<(Arc<Object>, Served)> {
        let collected = self.pending.take()?.finish().ok()?;
        let (whole, cause, status) = match self.completion.take() {
            Some((stored, missing)) => {
                let joined = parts::join(&stored, collected, store.budget(), options).ok()?;
                (joined.body.missing(missing).is_none().then_some(joined)?, Cause::Partial, 206)
            }
            None => (collected, self.cause, 200),
        };
        let object = self.store(whole, true, (store, options), now);
        let (state, waited, hits) = (status::State::Miss, Some(cause), object.count_hit());
        Some((object, Served { state, is_shadow: false, backend_status: Some(status), waited, hits }))
    }

    /// Stores an object and ends the fill: waiting requests get the object if it `is_of_use` to them. If a purge since
    /// the look-up prevents storing, the object is good for this request alone.
    fn store(
        &mut self,
        object: Object,
        is_of_use: bool,
        (store, options): (&Store, &Options),
        now: Moment,
    ) -> Arc<Object> {
        match store.insert(Arc::clone(&self.key), object, self.ticket, options) {
            Ok(object) => {
                end_fill(self.lead.take(), is_of_use, now);
                object
            }
            Err(NotStored { reason, object }) => {
                end_unstored(self.lead.take(), reason, now);
                object
            }
        }
    }

    /// Records that the response is not stored. The refusal is remembered for other requests only if the response
    /// represents the target and the refusal is not caused by this request. Otherwise the fill has failed, and another
    /// request tries.
    fn note_refusal(&mut self, refusal: Refusal, status: u16, store: &Store, now: Moment) {
        self.stored = Err(refusal);
        let is_general = self.asks_for_whole && refresh::is_of_target(status) && !refusal.is_of_request();
        let lead = self.lead.take().filter(|_| is_general);
        end_fill(lead, false, now);
        // The backend would no longer send the stored response.
        if let Some(stale) = self.stale.as_ref().filter(|_| is_general) {
            store.drop_object(&self.key, stale);
        }
    }

    fn update_by_head(&self, view: &CacheRequest<'_>, response: &CacheResponse<'_>, options: &Options, store: &Store) {
        let Some(stale) = self.stale.as_ref().filter(|_| response.status == 200) else { return };
        match refresh::update_by_head(stale, view, response, options) {
            Refresh::Good(object) => drop(store.insert(Arc::clone(&self.key), object, self.ticket, options)),
            Refresh::GoodOnce(_, refusal) if !refusal.is_of_request() => store.drop_object(&self.key, stale),
            Refresh::GoodOnce(..) => {}
            Refresh::Other => store.make_object_stale(&self.key, stale),
        }
    }

    /// Writes the fields that describe the cache's part.
    pub(super) fn put_fields(&self, request: &Request, out: &mut Vec<u8>) {
        if matches!(request.method(), b"GET" | b"HEAD") {
            Forwarded { cause: self.cause, stored: self.stored }.put(out);
        }
    }

    /// Whether the body is being stored.
    pub(super) fn is_filling(&self) -> bool {
        self.pending.is_some()
    }

    /// The response is complete. Returns whether it is stored now: an object that is too large, or was purged
    /// meanwhile, was only forwarded.
    pub(super) fn complete(self, store: &Store, options: &Options, now: Moment) -> bool {
        let Some(pending) = self.pending else { return false };
        let (is_part, only_joins) = (pending.is_part(), pending.only_joins());
        let Ok(object) = pending.finish() else { return false };
        let stored = match is_part {
            true => store.insert_part(Arc::clone(&self.key), object, self.ticket, (options, only_joins)),
            false => store.insert(Arc::clone(&self.key), object, self.ticket, options),
        };
        let is_stored = stored.is_ok();
        match stored {
            Ok(_) => end_fill(self.lead, true, now),
            Err(NotStored { reason, .. }) => end_unstored(self.lead, reason, now),
        }
        is_stored
    }

    /// Discards the received body: its end is in doubt.
    #[cold]
    pub(super) fn give_up_fill(&mut self) {
        (self.pending, self.lead) = (None, None);
    }

    /// The client reads its response more slowly than the backend sends it. Waiting requests are not delayed by that
    /// while the rest `may_read_ahead`; otherwise another request fills for those that come later.
    #[cold]
    pub(super) fn client_is_slow(&mut self, may_read_ahead: bool) {
        if !may_read_ahead {
            self.lead = None;
        }
    }

    /// Whether requests wait for the body.
    pub(super) fn is_awaited(&self) -> bool {
        self.pending.is_some() && self.lead.is_some()
    }

    /// The rest of the body is slow to arrive: waiting requests start to read the part that has arrived.
    pub(super) fn publish(&mut self, now: Moment) {
        if let (Some(pending), Some(lead)) = (&mut self.pending, &mut self.lead)
            && !lead.is_published()
        {
            lead.publish(&pending.publish(self.ticket, now));
            self.sleeper = Some(lead.sleeper());
        }
    }

    /// Whether other requests read the body, so that it outlives the client.
    pub(super) fn has_readers(&self) -> bool {
        self.pending.as_ref().is_some_and(PendingObject::has_readers)
    }

    /// Whether readers of a body that is not stored have yet to catch up.
    pub(super) fn is_held(&self) -> bool {
        self.is_held
    }

    /// Checks whether the readers have caught up.
    pub(super) fn look_at_readers(&mut self) {
        let pending = self.pending.as_ref().filter(|_| self.is_passing);
        self.is_held = pending.is_some_and(|pending| pending.is_held(self.sleeper.as_ref()));
    }

    /// Whether the response with which another request fills the cache suits this request too.
    pub(super) fn may_read(&self, view: &CacheRequest<'_>, live: &LiveFill, options: &Options, at: SystemTime) -> bool {
        live.head.variant.is_selected_by(&mut RequestValues::of(view.fields))
            && matches!(
                lookup::decide(view, Some(&live.head), false, options, at),
                Decision::Hit | Decision::Stale | Decision::StaleWhileRevalidate
            )
    }

    /// The key.
    pub(super) fn key(&self) -> &[u8] {
        &self.key
    }

    /// Collects a part of the body.
    pub(super) fn collect(&mut self, bytes: &[u8], now: Moment) {
        let Some(pending) = &mut self.pending else { return };
        if let Err(fault) = pending.push(bytes, now) {
            self.is_passing = pending.has_readers();
            if !self.is_passing {
                self.pending = None;
            }
            match (self.lead.take(), fault) {
                (lead, BodyFault::TooLarge) => end_fill(lead, false, now),
                (Some(lead), BodyFault::NoRoom) => lead.release(),
                // The next request tries.
                (_, BodyFault::Incomplete | BodyFault::NoRoom) => {}
            }
        }
        if self.is_passing {
            self.look_at_readers();
        }
    }
}

/// Judges a response, and takes room for its body.
fn admit_within(
    view: &CacheRequest<'_>,
    response: &CacheResponse<'_>,
    options: &Options,
    store: &Store,
) -> Result<PendingObject, Refusal> {
    let mut pending = admit_to_eligible(view, response, options)?;
    pending.limit_to(store.largest(), store.budget()).map_err(|_| Refusal::TooLarge)?;
    Ok(pending)
}

/// Tells waiting requests that the cache can serve them, or that no fill can for a while.
fn end_fill(lead: Option<FillLead>, is_stored: bool, now: Moment) {
    match lead {
        Some(lead) if is_stored => lead.stored(),
        Some(lead) => lead.uncacheable(now),
        None => {}
    }
}

/// Tells those who wait for a fill that its object was not stored: each asks a backend.
#[cold]
fn end_unstored(lead: Option<FillLead>, reason: InsertError, now: Moment) {
    match (lead, reason) {
        // So will be the next one.
        (lead, InsertError::TooLarge) => end_fill(lead, false, now),
        (Some(lead), InsertError::Purged | InsertError::Evicted | InsertError::Present) => lead.release(),
        (None, _) => {}
    }
}

/// Invalidates stored responses after a successful unsafe request.
#[cold]
fn invalidate(view: &CacheRequest<'_>, response: &CacheResponse<'_>, options: &Options, store: &Store) {
    let mut key = Vec::new();
    for target in invalidation::targets(view, response.status, response.fields) {
        key.clear();
        options.key.write(&CacheRequest { method: b"GET", target: &target, ..*view }, &mut key);
        store.invalidate(&key);
    }
}
