//! A refresh that has yet to begin.

use super::caching::Caching;
use super::request_context::RequestContext;
use crate::cluster::Route;
use std::sync::Arc;

/// A refresh of a stored response without a client, which the owner begins ([`super::Exchange::refresh`]).
#[derive(Debug)]
pub struct RefreshSeed {
    pub(super) context: Box<RequestContext>,
    pub(super) caching: Box<Caching>,
    pub(super) route: Arc<Route>,
}
