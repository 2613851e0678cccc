//! A request to a backend in which the object cache takes part, and the verdict on its response.

use crate::cache::lookup::Cause;
use crate::cache::object::Object;
use crate::cache::status::Served;
use std::ops::Range;
use std::sync::Arc;

/// A stored response, and the places of its body that it lacks for a request.
pub(super) type Completion = (Arc<Object>, Range<u64>);

/// A request to a backend.
pub(super) struct Fetch {
    pub(super) cause: Cause,
    pub(super) stale: Option<Arc<Object>>,
    pub(super) validates: bool,
    /// The stored response that lacks a part: only that is requested.
    pub(super) completion: Option<Completion>,
    pub(super) asks_for_whole: bool,
    /// If the request fills for others, its conditions are not sent, and evaluated here.
    pub(super) keeps_conditions: bool,
    /// The key and selection under which other requests wait for the fill; `None` if none may.
    pub(super) selection: Option<Selection>,
    pub(super) may_lead: bool,
}

/// The name under which other requests wait for a fill.
pub(super) enum Selection {
    /// The key alone: no variant is known.
    Key,
    /// The key, and the values of the fields that a variant was selected by.
    OfVariant(Arc<[u8]>),
}

/// The verdict on a response.
pub(super) enum Verdict {
    Forward,
    /// The client gets this object in place of the response.
    Serve(Arc<Object>, Served),
    /// The request is sent again: the backend has something else than what is stored.
    Again,
    /// The body is collected first: it is the part that a stored response lacks, or the client's conditions need none of it.
    Gather,
}
