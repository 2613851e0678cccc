//! The look-up of a request in the object cache: served from it, or sent to a backend.

use super::cache_view::with_view;
use super::caching::Caching;
use super::fetch::{Fetch, Selection};
use super::local_reply::LocalReply;
use super::refreshing;
use super::request_context::RequestContext;
use super::step_context::StepContext;
use super::store_request::DiskWish;
use super::transition::{Failure, Transition};
use super::{affinity, choosing};
use crate::base::clock::Moment;
use crate::base::counters::Counter;
use crate::cache::key;
use crate::cache::lookup::{self, Bypass, Cause, Decision};
use crate::cache::object::Object;
use crate::cache::options::Options;
use crate::cache::parts;
use crate::cache::refresh;
use crate::cache::request::CacheRequest;
use crate::cache::status::{self, Served};
use crate::cache::store::{Found, Store};
use crate::cache::vary::RequestValues;
use crate::cluster::Route;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The decision for a request.
enum Plan {
    Forward,
    Purge,
    Serve(Arc<Object>, status::State),
    /// The stale object is served, and refreshed meanwhile.
    ServeAndRefresh(Arc<Object>, Fetch),
    /// The disk may have what memory lacks.
    Load,
    OnlyIfCached,
    Fetch(Fetch),
}

/// Whether the cache takes part in a request with this route: the frontend's options enable it, or an earlier route of
/// the request did.
pub(super) fn takes_part(context: &RequestContext, route: &Route, cx: &StepContext<'_>) -> bool {
    context.caching.is_some() || (cx.core.cache.is_some() && uses_cache(route))
}

fn uses_cache(route: &Route) -> bool {
    route.cluster.options.cache.is_enabled && !route.cluster.options.is_disabled
}

/// Looks up a request, if the cache takes part.
#[inline(never)]
pub(super) fn start(
    mut context: Box<RequestContext>,
    route: Arc<Route>,
    cx: &mut StepContext<'_>,
) -> Result<Transition, Failure> {
    // The route was resolved a second time, and the cache has been consulted already.
    if context.caching.as_ref().is_some_and(|caching| caching.is_of(&route)) {
        return choosing::connect(context, route, cx);
    }
    context.caching = None;
    let Some(store) = cx.core.cache.clone().filter(|_| uses_cache(&route)) else {
        return choosing::connect(context, route, cx);
    };
    cx.common.held_route = Some(Arc::clone(&route));
    let mut key = std::mem::take(&mut cx.core.cache_key);
    key.clear();
    let request = &context.request;
    let mut lookup = Lookup {
        options: &route.cluster.options.cache,
        store: &store,
        now: cx.core.now,
        steady: cx.core.steady_time(),
        // The client names a backend to try, so other clients must not get the response.
        names_backend: affinity::named(request, &route.cluster, &cx.core.settings.forwarded).is_some(),
        may_purge: request.may_purge(),
        asked_disk: context.asked_disk,
        may_refresh: refreshing::may_start(cx),
        key: &mut key,
    };
    // The ticket is taken before the look-up: a purge from now on prevents storing, since the look-up may have seen the
    // purged object.
    let ticket = store.ticket();
    let plan = with_view(request, &route, |view| lookup.plan(view));
    let transition = match plan.unwrap_or(Plan::Forward) {
        Plan::Forward => choosing::connect(context, route, cx),
        Plan::Serve(object, state) => Ok(serve(context, object, state)),
        Plan::ServeAndRefresh(object, fetch) => {
            let caching = Caching::new(key.as_slice().into(), ticket, fetch, cx.core.steady_time());
            refreshing::start(&context.request, caching, &route, cx);
            Ok(serve(context, object, status::State::StaleUpdating))
        }
        Plan::Load => Ok(Transition::AskDisk(context, route, DiskWish::Load(key.as_slice().into()))),
        Plan::Purge => Ok(purge(context, route, (&store, &key), cx)),
        Plan::OnlyIfCached => Ok(give(context, 504, cx)),
        Plan::Fetch(fetch) => {
            let may_wait = fetch.selection.is_some() && context.waited.is_none();
            let caching = Box::new(Caching::new(key.as_slice().into(), ticket, fetch, cx.core.steady_time()));
            match may_wait {
                true => Ok(Transition::JoinFill(context, caching, route)),
                false => forward(context, caching, route, cx),
            }
        }
    };
    cx.core.cache_key = key;
    transition
}

fn serve(context: Box<RequestContext>, object: Arc<Object>, state: status::State) -> Transition {
    let (waited, hits) = (context.waited, object.count_hit());
    let served = Served { state, is_shadow: false, backend_status: None, waited, hits };
    Transition::ServeCached(context, object, served)
}

/// Sends a request to a backend, with the cache taking part.
pub(super) fn forward(
    mut context: Box<RequestContext>,
    caching: Box<Caching>,
    route: Arc<Route>,
    cx: &mut StepContext<'_>,
) -> Result<Transition, Failure> {
    if matches!(context.request.method(), b"GET" | b"HEAD") {
        cx.common.stats.cache = Some(Counter::CacheMisses);
    }
    context.caching = Some(caching);
    choosing::connect(context, route, cx)
}

/// One look-up.
struct Lookup<'a> {
    options: &'a Options,
    store: &'a Store,
    now: Moment,
    steady: SystemTime,
    names_backend: bool,
    may_purge: bool,
    asked_disk: bool,
    /// A refresh without a client may begin.
    may_refresh: bool,
    key: &'a mut Vec<u8>,
}

impl Lookup<'_> {
    fn plan(&mut self, view: &CacheRequest<'_>) -> Plan {
        let options = self.options;
        if view.method == b"PURGE" && self.may_purge {
            options.key.write(view, self.key);
            return Plan::Purge;
        }
        match lookup::bypass(view, options) {
            None if self.names_backend => return Plan::Forward,
            None => {}
            // A successful unsafe request invalidates stored responses.
            Some(Bypass::Method) => {
                key::write_frontend(view.frontend, view.app, self.key);
                return Plan::Fetch(Fetch {
                    cause: Cause::Bypass,
                    stale: None,
                    validates: false,
                    completion: None,
                    asks_for_whole: false,
                    keeps_conditions: false,
                    selection: None,
                    may_lead: false,
                });
            }
            Some(_) => return Plan::Forward,
        }
        options.key.write(view, self.key);
        let mut values = RequestValues::of(view.fields);
        let Found { object, other } = self.store.get(self.key, &mut values);
        // All variants of a key are loaded at once, and leave memory at once.
        let is_unknown = object.is_none() && other.is_none() && !self.asked_disk;
        if is_unknown && self.store.tier().is_some_and(|tier| tier.has(self.key)) {
            return Plan::Load;
        }
        if let Some(object) = &object
            && let Some(missing) = parts::missing(view, object)
        {
            return self.plan_for_part(view, (object, missing), &mut values);
        }
        let decision = lookup::decide(view, object.as_deref(), other.is_some(), options, self.steady);
        let mut is_enough = false;
        let cause = match (decision, &object) {
            (Decision::OnlyIfCached, _) => return Plan::OnlyIfCached,
            (Decision::Hit, Some(object)) => return Plan::Serve(Arc::clone(object), status::State::Hit),
            (Decision::Stale, Some(object)) => return Plan::Serve(Arc::clone(object), status::State::Stale),
            (Decision::StaleWhileRevalidate, Some(object)) => match self.is_refreshed(object) {
                true => return Plan::Serve(Arc::clone(object), status::State::StaleUpdating),
                false => {
                    is_enough = true;
                    Cause::Stale
                }
            },
            (Decision::Revalidate(Cause::Stale) | Decision::Miss(Cause::Stale), Some(object))
                if lookup::may_serve_while_updating(object, options, self.steady) =>
            {
                if self.is_refreshed(object) {
                    return Plan::Serve(Arc::clone(object), status::State::StaleUpdating);
                }
                is_enough = true;
                Cause::Stale
            }
            (Decision::Revalidate(cause) | Decision::Miss(cause), _) => cause,
            // These decisions require an object.
            (Decision::Hit | Decision::Stale | Decision::StaleWhileRevalidate, None) => Cause::UriMiss,
        };
        self.fetch(view, Found { object, other }, (cause, is_enough), &mut values)
    }

    /// A request to a backend. If the stale object `is_enough` for its client, that does not wait for the response.
    fn fetch(
        &self,
        view: &CacheRequest<'_>,
        Found { object, other }: Found,
        (cause, is_enough): (Cause, bool),
        values: &mut RequestValues<'_>,
    ) -> Plan {
        let (options, fills) = (self.options, refresh::fills(view));
        let validates = fills && object.as_ref().is_some_and(|object| object.has_validator());
        let keeps_conditions = fills && !validates && refresh::has_conditions(view);
        let asks_for_whole = fills && !keeps_conditions;
        let selection = if fills { self.selection(object.as_ref().or(other.as_ref()), values) } else { None };
        let may_lead = fills && refresh::may_lead(view, options);
        // A request that fills for no other is not refreshed behind its client.
        let refreshes = is_enough && self.may_refresh && may_lead && selection.is_some();
        let served = object.clone().filter(|_| refreshes);
        let (stale, completion) = (object, None);
        let fetch =
            Fetch { cause, stale, validates, completion, asks_for_whole, keeps_conditions, selection, may_lead };
        match served {
            Some(object) => Plan::ServeAndRefresh(object, fetch),
            None => Plan::Fetch(fetch),
        }
    }

    /// What is stored is only a part of what the request wants. If that is fresh, a backend is asked for the rest.
    #[cold]
    fn plan_for_part(
        &self,
        view: &CacheRequest<'_>,
        (object, missing): (&Arc<Object>, Range<u64>),
        values: &mut RequestValues<'_>,
    ) -> Plan {
        let decide = |object| lookup::decide(view, object, false, self.options, self.steady);
        if decide(None) == Decision::OnlyIfCached {
            return Plan::OnlyIfCached;
        }
        let is_fresh = decide(Some(&**object)) == Decision::Hit;
        let may_complete = is_fresh && parts::may_complete(view, object, &missing, self.options);
        let completion = may_complete.then(|| (Arc::clone(object), missing));
        let fills = refresh::fills(view);
        let asks_for_whole = fills && (may_complete || !refresh::has_conditions(view));
        let selection = if fills { self.selection(Some(object), values) } else { None };
        let may_lead = asks_for_whole && refresh::may_lead(view, self.options);
        let (cause, stale, validates, keeps_conditions) = (Cause::Partial, None, false, false);
        Plan::Fetch(Fetch {
            cause,
            stale,
            validates,
            completion,
            asks_for_whole,
            keeps_conditions,
            selection,
            may_lead,
        })
    }

    /// Whether another request refreshes the object; if not, this one does.
    fn is_refreshed(&self, object: &Object) -> bool {
        !object.claim_refresh(self.now, self.options.update_lock_timeout)
    }

    /// The key and selection under which other requests wait for the fill. `None` if the response will not be stored.
    fn selection(&self, learned: Option<&Arc<Object>>, values: &mut RequestValues<'_>) -> Option<Selection> {
        let Some(learned) = learned else { return Some(Selection::Key) };
        let mut selection = self.key.clone();
        let is_selectable = learned.variant.write_selection(values, &mut selection);
        is_selectable.then(|| Selection::OfVariant(selection.into()))
    }
}

/// Makes what there is of a key stale. The client is told once none of it is on the disk.
#[cold]
fn purge(
    context: Box<RequestContext>,
    route: Arc<Route>,
    (store, key): (&Store, &[u8]),
    cx: &mut StepContext<'_>,
) -> Transition {
    let was_on_disk = store.tier().is_some_and(|tier| tier.may_have(key));
    let status = if store.make_stale(key) || was_on_disk { 200 } else { 404 };
    match store.tier() {
        Some(_) => Transition::AskDisk(context, route, DiskWish::Settle(status)),
        None => give(context, status, cx),
    }
}

/// A local reply without a body.
#[cold]
pub(super) fn give(context: Box<RequestContext>, status: u16, cx: &mut StepContext<'_>) -> Transition {
    let uploaded = context.upload.is_done();
    let reply = LocalReply { status, fields: b"", retry_after: Duration::ZERO, error: None, body: b"" };
    reply.give(Some(context), uploaded, cx)
}
