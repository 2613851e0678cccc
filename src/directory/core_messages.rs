//! Messages from cores to the source of routes.

use super::SubscriberId;
use crate::base::clock::Moment;
use crate::cluster::Backend;
use std::net::IpAddr;
use std::sync::Arc;

/// A look-up by a core.
#[derive(Debug)]
pub(super) struct Lookup {
    pub(super) core: SubscriberId,
    pub(super) host: Arc<str>,
    pub(super) client: Option<IpAddr>,
}

/// A member that a core has marked.
#[derive(Debug)]
pub(super) struct DeadMark {
    pub(super) host: Box<str>,
    pub(super) backend: Arc<Backend>,
    /// [`Moment::ZERO`] for a mark that is removed early.
    pub(super) until: Moment,
}
